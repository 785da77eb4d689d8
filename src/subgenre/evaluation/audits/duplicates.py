"""Near-duplicates: one recording under two names, which would sit on both sides of a split.

Three ways, the best that there is: the packet hash (the track's id) finds the same stream under
other names and tags; chromaprint's acoustic fingerprints find the same recording in another
encoding, where the program `fpcalc` is installed; failing that, near-identical vectors hint at it.
A false merge would throw a track away, so whatever is unsure counts as two recordings.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from subgenre.core.progress import Console, Silent
from subgenre.core.text import percent
from subgenre.errors import EvaluationError
from subgenre.evaluation.audits.base import Result
from subgenre.evaluation.audits.probe import Floats, standardise
from subgenre.metrics.vectors import unit

if TYPE_CHECKING:
    from subgenre.library.track import Track

Codes = NDArray[np.uint32]

LISTEN_S = 120  # of each file, chromaprint's own default
TIMEOUT_S = 60.0
BIT_ERRORS = 0.15  # share of differing bits: copies lie near 0.05, other recordings near 0.45
LEAST_CODES = 40  # 5 s of fingerprint at 8 codes a second
LEAST_OVERLAP = 0.5  # of the shorter fingerprint
LEAST_VARIETY = 0.3  # share of distinct codes: a drone's fingerprint matches any other drone's
SHARED_CODES = 5  # equal codes that two fingerprints need to be compared at all
NEAR = 0.025  # of the median distance to the third neighbour, to count as near-identical
THIRD = 2  # the third, as the nearest two may be copies themselves
SAME_DURATION = 0.01  # relative: encoders pad by some milliseconds, other edits differ by seconds


@dataclass(frozen=True)
class Duplicate(Result):
    """Two tracks of one recording: positions a < b, how it was found, confidence 0..1."""

    a: int
    b: int
    method: str
    confidence: float
    evidence: str


@dataclass(frozen=True)
class Duplicates(Result):
    """All pairs, the groups that they form (positions, ascending), and how they were searched.

    Attributes: method: "fingerprint", "features" or "packets", the finest that was used.
    """

    method: str
    pairs: tuple[Duplicate, ...]
    groups: tuple[tuple[int, ...], ...]
    text: str

    def recording_of(self, n_tracks: int) -> NDArray[np.int64]:
        """Return a recording number for each track [N]; copies share one."""
        return _components([(p.a, p.b) for p in self.pairs], n_tracks)


def fpcalc() -> str | None:
    """Return the path of chromaprint's program, or None."""
    return shutil.which("fpcalc")


def fingerprints(tracks: Sequence[Track], *, workers: int = 2) -> dict[str, Codes]:
    """Return chromaprint codes (uint32, about 8 a second) by track id.

    Files that it can't read are left out.

    Raises: EvaluationError where `fpcalc` is not installed.
    """
    program = fpcalc()
    if program is None:
        raise EvaluationError(
            "fingerprints need chromaprint's program fpcalc, which is not installed; "
            "install the package chromaprint (Debian and Ubuntu: libchromaprint-tools)"
        )
    with ThreadPoolExecutor(workers) as pool:
        found = pool.map(lambda track: _fingerprint(program, track.path), tracks)
        return {t.id: codes for t, codes in zip(tracks, found, strict=True) if codes is not None}


def find(
    tracks: Sequence[Track],
    vectors: ArrayLike | None = None,
    *,
    prints: Mapping[str, Codes] | None = None,
) -> Duplicates:
    """Return the pairs of tracks that are one recording.

    Args: tracks: N; vectors: [N, D] frozen or mean log-mel, used where there are no prints; prints:
    what `fingerprints` gave.

    Raises: EvaluationError for vectors of another length or that are not finite.
    """
    pairs = _same_packets(tracks)
    known = {(p.a, p.b) for p in pairs}
    if prints:
        method, more = "fingerprint", _same_fingerprint(tracks, prints)
        text = "compared by acoustic fingerprints (chromaprint)"
        missing = sum(t.id not in prints for t in tracks)
        text += f"; {missing} tracks could not be fingerprinted" if missing else ""
    elif vectors is not None:
        method, more = "features", _same_features(tracks, vectors)
        text = "compared by packets and near-identical features; fpcalc would find more"
    else:
        method, more = "packets", []
        text = "compared by packets only: another encoding of a recording is not found"
    pairs += [p for p in more if (p.a, p.b) not in known]
    component = _components([(p.a, p.b) for p in pairs], len(tracks))
    members = [np.flatnonzero(component == c) for c in range(int(component.max(initial=-1)) + 1)]
    groups = tuple(tuple(int(i) for i in m) for m in members if m.size > 1)
    return Duplicates(method, tuple(pairs), groups, text)


def search(
    tracks: Sequence[Track], vectors: ArrayLike, console: Console | None = None
) -> Duplicates:
    """Find copies by fingerprints where `fpcalc` is installed, else by vectors [N, D]."""
    prints = None
    if fpcalc() is not None:
        (console or Silent()).info("comparing acoustic fingerprints")
        prints = fingerprints([track for track in tracks if track.path.is_file()])
    return find(tracks, vectors, prints=prints)


