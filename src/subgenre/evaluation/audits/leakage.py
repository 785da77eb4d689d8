"""Leakage: how much of a score comes from test tracks with relatives in the training?

The same vectors and tracks are scored with a loose and a strict split: chunks at random or whole
tracks, copies on both sides or together, tracks at random or whole artists and albums. The gap is
how much too high the loose split scores (artist effect: Pampalk 2005; Flexer and Schnitzer 2010).
The vectors are the frozen backbone's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from subgenre.core.text import counted
from subgenre.dataset.splits.grouping import Bonds, joined
from subgenre.evaluation.audits.base import (
    Audit,
    Context,
    Interval,
    Section,
    Table,
    over_folds,
    points_text,
    share_text,
)
from subgenre.evaluation.audits.duplicates import Duplicate, Duplicates
from subgenre.evaluation.audits.probe import (
    Fold,
    bootstrap,
    checked,
    grouped_folds,
    interval,
    share,
    standardise,
)
from subgenre.library.track import Track
from subgenre.metrics import Score, knn_labels, nearest_centroids, nearest_labels
from subgenre.metrics.vectors import Floats, Ints

FOLDS = 5
NEIGHBOURS = 5
BLOCK = 1024  # chunks whose cosines to all others are held at a time
NOTABLE_GAP = 0.05  # above which the summary names it
LISTED_NOTES = 10
SPLITS = {
    "chunk": ("random chunks", "whole tracks held out"),
    "recording": ("copies on both sides", "copies held out together"),
    "artist": ("random tracks", "whole artists held out"),
    "album": ("random tracks", "whole albums held out"),
}


@dataclass(frozen=True)
class Comparison:
    """One score under two splits of the same tracks, chunk by chunk.

    Attributes:
        loose, strict: names of the splits. centroid_*, knn_*: accuracies of single chunks.
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
class Leakage:
    """The comparisons that the library allows, copies across the folds in use, and notes."""

    comparisons: tuple[Comparison, ...]
    straddling: tuple[Duplicate, ...]
    notes: tuple[str, ...]


def run(context: Context) -> Leakage:
    """Score the frozen vectors of the chunks under both splits, and find copies across the folds.

    Raises: EvaluationError for vectors that are not finite.
    """
    tracks, labels, track_of = context.tracks, context.labels, context.chunk_track
    x, y = checked(context.chunks, labels[track_of])
    straddling = straddlers(context.copies, context.positions)
    notes = [
        f"{tracks[p.a].path.name} and {tracks[p.b].path.name} are one recording on both sides."
        for p in straddling
    ]
    comparisons = []
    for kind, (loose, strict) in SPLITS.items():
        groups = _groups(kind, tracks, context.copies)
        if kind != "chunk" and np.bincount(groups).max() < 2:
            if kind != "recording":
                notes.append(f"No {kind} gap: no {kind} tag that tracks share.")
            continue
        single = [c for c in np.unique(labels) if np.unique(groups[labels == c]).size < 2]
        if single:
            listed = ", ".join(context.names[c] for c in single)
            what = "track" if kind == "chunk" else kind
            notes.append(f"The {kind} gap leaves out {listed}: only one {what}.")
        rows = np.flatnonzero(~np.isin(y, single))
        if np.unique(y[rows]).size < 2:
            notes.append(f"No {kind} gap: fewer than two subgenres have two {kind}s.")
            continue
        of = track_of[rows]
        fine = np.arange(of.size) if kind == "chunk" else of
        loosely, strictly = (
            _right(x[rows], y[rows], of, part, context.seed) for part in (fine, groups[of])
        )
        bound = groups[np.unique(of)]
        chance = float(np.bincount(y[rows]).max() / rows.size)
        figures = [
            (
                share(easy, chance=chance, groups=bound),
                share(hard, chance=chance, groups=bound),
                interval(*bootstrap(easy - hard, bound)),
            )
            for easy, hard in zip(loosely, strictly, strict=True)
        ]
        n_groups = np.unique(bound).size
        comparisons.append(
            Comparison(kind, loose, strict, bound.size, n_groups, *figures[0], *figures[1])
        )
    return Leakage(tuple(comparisons), straddling, tuple(notes))


