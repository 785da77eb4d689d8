"""How near a vector lies to each subgenre: normal distributions with one shrunk covariance.

Each subgenre has a mean; all share the covariance within subgenres, shrunk towards a multiple of
the identity (Friedman 1989, eq. 18), as dimensions outnumber tracks. `classify` rejects tracks by
the smallest squared Mahalanobis distance (Lee, Lee, Lee and Shin 2018, eq. 2); the audits use the
distances as linear discriminant analysis.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from subgenre.metrics.vectors import standardisation, standardised

Doubles = NDArray[np.float64]

SHRINKAGE = 0.3  # share of the identity in the covariance: few tracks, many dimensions
_RANK = 1e-12  # variance of an axis, as a share of the largest, below which it is rounding


@dataclass(frozen=True)
class Gaussians:
    """The subgenres in a space where their covariance is the identity.

    Attributes:
        mean, deviation: of the columns, [D]. axes: of the covariance, [D, R], R <= D.
        stretch: of each axis, [R]; `scale` of all others. means: of the L subgenres there, [L, D].
    """

    mean: Doubles
    deviation: Doubles
    axes: Doubles
    stretch: Doubles
    scale: float
    means: Doubles

    @classmethod
    def fit(
        cls,
        vectors: NDArray[np.floating],
        labels: NDArray[np.int64],
        *,
        shrinkage: float = SHRINKAGE,
    ) -> Gaussians:
        """Fit means and covariance of vectors [N, D] with labels [N] from 0 to L - 1.

        Columns are standardised first. The identity has the mean variance of the columns that vary.
        """
        mean, deviation = standardisation(vectors)
        x = standardised(vectors, mean, deviation)
        means = np.stack([x[labels == c].mean(axis=0) for c in range(labels.max() + 1)])
        residual = x - means[labels]
        freedom = max(len(x) - len(means), 1)
        identity = float((residual**2).sum()) / freedom / max(int(np.count_nonzero(deviation)), 1)
        floor = shrinkage * max(identity, 1e-12)
        variance, axes = _principal(residual)
        stretch = 1 / np.sqrt((1 - shrinkage) * variance / freedom + floor)
        space = cls(mean, deviation, axes, stretch, 1 / np.sqrt(floor), means)
        return replace(space, means=space._inside(means))

    def squares(self, vectors: NDArray[np.floating]) -> Doubles:
        """Squared Mahalanobis distances of vectors [B, D] to each mean: [B, L]."""
        inside = self._inside(standardised(vectors, self.mean, self.deviation))
        return np.stack([np.square(inside - mean).sum(axis=1) for mean in self.means], axis=1)

    def nearness(self, vectors: NDArray[np.floating]) -> Doubles:
        """Minus the squared distance of vectors [B, D] to the nearest mean: [B]."""
        return np.asarray(-self.squares(vectors).min(axis=1))

    def _inside(self, rows: Doubles) -> Doubles:
        """Turn standardised rows [B, D] into the space where the covariance is the identity."""
        along = rows @ self.axes
        return np.asarray(rows * self.scale + along * (self.stretch - self.scale) @ self.axes.T)


def _principal(residual: Doubles) -> tuple[Doubles, Doubles]:
    """Return the axes [D, R] of residuals [N, D] and the sum of squares along each [R].

    From the smaller of the two Gram matrices: a frozen backbone has ten times as many columns as
    there are tracks.
    """
    n, d = residual.shape
    if d <= n:
        return np.linalg.eigh(residual.T @ residual)
    squares, turned = np.linalg.eigh(residual @ residual.T)
    kept = squares > _RANK * squares[-1]
    squares = squares[kept]
    return squares, residual.T @ turned[:, kept] / np.sqrt(squares)
