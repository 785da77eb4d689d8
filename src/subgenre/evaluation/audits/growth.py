"""The learning curve: what would more tracks per subgenre bring?

A light probe is fitted on n tracks of each subgenre, drawn several times inside each fold, and
judged on the same held-out tracks. The error falls as c + a n^-b in most learning problems (inverse
power law; Figueroa et al. 2012; Viering and Loog 2023); the fitted law is followed a little beyond
today's n, with an interval from a bootstrap over tracks. Where no forecast holds, it says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from subgenre.evaluation.audits.base import Audit, Context, Lines, Result, Section, over_folds
from subgenre.evaluation.audits.probe import Floats, Fold, Ints, checked, checked_folds, lda_scores
from subgenre.metrics import Score, share_interval

SIZES = (1, 2, 3, 5, 8, 12, 18, 27, 40, 60, 90, 135, 200)
EXPONENTS = np.linspace(0.1, 2.0, 39)
AHEAD = (1.5, 2.0)  # times today's tracks: further than that nobody should trust a curve
BOOTSTRAPS = 300
FLAT = 0.01  # gain of accuracy from twice the tracks, below which it is not worth collecting
WIDE = 0.12  # width of the gain's interval, above which it says nothing
FEWEST_POINTS = 3


@dataclass(frozen=True)
class CurvePoint(Result):
    """Accuracy with n_tracks a subgenre in training (the mean, where some subgenres have fewer)."""

    n_tracks: float
    accuracy: Score


@dataclass(frozen=True)
class Forecast(Result):
    """Accuracy to expect with n_tracks a subgenre in training, and its 95 % interval."""

    n_tracks: float
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class LearningCurve(Result):
    """The measured points, the forecasts, and what they say.

    Attributes: floor: error that no number of tracks removes, None without a fit; verdict:
    "rising", "flat", "uncertain" or "too few tracks"; gain: accuracy that twice the tracks should
    bring, with its interval.
    """

    points: tuple[CurvePoint, ...]
    forecasts: tuple[Forecast, ...]
    floor: float | None
    gain: Forecast | None
    verdict: str
    text: str


def learning_curve(
    vectors: ArrayLike,
    labels: ArrayLike,
    folds: Sequence[Fold],
    *,
    sizes: Sequence[int] | None = None,
    draws: int = 5,
    seed: int = 0,
) -> LearningCurve:
    """Measure accuracy against the number of training tracks a subgenre, and look ahead.

    Shapes: vectors [N, D], frozen; labels [N]; folds of positions. Vectors of an encoder that was
    trained on more than n tracks know more than n tracks: with them the curve is too flat.

    Raises: EvaluationError for vectors that are not finite, one subgenre, or folds that leak.
    """
    x, y = checked(vectors, labels)
    parts = checked_folds(folds, len(y))
    generator = np.random.default_rng(seed)
    largest = min(_typical_size(y[train]) for train, _ in parts)
    counts = [n for n in (sizes or SIZES) if n < largest] + [largest]
    columns, used = [], []
    for n in dict.fromkeys(counts):
        right, mean_n = _right(x, y, parts, n, 1 if n >= _most(y, parts) else draws, generator)
        columns.append(right)
        used.append(mean_n)
    seen = np.isin(np.arange(len(y)), np.concatenate([test for _, test in parts]))
    return _look_ahead(np.array(used), np.stack(columns)[:, seen], y[seen], generator)


def power_law(n: Floats, errors: Floats) -> tuple[Floats, Floats, Floats]:
    """Fit errors = c + a n^-b by least squares, with a, c >= 0 and b in 0.1 .. 2.

    Shapes: n [S], errors [S, K] (K curves at once) -> a, b, c [K]. b is searched on a grid; for a
    given b the other two follow in closed form.
    """
    best = np.full(errors.shape[1], np.inf)
    a, b, c = (np.zeros(errors.shape[1]) for _ in range(3))
    for exponent in EXPONENTS:
        x = n**-exponent
        spread = x - x.mean()
        slope = spread @ errors / max(float(spread @ spread), 1e-300)
        level = errors.mean(axis=0) - slope * x.mean()
        through_zero = x @ errors / float(x @ x)
        slope = np.where(level < 0, through_zero, slope)
        level = np.where(slope < 0, errors.mean(axis=0), np.maximum(level, 0))
        slope = np.maximum(slope, 0)
        loss = ((errors - level - slope * x[:, None]) ** 2).sum(axis=0)
        better = loss < best
        best = np.where(better, loss, best)
        a, c = np.where(better, slope, a), np.where(better, level, c)
        b = np.where(better, exponent, b)
    return a, b, c


def _typical_size(labels: Ints) -> int:
    counts = np.bincount(labels)
    return int(np.median(counts[counts > 0]))


def _most(y: Ints, folds: Sequence[Fold]) -> int:
    return max(int(np.bincount(y[train]).max()) for train, _ in folds)


def _right(
    x: Floats, y: Ints, folds: Sequence[Fold], n: int, draws: int, generator: np.random.Generator
) -> tuple[Floats, float]:
    """Share of draws in which each track is placed right [N], and the mean tracks a subgenre."""
    right, times, sizes = np.zeros(len(y)), np.zeros(len(y)), []
    for train, test in folds:
        for _ in range(draws):
            mixed = generator.permutation(train)
            chosen = np.concatenate([mixed[y[mixed] == c][:n] for c in np.unique(y[train])])
            scores = lda_scores(x[chosen], y[chosen], x[test], int(y.max()) + 1)
            right[test] += scores.argmax(axis=1) == y[test]
            times[test] += 1
            sizes.append(chosen.size / np.unique(y[chosen]).size)
    return right / np.maximum(times, 1), float(np.mean(sizes))


def _look_ahead(
    n: Floats, right: Floats, labels: Ints, generator: np.random.Generator
) -> LearningCurve:
    """Points with intervals, the fitted law with its bootstrap, and the words for it."""
    n_tracks = right.shape[1]
    weights = generator.multinomial(n_tracks, np.full(n_tracks, 1 / n_tracks), BOOTSTRAPS)
    curves = right @ weights.T / n_tracks  # [S, K]
    chance = float(np.bincount(labels).max() / n_tracks)
    values = right.mean(axis=1).tolist()
    scores = [
        Score(value, *share_interval(value, curve, n_tracks), chance)
        for value, curve in zip(values, curves, strict=True)
    ]
    points = tuple(CurvePoint(float(size), score) for size, score in zip(n, scores, strict=True))
    if len(points) < FEWEST_POINTS:
        text = "Too few tracks for a learning curve: each subgenre needs at least 4."
        return LearningCurve(points, (), None, None, "too few tracks", text)
    a, b, c = power_law(n, 1 - np.column_stack([right.mean(axis=1), curves]))
    now = n[-1]

    def accuracy(size: float) -> Floats:
        return np.asarray(1 - c - a * size**-b)

    forecasts = tuple(_forecast(now * times, accuracy(now * times)) for times in AHEAD)
    gain = _forecast(now * AHEAD[-1], accuracy(now * AHEAD[-1]) - accuracy(now))
    verdict, text = _words(now, gain)
    return LearningCurve(points, forecasts, float(c[0]), gain, verdict, text)


def _forecast(n: float, values: Floats) -> Forecast:
    low, high = np.percentile(values[1:], [2.5, 97.5])
    return Forecast(float(n), float(values[0]), float(low), float(high))


def _words(now: float, gain: Forecast) -> tuple[str, str]:
    points = f"{100 * gain.value:+.0f} points ({100 * gain.low:+.0f} to {100 * gain.high:+.0f})"
    if gain.high - gain.low > WIDE:
        return "uncertain", f"The gain from twice the tracks is uncertain: {points}."
    if gain.value < FLAT:
        return "flat", f"More tracks would add little: twice as many {points}."
    tracks = f"{gain.n_tracks:.0f} instead of {now:.0f} training tracks a subgenre"
    return "rising", f"Twice the tracks ({tracks}) would add about {points}."


def run(context: Context) -> LearningCurve:
    """Measure the curve of the frozen vectors over the folds."""
    return learning_curve(context.frozen, context.labels, context.positions, seed=context.seed)


def section(found: LearningCurve, _: Context) -> Section:
    """Show accuracy over the number of training tracks."""
    accuracy = [point.accuracy for point in found.points]
    lines = Lines(
        "Centroid accuracy",
        "training tracks a subgenre",
        [point.n_tracks for point in found.points],
        [score.value for score in accuracy],
        [(score.low, score.high) for score in accuracy],
        accuracy[-1].chance if accuracy else None,
        top=1.0,
    )
    return Section(
        "curve",
        "Learning curve",
        "Would more tracks help? A light probe on the frozen backbone trains on fewer tracks. "
        "The model itself is not trained again.",
        found.text,
        (lines,) if accuracy else (),
    )


AUDIT = Audit("learning_curve", run, section, applies=over_folds)
