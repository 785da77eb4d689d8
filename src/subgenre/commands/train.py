"""Feature folder -> model folder."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from pyarrow import parquet

from subgenre import config
from subgenre.config import TrainConfig
from subgenre.core import files, hardware, validation, workspace
from subgenre.core.progress import Console, Silent
from subgenre.core.text import versions
from subgenre.core.validation import check_output
from subgenre.dataset import splits
from subgenre.dataset.folder import FeatureFolder
from subgenre.errors import RunError, TrainingError
from subgenre.models import embedding, encoder
from subgenre.training import checkpoint, distributed, fit, messages
from subgenre.training.compatibility import missing_material
from subgenre.training.signals import stop_signals, tidy_checkpoints
from subgenre.training.state import Epoch

# A test run takes this much of the library, one chunk a track: enough to go through every line.
_TEST_TRACKS = 3
# The device and how often it is saved change no result that a resume could mix up.
_FREE = (("run", "device"), ("run", "save_every"))
# What `_write` writes before `config.toml`, in its order: what a run leaves that is stopped there.
_WRITTEN = (
    encoder.WEIGHTS,
    encoder.STRUCTURE,
    workspace.SPLIT,
    workspace.HISTORY,
    workspace.DATA,
    workspace.EMBEDDINGS,
)


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
    features: Path = workspace.FEATURES,
    settings: TrainConfig | None = None,
    *,
    out: Path | None = None,
    checkpoints: Path = workspace.CHECKPOINTS,
    resume: bool = False,
    test_run: bool = False,
    console: Console | None = None,
) -> Trained:
    """Train a model on a feature folder and write its model folder.

    Args:
        features: as `preprocess` wrote it.
        settings: by default the recipe `thesis`.
        out: the model folder; by default `fully_trained_models_<time>` here.
        checkpoints: each run keeps its own folder below it.
        resume: go on from the newest checkpoint; where there is none, start anew.
        test_run: a small subset, start to end.
        console: hears how it goes.

    Raises:
        FeatureError, SplitError, BackboneError, ConfigError, TrainingError, CheckpointError.
    """
    console, settings = console or Silent(), settings or config.load_recipe("thesis")
    device = hardware.pick_device(settings.run.device)
    group = distributed.start(device.type)
    if group.world > 1 and device.type == "cuda":
        device = torch.device("cuda", group.local_rank)
    place = _Place(out, checkpoints, resume, device, group, console if group.first else Silent())
    try:
        return _train(features, settings, place, test_run=test_run)
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
    console: Console


def _train(features: Path, settings: TrainConfig, place: _Place, *, test_run: bool) -> Trained:
    """Open the features, draw the split, train, and write the model folder."""
    console, group = place.console, place.group
    with distributed.fail_together(group, place.device):
        folder = FeatureFolder.open(features)
        split = splits.split(
            folder.tracks,
            test_share=settings.run.test_share,
            seed=settings.run.seed,
            strict_groups=settings.run.strict_groups,
        )
        if test_run:
            split, settings = _small(folder, split, settings)
            console.info("test run: a few tracks of two subgenres, one epoch, no validation")
        for warning in (*split.warnings, *missing_material(folder, settings)):
            console.warn(warning)
        fingerprint = _fingerprint(folder, split, settings, group.world)
        old = _begun(place, fingerprint) if place.resume else None
        check_output("checkpoints", place.checkpoints, folder=True)
        name, run = _claim(place, old)
    kept = old.parent if old else place.checkpoints / name
    with (
        tidy_checkpoints(kept, run, console, own=group.first),
        stop_signals(console) as stop_requested,
    ):
        fitted = fit.fit(
            folder,
            split.train,
            settings,
            device=place.device,
            group=group,
            checkpoints=kept,
            resume=old,
            fingerprint=fingerprint,
            stop_requested=stop_requested,
            only=_few_chunks(folder, split) if test_run else None,
            console=console,
        )
        with distributed.fail_together(group, place.device):
            if group.first:
                _write(run, fitted, folder, split, settings, test_run=test_run)
                console.info(messages.chosen_weights(fitted.result, settings))
                console.info(f"model: {run}")
    result = fitted.result
    return Trained(run, result.best_epoch, result.seconds, result.stopped_early, result.history)


def _begun(place: _Place, fingerprint: Mapping[str, str]) -> Path | None:
    """Find the checkpoint to go on from: the newest of this run whose model is not there yet."""

    def finished(path: Path) -> bool:
        run = workspace.model_folder(place.out, path.absolute().parent.name)
        return (run / workspace.CONFIG).is_file()

    found = checkpoint.of_run(
        place.checkpoints, fingerprint, on_damaged=place.console.warn, finished=finished
    )
    if not found:
        place.console.info(f"no checkpoint of this run under {place.checkpoints}: starting anew")
        return None
    path = next((path for path in found if not finished(path)), found[0])
    place.console.info(f"going on from {path}, after step {checkpoint.steps_done(path)}")
    return path


def _claim(place: _Place, old: Path | None) -> tuple[str, Path]:
    """Name a run, and return its model folder to be; a new run's checkpoints are its own."""
    name = old.absolute().parent.name if old else workspace.stamp()
    if not place.group.first:
        return name, Path()
    run = workspace.new_run(place.out, name, begun=_WRITTEN if old else ())
    if not old:
        try:
            (place.checkpoints / name).mkdir(parents=True)
        except FileExistsError:  # a run of this very second has it
            time.sleep(0.2)
            return _claim(place, old)
    return name, run


