"""Metrics of any vectors and labels, against scikit-learn and the definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as sk

from subgenre import metrics
from subgenre.metrics import METRICS, combine, measure
from subgenre.metrics.clusters import (
    ari_of,
    contingency,
    cosine_distances,
    nmi_of,
    silhouettes,
)
from subgenre.metrics.retrieval import (
    average_precisions,
    own_order,
    r_precisions,
    similarity_ranks,
    triplet_shares,
)
from subgenre.metrics.vectors import unit
from tests.metrics.test_metrics import library_scores

pytestmark = pytest.mark.slow

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@st.composite
def labellings(draw: st.DrawFn, least: int = 2) -> Ints:
    """Labels 0 to C - 1 of 4 to 24 tracks, each used `least` times or more, in any order."""
    n_labels = draw(st.integers(2, 4))
    more = draw(st.lists(st.integers(0, n_labels - 1), max_size=12))
    return np.array(draw(st.permutations([*range(n_labels)] * least + more)), dtype=np.int64)


@st.composite
def embeddings(draw: st.DrawFn, least: int = 2) -> tuple[Floats, Ints]:
    """Vectors of 2 to 5 columns that are drawn around a centre a label, and their labels."""
    labels = draw(labellings(least))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    size, spread = draw(st.integers(2, 5)), draw(st.sampled_from([0.1, 1.0, 10.0]))
    centres = rng.normal(size=(4, size))
    return centres[labels] + spread * rng.normal(size=(len(labels), size)), labels


@settings(max_examples=10)  # each shuffles labels 1,000 times
@given(labellings(least=3), st.integers(0, 5))  # 3 are most of the 5 nearest
def test_a_perfect_embedding_scores_one(labels: Ints, seed: int) -> None:
    scales = np.random.default_rng(seed).uniform(0.1, 10, (len(labels), 1))
    vectors = np.eye(4)[labels] * scales
    parts = measure(vectors, labels, vectors, labels, genres=[0, 0, 1, 1], seed=seed)
    scores = combine(parts, seed=seed)
    assert list(scores) == list(METRICS)
    for name, score in scores.items():
        assert score.value == 1.0 or abs(score.value - 1) < 1e-12, name
        assert score.chance < 1.0
        assert score.low <= score.value <= score.high <= 1 + 1e-12


@given(embeddings(least=1))
def test_retrieval_is_pytorch_metric_learnings(drawn: tuple[Floats, Ints]) -> None:
    vectors, labels = drawn
    order, found = own_order(unit(vectors)), {}
    matched = np.bincount(labels)[labels] > 1
    if not matched.any():
        return
    found["r_precision"] = np.nanmean(r_precisions(order, labels[None])[0])
    found["mean_average_precision_at_r"] = np.nanmean(average_precisions(order, labels[None])[0])
    found["precision_at_1"] = (labels[order[:, 0]] == labels)[matched].mean()
    peer = library_scores(vectors, labels)
    for name, value in found.items():
        np.testing.assert_allclose(value, peer[name], atol=1e-6)


@given(embeddings(least=1))
def test_scores_of_tracks_are_scikit_learns(drawn: tuple[Floats, Ints]) -> None:
    vectors, labels = drawn
    rows = unit(vectors)
    shares = triplet_shares(similarity_ranks(rows), labels[None])[0]
    for i, share in enumerate(shares):
        others = np.arange(len(labels)) != i
        own = labels[others] == labels[i]
        if own.any() and not own.all():
            np.testing.assert_allclose(share, sk.roc_auc_score(own, (rows @ rows[i])[others]))
        else:
            assert np.isnan(share)
    if len(np.unique(labels)) < len(labels):
        peer = sk.silhouette_samples(vectors, labels, metric="cosine")
        found = silhouettes(cosine_distances(rows), labels[None])[0]
        np.testing.assert_allclose(found, peer, atol=1e-9)


@given(labellings(), st.data())
def test_agreement_of_clusters_is_scikit_learns(labels: Ints, data: st.DataObject) -> None:
    length = len(labels)
    drawn = data.draw(st.lists(st.integers(0, 4), min_size=length, max_size=length))
    clusters = np.array(drawn, dtype=np.int64)
    table = contingency(clusters, labels)
    peer = sk.normalized_mutual_info_score(labels, clusters)
    np.testing.assert_allclose(nmi_of(table), peer, atol=1e-9)
    np.testing.assert_allclose(ari_of(table), sk.adjusted_rand_score(labels, clusters), atol=1e-9)
    several = contingency(clusters, np.stack([labels, labels[::-1]]))
    np.testing.assert_array_equal(several[0], table)
    np.testing.assert_array_equal(several[1], contingency(clusters, labels[::-1]))


@given(embeddings(), embeddings())
def test_neighbours_are_the_loop(known: tuple[Floats, Ints], asked: tuple[Floats, Ints]) -> None:
    size = min(known[0].shape[1], asked[0].shape[1])
    train, labels, test = unit(known[0][:, :size]), known[1], unit(asked[0][:, :size])
    near = metrics.nearest_labels(train, labels, test, k=3)
    centroids = metrics.nearest_centroids(train, labels, test)
    names = np.unique(labels)
    centres = unit(np.stack([train[labels == name].mean(axis=0) for name in names]))
    for i, row in enumerate(test):
        assert near[i].tolist() == labels[np.argsort(-(train @ row))[:3]].tolist()
        assert centroids[i] == names[(centres @ row).argmax()]
