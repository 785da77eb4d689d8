"""Feature folder -> model folder."""

from __future__ import annotations

import dataclasses
import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from pyarrow import parquet

from subgenre import (
    checkpoint,
    checks,
    config,
    distributed,
    embed,
    encoder,
    files,
    precision,
    splits,
)
from subgenre.checks import check_output
from subgenre.config import TrainConfig
from subgenre.errors import TrainingError
from subgenre.pipeline import fit, work
from subgenre.pipeline.words import versions
from subgenre.store import FeatureFolder
from subgenre.talk import Silent, Talk
from subgenre.train import Epoch, Interrupted

# A test run takes this much of the library, one chunk a track: enough to go through every line.
_TEST_LABELS, _TEST_TRACKS = 2, 3
# The device and how often it is saved change no result that a resume could mix up.
_FREE = (("run", "device"), ("run", "save_every"))


@dataclass(frozen=True)
class Trained:
    """What `train` made."""

    run: Path
    best_epoch: int
    seconds: float
    stopped_early: bool
    history: tuple[Epoch, ...]

    def to_dict(self) -> dict[str, Any]:
        """Give plain values for JSON."""
        last = self.history[-1]
        return {
            "run": str(self.run),
            "best_epoch": self.best_epoch,
            "epochs": len(self.history),
            "loss": last.loss,
            "train_s": self.seconds,
            "stopped_early": self.stopped_early,
        }


def train(
    features: Path = work.FEATURES,
    settings: TrainConfig | None = None,
    *,
    out: Path | None = None,
    checkpoints: Path = work.CHECKPOINTS,
    resume: bool = False,
    test_run: bool = False,
    talk: Talk | None = None,
) -> Trained:
    """Train a model on a feature folder and write its model folder.

    Args:
        features: as `preprocess` wrote it.
        settings: by default the recipe `thesis`.
        out: the model folder; by default `fully_trained_models_<time>` here.
        checkpoints: each run keeps its own folder below it.
        resume: go on from the newest checkpoint; where there is none, start anew.
        test_run: a small subset, start to end.
        talk: hears how it goes.

    Raises:
        FeatureError, SplitError, BackboneError, ConfigError, TrainingError, CheckpointError.
    """
    talk, settings = talk or Silent(), settings or config.load_recipe("thesis")
    device = precision.pick_device(settings.run.device)
    group = distributed.start(device.type)
    if group.world > 1 and device.type == "cuda":
        device = torch.device("cuda", group.local_rank)
    place = _Place(out, checkpoints, resume, device, group, talk if group.first else Silent())
    try:
        return _train(features, settings, place, test_run=test_run)
    except KeyboardInterrupt:
        if checkpoint.newest(checkpoints):
            place.talk.warn(f"the checkpoint under {checkpoints} stays: go on with --resume")
        raise
    except RuntimeError as problem:
        if group.world == 1:
            raise
        reason = str(problem).partition("\n")[0]
        raise TrainingError(f"a process of this run has failed: {reason}") from problem
    finally:
        distributed.stop()


@dataclass(frozen=True)
class _Place:
    """Where a run works and writes, and who listens."""

    out: Path | None
    checkpoints: Path
    resume: bool
    device: torch.device
    group: distributed.Group
    talk: Talk


def _train(features: Path, settings: TrainConfig, place: _Place, *, test_run: bool) -> Trained:
    """Open the features, draw the split, train, and write the model folder."""
    talk, group = place.talk, place.group
    with distributed.together(group, place.device):
        folder = FeatureFolder.open(features)
        split = splits.split(
            folder.tracks,
            test_share=settings.run.test_share,
            seed=settings.run.seed,
            strict_groups=settings.run.strict_groups,
        )
        if test_run:
            split, settings = _small(folder, split, settings)
        for warning in (*split.warnings, *_stand_in(folder, settings)):
            talk.warn(warning)
        fingerprint = _fingerprint(folder, split, settings, group.world)
        old = checkpoint.newest(place.checkpoints) if place.resume else None
        if place.resume and old is None:
            talk.say(f"no checkpoint under {place.checkpoints}: starting anew")
        name = old.parent.name if old else work.stamp()
        check_output("checkpoints", place.checkpoints, folder=True)
        run = work.new_run(place.out, name) if group.first else Path()
    with _stop_signals(talk) as stop_asked:
        fitted = fit.fit(
            folder,
            split.train,
            settings,
            device=place.device,
            group=group,
            checkpoints=place.checkpoints / name,
            resume=old,
            fingerprint=fingerprint,
            stop_asked=stop_asked,
            only=_few_chunks(folder, split) if test_run else None,
            talk=talk,
        )
    with distributed.together(group, place.device):
        if group.first:
            _write(run, fitted, folder, split, settings)
            talk.say(f"model: {run}")
    result = fitted.result
    return Trained(run, result.best_epoch, result.seconds, result.stopped_early, result.history)


def _stand_in(folder: FeatureFolder, settings: TrainConfig) -> list[str]:
    """Tell that a quadruplet's fourth is not of the trash pool, where there is none."""
    if settings.loss.name != "quadruplet" or settings.batch.kind != "pk" or folder.trash:
        return []
    none = "no trash pool in these features"
    if len(set(folder.genres)) < 2:
        return [f"{none}, and one genre alone: the quadruplet's fourth is missing"]
    return [f"{none}: chunks of other genres stand in for it"]


