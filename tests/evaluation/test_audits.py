"""Pairs, learning curve, confounders, open set and hubness against what was planted."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest, norm
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score

from subgenre.core.text import percent
from subgenre.dataset.splits import Split
from subgenre.errors import EvaluationError
from subgenre.evaluation.audits import (
    calibration,
    confounders,
    genre_levels,
    growth,
    hubness,
    learnability,
    open_set,
    probe,
)
from subgenre.evaluation.audits.base import Interval, plain
from subgenre.library.track import Track
from subgenre.metrics import Score
from subgenre.metrics.vectors import unit
from subgenre.search import classifier
from tests.evaluation.audit_context import context, folds_of


def blobs(n_labels: int, n: int, *, apart: float = 2.0, dims: int = 12, seed: int = 0):
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(n_labels), n)
    x = apart * generator.normal(size=(n_labels, dims))[labels] / math.sqrt(2)
    return x + generator.normal(size=(labels.size, dims)), labels


# ---- the probe


@pytest.mark.parametrize("dims", [5, 80])
def test_lda_equals_scikit_learn(dims: int) -> None:
    x, y = blobs(3, 12, dims=dims)
    train, test = folds_of(y)[0]
    *known, absent = probe.lda_scores(x[train], y[train], x[test], 4, shrinkage=0.3).T
    assert np.isneginf(absent).all()
    ours = np.stack(known, axis=1)
    fitted, new = probe.standardise(x[train], x[test])
    residual = fitted - np.stack([fitted[y[train] == c].mean(axis=0) for c in range(3)])[y[train]]
    pooled = residual.T @ residual / (len(train) - 3)
    covariance = 0.7 * pooled + 0.3 * np.trace(pooled) / dims * np.eye(dims)

    class Given:
        def fit(self, _):
            self.covariance_ = covariance
            return self

    peer = LinearDiscriminantAnalysis(
        solver="lsqr", covariance_estimator=Given(), priors=[1 / 3] * 3
    ).fit(fitted, y[train])
    expected = peer.decision_function(new)
    np.testing.assert_allclose(
        ours - ours.mean(axis=1, keepdims=True),
        expected - expected.mean(axis=1, keepdims=True),
        atol=1e-8,
    )


def test_ridge_hat_equals_scikit_learn() -> None:
    x, y = blobs(2, 15, dims=40)
    train, test = folds_of(y)[0]
    target = y[train] - y[train].mean()
    fitted, new = probe.standardise(x[train], x[test])
    alpha = np.trace(fitted @ fitted.T) / len(train)
    expected = Ridge(alpha=alpha, fit_intercept=False).fit(fitted, target).predict(new)
    np.testing.assert_allclose(probe.ridge_hat(x[train], x[test]) @ target, expected, atol=1e-9)


def test_folds_never_split_a_group_and_are_as_many_as_groups_allow() -> None:
    labels = np.repeat([0, 1, 2], [10, 10, 3])
    groups = np.arange(23) // 2
    for train, test in folds_of(labels, 5, groups):
        assert not np.intersect1d(groups[train], groups[test]).size
    assert len(folds_of(labels, 5, groups)) == 2
    with pytest.raises(EvaluationError, match="one group"):
        folds_of(labels, 5, np.zeros(23))


def test_splits_become_positions() -> None:
    split = Split(train=("c", "a"), test=("b", "x"), seed=0, grouped_by=("track",), warnings=())
    ((train, test),) = probe.fold_positions([split], ["a", "b", "c", "a"])
    assert (train.tolist(), test.tolist()) == ([0, 2, 3], [1])
    with pytest.raises(EvaluationError, match="fold is empty"):
        probe.fold_positions([split], ["a", "c"])


@pytest.mark.parametrize(
    ("vectors", "labels", "message"),
    [
        (np.ones((3, 2)), [0, 1], "do not match"),
        ([[1.0], [math.inf]], [0, 1], "1 of 2 vectors hold NaN"),
        (np.ones((2, 2)), [1, 1], "only one subgenre"),
        (np.ones((2, 2)), [-1, 1], "leave trash out"),
    ],
)
def test_bad_vectors_and_labels_are_refused(vectors, labels, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        probe.checked(vectors, labels)


def test_the_bootstrap_interval_of_a_share_is_the_normal_one_for_many_tracks() -> None:
    right = np.repeat([0.0, 1.0], [300, 700])
    score = probe.share(right, chance=0.5)
    half = norm.ppf(0.975) * math.sqrt(0.7 * 0.3 / 1000)
    assert score.value == 0.7
    assert (score.low, score.high) == pytest.approx((0.7 - half, 0.7 + half), abs=0.005)
    wide = probe.share(right, chance=0.5, groups=np.arange(1000) // 50)
    assert wide.high - wide.low > 3 * (score.high - score.low)


def test_a_few_tracks_that_are_all_right_or_all_wrong_prove_little() -> None:
    """Every draw of them is alike: the interval is Wilson's, by tracks or by groups."""
    best, worst = probe.share(np.ones(5), chance=0.4), probe.share(np.zeros(5), chance=0.4)
    theirs = binomtest(5, 5).proportion_ci(method="wilson")
    assert (best.low, best.high) == pytest.approx((theirs.low, theirs.high), abs=1e-6)
    assert (worst.low, worst.high) == pytest.approx((0, 1 - theirs.low), abs=1e-6)
    grouped = probe.share(np.ones(6), chance=0.4, groups=[0, 0, 0, 1, 1, 1])
    two = binomtest(2, 2).proportion_ci(method="wilson")
    assert grouped.low == pytest.approx(two.low, abs=1e-6)


