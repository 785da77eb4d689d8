"""Folds, repeats and the ladder; what is planted in a small library is found in its report."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.model_selection import StratifiedKFold

from subgenre import metrics
from subgenre.commands import doctor
from subgenre.commands import evaluate as stage
from subgenre.core import workspace
from subgenre.dataset import folder as store
from subgenre.dataset import splits, track_vectors
from subgenre.dataset.folder import FeatureFolder
from subgenre.errors import ConfigError, EvaluationError, RunError, SplitError
from subgenre.evaluation import baselines, cross_validation
from subgenre.evaluation.baselines import Fold
from subgenre.metrics import Measured, Score
from subgenre.report import summary
from subgenre.report.data import ReportData
from tests.folders import make_folder
from tests.training_runs import recipe

GENRES = np.array([0, 0, 1])


def positions(n: int, k: int) -> list[tuple[np.ndarray, np.ndarray]]:
    held = np.arange(n) % k
    return [(np.flatnonzero(held != i), np.flatnonzero(held == i)) for i in range(k)]


def blobs(n: int, *, apart: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), n)
    centres = rng.normal(size=(3, 16)) * apart
    return rng.normal(size=(3 * n, 16)) + centres[labels], labels


def names(n: int) -> list[str]:
    return [f"t{i:03d}" for i in range(n)]


def test_lifted_columns_know_direction_and_distance() -> None:
    tempo = np.array([[100.0], [101.0], [140.0], [100.5], [np.nan]])
    rows = baselines.column_vectors(tempo, np.array([0, 1, 2]))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0)
    cosine = rows @ rows[3]
    assert cosine[0] > cosine[2]
    assert cosine[1] > cosine[2]
    assert rows[4, 0] == pytest.approx(0.0, abs=1e-12)  # unknown: at the training tracks' mean
    same = baselines.column_vectors(np.full((4, 2), 7.0), np.array([0, 1]))
    np.testing.assert_allclose(same, same[:1].repeat(4, axis=0))


def test_probe_vectors_score_as_the_classifier_does() -> None:
    from sklearn.linear_model import LogisticRegression

    x, y = blobs(12, apart=0.5)
    (train, test), *_ = positions(len(y), 3)
    rows = baselines.probe_vectors(x, y, train, test)
    mean, std = x[train].mean(0), x[train].std(0)
    plain = LogisticRegression(C=baselines.PROBE_C, max_iter=1000)
    plain.fit((x[train] - mean) / std, y[train])
    right = plain.score((x[test] - mean) / std, y[test])
    for score in (metrics.centroid_accuracy, metrics.precision_at_1, metrics.knn_accuracy):
        assert score(rows[train], y[train], rows[test], y[test]) == pytest.approx(right)
    np.testing.assert_allclose(rows[test].sum(axis=1), 1.0)


def test_a_ladder_over_folds_is_the_mean_over_tracks_each_counted_once() -> None:
    x, y = blobs(8, apart=0.4)
    parts = [Fold(a, b, {"frozen": x, "trained": x + 0.1}) for a, b in positions(24, 4)]
    other = [Fold(a, b, {"frozen": x, "trained": -x}) for a, b in positions(24, 3)]
    found = baselines.score([*parts, *other], y, genres=GENRES, ids=names(24))
    right = np.zeros((2, 24))
    for repeat, part in enumerate((parts, other)):
        for fold in part:
            v = fold.vectors["trained"]
            taken = metrics.nearest_centroids(v[fold.train], y[fold.train], v[fold.test])
            right[repeat, fold.test] = taken == y[fold.test]
    score = found.scores["trained"]["centroid_accuracy"]
    assert score.value == pytest.approx(right.mean())
    assert list(found.scores) == ["chance", "frozen", "trained"]
    chance = found.scores["chance"]["centroid_accuracy"]
    assert chance.value == chance.low == chance.high == score.chance


def test_what_is_not_finite_is_told_of_or_refused() -> None:
    x, y = blobs(6, apart=1.0)
    broken = x.copy()
    broken[4, 2] = np.nan
    parts = [Fold(a, b, {"frozen": broken, "trained": x}) for a, b in positions(18, 3)]
    found = baselines.score(parts, y, genres=GENRES, ids=names(18))
    assert "frozen" not in found.scores
    assert any(note.startswith("frozen") and "NaN" in note for note in found.notes)
    parts = [Fold(a, b, {"frozen": x, "trained": broken}) for a, b in positions(18, 3)]
    with pytest.raises(EvaluationError, match="NaN"):
        baselines.score(parts, y, genres=GENRES, ids=names(18))
    with pytest.raises(EvaluationError, match="NaN"):
        baselines.probe_vectors(broken, y, *positions(18, 3)[0])


def test_out_of_fold_takes_the_majority_and_each_track_once() -> None:
    y = np.array([0, 1, 0, 1])
    right = np.array([[1.0, 0], [0, 1], [1, 0], [0, 1]])
    wrong = right.copy()
    wrong[2] = [0.0, 1]
    split = (np.array([0, 1]), np.array([2, 3]))
    folds_ = [Fold(*split, {"trained": v}) for v in (right, wrong, wrong)]
    predicted, confusion = baselines.out_of_fold(folds_, y, 2)
    assert predicted.tolist() == [-1, -1, 1, 1]
    assert confusion.tolist() == [[0, 1], [0, 1]]
    tied, _ = baselines.out_of_fold(folds_[:2], y, 2)
    assert tied[2] == 0  # one vote each: the first fold's counts


def test_aligned_vectors_undo_a_turn_and_keep_each_fold_as_it_is() -> None:
    x, _ = blobs(8, apart=1.0)
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(16, 16)))[0]
    (a, b), (c, d) = positions(24, 2)
    found = baselines.aligned([Fold(a, b, {"trained": x}), Fold(c, d, {"trained": x @ turn})])
    assert np.isfinite(found[b]).all()
    np.testing.assert_allclose(found[d] @ found[d].T, x[d] @ x[d].T, atol=1e-8)
    x, _ = blobs(20, apart=1.0)  # more tracks in common than dimensions
    three = positions(60, 3)
    turned = [x, x @ turn, x @ turn.T]
    parts = [Fold(*p, {"trained": v}) for p, v in zip(three, turned, strict=True)]
    np.testing.assert_allclose(baselines.aligned(parts), x, atol=1e-6)


def trained_embedding(x: np.ndarray, labels: np.ndarray, seed: int) -> torch.nn.Linear:
    """Train a small linear embedding by cross entropy over cosines to learnt proxies."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, proxies = torch.nn.Linear(16, 8), torch.nn.Parameter(torch.randn(3, 8))
    optimizer = torch.optim.Adam([*model.parameters(), proxies], lr=0.05)
    rows, target = torch.from_numpy(x).float(), torch.from_numpy(labels)
    for _ in range(15):
        unit = torch.nn.functional.normalize(model(rows))
        cosines = unit @ torch.nn.functional.normalize(proxies).T
        loss = torch.nn.functional.cross_entropy(10 * cosines, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def accuracy(x: np.ndarray, y: np.ndarray, seed: int) -> Score:
    """Centroid accuracy over stratified folds, each with its own training."""
    right = np.zeros(len(y))
    cutter = StratifiedKFold(3, shuffle=True, random_state=seed)
    for train, test in cutter.split(x, y):
        model = trained_embedding(x[train], y[train], seed)
        with torch.no_grad():
            vectors = model(torch.from_numpy(x).float()).numpy()
        taken = metrics.nearest_centroids(vectors[train], y[train], vectors[test])
        right[test] = taken == y[test]
    part = Measured(
        ids=tuple(names(len(y))),
        by_track={"centroid_accuracy": right},
        influence={},
        clusters=np.zeros(len(y), dtype=np.int64),
        labels=y,
        chance={"centroid_accuracy": 1 / 3, "nmi": 0.0, "ari": 0.0},
    )
    return metrics.combine([part])["centroid_accuracy"]


def verdict(score: Score) -> str:
    models = {"trained": {"centroid_accuracy": score}}
    return summary.sentences(ReportData("x", models=models, n_test=60))[0]


def test_a_model_that_learnt_nothing_is_reported_as_such() -> None:
    x, y = blobs(20, apart=1.0)
    assert "separates your playlists" in verdict(accuracy(x, y, 0))
    held = 0
    for seed in range(20):
        score = accuracy(x, np.random.default_rng(seed).permutation(y), seed)
        if score.low <= score.chance <= score.high:
            held += 1
            assert "no better than chance" in verdict(score)
    assert held >= 17


def planted(path: Path) -> FeatureFolder:
    """A library with a copy under another name, a louder subgenre and a misplaced track."""
    folder = make_folder(path, tracks=10, level=1.5)
    rng = np.random.default_rng(0)
    table = pq.read_table(path / store.CHUNKS)
    loud = np.where(np.array(table["label"].to_pylist()) == "three", -8.0, -14.0)
    loud += rng.normal(scale=0.5, size=len(loud))
    column = table.column_names.index("loudness_lufs")
    tempo = table.column_names.index("tempo_bpm")
    table = table.set_column(column, "loudness_lufs", pa.array(loud))
    table = table.set_column(tempo, "tempo_bpm", pa.array(rng.uniform(90, 150, len(loud))))
    pq.write_table(table, path / store.CHUNKS)
    original, copy = copies(folder)
    overwrite(folder, source=original, target=copy)
    stranger = next(t.id for t in folder.tracks if t.subgenre == "one")
    values = torch.rand(2, *folder.load([0]).shape[1:], generator=torch.Generator().manual_seed(9))
    values[:, :, 8:16] += 1.5  # the band of "two"
    for row, chunk in zip(folder.rows([stranger]), values, strict=True):
        write(folder, int(row), chunk, stranger)
    return FeatureFolder.open(path)


def copies(folder: FeatureFolder) -> tuple[str, str]:
    """Two tracks of "two" in different folds."""
    first = splits.folds(folder.tracks, 2, seed=0)[0]
    two = [t.id for t in folder.tracks if t.subgenre == "two"]
    return next(i for i in two if i in first.train), next(i for i in two if i in first.test)


def overwrite(folder: FeatureFolder, *, source: str, target: str) -> None:
    for a, b in zip(folder.rows([source]), folder.rows([target]), strict=True):
        write(folder, int(b), folder.load([a])[0], target)


def write(folder: FeatureFolder, row: int, values: torch.Tensor, track: str) -> None:
    file = folder.path / folder.chunks["file"][row].as_py()
    store.write_chunk(file, values, start_s=0.0, track_id=track)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> FeatureFolder:
    return planted(tmp_path_factory.mktemp("planted") / "features")


@pytest.fixture(scope="module")
def out(library: FeatureFolder) -> Path:
    return library.path.parent / "evaluation"


@pytest.fixture(scope="module")
def found(library: FeatureFolder, out: Path) -> dict[str, Any]:
    return run(library, out)


def run(folder: FeatureFolder, out: Path, **options: Any) -> dict[str, Any]:
    given = {"folds": 2, "workers": 1, "max_mb": 0, **options}
    return stage.evaluate(features=folder.path, settings=recipe(), out=out, **given).metrics


def test_every_file_and_figure_is_there(found: dict[str, Any], out: Path) -> None:
    assert json.loads((out / workspace.METRICS).read_text()) == found
    for name in (
        workspace.REPORT,
        workspace.MAP,
        workspace.CONFUSION,
        workspace.CARD,
        workspace.DOCTOR,
    ):
        assert (out / name).stat().st_size > 0
    assert list(found["models"]) == list(baselines.MODELS)
    assert (found["folds"], found["repeats"], found["n_tracks"]) == (2, 1, 30)
    assert found["train_s"] > 0
    table = track_vectors.read_embeddings(out / workspace.EMBEDDINGS)
    assert len(table.ids) == 30
    assert set(table.splits) == {"test"}
    assert {"pairs", "leakage", "learning_curve", "confounders", "open_set"} <= set(found["audits"])


def test_a_planted_copy_is_found_on_both_sides(
    found: dict[str, Any], out: Path, library: FeatureFolder
) -> None:
    titles = [next(t.path.name for t in library.tracks if t.id == i) for i in copies(library)]
    straddling = found["audits"]["leakage"]["straddling"]
    assert len(straddling) == 1
    assert straddling[0]["method"] in ("features", "fingerprint")
    report = (out / workspace.REPORT).read_text(encoding="utf-8")
    assert "1 recording stands on both sides" in report
    assert any(all(t in note for t in titles) for note in found["audits"]["leakage"]["notes"])


def test_a_planted_confounder_is_named(found: dict[str, Any], out: Path) -> None:
    told = found["audits"]["confounders"]
    assert {s["column"] for s in told["standouts"]} == {"loudness_lufs"}
    assert told["standouts"][0]["subgenre"] == "three"
    assert told["standouts"][0]["difference"] == pytest.approx(6.0, abs=0.8)
    assert "three is louder than the rest" in (out / workspace.REPORT).read_text(encoding="utf-8")


def test_a_misplaced_track_is_the_doctors_first(
    library: FeatureFolder, out: Path, found: dict[str, Any], tmp_path: Path
) -> None:
    stranger = next(t for t in library.tracks if t.subgenre == "one")
    done = doctor.doctor(library.path, folds=2, out=tmp_path / "doctor.csv")
    wrong = [f for f in done.findings if f.kind == "wrong playlist"]
    assert (wrong[0].track, wrong[0].suggestion) == (stranger.id, "two")
    rows = list(csv.DictReader((tmp_path / "doctor.csv").read_text().splitlines()))
    assert [r["track"] for r in rows] == [f.track for f in done.findings]
    listed = csv.DictReader((out / workspace.DOCTOR).read_text().splitlines())
    assert stranger.id in [r["track"] for r in listed]


def same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one["models"].keys() == other["models"].keys()
    for rung, scores in one["models"].items():
        for metric, score in scores.items():
            assert score == pytest.approx(other["models"][rung][metric], abs=1e-5)


def test_what_is_trained_is_not_trained_again(
    library: FeatureFolder,
    out: Path,
    found: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    again = tmp_path / "again"  # a copy: the other tests read what the one repeat gave
    shutil.copytree(out, again)
    done: list[str] = []
    train_one = cross_validation.train_one

    def counted(one: cross_validation.Job, **options: Any) -> None:
        done.append(one.path.name)
        train_one(one, **options)

    monkeypatch.setattr(cross_validation, "train_one", counted)
    same(run(library, again, quick=True), found)
    assert done == []
    second = again / cross_validation.FOLDS / "repeat0_fold1.npz"
    second.write_bytes(second.read_bytes()[:-40])  # cut short
    same(run(library, again, quick=True), found)
    assert done == [second.name]
    more = run(library, again, quick=True, repeats=2)
    assert done == [second.name, "repeat1_fold0.npz", "repeat1_fold1.npz"]
    assert more["repeats"] == 2


def test_another_evaluation_in_the_folder_is_refused(
    library: FeatureFolder, out: Path, found: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(RunError, match="another folds"):
        run(library, out, folds=3)
    other = recipe(optim={"epochs": 4})
    with pytest.raises(RunError, match="another configuration"):
        stage.evaluate(features=library.path, settings=other, folds=2, out=out)
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(RunError, match="holds no evaluation"):
        run(library, tmp_path)
    with pytest.raises(ConfigError, match="repeats is 0"):
        run(library, tmp_path / "new", repeats=0)
    with pytest.raises(ConfigError, match="open_set"):
        run(library, tmp_path / "new", open_set="all")


def test_processes_side_by_side_give_the_same_vectors(
    library: FeatureFolder, out: Path, found: dict[str, Any], tmp_path: Path
) -> None:
    both = run(library, tmp_path / "two", workers=2, quick=True)
    alone, side = (
        track_vectors.read_embeddings(o / workspace.EMBEDDINGS) for o in (out, tmp_path / "two")
    )
    assert alone.ids == side.ids
    np.testing.assert_allclose(alone.vectors, side.vectors, atol=1e-4)
    same(both, found)


def only(folder: FeatureFolder, path: Path, keep: list[str]) -> FeatureFolder:
    """The same folder with some tracks alone; its chunk files are left where they are."""
    shutil.copytree(folder.path, path)
    for name, column in ((store.CHUNKS, "track"), (store.TRACKS, "id")):
        table = pq.read_table(path / name)
        pq.write_table(table.filter(pc.is_in(table[column], pa.array(keep))), path / name)
    return FeatureFolder.open(path)


def test_one_track_in_a_subgenre_is_refused_with_its_name(
    library: FeatureFolder, tmp_path: Path
) -> None:
    three = [t.id for t in library.tracks if t.subgenre == "three"]
    keep = [t.id for t in library.tracks if t.id not in three[1:]]
    small = only(library, tmp_path / "features", keep)
    with pytest.raises(SplitError, match="b/three has 1 track"):
        run(small, tmp_path / "out")


def test_two_subgenres_leave_out_what_needs_three(tmp_path: Path) -> None:
    two = make_folder(tmp_path / "f", labels=(("a", "one"), ("a", "two")), tracks=6)
    found = run(two, tmp_path / "out")
    assert "open_set" not in found["audits"]
    assert any("two subgenres only" in line for line in found["warnings"])
    report = (tmp_path / "out" / workspace.REPORT).read_text(encoding="utf-8")
    assert "two subgenres only" in report
