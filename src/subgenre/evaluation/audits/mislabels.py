"""The doctor: which tracks look as if they were in the wrong playlist, and which are broken?

Each track is judged by a probe that hasn't seen it (out-of-fold). Where the probe finds another
subgenre more probable than the track's own, the track is named; the surest are those whose own
subgenre is the least probable beside the other (the odds, not the margin: where many subgenres
share the probability, a small margin can still be long odds). Duplicates, outliers and silent or
clipped recordings are listed beside. Nothing is moved: a person listens and decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from subgenre.core.text import percent
from subgenre.dataset import splits
from subgenre.errors import EvaluationError
from subgenre.evaluation.audits.base import Audit, Context, Result, Section, Suggestion, Suggestions
from subgenre.evaluation.audits.duplicates import Duplicates
from subgenre.evaluation.audits.probe import (
    Floats,
    Fold,
    Ints,
    checked,
    checked_folds,
    fold_positions,
    lda_scores,
    standardise,
)
from subgenre.metrics.vectors import unit

if TYPE_CHECKING:
    from subgenre.library.track import Track

SHRINKAGE = 0.6  # of the covariance: more than elsewhere, as labels are under suspicion
TOO_FEW = 8  # tracks in a subgenre, below which nothing can be said of its spread
LEAST = 0.9  # confidence of a wrong playlist: 9 to 1 for another one, or nobody reads the list
OUTLIER_Z = 4.0  # robust z of the distance to one's own subgenre
SILENT_SHARE = 0.5  # of a track's chunks together
CLIPPED_SHARE = 0.001  # of the samples: audible distortion
FOLDS, REPEATS = 5, 3
KINDS = ("wrong playlist", "two playlists", "duplicate", "outlier", "silent", "clipped")
CSV_COLUMNS = ("track", "path", "kind", "subgenre", "suggestion", "confidence", "why")


@dataclass(frozen=True)
class Finding(Result):
    """One thing to look at.

    Attributes: track: id; path; kind: one of `KINDS`; subgenre: where it is; suggestion: the
    playlist that it fits, or the path of the other copy, or ""; confidence: 0..1; why: a sentence.
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

    The probe is shrunk linear discriminant analysis, fitted inside each fold; tracks that stand in
    the test side of several folds (repeats) get the mean of the log-likelihoods. One temperature
    for all, by least log loss, makes the probabilities honest (Guo et al. 2017, section 4.2).

    Shapes: vectors [N, D], labels [N], folds of positions -> [N, C], C = largest label + 1; rows of
    NaN for tracks that no fold tests, or that are alone in their subgenre.

    Raises: EvaluationError for vectors that are not finite, one subgenre, or folds that leak.
    """
    x, y = checked(vectors, labels)
    n_classes = int(y.max()) + 1
    total, times = np.zeros((len(y), n_classes)), np.zeros(len(y))
    for train, tested in checked_folds(folds, len(y)):
        # a track whose subgenre has nobody else to train on would seem wrong wherever it is
        test = tested[np.isin(y[tested], y[train])]
        scores = lda_scores(x[train], y[train], x[test], n_classes, shrinkage=SHRINKAGE)
        total[test] += scores - logsumexp(scores, axis=1, keepdims=True)
        times[test] += 1
    seen = times > 0
    if not seen.any():
        raise EvaluationError("no track can be judged: each is alone in its subgenre or untested")
    logits = total[seen] / times[seen, None]
    result = np.full((len(y), n_classes), np.nan)
    result[seen] = _softmax(logits / _temperature(logits, y[seen]))
    return result


def wrong_playlist(
    probabilities: ArrayLike,
    labels: ArrayLike,
    names: Sequence[str],
    tracks: Sequence[Track],
    *,
    least: float = LEAST,
) -> list[Finding]:
    """Return the tracks that fit another subgenre better, the surest first.

    Shapes: probabilities [N, C] out-of-fold, NaN rows are passed over; labels [N]; names [C]. The
    confidence is `misfit`; what is below `least` is not listed.
    """
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    confidence = misfit(p, y)
    others = np.where(np.isfinite(p), p, -1.0)
    others[np.arange(len(y)), y] = -1.0
    best = others.argmax(axis=1)
    rows = []
    for i in np.argsort(-confidence, kind="stable"):
        if confidence[i] <= max(least, 0.5):
            break
        other, own = names[best[i]], names[y[i]]
        why = f"Probability of {other} {percent(p[i, best[i]])}, of {own} {percent(p[i, y[i]])}"
        rows.append(_finding(tracks[i], "wrong playlist", own, other, float(confidence[i]), why))
    return rows


def misfit(probabilities: ArrayLike, labels: ArrayLike) -> Floats:
    """Return the share of the best other subgenre in what it and the own one have together: [N].

    Above 0.5 another subgenre is more probable; 0 for tracks that were not judged (NaN). Shapes:
    probabilities [N, C], labels [N]. The score by which wrong labels are ranked: self-confidence
    and margin of Northcutt, Jiang and Chuang 2021 (section 3) in one.
    """
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    rows = np.arange(len(y))
    judged = np.isfinite(p).all(axis=1)
    others = p.copy()
    others[rows, y] = -1.0
    best, own = others.max(axis=1), p[rows, y]
    return np.asarray(np.where(judged, best / np.maximum(best + own, 1e-300), 0.0))


def _softmax(logits: Floats) -> Floats:
    return np.asarray(np.exp(logits - logsumexp(logits, axis=1, keepdims=True)))


def _temperature(logits: Floats, labels: Ints) -> float:
    """The temperature of least log loss, between 0.1 and 1000."""
    rows = np.arange(len(labels))

    def loss(log_t: float) -> float:
        scaled = logits / np.exp(log_t)
        return float(np.mean(logsumexp(scaled, axis=1) - scaled[rows, labels]))

    found = minimize_scalar(loss, bounds=(np.log(0.1), np.log(1000.0)), method="bounded")
    return float(np.exp(found.x))


def outliers(
    vectors: ArrayLike,
    labels: ArrayLike,
    names: Sequence[str],
    tracks: Sequence[Track],
    *,
    k: int = 3,
) -> list[Finding]:
    """Return tracks that lie unusually far from the others of their own subgenre.

    Distance: mean of 1 - cos to the k nearest of the own subgenre, as a robust z over the subgenre
    (median and 1.4826 times the median absolute deviation). Subgenres under 8 tracks are passed
    over. The confidence is Cantelli's bound 1 - 1 / (1 + z^2), true for any distribution.

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
        mean = np.sort(distance, axis=1)[:, :k].mean(axis=1)
        spread = 1.4826 * float(np.median(np.abs(mean - np.median(mean))))
        z = (mean - np.median(mean)) / max(spread, 1e-12)
        for i in np.flatnonzero((z > OUTLIER_Z) & (mean > 1e-6)):
            why = f"Unlike the other tracks of its playlist (robust z-score {z[i]:.1f})"
            sure = 1 - 1 / (1 + float(z[i]) ** 2)
            rows.append(_finding(tracks[own[i]], "outlier", names[c], "", sure, why))
    return rows