# ---- pairs


def test_only_pairs_that_differ_are_separated() -> None:
    x, y = blobs(3, 16, apart=3.0)
    x[y == 2] = np.random.default_rng(1).normal(size=(16, 12)) + x[y == 1].mean(axis=0)
    found = {(p.a, p.b): p for p in learnability.run(context(x, y), permutations=199)}
    assert found["a", "b"].verdict == found["a", "c"].verdict == "separated"
    assert found["a", "b"].p_value == 1 / 200
    assert found["b", "c"].verdict == "not separated"
    json.dumps(plain(list(found.values())), allow_nan=False)


def test_p_values_are_uniform_without_a_difference() -> None:
    p_values = []
    for seed in range(60):
        x, y = blobs(2, 10, apart=0.0, dims=6, seed=seed)
        (pair,) = learnability.run(context(x, y, seed=seed), permutations=39)
        p_values.append(pair.p_value)
    assert 0.4 < np.mean(p_values) < 0.6
    assert np.mean(np.array(p_values) <= 0.1) < 0.2


@pytest.mark.parametrize("bound", [True, False])
def test_artists_alone_make_no_difference_between_subgenres(bound) -> None:
    """Six artists a subgenre, each with its own sound: shuffled by track, p is far too small."""
    p_values = []
    for seed in range(60):
        x, of_artist = blobs(12, 8, apart=3.0, dims=6, seed=seed)
        y = (of_artist >= 6).astype(np.int64)
        folds = folds_of(y, groups=of_artist)
        groups = {"groups": of_artist} if bound else {}
        given = context(x, y, seed=seed, folds=folds, **groups)
        p_values.append(learnability.run(given, permutations=39)[0].p_value)
    too_small = np.mean(np.array(p_values) <= 0.1)
    assert too_small < 0.2 if bound else too_small > 0.3


def test_labels_are_shuffled_as_the_groups_allow() -> None:
    groups = np.array([3, 0, 0, 1, 1, 1, 2, 2, 2, 0])
    labels = np.array([1, 0, 0, 1, 0, 1, 1, 1, 1, 0], dtype=bool)  # group 1 is mixed
    drawn = learnability.shuffled(labels, groups, 500, np.random.default_rng(0))
    assert (drawn[groups == 1].sum(axis=0) == 2).all()
    assert {tuple(row) for row in drawn[groups == 1].T.tolist()} == set(
        itertools.permutations([True, True, False])
    )
    whole = [drawn[groups == g] for g in (0, 2, 3)]
    assert all((rows == rows[0]).all() for rows in whole)
    assert (sum(rows[0].astype(int) for rows in whole) == 2).all()
    assert all(0.6 < rows[0].mean() < 0.73 for rows in whole)


