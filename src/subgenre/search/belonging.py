"""Does a track belong to one playlist? A logistic model that is refitted in milliseconds.

Members against others, and what the person likes or doesn't like with more weight than either.
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
WORD_WEIGHT = 5.0  # one liked track counts as much as five members
MAX_OTHERS = 2000  # others that are drawn from a larger library
_RIDGE, _STEPS = 1.0, 25


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
    *,
    like: NDArray[np.floating] | None = None,
    unlike: NDArray[np.floating] | None = None,
    groups: Sequence[str] | None = None,
    trusted: NDArray[np.bool_] | None = None,
    seed: int = 0,
) -> Belonging:
    """Fit the model and its calibration.

    Args:
        members: unit vectors [n, D]. others: of tracks that don't belong, [m, D]; at most
            `MAX_OTHERS` of them are drawn. like, unlike: what the person said, [a, D], [b, D].
        groups: artist (or any key) of members and then others; one group is left out together.
        trusted: members and then others to calibrate on, such as tracks held out of training;
            all where None.
        seed: of the folds and the draw.

    Raises:
        PlaylistError: fewer than two members or two others.
    """
    if len(members) < 2 or len(others) < 2:
        raise PlaylistError(
            f"{len(members)} tracks belong and {len(others)} don't: at least two of each are needed"
        )
    generator = np.random.default_rng(seed)
    kept = np.arange(len(others))
    if len(others) > MAX_OTHERS:
        kept = np.sort(generator.choice(len(others), MAX_OTHERS, replace=False))
    rows = np.concatenate([np.arange(len(members)), len(members) + kept])
    base = np.concatenate([members, others[kept]])
    y = np.concatenate([np.ones(len(members)), np.zeros(len(kept))])
    words = [w for w in (like, unlike) if w is not None]
    said = np.concatenate([np.zeros((0, base.shape[1])), *words])
    says = np.concatenate([np.zeros(0), *(np.full(len(w), float(w is like)) for w in words)])
    keys = np.array([str(i) for i in rows]) if groups is None else np.array(groups)[rows]
    fold = _folds(keys, generator)
    left_out = np.empty(len(y))
    for f in range(FOLDS):
        inside = fold != f
        if not inside.all() and 0 < y[inside].sum() < inside.sum():
            model = Belonging(_weights(base[inside], y[inside], said, says), 1.0, 0.0)
            left_out[~inside] = model.scores(base[~inside])
        else:
            left_out[~inside] = np.nan
    use = np.isfinite(left_out) & (True if trusted is None else trusted[rows])
    slope, offset = _platt(left_out[use], y[use])
    return Belonging(_weights(base, y, said, says), slope, offset)


def _folds(keys: NDArray[np.str_], generator: np.random.Generator) -> NDArray[np.int64]:
    """Deal the groups to folds, in random order; a group without a name is each track alone."""
    named = np.array([key or f"\0{i}" for i, key in enumerate(keys)])
    groups, which = np.unique(named, return_inverse=True)
    return np.asarray(generator.permutation(len(groups))[which] % FOLDS, dtype=np.int64)


def _weights(
    base: NDArray[np.floating], y: Doubles, said: NDArray[np.floating], says: Doubles
) -> Doubles:
    """Ridge-regularised logistic weights; both classes weigh alike, a person's word more."""
    positive = y.sum()
    balance = np.where(y == 1, 0.5 * len(y) / positive, 0.5 * len(y) / (len(y) - positive))
    weight = np.concatenate([balance, np.full(len(says), WORD_WEIGHT * balance.max())])
    x = np.concatenate([base, said]) * np.sqrt(base.shape[1])
    return newton(np.c_[x, np.ones(len(x))], np.concatenate([y, says]), weight)


def newton(x: Doubles, y: Doubles, weight: Doubles, *, strength: float = _RIDGE) -> Doubles:
    """Minimise weighted logistic loss + strength |w|^2 / 2; the last column (the bias) is free.

    Newton's method with halved steps (Hastie, Tibshirani and Friedman, "The elements of
    statistical learning", section 4.4.1).
    """
    ridge = np.full(x.shape[1], strength)
    ridge[-1] = 1e-6

    def loss(w: Doubles) -> float:
        z = x @ w
        return float((weight * (np.logaddexp(0, z) - y * z)).sum() + 0.5 * (ridge * w * w).sum())

    w = np.zeros(x.shape[1])
    now = loss(w)
    for _ in range(_STEPS):
        p = expit(x @ w)
        slope = x.T @ (weight * (p - y)) + ridge * w
        curve = (x * (weight * p * (1 - p))[:, None]).T @ x + np.diag(ridge)
        step = np.linalg.solve(curve, slope)
        size = 1.0
        while (later := loss(w - size * step)) > now and size > 1e-6:
            size /= 2
        if now - later < 1e-9 * max(1.0, abs(now)):
            break
        w, now = w - size * step, later
    return np.asarray(w, dtype=np.float64)


def _platt(scores: Doubles, y: Doubles) -> tuple[float, float]:
    """Slope and offset of the sigmoid, with Platt's smoothed targets; the slope is never negative.

    With nothing of one class to calibrate on, the scores are taken as they are.
    """
    positive, negative = float(y.sum()), float((1 - y).sum())
    if not positive or not negative:
        return 1.0, 0.0
    wanted = np.where(y == 1, (positive + 1) / (positive + 2), 1 / (negative + 2))
    scale = max(float(np.std(scores)), 1e-9)
    columns = np.c_[scores / scale, np.ones(len(scores))]
    slope, offset = newton(columns, wanted, np.ones(len(y)), strength=1e-6)
    return max(float(slope) / scale, 0.0), float(offset)