def bit_errors(a: Codes, b: Codes) -> tuple[float, int]:
    """Return the share of differing bits of two fingerprints at their best offset, and the overlap.

    The offset is the one at which most codes are equal, as in AcoustID. Shapes: [n], [m] -> share
    0..1 and number of codes compared; (1.0, 0) where no code is equal.
    """
    order = np.argsort(b, kind="stable")
    first, last = (np.searchsorted(b[order], a, side) for side in ("left", "right"))
    times = np.minimum(last - first, 16)  # silence repeats one code: a few of its places are enough
    rows = np.repeat(np.arange(a.size), times)
    if not rows.size:
        return 1.0, 0
    step = np.arange(rows.size) - np.repeat(np.cumsum(times) - times, times)
    offsets = order[first[rows] + step] - rows
    values, votes = np.unique(offsets, return_counts=True)
    shift = int(values[votes.argmax()])
    start, stop = max(0, -shift), min(a.size, b.size - shift)
    differing = np.bitwise_count(a[start:stop] ^ b[start + shift : stop + shift])
    return float(differing.mean() / 32), stop - start


def _fingerprint(program: str, path: Path) -> Codes | None:
    command = [program, "-raw", "-json", "-length", str(LISTEN_S), str(path.absolute())]
    try:
        # a list, no shell, and an absolute path: no name can be taken for an option
        done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False)  # noqa: S603
        return np.array(json.loads(done.stdout)["fingerprint"], dtype=np.uint32)
    except (subprocess.TimeoutExpired, OSError, ValueError, KeyError):
        return None


def _same_packets(tracks: Sequence[Track]) -> list[Duplicate]:
    first: dict[str, int] = {}
    pairs = []
    for i, track in enumerate(tracks):
        a = first.setdefault(track.id, i)
        if a != i:
            pairs.append(Duplicate(a, i, "packets", 1.0, "the same audio packets"))
    return pairs


def _same_fingerprint(tracks: Sequence[Track], prints: Mapping[str, Codes]) -> list[Duplicate]:
    usable = [i for i, t in enumerate(tracks) if _telling(prints.get(t.id))]
    pairs = []
    for a, b in _candidates([prints[tracks[i].id] for i in usable]):
        i, j = usable[a], usable[b]
        one, other = prints[tracks[i].id], prints[tracks[j].id]
        share, overlap = bit_errors(one, other)
        enough = max(LEAST_CODES, LEAST_OVERLAP * min(one.size, other.size))
        if share <= BIT_ERRORS and overlap >= enough:
            evidence = f"fingerprints differ in {percent(share)} of their bits"
            pairs.append(Duplicate(i, j, "fingerprint", 1 - 2 * share, evidence))
    return pairs


def _telling(codes: Codes | None) -> bool:
    if codes is None or codes.size < LEAST_CODES:
        return False
    return np.unique(codes).size >= LEAST_VARIETY * codes.size


def _candidates(prints: Sequence[Codes]) -> list[tuple[int, int]]:
    """Pairs that share enough codes to be worth comparing, by one sparse product."""
    if len(prints) < 2:
        return []
    distinct = [np.unique(p) for p in prints]
    codes, column = np.unique(np.concatenate(distinct), return_inverse=True)
    starts = np.cumsum([0, *(d.size for d in distinct)])
    ones = np.ones(column.size, dtype=np.int32)
    table = csr_array((ones, column, starts), shape=(len(prints), codes.size))
    shared = (table @ table.T).tocoo()
    keep = (shared.data >= SHARED_CODES) & (shared.row < shared.col)
    return sorted(zip(shared.row[keep].tolist(), shared.col[keep].tolist(), strict=True))


def _same_features(tracks: Sequence[Track], vectors: ArrayLike) -> list[Duplicate]:
    x = np.asarray(vectors, dtype=np.float64)
    if x.ndim != 2 or len(x) != len(tracks) or not np.isfinite(x).all():
        raise EvaluationError(f"vectors {x.shape} for {len(tracks)} tracks: one finite row a track")
    if len(x) < 8:
        return []  # no distribution that "near" could be relative to
    distance = _distances(x)
    limit = NEAR * float(np.median(np.partition(distance, THIRD, axis=1)[:, THIRD]))
    duration = np.array([t.duration_s for t in tracks])
    pairs = []
    for i, j in np.argwhere(np.triu(distance <= limit, 1)).tolist():
        longer = max(duration[i], duration[j])
        if abs(duration[i] - duration[j]) <= SAME_DURATION * longer:
            apart = float(distance[i, j] / limit) if limit else 0.0
            evidence = f"features differ by {percent(apart * NEAR)} of a usual difference"
            pairs.append(Duplicate(i, j, "features", 1 - apart / 2, evidence))
    return pairs


def _distances(x: Floats) -> Floats:
    near = unit(standardise(x)[0])
    distance = np.maximum(1 - near @ near.T, 0)
    np.fill_diagonal(distance, np.inf)
    return np.asarray(distance)


def _components(pairs: Sequence[tuple[int, int]], n: int) -> NDArray[np.int64]:
    rows, columns = (np.array([p[side] for p in pairs], dtype=np.int64) for side in (0, 1))
    graph = csr_array((np.ones(rows.size), (rows, columns)), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)