def test_a_pair_with_few_artists_is_not_judged() -> None:
    x, y = blobs(2, 10)
    groups = np.where(y == 1, 100 + np.arange(20) % 3, np.arange(20))
    (pair,) = learnability.run(context(x, y, groups=groups), permutations=19)
    assert (pair.verdict, pair.p_value) == ("too few artists", None)


def test_q_values_are_those_of_benjamini_and_hochberg() -> None:
    x, y = blobs(4, 10, apart=0.8, seed=4)
    found = learnability.run(context(x, y), permutations=99)
    p = np.array([f.p_value for f in found])
    order = np.argsort(p)
    expected = np.empty(p.size)
    scaled = p[order] * p.size / np.arange(1, p.size + 1)
    expected[order] = np.minimum.accumulate(scaled[::-1])[::-1]
    np.testing.assert_allclose([f.q_value for f in found], expected)


def test_a_pair_with_few_tracks_is_not_judged() -> None:
    x, y = (part[:27] for part in blobs(3, 10))
    found = {(p.a, p.b): p for p in learnability.run(context(x, y), permutations=19)}
    assert found["a", "c"].verdict == found["b", "c"].verdict == "too few tracks"
    assert found["a", "c"].p_value is None
    assert found["a", "b"].q_value is not None


def test_trained_accuracy_equals_a_loop_over_tracks() -> None:
    x, y = blobs(3, 9, apart=1.2)
    folds = folds_of(y)
    models = [x + i for i in range(len(folds))]
    score = learnability.trained_accuracy([np.asarray(m) for m in models], y, folds, 0, 2)
    recalls = {0: [], 2: []}
    for model, (train, test) in zip(models, folds, strict=True):
        rows = model / np.linalg.norm(model, axis=1, keepdims=True)
        centres = {c: rows[[i for i in train if y[i] == c]].sum(axis=0) for c in (0, 2)}
        for i in (i for i in test if y[i] in centres):
            cosine = {c: rows[i] @ v / np.linalg.norm(v) for c, v in centres.items()}
            recalls[y[i]].append(max(cosine, key=cosine.get) == y[i])
    assert score is not None
    assert score.value == pytest.approx(np.mean([np.mean(r) for r in recalls.values()]))
    assert score.low < score.value < score.high


def test_a_perfect_pair_of_eight_tracks_keeps_an_honest_interval() -> None:
    x, y = blobs(2, 8, apart=50.0)
    folds = folds_of(y)
    score = learnability.trained_accuracy([x] * len(folds), y, folds, 0, 1)
    assert score is not None
    assert score.value == score.high == 1.0
    assert 0.7 < score.low < 0.85


# ---- the learning curve


def test_the_power_law_is_recovered() -> None:
    n = np.array([2.0, 3, 5, 8, 12, 20, 40])
    true = [(0.5, 0.5, 0.1), (0.8, 1.0, 0.0), (0.0, 0.5, 0.3)]
    a, b, c = growth.power_law(n, np.stack([c + a * n**-b for a, b, c in true], axis=1))
    np.testing.assert_allclose(a[:2], [0.5, 0.8], atol=1e-6)
    np.testing.assert_allclose(b[:2], [0.5, 1.0], atol=1e-6)
    np.testing.assert_allclose(c, [0.1, 0.0, 0.3], atol=1e-6)


def test_more_tracks_help_where_the_curve_rises_and_not_where_it_is_flat() -> None:
    x, y = blobs(6, 24, apart=0.8, dims=60)
    rising = growth.run(context(x, y))
    values = [p.accuracy.value for p in rising.points]
    assert values[-1] > values[0] + 0.15
    assert rising.verdict in ("rising", "uncertain")
    assert rising.gain is not None
    assert 0.01 < rising.gain.value < 0.3
    x, y = blobs(3, 24, apart=40.0)
    flat = growth.run(context(x, y))
    assert flat.verdict == "flat"
    assert flat.points[-1].accuracy.value == 1.0
    theirs = binomtest(len(y), len(y)).proportion_ci(method="wilson")
    assert flat.points[-1].accuracy.low == pytest.approx(theirs.low, abs=1e-6)
    json.dumps(plain(flat), allow_nan=False)


def test_a_curve_of_three_tracks_gives_no_forecast() -> None:
    x, y = blobs(2, 3)
    curve = growth.run(context(x, y, folds=folds_of(y, 3)))
    assert curve.verdict == "too few tracks"
    assert curve.forecasts == ()


