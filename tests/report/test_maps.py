"""The map: the same seed the same map, and a new track's place depends on no other new track."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from sklearn.neighbors import NearestNeighbors

from subgenre.errors import EvaluationError
from subgenre.report import maps


def clusters(n: int, labels: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = np.arange(n) % labels
    vectors = np.eye(labels, 16)[label] * 3 + rng.normal(0, 0.5, (n, 16))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), label


@pytest.fixture(scope="module")
def fitted() -> maps.Map:
    return maps.fit_map(clusters(60)[0], seed=7)


@pytest.mark.slow
def test_same_seed_same_map(fitted):
    again = maps.fit_map(clusters(60)[0], seed=7)
    assert np.array_equal(again.coordinates, fitted.coordinates)
    assert (again.trustworthiness, again.knn_agreement) == (
        fitted.trustworthiness,
        fitted.knn_agreement,
    )


@pytest.mark.slow
def test_clusters_stay_together_on_the_map(fitted):
    _, label = clusters(60)
    near = NearestNeighbors(n_neighbors=2).fit(fitted.coordinates)
    neighbour = near.kneighbors(return_distance=False)[:, 0]
    assert (label[neighbour] == label).mean() > 0.95
    assert fitted.method == "UMAP"
    assert fitted.trustworthiness is not None
    assert fitted.trustworthiness > 0.8


@pytest.mark.slow
def test_new_tracks_lie_in_their_cluster(fitted):
    _, label = clusters(60)
    new, new_label = clusters(20, seed=1)
    placed = fitted.place(new)
    near = NearestNeighbors(n_neighbors=1).fit(fitted.coordinates)
    assert (label[near.kneighbors(placed, return_distance=False)[:, 0]] == new_label).mean() > 0.9


@pytest.mark.slow
def test_a_place_does_not_depend_on_the_batch(fitted):
    new, _ = clusters(33, seed=2)
    together = fitted.place(new)
    alone = np.concatenate([fitted.place(new[i : i + 1]) for i in range(33)])
    assert np.array_equal(together, alone)
    assert np.array_equal(fitted.place(new[::-1])[::-1], together)


@pytest.mark.slow
def test_place_equals_a_naive_loop(fitted):
    train, new = clusters(60)[0].astype(np.float64), clusters(5, seed=3)[0].astype(np.float64)
    for vector, place in zip(new, fitted.place(new), strict=True):
        gaps = sorted((1 - sum(a * b for a, b in zip(t, vector, strict=True)), i)
                      for i, t in enumerate(train))[:5]  # fmt: skip
        total = sum(1 / gap for gap, _ in gaps)
        expected = sum(fitted.coordinates[i] / gap for gap, i in gaps) / total
        np.testing.assert_allclose(place, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_training_track_is_placed_where_it_lies(fitted):
    placed = fitted.place(clusters(60)[0])
    np.testing.assert_allclose(placed, fitted.coordinates, atol=1e-3)


def test_knn_agreement_equals_scikit_learn():
    vectors, _ = clusters(40, seed=4)
    flat = np.random.default_rng(0).normal(size=(40, 2))
    near = [
        NearestNeighbors(n_neighbors=6, metric=metric).fit(x).kneighbors(return_distance=False)
        for x, metric in ((vectors, "cosine"), (flat, "euclidean"))
    ]
    expected = np.mean([len(set(a) & set(b)) / 6 for a, b in zip(*near, strict=True)])
    assert maps.knn_agreement(vectors, flat, 6) == pytest.approx(expected, abs=1e-12)
    unit = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    assert maps.knn_agreement(unit, unit, 6) == 1.0


@pytest.mark.parametrize("n", [1, 2, 3, 4, 9])
def test_few_tracks_are_drawn_by_pca(n):
    found = maps.fit_map(clusters(n)[0], seed=0)
    assert (found.method, found.coordinates.shape) == ("PCA", (n, 2))
    assert np.isfinite(found.coordinates).all()
    assert (found.trustworthiness is None) == (n < 3)
    assert np.isfinite(found.place(clusters(3, seed=1)[0])).all()


def test_pca_keeps_what_two_dimensions_can_hold():
    # five tracks on a plane: the map's distances are theirs
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, 5)
    vectors = np.zeros((5, 6))
    vectors[:, 2], vectors[:, 4] = np.cos(angle), np.sin(angle)
    found = maps.fit_map(vectors, seed=0).coordinates
    np.testing.assert_allclose(pdist(found), pdist(vectors), atol=1e-9)


@pytest.mark.slow
def test_ten_tracks_alike_still_give_a_map():
    found = maps.fit_map(np.ones((12, 4)), seed=0)
    assert np.isfinite(found.coordinates).all()


@pytest.mark.slow
def test_bad_vectors_are_refused(fitted):
    bad = clusters(12)[0]
    bad[3, 2] = np.nan
    assert fitted.place(np.zeros((0, 16))).shape == (0, 2)
    with pytest.raises(EvaluationError, match="track number 3 is not finite"):
        maps.fit_map(bad, seed=0)
    bad[3] = 0
    with pytest.raises(EvaluationError, match="track number 3 is zero"):
        maps.fit_map(bad, seed=0)
    with pytest.raises(EvaluationError, match="at least one"):
        maps.fit_map(np.zeros((0, 4)), seed=0)
    with pytest.raises(EvaluationError, match=r"\[N, 16\]"):
        fitted.place(np.ones((2, 8)))
