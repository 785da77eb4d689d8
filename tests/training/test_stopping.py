"""A stop while the model is written: it is finished, or the run can be resumed."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from subgenre.commands import train as stage
from subgenre.core import workspace
from subgenre.dataset.folder import FeatureFolder
from subgenre.errors import CheckpointError, RunError
from subgenre.models import encoder
from subgenre.training import fit, trainer
from tests.consoles import RecordingConsole
from tests.folders import make_folder
from tests.training.test_distributed import join, two_processes
from tests.training_runs import recipe, same_models

pytestmark = [pytest.mark.usefixtures("keyboard"), pytest.mark.slow]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> FeatureFolder:
    return make_folder(tmp_path_factory.mktemp("library") / "features")


def test_a_run_that_was_killed_while_it_wrote_its_model_is_resumed(
    folder: FeatureFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pressed(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    place: dict[str, Any] = {"checkpoints": tmp_path / "c", "out": tmp_path / "m"}
    console = RecordingConsole()
    with monkeypatch.context() as patch:
        patch.setattr(stage, "_write_vectors", pressed)
        with pytest.raises(KeyboardInterrupt):
            stage.train(folder.path, recipe(), **place, console=console)
    assert any("train --resume`" in text for text in console.messages)
    assert (tmp_path / "m" / workspace.SPLIT).is_file()
    assert not (tmp_path / "m" / workspace.CONFIG).exists()
    with pytest.raises(RunError, match="is not empty"):  # a new run replaces nothing
        stage.train(folder.path, recipe(), **place)
    mine = tmp_path / "m" / "notes.txt"
    mine.write_text("mine", encoding="utf-8")
    with pytest.raises(RunError, match="is not empty"):
        stage.train(folder.path, recipe(), **place, resume=True)
    mine.unlink()
    (tmp_path / "m" / encoder.WEIGHTS).rename(tmp_path / "w.safetensors")
    with pytest.raises(RunError, match="is not empty"):  # these may be a person's own tables
        stage.train(folder.path, recipe(), **place, resume=True)
    (tmp_path / "w.safetensors").rename(tmp_path / "m" / encoder.WEIGHTS)
    (tmp_path / "m" / ".subgenre-tmp-killed.safetensors").write_bytes(b"half")
    resumed = stage.train(folder.path, recipe(), **place, resume=True)
    whole = stage.train(folder.path, recipe(), out=tmp_path / "w", checkpoints=tmp_path / "cw")
    assert same_models(whole.run, resumed.run)
    names = [sorted(path.name for path in run.iterdir()) for run in (resumed.run, whole.run)]
    assert names[0] == names[1]
    with pytest.raises(RunError, match="holds a finished model; leave --resume out"):
        stage.train(folder.path, recipe(), **place, resume=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_stop_requested_while_the_model_is_written_lets_it_be_finished(
    folder: FeatureFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    real = stage._write_vectors

    def write(*args: Any) -> None:
        signal.raise_signal(number)
        real(*args)

    monkeypatch.setattr(stage, "_write_vectors", write)
    place: dict[str, Any] = {"checkpoints": tmp_path / "c", "out": tmp_path / "m"}
    console = RecordingConsole()
    if number == signal.SIGINT:  # the person stops what comes after, too
        with pytest.raises(KeyboardInterrupt):
            stage.train(folder.path, recipe(), **place, console=console)
    else:
        stage.train(folder.path, recipe(), **place, console=console)
    assert (tmp_path / "m" / workspace.CONFIG).is_file()
    assert f"model: {tmp_path / 'm'}" in console.messages
    assert not any("--resume" in text for text in console.messages)


def test_a_run_is_resumed_whatever_ran_since(
    folder: FeatureFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither another run nor a finished one of the same settings prevents it."""
    monkeypatch.chdir(tmp_path)
    names = iter(["20260101_000001", "20260101_000002", "20260101_000003"])
    monkeypatch.setattr(workspace, "stamp", lambda: next(names))
    real = trainer.Trainer._close_epoch

    def close(self: trainer.Trainer, began: float) -> None:
        real(self, began)
        if self.state.epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "_close_epoch", close)
        with pytest.raises(KeyboardInterrupt):
            stage.train(folder.path, recipe())
    stage.train(folder.path, recipe(optim={"epochs": 1}))
    whole = stage.train(folder.path, recipe())
    console = RecordingConsole()
    resumed = stage.train(folder.path, recipe(), resume=True, console=console)
    assert resumed.run.name == "fully_trained_models_20260101_000001"
    (message,) = [text for text in console.messages if text.startswith("continuing from")]
    assert re.search(r"20260101_000001.checkpoint\.pt, after step \d+$", message)
    assert same_models(whole.run, resumed.run)
    everywhere = Path("ast_triplet_output")
    own = everywhere / "20260101_000003"  # as Ctrl-C names it
    for place in (everywhere, own):  # all have finished now
        with pytest.raises(RunError, match="holds a finished model"):
            stage.train(folder.path, recipe(), resume=True, checkpoints=place)
    (whole.run / workspace.CONFIG).unlink()
    assert stage.train(folder.path, recipe(), resume=True, checkpoints=own).run == whole.run
    assert [path.name for path in own.iterdir()] == ["checkpoint.pt"]


