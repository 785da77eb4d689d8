"""Placing: probabilities that hold on new tracks, an error rate that is kept, files left alone."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from sklearn.covariance import shrunk_covariance
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from subgenre.commands import classify
from subgenre.errors import EvaluationError, PlaylistError
from subgenre.library.formats import read_m3u
from subgenre.library.track import Track
from subgenre.search import classifier, gaussians
from tests.search.test_similarity import unit_vectors

LABELS = (("House", "Deep"), ("Techno", "Acid"), ("Techno", "Dark"))


def draw(count, seed, noise=0.35):
    """Unit vectors around three centres, and their labels."""
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(3, 16))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    y = generator.integers(0, 3, count)
    x = centres[y] + noise * generator.normal(size=(count, 16))
    return x / np.linalg.norm(x, axis=1, keepdims=True), [LABELS[i] for i in y]


@pytest.fixture(scope="module")
def model():
    return classifier.fit(*draw(150, 0), calibration=draw(120, 1))


def songs(count, folder=Path("/music")):
    return [Track(f"{i:032d}", folder / f"{i}.mp3") for i in range(count)]


def test_best_subgenre_equals_scikit_learns_nearest_centroid(model):
    x, _ = draw(200, 2)
    x_train, labels = draw(150, 0)
    y_train = np.array([LABELS.index(label) for label in labels])
    means = np.stack([x_train[y_train == i].mean(axis=0) for i in range(3)])
    centroids = KNeighborsClassifier(1, metric="cosine").fit(means, np.arange(3))
    expected = [LABELS[i] for i in centroids.predict(x)]
    assert [p.nearest for p in model.place(songs(200), x)] == expected


def test_probabilities_are_calibrated_on_new_tracks(model):
    x, labels = draw(3000, 3)
    chances = model.probabilities(x)
    np.testing.assert_allclose(chances.sum(axis=1), 1.0)
    best = chances.argmax(axis=1)
    right = np.array([LABELS[b] == label for b, label in zip(best, labels, strict=True)])
    top = chances.max(axis=1)
    for low, high in ((0.34, 0.6), (0.6, 0.8), (0.8, 0.95), (0.95, 1.01)):
        inside = (top >= low) & (top < high)
        assert inside.sum() > 30
        assert abs(right[inside].mean() - top[inside].mean()) < 0.1


def test_temperature_is_that_of_a_grid_search(model):
    x, labels = draw(120, 1)
    y = np.array([LABELS.index(label) for label in labels])
    cosines = x @ model.centroids.T
    expected = np.where(np.eye(3)[y] == 1, 1 - 1 / 122, 0.5 / 122)

    def cost(t):
        p = np.exp(cosines / t) / np.exp(cosines / t).sum(axis=1, keepdims=True)
        return -(expected * np.log(p)).sum()

    grid = np.geomspace(0.01, 1, 2000)
    assert model.temperature == pytest.approx(grid[np.argmin([cost(t) for t in grid])], rel=0.01)


def test_none_of_these_keeps_its_error_rate_and_finds_strangers():
    turned = []
    for seed in range(20):
        model = classifier.fit(*draw(90, 10 * seed), calibration=draw(99, 10 * seed + 1), alpha=0.1)
        placed = model.place(songs(200), draw(200, 10 * seed + 2)[0])
        turned.append(np.mean([not p.belongs for p in placed]))
    assert np.mean(turned) == pytest.approx(0.1, abs=0.02)
    away = model.place(songs(200), unit_vectors(200, 16, seed=5))
    assert np.mean([not p.belongs for p in away]) > 0.6
    assert all((p.genre, p.subgenre) == ("", "") for p in away if not p.belongs)


def nearest_mahalanobis(train, y, new):
    """Squared Mahalanobis distances, by scikit-learn's shrunk covariance and an inverse."""
    scaler = StandardScaler().fit(train)
    x, v = scaler.transform(train), scaler.transform(new)
    means = np.stack([x[y == c].mean(axis=0) for c in range(3)])
    residual = x - means[y]
    covariance = residual.T @ residual / (len(x) - 3)
    inverse = np.linalg.inv(shrunk_covariance(covariance, gaussians.SHRINKAGE))
    return np.array([min((a - m) @ inverse @ (a - m) for m in means) for a in v])


def test_p_values_against_naive_mahalanobis_distances(model):
    train, labels = draw(150, 0)
    y = np.array([LABELS.index(label) for label in labels])
    held, new = (nearest_mahalanobis(train, y, draw(*which)[0]) for which in ((120, 1), (10, 4)))
    expected = [(1 + (held >= one).sum()) / 121 for one in new]
    np.testing.assert_allclose(model.p_value(draw(10, 4)[0]), expected, atol=1.1 / 121)


def test_a_vector_of_constant_columns_can_be_judged():
    x, labels = draw(60, 0)
    x[:, 3] = 0.2
    model = classifier.fit(x, labels, calibration=draw(40, 1))
    assert np.isfinite(model.p_value(draw(5, 2)[0])).all()


def test_without_held_out_tracks_a_fifth_is_left_out_at_a_time():
    x, labels = draw(120, 0)
    model = classifier.fit(x, labels)
    assert not model.held_out
    new = [classifier.fit(*draw(120, 0), calibration=draw(120, s)).calibration for s in range(1, 6)]
    inside = classifier.fit(x, labels, calibration=(x, labels)).calibration
    assert np.median(inside) > np.median(new)
    assert np.median(model.calibration) == pytest.approx(np.median(new), rel=0.15)


