"""Paths through a library: a journey from one track to another, an axis between two subgenres.

Between two tracks there are regions without music. So the waypoints on the arc between them are
only a guide: dynamic programming (Viterbi) chooses all tracks together, so that each is near its
waypoint and near the track before it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
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

CANDIDATES = 24  # tracks for each waypoint
STRAY = 0.5  # cost of the squared distance from a waypoint; a squared step costs 1
_ROUNDS, _DEEP = 50, 1000


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
    """Find a path from one track to another in small steps; it begins and ends with the two.

    A seed that is not in the collection is replaced by its nearest track. The filter is for the
    tracks between the ends. Minutes become tracks by the median duration of the collection.

    Returns:
        hits in order; the score is the position on the path (0 to 1), the cosine is that to the
        track before.

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
    vectors = tracks.vectors([first, last])
    points = arc(vectors[0], vectors[1], count)
    rows = _path(tracks, (first, last), points, mask, limits)
    x = tracks.vectors(rows)
    before = np.concatenate([[1.0], (x[1:] * x[:-1]).sum(axis=1)])
    return hits_of(tracks, rows, before, [i / (len(rows) - 1) for i in range(len(rows))])


def axis(tracks: Collection, name: str) -> Axis:
    """Find the axis between two subgenres named 'A:B'."""
    start, end = _split(tracks, name)
    if start == end:
        raise PlaylistError(f"the axis '{name}' has the same subgenre twice; name two")
    members = [tracks.vectors(tracks.members("/".join(pair))) for pair in (start, end)]
    centroids = unit(np.stack([x.mean(axis=0, dtype=np.float64) for x in members]))
    return Axis(start, end, centroids[0], centroids[1] - centroids[0])


def positions(tracks: Collection, line: Axis) -> Doubles:
    """Return the position of every row of the collection on an axis: [N]."""
    count = tracks.rows.num_rows
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

    There are k points between the ends, and the nearest track to each is taken; fewer than k if
    the range has fewer tracks. `between` has the lowest and highest position of a track; without
    it the points go from 0 to 1, and tracks may have any position.

    Returns:
        hits by position, with the position as score and the cosine to the point of the axis.
    """
    mask = tracks.allowed(filter)
    low, high = (0.0, 1.0) if between is None else sorted(between)
    if between is not None:
        every = positions(tracks, line)
        mask &= (low <= every) & (every <= high)
    count = min(length(tracks, limits), int(np.count_nonzero(mask)))
    picker = Picker(tracks, replace(limits, k=count, minutes=None))
    for position in np.linspace(low, high, count):
        nearest = tracks.rank(unit(line.point(position)[None]), CANDIDATES, allowed=mask)[0][0]
        for row in nearest:
            if picker.offer(int(row)):
                break
        mask[picker.rows] = False
    rows = np.array(picker.rows, dtype=np.int64)
    where = line.position(tracks.vectors(rows))
    order = np.lexsort((rows, where))
    rows, where = rows[order], where[order]
    cosines = (tracks.vectors(rows) * unit(line.point(where[:, None]))).sum(axis=1)
    return hits_of(tracks, rows, cosines, where)


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


def _path(
    tracks: Collection,
    ends: tuple[int, int],
    points: Doubles,
    mask: NDArray[np.bool_],
    limits: Limits,
) -> list[int]:
    """Choose one track for each waypoint; remove tracks that break the limits and choose again.

    If the limits leave too few tracks for that, each waypoint in turn takes the nearest track left.
    """
    limits = replace(limits, k=None, minutes=None)
    found = tracks.rank(points[1:-1], CANDIDATES, allowed=mask) if len(points) > 2 else []
    lists = [[ends[0]], *(rows.tolist() for rows, _ in found), [ends[1]]]
    for _ in range(_ROUNDS):
        path = viterbi([tracks.vectors(rows) for rows in lists], points)
        rows = [rows[i] for rows, i in zip(lists, path, strict=True)]
        picker = Picker(tracks, limits, chosen=ends)
        wrong = [i for i in range(1, len(rows) - 1) if not picker.offer(rows[i])]
        if not wrong:
            return rows
        for i in wrong:
            lists[i].remove(rows[i])
        if not all(lists):
            break
    picker, left = Picker(tracks, limits, chosen=ends), mask.copy()
    for point in points[1:-1]:
        nearest = tracks.rank(point[None], _DEEP, allowed=left)[0][0]
        if not any(picker.offer(int(row)) for row in nearest):
            raise PlaylistError(
                f"too few tracks for a journey of {len(points)}; request fewer, or remove a filter"
            )
        left[picker.rows[-1]] = False
    return [ends[0], *picker.rows[2:], ends[1]]


def viterbi(candidates: Sequence[Floats], points: Doubles) -> list[int]:
    """Choose one candidate [n_i, D] for each point [count, D] at the lowest total cost.

    Costs: squared distance of each step, and `STRAY` times that from each candidate to its point.
    """
    from scipy.spatial.distance import cdist

    cost = STRAY * cdist(candidates[0], points[:1], "sqeuclidean")[:, 0]
    back = []
    for before, here, point in zip(candidates, candidates[1:], points[1:], strict=False):
        step = cost[:, None] + cdist(before, here, "sqeuclidean")
        back.append(step.argmin(axis=0))
        cost = step.min(axis=0) + STRAY * cdist(here, point[None], "sqeuclidean")[:, 0]
    path = [int(cost.argmin())]
    for choice in reversed(back):
        path.append(int(choice[path[-1]]))
    return path[::-1]


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
