"""Metrics against scikit-learn, pytorch-metric-learning and naive loops."""

from __future__ import annotations

import warnings
from dataclasses import replace
from itertools import product
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest, bootstrap, ttest_rel, wilcoxon
from scipy.stats import t as student
from sklearn import metrics as sk
from sklearn.cluster import KMeans
from sklearn.neighbors import NearestCentroid

from subgenre import metrics
from subgenre.errors import EvaluationError
from subgenre.metrics import (
    METRICS,
    VIEWS,
    Measured,
    Metric,
    Score,
    combine,
    evaluation,
    measure,
    wilson,
)
from subgenre.metrics.clusters import REDRAWS, cosine_distances, kmeans, redrawn, silhouettes
from subgenre.metrics.influence import precisions_without, silhouettes_without, triplets_without
from subgenre.metrics.intervals import Z95
from subgenre.metrics.retrieval import (
    average_precisions,
    own_order,
    r_precisions,
    similarity_ranks,
    triplet_shares,
)
from subgenre.metrics.vectors import standardisation, standardised

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
GENRES = np.array([0, 0, 1, 1])


def points(
    n: int, n_labels: int = 4, spread: float = 1.0, seed: int = 0, size: int = 8
) -> tuple[Floats, Ints]:
    """Vectors around a centre a label, labels of uneven size."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(n_labels), rng.integers(0, n_labels, n - n_labels)])
    centres = np.random.default_rng(99).normal(size=(n_labels, size))
    return centres[labels] + spread * rng.normal(size=(n, size)), labels


def unit(vectors: Floats) -> Floats:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def perfect() -> tuple[Floats, Ints]:
    labels = np.repeat(np.arange(4), 5)
    return np.eye(4)[labels] * 3.0, labels


def evaluate(*arguments: Any, seed: int = 0, **options: Any) -> dict[str, Score]:
    return combine(measure(*arguments, genres=GENRES, seed=seed, **options), seed=seed)


def among(vectors: Floats, labels: Ints) -> dict[str, float]:
    """The scores among the test tracks, without chance and interval."""
    rows, y = unit(vectors), np.unique(labels, return_inverse=True)[1][None]
    by_track = {
        "r_precision": r_precisions(own_order(rows), y),
        "map_at_r": average_precisions(own_order(rows), y),
        "triplet_accuracy": triplet_shares(similarity_ranks(rows), y),
        "silhouette": silhouettes(cosine_distances(rows), y),
    }
    return {name: float(np.nanmean(values)) for name, values in by_track.items()}


def library_scores(vectors: Floats, labels: Ints, **reference: object) -> dict[str, float]:
    """The scores of pytorch-metric-learning, in double precision."""
    import torch
    from pytorch_metric_learning.distances import CosineSimilarity
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
    from pytorch_metric_learning.utils.inference import CustomKNN

    calculator = AccuracyCalculator(
        include=("precision_at_1", "r_precision", "mean_average_precision_at_r"),
        k="max_bin_count",
        knn_func=CustomKNN(CosineSimilarity()),
    )
    tensors = {name: torch.from_numpy(np.asarray(value)) for name, value in reference.items()}
    found = calculator.get_accuracy(torch.from_numpy(vectors), torch.from_numpy(labels), **tensors)
    return {name: float(value) for name, value in found.items()}


@pytest.mark.parametrize("seed", range(4))
def test_retrieval_is_pytorch_metric_learnings(seed: int) -> None:
    test, labels = points(60, seed=seed)
    train, train_labels = points(80, seed=seed + 10)
    scores = evaluate(train, train_labels, test, labels)
    reference = library_scores(test, labels)
    assert scores["r_precision"].value == pytest.approx(reference["r_precision"], abs=1e-6)
    expected = pytest.approx(reference["mean_average_precision_at_r"], abs=1e-6)
    assert scores["map_at_r"].value == expected
    assert metrics.map_at_r(test, labels) == expected
    reference = library_scores(test, labels, reference=train, reference_labels=train_labels)
    assert scores["precision_at_1"].value == pytest.approx(reference["precision_at_1"], abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_queries_without_a_match_are_left_out(seed: int) -> None:
    test, labels = points(30, seed=seed)
    labels = np.append(labels, 7)
    test = np.concatenate([test, np.random.default_rng(seed).normal(size=(1, 8))])
    reference = library_scores(test, labels)["mean_average_precision_at_r"]
    assert metrics.map_at_r(test, labels) == pytest.approx(reference, abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_clusters_are_scikit_learns(seed: int) -> None:
    vectors, labels = points(70, seed=seed, spread=1.5)
    if seed == 3:  # alone in its subgenre: a silhouette of 0
        labels[labels == 0] = 1
        labels[0] = 0
    clusters = kmeans(unit(vectors), 4, seed)
    scores = evaluate(vectors, labels, vectors, labels, seed=seed)
    for name, expected in {
        "nmi": sk.normalized_mutual_info_score(labels, clusters),
        "ari": sk.adjusted_rand_score(labels, clusters),
        "silhouette": sk.silhouette_score(vectors, labels, metric="cosine"),
    }.items():
        assert scores[name].value == pytest.approx(expected, abs=1e-9)


def test_nearest_centroid_is_scikit_learns_on_unit_vectors() -> None:
    train, train_labels = points(80, seed=1)
    test, labels = points(40, seed=2, spread=2.0)
    model = NearestCentroid().fit(unit(train), train_labels)
    predicted = unit(test) @ unit(model.centroids_).T
    expected = predicted.argmax(axis=1)
    assert metrics.nearest_centroids(train, train_labels, test).tolist() == expected.tolist()
    accuracy = evaluate(train, train_labels, test, labels)["centroid_accuracy"].value
    assert accuracy == pytest.approx(sk.accuracy_score(labels, expected))


def test_confusion_matrix_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 4, 50), rng.integers(0, 5, 50)
    found = metrics.confusion_matrix(labels, predicted, 5)
    assert found.tolist() == sk.confusion_matrix(labels, predicted, labels=range(5)).tolist()


@pytest.mark.parametrize("k", [1, 3, 5, 200])
def test_knn_is_the_vote_of_the_nearest(k: int) -> None:
    train, train_labels = points(40, seed=1, spread=2.0)
    test, _ = points(30, seed=2, spread=2.0)
    voted = []
    for row in unit(test):
        near = train_labels[np.argsort(-(unit(train) @ row))[:k]].tolist()
        most = max(near.count(x) for x in near)
        voted.append(next(x for x in near if near.count(x) == most))
    near = metrics.nearest_labels(train, train_labels, test, k)
    assert metrics.knn_labels(near).tolist() == voted


def test_triplet_accuracy_is_the_loop() -> None:
    vectors, labels = points(15, n_labels=3, spread=2.0)
    vectors[3] = vectors[4]  # a tie counts half
    rows = unit(vectors)
    shares = []
    for a in range(15):
        own = [
            (rows[a] @ rows[p], rows[a] @ rows[n])
            for p, n in product(range(15), repeat=2)
            if p != a and labels[p] == labels[a] != labels[n]
        ]
        wins = [1.0 if p > n + 1e-12 else 0.5 if abs(p - n) < 1e-12 else 0.0 for p, n in own]
        if own:
            shares.append(np.mean(wins))
    assert among(vectors, labels)["triplet_accuracy"] == pytest.approx(np.mean(shares), abs=1e-12)


@pytest.mark.parametrize("view", VIEWS)
def test_perfect_input_scores_one_in_every_metric(view: str) -> None:
    vectors, labels = perfect()
    if view == "across":
        vectors = np.eye(2)[GENRES[labels]]
    scores = evaluate(vectors, labels, vectors, labels, view=view)
    assert list(scores) == list(METRICS)
    for name, score in scores.items():
        # Wilson's of 20 tracks; replicates of clusters and silhouettes are all 1
        low = 1.0 if name in ("nmi", "ari", "silhouette") else 1 / (1 + Z95**2 / 20)
        assert score.value == pytest.approx(1.0, abs=1e-12)
        assert (score.low, score.high) == pytest.approx((low, 1.0), abs=1e-12)
        assert score.chance < 0.75


def test_scores_lie_in_their_intervals_and_are_repeatable() -> None:
    both = (*points(60, seed=1), *points(50, seed=2))
    scores = evaluate(*both, seed=4)
    for score in scores.values():
        assert score.low <= score.value <= score.high
        assert score.high - score.low < 0.6
    assert scores == evaluate(*both, seed=4)


@pytest.mark.slow
def test_chance_is_what_shuffled_labels_score() -> None:
    train, train_labels = points(60, seed=1)
    test, labels = points(40, seed=2)
    scores = evaluate(train, train_labels, test, labels)
    rng = np.random.default_rng(0)
    clusters = kmeans(unit(test), 4, 0)
    nearest = metrics.nearest_labels(train, train_labels, test)[:, 0]
    naive: dict[str, list[float]] = {}
    for _ in range(150):
        shuffled = rng.permutation(labels)
        values = {
            **among(test, shuffled),
            "precision_at_1": (nearest == shuffled).mean(),
            "nmi": sk.normalized_mutual_info_score(shuffled, clusters),
            "ari": sk.adjusted_rand_score(shuffled, clusters),
        }
        for name, value in values.items():
            naive.setdefault(name, []).append(value)
    for name, values in naive.items():
        error = np.std(values) * (1 / 150 + 1 / 1000) ** 0.5
        assert scores[name].chance == pytest.approx(np.mean(values), abs=5 * error), name
    largest = np.bincount(labels).max() / len(labels)
    assert scores["centroid_accuracy"].chance == pytest.approx(largest)
    assert scores["knn_accuracy"].chance == pytest.approx(largest)


def test_the_chance_of_a_guess_is_the_share_of_the_largest_class() -> None:
    rows = np.random.default_rng(0).normal(size=(10, 5))
    labels = np.repeat([0, 1, 2], [3, 5, 2])
    scores = evaluate(rows, labels, rows, labels)
    assert scores["centroid_accuracy"].chance == scores["knn_accuracy"].chance == 0.5


@pytest.mark.slow
def test_interval_of_a_share_is_the_binomials() -> None:
    """The bootstrap of a share of n is binomial: its width is known."""
    rng = np.random.default_rng(0)
    train, train_labels = perfect()
    labels = rng.integers(0, 4, 250)
    wrong = rng.random(250) < 0.3
    test = np.eye(4)[np.where(wrong, (labels + 1) % 4, labels)]
    score = evaluate(train, train_labels, test, labels)["centroid_accuracy"]
    p = 1 - wrong.mean()
    half = 1.96 * (p * (1 - p) / 250) ** 0.5
    assert score.value == pytest.approx(p)
    assert score.low == pytest.approx(p - half, abs=0.015)
    assert score.high == pytest.approx(p + half, abs=0.015)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_few_tracks_that_agree_have_a_wide_interval(share: float) -> None:
    train, train_labels = perfect()
    labels = np.array([0, 0, 1, 2, 3])
    test = np.eye(4)[labels if share else (labels + 1) % 4]
    score = evaluate(train, train_labels, test, labels)["centroid_accuracy"]
    assert score.value == share
    # the ends are the shares p with (share - p)^2 = z^2 p (1 - p) / n
    assert (score.low, score.high) == pytest.approx(
        (0, 0.4345) if share == 0 else (0.5655, 1), abs=1e-4
    )


def test_wilson_solves_its_own_equation() -> None:
    for share, n in ((0.3, 10), (0.83, 51), (0.0, 7)):
        for p in wilson(share, n):
            assert (share - p) ** 2 == pytest.approx(Z95**2 * p * (1 - p) / n, abs=1e-12)
    found = wilson(0.5, 10)
    assert found == pytest.approx((0.2366, 0.7634), abs=1e-4)  # Newcombe 1998, method 3


@pytest.mark.slow
def test_interval_holds_chance_where_nothing_was_learnt() -> None:
    held = dict.fromkeys(METRICS, 0)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        labels = np.repeat(np.arange(4), 15)
        train, test = rng.normal(size=(60, 8)), rng.normal(size=(60, 8))
        for name, score in evaluate(train, labels, test, labels).items():
            held[name] += score.low <= score.chance <= score.high
    assert {name: n for name, n in held.items() if n < 17} == {}


def test_influence_is_the_score_without_each_track() -> None:
    for ties in (False, True):
        vectors, labels = points(18, spread=2.0)
        labels[0] = 4  # alone in its subgenre
        labels[3:5] = 5  # one match, which goes with the other
        if ties:
            vectors[1] = vectors[2]
        rows = unit(vectors)
        found = {
            "triplet_accuracy": triplets_without(similarity_ranks(rows), labels),
            "silhouette": silhouettes_without(1 - rows @ rows.T, labels),
        }
        if not ties:  # the order of equal neighbours depends on how many there are
            found["r_precision"], found["map_at_r"] = precisions_without(own_order(rows), labels)
        naive = [among(np.delete(vectors, i, 0), np.delete(labels, i)) for i in range(18)]
        for name, without in found.items():
            np.testing.assert_allclose(without, [scores[name] for scores in naive], atol=1e-9)


def test_within_a_genre_only_its_subgenres_are_candidates() -> None:
    train, train_labels = points(80, seed=1)
    test, labels = points(60, seed=2)
    scores = evaluate(train, train_labels, test, labels, view="within")
    hits, precision = 0, 0.0
    for genre in (0, 1):
        ours, here = GENRES[train_labels] == genre, GENRES[labels] == genre
        nearest = metrics.nearest_centroids(train[ours], train_labels[ours], test[here])
        hits += (nearest == labels[here]).sum()
        precision += metrics.map_at_r(test[here], labels[here]) * here.sum()
    assert scores["centroid_accuracy"].value == pytest.approx(hits / 60)
    assert scores["map_at_r"].value == pytest.approx(precision / 60)


def test_across_genres_the_genre_is_the_label() -> None:
    train, train_labels = points(80, seed=1)
    test, labels = points(60, seed=2)
    scores = evaluate(train, train_labels, test, labels, view="across")
    assert scores == evaluate(train, GENRES[train_labels], test, GENRES[labels])


def test_folds_and_repeats_count_a_track_once() -> None:
    train, train_labels = points(60, seed=1)
    test, labels = points(40, seed=2)
    ids = [f"track{i}" for i in range(40)]
    one = measure(train, train_labels, test, labels, genres=GENRES, ids=ids)
    twice = combine([*one, *one])
    assert twice == combine(one)
    halves = [
        *measure(train, train_labels, test[:20], labels[:20], genres=GENRES, ids=ids[:20]),
        *measure(train, train_labels, test[20:], labels[20:], genres=GENRES, ids=ids[20:]),
    ]
    pooled = combine(halves)["centroid_accuracy"]
    nearest = metrics.nearest_centroids(train, train_labels, test)
    assert pooled.value == pytest.approx((nearest == labels).mean())
    alone = combine(halves[:1])["centroid_accuracy"]
    assert pooled.high - pooled.low < alone.high - alone.low


def test_a_collapsed_embedding_scores_as_chance_does() -> None:
    labels = np.repeat(np.arange(4), 10)
    same = np.ones((40, 8))
    scores = evaluate(same, labels, same, labels)
    assert scores["triplet_accuracy"].value == 0.5
    assert scores["silhouette"].value == 0.0
    assert scores["nmi"].value == pytest.approx(0.0)
    assert scores["centroid_accuracy"].value == 0.25
    for name in ("precision_at_1", "map_at_r", "r_precision"):
        assert abs(scores[name].value - scores[name].chance) < 0.12


def test_a_metric_that_can_not_be_scored_is_left_out_with_a_note() -> None:
    train, train_labels = points(20)
    (part,) = measure(train, train_labels, np.eye(8)[:4], np.arange(4), genres=GENRES)
    missing = {"r_precision", "map_at_r", "triplet_accuracy", "silhouette"}
    assert set(combine([part])) == set(METRICS) - missing
    assert len(part.notes) == 4
    assert any(note.startswith("MAP@R") and "4 test tracks" in note for note in part.notes)
    with pytest.raises(EvaluationError, match="no test track has another"):
        metrics.map_at_r(np.eye(4), np.arange(4))


@pytest.mark.slow
def test_scores_are_finite_whatever_the_sizes() -> None:
    rng = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for n in range(2, 12):
            labels = np.append(rng.integers(0, 3, n - 2), [0, 2])
            vectors = rng.normal(size=(n, 3))
            for view in ("all", "across"):
                found = evaluate(vectors, labels, vectors, labels, view=view)
                for score in found.values():
                    assert np.isfinite(list(score.to_dict().values())).all()


def test_bad_input_is_refused() -> None:
    vectors, labels = points(20)
    nan, zero = vectors.copy(), vectors.copy()
    nan[3, 2], zero[5] = np.nan, 0.0
    cases: list[tuple[tuple[object, ...], str]] = [
        ((vectors, labels, nan, labels), "test vector 3 .* NaN or infinity"),
        ((nan, labels, vectors, labels), "training vector 3 .* NaN or infinity"),
        ((vectors, labels, zero, labels), "test vector 5 is zero"),
        ((vectors, labels, vectors, labels[:-1]), "give \\[N, D\\] and \\[N\\]"),
        ((vectors, labels, vectors, labels * 0), "test tracks are all of one class"),
        ((vectors, labels * 0, vectors, labels), "training tracks are all of one class"),
        ((vectors, labels, vectors[:0], labels[:0]), "no test tracks"),
        ((vectors, labels - 1, vectors, labels), "training labels must be whole numbers from 0"),
        ((vectors, labels, vectors, labels + 2), "label 5 has no genre"),
        ((vectors, labels + 2, vectors, labels), "label 5 has no genre"),
    ]
    for arguments, message in cases:
        with pytest.raises(EvaluationError, match=message):
            measure(*arguments, genres=GENRES)  # type: ignore[arg-type]
    for view, genres, message in (
        ("x", GENRES, "view is 'x'"),
        ("within", np.arange(4), "no genre has two subgenres"),
        ("across", [0] * 4, "all of one class"),
    ):
        with pytest.raises(EvaluationError, match=message):
            measure(vectors, labels, vectors, labels, genres=genres, view=view)


def similarity_to_own(train: Floats, train_labels: Ints, test: Floats, test_labels: Ints) -> Floats:
    """A toy metric: the similarity to the nearest training track of the track's own label."""
    own = train_labels == test_labels[:, None]
    return np.where(own, test @ train.T, 0.0).max(axis=1)