def straddlers(copies: Duplicates, folds: Sequence[Fold]) -> tuple[Duplicate, ...]:
    """Return the pairs of copies of which one trains and the other is tested, in any fold."""
    return tuple(
        pair
        for pair in copies.pairs
        if any(
            (pair.a in train and pair.b in test) or (pair.b in train and pair.a in test)
            for train, test in folds
        )
    )


def _right(x: Floats, y: Ints, of: Ints, groups: Ints, seed: int) -> list[Floats]:
    """Return the share of each track's chunks that are right in folds by `groups` [n].

    By the nearest centroid and by k-NN; `of` [n] is the track of each chunk.
    """
    right = np.zeros((2, len(y)))
    for train, test in grouped_folds(y, groups, FOLDS, seed=seed):
        fitted, new = standardise(x[train], x[test])
        for start in range(0, len(test), BLOCK):
            part, at = new[start : start + BLOCK], test[start : start + BLOCK]
            near = nearest_labels(fitted, y[train], part, NEIGHBOURS)
            right[0, at] = nearest_centroids(fitted, y[train], part) == y[at]
            right[1, at] = knn_labels(near) == y[at]
    track, n_chunks = np.unique(of, return_inverse=True, return_counts=True)[1:]
    return [np.bincount(track, row) / n_chunks for row in right]


def _groups(kind: str, tracks: Sequence[Track], copies: Duplicates) -> Ints:
    """Return a group number for each track: itself, its recording, its artist or its album."""
    if kind == "chunk":
        return np.arange(len(tracks))
    if kind == "recording":
        return copies.recording_of(len(tracks))
    bonds = Bonds(tracks)
    return joined([b for b in bonds.of(t, (kind,)) if b[0] == kind] for t in tracks)


def section(found: Leakage, context: Context) -> Section:
    """Show the scores under both splits, and name the recordings on both sides."""
    rows = tuple(
        (
            f"{one.loose} against {one.strict}",
            name,
            share_text(loose),
            share_text(strict),
            points_text(gap),
        )
        for one in found.comparisons
        for name, loose, strict, gap in (
            ("nearest centroid", one.centroid_loose, one.centroid_strict, one.centroid_gap),
            ("k-NN", one.knn_loose, one.knn_strict, one.knn_gap),
        )
    )
    n = len(context.copies.pairs)
    copies = f"{counted(n, 'pair')} of copies found" if n else "No copies found"
    notes = [f"{copies}, {context.copies.text}.", *found.notes[:LISTED_NOTES]]
    if len(found.notes) > LISTED_NOTES:
        notes.append(f"And {len(found.notes) - LISTED_NOTES} more of this kind.")
    return Section(
        "leakage",
        "Leakage",
        "How much better does a model look if related tracks are on both sides of a split? The "
        "same vectors of the frozen backbone are scored under a loose and a strict split.",
        " ".join(notes),
        (Table(("Split", "Score", "Loose", "Strict", "Gap"), rows, "Leakage"),),
        _headline(found),
    )


def _headline(found: Leakage) -> str:
    if found.straddling:
        recordings = counted(len(found.straddling), "recording")
        verb = "is" if len(found.straddling) == 1 else "are"
        return (
            f"{recordings} {verb} on both sides of a split, as two files that differ: the figures "
            "are too high; remove one of each pair."
        )
    for one in found.comparisons:
        gap = one.centroid_gap
        if one.kind in ("artist", "album") and gap.low > 0 and gap.value > NOTABLE_GAP:
            points = counted(round(100 * gap.value), "point")
            return f"With each {one.kind} on one side of the split, the accuracy is {points} lower."
    return ""


AUDIT = Audit("leakage", run, section, applies=over_folds)
