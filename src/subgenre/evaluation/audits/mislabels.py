"""The doctor: which tracks may be in the wrong playlist, and which are broken?

A probe that hasn't seen a track judges it (out-of-fold). The less probable a track's own subgenre,
the earlier it is listed (self-confidence: Northcutt, Jiang and Chuang 2021, section 3). Swapped
labels show how sure that is, and where the list ends. Duplicates, outliers and recordings that are
silent, clipped or out of phase are listed too. No file is moved: a person listens and decides.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar
from scipy.special import gammaincc, logsumexp
from sklearn.isotonic import IsotonicRegression

from subgenre.core.text import percent
from subgenre.dataset import splits
from subgenre.errors import EvaluationError
from subgenre.evaluation.audits.base import Audit, Context, Section, Suggestion, Suggestions
from subgenre.evaluation.audits.duplicates import Duplicates
from subgenre.evaluation.audits.findings import KINDS, Finding
from subgenre.evaluation.audits.probe import Fold, checked, fold_positions, lda_scores, standardise
from subgenre.library.track import Track
from subgenre.metrics.vectors import Floats, Ints, unit
from subgenre.search.similarity import top_k

SHRINKAGE = 0.6  # of the covariance: more than elsewhere, as labels are under suspicion
TOO_FEW = 8  # tracks in a subgenre, below which its spread is unknown
WRONG_SHARE = 0.05  # of the labels, taken as wrong before a track is judged
LEAST_PRECISION = 0.5  # expected of the list of wrong playlists
NEIGHBOURS = 3  # nearest tracks that are shown, and of the own subgenre for an outlier's distance
BLOCK = 64  # tracks compared with all of their subgenre at a time
OUTLIER_Z = 4.0  # robust z of that distance
SILENT_SHARE = 0.5  # of a track's chunks together
CLIPPED_SHARE = 0.01  # of the samples; a modern master clips a little
CANCELLED_SHARE = 0.5  # of a track's chunks
FOLDS, REPEATS = 5, 3
SURE = (
    "How sure: for a wrong playlist, the probability that the track does not belong where it is, "
    f"if {percent(WRONG_SHARE)} of all labels are wrong; for copies, that both are one recording; "
    "for an outlier, that a track of its playlist lies less far from the others. Best fit: where "
    "else the track would fit best. Probability: of that subgenre, by a probe on the frozen "
    "backbone that has not seen the track; “fits” of classify comes from the trained model. Of all "
    f"rows “wrong playlist”, at least {percent(LEAST_PRECISION)} should be right; a single row may "
    "be less sure."
)

COPIES = (  # where no fingerprints were compared
    " Copies are searched by equal audio packets and near-identical features only; subgenre doctor "
    "compares acoustic fingerprints too, where fpcalc is installed."
)


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
    vectors: ArrayLike,
    labels: Ints,
    names: Sequence[str],
    tracks: Sequence[Track],
    probabilities: Floats,
) -> list[Finding]:
    """Return the tracks that hardly fit their subgenre, the surest first, and where else they fit.

    The list is the longest with an expected precision, the mean `certainty`, of `LEAST_PRECISION`.

    Shapes: vectors [N, D]; labels [N]; names [C]; probabilities [N, C] out-of-fold.
    """
    rows = np.arange(len(labels))
    others = np.where(np.isnan(probabilities), -1.0, probabilities)
    own = np.where(others[rows, labels] < 0, 1.0, others[rows, labels])  # of all, if not judged
    others[rows, labels] = -1.0
    best, sure = others.argmax(axis=1), certainty(probabilities, labels)
    order = np.argsort(own, kind="stable")
    enough = np.cumsum(sure[order]) >= LEAST_PRECISION * (rows + 1)
    listed = order[: enough.nonzero()[0].max(initial=-1) + 1]
    near = unit(standardise(np.asarray(vectors, dtype=np.float64))[0]).astype(np.float32)
    found = []
    for i, (similar, _) in zip(
        listed, top_k(near, near[listed], NEIGHBOURS, skip=listed), strict=True
    ):
        closest = [tracks[j] for j in similar]
        why = "Nearest: " + ", ".join(f"{t.title or t.path.stem} ({t.subgenre})" for t in closest)
        where = (names[labels[i]], names[best[i]])
        one = _finding(tracks[i], "wrong playlist", *where, float(sure[i]), why)
        fit, ids = float(probabilities[i, best[i]]), tuple(track.id for track in closest)
        found.append(dataclasses.replace(one, fit=fit, nearest=ids))
    return found


def certainty(probabilities: Floats, labels: Ints) -> Floats:
    """Return the probability that each label is wrong, if `WRONG_SHARE` of them are: [N].

    The probabilities of the labels are compared with those that the same tracks give all other
    labels, as if those were swapped in. From the least probable label on, blocks of tracks are
    formed in which the ratio of swapped labels to tracks falls (isotonic regression). Of `n` tracks
    in a block, `a` are expected to be wrong. The number of the others is Poisson with a flat prior
    for its rate b, and the result is the posterior mean of a / (a + b), which is
    a Q(n, a) / (n Q(n + 1, a)), with Q the regularised upper incomplete gamma function. Tracks that
    were not judged (NaN) have 0.

    Shapes: probabilities [N, C] out-of-fold, labels [N].
    """
    seen = np.flatnonzero(np.isfinite(probabilities[:, 0]))
    p, y = probabilities[seen], labels[seen]
    given = np.arange(p.shape[1]) == y[:, None]
    swapped = np.sort(p[~given])
    order = np.argsort(p[given], kind="stable")
    own = p[given][order]
    below = np.searchsorted(swapped, own, "right") / swapped.size
    expected = np.diff(WRONG_SHARE * len(y) * below, prepend=0.0)
    ratio = IsotonicRegression(increasing=False).fit_transform(own, expected)
    _, block, size = np.unique(ratio, return_inverse=True, return_counts=True)
    n = size[block]
    ratio = np.minimum(ratio, 1 + 20 / np.sqrt(n))  # beyond it both functions are 0
    share = ratio * gammaincc(n, n * ratio) / gammaincc(n + 1, n * ratio)
    result = np.zeros(len(labels))
    result[seen[order]] = np.maximum.accumulate(share[::-1])[::-1]  # an earlier one is no less sure
    return result


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
        mean = _distance_to_nearest(near[own])
        spread = 1.4826 * float(np.median(np.abs(mean - np.median(mean))))
        z = (mean - np.median(mean)) / max(spread, 1e-12)
        for i in np.flatnonzero((z > OUTLIER_Z) & (mean > 1e-6)):
            why = (
                "Far from the other tracks of its playlist: its distance to the nearest of them is "
                f"{z[i]:.1f} times the usual deviation above the median"
            )
            sure = 1 - 1 / (1 + float(z[i]) ** 2)
            rows.append(_finding(tracks[own[i]], "outlier", names[c], "", sure, why))
    return rows


def _distance_to_nearest(near: Floats) -> Floats:
    """Return the mean distance of each unit vector [n, D] to its nearest others, block by block."""
    mean = np.empty(len(near))
    for start in range(0, len(near), BLOCK):
        distance = 1 - near[start : start + BLOCK] @ near.T
        rows = np.arange(len(distance))
        distance[rows, start + rows] = np.inf
        nearest = np.partition(distance, NEIGHBOURS - 1, axis=1)[:, :NEIGHBOURS]
        mean[start + rows] = np.sort(nearest, axis=1).mean(axis=1)
    return mean


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
    """Return tracks that are silent, clipped or out of phase, by the means of their chunks.

    `measures` holds "silent_share", "clipped_share" and "cancelled_share" [N]; NaN counts as 0. The
    confidence is the silent or cancelled share, or 1 - half the limit over the clipped share.
    """
    rows = []
    shares = (
        np.nan_to_num(np.asarray(measures[name], dtype=np.float64)).tolist()
        for name in ("silent_share", "clipped_share", "cancelled_share")
    )
    for track, silence, clipping, cancelled in zip(tracks, *shares, strict=True):
        if silence >= SILENT_SHARE:
            why = f"{percent(silence)} of the audio is silence"
            rows.append(_finding(track, "silent", track.subgenre, "", silence, why))
        if clipping >= CLIPPED_SHARE:
            why = f"{percent(clipping)} of the samples are clipped"
            sure = 1 - CLIPPED_SHARE / (2 * clipping)
            rows.append(_finding(track, "clipped", track.subgenre, "", sure, why))
        if cancelled >= CANCELLED_SHARE:
            why = f"The channels cancel in {percent(cancelled)} of it; the louder one is used"
            rows.append(_finding(track, "out of phase", track.subgenre, "", cancelled, why))
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

    Without folds no track is judged to be in the wrong playlist.

    Shapes: vectors [N, D], labels [N], names [C], N tracks in the same order, folds of positions.

    Raises: EvaluationError as `oof_probabilities`.
    """
    judged = oof_probabilities(vectors, labels, folds) if folds else None
    found = [
        *([] if judged is None else wrong_playlist(vectors, labels, names, tracks, judged)),
        *outliers(vectors, labels, names, tracks),
        *copies(duplicates, tracks),
        *broken(tracks, measures),
    ]
    return sorted(found, key=lambda f: (KINDS.index(f.kind), -f.confidence))