# ---- confounders


def tagged(duration_s: float, **tags) -> Track:
    return Track("", Path("x"), "", "", duration_s=duration_s, container="mp3", **tags)


def confounders_of(columns, labels, **given):
    return confounders.run(context(np.zeros((len(labels), 1)), labels, columns=columns, **given))


def planted(louder: float, *, n_labels: int = 4, seed: int = 0):
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(n_labels), 20)
    of = np.repeat(np.arange(labels.size), 3)
    loudness = -12 + 1.5 * generator.normal(size=labels.size) + louder * (labels == 1)
    chunks = {
        "loudness_lufs": loudness[of] + 0.5 * generator.normal(size=of.size),
        "tempo_bpm": generator.choice([0.0, 90, 120, 128, 174], size=of.size),
        "peak": np.where(of == 3, np.nan, generator.uniform(0.5, 1, of.size)),
    }
    tracks = [tagged(float(d)) for d in generator.uniform(100, 400, labels.size)]
    return confounders.track_columns(tracks, chunks, of), labels


def test_a_subgenre_6_db_louder_is_named_and_nothing_else() -> None:
    columns, labels = planted(6.0)
    found = confounders_of(columns, labels, names=["House", "Dark", "Acid", "Dub"])
    named = [c.column for c in found.columns if c.named]
    assert named == ["loudness_lufs"]
    assert found.columns[0].accuracy.low > 0.25
    assert [(s.column, s.subgenre) for s in found.standouts] == [("loudness_lufs", "Dark")]
    assert 5 < found.standouts[0].difference < 7
    rows = confounders.section(found, None).blocks[0].rows
    assert all(row[-1] for row in rows)
    assert found.notes[0].startswith("Loudness alone gives the subgenre of")
    assert "Dark is louder than the rest by" in found.notes[1]
    assert found.together.accuracy.value > 0.25
    json.dumps(plain(found), allow_nan=False)


def test_the_difference_of_a_share_is_in_per_cent_and_each_has_a_row() -> None:
    labels = np.repeat([0, 1], 10)
    clipped = np.where(labels == 0, 0.01, 0.03) + 1e-5 * np.arange(20)
    columns = {"clipped_share": clipped, "tempo_bpm": np.where(labels == 0, 90.0, 128.0)}
    found = confounders_of(columns, labels)
    texts = [s.text for s in found.standouts if s.column == "clipped_share"]
    assert texts
    assert all("by 2 % of the samples" in text for text in texts)
    section = confounders.section(found, None)
    assert len(section.blocks[1].rows) == len(found.standouts)
    assert sum(s.text in section.finding for s in found.standouts) == 1


def test_levels_beyond_full_scale_differ_in_db_and_figures_have_two_digits() -> None:
    labels = np.repeat([0, 1], 10)
    spread = np.linspace(0.99, 1.01, 20)
    tracks = [tagged(200.0, bit_rate=256_000 if label else 128_000) for label in labels]
    peaks = np.where(labels == 0, 0.5, 2.0) * spread
    found = confounders_of(
        confounders.track_columns(tracks, {"peak": peaks}, np.arange(20)), labels
    )
    texts = [s.text for s in found.standouts if s.subgenre == "b"]
    assert any("higher in peak level than the rest by 12 dB" in text for text in texts)
    assert any("by 130,000 bit/s" in text for text in texts)


def test_one_chance_level_holds_for_the_model_and_for_all_audits_of_its_accuracy() -> None:
    columns, labels = planted(0.0)
    x = np.random.default_rng(0).normal(size=(labels.size, 4))
    given = context(x, labels, columns=columns, chance=0.4)
    found = confounders.run(given, permutations=19)
    scores = [c.accuracy for c in (found.together, *found.columns)]
    scores += [point.accuracy for point in growth.run(given).points]
    assert {score.chance for score in scores} == {0.4}
    assert not any(c.named for c in found.columns)


def test_without_a_confounder_none_is_named() -> None:
    for seed in range(2):
        columns, labels = planted(0.0, seed=seed)
        found = confounders_of(columns, labels)
        assert not [c.column for c in found.columns if c.named]
        assert found.standouts == ()
        assert found.together.p_value > 0.01


