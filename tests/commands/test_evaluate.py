"""Evaluation of a run: figures, files, and what is said where there is little to go by."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from subgenre import metrics
from subgenre.commands import embed, evaluate, train
from subgenre.commands.model_folder import ModelFolder
from subgenre.core import files, workspace
from subgenre.dataset import splits, track_vectors
from subgenre.dataset.folder import FeatureFolder
from subgenre.errors import EvaluationError, FeatureError, RunError
from subgenre.evaluation.tracks import EvaluationTracks
from subgenre.models import encoder
from subgenre.models.cache import CACHE
from tests.consoles import RecordingConsole
from tests.folders import make_folder
from tests.training_runs import recipe

pytestmark = pytest.mark.slow  # each trains or evaluates a model

FILES = (
    workspace.METRICS,
    workspace.REPORT,
    workspace.MAP,
    workspace.CONFUSION,
    workspace.CARD,
    workspace.EMBEDDINGS,
    workspace.DOCTOR,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> FeatureFolder:
    return make_folder(tmp_path_factory.mktemp("library") / "features", trash=2)


@pytest.fixture(scope="module")
def run(folder: FeatureFolder) -> Path:
    out = folder.path.parent / "run"
    train.train(folder.path, recipe(), out=out, checkpoints=folder.path.parent / "checkpoints")
    return out


@pytest.fixture(scope="module")
def found(run: Path) -> dict[str, Any]:
    return evaluate.evaluate(run, max_mb=0).metrics


def test_every_file_is_there_and_holds_what_the_call_gave(run: Path, found: dict[str, Any]) -> None:
    assert all((run / name).stat().st_size > 0 for name in FILES)
    assert files.read_json(run / workspace.METRICS, version=1, error=RunError) == found
    header = next(csv.reader((run / workspace.DOCTOR).read_text().splitlines()))
    assert header[:4] == ["track", "path", "kind", "subgenre"]


def test_held_out_tracks_are_embedded_from_the_cache(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = ModelFolder.open(run).embeddings
    monkeypatch.setattr("subgenre.dataset.folder.read_chunk", None)
    embed.embed(run=run, out=tmp_path / "x.parquet")
    found = track_vectors.read_embeddings(tmp_path / "x.parquet")
    at = stored.rows("test")
    assert found.ids == tuple(stored.ids[row] for row in at)
    np.testing.assert_allclose(found.vectors, stored.vectors[at], atol=1e-6)


def test_report_and_card_name_only_the_audits_that_are_left_out(
    run: Path, found: dict[str, Any]
) -> None:
    card = (run / workspace.CARD).read_text()
    assert "`" not in (run / workspace.REPORT).read_text().split("<main>")[1].split("</section>")[0]
    assert "\\`" not in card
    note = next(line for line in card.splitlines() if "one split" in line)
    assert not [name for name in found["audits"] if name.replace("_", " ") in note]
    assert "unknown" not in note


def test_every_baseline_is_scored_with_interval_and_chance(found: dict[str, Any]) -> None:
    models = ["chance", "tempo_loudness", "mean_log_mel", "frozen", "probe", "trained"]
    assert list(found["models"]) == models
    for scores in found["models"].values():
        assert {"centroid_accuracy", "precision_at_1", "map_at_r", "nmi", "ari"} <= set(scores)
        for score in scores.values():
            assert set(score) == {"value", "low", "high", "chance"}
            assert score["low"] <= score["value"] <= score["high"]
    # all tracks have one tempo and one loudness, and each subgenre has its own loud band
    assert found["models"]["tempo_loudness"]["centroid_accuracy"]["value"] < 0.7
    assert found["models"]["mean_log_mel"]["centroid_accuracy"]["value"] == 1.0


def test_trained_figures_are_those_of_the_vectors_in_the_table(
    run: Path, folder: FeatureFolder, found: dict[str, Any]
) -> None:
    table = track_vectors.read_embeddings(run / workspace.EMBEDDINGS)
    label = np.array([folder.labels.index(name) for name in table.subgenres])
    held = np.array([side == "test" for side in table.splits])
    assert table.fingerprint == encoder.fingerprint(encoder.load(run))
    nearest = metrics.nearest_centroids(table.vectors[~held], label[~held], table.vectors[held])
    value = (nearest == label[held]).mean()
    assert found["models"]["trained"]["centroid_accuracy"]["value"] == pytest.approx(value)
    assert found["n_test"] == held.sum()


def test_the_log_mel_baseline_is_mean_and_deviation_over_the_music(
    folder: FeatureFolder,
) -> None:
    tracks = EvaluationTracks(folder)
    rows = folder.rows([folder.tracks[3].id])
    frames = np.concatenate(list(folder.load(rows).numpy().astype(np.float64)))
    expected = np.concatenate([frames.mean(axis=0), frames.std(axis=0)])
    np.testing.assert_allclose(tracks.log_mel[3], expected, atol=1e-9)
    again = EvaluationTracks(folder).log_mel
    np.testing.assert_array_equal(again, tracks.log_mel)
    for cached in (folder.path / CACHE).glob("*.npy"):
        cached.write_bytes(b"not an array")  # damaged: computed again
    again = EvaluationTracks(folder).log_mel
    np.testing.assert_allclose(again[3], expected, atol=1e-9)


def test_a_test_run_is_scored_as_far_as_it_can_be(folder: FeatureFolder, tmp_path: Path) -> None:
    out = tmp_path / "small"
    train.train(folder.path, recipe(), out=out, checkpoints=tmp_path / "c", test_run=True)
    found = evaluate.evaluate(out, max_mb=0).metrics
    scores = found["models"]["trained"]
    assert "centroid_accuracy" in scores
    assert "map_at_r" not in scores  # no test track has another of its subgenre
    assert any("MAP@R" in line for line in found["warnings"])
    report = (out / workspace.REPORT).read_text(encoding="utf-8")
    assert "no test track has another of its class" in report


def test_two_subgenres_are_enough(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "f", labels=(("a", "one"), ("a", "two")), tracks=5)
    train.train(folder.path, recipe(), out=tmp_path / "run", checkpoints=tmp_path / "c")
    found = evaluate.evaluate(tmp_path / "run", max_mb=0).metrics
    assert found["models"]["trained"]["centroid_accuracy"]["chance"] == 0.5
    assert list(found["audits"]["views"]["within"]) == ["frozen", "probe", "trained"]
    assert found["audits"]["views"]["across"] == {}  # one genre: nothing to tell apart


def test_features_that_are_gone_are_named_with_what_to_do(
    run: Path, folder: FeatureFolder, tmp_path: Path
) -> None:
    moved = tmp_path / "run"
    shutil.copytree(run, moved)
    data = json.loads((moved / workspace.DATA).read_text())
    files.write_json(moved / workspace.DATA, {**data, "features": str(tmp_path / "gone")})
    with pytest.raises(FeatureError, match=r"gone from .*--features"):
        evaluate.evaluate(moved)
    assert evaluate.evaluate(moved, features=folder.path, max_mb=0, quick=True).metrics["models"]


@pytest.mark.usefixtures("found")
def test_a_damaged_model_is_no_score_of_zero(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = ModelFolder.open(run)
    opened.encoder.pooled_mean[0] = float("nan")
    monkeypatch.setattr(ModelFolder, "open", lambda *_, **__: opened)
    before = (run / workspace.METRICS).read_bytes()
    with pytest.raises(EvaluationError, match="NaN or infinity"):
        evaluate.evaluate(run, max_mb=0)
    assert (run / workspace.METRICS).read_bytes() == before


def test_the_split_on_disk_is_the_one_that_is_scored(
    run: Path, folder: FeatureFolder, found: dict[str, Any]
) -> None:
    split = splits.load(run / workspace.SPLIT, folder.tracks)
    assert (found["n_train"], found["n_test"]) == (len(split.train), len(split.test))


def test_a_test_run_is_marked_in_figures_and_report(folder: FeatureFolder, tmp_path: Path) -> None:
    out, console = tmp_path / "m", RecordingConsole()
    places = {"out": out, "checkpoints": tmp_path / "c"}
    train.train(folder.path, recipe(), test_run=True, **places)
    warnings = evaluate.evaluate(out, max_mb=0, quick=True, console=console).metrics["warnings"]
    (marked,) = [text for text in warnings if "test run" in text]
    assert marked in console.messages
    assert marked in (out / workspace.REPORT).read_text(encoding="utf-8")
