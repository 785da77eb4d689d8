"""Paths through a library: a journey from one track to another, an axis between two subgenres.

Dynamic programming (Viterbi) chooses all tracks of a path together. A journey has the greatest
possible weakest step: of all paths of its length, none has a smallest cosine that is greater (the
bottleneck path problem; Pollack, "The maximum capacity through a network", Operations Research 8,
1960). Of those it takes small steps near the arc between the two tracks. An axis has the most even
spacing.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from subgenre.errors import PlaylistError
from subgenre.metrics.vectors import unit
from subgenre.search.collection import Collection
from subgenre.search.playlists import Place, Seed, label, place
from subgenre.search.ranking import UNKNOWN_S, Hit, Limits, Picker, hits_of
from subgenre.search.track_rows import Filter

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]

POOL = 1000  # tracks that a path is chosen from
STRAY = 0.5  # cost of the squared distance from the arc; a squared step costs 1
GAP = 1.5  # even steps along an axis without a track
SAMPLE = 500  # tracks whose nearest track is measured
_TRIES = 2000  # tracks offered to a path before it counts as impossible


@dataclass(frozen=True)
class Axis:
    """A line between two subgenres: from one centroid [D] to the other."""

    start: tuple[str, str]
    end: tuple[str, str]
    origin: Doubles
    direction: Doubles

    def position(self, vectors: NDArray[np.floating]) -> Doubles:
        """Return the positions of vectors [B, D]: 0 at the first centroid, 1 at the second."""
        x = np.asarray(vectors, dtype=np.float64) - self.origin
        return np.asarray(x @ self.direction / max(float(self.direction @ self.direction), 1e-12))

    def point(self, position: float | Doubles) -> Doubles:
        """Return the vector [D] at a position, or [B, D] at [B, 1]; its norm is not 1."""
        return self.origin + position * self.direction


def journey(
    tracks: Collection, start: Seed, end: Seed, limits: Limits, filter: Filter | None = None
) -> list[Hit]:
    """Find the path from one track to another whose weakest step is the strongest.

    It begins and ends with the two. In a library of over `POOL` tracks it is chosen from the
    `POOL` nearest to the arc between them. A seed that is not in the collection is replaced by
    its nearest track. The filter is for the tracks between the ends. Minutes become tracks by the
    median duration of the collection.

    Returns:
        hits in order; the score is the position on the path (0 to 1), the cosine is that to the
        track before, NaN for the first.

    Raises:
        PlaylistError: an unknown track; start and end the same; a length under two tracks;
            too few tracks between them.
    """
    ends = (place(tracks, start), place(tracks, end))
    mask = tracks.allowed(filter)
    first = _row(tracks, ends[0], mask)
    mask[first] = False
    last = _row(tracks, ends[1], mask)
    if first == last:
        raise PlaylistError("both ends of the journey are the same track; name two tracks")
    mask[last] = False
    count = length(tracks, limits)
    if count < 2:
        raise PlaylistError(f"a journey needs at least 2 tracks, not {count}")
    rows = _smoothest(tracks, first, last, count, mask, limits)
    x = tracks.vectors(rows)
    before = np.concatenate([[np.nan], (x[1:] * x[:-1]).sum(axis=1)])
    return hits_of(tracks, rows, before, [i / (len(rows) - 1) for i in range(len(rows))])


def axis(tracks: Collection, name: str) -> Axis:
    """Find the axis between two subgenres named 'A:B'."""
    start, end = _split(tracks, name)
    if start == end:
        raise PlaylistError(f"the axis '{name}' has the same subgenre twice; name two")
    centroids = [_centroid(tracks, pair) for pair in (start, end)]
    return Axis(start, end, centroids[0], centroids[1] - centroids[0])


def positions(tracks: Collection, line: Axis) -> Doubles:
    """Return the position of every row of the collection on an axis: [N]."""
    count = len(tracks.alive)
    blocks = np.array_split(np.arange(count), 1 + count // 65_536)
    return np.concatenate([line.position(tracks.vectors(block)) for block in blocks])


def along(
    tracks: Collection,
    line: Axis,
    limits: Limits,
    filter: Filter | None = None,
    *,
    between: tuple[float, float] | None = None,
) -> list[Hit]:
    """Find tracks spread evenly along an axis, in its order.

    The first is the nearest to one end, the last the nearest to the other, and those between have
    the smallest sum of squared spacings. There are fewer than k where the range has fewer tracks.

    Args:
        between: lowest and highest position of a track; None: from centroid to centroid, without
            tracks that are nearer to another subgenre than to the arc between the two.

    Returns:
        hits by position, with the position as score and the cosine to the point of the axis.
    """
    low, high = _range(between)
    where = positions(tracks, line)
    rows, near = _candidates(tracks, line, where, filter, between)
    picker = Picker(tracks, replace(limits, k=2, minutes=None))
    for end in (low, high)[: length(tracks, limits)]:
        picker.extend_by_one(rows[np.argsort(np.abs(where[rows] - end), kind="stable")])
    ends = sorted(picker.rows, key=lambda row: where[row])
    if len(ends) == 2:
        inside = (where[rows] > where[ends[0]]) & (where[rows] < where[ends[1]])
        rows = _thinned(rows[inside], where[rows[inside]], near[inside])
        rows = np.array([ends[0], *rows, ends[1]])
        step = np.triu(np.square(where[rows][None] - where[rows][:, None]), 1)
        step[np.tril_indices(len(rows))] = np.inf
        counts = range(min(length(tracks, limits), len(rows)), 1, -1)
        paths = (route(tracks, rows, step, np.zeros((n, len(rows))), limits) for n in counts)
        ends = next(path for path in paths if path)
    x, at = tracks.vectors(ends), where[ends]
    cosines = (x * unit(line.point(at[:, None]))).sum(axis=1)
    return hits_of(tracks, ends, cosines, at)


def gaps(
    tracks: Collection,
    line: Axis,
    count: int,
    filter: Filter | None = None,
    *,
    between: tuple[float, float] | None = None,
) -> list[tuple[float, float]]:
    """Find where an axis has no track over more than `GAP` even steps of a list of `count`."""
    low, high = _range(between)
    where = positions(tracks, line)
    rows, _ = _candidates(tracks, line, where, filter, between)
    inside = where[rows][(where[rows] >= low) & (where[rows] <= high)]
    at = np.concatenate([[low], np.sort(inside), [high]])
    wide = np.flatnonzero(np.diff(at) * max(count - 1, 1) > GAP * (high - low))
    return [(float(at[i]), float(at[i + 1])) for i in wide]


def leap(tracks: Collection, hits: Sequence[Hit]) -> int:
    """Return the place of the weakest step's second track if that step is a leap, else 0.

    A leap is over twice as wide as an even step from end to end, and as the median distance of a
    track to its nearest, measured as angles.
    """
    angles = np.arccos(np.clip([hit.cosine for hit in hits[1:]], -1, 1))
    x = tracks.vectors([hits[0].row, hits[-1].row])
    even = np.arccos(np.clip(x[0] @ x[1], -1, 1)) / len(angles)
    some = tracks.live[np.linspace(0, len(tracks) - 1, min(len(tracks), SAMPLE)).astype(int)]
    found = tracks.rank(tracks.vectors(some), 2, mutual=False)
    typical = np.arccos(np.clip(np.median([cosines[-1] for _, cosines in found]), -1, 1))
    widest = int(angles.argmax())
    return widest + 1 if angles[widest] > 2 * max(even, typical) else 0


def _range(between: tuple[float, float] | None) -> tuple[float, float]:
    return (0.0, 1.0) if between is None else (min(between), max(between))


def _candidates(
    tracks: Collection,
    line: Axis,
    where: Doubles,
    filter: Filter | None,
    between: tuple[float, float] | None,
) -> tuple[Ints, Doubles]:
    """Return the rows that a list along an axis may hold, and how near they are to it."""
    mask = tracks.allowed(filter)
    if between is not None:
        low, high = _range(between)
        mask &= (low <= where) & (where <= high)
    rows = np.flatnonzero(mask)
    near = _nearness(tracks, line, rows)
    if between is None:
        for pair in tracks.labels:
            if pair not in (line.start, line.end):
                like = near >= tracks.vectors(rows) @ _centroid(tracks, pair)
                rows, near = rows[like], near[like]
    return rows, near


def _centroid(tracks: Collection, pair: tuple[str, str]) -> Doubles:
    """Return the centroid [D] of a subgenre, of norm 1."""
    members = tracks.vectors(tracks.members("/".join(pair)))
    return np.asarray(unit(members.mean(axis=0, dtype=np.float64, keepdims=True))[0])


def _nearness(tracks: Collection, line: Axis, rows: Ints) -> Doubles:
    """Return the cosine of each row to the nearest point of the arc between the two centroids."""
    across = line.direction - (line.direction @ line.origin) * line.origin
    x = tracks.vectors(rows).astype(np.float64) @ np.stack([line.origin, unit(across[None])[0]], 1)
    angle = np.arctan2(x[:, 1], x[:, 0])
    end = np.arccos(np.clip((line.origin + line.direction) @ line.origin, -1, 1))
    return np.asarray(np.hypot(*x.T) * np.cos(angle - np.clip(angle, 0, end)))


def _thinned(rows: Ints, where: Doubles, near: Doubles) -> Ints:
    """Order rows by position; keep `POOL` of more, the nearest to the axis in each part of it."""
    order = np.argsort(where, kind="stable")
    if len(rows) > POOL:
        part = np.floor(POOL * (where - where.min()) / max(np.ptp(where), 1e-12))
        best = np.lexsort((-near, part))
        rank = np.arange(len(rows)) - np.searchsorted(part[best], part[best])
        order = order[np.isin(order, best[np.argsort(rank, kind="stable")[:POOL]])]
    return np.asarray(rows[order])


def arc(start: Floats, end: Floats, count: int) -> Doubles:
    """Return points [count, D] evenly on the great circle from one unit vector to another."""
    a, b = np.asarray(start, np.float64), np.asarray(end, np.float64)
    aside = b - (a @ b) * a
    norm = float(np.linalg.norm(aside))
    if norm < 1e-6:  # equal or opposite: any great circle will do
        aside = np.eye(len(a))[int(np.argmin(np.abs(a)))]
        aside = aside - (a @ aside) * a
        norm = float(np.linalg.norm(aside))
    angle = np.linspace(0.0, float(np.arccos(np.clip(a @ b, -1.0, 1.0))), count)[:, None]
    return np.asarray(np.cos(angle) * a + np.sin(angle) * aside / norm)


def _smoothest(
    tracks: Collection, first: int, last: int, count: int, mask: NDArray[np.bool_], limits: Limits
) -> list[int]:
    """Return the rows of the path of `count` tracks whose smallest cosine is the greatest."""
    rows = np.flatnonzero(mask)
    if len(rows) > POOL:
        start, end = tracks.vectors([first, last])
        points = arc(start, end, count)
        found = tracks.rank(points, POOL, allowed=mask, mutual=False)
        by_rank = np.stack([ranked for ranked, _ in found], axis=1).ravel()
        rows = by_rank[np.sort(np.unique(by_rank, return_index=True)[1])][:POOL]
    rows = np.array([first, *rows, last])
    x = tracks.vectors(rows)
    cosine = np.asarray(x @ x.T, dtype=np.float64)
    np.fill_diagonal(cosine, -np.inf)

    def path(weakest: float) -> list[int] | None:
        step = np.where(cosine >= weakest, 2 - 2 * cosine, np.inf)
        for length in dict.fromkeys((count, -(-count // 2), min(count, 5))):
            stray = STRAY * (2 - 2 * arc(x[0], x[-1], length) @ x.T)
            found = route(tracks, rows, step, stray, limits)
            if found and (
                found := _lengthened(tracks, found, rows, cosine, weakest, count, limits)
            ):
                return found
        return None

    bound = _widest(cosine, count)
    best = path(bound)
    if best is None:  # a repeated track, or one that a limit excludes, is on every such path
        weaker = np.unique(cosine[np.isfinite(cosine) & (cosine < bound)])[::-1]
        if not len(weaker) or path(weaker[-1]) is None:
            raise PlaylistError(
                f"too few tracks for a journey of {count}; request fewer, or remove a filter"
            )
        at = bisect.bisect_left(weaker, True, key=lambda weakest: path(weakest) is not None)
        best = path(weaker[at])
    return best or []


def _lengthened(
    tracks: Collection,
    path: list[int],
    rows: Ints,
    cosine: Doubles,
    weakest: float,
    count: int,
    limits: Limits,
) -> list[int] | None:
    """Insert rows until a path has `count`, each where its weaker step is the strongest."""
    picker = Picker(tracks, replace(limits, k=None, minutes=None), chosen=path)
    at = {int(row): i for i, row in enumerate(rows)}
    points = [at[row] for row in path]
    while len(points) < count:
        weaker = np.minimum(cosine[points[:-1]], cosine[points[1:]])
        weaker[:, points] = -np.inf
        order = np.argsort(-weaker, axis=None, kind="stable")
        order = order[: np.count_nonzero(weaker >= weakest)]
        place, point = np.unravel_index(order, weaker.shape)
        for gap, new in zip(place.tolist(), point.tolist(), strict=True):
            if picker.offer(int(rows[new])):
                points.insert(gap + 1, new)
                break
        else:
            return None
    return [int(rows[i]) for i in points]


def _widest(cosine: Doubles, count: int) -> float:
    """Return the greatest weakest step of `count` points, repeats allowed, from first to last."""
    reach = cosine[0]
    for _ in range(count - 2):
        reach = np.minimum(reach[1:-1, None], cosine[1:-1]).max(axis=0, initial=-np.inf)
    return float(reach[-1])


def route(
    tracks: Collection, rows: Ints, step: Doubles, stray: Doubles, limits: Limits
) -> list[int] | None:
    """Find the cheapest path from the first row to the last; None: no path keeps the limits.

    Depth-first search in the order of the costs that dynamic programming gives without the limits.

    Args:
        rows: [M], different rows. step: [M, M], cost of each step, infinite where there is none.
        stray: [count, M], cost of each row at each place of the path.
    """
    count = len(stray)
    rest = [np.append(np.full(len(rows) - 1, np.inf), 0.0)]  # cost from each row to the end
    for here in stray[-2:0:-1]:
        rest.append(here + (step + rest[-1]).min(axis=1))
    picker = Picker(tracks, replace(limits, k=None, minutes=None), chosen=rows[[0, -1]].tolist())
    path = [0]
    choices = [_by_cost(step[0] + rest[count - 2])]
    for _ in range(_TRIES):
        if len(path) == count - 1:
            return [*(int(rows[i]) for i in path), int(rows[-1])]
        point = next(choices[-1], None)
        if point is not None:
            if picker.offer(int(rows[point])):
                path.append(point)
                choices.append(_by_cost(step[point] + rest[count - 1 - len(path)]))
        elif len(path) > 1:
            choices.pop()
            path.pop()
            picker.take_back()
        else:
            break
    return None


def _by_cost(cost: Doubles) -> Iterator[int]:
    """Yield the points of a finite cost, cheapest first."""
    order = np.argsort(cost, kind="stable")
    return iter(order[: np.count_nonzero(np.isfinite(cost))].tolist())


def _row(tracks: Collection, seed: Place, mask: NDArray[np.bool_]) -> int:
    """Return the row of a seed, or the row nearest to its vector."""
    if seed.row is not None:
        return seed.row
    found = tracks.rank(seed.vector[None], 1, allowed=mask, mutual=False)[0][0]
    if not len(found):
        raise PlaylistError("no track is left to begin or end with; remove a filter")
    return int(found[0])


def length(tracks: Collection, limits: Limits) -> int:
    """Return the length in tracks; minutes become tracks by the median duration."""
    if limits.minutes is None:
        return limits.k if limits.k is not None else 10
    known = tracks.durations_s()
    typical = float(np.median(known)) if len(known) else UNKNOWN_S
    count = max(2, round(60 * limits.minutes / typical))
    return count if limits.k is None else min(count, limits.k)


def _split(tracks: Collection, name: str) -> tuple[tuple[str, str], tuple[str, str]]:
    """Read 'A:B'; a name may itself have colons, so each colon is tried."""
    problems = [PlaylistError(f"the axis '{name}' has no colon; write 'Subgenre A:Subgenre B'")]
    for colon in re.finditer(":", name):
        try:
            return label(tracks, name[: colon.start()]), label(tracks, name[colon.end() :])
        except PlaylistError as problem:
            problems.append(problem)
    raise problems[:2][-1]