def test_runs_that_have_finished_do_not_keep_another_from_its_start(
    folder: FeatureFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = iter(["20260101_000001", "20260101_000002"])
    monkeypatch.setattr(workspace, "stamp", lambda: next(names))
    done, other = recipe(optim={"epochs": 1}), recipe(optim={"epochs": 1, "lr": 1e-4})
    first, console = stage.train(folder.path, done).run, RecordingConsole()
    run = stage.train(folder.path, other, resume=True, console=console).run
    assert run.name == "fully_trained_models_20260101_000002"
    assert "no checkpoint of this run under ast_triplet_output: starting anew" in console.messages
    (run / workspace.CONFIG).unlink()  # as if it had been stopped: now its options may be mistaken
    third = recipe(optim={"epochs": 1, "lr": 1e-5})
    with pytest.raises(CheckpointError, match=r"20260101_000002.*optim.lr 0.0001 \(now 1e-05\)"):
        stage.train(folder.path, third, resume=True)
    assert (first / workspace.CONFIG).is_file()


def test_a_model_that_came_meanwhile_is_not_written_over(
    folder: FeatureFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fit.fit

    def meanwhile(*args: Any, **options: Any) -> Any:
        (tmp_path / "m").mkdir()
        (tmp_path / "m" / workspace.CONFIG).write_text("# another's", encoding="utf-8")
        return real(*args, **options)

    monkeypatch.setattr(fit, "fit", meanwhile)
    place: dict[str, Any] = {"checkpoints": tmp_path / "c"}
    with pytest.raises(
        RunError, match=r"another run has written its model .* --resume and another"
    ):
        stage.train(folder.path, recipe(), out=tmp_path / "m", **place)
    assert [path.name for path in (tmp_path / "m").iterdir()] == [workspace.CONFIG]
    monkeypatch.undo()
    saved = stage.train(folder.path, recipe(), out=tmp_path / "n", **place, resume=True)
    assert saved.run == tmp_path / "n"


def _alive(number: int) -> bool:
    try:
        return bool(psutil.Process(number).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_ctrl_c_ends_a_search_and_the_processes_that_it_started(
    folder: FeatureFolder, tmp_path: Path
) -> None:
    words = ["tune", "--features", str(folder.path), "--recipe", "thesis", "--tune", "head"]
    words += ["--backbone", "musicnn", "--epochs", "5000", "--workers", "2", "--device", "cpu"]
    command = [sys.executable, "-m", "subgenre", *words]
    search = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    mine, deadline = psutil.Process(search.pid), time.monotonic() + 120
    busy: list[psutil.Process] = []
    while len(busy) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
        workers = [c for c in mine.children(recursive=True) if c.ppid() != search.pid]
        busy = [c for c in workers if c.cpu_times().user > 1]
    started = [child.pid for child in mine.children(recursive=True)]
    search.send_signal(signal.SIGINT)
    output = search.communicate(timeout=60)[1]
    assert search.returncode == 128 + signal.SIGINT
    assert "subgenre: stopped" in output
    assert "Traceback" not in output
    while any(map(_alive, started)):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _pressed_in_one(rank: int, port: int, features: Path, out: Path) -> None:
    """Train as one of two; the second gets Ctrl-C at the end of the last epoch."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    join(rank, port)
    real = trainer.Trainer._close_epoch

    def close(self: trainer.Trainer, began: float) -> None:
        if rank == 1 and self.state.epoch == 2:
            signal.raise_signal(signal.SIGINT)
        real(self, began)

    trainer.Trainer._close_epoch = close  # type: ignore[method-assign]
    ended = "trained"
    try:
        stage.train(features, recipe(), out=out / "m", checkpoints=out / "c")
    except KeyboardInterrupt:
        ended = "pressed"
    (out / f"{rank}.txt").write_text(ended, encoding="utf-8")


def test_ctrl_c_in_one_of_two_processes_in_the_last_epoch_leaves_the_model(
    folder: FeatureFolder, tmp_path: Path
) -> None:
    two_processes(_pressed_in_one, folder.path, tmp_path)
    assert (tmp_path / "m" / workspace.CONFIG).is_file()
    assert [(tmp_path / f"{rank}.txt").read_text() for rank in (0, 1)] == ["trained", "pressed"]