def test_a_registered_function_is_scored_with_interval_and_chance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    toy = Metric(
        "toy", "Toy", "Similarity to the nearest of one's own.", by_track=similarity_to_own
    )
    monkeypatch.setitem(METRICS, "toy", toy)
    known, known_labels = points(40, seed=1)
    test, test_labels = points(30, seed=2)
    score = evaluate(known, known_labels, test, test_labels)["toy"]
    expected = similarity_to_own(unit(known), known_labels, unit(test), test_labels)
    assert score.value == pytest.approx(expected.mean(), abs=1e-12)
    assert score.low < score.value < score.high
    assert score.chance < score.value


def by_track(values: list[float], fold: int = 0) -> Measured:
    """One part with a share of right tracks, a rank among all, and an NMI that is that share."""
    n = len(values)
    own = {"centroid_accuracy": np.array(values), "map_at_r": np.array(values) / 3}
    share = dict.fromkeys(("nmi", "ari"), float(np.mean(values)))
    draws = {name: value + np.linspace(-0.1, 0.1, REDRAWS) for name, value in share.items()}
    chance = {"centroid_accuracy": 0.5, "map_at_r": 0.1, "nmi": 0.0, "ari": 0.0}
    return Measured(tuple(f"{fold}-{i}" for i in range(n)), own, {}, share, draws, chance)


