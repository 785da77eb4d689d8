"""Leakage: how much of a score comes from test tracks that are in the training, too?

The same score on the same vectors and the same tracks, once with a loose split and once with a
strict one: chunks at random against whole tracks, copies apart against copies together, tracks at
random against artists and albums held out. The gap is how much too high the loose split scores
(artist effect: Pampalk 2005; Flexer and Schnitzer 2010). The vectors are the frozen backbone's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from subgenre.core.text import counted
from subgenre.dataset.splits.grouping import bonds
from subgenre.errors import EvaluationError
from subgenre.evaluation.audits.base import (
    Audit,
    Context,
    Interval,
    Result,
    Section,
    Table,
    over_folds,
    share_text,
)
from subgenre.evaluation.audits.duplicates import Duplicate, Duplicates
from subgenre.evaluation.audits.probe import (
    Floats,
    Fold,
    Ints,
    checked,
    grouped_folds,
    mean_interval,
    share,
    standardise,
)
from subgenre.metrics import Score, knn_labels, nearest_centroids, nearest_labels

if TYPE_CHECKING:
    from subgenre.library.track import Track

BLOCK = 1024  # chunks whose cosines to all others are held at a time
NOTABLE_GAP = 0.05  # above which the summary names it
LISTED_NOTES = 10
ROWS = (
    ("chunk", "random chunks", "whole tracks held out"),
    ("recording", "copies on both sides", "copies held out together"),
    ("artist", "random tracks", "whole artists held out"),
    ("album", "random tracks", "whole albums held out"),
)


@dataclass(frozen=True)
class Comparison(Result):
    """One score under two splits of the same tracks, chunk by chunk.

    Attributes: kind: "chunk", "recording", "artist" or "album"; loose, strict: what the splits are;
    n_tracks, n_groups; centroid_* and knn_*: accuracies of single chunks and their gap.
    """

    kind: str
    loose: str
    strict: str
    n_tracks: int
    n_groups: int
    centroid_loose: Score
    centroid_strict: Score
    centroid_gap: Interval
    knn_loose: Score
    knn_strict: Score
    knn_gap: Interval


@dataclass(frozen=True)
class Leakage(Result):
    """The comparisons that the library allows, copies across the folds in use, and notes."""

    comparisons: tuple[Comparison, ...]
    straddling: tuple[Duplicate, ...]
    notes: tuple[str, ...]


def leakage(
    chunk_vectors: ArrayLike,
    track_of: ArrayLike,
    labels: ArrayLike,
    tracks: Sequence[Track],
    names: Sequence[str],
    *,
    duplicates: Duplicates | None = None,
    folds_in_use: Sequence[Fold] = (),
    folds: int = 5,
    repeats: int = 2,
    k: int = 5,
    seed: int = 0,
) -> Leakage:
    """Score the same vectors under loose and strict splits.

    Shapes: chunk_vectors [n, D], track_of [n] positions in tracks; labels [N] of the tracks;
    names [C]; folds_in_use: the folds that other figures are made with, searched for copies.

    Raises: EvaluationError for vectors that are not finite, one subgenre, or shapes that disagree.
    """
    of, by_track = np.asarray(track_of, dtype=np.int64), np.asarray(labels, dtype=np.int64)
    if by_track.shape != (len(tracks),) or (of.size and of.max() >= len(tracks)):
        raise EvaluationError(f"{by_track.size} labels and {len(tracks)} tracks: one a track")
    x, _ = checked(chunk_vectors, by_track[of])
    meter = _Meter(x, of, by_track, folds, repeats, k, seed)
    straddling = straddlers(duplicates, folds_in_use) if duplicates else ()
    notes = [
        f"{tracks[p.a].path.name} and {tracks[p.b].path.name} are one recording on both sides."
        for p in straddling
    ]
    comparisons = []
    for kind, loose, strict in ROWS:
        groups = _groups(kind, tracks, duplicates)
        fine = of if kind != "chunk" else np.arange(of.size)
        coarse = groups[of]
        if kind != "chunk" and np.bincount(groups).max() < 2:
            if kind != "recording":
                notes.append(f"No {kind} gap: no {kind} tag that tracks share.")
            continue
        keep, left_out = _divisible(groups, by_track)
        if left_out:
            listed = ", ".join(names[c] for c in left_out)
            what = "track" if kind == "chunk" else kind
            notes.append(f"The {kind} gap leaves out {listed}: only one {what}.")
        if np.unique(by_track[keep]).size < 2:
            notes.append(f"No {kind} gap: fewer than two subgenres have two {kind}s.")
            continue
        comparisons.append(meter.compare((kind, loose, strict), keep[of], fine, coarse, groups))
    return Leakage(tuple(comparisons), straddling, tuple(notes))


def straddlers(duplicates: Duplicates, folds: Sequence[Fold]) -> tuple[Duplicate, ...]:
    """Return the pairs of copies of which one trains and the other is tested, in any fold."""
    found = []
    for pair in duplicates.pairs:
        for train, test in folds:
            sides = [(np.isin(i, train), np.isin(i, test)) for i in (pair.a, pair.b)]
            if any(one[0] and other[1] for one, other in (sides, sides[::-1])):
                found.append(pair)
                break
    return tuple(found)


@dataclass(frozen=True)
class _Meter:
    """The vectors [n, D], the track of each, labels [N], and how often to draw."""

    x: Floats
    of: Ints
    labels: Ints
    folds: int
    repeats: int
    k: int
    seed: int

    def compare(
        self,
        words: tuple[str, str, str],
        keep: NDArray[np.bool_],
        fine: Ints,
        coarse: Ints,
        groups: Ints,
    ) -> Comparison:
        """Score the kept chunks with the groups [n] of a loose (fine) and a strict split."""
        rows = np.flatnonzero(keep)
        seen = np.unique(self.of[rows])
        loose, strict = (self._right(rows, g[rows])[:, seen] for g in (fine, coarse))  # [2, N]
        chance = float(np.bincount(self.labels[self.of[rows]]).max() / rows.size)
        bound = groups[seen]
        scores = [
            [share(r[i], chance=chance, groups=bound) for r in (loose, strict)] for i in (0, 1)
        ]
        gaps = [Interval(*mean_interval(loose[i] - strict[i], groups=bound)) for i in (0, 1)]
        return Comparison(
            *words,
            n_tracks=seen.size,
            n_groups=np.unique(bound).size,
            centroid_loose=scores[0][0],
            centroid_strict=scores[0][1],
            centroid_gap=gaps[0],
            knn_loose=scores[1][0],
            knn_strict=scores[1][1],
            knn_gap=gaps[1],
        )

    def _right(self, rows: Ints, groups: Ints) -> Floats:
        """Share of each track's chunks that are placed right, by centroid and by k-NN: [2, N]."""
        x, y = self.x[rows], self.labels[self.of[rows]]
        right, times = np.zeros((2, rows.size)), np.zeros(rows.size)
        for repeat in range(self.repeats):
            for train, test in grouped_folds(y, groups, self.folds, seed=self.seed + repeat):
                fitted, new = standardise(x[train], x[test])
                for start in range(0, len(test), BLOCK):
                    part, at = new[start : start + BLOCK], test[start : start + BLOCK]
                    near = nearest_labels(fitted, y[train], part, self.k)
                    right[0, at] += nearest_centroids(fitted, y[train], part) == y[at]
                    right[1, at] += knn_labels(near) == y[at]
                times[test] += 1
        of, n = self.of[rows], self.labels.size
        per_chunk = right / np.maximum(times, 1)
        chunks = np.maximum(np.bincount(of, minlength=n), 1)
        return np.stack([np.bincount(of, row, minlength=n) / chunks for row in per_chunk])