def test_a_record_label_or_a_missing_year_can_predict_a_playlist() -> None:
    labels = np.repeat([0, 1], 20)
    years = np.where(labels == 0, 2001, 0)
    tracks = [
        tagged(200.0 + i % 7, year=int(years[i]), label="Acme" if labels[i] else " other ")
        for i in range(40)
    ]
    columns = confounders.track_columns(tracks, {}, np.empty(0, np.int64))
    found = confounders_of(columns, labels)
    by_name = {c.column: c for c in found.columns}
    assert by_name["year"].accuracy.value == by_name["label"].accuracy.value == 1.0
    assert by_name["year"].known_share == 0.5
    assert by_name["year"].named
    assert by_name["label"].named
    assert not by_name["duration_s"].named
    assert "bpm" not in by_name
    assert "artist" in found.notes[-1]


def test_missing_values_of_chunks_are_left_out_of_a_tracks_mean() -> None:
    tracks = [tagged(10.0), tagged(20.0)]
    columns = confounders.track_columns(
        tracks, {"peak": [0.5, np.nan, np.nan], "tempo_bpm": [100.0, 0.0, 0.0]}, np.array([0, 0, 1])
    )
    np.testing.assert_allclose(columns["peak_db"], [-6.0206, np.nan], atol=1e-4)
    np.testing.assert_array_equal(columns["tempo_bpm"], [100.0, np.nan])
    assert np.isnan(columns["year"]).all()


def test_columns_that_do_not_vary_are_refused() -> None:
    labels = np.repeat([0, 1], 5)
    with pytest.raises(EvaluationError, match="no column varies"):
        confounders_of({"peak": np.ones(10)}, labels)


# ---- open set


def test_auroc_and_fpr_equal_their_references() -> None:
    generator = np.random.default_rng(0)
    known, unknown = generator.integers(0, 9, 41) + 3, generator.integers(0, 9, 60)
    truth = np.repeat([1, 0], [41, 60])
    expected = roc_auc_score(truth, np.concatenate([known, unknown]))
    assert open_set.auroc(known, unknown) == pytest.approx(expected)
    limits = [t for t in range(13) if np.mean(known >= t) >= 0.95]
    assert open_set.fpr_at_tpr(known, unknown) == pytest.approx(np.mean(unknown >= max(limits)))


def one_model(x, y):
    """One model for every left-out subgenre."""
    folds = folds_of(y, 4)
    return dict.fromkeys(np.unique(y).tolist(), (x, folds))


@pytest.mark.parametrize("score", open_set.SCORES)
def test_distant_subgenres_are_rejected_and_noise_is_not(score: str) -> None:
    x, y = blobs(5, 30, apart=6.0)
    clear = open_set.open_set(one_model(x, y), y, "abcde", score=score)
    assert clear.auroc.low > 0.9
    assert clear.known_error < 0.13
    assert clear.caught > 0.7
    assert [r.n_tracks for r in clear.rows] == [30] * 5
    generator = np.random.default_rng(2)
    noise = open_set.open_set(one_model(generator.normal(size=x.shape), y), y, "abcde", score=score)
    assert noise.auroc.low < 0.5 < noise.auroc.high
    assert noise.fpr95.value > 0.8
    json.dumps(plain(noise), allow_nan=False)


def test_each_left_out_subgenre_has_its_own_model() -> None:
    x, y = blobs(3, 12, apart=4.0)
    whole = open_set.open_set(one_model(x, y), y, "abc")
    each = open_set.open_set({1: (x, folds_of(y))}, y, "abc")
    assert [r.subgenre for r in each.rows] == ["b"]
    assert each.rows[0].auroc.value == whole.rows[1].auroc.value


def test_a_single_split_shows_how_often_none_is_right() -> None:
    x, y = blobs(5, 30, apart=2.0)
    generator = np.random.default_rng(0)
    train, test = np.split(generator.permutation(y.size), [100])
    test = test[y[test] != 4]  # a subgenre without test tracks can't be judged
    found = open_set.run(context(x, y, folds=[(np.sort(train), np.sort(test))]))["gaussian"]
    assert [r.subgenre for r in found.rows] == ["a", "b", "c", "d"]
    assert open_set.AUDIT.applies(context(x, y))
    assert found.none_right == pytest.approx(found.caught / (found.caught + found.known_error))