def test_the_difference_of_two_models_is_judged_in_pairs() -> None:
    both, only_first, only_second, none = 60, 29, 9, 40
    first = [1.0] * both + [1.0] * only_first + [0.0] * only_second + [0.0] * none
    second = [1.0] * both + [0.0] * only_first + [1.0] * only_second + [0.0] * none
    n = len(first)
    found = metrics.compare([by_track(first)], [by_track(second)])["centroid_accuracy"]
    assert found.difference == pytest.approx((only_first - only_second) / n)
    assert found.n == n
    # McNemar's exact test, and the interval of a mean of paired differences by its own bootstrap
    assert found.p == pytest.approx(binomtest(only_first, only_first + only_second).pvalue)
    peer = bootstrap(
        (np.array(first) - np.array(second),), np.mean, method="percentile", n_resamples=4000, rng=0
    ).confidence_interval
    np.testing.assert_allclose([found.low, found.high], peer, atol=0.012)


def test_a_difference_of_any_values_has_the_p_of_a_paired_permutation_test() -> None:
    rng = np.random.default_rng(0)
    one = rng.random(40)
    two = one + rng.normal(0.05, 0.2, 40)
    found = metrics.paired_p(two - one)
    peer = wilcoxon(two, one).pvalue, ttest_rel(two, one).pvalue
    assert min(peer) / 2 < found < max(peer) * 2
    assert metrics.paired_p(np.zeros(9)) == 1.0


