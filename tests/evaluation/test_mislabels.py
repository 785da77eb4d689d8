"""The doctor finds what was planted: swapped labels, copies, outliers, silence, clipping."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from subgenre.errors import EvaluationError
from subgenre.evaluation.audits import mislabels
from subgenre.evaluation.audits.base import plain
from subgenre.evaluation.audits.duplicates import Duplicate, Duplicates
from subgenre.evaluation.audits.findings import KINDS
from subgenre.evaluation.audits.probe import lda_scores
from subgenre.library.track import Track
from tests.evaluation.audit_context import context, folds_of


def library(*, n: int = 24, apart: float = 1.4, seed: int = 0):
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(5), n)
    x = apart * generator.normal(size=(5, 16))[labels]
    return x + generator.normal(size=(labels.size, 16)), labels, tracks_of(labels)


def tracks_of(labels):
    return [Track(f"{i:04d}", Path(f"/m/{i}.mp3"), "g", f"s{c}") for i, c in enumerate(labels)]


def diagnose(x, labels, tracks, *pairs):
    copies = Duplicates("features", pairs, "")
    names = ("silent_share", "clipped_share", "cancelled_share")
    measures = dict.fromkeys(names, np.zeros(len(labels)))
    return mislabels.diagnose(x, labels, NAMES, tracks, folds_of(labels), copies, measures)


NAMES = ("s0", "s1", "s2", "s3", "s4")


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_swapped_labels_are_found_five_times_better_than_by_chance(seed: int) -> None:
    x, labels, _ = library(seed=seed)
    generator = np.random.default_rng(seed)
    swapped = generator.choice(labels.size, 6, replace=False)
    given = labels.copy()
    given[swapped] = (labels[swapped] + generator.integers(1, 5, 6)) % 5
    p = mislabels.oof_probabilities(x, given, folds_of(given))
    found = mislabels.wrong_playlist(x, given, NAMES, tracks_of(given), p)
    first = [int(f.track) for f in found[:6]]
    assert np.isin(first, swapped).mean() >= 5 * 6 / labels.size
    hits = [f for f in found if int(f.track) in set(swapped.tolist())]
    assert hits[0].suggestion == NAMES[labels[int(hits[0].track)]]
    assert [f.confidence for f in found] == sorted((f.confidence for f in found), reverse=True)


def test_no_track_is_judged_by_a_probe_that_has_seen_it() -> None:
    x, labels, _ = library(apart=0.5)
    folds = folds_of(labels)
    p = mislabels.oof_probabilities(x, labels, folds)
    train, test = folds[0]
    alone = lda_scores(x[train], labels[train], x[test], 5, shrinkage=mislabels.SHRINKAGE)
    np.testing.assert_array_equal(p[test].argmax(axis=1), alone.argmax(axis=1))
    np.testing.assert_allclose(p.sum(axis=1), 1.0)
    np.testing.assert_array_equal(np.diff(alone.argsort()), np.diff(p[test].argsort()))


def test_probabilities_are_calibrated_and_near_chance_for_noise() -> None:
    x, labels, _ = library(n=80, apart=0.6, seed=3)
    p = mislabels.oof_probabilities(x, labels, folds_of(labels))
    sure, right = p.max(axis=1), p.argmax(axis=1) == labels
    assert sure.mean() == pytest.approx(right.mean(), abs=0.05)
    noise = np.random.default_rng(0).normal(size=x.shape)
    p = mislabels.oof_probabilities(noise, labels, folds_of(labels))
    assert p.max() < 0.5


def test_repeats_are_averaged_and_untested_tracks_are_left_out() -> None:
    x, labels, tracks = library()
    folds = folds_of(labels)
    twice = mislabels.oof_probabilities(x, labels, [*folds, *folds_of(labels, seed=1)])
    assert np.isfinite(twice).all()
    part = mislabels.oof_probabilities(x, labels, folds[:2])
    untested = np.concatenate([folds[2][1], folds[3][1]])
    assert np.isnan(part[untested]).all()
    found = mislabels.wrong_playlist(x, labels, NAMES, tracks, part)
    assert not {int(f.track) for f in found} & set(untested.tolist())


def test_a_track_that_fits_nowhere_is_sure_to_be_misplaced_and_fits_badly_elsewhere() -> None:
    x, labels, tracks = library(n=60)
    p = np.full((300, 5), 1e-7)
    p[np.arange(300), labels] = 1 - 4e-7
    p[7] = [1e-6, 0.31, 0.25, 0.24, 0.2]
    first = mislabels.wrong_playlist(x, labels, NAMES, tracks, p)[0]
    assert (first.track, first.suggestion, first.fit) == ("0007", "s1", 0.31)
    assert 0.5 < first.confidence < 1
    near = NearestNeighbors(n_neighbors=4, metric="cosine").fit(StandardScaler().fit_transform(x))
    expected = near.kneighbors(StandardScaler().fit(x).transform(x[7:8]), return_distance=False)
    assert first.nearest == tuple(tracks[i].id for i in expected[0, 1:])


def test_the_certainty_is_the_posterior_share_of_wrong_labels() -> None:
    labels = np.zeros(40, dtype=np.int64)
    p = np.tile([0.9, 0.06, 0.04], (40, 1))
    p[:3] = [0.05, 0.15, 0.8]  # 37 of the 80 other labels are as improbable
    a = 0.05 * 40 * 37 / 80
    prior = lambda b, right: stats.poisson.pmf(3, a + b) * (a / (a + b) if right else 1)  # noqa: E731
    expected = quad(prior, 0, 60, args=(True,))[0] / quad(prior, 0, 60, args=(False,))[0]
    sure = mislabels.certainty(p, labels)
    np.testing.assert_allclose(sure[:3], expected, rtol=1e-6)
    assert (sure[3:] <= expected).all()


@pytest.mark.slow
def test_half_of_the_list_is_right_where_five_per_cent_of_the_labels_are_swapped() -> None:
    right, sure = [], []
    for seed in range(8):
        x, labels, tracks = library(n=40, apart=0.8, seed=seed)
        generator = np.random.default_rng(seed)
        swapped = generator.choice(labels.size, 10, replace=False)
        given = labels.copy()
        given[swapped] = (labels[swapped] + generator.integers(1, 5, 10)) % 5
        p = mislabels.oof_probabilities(x, given, folds_of(given))
        for found in mislabels.wrong_playlist(x, given, NAMES, tracks, p):
            right.append(int(found.track) in swapped)
            sure.append(found.confidence)
    assert len(right) > 20
    assert np.mean(right) >= 0.5
    assert np.mean(sure) == pytest.approx(np.mean(right), abs=0.15)


def test_nothing_is_listed_where_all_labels_fit() -> None:
    x, labels, tracks = library(apart=5.0)
    p = mislabels.oof_probabilities(x, labels, folds_of(labels))
    assert mislabels.wrong_playlist(x, labels, NAMES, tracks, p) == []


def test_an_outlier_is_found_and_a_small_subgenre_is_not_judged() -> None:
    x, labels, tracks = library(n=20, apart=3.0)
    x += 20
    x[7] = -30 * np.eye(16)[3]
    found = mislabels.outliers(x, labels, NAMES, tracks)
    assert found[0].track == "0007"
    assert found[0].kind == "outlier"
    assert found[0].confidence > 0.9
    few = mislabels.outliers(x[5:12], np.array([0, 0, 0, 0, 0, 1, 1]), NAMES, tracks[5:12])
    assert few == []


def test_copies_are_distinguished_by_their_playlists() -> None:
    tracks = tracks_of([0, 0, 1])
    pairs = (
        Duplicate(0, 1, "packets", 1.0, "the same audio packets"),
        Duplicate(1, 2, "features", 0.8, "features alike"),
    )
    rows = mislabels.copies(Duplicates("features", pairs, ""), tracks)
    assert [r.kind for r in rows] == ["duplicate", "two playlists"]
    assert [r.how_sure for r in rows] == ["100 %", "80 %"]
    assert rows[0].suggestion == "/m/1.mp3"
    assert rows[1].suggestion == "s1"


def test_broken_recordings_are_listed() -> None:
    measures = {
        "silent_share": [0.0, 0.9, math.nan, 0.0],
        "clipped_share": [0.02, 0.0, 0.009, 0.0],  # a master that clips a little is not broken
        "cancelled_share": [0.0, math.nan, 0.4, 1.0],
    }
    rows = mislabels.broken(tracks_of([0, 0, 0, 0]), measures)
    found = [(r.track, r.kind) for r in rows]
    assert found == [("0000", "clipped"), ("0001", "silent"), ("0003", "out of phase")]
    assert all(0 <= r.confidence <= 1 for r in rows)
    assert rows[0].why.startswith("2 % of the samples")
    assert not any(r.how_sure for r in rows)  # what was measured is in `why`


def test_findings_are_sorted_and_safe_as_csv_and_json() -> None:
    x, labels, tracks = library()
    given = labels.copy()
    given[[3, 40]] = 4
    copy = Duplicate(0, 1, "packets", 1.0, "the same, packets")
    found = diagnose(x, given, tracks, copy)
    kinds = KINDS
    order = [(kinds.index(f.kind), -f.confidence) for f in found]
    assert order == sorted(order)
    assert {"wrong playlist", "duplicate"} <= {f.kind for f in found}
    text = io.StringIO()
    csv.writer(text).writerows(mislabels.csv_rows(found))
    back = list(csv.DictReader(io.StringIO(text.getvalue())))
    assert [r["track"] for r in back] == [f.track for f in found]
    json.dumps(plain(found), allow_nan=False)


def test_vectors_that_are_not_finite_are_refused() -> None:
    x, labels, tracks = library()
    x[5, 1] = math.nan
    with pytest.raises(EvaluationError, match="1 of 120 vectors hold NaN"):
        diagnose(x, labels, tracks)


def test_a_track_alone_in_its_subgenre_is_not_judged() -> None:
    x, labels, tracks = (part[:97] for part in library())
    p = mislabels.oof_probabilities(x, labels, folds_of(labels))
    assert np.isfinite(p[:96]).all()
    assert np.isnan(p[96]).all()
    found = mislabels.wrong_playlist(x, labels, NAMES, tracks, p)
    assert "0096" not in [f.track for f in found]
    with pytest.raises(EvaluationError, match="no track can be judged"):
        mislabels.oof_probabilities(x[:2], [0, 1], [(np.array([0]), np.array([1]))])


@pytest.mark.parametrize("method", ["fingerprint", "features"])
def test_the_section_says_where_copies_were_not_compared_by_fingerprint(method: str) -> None:
    x, labels, _ = library()
    given = context(x, labels, copies=Duplicates(method, (), ""))
    explanation = mislabels.section([], given).explanation
    assert (mislabels.COPIES in explanation) == (method == "features")
