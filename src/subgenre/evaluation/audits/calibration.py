"""Calibration: of the tracks that are said to fit a playlist by 70 %, do 70 % belong to it?

The figure is that of `classify` and `playlist --expand`, with its temperature fitted on one half of
the held-out tracks of a fold and read on the other half, and the other way round. The error is that
of Naeini, Cooper and Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning",
AAAI 2015. It is above 0 in a small sample even if all is right, so a simulation says by how much.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from subgenre.core import text
from subgenre.core.text import percent
from subgenre.errors import EvaluationError
from subgenre.evaluation.audits.base import Audit, Context, Lines, Section, Table
from subgenre.evaluation.baselines import Fold
from subgenre.metrics import wilson
from subgenre.metrics.vectors import Ints
from subgenre.search import classifier
from subgenre.search.classifier import Label

BINS = 10  # of equal width
DRAWS = 1000
MIN_TRACKS = 20

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Bin:
    """Pairs of a track and a playlist with nearly the same figure.

    `fits`: its mean. `share`: of the pairs that belong, with a 95 % interval.
    """

    n: int
    fits: float
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Calibration:
    """How far "fits" is from the truth on n_tracks held-out tracks.

    Attributes:
        error: mean distance of "fits" from the share that is right, for the best playlist of each
            track. error_if_calibrated: 95 % of perfectly calibrated models show less than this.
        brier: mean squared error over all pairs of a track and a playlist.
        bins: the reliability curve over all pairs.
    """

    n_tracks: int
    error: float
    error_if_calibrated: float
    brier: float
    bins: tuple[Bin, ...]
    text: str


def run(context: Context) -> Calibration:
    """Measure the calibration of "fits" on held-out tracks.

    Raises: EvaluationError for fewer than `MIN_TRACKS` of them.
    """
    parts = [part for fold in context.folds for part in _halves(fold, context)]
    n_tracks = sum(len(fits) for fits, _ in parts)
    if n_tracks < MIN_TRACKS:
        raise EvaluationError(f"{n_tracks} held-out tracks; at least {MIN_TRACKS} are needed")
    best = np.concatenate([fits.max(axis=1) for fits, _ in parts])
    right = np.concatenate([truth[np.arange(len(fits)), fits.argmax(1)] for fits, truth in parts])
    every = np.concatenate([fits.ravel() for fits, _ in parts])
    belongs = np.concatenate([truth.ravel() for _, truth in parts])
    rng = np.random.default_rng(context.seed)
    draws = [calibration_error(best, rng.random(len(best)) < best) for _ in range(DRAWS)]
    error, usual = calibration_error(best, right), float(np.quantile(draws, 0.95))
    off, chance = (text.counted(round(100 * gap), "point") for gap in (error, usual))
    verdict = "this shows no fault" if error <= usual else "“fits” is not calibrated"
    return Calibration(
        n_tracks,
        error,
        usual,
        float(np.mean((every - belongs) ** 2)),
        reliability(every, belongs),
        f"On {text.counted(n_tracks, 'held-out track')}, “fits” differs from the share that is "
        f"right by {off} on average. By chance alone it can differ by up "
        f"to {chance}: {verdict}",
    )


def _halves(fold: Fold, context: Context) -> Iterator[tuple[Doubles, NDArray[np.bool_]]]:
    """Yield the figures [m, C] of each half of a fold's held-out tracks, and where they belong."""
    x, names = fold.vectors["trained"], [("", str(number)) for number in context.labels]
    test = fold.test[np.isin(context.labels[fold.test], context.labels[fold.train])]
    test = np.random.default_rng(context.seed).permutation(test)
    known = sorted({names[i] for i in fold.train})
    if len(known) < 2 or len(test) < 2:
        return

    def named(rows: Ints) -> list[Label]:
        return [names[i] for i in rows]

    for held, other in ((test[::2], test[1::2]), (test[1::2], test[::2])):
        model = classifier.fit(
            x[fold.train], named(fold.train), calibration=(x[other], named(other))
        )
        truth = np.array([[name == label for label in model.labels] for name in named(held)])
        yield model.probabilities(x[held]), truth


def calibration_error(fits: Doubles, right: NDArray[np.bool_]) -> float:
    """Return the expected calibration error of probabilities [n]: 0 is perfect."""
    place = _bin_of(fits)
    gaps = np.bincount(place, weights=fits - right, minlength=BINS)
    return float(np.abs(gaps).sum() / len(fits))


def reliability(fits: Doubles, right: NDArray[np.bool_]) -> tuple[Bin, ...]:
    """Return the reliability curve of probabilities [n]; a bin without a pair is left out."""
    place, bins = _bin_of(fits), []
    for number in np.unique(place):
        inside = place == number
        n, share = int(inside.sum()), float(right[inside].mean())
        bins.append(Bin(n, float(fits[inside].mean()), share, *wilson(share, n)))
    return tuple(bins)


def _bin_of(fits: Doubles) -> Ints:
    return np.minimum((BINS * fits).astype(np.int64), BINS - 1)


def section(found: Calibration, _: Context) -> Section:
    """Draw the reliability curve, with its figures as a table."""
    rows = tuple(
        (percent(b.fits), percent(b.share), f"{percent(b.low)} to {percent(b.high)}", str(b.n))
        for b in found.bins
    )
    curve = Lines(
        "Share that belongs",
        "fits",
        [b.fits for b in found.bins],
        [b.share for b in found.bins],
        intervals=[(b.low, b.high) for b in found.bins],
        top=1.0,
    )
    return Section(
        "calibration",
        "How well a track fits",
        "Does “fits”, the figure of classify, of playlist --expand and of the explorer, mean what "
        "it says? Each held-out track is compared with each playlist. Of all pairs of a track and "
        "a playlist with a “fits” of 70 %, the track should belong to the playlist in 70 %.",
        f"{found.text}.",
        (curve, Table(("Fits", "Belong", "95 % interval", "Pairs"), rows, "Reliability")),
    )


AUDIT = Audit("calibration", run, section)
