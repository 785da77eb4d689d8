"""Near-duplicates: one recording under two names, which could be on both sides of a split.

The packet hash (the track's id) finds the same stream under other names and tags. Another encoding
is found by chromaprint's acoustic fingerprints where the program `fpcalc` is installed, else by
near-identical vectors. A false match would discard a track, so that an unsure pair is no match.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from subgenre.core.progress import Console
from subgenre.core.text import percent
from subgenre.evaluation.audits.probe import standardise
from subgenre.library.track import Track
from subgenre.metrics.vectors import Ints, unit

Codes = NDArray[np.uint32]

LISTEN_S = 120  # of each file, chromaprint's own default
TIMEOUT_S = 60.0
WORKERS = 2  # runs of fpcalc at a time
BIT_ERRORS = 0.15  # share of differing bits: copies lie near 0.05, other recordings near 0.45
LEAST_CODES = 40  # 5 s of fingerprint at 8 codes a second
LEAST_OVERLAP = 0.5  # of the shorter fingerprint
LEAST_VARIETY = 0.3  # share of distinct codes: a drone's fingerprint matches any other drone's
SHARED_CODES = 5  # equal codes that two fingerprints need to be compared at all
LEAST_TRACKS = 8  # fewer have no typical distance, to which a near-identical one is relative
NEAR = 0.025  # of the median distance to the third neighbour, to count as near-identical
THIRD = 2  # the third, as the nearest two may be copies themselves
SAMPLE = 4000  # tracks whose third neighbour is searched
BLOCK = 64  # tracks compared with others at a time
SAME_DURATION = 0.01  # relative: encoders pad by some milliseconds, other edits differ by seconds


@dataclass(frozen=True)
class Duplicate:
    """Two tracks of one recording: positions a < b, how it was found, confidence 0..1."""

    a: int
    b: int
    method: str
    confidence: float
    evidence: str


@dataclass(frozen=True)
class Duplicates:
    """All pairs, and how they were searched.

    Attributes:
        method: of the search beside packets, "fingerprint" or "features".
    """

    method: str
    pairs: tuple[Duplicate, ...]
    text: str

    def recording_of(self, n_tracks: int) -> Ints:
        """Return a recording number for each track [N]; copies share one."""
        ends = np.array([(p.a, p.b) for p in self.pairs], dtype=np.int64).reshape(-1, 2).T
        graph = csr_array((np.ones(ends.shape[1]), tuple(ends)), shape=(n_tracks, n_tracks))
        return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def search(tracks: Sequence[Track], vectors: ArrayLike, console: Console) -> Duplicates:
    """Find copies by fingerprints where `fpcalc` is installed, else by vectors [N, D]."""
    program = shutil.which("fpcalc")
    if program is None:
        return find(tracks, vectors)
    console.info("comparing acoustic fingerprints")
    return find(tracks, vectors, fingerprints(program, [t for t in tracks if t.path.is_file()]))


def fingerprints(program: str, tracks: Sequence[Track]) -> dict[str, Codes]:
    """Return chromaprint codes (about 8 a second) by track id; unreadable files are left out."""

    def fingerprint(path: Path) -> Codes | None:
        command = [program, "-raw", "-json", "-length", str(LISTEN_S), str(path.absolute())]
        try:
            # a list, no shell, and an absolute path: no name can be taken for an option
            done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False)  # noqa: S603
            return np.array(json.loads(done.stdout)["fingerprint"], dtype=np.uint32)
        except (subprocess.TimeoutExpired, OSError, ValueError, KeyError):
            return None

    with ThreadPoolExecutor(WORKERS) as pool:
        found = pool.map(lambda track: fingerprint(track.path), tracks)
        return {t.id: codes for t, codes in zip(tracks, found, strict=True) if codes is not None}


def find(
    tracks: Sequence[Track], vectors: ArrayLike, prints: Mapping[str, Codes] | None = None
) -> Duplicates:
    """Return the pairs of tracks that are one recording.

    Args:
        vectors: [N, D] of the frozen backbone, used where there are no prints.
        prints: by track id, see `fingerprints`.
    """
    first: dict[str, int] = {}
    pairs = {}
    for i, track in enumerate(tracks):
        a = first.setdefault(track.id, i)
        if a != i:
            pairs[a, i] = Duplicate(a, i, "packets", 1.0, "the same audio packets")
    if prints:
        method, more = "fingerprint", _same_fingerprint(tracks, prints)
        text = "compared by acoustic fingerprints (chromaprint)"
        missing = sum(t.id not in prints for t in tracks)
        text += f"; {missing} tracks could not be fingerprinted" if missing else ""
    else:
        method, more = "features", _same_features(tracks, vectors)
        text = "compared by packets and near-identical features; fpcalc would find more"
    for pair in more:
        pairs.setdefault((pair.a, pair.b), pair)
    return Duplicates(method, tuple(pairs.values()), text)


def _same_fingerprint(tracks: Sequence[Track], prints: Mapping[str, Codes]) -> Iterator[Duplicate]:
    usable = {}
    for i, track in enumerate(tracks):
        codes = prints.get(track.id, np.empty(0, np.uint32))
        if codes.size >= LEAST_CODES and np.unique(codes).size >= LEAST_VARIETY * codes.size:
            usable[i] = codes
    for i, j in _candidates(usable):
        share, overlap = bit_errors(usable[i], usable[j])
        enough = max(LEAST_CODES, LEAST_OVERLAP * min(usable[i].size, usable[j].size))
        if share <= BIT_ERRORS and overlap >= enough:
            evidence = f"fingerprints differ in {percent(share)} of their bits"
            yield Duplicate(i, j, "fingerprint", 1 - 2 * share, evidence)


def _candidates(prints: Mapping[int, Codes]) -> list[tuple[int, int]]:
    """Return the pairs of tracks that share enough codes to be compared, by one sparse product."""
    if len(prints) < 2:
        return []
    distinct = [np.unique(codes) for codes in prints.values()]
    codes, column = np.unique(np.concatenate(distinct), return_inverse=True)
    starts = np.cumsum([0, *(d.size for d in distinct)])
    ones = np.ones(column.size, dtype=np.int32)
    table = csr_array((ones, column, starts), shape=(len(prints), codes.size))
    shared = (table @ table.T).tocoo()
    keep = (shared.data >= SHARED_CODES) & (shared.row < shared.col)
    track = np.array(list(prints))
    pairs = zip(track[shared.row[keep]].tolist(), track[shared.col[keep]].tolist(), strict=True)
    return sorted(pairs)


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


def _same_features(tracks: Sequence[Track], vectors: ArrayLike) -> Iterator[Duplicate]:
    if len(tracks) < LEAST_TRACKS:
        return
    near = unit(standardise(np.asarray(vectors, dtype=np.float64))[0])
    limit = NEAR * _typical_distance(near)
    duration = np.array([t.duration_s for t in tracks])
    order = np.argsort(duration, kind="stable")
    end = np.searchsorted(duration[order], duration[order] / (1 - SAME_DURATION), side="right")
    found = []
    for start in range(0, len(order), BLOCK):
        rows = order[start : start + BLOCK]
        others = order[start : end[start + len(rows) - 1]]
        distance = np.maximum(1 - near[rows] @ near[others].T, 0)
        for i, j in np.argwhere(np.triu(distance <= limit, 1)).tolist():
            a, b = sorted((int(rows[i]), int(others[j])))
            longer = max(duration[a], duration[b])
            if abs(duration[a] - duration[b]) <= SAME_DURATION * longer:
                found.append((a, b, float(distance[i, j] / limit) if limit else 0.0))
    for a, b, apart in sorted(found):
        evidence = f"features differ by {percent(apart * NEAR)} of a usual difference"
        yield Duplicate(a, b, "features", 1 - apart / 2, evidence)


def _typical_distance(near: NDArray[np.float64]) -> float:
    """Return the median distance to the third neighbour of unit vectors [N, D], or of a sample."""
    sample = np.random.default_rng(0).permutation(len(near))[:SAMPLE]
    third: list[float] = []
    for start in range(0, len(sample), BLOCK):
        rows = sample[start : start + BLOCK]
        distance = np.maximum(1 - near[rows] @ near.T, 0)
        distance[np.arange(len(rows)), rows] = np.inf
        third += np.partition(distance, THIRD, axis=1)[:, THIRD].tolist()
    return float(np.median(third))