def test_replicates_of_a_difference_keep_the_sizes_of_the_folds() -> None:
    # one model is right on all of one fold, the other on all of the other: each replicate agrees
    ones, zeros = [1.0] * 10, [0.0] * 10
    first, second = ([by_track(a, 0), by_track(b, 1)] for a, b in ((ones, zeros), (zeros, ones)))
    found = metrics.compare(first, second)["centroid_accuracy"]
    assert (found.difference, found.low, found.high) == (0.0, 0.0, 0.0)


def test_a_fold_that_one_model_could_not_be_scored_on_is_left_out() -> None:
    first = [by_track([1.0, 1.0, 0.0], 0), by_track([1.0] * 5, 1)]
    found = metrics.compare(first, first[:1])
    assert found["centroid_accuracy"].n == 3
    assert found["centroid_accuracy"].difference == 0.0
    assert metrics.compare(first[:1], first[1:]) == {}


@pytest.mark.parametrize("seed", [3, 100, 2**32 + 100])
def test_k_means_of_any_seed_is_scikit_learns(seed: int) -> None:
    rows = unit(points(60, spread=3.0)[0])
    peer = KMeans(n_clusters=4, n_init=10, random_state=seed % 2**32).fit_predict(rows)
    assert kmeans(rows, 4, seed).tolist() == peer.tolist()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_one_number_that_is_not_finite_is_refused_by_every_function(bad: float) -> None:
    vectors, labels = points(20)
    vectors[7, 1] = bad
    with pytest.raises(EvaluationError, match=r"test vector 7 \(1 in all\)"):
        metrics.map_at_r(vectors, labels)
    with pytest.raises(EvaluationError, match=r"training vector 7 \(1 in all\)"):
        metrics.nearest_labels(vectors, labels, vectors[:3])
    with pytest.raises(EvaluationError, match="whole numbers from 0"):
        metrics.map_at_r(points(20)[0], labels * 1.0)


