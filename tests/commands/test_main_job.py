"""The main job through the command line on real audio files: folders in, figures and map out."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from multiprocessing.context import ForkProcess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from subgenre import cli
from subgenre.core import files, workspace
from subgenre.errors import RunError
from subgenre.models import encoder
from tests import audio_files
from tests.small_library import replace_workers

pytestmark = pytest.mark.slow

LABELS = ("slow/low", "slow/high", "fast/low")
TRAIN = ("--recipe", "thesis", "--backbone", "musicnn", "--tune", "head", "--quiet")


def library(root: Path, tracks: int = 6) -> Path:
    """Three subgenres of sounds that differ, in several containers; one file that is none."""
    kinds = (".mp3", ".wav", ".ogg", ".flac")
    for number, label in enumerate(LABELS):
        (root / label).mkdir(parents=True)
        for i in range(tracks):
            samples = audio_files.music(11.0, seed=10 * number + i)
            audio_files.write(root / label / f"track {i}{kinds[i % 4]}", samples / (1 + number))
    (root / LABELS[0] / "broken.mp3").write_text("no music")
    return root


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder with features of a small library."""
    folder = tmp_path_factory.mktemp("work")
    library(folder / "WAV")
    before = Path.cwd()
    os.chdir(folder)
    try:
        words = ["preprocess", "--backbone", "musicnn", "--workers", "1", "--quiet"]
        assert cli.main(words) == 1
    finally:
        os.chdir(before)
    return folder


def started(place: Path, *words: str) -> ForkProcess:
    """Start a command in a fork of this process: torch is there already."""

    def run() -> None:
        os.chdir(place)
        sys.exit(cli.main(words))

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    return process


def weights(run: Path) -> dict[str, torch.Tensor]:
    return encoder.load(run).state_dict()


def test_run_does_the_whole_job_and_opens_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISPLAY", ":0")
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    replace_workers(monkeypatch)
    library(tmp_path / "WAV", tracks=4)
    assert cli.main(["run", "WAV", "--backbone", "musicnn", "--epochs", "2", "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    run = tmp_path / found.pop("run")
    assert found == files.read_json(run / workspace.METRICS, version=1, error=RunError)
    assert opened == [(run / workspace.REPORT).as_uri()]
    comparison = found["comparisons"]["trained_vs_frozen"]["centroid_accuracy"]
    scores = [found["models"][m]["centroid_accuracy"]["value"] for m in ("trained", "frozen")]
    assert comparison["difference"] == pytest.approx(scores[0] - scores[1])
    assert comparison["n"] == found["n_test"]
    assert "broken.mp3" in err


def test_train_evaluate_and_embed(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    assert cli.main(["train", *TRAIN, "--epochs", "2", "--json"]) == 0
    run = place / json.loads(capsys.readouterr().out)["run"]
    assert run.name.startswith(workspace.RUN_PREFIX)
    assert cli.main(["evaluate", "--json", "--quiet"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures == files.read_json(run / workspace.METRICS, version=1, error=RunError)
    for model in ("frozen", "trained"):
        for metric in ("centroid_accuracy", "precision_at_1", "nmi"):
            score = figures["models"][model][metric]
            assert score["low"] <= score["value"] <= score["high"]
            assert 0 <= score["chance"] <= 1
    for name in (workspace.MAP, workspace.CONFUSION):
        assert (run / name).read_bytes().startswith(b"\x89PNG")
    assert "http://" not in (run / workspace.REPORT).read_text().split("<script")[0]
    assert "centroid" in (run / workspace.CARD).read_text().lower()
    assert cli.main(["embed", "--quiet"]) == 0
    held = pq.read_table(place / "embeddings.parquet")
    split = json.loads((run / workspace.SPLIT).read_text())
    assert sorted(held["id"].to_pylist()) == sorted(split["test"])
    assert {"id", "path", "genre", "subgenre", "vector"} <= set(held.column_names)
    new = audio_files.write(place / "new.mp3", audio_files.music(11.0, seed=99))
    assert cli.main(["embed", str(new), "--out", "new.parquet", "--quiet"]) == 0
    assert pq.read_table(place / "new.parquet").num_rows == 1


def test_a_test_run_goes_from_start_to_end(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    words = ["train", *TRAIN, "--test_run", "--out", "small"]
    assert cli.main(words) == 0
    assert cli.main(["evaluate", "--run", "small", "--quiet"]) == 0
    assert json.loads((place / "small" / workspace.METRICS).read_text())["n_tracks"] == 6


def test_a_killed_training_resumes_to_the_same_weights(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    words = ("train", *TRAIN, "--epochs", "15", "--set", "run.save_every=10", "--checkpoints", "c")
    assert cli.main([*words, "--out", "whole"]) == 0
    killed = started(place, *words, "--out", "killed")
    saved = place / "c"
    deadline = time.monotonic() + 120
    runs = len(list(saved.iterdir()))
    while len(list(saved.glob("*/checkpoint.pt"))) <= runs and killed.is_alive():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    killed.kill()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    assert not (place / "killed").exists()
    assert cli.main([*words, "--out", "resumed", "--resume"]) == 0
    one, two = weights(place / "whole"), weights(place / "resumed")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_signal_stops_a_run_with_a_checkpoint(place: Path) -> None:
    words = ("train", *TRAIN, "--epochs", "2000", "--checkpoints", "s")
    process = started(place, *words, "--out", "stopped")
    deadline = time.monotonic() + 120
    while not list(place.glob("s/*/checkpoint.pt")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.terminate()
    process.join(60)
    assert process.exitcode == 128 + signal.SIGTERM
    assert not (place / "stopped").exists()
    assert list(place.glob("s/*/checkpoint.pt"))


def test_another_configuration_is_not_resumed(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    words = ["train", *TRAIN, "--epochs", "1", "--checkpoints", "other"]
    assert cli.main([*words, "--out", "first"]) == 0
    assert cli.main([*words, "--margin", "0.5", "--resume", "--out", "second"]) == 2
    assert "loss.margin 0.3 (now 0.5)" in capsys.readouterr().err
    assert not (place / "second").exists()


def test_features_of_another_front_end_are_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.toy import make_ast_folder

    monkeypatch.chdir(place)
    make_ast_folder(place / "ast")
    assert cli.main(["train", "--recipe", "thesis", "--backbone", "ast", "--quiet"]) == 2
    assert "are made for musicnn, not for ast" in capsys.readouterr().err


def test_the_chain_runs_on_an_ast_folder(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.toy import make_ast_folder

    monkeypatch.chdir(place)
    replace_workers(monkeypatch)
    make_ast_folder(place / "ast_toy")
    words = ["--backbone", "ast_toy", "--quiet"]
    once = ["--max-chunks", "1", "--out", "ast_features"]
    assert cli.main(["preprocess", *words, *once]) == 1
    words = ["train", "--recipe", "thesis", *words, "--features", "ast_features", "--epochs", "1"]
    assert cli.main([*words, "--out", "ast_run"]) == 0
    assert cli.main(["evaluate", "--run", "ast_run", "--quick", "--quiet"]) == 0
    figures = json.loads((place / "ast_run" / workspace.METRICS).read_text())
    assert set(figures["models"]) >= {"frozen", "trained"}