def test_each_none_says_how_often_it_is_right():
    model = classifier.fit(*draw(90, 0), calibration=draw(99, 1), none_right=0.62)
    rows = [p.row() for p in model.place(songs(60), unit_vectors(60, 16, seed=5))]
    rows += [p.row() for p in model.place(songs(60), draw(60, 2)[0])]
    assert {(r["none_of_these"], r["none_right"]) for r in rows} == {(True, 0.62), (False, None)}


def test_a_perfect_held_out_set_leaves_doubt():
    model = classifier.fit(*draw(60, 0, noise=0.01), calibration=draw(10, 1, noise=0.01))
    assert model.probabilities(draw(20, 2, noise=0.01)[0]).max() < 0.99


def test_the_most_typical_chunk(model):
    x, _ = draw(2, 3)
    chunks = [np.stack([-x[0], x[0], unit_vectors(1, 16, seed=1)[0]]), np.zeros((0, 16))]
    placed = model.place(songs(2), x, chunks=chunks, starts_s=[[0.0, 41.5, 90.0], []])
    assert placed[0].chunk_start_s == 41.5
    assert placed[0].chunk_fits == pytest.approx(placed[0].fits)
    assert math.isnan(placed[1].chunk_start_s)
    json.dumps([p.row() for p in placed], allow_nan=False)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"alpha": 1.0}, "alpha"),
        ({"labels": [LABELS[0]] * 30}, "two"),
        ({"labels": LABELS}, "30 vectors have 3 labels"),
        ({"vectors": np.zeros((30, 16))}, "zero or not finite"),
        ({"calibration": (draw(3, 0)[0], [("X", "Y")] * 3)}, "X/Y"),
        ({"calibration": (np.ones((2, 9)), [LABELS[0]] * 2)}, r"\(2, 9\)"),
    ],
)
def test_bad_input(change, word):
    x, labels = draw(30, 0)
    values = {"vectors": x, "labels": labels, **change}
    with pytest.raises(EvaluationError, match=word):
        classifier.fit(values.pop("vectors"), values.pop("labels"), **values)


# sorting ----------------------------------------------------------------------------------------


@pytest.fixture
def placed(model, tmp_path):
    """Six files, two of one name in two folders, placed; some of them nowhere."""
    made = []
    for i, name in enumerate(("a.mp3", "b.mp3", "x/same.mp3", "y/same.mp3", "c: d?.wav", "e.mp3")):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"audio {i}".encode())
        made.append(Track(f"{i:x}" * 32, path))
    x = np.concatenate([np.repeat(model.centroids[:1], 5, axis=0), -model.centroids[:1]])
    return model.place(made, x)


def snapshot(folder):
    return {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}


def test_copy_to_leaves_the_sources(placed, tmp_path):
    before = snapshot(tmp_path / "in")
    copies = classify.copy_files(placed, tmp_path / "out")
    assert snapshot(tmp_path / "in") == before
    names = [str(c.relative_to(tmp_path / "out")) for c in copies]
    assert names[:3] == ["House/Deep/a.mp3", "House/Deep/b.mp3", "House/Deep/same.mp3"]
    assert names[3] == "House/Deep/same 33333333.mp3"
    assert names[5] == "none of these/e.mp3"
    assert [c.read_bytes() for c in copies] == [p.track.path.read_bytes() for p in placed]
    after = snapshot(tmp_path / "out")
    classify.copy_files(placed, tmp_path / "out")
    assert snapshot(tmp_path / "out") == after


def test_copy_to_refuses_to_overwrite(placed, tmp_path):
    stranger = tmp_path / "out" / "House" / "Deep" / "b.mp3"
    stranger.parent.mkdir(parents=True)
    stranger.write_bytes(b"something else")
    with pytest.raises(PlaylistError, match=r"b\.mp3 exists with other content"):
        classify.copy_files(placed, tmp_path / "out")
    assert [p for p in (tmp_path / "out").rglob("*") if p.is_file()] == [stranger]
    assert stranger.read_bytes() == b"something else"
    placed[0].track.path.unlink()
    with pytest.raises(PlaylistError, match="gone"):
        classify.copy_files(placed, tmp_path / "other")


def test_m3u_to_adds_and_keeps(placed, tmp_path):
    mine = tmp_path / "lists" / "House" / "Deep.m3u8"
    mine.parent.mkdir(parents=True)
    mine.write_text("#EXTM3U\n# my own words\n../../in/a.mp3", encoding="utf-8")
    before = snapshot(tmp_path / "in")
    lists = classify.add_to_playlists(placed, tmp_path / "lists")
    assert snapshot(tmp_path / "in") == before
    assert lists == [mine, tmp_path / "lists" / "none of these.m3u8"]
    text = mine.read_text(encoding="utf-8")
    assert text.startswith("#EXTM3U\n# my own words\n../../in/a.mp3\n")
    found = [p.resolve() for p in read_m3u(mine)]
    assert found == [p.track.path for p in placed[:5]]
    classify.add_to_playlists(placed, tmp_path / "lists")
    assert mine.read_text(encoding="utf-8") == text


def test_csv(placed, tmp_path):
    classify._write(tmp_path / "p.csv", placed)
    with (tmp_path / "p.csv").open(encoding="utf-8", newline="") as text:
        rows = list(csv.DictReader(text))
    assert [r["path"] for r in rows] == [str(p.track.path) for p in placed]
    assert [r["subgenre"] for r in rows] == ["Deep"] * 5 + [""]
    assert rows[5]["none_of_these"] == "True"