def _small(
    folder: FeatureFolder, split: splits.Split, settings: TrainConfig
) -> tuple[splits.Split, TrainConfig]:
    """Cut a split down to a few tracks of a few subgenres, and the recipe to one epoch."""
    labels = _two_labels(folder)
    everyone = (*folder.tracks, *folder.trash)
    pairs = zip(folder.track_of.tolist(), folder.label_of.tolist(), strict=True)
    label = {everyone[track].id: number for track, number in pairs}

    def few(ids: tuple[str, ...], most: int) -> tuple[str, ...]:
        kept: dict[int, list[str]] = {}
        for track in ids:
            kept.setdefault(int(label[track]), []).append(track)
        return tuple(t for c in labels for t in kept.get(c, [])[:most])

    small = dataclasses.replace(
        split, train=few(split.train, _TEST_TRACKS - 1), test=few(split.test, 1)
    )
    settings = config.replace(settings, "optim", epochs=1, head_epochs=0)
    return small, config.replace(settings, "watch", val_share=0.0)


def _two_labels(folder: FeatureFolder) -> tuple[int, ...]:
    """Return the first subgenre and the first of another genre, or else the second."""
    others = [n for n, genre in enumerate(folder.genres) if genre != folder.genres[0]]
    return (0, others[0]) if others else tuple(range(min(2, len(folder.labels))))


def _few_chunks(folder: FeatureFolder, split: splits.Split) -> NDArray[np.int64]:
    """Return the first chunk of each track of a small split, and of a few of the trash pool."""
    trash = [track.id for track in folder.trash[:_TEST_TRACKS]]
    rows = folder.rows((*split.train, *split.test, *trash))
    return rows[np.unique(folder.track_of[rows], return_index=True)[1]]


def _fingerprint(
    folder: FeatureFolder, split: splits.Split, settings: TrainConfig, processes: int
) -> dict[str, str]:
    """Say what must be the same for a run to be resumed."""
    plain = validation.to_dict(settings)
    recipe = plain.pop("recipe")
    options = {
        f"{section}.{key}": json.dumps(value, ensure_ascii=False)
        for section, values in plain.items()
        for key, value in values.items()
        if (section, key) not in _FREE
    }
    return {
        "recipe": recipe,
        **options,
        "data": folder.fingerprint,
        "split": checkpoint.digest([split.train, split.test]),
        "number of processes": str(processes),
    }


def _write(
    run: Path,
    fitted: fit.Fitted,
    folder: FeatureFolder,
    split: splits.Split,
    settings: TrainConfig,
    *,
    test_run: bool,
) -> None:
    """Write the model folder; `config.toml` last: with it the folder counts as a model."""
    if (run / workspace.CONFIG).is_file():
        raise RunError(
            f"{run} has become another run's model meanwhile; the same command with --resume and "
            "another --out writes this one"
        )
    workspace.clear(run, _WRITTEN)
    encoder.save(fitted.encoder, run)
    splits.save(split, run / workspace.SPLIT, folder.tracks)
    rows = [dataclasses.asdict(epoch) for epoch in fitted.result.history]
    with files.atomic_path(run / workspace.HISTORY) as temporary:
        parquet.write_table(pa.Table.from_pylist(rows), temporary)
    data = {
        "format_version": 1,
        "features": str(folder.path.resolve()),
        "fingerprint": folder.fingerprint,
        "root": str(folder.root),
        "n_trash": len(folder.trash),
        "test_run": test_run,
        "labels": list(folder.labels),
        "genres": list(folder.genres),
        "train_s": fitted.result.seconds,
        "best_epoch": fitted.result.best_epoch,
        "stopped_early": fitted.result.stopped_early,
        "versions": versions(),
        "encoder": encoder.fingerprint(fitted.encoder),
        "preprocess": validation.to_dict(folder.config),
    }
    files.write_json(run / workspace.DATA, data)
    _write_vectors(run, fitted, folder, split)
    validation.save_toml(run / workspace.CONFIG, settings)


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
        chunks = embedding.project_vectors(fitted.encoder, fitted.pooled[rows], device=device)
        side, values = embedding.track_vectors(chunks, folder.track_of[rows])
        numbers += side.tolist()
        vectors.append(values)
    embedding.write_embeddings(
        run / workspace.EMBEDDINGS,
        [folder.tracks[number] for number in numbers],
        np.concatenate(vectors),
        split=["train"] * len(vectors[0]) + ["test"] * len(vectors[1]),
        fingerprint=encoder.fingerprint(fitted.encoder),
    )