def test_an_interval_of_a_share_holds_95_of_100_draws() -> None:
    low, high = metrics.share_interval(0.5, np.linspace(0, 1, 1001), 10)
    assert (low, high) == pytest.approx((0.025, 0.975))


def test_intervals_have_the_width_of_the_normal_distribution() -> None:
    """Of many bootstraps: 1.96 standard errors either way."""
    rng = np.random.default_rng(0)
    values, other = rng.random(40), rng.random(40)
    error = [np.std(v) / 40**0.5 for v in (values, values - other)]
    ends = []
    for seed in range(6):
        score = combine([by_track(values.tolist())], seed=seed)["map_at_r"]
        pair = [by_track(values.tolist())], [by_track(other.tolist())]
        gap = metrics.compare(*pair, seed=seed)["map_at_r"]
        ends.append(
            [
                (score.value - score.low) * 3 / error[0],
                (score.high - score.value) * 3 / error[0],
                (gap.difference - gap.low) * 3 / error[1],
                (gap.high - gap.difference) * 3 / error[1],
            ]
        )
    np.testing.assert_allclose(np.mean(ends, axis=0), Z95, atol=0.1)


def test_parts_count_by_their_tracks() -> None:
    parts = [by_track([1.0, 0.0, 1.0], 0), by_track([0.0] * 5, 1)]
    parts[1] = replace(parts[1], chance={**parts[1].chance, "map_at_r": 0.5})
    scores = combine(parts)
    assert scores["centroid_accuracy"].value == pytest.approx(2 / 8)
    assert scores["map_at_r"].chance == pytest.approx((3 * 0.1 + 5 * 0.5) / 8)
    assert scores["nmi"].value == scores["ari"].value == pytest.approx(2 / 8)
    # a track of several parts: the mean of its values, without those that it lacks
    lacking = {**parts[0].by_track, "map_at_r": np.array([0.0, np.nan, 1 / 3])}
    again = replace(parts[0], by_track=lacking)
    found = combine([parts[0], again])
    assert found["map_at_r"].value == pytest.approx(np.mean([1 / 6, 0, 1 / 3]))
    # weighed by the tracks that have a value
    assert found["map_at_r"].chance == pytest.approx(0.1)
    other = replace(again, chance={**again.chance, "map_at_r": 0.6})
    assert combine([parts[0], other])["map_at_r"].chance == pytest.approx((3 * 0.1 + 2 * 0.6) / 5)


