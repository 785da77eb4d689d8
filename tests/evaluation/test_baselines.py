"""Baselines, folds and repeats; the faults planted in a small library are in its report."""

from __future__ import annotations

import csv
import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import StratifiedKFold

from subgenre import metrics
from subgenre.commands import doctor
from subgenre.commands import evaluate as stage
from subgenre.core import files, tables, workspace
from subgenre.dataset import folder as store
from subgenre.dataset import splits, track_vectors
from subgenre.dataset.folder import FeatureFolder
from subgenre.errors import ConfigError, EvaluationError, RunError, SplitError
from subgenre.evaluation import baselines, cross_validation
from subgenre.evaluation.baselines import Fold
from subgenre.metrics import Score
from subgenre.report import summary
from subgenre.report.data import ReportData
from tests.consoles import RecordingConsole
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


def test_column_vectors_reflect_direction_and_distance() -> None:
    tempo = np.array([[100.0], [101.0], [140.0], [100.5], [np.nan]])
    rows = baselines.column_vectors(tempo, np.array([0, 1, 2]))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0)
    cosine = rows @ rows[3]
    assert cosine[0] > cosine[2]
    assert cosine[1] > cosine[2]
    assert rows[4, 0] == pytest.approx(0.0, abs=1e-12)  # unknown: at the training tracks' mean
    same = baselines.column_vectors(np.full((4, 2), 7.0), np.array([0, 1]))
    np.testing.assert_allclose(same, same[:1].repeat(4, axis=0))


def test_probe_vectors_score_like_the_classifier() -> None:
    from sklearn.linear_model import LogisticRegression

    x, y = blobs(12, apart=0.5)
    (train, test), *_ = positions(len(y), 3)
    rows = baselines.probe_vectors(x, y, train, test)
    mean, std = x[train].mean(0), x[train].std(0)
    plain = LogisticRegression(C=baselines.PROBE_C, max_iter=1000)
    plain.fit((x[train] - mean) / std, y[train])
    right = plain.score((x[test] - mean) / std, y[test])
    scores = metrics.combine(metrics.measure(rows[train], y[train], rows[test], y[test], genres=y))
    for name in ("centroid_accuracy", "precision_at_1", "knn_accuracy"):
        assert scores[name].value == pytest.approx(right)
    np.testing.assert_allclose(rows[test].sum(axis=1), 1.0)


@pytest.mark.slow
def test_a_score_over_folds_is_the_mean_over_tracks() -> None:
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


def test_vectors_that_are_not_finite_are_noted_or_refused() -> None:
    x, y = blobs(6, apart=1.0)
    broken = x.copy()
    broken[4, 2] = np.nan
    parts = [Fold(a, b, {"frozen": broken, "trained": x}) for a, b in positions(18, 3)]
    found = baselines.score(parts, y, genres=GENRES, ids=names(18))
    assert "frozen" not in found.scores
    assert any(note.startswith("Frozen backbone") and "NaN" in note for note in found.notes)
    parts = [Fold(a, b, {"frozen": x, "trained": broken}) for a, b in positions(18, 3)]
    with pytest.raises(EvaluationError, match="NaN"):
        baselines.score(parts, y, genres=GENRES, ids=names(18))
    with pytest.raises(EvaluationError, match="NaN"):
        baselines.probe_vectors(broken, y, *positions(18, 3)[0])


def test_out_of_fold_predictions_are_the_majority_over_repeats() -> None:
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


def test_alignment_undoes_a_rotation_and_changes_no_cosine() -> None:
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


def accuracy(x: np.ndarray, y: np.ndarray, seed: int) -> Score:
    """Centroid accuracy over stratified folds, each with an embedding that is trained on it."""
    folds = []
    for train, test in StratifiedKFold(3, shuffle=True, random_state=seed).split(x, y):
        embedding = LinearDiscriminantAnalysis().fit(x[train], y[train])
        folds.append(Fold(train, test, {"trained": embedding.transform(x)}))
    found = baselines.score(folds, y, genres=GENRES, ids=names(len(y)))
    return found.scores["trained"]["centroid_accuracy"]


def verdict(score: Score) -> str:
    models = {"trained": {"centroid_accuracy": score}}
    return summary.sentences(ReportData("x", models=models, n_test=60))[0]


@pytest.mark.slow
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
    tables.write(path / store.CHUNKS, table)
    original, copy = (folder.rows([track]) for track in copies(folder))
    for a, b in zip(original, copy, strict=True):
        write(folder, int(b), folder.load([a])[0], copies(folder)[1])
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


@pytest.mark.slow
def test_every_file_and_figure_is_there(found: dict[str, Any], out: Path) -> None:
    assert files.read_json(out / workspace.METRICS, version=1, error=RunError) == found
    pictures = (workspace.MAP, workspace.CONFUSION)
    for name in (workspace.REPORT, workspace.CARD, workspace.DOCTOR, *pictures):
        assert (out / name).stat().st_size > 0
    assert list(found["models"]) == list(baselines.MODELS)
    assert (found["folds"], found["repeats"], found["n_tracks"]) == (2, 1, 30)
    assert found["train_s"] > 0
    table = track_vectors.read_embeddings(out / workspace.EMBEDDINGS)
    assert len(table.ids) == 30
    assert set(table.splits) == {"test"}
    assert {"pairs", "leakage", "learning_curve", "confounders", "open_set"} <= set(found["audits"])
    together = found["audits"]["confounders"]["together"]["accuracy"]
    assert together["chance"] == found["models"]["trained"]["centroid_accuracy"]["chance"]


