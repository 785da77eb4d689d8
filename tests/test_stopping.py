"""A stop while the finished model is being written: it is finished, or can be gone on with."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from safetensors.torch import load_file

from subgenre import train
from subgenre.errors import RunError
from subgenre.pipeline import train as stage
from subgenre.pipeline import work
from subgenre.store import FeatureFolder
from subgenre.talk import Silent
from tests.folders import make_folder
from tests.test_distributed import free_port, join
from tests.test_train import recipe


class Ear(Silent):
    def __init__(self) -> None:
        self.told: list[str] = []

    def say(self, text: str) -> None:
        self.told.append(text)

    warn = say


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> FeatureFolder:
    return make_folder(tmp_path_factory.mktemp("library") / "features")


@pytest.fixture(autouse=True)
def keyboard() -> Iterator[None]:
    """Ctrl-C as at a terminal: a job in a script's background is started deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def same_weights(one: Path, two: Path) -> bool:
    first, second = (load_file(run / "model.safetensors") for run in (one, two))
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


def test_a_run_that_was_killed_while_it_wrote_its_model_is_resumed(
    folder: FeatureFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pressed(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    place: dict[str, Any] = {"checkpoints": tmp_path / "c", "out": tmp_path / "m"}
    ear = Ear()
    with monkeypatch.context() as patch:
        patch.setattr(stage, "_write_vectors", pressed)
        with pytest.raises(KeyboardInterrupt):
            stage.train(folder.path, recipe(), **place, talk=ear)
    assert any("go on with --resume" in text for text in ear.told)
    assert (tmp_path / "m" / work.SPLIT).is_file()
    assert not (tmp_path / "m" / work.CONFIG).exists()
    with pytest.raises(RunError, match="is not empty"):  # a new run takes nobody's place
        stage.train(folder.path, recipe(), **place)
    mine = tmp_path / "m" / "notes.txt"
    mine.write_text("mine", encoding="utf-8")
    with pytest.raises(RunError, match="is not empty"):
        stage.train(folder.path, recipe(), **place, resume=True)
    mine.unlink()
    (tmp_path / "m" / ".tmp-killed.safetensors").write_bytes(b"half")
    resumed = stage.train(folder.path, recipe(), **place, resume=True)
    whole = stage.train(folder.path, recipe(), out=tmp_path / "w", checkpoints=tmp_path / "cw")
    assert same_weights(whole.run, resumed.run)
    names = [sorted(path.name for path in run.iterdir()) for run in (resumed.run, whole.run)]
    assert names[0] == names[1]
    with pytest.raises(RunError, match="is not empty"):  # it is a model now
        stage.train(folder.path, recipe(), **place, resume=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_stop_asked_for_while_the_model_is_written_lets_it_be_finished(
    folder: FeatureFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    real = stage._write_vectors

    def write(*args: Any) -> None:
        signal.raise_signal(number)
        real(*args)

    monkeypatch.setattr(stage, "_write_vectors", write)
    place: dict[str, Any] = {"checkpoints": tmp_path / "c", "out": tmp_path / "m"}
    ear = Ear()
    if number == signal.SIGINT:  # the person stops what comes after, too
        with pytest.raises(KeyboardInterrupt):
            stage.train(folder.path, recipe(), **place, talk=ear)
    else:
        stage.train(folder.path, recipe(), **place, talk=ear)
    assert (tmp_path / "m" / work.CONFIG).is_file()
    assert f"model: {tmp_path / 'm'}" in ear.told
    assert not any("--resume" in text for text in ear.told)


def _pressed_in_one(rank: int, port: int, features: Path, out: Path) -> None:
    """Train as one of two; the second hears Ctrl-C when the last epoch is being closed."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    join(rank, port)
    real = train.Trainer._close_epoch

    def close(self: train.Trainer, began: float) -> None:
        if rank == 1 and self.state.epoch == 2:
            signal.raise_signal(signal.SIGINT)
        real(self, began)

    train.Trainer._close_epoch = close  # type: ignore[method-assign]
    ended = "trained"
    try:
        stage.train(features, recipe(), out=out / "m", checkpoints=out / "c")
    except KeyboardInterrupt:
        ended = "pressed"
    (out / f"{rank}.txt").write_text(ended, encoding="utf-8")


@pytest.mark.slow
def test_a_press_that_one_process_alone_heard_in_the_last_epoch_parts_them_not(
    folder: FeatureFolder, tmp_path: Path
) -> None:
    mp.spawn(_pressed_in_one, args=(free_port(), folder.path, tmp_path), nprocs=2)
    assert (tmp_path / "m" / work.CONFIG).is_file()
    assert [(tmp_path / f"{rank}.txt").read_text() for rank in (0, 1)] == ["trained", "pressed"]
