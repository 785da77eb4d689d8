"""Paths through a library: a journey from one track to another, an axis between two subgenres.

A straight line between two tracks leads through places where no music is. So the waypoints on the
arc between them only say about where to be; the tracks are chosen together, by dynamic
programming (Viterbi), so that each is near its waypoint and near the track before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from subgenre.errors import PlaylistError
from subgenre.search.collection import Collection
from subgenre.search.playlists import Place, Seed, label, place
from subgenre.search.ranking import UNKNOWN_S, Hit, Limits, Picker
from subgenre.search.track_rows import Filter

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

CANDIDATES = 24  # tracks looked at for each waypoint
STRAY = 0.5  # what a squared distance from the waypoint costs, where a squared step costs 1
_ROUNDS, _DEEP = 50, 1000


@dataclass(frozen=True)
class Axis:
    """A line between two subgenres: from one centroid [D] to the other."""

    start: tuple[str, str]
    end: tuple[str, str]
    origin: Doubles
    direction: Doubles

    def position(self, vectors: NDArray[np.floating]) -> Doubles:
        """Where vectors [B, D] lie along the axis: 0 at the first centroid, 1 at the second."""
        x = np.asarray(vectors, dtype=np.float64) - self.origin
        return np.asarray(x @ self.direction / max(float(self.direction @ self.direction), 1e-12))

    def point(self, position: float) -> Doubles:
        """Vector [D] at a position, not of unit norm."""
        return self.origin + position * self.direction


def journey(
    tracks: Collection,
    start: Seed,
    end: Seed,
    limits: Limits | None = None,
    wanted: Filter | None = None,
) -> list[Hit]:
    """Find a path from one track to another in small steps; both stand in it at its ends.

    A seed from outside the collection stands for its nearest track.

    Args:
        tracks: the collection. start, end: seeds.
        limits: length by tracks, or by minutes with the collection's median duration.
        wanted: which rows may stand between the ends.

    Returns:
        hits in order, with the place on the way as score (0 to 1) and the cosine to the track
        before.

    Raises:
        PlaylistError: an unknown track; start and end the same; fewer than two tracks wanted;
            too few tracks between them.
    """
    ends = (place(tracks, start), place(tracks, end))
    mask = tracks.allowed(wanted)
    first = _row(tracks, ends[0], mask)
    mask[first] = False
    last = _row(tracks, ends[1], mask)
    if first == last:
        raise PlaylistError("the journey begins and ends with the same track; name two")
    mask[last] = False
    count = length(tracks, limits or Limits())
    if count < 2:
        raise PlaylistError(f"a journey of {count} tracks has no two ends; ask for 2 or more")
    vectors = tracks.vectors([first, last])
    points = arc(vectors[0], vectors[1], count)
    rows = _path(tracks, (first, last), points, mask, limits or Limits())
    x = tracks.vectors(rows)
    before = np.concatenate([[1.0], (x[1:] * x[:-1]).sum(axis=1)])
    told = tracks.tracks(rows)
    return [
        Hit(track, row, float(cosine), i / (len(rows) - 1))
        for i, (track, row, cosine) in enumerate(zip(told, rows, before, strict=True))
    ]


def axis(tracks: Collection, name: str) -> Axis:
    """Find the axis between two subgenres named 'A:B'.

    Raises:
        PlaylistError: no colon, an unknown subgenre (the nearest is told), or one subgenre twice.
    """
    start, end = _split(tracks, name)
    if start == end:
        raise PlaylistError(f"the axis '{name}' begins and ends with one subgenre; name two")
    centroids = []
    for pair in (start, end):
        mean = tracks.vectors(tracks.members("/".join(pair))).mean(axis=0, dtype=np.float64)
        centroids.append(mean / max(float(np.linalg.norm(mean)), 1e-12))
    return Axis(start, end, centroids[0], centroids[1] - centroids[0])


def positions(tracks: Collection, line: Axis) -> Doubles:
    """Where every row of the collection lies along an axis: [N]."""
    every = np.arange(tracks.rows.num_rows)
    blocks = [every[start : start + 65_536] for start in range(0, len(every), 65_536)]
    return np.concatenate([np.zeros(0), *(line.position(tracks.vectors(b)) for b in blocks)])


def along(
    tracks: Collection,
    line: Axis,
    limits: Limits | None = None,
    wanted: Filter | None = None,
    *,
    between: tuple[float, float] | None = None,
) -> list[Hit]:
    """Find tracks spread evenly along an axis, in its order.

    At each of k points between the ends the track nearest to the point is taken; fewer than k
    where fewer lie in the range.

    Args:
        tracks: the collection. line: of `axis`. limits: length and caps. wanted: which rows.
        between: first and last position that a track may have; 0 and 1 are the two centroids.
            None: the points lie from 0 to 1, and the tracks where they will.

    Returns:
        hits by position, with the position as score and the cosine to the point of the axis.
    """
    limits = limits or Limits()
    mask = tracks.allowed(wanted)
    low, high = (0.0, 1.0) if between is None else sorted(between)
    if between is not None:
        every = positions(tracks, line)
        mask &= (low <= every) & (every <= high)
    count = min(length(tracks, limits), int(np.count_nonzero(mask)))
    picker = Picker(tracks, replace(limits, k=count, minutes=None))
    for position in np.linspace(low, high, count):
        for row in _nearest(tracks, line.point(float(position)), mask):
            if picker.full or picker.offer(row):
                break
        mask[picker.rows] = False
    rows = np.array(picker.rows, dtype=np.int64)
    where = line.position(tracks.vectors(rows))
    order = np.lexsort((rows, where))
    return [
        Hit(track, int(row), _cosine(tracks, int(row), line.point(float(at))), float(at))
        for track, row, at in zip(
            tracks.tracks(rows[order]), rows[order], where[order], strict=True
        )
    ]


def arc(start: Floats, end: Floats, count: int) -> Doubles:
    """Points [count, D] evenly on the great circle from one unit vector to another."""
    a, b = np.asarray(start, np.float64), np.asarray(end, np.float64)
    aside = b - (a @ b) * a
    norm = float(np.linalg.norm(aside))
    if norm < 1e-6:  # equal or opposite: any great circle serves, so one by the smallest component
        aside = np.eye(len(a))[int(np.argmin(np.abs(a)))]
        aside = aside - (a @ aside) * a
        norm = float(np.linalg.norm(aside))
    angle = np.linspace(0.0, float(np.arccos(np.clip(a @ b, -1.0, 1.0))), count)[:, None]
    return np.asarray(np.cos(angle) * a + np.sin(angle) * aside / norm)


def _path(
    tracks: Collection,
    ends: tuple[int, int],
    points: Doubles,
    mask: NDArray[np.bool_],
    limits: Limits,
) -> list[int]:
    """Choose one track a waypoint; what breaks the limits is struck out and the choice repeated.

    Where limits are so tight that this comes to no end, each waypoint takes the nearest track that
    is left, one after another.
    """
    rules = Limits(k=None, per_artist=limits.per_artist, versions=limits.versions)
    found = tracks.rank(points[1:-1], CANDIDATES, allowed=mask) if len(points) > 2 else []
    lists = [[ends[0]], *(rows.tolist() for rows, _ in found), [ends[1]]]
    for _ in range(_ROUNDS):
        path = viterbi([tracks.vectors(rows) for rows in lists], points)
        rows = [rows[i] for rows, i in zip(lists, path, strict=True)]
        picker = _picker(tracks, rules, ends)
        wrong = [i for i in range(1, len(rows) - 1) if not picker.offer(rows[i])]
        if not wrong:
            return rows
        for i in wrong:
            lists[i].remove(rows[i])
        if not all(lists):
            break
    return _one_by_one(tracks, ends, points, mask, _picker(tracks, rules, ends))


def _picker(tracks: Collection, rules: Limits, ends: tuple[int, int]) -> Picker:
    picker = Picker(tracks, rules)
    for row in ends:
        picker.offer(row, force=True)
    return picker


def _one_by_one(
    tracks: Collection,
    ends: tuple[int, int],
    points: Doubles,
    mask: NDArray[np.bool_],
    picker: Picker,
) -> list[int]:
    left = mask.copy()
    for point in points[1:-1]:
        nearest = tracks.rank(point[None], _DEEP, allowed=left)[0][0]
        if not any(picker.offer(int(row)) for row in nearest):
            raise PlaylistError(
                f"too few tracks for {len(points)} stops between these two; ask for fewer, or "
                "drop a filter"
            )
        left[picker.rows[-1]] = False
    return [ends[0], *picker.rows[2:], ends[1]]


def viterbi(candidates: Sequence[Floats], points: Doubles) -> list[int]:
    """Choose one candidate [n_i, D] a point [count, D], with the least cost in all.

    Costs: squared distance of each step, and `STRAY` times that from each candidate to its point.
    """
    cost = _squared(candidates[0], points[:1])[:, 0] * STRAY
    back = []
    for i in range(1, len(candidates)):
        step = cost[:, None] + _squared(candidates[i - 1], candidates[i])
        back.append(step.argmin(axis=0))
        cost = step.min(axis=0) + STRAY * _squared(candidates[i], points[i : i + 1])[:, 0]
    path = [int(cost.argmin())]
    for choice in reversed(back):
        path.append(int(choice[path[-1]]))
    return path[::-1]


def _squared(a: NDArray[np.floating], b: NDArray[np.floating]) -> Doubles:
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.asarray((x * x).sum(1)[:, None] + (y * y).sum(1)[None] - 2 * x @ y.T)


def _row(tracks: Collection, seed: Place, mask: NDArray[np.bool_]) -> int:
    """Row of a seed, or the nearest row to one from outside."""
    if seed.row is not None:
        return seed.row
    found = tracks.rank(seed.vector[None], 1, allowed=mask, mutual=False)[0][0]
    if not len(found):
        raise PlaylistError("no track is left to begin or end with; drop a filter")
    return int(found[0])


def length(tracks: Collection, limits: Limits) -> int:
    """How many tracks are asked for; minutes are turned into tracks by the median duration."""
    if limits.minutes is None:
        return limits.k if limits.k is not None else 10
    known = tracks.durations_s()
    typical = float(np.median(known)) if len(known) else UNKNOWN_S
    count = max(2, round(60 * limits.minutes / typical))
    return count if limits.k is None else min(count, limits.k)


def _split(tracks: Collection, name: str) -> tuple[tuple[str, str], tuple[str, str]]:
    """Read 'A:B'; a name may hold colons itself, so each of them is tried."""
    cuts = [i for i, c in enumerate(name) if c == ":"]
    if not cuts:
        raise PlaylistError(f"the axis '{name}' has no colon; write 'Dark Techno:Emotional Techno'")
    problems = []
    for cut in cuts:
        try:
            return label(tracks, name[:cut]), label(tracks, name[cut + 1 :])
        except PlaylistError as problem:
            problems.append(problem)
    raise problems[0]


def _nearest(tracks: Collection, point: Doubles, mask: NDArray[np.bool_]) -> list[int]:
    """Rows nearest to a point, as many as caps may cost."""
    unit = point / max(float(np.linalg.norm(point)), 1e-12)
    return [int(row) for row in tracks.rank(unit[None], CANDIDATES, allowed=mask)[0][0]]


def _cosine(tracks: Collection, row: int, point: Doubles) -> float:
    return float(tracks.vectors([row])[0] @ point / max(float(np.linalg.norm(point)), 1e-12))
