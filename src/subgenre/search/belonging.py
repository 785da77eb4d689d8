"""Does a track belong to one playlist? Logistic regression, fitted anew for each request.

Members against others; the tracks that a person likes or does not like weigh more than either.
The scores become probabilities by Platt's sigmoid (Platt, "Probabilistic outputs for support
vector machines", 1999, section 2), fitted on scores of tracks that were left out, artist by artist,
of the model that scored them. They hold for tracks that are mixed as the labelled ones are; where
the encoder has learnt from the members themselves they come out too high, and `trusted` helps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from subgenre.errors import PlaylistError

Doubles = NDArray[np.float64]

FOLDS = 5
JUDGED_WEIGHT = 5.0  # one liked track counts as much as five members


@dataclass(frozen=True)
class Belonging:
    """A fitted model: weights [D + 1] with the bias last, and Platt's slope and offset."""

    weights: Doubles
    slope: float
    offset: float

    def scores(self, vectors: NDArray[np.floating]) -> Doubles:
        """Uncalibrated log odds of vectors [B, D]: [B]; the order of the ranking."""
        x = np.asarray(vectors) * np.sqrt(vectors.shape[1])
        return np.asarray(x @ self.weights[:-1] + self.weights[-1], dtype=np.float64)

    def probabilities(self, vectors: NDArray[np.floating]) -> Doubles:
        """Calibrated probability that each of vectors [B, D] belongs: [B]."""
        return np.asarray(expit(self.slope * self.scores(vectors) + self.offset))


def fit(
    members: NDArray[np.floating],
    others: NDArray[np.floating],
    groups: Sequence[str],
    *,
    like: Sequence[NDArray[np.floating]] = (),
    unlike: Sequence[NDArray[np.floating]] = (),
    trusted: NDArray[np.bool_] | None = None,
    seed: int = 0,
) -> Belonging:
    """Fit the model and its calibration.

    Args:
        members: unit vectors [n, D]. others: of tracks that don't belong, [m, D].
        groups: artist of members and then others, left out together; "" is a group of one track.
        like, unlike: vectors [D] of tracks that a person likes and does not like.
        trusted: [n + m], tracks to calibrate on, such as those held out of training; None: all.
        seed: of the folds.
    """
    if len(members) < 2 or len(others) < 2:
        raise PlaylistError(
            f"{len(members)} tracks belong and {len(others)} are of other subgenres, but at least "
            "two of each are needed; index more tracks"
        )
    base = np.concatenate([members, others])
    y = np.repeat([1.0, 0.0], [len(members), len(others)])
    judged = np.array([*like, *unlike], dtype=np.float64).reshape(-1, base.shape[1])
    liked = np.repeat([1.0, 0.0], [len(like), len(unlike)])
    names, group = np.unique([g or f"\0{i}" for i, g in enumerate(groups)], return_inverse=True)
    fold = np.random.default_rng(seed).permutation(len(names))[group] % FOLDS
    left_out = np.full(len(y), np.nan)
    for f in range(FOLDS):
        inside = fold != f
        if not inside.all() and 0 < y[inside].sum() < inside.sum():
            model = Belonging(_weights(base[inside], y[inside], judged, liked), 1.0, 0.0)
            left_out[~inside] = model.scores(base[~inside])
    use = np.isfinite(left_out) & (True if trusted is None else trusted)
    slope, offset = _platt(left_out[use], y[use])
    return Belonging(_weights(base, y, judged, liked), slope, offset)


def _weights(
    base: NDArray[np.floating], y: Doubles, judged: NDArray[np.floating], liked: Doubles
) -> Doubles:
    """Fit logistic weights [D + 1]; both classes weigh alike, liked and unlike tracks more."""
    from sklearn.linear_model import LogisticRegression

    positive = y.sum()
    balance = np.where(y == 1, 0.5 * len(y) / positive, 0.5 * len(y) / (len(y) - positive))
    weight = np.concatenate([balance, np.full(len(liked), JUDGED_WEIGHT * balance.max())])
    x = np.concatenate([base, judged]) * np.sqrt(base.shape[1])
    model = LogisticRegression(max_iter=1000).fit(x, np.concatenate([y, liked]), weight)
    return np.append(model.coef_[0], model.intercept_)


def _platt(scores: Doubles, y: Doubles) -> tuple[float, float]:
    """Return slope and offset of the sigmoid, by Platt's smoothed targets.

    The slope is never negative. Scores of one class alone are left uncalibrated.
    """
    from sklearn.linear_model import LogisticRegression

    positive, negative = float(y.sum()), float((1 - y).sum())
    if not positive or not negative:
        return 1.0, 0.0
    # scikit-learn takes hard labels: a target t is a positive of weight t, a negative of 1 - t
    target = np.where(y == 1, (positive + 1) / (positive + 2), 1 / (negative + 2))
    scale = max(float(np.std(scores)), 1e-9)
    x = np.tile(scores / scale, 2)[:, None]
    label, weight = np.repeat([1, 0], len(y)), np.concatenate([target, 1 - target])
    model = LogisticRegression(C=1e6, max_iter=1000).fit(x, label, weight)
    return max(float(model.coef_[0, 0]) / scale, 0.0), float(model.intercept_[0])