def copies(duplicates: Duplicates, tracks: Sequence[Track]) -> list[Finding]:
    """Return a finding a pair of copies: "duplicate", or "two playlists" across subgenres."""
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

    `measures` holds columns [N] among "silent_share" and "clipped_share"; a missing column or a NaN
    finds nothing. The confidence is the silent share, or 1 - half the limit over the clipped share.
    """
    rows = []
    nothing = np.zeros(len(tracks))
    silent = np.nan_to_num(np.asarray(measures.get("silent_share", nothing), dtype=np.float64))
    clipped = np.nan_to_num(np.asarray(measures.get("clipped_share", nothing), dtype=np.float64))
    for track, quiet, over in zip(tracks, silent, clipped, strict=True):
        if quiet >= SILENT_SHARE:
            why = f"{percent(quiet)} of the audio is silence"
            rows.append(_finding(track, "silent", track.subgenre, "", float(quiet), why))
        if over >= CLIPPED_SHARE:
            why = f"{over:.2%} of the samples are clipped"
            sure = 1 - CLIPPED_SHARE / (2 * float(over))
            rows.append(_finding(track, "clipped", track.subgenre, "", sure, why))
    return rows


def diagnose(
    vectors: ArrayLike,
    labels: ArrayLike,
    names: Sequence[str],
    tracks: Sequence[Track],
    folds: Sequence[Fold],
    *,
    duplicates: Duplicates | None = None,
    measures: Mapping[str, ArrayLike] | None = None,
) -> list[Finding]:
    """Return all findings by kind, in the order of `KINDS`, and within a kind the surest first.

    Shapes: vectors [N, D], labels [N], names [C], N tracks in the same order, folds of positions.

    Raises: EvaluationError for vectors that are not finite, one subgenre, or folds that leak.
    """
    if len(tracks) != np.asarray(labels).shape[0]:
        raise EvaluationError(f"{len(tracks)} tracks and {np.asarray(labels).shape[0]} labels")
    found = wrong_playlist(oof_probabilities(vectors, labels, folds), labels, names, tracks)
    found += outliers(vectors, labels, names, tracks)
    found += copies(duplicates, tracks) if duplicates else []
    found += broken(tracks, measures or {})
    return sorted(found, key=lambda f: (KINDS.index(f.kind), -f.confidence))


def csv_rows(findings: Sequence[Finding]) -> list[list[str]]:
    """Return a header and one row of text a finding, for a CSV file."""
    body = [[_cell(getattr(f, name)) for name in CSV_COLUMNS] for f in findings]
    return [list(CSV_COLUMNS), *body]


def _cell(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.3f}"


def _finding(
    track: Track, kind: str, subgenre: str, suggestion: str, sure: float, why: str
) -> Finding:
    return Finding(track.id, str(track.path), kind, subgenre, suggestion, sure, why)


def run(context: Context) -> list[Finding]:
    """Diagnose all tracks, over folds of their own and at least three repeats."""
    largest = int(np.bincount(context.labels).max())
    folds = repeated_folds(
        context.tracks,
        context.n_folds or min(FOLDS, largest),
        max(context.repeats, REPEATS),
        context.seed,
    )
    return diagnose(
        context.frozen,
        context.labels,
        context.names,
        context.tracks,
        folds,
        duplicates=context.copies,
        measures=context.columns,
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
            names.get(f.track, f.path),
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
    return Section(
        "doctor",
        "Tracks to check",
        "Which tracks may be in the wrong playlist, copies, outliers or broken recordings? Nothing "
        "was changed.",
        "" if rows else "No track stands out.",
        (Suggestions(("Problem", "Playlist", "Fits", "Confidence"), rows, "Tracks to check"),)
        if rows
        else (),
    )


AUDIT = Audit("doctor", run, section)
