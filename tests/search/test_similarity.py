"""Exact neighbours and mutual proximity, against naive loops and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from subgenre.search import similarity


def unit_vectors(count, dim, seed=0):
    x = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("mask", [None, "half", "few"])
def test_top_k_equals_a_full_sort(monkeypatch, mask):
    monkeypatch.setattr(similarity, "BLOCK", 64)
    x, q = unit_vectors(1000, 12), unit_vectors(5, 12, seed=1)
    allowed = None
    if mask:
        allowed = np.random.default_rng(2).random(1000) < (0.5 if mask == "half" else 0.05)
    found = similarity.top_k(x, q, 10, allowed=allowed)
    for (rows, scores), query in zip(found, q, strict=True):
        cosine = x @ query
        naive = [i for i in np.argsort(-cosine, kind="stable") if allowed is None or allowed[i]]
        assert rows.tolist() == naive[:10]
        np.testing.assert_allclose(scores, cosine[rows], atol=1e-6)


def test_equal_vectors_come_in_the_order_of_their_rows(monkeypatch):
    monkeypatch.setattr(similarity, "BLOCK", 64)
    x = np.ones((500, 4), np.float32) / 2
    for count in (500, 5):
        found = similarity.top_k(x[:count], x[:1], 7)[0][0]
        assert found.tolist() == list(range(min(count, 7)))
    assert len(similarity.top_k(x, x[:1], 7, allowed=np.zeros(500, bool))[0][0]) == 0


def naive_mutual(x):
    """Section 3.2 of the paper, pair by pair, with scipy's normal distribution of distances."""
    distance = 1.0 - x.astype(np.float64) @ x.T.astype(np.float64)
    n = len(x)
    others = [np.delete(distance[i], i) for i in range(n)]
    mean, deviation = [o.mean() for o in others], [o.std() for o in others]
    score = np.empty((n, n))
    for i in range(n):
        for j in range(n):
            tails = stats.norm.sf(distance[i, j], [mean[i], mean[j]], [deviation[i], deviation[j]])
            score[i, j] = tails[0] * tails[1]
    return score


def test_mutual_proximity_equals_the_papers_definition(monkeypatch):
    monkeypatch.setattr(similarity, "BLOCK", 16)
    x = unit_vectors(70, 6) + np.float32(0.3)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    score = naive_mutual(x)
    spread = similarity.spread_of(x, similarity.moments(x))
    found = similarity.top_k(x, x, 9, skip=np.arange(70), mutual=(spread, spread))
    for i, (rows, logs) in enumerate(found):
        expected = np.sort(np.delete(score[i], i))[::-1][:9]
        np.testing.assert_allclose(np.exp(logs), expected, rtol=1e-4)
        np.testing.assert_allclose(score[i][rows], expected, rtol=1e-4)


def test_mutual_proximity_lowers_hubness():
    x = np.random.default_rng(0).normal(size=(600, 40)).astype(np.float32) + np.float32(0.4)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    cosine, mutual = (
        similarity.k_occurrence(similarity.neighbours(x, 10, mutual=mutual))
        for mutual in (False, True)
    )
    assert similarity.skewness(cosine) == pytest.approx(stats.skew(cosine))
    assert similarity.skewness(cosine) > 1.0
    assert similarity.skewness(mutual) < 0.5 * similarity.skewness(cosine)
    assert similarity.skewness(np.ones(5, int)) == 0.0