def test_clusters_of_two_models_are_judged_by_students_t() -> None:
    one, other = by_track([1.0, 0.0] * 20), by_track([1.0, 1.0, 1.0, 0.0] * 10)
    rng = np.random.default_rng(2)
    one.redrawn["nmi"], other.redrawn["nmi"] = rng.normal(0.5, 0.1, (2, REDRAWS))
    found = metrics.compare([one], [other])["nmi"]
    error = np.std(one.redrawn["nmi"] - other.redrawn["nmi"], ddof=1)
    peer = student(REDRAWS - 1, loc=found.difference, scale=error)
    assert found.difference == pytest.approx(-0.25)
    assert found.p == pytest.approx(2 * min(peer.cdf(0), peer.sf(0)))
    assert [found.low, found.high] == pytest.approx(peer.interval(0.95))
    same = metrics.compare([one], [one])["ari"]
    assert (same.difference, same.low, same.high, same.p, same.n) == (0.0, 0.0, 0.0, 1.0, 40)
    certain = metrics.compare([one], [other])["ari"]  # each draw agrees
    assert (certain.low, certain.high, certain.p) == pytest.approx((-0.25, -0.25, 0.0))


def test_one_change_is_no_evidence_and_rounding_is_no_change() -> None:
    assert metrics.paired_p(np.array([0.0, 0.0, 1.0])) == 1.0
    assert metrics.paired_p(np.array([1.0, 1.0, 1e-14])) == pytest.approx(0.5)
    assert metrics.paired_p(np.array([-1.0] * 6)) == pytest.approx(2 / 2**6)
    half = np.array([0.5] * 6)
    assert metrics.paired_p(half) == pytest.approx(2 / 2**6)