def _small(
    folder: FeatureFolder, split: splits.Split, settings: TrainConfig
) -> tuple[splits.Split, TrainConfig]:
    """Cut a split down to a few tracks of a few subgenres, and the recipe to one epoch."""
    labels = folder.labels[:_TEST_LABELS]
    everyone = (*folder.tracks, *folder.trash)
    pairs = zip(folder.track_of.tolist(), folder.label_of.tolist(), strict=True)
    label = {everyone[track].id: number for track, number in pairs}

    def few(ids: tuple[str, ...], most: int) -> tuple[str, ...]:
        kept: dict[int, list[str]] = {}
        for track in ids:
            kept.setdefault(int(label[track]), []).append(track)
        return tuple(t for c in range(len(labels)) for t in kept.get(c, [])[:most])

    small = dataclasses.replace(
        split, train=few(split.train, _TEST_TRACKS - 1), test=few(split.test, 1)
    )
    settings = config.replace(settings, "optim", epochs=1, head_epochs=0)
    return small, config.replace(settings, "watch", val_share=0.0)


def _few_chunks(folder: FeatureFolder, split: splits.Split) -> NDArray[np.int64]:
    """Return the first chunk of each track of a small split, and of a few of the trash pool."""
    trash = [track.id for track in folder.trash[:_TEST_TRACKS]]
    rows = folder.rows((*split.train, *split.test, *trash))
    return rows[np.unique(folder.track_of[rows], return_index=True)[1]]


def _fingerprint(
    folder: FeatureFolder, split: splits.Split, settings: TrainConfig, processes: int
) -> dict[str, str]:
    """Say what must be the same for a run to be resumed."""
    plain = checks.to_dict(settings)
    recipe = plain.pop("recipe")
    options = {
        f"{section}.{key}": json.dumps(value)
        for section, values in plain.items()
        for key, value in values.items()
        if (section, key) not in _FREE
    }
    return {
        **options,
        "recipe": recipe,
        "data": folder.fingerprint,
        "split": checkpoint.digest([split.train, split.test]),
        "number of processes": str(processes),
    }


def _write(
    run: Path, fitted: fit.Fitted, folder: FeatureFolder, split: splits.Split, settings: TrainConfig
) -> None:
    """Write the model folder; `config.toml` last: with it the folder counts as a model."""
    encoder.save(fitted.encoder, run)
    splits.save(split, run / work.SPLIT, folder.tracks)
    rows = [dataclasses.asdict(epoch) for epoch in fitted.result.history]
    with files.atomic_path(run / work.HISTORY) as temporary:
        parquet.write_table(pa.Table.from_pylist(rows), temporary)
    data = {
        "format_version": 1,
        "features": str(folder.path.resolve()),
        "fingerprint": folder.fingerprint,
        "root": str(folder.root),
        "labels": list(folder.labels),
        "genres": list(folder.genres),
        "train_s": fitted.result.seconds,
        "best_epoch": fitted.result.best_epoch,
        "stopped_early": fitted.result.stopped_early,
        "versions": versions(),
        "encoder": encoder.fingerprint(fitted.encoder),
        "preprocess": checks.to_dict(folder.config),
    }
    files.write_json(run / work.DATA, data)
    _write_vectors(run, fitted, folder, split)
    checks.save_toml(run / work.CONFIG, settings)


def _write_vectors(
    run: Path, fitted: fit.Fitted, folder: FeatureFolder, split: splits.Split
) -> None:
    """Keep the tracks' vectors where they cost nothing: the backbone's output is cached.

    Of a model whose backbone has learnt too, `evaluate` writes them.
    """
    if fitted.pooled is None:
        return
    device = next(fitted.encoder.parameters()).device
    numbers: list[int] = []
    vectors = []
    for ids in (split.train, split.test):
        rows = folder.rows(ids)
        chunks = embed.project_vectors(fitted.encoder, fitted.pooled[rows], device=device)
        side, values = embed.track_vectors(chunks, folder.track_of[rows])
        numbers += side.tolist()
        vectors.append(values)
    embed.write_embeddings(
        run / work.EMBEDDINGS,
        [folder.tracks[number] for number in numbers],
        np.concatenate(vectors),
        split=["train"] * len(vectors[0]) + ["test"] * len(vectors[1]),
        fingerprint=encoder.fingerprint(fitted.encoder),
    )


@contextmanager
def _stop_signals(talk: Talk) -> Iterator[Callable[[], bool]]:
    """Stop with a checkpoint on SIGTERM and SIGUSR1 (a cluster says that time is up) and Ctrl-C.

    Raises:
        KeyboardInterrupt: after the checkpoint, or at once on a second Ctrl-C.
    """
    asked: list[int] = []

    def note(number: int, _frame: object) -> None:
        if number == signal.SIGINT and number in asked:
            raise KeyboardInterrupt
        if number == signal.SIGINT:
            talk.warn("stopping after this step, with a checkpoint; Ctrl-C once more: at once")
        asked.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    names = ("SIGINT", "SIGTERM", "SIGUSR1")
    caught = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {number: signal.signal(number, note) for number in caught}
    try:
        yield lambda: bool(asked)
    except Interrupted as problem:
        if asked[-1] == signal.SIGINT:
            raise KeyboardInterrupt from problem
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
