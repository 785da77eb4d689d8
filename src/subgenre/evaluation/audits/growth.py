"""The learning curve: what would more tracks per subgenre bring?

A light probe trains on n tracks of each subgenre, drawn several times inside each fold, and is
judged on the same held-out tracks. The error falls as c + a n^-b in most learning problems (inverse
power law; Figueroa et al. 2012; Viering and Loog 2023). The fitted law is extrapolated a little,
with an interval from a bootstrap over tracks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from subgenre.core.text import counted
from subgenre.evaluation.audits.base import (
    Audit,
    Context,
    Interval,
    Lines,
    Section,
    over_folds,
    points_text,
)
from subgenre.evaluation.audits.probe import Fold, checked, interval, lda_scores
from subgenre.metrics import Score, share_interval
from subgenre.metrics.vectors import Floats, Ints

SIZES = (1, 2, 3, 5, 8, 12, 18, 27, 40, 60, 90, 135, 200)
DRAWS = 5  # of the training tracks in each fold
EXPONENTS = np.linspace(0.1, 2.0, 39)
AHEAD = (1.5, 2.0)  # times the present number of tracks: no further, as the law is only fitted
BOOTSTRAPS = 300
FLAT = 0.01  # gain of accuracy from twice the tracks, below which it is not worth collecting
WIDE = 0.12  # width of the gain's interval, above which it is uncertain
FEWEST_POINTS = 3


@dataclass(frozen=True)
class CurvePoint:
    """Accuracy with n_tracks a subgenre in training (the mean, where some subgenres have fewer)."""

    n_tracks: float
    accuracy: Score


@dataclass(frozen=True)
class Forecast(Interval):
    """Accuracy to expect with n_tracks a subgenre in training, and its 95 % interval."""

    n_tracks: float


@dataclass(frozen=True)
class LearningCurve:
    """The measured points and the forecasts.

    Attributes:
        floor: error that no number of tracks removes, None without a fit.
        gain: of accuracy from twice the tracks.
        verdict: "rising", "flat", "uncertain" or "too few tracks".
    """

    points: tuple[CurvePoint, ...]
    forecasts: tuple[Forecast, ...]
    floor: float | None
    gain: Forecast | None
    verdict: str
    text: str


def run(context: Context) -> LearningCurve:
    """Measure accuracy against the number of training tracks a subgenre, and extrapolate it.

    The vectors are frozen: an encoder that was trained on more than n tracks would make the curve
    too flat.

    Raises: EvaluationError for vectors that are not finite.
    """
    x, y = checked(context.frozen, context.labels)
    folds, generator = context.positions, np.random.default_rng(context.seed)
    sizes = [np.bincount(y[train]) for train, _ in folds]
    largest = min(int(np.median(counts[counts > 0])) for counts in sizes)
    most = max(int(counts.max()) for counts in sizes)
    measured = [
        _right(x, y, folds, n, 1 if n >= most else DRAWS, generator)
        for n in [*(n for n in SIZES if n < largest), largest]
    ]
    tested = np.unique(np.concatenate([test for _, test in folds]))
    right = np.stack([row for row, _ in measured])[:, tested]
    return _extrapolated(np.array([n for _, n in measured]), right, context.chance, generator)


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


def _right(
    x: Floats, y: Ints, folds: Sequence[Fold], n: int, draws: int, generator: np.random.Generator
) -> tuple[Floats, float]:
    """Return the share of draws that place each track right [N], and the mean tracks a subgenre."""
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


def _extrapolated(
    n: Floats, right: Floats, chance: float, generator: np.random.Generator
) -> LearningCurve:
    """Fit the power law to the accuracies with n tracks a subgenre: n [S], right [S, N]."""
    n_tracks = right.shape[1]
    weights = generator.multinomial(n_tracks, np.full(n_tracks, 1 / n_tracks), BOOTSTRAPS)
    draws = right @ weights.T / n_tracks  # [S, K]
    means = right.mean(axis=1)
    points = tuple(
        CurvePoint(size, Score(value, *share_interval(value, row, n_tracks), chance))
        for size, value, row in zip(n.tolist(), means.tolist(), draws, strict=True)
    )
    if len(points) < FEWEST_POINTS:
        text = "Too few tracks for a learning curve: each subgenre needs at least 4."
        return LearningCurve(points, (), None, None, "too few tracks", text)
    a, b, c = power_law(n, 1 - np.column_stack([means, draws]))
    now = float(n[-1])

    def accuracy(size: float) -> Floats:
        return np.asarray(1 - c - a * size**-b)

    def forecast(size: float, values: Floats) -> Forecast:
        found = interval(values[0], values[1:])
        return Forecast(found.value, found.low, found.high, size)

    forecasts = tuple(forecast(now * times, accuracy(now * times)) for times in AHEAD)
    gain = forecast(now * AHEAD[-1], accuracy(now * AHEAD[-1]) - accuracy(now))
    if gain.high - gain.low > WIDE:
        verdict, added = "uncertain", f"an uncertain {points_text(gain)}"
    elif gain.value < FLAT:
        verdict, added = "flat", f"less than {counted(round(100 * FLAT), 'point')}"
    else:
        verdict, added = "rising", f"about {counted(round(100 * gain.value), 'point')}"
    tracks = f"{gain.n_tracks:.0f} instead of {now:.0f} training tracks a subgenre"
    text = f"Twice the tracks ({tracks}) would add {added}, if the fitted curve goes on."
    return LearningCurve(points, forecasts, float(c[0]), gain, verdict, text)


def section(found: LearningCurve, _: Context) -> Section:
    """Show accuracy over the number of training tracks."""
    accuracy = [point.accuracy for point in found.points]
    lines = Lines(
        "Centroid accuracy",
        "training tracks a subgenre",
        [point.n_tracks for point in found.points],
        [score.value for score in accuracy],
        [(score.low, score.high) for score in accuracy],
        accuracy[-1].chance,
        top=1.0,
    )
    return Section(
        "curve",
        "Learning curve",
        "Would more tracks help? A light probe on the frozen backbone trains on fewer tracks. "
        "The model itself is not trained again.",
        found.text,
        (lines,),
    )


AUDIT = Audit("learning_curve", run, section, applies=over_folds)
