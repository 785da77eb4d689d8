"""Shrunk Gaussians: the distances of the formula, with fewer columns than tracks and with more."""

from __future__ import annotations

import numpy as np
import pytest

from subgenre.search.gaussians import Gaussians


def draw(dims: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(dims)
    y = np.repeat([0, 1, 2], 10)
    return rng.normal(size=(3, dims))[y] + rng.normal(size=(30, dims)), y


@pytest.mark.parametrize("dims", [4, 50])
@pytest.mark.parametrize("shrinkage", [0.3, 0.6])
def test_distances_equal_those_of_the_inverted_covariance(dims: int, shrinkage: float) -> None:
    x, y = draw(dims)
    new = np.random.default_rng(1).normal(size=(7, dims))
    z, v = ((rows - x.mean(axis=0)) / x.std(axis=0) for rows in (x, new))
    means = np.stack([z[y == c].mean(axis=0) for c in range(3)])
    pooled = (z - means[y]).T @ (z - means[y]) / (len(z) - 3)
    shrunk = (1 - shrinkage) * pooled + shrinkage * np.trace(pooled) / dims * np.eye(dims)
    expected = [[(a - m) @ np.linalg.inv(shrunk) @ (a - m) for m in means] for a in v]
    model = Gaussians.fit(x, y, shrinkage=shrinkage)
    np.testing.assert_allclose(model.squares(new), expected, rtol=1e-9)
    np.testing.assert_allclose(model.nearness(new), -np.min(expected, axis=1), rtol=1e-9)


@pytest.mark.parametrize("dims", [4, 50])
def test_columns_that_do_not_vary_change_no_distance(dims: int) -> None:
    """Not by weakening the shrinkage, nor by the rounding of a dead filter scaled up."""
    x, y = draw(dims)
    dead = 5 + 1e-9 * np.random.default_rng(1).normal(size=(len(x), 60))
    wide = np.hstack([x, np.zeros((len(x), 60)), dead])
    expected = Gaussians.fit(x[::2], y[::2]).squares(x)
    np.testing.assert_allclose(Gaussians.fit(wide[::2], y[::2]).squares(wide), expected, rtol=1e-9)


def test_without_any_column_that_varies_every_subgenre_is_as_near() -> None:
    flat = np.ones((12, 4))
    assert (Gaussians.fit(flat, np.repeat([0, 1, 2], 4)).squares(flat) == 0).all()
