"""Signals and the keyboard: finished steps are kept, and the run resumes to the same weights."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from subgenre.commands import train as stage
from subgenre.dataset.folder import FeatureFolder
from subgenre.models.cache import CACHE
from subgenre.training import fit, signals, trainer
from tests.consoles import SignallingConsole
from tests.folders import make_folder
from tests.training_runs import recipe, same_models

pytestmark = pytest.mark.slow  # each trains or evaluates a model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> FeatureFolder:
    return make_folder(tmp_path_factory.mktemp("library") / "features", trash=2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_and_the_run_goes_on_from_there(
    folder: FeatureFolder, tmp_path: Path, number: signal.Signals
) -> None:
    settings = recipe(optim={"epochs": 2})
    places = {"checkpoints": tmp_path / "c", "out": tmp_path / "stopped"}
    with pytest.raises(trainer.Interrupted, match="stopped after step 25;"):
        stage.train(folder.path, settings, console=SignallingConsole(number, 25), **places)
    assert not (tmp_path / "stopped").exists()
    resumed = stage.train(folder.path, settings, resume=True, **places)
    whole = stage.train(folder.path, settings, out=tmp_path / "w", checkpoints=tmp_path / "o")
    assert same_models(resumed.run, whole.run)


def test_a_signal_stops_the_backbone_and_its_output_is_kept(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "f")
    places = {"checkpoints": tmp_path / "c", "out": tmp_path / "m"}
    with pytest.raises(trainer.Interrupted, match="before the first step; the same command again"):
        stage.train(
            folder.path,
            recipe(),
            console=SignallingConsole(signal.SIGTERM, 8, "backbone"),
            **places,
        )
    assert not (tmp_path / "m").exists()
    checksums = [np.load(path) for path in (folder.path / CACHE).glob("*.done.npy")]
    assert [int((of_rows >= 0).sum()) for of_rows in checksums] == [8]
    assert stage.train(folder.path, recipe(), **places).run == tmp_path / "m"


@pytest.mark.usefixtures("keyboard")
@pytest.mark.parametrize("accumulate", [1, 64])  # 64: more than an epoch has steps
def test_ctrl_c_saves_the_step_and_the_resumed_run_has_the_same_weights(
    folder: FeatureFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulate: int
) -> None:
    settings, real = recipe(batch={"accumulate": accumulate}), trainer.Trainer._step

    def step(self: trainer.Trainer, *args: Any, **options: Any) -> None:
        if self.state.done == 3:
            signal.raise_signal(signal.SIGINT)
        real(self, *args, **options)

    before = signal.getsignal(signal.SIGINT)
    again = {"out": tmp_path / "m", "checkpoints": tmp_path / "c"}
    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "_step", step)
        with pytest.raises(KeyboardInterrupt):
            stage.train(folder.path, settings, **again)
    assert signal.getsignal(signal.SIGINT) is before
    assert not again["out"].exists()
    (saved,) = (tmp_path / "c").glob("*/checkpoint.pt")
    state = torch.load(saved, weights_only=True)
    assert (state["epoch"], state["step"] == 4) == (0, accumulate == 1)
    whole = stage.train(folder.path, settings, out=tmp_path / "w", checkpoints=tmp_path / "cw")
    resumed = stage.train(folder.path, settings, **again, resume=True)
    assert same_models(whole.run, resumed.run)


@pytest.mark.usefixtures("keyboard")
def test_a_second_ctrl_c_stops_at_once(
    folder: FeatureFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pressed(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(trainer.Trainer, "_save_if_due", pressed)
    with pytest.raises(KeyboardInterrupt):
        stage.train(folder.path, recipe(), out=tmp_path / "m", checkpoints=tmp_path / "c")
    assert not list((tmp_path / "c").glob("*/checkpoint.pt"))


@pytest.mark.usefixtures("keyboard")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("phase", ["load_backbone", "_source", "Trainer"])
def test_a_signal_before_the_first_step_stops_at_once(
    folder: FeatureFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    phase: str,
) -> None:
    def work(*_: object, **__: object) -> None:
        signal.raise_signal(number)
        pytest.fail("the phase was finished")

    monkeypatch.setattr(fit, phase, work)
    stopped = KeyboardInterrupt if number == signal.SIGINT else trainer.Interrupted
    with pytest.raises(stopped):
        stage.train(folder.path, recipe(), out=tmp_path / "m", checkpoints=tmp_path / "c")
    assert not (tmp_path / "m").exists()
    assert not list((tmp_path / "c").iterdir())


def test_a_stop_requested_in_another_process_stays_a_stop() -> None:
    with pytest.raises(trainer.Interrupted), signals.stop_signals(fit.Silent()):
        raise trainer.Interrupted("as agreed")


def test_a_job_that_ignores_ctrl_c_still_does() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with signals.stop_signals(fit.Silent()) as requested:
            assert not requested()
            signal.raise_signal(signal.SIGINT)
            assert not requested()
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("keyboard")
def test_ctrl_c_at_the_end_of_the_last_epoch_leaves_the_whole_model(
    folder: FeatureFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = trainer.Trainer._close_epoch

    def close(self: trainer.Trainer, began: float) -> None:
        if self.state.epoch == 2:
            signal.raise_signal(signal.SIGINT)
        real(self, began)

    whole = stage.train(folder.path, recipe(), out=tmp_path / "w", checkpoints=tmp_path / "cw")
    monkeypatch.setattr(trainer.Trainer, "_close_epoch", close)
    with pytest.raises(KeyboardInterrupt):
        stage.train(folder.path, recipe(), out=tmp_path / "m", checkpoints=tmp_path / "c")
    assert same_models(whole.run, tmp_path / "m")
    assert (tmp_path / "m" / "config.toml").is_file()