def test_the_finding_is_about_the_score_that_classify_uses() -> None:
    x, y = blobs(4, 20, apart=2.0)
    given = context(x, y)
    found = open_set.run(given)
    better = replace(found["centroid"], auroc=Interval(1.0, 1.0, 1.0), text="of another score")
    section = open_set.section(found | {"centroid": better}, given)
    assert found[open_set.CLASSIFY_SCORE].text in section.finding
    assert better.text not in section.finding
    assert len(section.blocks[0].rows) == len(open_set.SCORES)


def test_two_subgenres_are_too_few_for_an_open_set() -> None:
    x, y = blobs(2, 8)
    for models in (one_model(x, y), {}):
        with pytest.raises(EvaluationError, match="two subgenres only"):
            open_set.open_set(models, y, "ab")


# ---- calibration


def test_calibration_error_equals_a_loop_and_is_that_of_the_draws() -> None:
    rng = np.random.default_rng(0)
    fits = rng.beta(2, 2, 400)
    right = rng.random(400) < fits**2
    total = 0.0
    for low in range(10):
        inside = [i for i in range(400) if low <= 10 * fits[i] < low + 1]
        if inside:
            total += len(inside) / 400 * abs(np.mean(fits[inside]) - np.mean(right[inside]))
    assert calibration.calibration_error(fits, right) == pytest.approx(total)
    bins = calibration.reliability(fits, right)
    assert sum(b.n for b in bins) == 400
    assert all(b.low <= b.share <= b.high for b in bins)


def test_calibration_finds_what_is_overconfident_and_passes_what_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(1)
    y = np.arange(400) % 4
    x = unit(np.eye(4, 12)[y] + 0.6 * rng.normal(size=(400, 12)))
    found = calibration.run(context(x, y))
    assert (found.n_tracks, found.error <= found.error_if_calibrated) == (400, True)
    monkeypatch.setattr(classifier, "_temperature", lambda *_: 0.02)  # all too sure
    found = calibration.run(context(x, y))
    assert found.error > 2 * found.error_if_calibrated
    section = calibration.section(found, context(x, y))
    assert len(section.blocks[1].rows) == len(found.bins)
    with pytest.raises(EvaluationError, match="at least 20"):
        calibration.run(context(x[:12], y[:12]))


# ---- genre levels


def test_genre_levels_show_the_chance_of_each_level() -> None:
    score = {
        level: Score(0.5, 0.4, 0.6, 0.25 + i / 8) for i, level in enumerate(genre_levels.LEVELS)
    }
    levels = {level: {"trained": {"centroid_accuracy": one}} for level, one in score.items()}
    table = genre_levels.section(levels, None).blocks[0]
    chance = [row[table.columns.index("Chance")] for row in table.rows]
    assert chance == [percent(one.chance) for one in score.values()]


# ---- hubness


def test_hubness_equals_a_loop_over_tracks() -> None:
    x, y = blobs(4, 20, apart=0.5, dims=40, seed=3)
    result = hubness.run(context(x, y))
    rows = x / np.linalg.norm(x, axis=1, keepdims=True)
    counts = np.zeros(80)
    same = 0
    for i in range(80):
        cosine = rows @ rows[i]
        cosine[i] = -np.inf
        near = np.argsort(-cosine)[:10]
        counts[near] += 1
        same += int((y[near] == y[i]).sum())
    assert result.cosine.never_share == pytest.approx(np.mean(counts == 0))
    assert result.cosine.most == counts.max()
    assert result.cosine.same_share == pytest.approx(same / 800)
    centred = counts - counts.mean()
    assert result.cosine.skewness == pytest.approx(np.mean(centred**3) / np.std(counts) ** 3)


def test_mutual_proximity_removes_hubs() -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(200, 50)) * generator.uniform(0.3, 1, size=(200, 1)) + 0.35
    result = hubness.run(context(x, np.arange(200) % 4))
    assert result.mutual.skewness < result.cosine.skewness
    assert result.mutual.never_share < result.cosine.never_share
    json.dumps(plain(result), allow_nan=False)


def test_lists_of_a_small_library_hold_all_other_tracks() -> None:
    assert hubness.run(context(np.eye(4), np.array([0, 0, 1, 1]))).k == 3
