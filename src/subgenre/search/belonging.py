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
MAX_OTHERS = 2000  # others that are drawn from a larger library


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
            `MAX_OTHERS` of them are drawn.
        like, unlike: tracks that a person likes, [a, D], and does not like, [b, D].
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
    given = [vectors for vectors in (like, unlike) if vectors is not None]
    judged = np.concatenate([np.zeros((0, base.shape[1])), *given])
    liked = np.concatenate([np.zeros(0), *(np.full(len(v), float(v is like)) for v in given)])
    keys = np.array([str(i) for i in rows]) if groups is None else np.array(groups)[rows]
    fold = _folds(keys, generator)
    left_out = np.empty(len(y))
    for f in range(FOLDS):
        inside = fold != f
        if not inside.all() and 0 < y[inside].sum() < inside.sum():
            model = Belonging(_weights(base[inside], y[inside], judged, liked), 1.0, 0.0)
            left_out[~inside] = model.scores(base[~inside])
        else:
            left_out[~inside] = np.nan
    use = np.isfinite(left_out) & (True if trusted is None else trusted[rows])
    slope, offset = _platt(left_out[use], y[use])
    return Belonging(_weights(base, y, judged, liked), slope, offset)


def _folds(keys: NDArray[np.str_], generator: np.random.Generator) -> NDArray[np.int64]:
    """Deal the groups to folds, in random order; a group without a name is each track alone."""
    named = np.array([key or f"\0{i}" for i, key in enumerate(keys)])
    groups, which = np.unique(named, return_inverse=True)
    return np.asarray(generator.permutation(len(groups))[which] % FOLDS, dtype=np.int64)


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
