"""Trackers: the figures of each epoch, for a tool that compares trainings; offline by default.

To add one, write a class with `log` and `finish`, and give it a line of `TRACKERS`.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from subgenre.config import TrainConfig
from subgenre.core import validation
from subgenre.core.progress import Console
from subgenre.errors import MissingExtraError
from subgenre.training.run_state import Epoch

PROJECT = "subgenre"
Figures = dict[str, float]


class Tracker(Protocol):
    """One run of a tool."""

    def log(self, figures: Figures, epoch: int) -> None:
        """Record the figures of an epoch, counted from 1."""

    def finish(self) -> None:
        """Close the run."""


class TensorBoard:
    """Event files in a folder of the run's name."""

    def __init__(self, folder: Path, run: str, settings: Mapping[str, Any]) -> None:
        from torch.utils import tensorboard

        self.writer: Any = tensorboard.SummaryWriter(folder / run)
        lines = (f"    {name} = {value}" for name, value in settings.items())
        self.writer.add_text("settings", "\n".join(lines))

    def log(self, figures: Figures, epoch: int) -> None:
        """Record the figures of an epoch."""
        for name, value in figures.items():
            self.writer.add_scalar(name, value, epoch)
        self.writer.flush()

    def finish(self) -> None:
        """Close the event file."""
        self.writer.close()


class MLflow:
    """A SQLite database; `MLFLOW_TRACKING_URI` names another place."""

    def __init__(self, folder: Path, run: str, settings: Mapping[str, Any]) -> None:
        import mlflow

        folder.mkdir(parents=True, exist_ok=True)
        here = f"sqlite:///{(folder / 'mlflow.db').absolute().as_posix()}"
        mlflow.set_tracking_uri(os.environ.get("MLFLOW_TRACKING_URI", here))
        mlflow.set_experiment(PROJECT)
        mlflow.start_run(run_name=run)
        mlflow.log_params(dict(settings))
        self.mlflow = mlflow

    def log(self, figures: Figures, epoch: int) -> None:
        """Record the figures of an epoch."""
        self.mlflow.log_metrics(figures, step=epoch)

    def finish(self) -> None:
        """End the run."""
        self.mlflow.end_run()


class Wandb:
    """Offline files, which `wandb sync` uploads; `WANDB_MODE=online` sends them at once."""

    def __init__(self, folder: Path, run: str, settings: Mapping[str, Any]) -> None:
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        mode = os.environ.get("WANDB_MODE", "offline")
        options = {"dir": str(folder), "config": dict(settings), "mode": mode}
        self.run: Any = wandb.init(project=PROJECT, name=run, **options)

    def log(self, figures: Figures, epoch: int) -> None:
        """Record the figures of an epoch."""
        self.run.log(figures, step=epoch)

    def finish(self) -> None:
        """Close the run."""
        self.run.finish()


class Trackio:
    """A SQLite database in `TRACKIO_DIR`, by default the folder."""

    def __init__(self, folder: Path, run: str, settings: Mapping[str, Any]) -> None:
        os.environ.setdefault("TRACKIO_DIR", str(folder.absolute()))  # read when it is imported
        import trackio

        trackio.init(project=PROJECT, name=run, config=dict(settings))
        self.trackio = trackio

    def log(self, figures: Figures, epoch: int) -> None:
        """Record the figures of an epoch."""
        self.trackio.log(figures, step=epoch)

    def finish(self) -> None:
        """Close the run."""
        self.trackio.finish()


@dataclass(frozen=True)
class TrackerKind:
    """A tracker by name; the name is also that of its library and of its extra.

    Attributes:
        start: (folder, name of the run, settings by `section.key`) -> a run of the tool.
        show: the command that shows what is in `{folder}`.
    """

    start: Callable[[Path, str, Mapping[str, Any]], Tracker]
    show: str


TRACKERS = {
    "tensorboard": TrackerKind(TensorBoard, "tensorboard --logdir {folder}"),
    "mlflow": TrackerKind(MLflow, "mlflow ui --backend-store-uri sqlite:///{folder}/mlflow.db"),
    "wandb": TrackerKind(Wandb, "wandb sync {folder}/wandb/offline-run-*"),
    "trackio": TrackerKind(Trackio, "TRACKIO_DIR={folder} trackio show"),
}


def check(name: str) -> None:
    """Refuse an unknown tracker, and one whose library is not installed, before the work.

    Raises:
        ConfigError: unknown. MissingExtraError: not installed.
    """
    validation.check_choice("track", name, tuple(TRACKERS))
    if name not in sys.modules and find_spec(name) is None:
        raise MissingExtraError(f"--track {name}", name)


@contextmanager
def tracking(
    name: str, folder: Path, run: str, settings: TrainConfig, console: Console
) -> Iterator[Callable[[Epoch], None]]:
    """Start a run of a tracker, yield the function that logs an epoch, and close the run.

    A tracker that fails never stops the training: it is named once, and then left alone. What it
    prints goes to standard error, as every message does.
    """
    tracker: Tracker | None = None
    failed = False

    def attempt(call: Callable[[], Any]) -> Any:
        nonlocal failed
        if failed:
            return None
        try:
            with contextlib.redirect_stdout(sys.stderr):
                return call()
        except Exception as problem:  # noqa: BLE001 - a training of hours outlives its tracker
            failed = True
            reason = (str(problem).splitlines() or [""])[0] or type(problem).__name__
            console.warn(f"{name} has failed ({reason}); the training goes on without it")

    plain = validation.to_dict(settings)
    options = {
        f"{section}.{key}": value
        for section, values in plain.items()
        if isinstance(values, dict)
        for key, value in values.items()
    }
    kind = TRACKERS[name]
    tracker = attempt(lambda: kind.start(folder, run, {"recipe": plain["recipe"], **options}))
    if tracker is not None:
        console.info(f"{name} records the epochs; to see them: {kind.show.format(folder=folder)}")

    def log(row: Epoch) -> None:
        figures = {key: value for key, value in asdict(row).items() if value is not None}
        epoch = figures.pop("epoch")
        attempt(lambda: tracker.log(figures, epoch))

    try:
        yield log
    finally:
        attempt(lambda: tracker.finish())
