"""Trackers get the figures of each epoch, offline, and never stop a training."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from subgenre import config
from subgenre.cli import main
from subgenre.commands import train as stage
from subgenre.config import TrainConfig
from subgenre.dataset.folder import FeatureFolder
from subgenre.errors import ConfigError, MissingExtraError
from subgenre.training import trackers
from subgenre.training.run_state import Epoch
from subgenre.training.trackers import TRACKERS, TrackerKind
from tests.conftest import need
from tests.consoles import RecordingConsole
from tests.folders import make_folder
from tests.training_runs import recipe, same_models

pytestmark = pytest.mark.slow  # each trains a model

EPOCHS = (
    Epoch(1, loss=0.5, active=1.0, spread=0.8, lr=1e-3, seconds=2.0),
    Epoch(2, loss=0.25, active=0.5, spread=0.7, lr=1e-3, seconds=2.0, val_map_at_r=0.6),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> FeatureFolder:
    return make_folder(tmp_path_factory.mktemp("library") / "features", tracks=4, chunks=1)


@pytest.fixture
def settings() -> TrainConfig:
    return recipe(optim={"epochs": 2}, run={"device": "cpu"})


def test_tensorboard_reads_the_epochs_of_a_training(
    folder: FeatureFolder, settings: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need(importlib.util.find_spec("tensorboard") is not None, "tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.chdir(tmp_path)
    console = RecordingConsole()
    trained = stage.train(folder.path, settings, track="tensorboard", console=console)
    (run,) = (tmp_path / "tracking").iterdir()
    assert trained.run.name.endswith(run.name)
    events = EventAccumulator(str(run))
    events.Reload()
    written = [(event.step, event.value) for event in events.Scalars("loss")]
    assert written == [(row.epoch, pytest.approx(row.loss)) for row in trained.history]
    assert any("tensorboard --logdir tracking" in text for text in console.messages)


class Recorder:
    """Stands for the run of a tool, or for its module: it keeps the calls and their values."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        def call(*values: Any, **named: Any) -> Recorder:
            self.calls.append((name, [*values, named]))
            return self

        return call


@pytest.fixture
def tool(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> tuple[str, Recorder]:
    """A tool by name, its module replaced."""
    for variable in ("MLFLOW_TRACKING_URI", "WANDB_MODE", "TRACKIO_DIR"):
        monkeypatch.setenv(variable, "")  # so that it is put back
        monkeypatch.delenv(variable)
    made = Recorder()
    monkeypatch.setitem(sys.modules, request.param, made)
    return request.param, made


@pytest.mark.parametrize("tool", ["mlflow", "wandb", "trackio"], indirect=True)
def test_a_tool_gets_settings_and_epochs_and_stays_offline(
    tool: tuple[str, Recorder], settings: TrainConfig, tmp_path: Path
) -> None:
    name, made = tool
    trackers.check(name)
    with trackers.tracking(name, tmp_path, "run 1", settings, RecordingConsole()) as log:
        for row in EPOCHS:
            log(row)
    calls = str(made.calls)
    assert "'optim.epochs': 2" in calls
    assert "run 1" in calls
    logged = [values for called, values in made.calls if called in ("log", "log_metrics")]
    assert [values[0]["loss"] for values in logged] == [0.5, 0.25]
    assert [values[-1]["step"] for values in logged] == [1, 2]
    assert "val_map_at_r" not in logged[0][0]  # the epoch was not validated
    assert logged[1][0]["val_map_at_r"] == 0.6
    assert made.calls[-1][0] in ("finish", "end_run")
    local = {
        "mlflow": f"sqlite:///{tmp_path}/mlflow.db",
        "wandb": "'mode': 'offline'",
        "trackio": "'project': 'subgenre'",
    }
    assert local[name] in calls


def test_wandb_goes_online_where_the_person_says_so(
    settings: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Recorder()
    monkeypatch.setitem(sys.modules, "wandb", made)
    monkeypatch.setenv("WANDB_MODE", "online")
    with trackers.tracking("wandb", tmp_path, "run 1", settings, RecordingConsole()):
        pass
    assert "'mode': 'online'" in str(made.calls)


class Failing:
    """A tracker that prints, and fails in one of its calls."""

    def __init__(self, at: str) -> None:
        self.at, self.calls = at, []

    def start(self, *_: Any) -> Failing:
        return self._called("start")

    def log(self, *_: Any) -> None:
        self._called("log")

    def finish(self) -> None:
        self._called("finish")

    def _called(self, name: str) -> Failing:
        self.calls.append(name)
        sys.stdout.write(f"{name} of a talkative tool")
        if name == self.at:
            raise RuntimeError("no connection\nmore")
        return self


@pytest.mark.parametrize(
    ("at", "calls"),
    [
        ("start", ["start"]),
        ("log", ["start", "log"]),
        ("finish", ["start", "log", "log", "finish"]),
    ],
)
def test_a_tracker_that_fails_is_named_once(
    at: str,
    calls: list[str],
    settings: TrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    failing, console = Failing(at), RecordingConsole()
    monkeypatch.setitem(TRACKERS, "mine", TrackerKind(failing.start, "look at {folder}"))
    with trackers.tracking("mine", tmp_path, "run 1", settings, console) as log:
        for row in EPOCHS:
            log(row)
    assert failing.calls == calls
    failures = [text for text in console.messages if "has failed" in text]
    assert failures == ["mine has failed (no connection); the training goes on without it"]
    assert capsys.readouterr().out == ""  # --json has standard output for itself


def test_a_training_with_a_failing_tracker_gives_the_same_model(
    folder: FeatureFolder,
    settings: TrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    failing = SimpleNamespace()  # it has none of the methods
    monkeypatch.setitem(sys.modules, "mine", failing)
    monkeypatch.setitem(TRACKERS, "mine", TrackerKind(lambda *_: failing, "look at {folder}"))
    plain = stage.train(folder.path, settings, out=tmp_path / "plain")
    tracked = stage.train(folder.path, settings, out=tmp_path / "tracked", track="mine")
    assert same_models(plain.run, tracked.run)


def test_what_can_not_track_is_refused_before_the_work(
    folder: FeatureFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="did you mean 'tensorboard'"):
        stage.train(folder.path, config.load_recipe("thesis"), track="tensorbord")
    monkeypatch.setattr(trackers, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'subgenre\[wandb\]'"):
        trackers.check("wandb")
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_tracks(
    folder: FeatureFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    made = Recorder()
    monkeypatch.setitem(sys.modules, "wandb", made)
    words = ["train", "--features", str(folder.path), "--test-run", "--track", "wandb", "--json"]
    assert main([*words, "--out", "model", "--recipe", "laptop", "--set", "model.pca=0"]) == 0
    assert json.loads(capsys.readouterr().out)["epochs"] == 1
    assert [name for name, _ in made.calls] == ["init", "log", "finish"]