def csv_rows(findings: Sequence[Finding]) -> list[list[str]]:
    """Return a header and a row of text for each finding, for a CSV file."""
    header = [field.name for field in dataclasses.fields(Finding)]
    rows = [
        [
            *(f.track, f.path, f.kind, f.subgenre, f.suggestion, f"{f.confidence:.3f}", f.why),
            *("" if f.fit is None else f"{f.fit:.3f}", " ".join(f.nearest)),
        ]
        for f in findings
    ]
    return [header, *rows]


def _finding(
    track: Track, kind: str, subgenre: str, suggestion: str, sure: float, why: str
) -> Finding:
    return Finding(track.id, str(track.path), kind, subgenre, suggestion, sure, why)


def run(context: Context) -> list[Finding]:
    """Diagnose all tracks, over their own folds and at least three repeats."""
    n_folds = context.n_folds or most_folds(context.labels)
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


def most_folds(labels: Ints) -> int:
    """Return the number of folds by default: `FOLDS`, or the tracks of the largest subgenre."""
    return min(FOLDS, int(np.bincount(labels).max()))


def repeated_folds(tracks: Sequence[Track], n_folds: int, repeats: int, seed: int) -> list[Fold]:
    """Return folds of all tracks as positions, several times, drawn as `evaluate` draws them."""
    ids = [track.id for track in tracks]
    return [
        fold
        for repeat in range(repeats)
        for fold in fold_positions(splits.folds(tracks, n_folds, seed=seed + repeat), ids)
    ]


def section(findings: Sequence[Finding], context: Context) -> Section:
    """Show the tracks to check, and the nearest ones, in rows that can be played."""
    titles = {track.id: track.title or track.path.stem for track in context.tracks}
    subgenres = {track.id: track.subgenre for track in context.tracks}
    rows = tuple(
        Suggestion(
            f.track,
            titles[f.track],
            "" if f.nearest else f.why,
            (
                f.kind,
                f.subgenre,
                f.how_sure,
                "" if f.kind == "duplicate" else f.suggestion,
                "" if f.fit is None else percent(f.fit),
            ),
            tuple((near, f"{titles[near]} ({subgenres[near]})") for near in f.nearest),
        )
        for f in findings
    )
    columns = ("Problem", "Playlist", "How sure", "Best fit", "Probability")
    table = Suggestions(columns, rows, "Tracks to check")
    compared = "" if context.copies.method == "fingerprint" else COPIES
    return Section(
        "doctor",
        "Tracks to check",
        "Which tracks may be in the wrong playlist, copies, outliers or broken recordings? Nothing "
        f"was changed. {SURE}{compared}",
        "" if rows else "No track stands out.",
        (table,) if rows else (),
    )


AUDIT = Audit("doctor", run, section)
