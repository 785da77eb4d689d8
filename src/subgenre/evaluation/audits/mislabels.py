"""The doctor: which tracks may be in the wrong playlist, and which are broken?

A probe that hasn't seen a track judges it (out-of-fold). A track is listed where another subgenre
is more probable than its own, ranked by the odds and not the margin: where many subgenres share
the probability, a small margin can still be long odds. Duplicates, outliers and silent or clipped
recordings are listed too. No file is moved: a person listens and decides.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from subgenre.core.text import percent
from subgenre.dataset import splits
from subgenre.errors import EvaluationError
from subgenre.evaluation.audits.base import Audit, Context, Section, Suggestion, Suggestions
from subgenre.evaluation.audits.duplicates import Duplicates
from subgenre.evaluation.audits.probe import Fold, checked, fold_positions, lda_scores, standardise
from subgenre.library.track import Track
from subgenre.metrics.vectors import Floats, Ints, unit

SHRINKAGE = 0.6  # of the covariance: more than elsewhere, as labels are under suspicion
TOO_FEW = 8  # tracks in a subgenre, below which its spread is unknown
LEAST = 0.9  # confidence of a wrong playlist: odds of 9 to 1 keep the list short
NEIGHBOURS = 3  # of the own subgenre, to which an outlier's distance is measured
OUTLIER_Z = 4.0  # robust z of that distance
SILENT_SHARE = 0.5  # of a track's chunks together
CLIPPED_SHARE = 0.001  # of the samples: audible distortion
FOLDS, REPEATS = 5, 3
KINDS = ("wrong playlist", "two playlists", "duplicate", "outlier", "silent", "clipped")


@dataclass(frozen=True)
class Finding:
    """A track to check.

    Attributes:
        track: its id. kind: one of `KINDS`. subgenre: its playlist.
        suggestion: the playlist that it fits, or the path of the other copy, or "".
        confidence: 0..1. why: a sentence.
    """

    track: str
    path: str
    kind: str
    subgenre: str
    suggestion: str
    confidence: float
    why: str


def oof_probabilities(vectors: ArrayLike, labels: ArrayLike, folds: Sequence[Fold]) -> Floats:
    """Return the probability of each subgenre for each track, by probes that haven't seen it.

    The probe is shrunk linear discriminant analysis, fitted inside each fold; tracks that several
    folds test (repeats) get the mean of the log-likelihoods. One temperature for all, by least log
    loss, calibrates the probabilities (Guo et al. 2017, section 4.2).

    Shapes: vectors [N, D], labels [N], folds of positions -> [N, C], C = largest label + 1; rows of
    NaN for tracks that no fold tests, or that are alone in their subgenre.

    Raises: EvaluationError for vectors that are not finite, one subgenre, or no judged track.
    """
    x, y = checked(vectors, labels)
    n_classes = int(y.max()) + 1
    total, times = np.zeros((len(y), n_classes)), np.zeros(len(y))
    for train, tested in folds:
        # a track without others of its subgenre in training would seem wrong in any playlist
        test = tested[np.isin(y[tested], y[train])]
        scores = lda_scores(x[train], y[train], x[test], n_classes, shrinkage=SHRINKAGE)
        total[test] += scores - logsumexp(scores, axis=1, keepdims=True)
        times[test] += 1
    seen = times > 0
    if not seen.any():
        raise EvaluationError("no track can be judged: each is alone in its subgenre or untested")
    logits = total[seen] / times[seen, None]
    logits /= _temperature(logits, y[seen])
    result = np.full((len(y), n_classes), np.nan)
    result[seen] = np.exp(logits - logsumexp(logits, axis=1, keepdims=True))
    return result


def _temperature(logits: Floats, labels: Ints) -> float:
    """Return the temperature of least log loss, between 0.1 and 1000."""
    rows = np.arange(len(labels))

    def loss(log_t: float) -> float:
        scaled = logits / np.exp(log_t)
        return float(np.mean(logsumexp(scaled, axis=1) - scaled[rows, labels]))

    found = minimize_scalar(loss, bounds=(np.log(0.1), np.log(1000.0)), method="bounded")
    return float(np.exp(found.x))


def wrong_playlist(
    probabilities: Floats, labels: Ints, names: Sequence[str], tracks: Sequence[Track]
) -> list[Finding]:
    """Return the tracks that fit another subgenre with a `misfit` above `LEAST`, the surest first.

    Shapes: probabilities [N, C] out-of-fold; labels [N]; names [C].
    """
    confidence, best = misfit(probabilities, labels)
    rows = []
    for i in np.argsort(-confidence, kind="stable")[: np.sum(confidence > LEAST)]:
        own, other = names[labels[i]], names[best[i]]
        p_own, p_other = percent(probabilities[i, labels[i]]), percent(probabilities[i, best[i]])
        why = f"Probability of {other} {p_other}, of {own} {p_own}"
        rows.append(_finding(tracks[i], "wrong playlist", own, other, float(confidence[i]), why))
    return rows


def misfit(probabilities: Floats, labels: Ints) -> tuple[Floats, Ints]:
    """Return the share of the best other subgenre in the probability of it and the own one.

    Above 0.5 the other one is more probable; 0 for tracks that were not judged (NaN). It joins
    self-confidence and margin of Northcutt, Jiang and Chuang 2021 (section 3).

    Shapes: probabilities [N, C], labels [N] -> shares [N], and the other subgenres [N].
    """
    rows = np.arange(len(labels))
    others = np.nan_to_num(probabilities)
    others[rows, labels] = -1.0
    other = others.argmax(axis=1)
    best, own = probabilities[rows, other], probabilities[rows, labels]
    return np.nan_to_num(best / np.maximum(best + own, 1e-300)), other


def outliers(
    vectors: ArrayLike, labels: ArrayLike, names: Sequence[str], tracks: Sequence[Track]
) -> list[Finding]:
    """Return tracks that lie unusually far from the others of their own subgenre.

    Distance: mean of 1 - cos to the nearest of the own subgenre, as a robust z over the subgenre
    (median and 1.4826 times the median absolute deviation). Subgenres under 8 tracks are left out.
    The confidence is Cantelli's bound 1 - 1 / (1 + z^2), true for any distribution.

    Shapes: vectors [N, D], labels [N]. Raises: EvaluationError for vectors that are not finite.
    """
    x, y = checked(vectors, labels)
    near = unit(standardise(x)[0])
    rows = []
    for c in np.unique(y):
        own = np.flatnonzero(y == c)
        if own.size < TOO_FEW:
            continue
        distance = 1 - near[own] @ near[own].T
        np.fill_diagonal(distance, np.inf)
        mean = np.sort(distance, axis=1)[:, :NEIGHBOURS].mean(axis=1)
        spread = 1.4826 * float(np.median(np.abs(mean - np.median(mean))))
        z = (mean - np.median(mean)) / max(spread, 1e-12)
        for i in np.flatnonzero((z > OUTLIER_Z) & (mean > 1e-6)):
            why = f"Unlike the other tracks of its playlist (robust z-score {z[i]:.1f})"
            sure = 1 - 1 / (1 + float(z[i]) ** 2)
            rows.append(_finding(tracks[own[i]], "outlier", names[c], "", sure, why))
    return rows


def copies(duplicates: Duplicates, tracks: Sequence[Track]) -> list[Finding]:
    """Return a finding for each pair: "duplicate", or "two playlists" across subgenres."""
    rows = []
    for pair in duplicates.pairs:
        a, b = tracks[pair.a], tracks[pair.b]
        same = (a.genre, a.subgenre) == (b.genre, b.subgenre)
        kind, other = ("duplicate", str(b.path)) if same else ("two playlists", b.subgenre)
        why = f"The same recording as {b.path.name}: {pair.evidence}"
        rows.append(_finding(a, kind, a.subgenre, other, pair.confidence, why))
    return rows


def broken(tracks: Sequence[Track], measures: Mapping[str, ArrayLike]) -> list[Finding]:
    """Return tracks that are silent or clipped, by the mean measures of their chunks.

    `measures` holds "silent_share" and "clipped_share" [N]; NaN counts as 0. The confidence is the
    silent share, or 1 - half the limit over the clipped share.
    """
    rows = []
    silent, clipped = (
        np.nan_to_num(np.asarray(measures[name], dtype=np.float64)).tolist()
        for name in ("silent_share", "clipped_share")
    )
    for track, silence, clipping in zip(tracks, silent, clipped, strict=True):
        if silence >= SILENT_SHARE:
            why = f"{percent(silence)} of the audio is silence"
            rows.append(_finding(track, "silent", track.subgenre, "", silence, why))
        if clipping >= CLIPPED_SHARE:
            why = f"{clipping:.2%} of the samples are clipped"
            sure = 1 - CLIPPED_SHARE / (2 * clipping)
            rows.append(_finding(track, "clipped", track.subgenre, "", sure, why))
    return rows


def diagnose(
    vectors: Floats,
    labels: Ints,
    names: Sequence[str],
    tracks: Sequence[Track],
    folds: Sequence[Fold],
    duplicates: Duplicates,
    measures: Mapping[str, ArrayLike],
) -> list[Finding]:
    """Return all findings by kind, in the order of `KINDS`, and within a kind the surest first.

    Shapes: vectors [N, D], labels [N], names [C], N tracks in the same order, folds of positions.

    Raises: EvaluationError as `oof_probabilities`.
    """
    found = [
        *wrong_playlist(oof_probabilities(vectors, labels, folds), labels, names, tracks),
        *outliers(vectors, labels, names, tracks),
        *copies(duplicates, tracks),
        *broken(tracks, measures),
    ]
    return sorted(found, key=lambda f: (KINDS.index(f.kind), -f.confidence))


def csv_rows(findings: Sequence[Finding]) -> list[list[str]]:
    """Return a header and a row of text for each finding, for a CSV file."""
    header = [field.name for field in dataclasses.fields(Finding)]
    rows = [
        [f.track, f.path, f.kind, f.subgenre, f.suggestion, f"{f.confidence:.3f}", f.why]
        for f in findings
    ]
    return [header, *rows]


def _finding(
    track: Track, kind: str, subgenre: str, suggestion: str, sure: float, why: str
) -> Finding:
    return Finding(track.id, str(track.path), kind, subgenre, suggestion, sure, why)


def run(context: Context) -> list[Finding]:
    """Diagnose all tracks, over their own folds and at least three repeats."""
    n_folds = context.n_folds or min(FOLDS, int(np.bincount(context.labels).max()))
    repeats = max(context.repeats, REPEATS)
    folds = repeated_folds(context.tracks, n_folds, repeats, context.seed)
    return diagnose(
        context.frozen,
        context.labels,
        context.names,
        context.tracks,
        folds,
        context.copies,
        context.columns,
    )


def repeated_folds(tracks: Sequence[Track], n_folds: int, repeats: int, seed: int) -> list[Fold]:
    """Return folds of all tracks as positions, several times, drawn as `evaluate` draws them."""
    ids = [track.id for track in tracks]
    return [
        fold
        for repeat in range(repeats)
        for fold in fold_positions(splits.folds(tracks, n_folds, seed=seed + repeat), ids)
    ]


def section(findings: Sequence[Finding], context: Context) -> Section:
    """Show the tracks to check in rows that can be played."""
    names = {track.id: track.title or track.path.stem for track in context.tracks}
    rows = tuple(
        Suggestion(
            f.track,
            names[f.track],
            f.why,
            (
                f.kind,
                f.subgenre,
                "" if f.kind == "duplicate" else f.suggestion,
                percent(f.confidence),
            ),
        )
        for f in findings
    )
    table = Suggestions(("Problem", "Playlist", "Fits", "Confidence"), rows, "Tracks to check")
    return Section(
        "doctor",
        "Tracks to check",
        "Which tracks may be in the wrong playlist, copies, outliers or broken recordings? Nothing "
        "was changed.",
        "" if rows else "No track stands out.",
        (table,) if rows else (),
    )


AUDIT = Audit("doctor", run, section)