@pytest.mark.slow
def test_a_planted_copy_is_found_on_both_sides(
    found: dict[str, Any], out: Path, library: FeatureFolder
) -> None:
    titles = [next(t.path.name for t in library.tracks if t.id == i) for i in copies(library)]
    straddling = found["audits"]["leakage"]["straddling"]
    assert len(straddling) == 1
    assert straddling[0]["method"] in ("features", "fingerprint")
    report = (out / workspace.REPORT).read_text(encoding="utf-8")
    assert "1 recording is on both sides" in report
    assert any(all(t in note for t in titles) for note in found["audits"]["leakage"]["notes"])


@pytest.mark.slow
def test_a_planted_confounder_is_named(found: dict[str, Any], out: Path) -> None:
    result = found["audits"]["confounders"]
    assert {s["column"] for s in result["standouts"]} == {"loudness_lufs"}
    assert result["standouts"][0]["subgenre"] == "three"
    assert result["standouts"][0]["difference"] == pytest.approx(6.0, abs=0.8)
    assert "three is louder than the rest" in (out / workspace.REPORT).read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_misplaced_track_is_the_first_finding_of_the_doctor(
    library: FeatureFolder, out: Path, found: dict[str, Any], tmp_path: Path
) -> None:
    stranger = next(t for t in library.tracks if t.subgenre == "one")
    done = doctor.doctor(library.path, folds=2, out=tmp_path / "doctor.csv")
    wrong = [f for f in done.findings if f.kind == "wrong playlist"]
    assert (wrong[0].track, wrong[0].suggestion) == (stranger.id, "two")
    assert wrong[0].fit is not None
    assert len(wrong[0].nearest) == 3
    rows = list(csv.DictReader((tmp_path / "doctor.csv").read_text().splitlines()))
    assert [r["track"] for r in rows] == [f.track for f in done.findings]
    many = dataclasses.replace(done, findings=done.findings[:1] * 25)
    assert len(many.table()[1]) == 20
    assert "5 more in" in many.caption
    listed = csv.DictReader((out / workspace.DOCTOR).read_text().splitlines())
    assert stranger.id in [r["track"] for r in listed]


@pytest.mark.parametrize(("n_tracks", "judged"), [(4, True), (1, False)])
def test_the_doctor_draws_the_folds_that_a_small_library_allows(
    n_tracks: int, judged: bool, tmp_path: Path
) -> None:
    small = make_folder(tmp_path / "features", tracks=n_tracks)
    rows = pq.read_table(small.path / store.CHUNKS)
    index = rows.schema.get_field_index("silent_share")
    silent = rows.set_column(
        index, rows.schema[index], pa.array([1.0] * len(rows), rows.schema[index].type)
    )
    tables.write(small.path / store.CHUNKS, silent)
    console = RecordingConsole()
    done = doctor.doctor(small.path, repeats=1, out=tmp_path / "doctor.csv", console=console)
    assert sum(f.kind == "silent" for f in done.findings) == 3 * n_tracks
    assert any("no wrong playlists" in line for line in console.messages) != judged
    with pytest.raises(SplitError):
        doctor.doctor(small.path, folds=5, out=tmp_path / "doctor.csv")


def same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one["models"].keys() == other["models"].keys()
    for name, scores in one["models"].items():
        for metric, score in scores.items():
            assert score == pytest.approx(other["models"][name][metric], abs=1e-5)


@pytest.mark.slow
def test_finished_trainings_are_not_repeated(
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
    first, second = (again / cross_validation.FOLDS / f"repeat0_fold{i}.npz" for i in range(2))
    with np.load(first) as stored:  # as earlier versions named it
        np.savez(first, told=stored["details"], vectors=stored["vectors"])
    same(run(library, again, quick=True), found)
    assert done == []
    second.write_bytes(second.read_bytes()[:-40])  # cut short
    more = run(library, again, quick=True, repeats=2)
    assert done == [second.name, "repeat1_fold0.npz", "repeat1_fold1.npz"]
    assert more["repeats"] == 2


@pytest.mark.slow
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


@pytest.mark.slow
def test_parallel_processes_give_the_same_vectors(
    library: FeatureFolder, out: Path, found: dict[str, Any], tmp_path: Path
) -> None:
    both = run(library, tmp_path / "two", workers=2, quick=True)
    alone, side = (
        track_vectors.read_embeddings(o / workspace.EMBEDDINGS) for o in (out, tmp_path / "two")
    )
    assert alone.ids == side.ids
    np.testing.assert_allclose(alone.vectors, side.vectors, atol=1e-4)
    same(both, found)


@pytest.mark.slow
def test_two_subgenres_are_evaluated_without_an_open_set(tmp_path: Path) -> None:
    two = make_folder(tmp_path / "f", labels=(("a", "one"), ("a", "two")), tracks=6)
    found = run(two, tmp_path / "out", open_set="full")
    assert not {"open_set", "open_set_trained"} & set(found["audits"])
    assert sum("two subgenres only" in line for line in found["warnings"]) == 2