def test_draws_of_clusters_are_scikit_learns_scores_of_the_drawn_tracks() -> None:
    """The draws whose clusters are plain, since two labels lie far apart."""
    vectors, labels = points(40, n_labels=2, spread=0.05)
    rows = unit(vectors)
    clusters = KMeans(2, n_init=10, random_state=0).fit_predict(rows)
    labels[:6] = 1 - labels[:6]  # so that neither score is 1
    ids = [f"track {i}" for i in range(40)]
    again = redrawn(rows, labels, ids)
    counts = np.array([np.random.default_rng(crc32(i.encode())).poisson(1, REDRAWS) for i in ids]).T
    for name, peer in (
        ("nmi", sk.normalized_mutual_info_score),
        ("ari", sk.adjusted_rand_score),
    ):
        scores = [peer(labels.repeat(c), clusters.repeat(c)) for c in counts]
        assert again[name] == pytest.approx(np.array(scores))
        # a track has its draws by its id, whatever its place
        assert redrawn(rows[::-1], labels[::-1], ids[::-1])[name] == pytest.approx(again[name])


def test_interval_of_clusters_is_students_t_of_the_draws() -> None:
    part = by_track([1.0, 0.0] * 10)
    found = combine([part])["nmi"]
    half = student.ppf(0.975, REDRAWS - 1) * np.std(part.redrawn["nmi"], ddof=1)
    assert [found.low, found.high] == pytest.approx([0.5 - half, 0.5 + half])
    # of two folds: the draws are averaged by the folds' sizes; the ends stay in the score's range
    small = replace(by_track([1.0] * 5, 1), redrawn={"nmi": np.ones(REDRAWS)}, chance={"nmi": 0.0})
    small.redrawn["ari"] = small.redrawn["nmi"]
    found = combine([part, small])["nmi"]
    assert found.high - found.value == pytest.approx(half * 20 / 25)
    wide = by_track([1.0] * 9)
    assert combine([wide])["ari"].high == 1.0
    low = replace(by_track([0.0] * 9), redrawn={**wide.redrawn})
    assert combine([low])["nmi"].low == 0.0 > combine([low])["ari"].low > -1.0