def _groups(kind: str, tracks: Sequence[Track], duplicates: Duplicates | None) -> Ints:
    """A group number a track: itself, its recording, its artist or its album."""
    if kind == "chunk" or (kind == "recording" and duplicates is None):
        return np.arange(len(tracks))
    if kind == "recording" and duplicates is not None:
        return duplicates.recording_of(len(tracks))
    names = []
    for i, track in enumerate(tracks):
        found = [name for bond, name in bonds(track, (kind,)) if bond == kind]
        names.append(found[0] if found else f"\0{i}")
    return np.asarray(np.unique(names, return_inverse=True)[1], dtype=np.int64)


def _divisible(groups: Ints, labels: Ints) -> tuple[NDArray[np.bool_], list[int]]:
    """Which tracks [N] are of subgenres with two groups or more, and the other subgenres."""
    single = [int(c) for c in np.unique(labels) if np.unique(groups[labels == c]).size < 2]
    return ~np.isin(labels, single), single


def run(context: Context) -> Leakage:
    """Score the frozen vectors of the chunks, and look for copies across the folds."""
    return leakage(
        context.chunks,
        context.chunk_track,
        context.labels,
        context.tracks,
        context.names,
        duplicates=context.copies,
        folds_in_use=context.positions,
        repeats=1,
        seed=context.seed,
    )


def section(found: Leakage, context: Context) -> Section:
    """Show the scores under both splits, and name the recordings on both sides."""
    rows = tuple(
        (
            f"{one.loose} against {one.strict}",
            name,
            share_text(loose),
            share_text(strict),
            _points(gap),
        )
        for one in found.comparisons
        for name, loose, strict, gap in (
            ("nearest centroid", one.centroid_loose, one.centroid_strict, one.centroid_gap),
            ("k-NN", one.knn_loose, one.knn_strict, one.knn_gap),
        )
    )
    n = len(context.copies.pairs)
    found_copies = f"{counted(n, 'pair')} of copies found" if n else "No copies found"
    notes = [f"{found_copies}, {context.copies.text}.", *found.notes[:LISTED_NOTES]]
    if len(found.notes) > LISTED_NOTES:
        notes.append(f"And {len(found.notes) - LISTED_NOTES} more of this kind.")
    return Section(
        "leakage",
        "Leakage",
        "How much better does a model look if related tracks stand on both sides of a split? The "
        "same vectors of the frozen backbone are scored under a loose and a strict split.",
        " ".join(notes),
        (Table(("Split", "Score", "Loose", "Strict", "Gap"), rows, "Leakage"),),
        _headline(found),
    )


def _headline(found: Leakage) -> str:
    n = len(found.straddling)
    if n:
        stand = "stands" if n == 1 else "stand"
        return (
            f"{counted(n, 'recording')} {stand} on both sides of a split: the figures are too high."
        )
    for one in found.comparisons:
        gap = one.centroid_gap
        if one.kind in ("artist", "album") and gap.low > 0 and gap.value > NOTABLE_GAP:
            points = counted(round(100 * gap.value), "point")
            return f"With each {one.kind} on one side of the split, the accuracy is {points} lower."
    return ""


def _points(gap: Interval) -> str:
    return f"{100 * gap.value:+.0f} points ({100 * gap.low:+.0f} to {100 * gap.high:+.0f})"


AUDIT = Audit("leakage", run, section, applies=over_folds)
