"""How near a vector lies to any subgenre: normal distributions with one shrunk covariance.

Each subgenre has a mean; all share the covariance within subgenres, shrunk towards a multiple of
the identity (Friedman 1989, eq. 18), as dimensions outnumber tracks. The score is minus the
smallest squared Mahalanobis distance (Lee, Lee, Lee and Shin 2018, eq. 2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

Doubles = NDArray[np.float64]

SHRINKAGE = 0.3  # share of the identity in the covariance


@dataclass(frozen=True)
class Gaussians:
    """The subgenres in a space where their covariance is the identity.

    Attributes:
        whiten: [D, D], into that space. means: of the L subgenres there, [L, D].
    """

    whiten: Doubles
    means: Doubles

    @classmethod
    def fit(cls, vectors: NDArray[np.floating], labels: NDArray[np.int64]) -> Gaussians:
        """Fit means and covariance of vectors [N, D] with labels [N] from 0 to L - 1."""
        x = np.asarray(vectors, dtype=np.float64)
        means = np.stack([x[labels == c].mean(axis=0) for c in range(labels.max() + 1)])
        deviation = x.std(axis=0)
        scale = np.where(deviation > 1e-9, 1 / np.maximum(deviation, 1e-9), 0.0)
        residual = (x - means[labels]) * scale
        variance, axes = np.linalg.eigh(residual.T @ residual / max(len(x) - len(means), 1))
        shrunk = (1 - SHRINKAGE) * variance + SHRINKAGE * max(float(variance.mean()), 1e-12)
        whiten = scale[:, None] * axes / np.sqrt(shrunk)
        return cls(whiten, means @ whiten)

    def nearness(self, vectors: NDArray[np.floating]) -> Doubles:
        """Minus the squared distance of vectors [B, D] to the nearest mean: [B]."""
        inside = np.asarray(vectors, dtype=np.float64) @ self.whiten
        return np.asarray(-cdist(inside, self.means, "sqeuclidean").min(axis=1))