def test_chance_is_the_mean_over_the_number_of_shuffles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "SHUFFLES", 2)
    test, labels = points(20)
    rng = np.random.default_rng([0, 2])
    shuffled = rng.permuted(np.tile(labels, (2, 1)), axis=1)
    chance = measure(test, labels, test, labels, genres=GENRES)[0].chance
    for name in ("r_precision", "map_at_r", "triplet_accuracy", "silhouette"):
        expected = np.mean([among(test, row)[name] for row in shuffled])
        assert chance[name] == pytest.approx(expected)
    nearest = metrics.nearest_labels(test, labels, test)[:, 0]
    expected = np.mean([(nearest == rng.permutation(labels)).mean() for _ in range(2)])
    assert chance["precision_at_1"] == pytest.approx(expected)


def test_standardisation_is_that_of_double_precision() -> None:
    exact = np.random.default_rng(0).normal(1000, 1, (200, 4))
    exact[:, 3] = 0.1  # constant, but for rounding in float32
    rows = exact.astype(np.float32)
    mean, std = standardisation(rows)
    np.testing.assert_allclose(mean, rows.astype(np.float64).mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(std[:3], rows[:, :3].astype(np.float64).std(axis=0), rtol=1e-12)
    assert std[3] == 0.0
    scaled = standardised(rows, mean, std)
    np.testing.assert_allclose(scaled[:, :3].mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(scaled[:, :3].std(axis=0), 1)
    assert not scaled[:, 3].any()
    assert standardisation([[1], [3]])[1].tolist() == [1.0]


def test_replicates_add_the_mean_influence_of_the_drawn_tracks() -> None:
    vectors, labels = points(30)
    (part,) = measure(vectors, labels, vectors, labels, genres=GENRES)
    score = combine([part], seed=4)["map_at_r"]
    of_id = dict(zip(part.ids, part.influence["map_at_r"], strict=True))
    influence = [of_id[name] for name in sorted(of_id)]
    drawn = np.random.default_rng([4, 1000]).multinomial(30, np.full(30, 1 / 30), 1000)
    replicates = [score.value + np.average(influence, weights=counts) for counts in drawn]
    ends = np.percentile(np.clip(replicates, 0, 1), [2.5, 97.5])
    assert (score.low, score.high) == pytest.approx(tuple(ends))
