"""Feature folder -> model folder."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from subgenre import config
from subgenre.config import TrainConfig
from subgenre.core import files, hardware, tables, validation, workspace
from subgenre.core.progress import Console, Silent
from subgenre.core.text import versions
from subgenre.core.validation import check_output
from subgenre.dataset import splits, track_vectors
from subgenre.dataset.folder import FeatureFolder
from subgenre.errors import RunError, TrainingError
from subgenre.evaluation.tracks import embed_tracks
from subgenre.models import encoder
from subgenre.training import checkpoint, distributed, fit, messages, trackers
from subgenre.training.compatibility import missing_material
from subgenre.training.run_state import Epoch
from subgenre.training.signals import stop_signals, tidy_checkpoints

_TEST_TRACKS = 3  # tracks of a subgenre in a test run, one chunk each
# Options that a resumed run may change: they do not change the result.
_FREE = ("run.device", "run.save_every")
# What `_write` writes before `config.toml`, in its order: a run that is stopped there leaves them.
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
    """The result of `train`."""

    run: Path
    best_epoch: int
    seconds: float
    stopped_early: bool
    history: tuple[Epoch, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
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
    track: str = "",
    console: Console | None = None,
) -> Trained:
    """Train a model on a feature folder and write its model folder.

    Args:
        features: as `preprocess` wrote it.
        settings: by default the recipe `thesis`.
        out: the model folder; by default `fully_trained_models_<time>` here.
        checkpoints: each run has its own folder below it.
        resume: continue from the newest checkpoint; without one, start anew.
        test_run: go through all steps with a small part of the library.
        track: a name of `TRACKERS`, which gets the figures of each epoch; by default none does.
        console: receives messages and progress.

    Raises:
        FeatureError, SplitError, BackboneError, ConfigError, TrainingError, CheckpointError.
    """
    console, settings = console or Silent(), settings or config.load_recipe("thesis")
    if track:
        trackers.check(track)
    device = hardware.pick_device(settings.run.device)
    group = distributed.start(device.type)
    if group.world > 1 and device.type == "cuda":
        device = torch.device("cuda", group.local_rank)
    console = console if group.first else Silent()
    job = _Job(out, checkpoints, resume, device, group, track if group.first else "", console)
    try:
        return _train(features, settings, job, test_run=test_run)
    except RuntimeError as problem:
        if group.world == 1:
            raise
        reason = str(problem).partition("\n")[0]
        raise TrainingError(f"a process of this run has failed: {reason}") from problem
    finally:
        distributed.stop()


@dataclass(frozen=True)
class _Job:
    """Where a run computes and writes, and its console."""

    out: Path | None
    checkpoints: Path
    resume: bool
    device: torch.device
    group: distributed.Group
    track: str
    console: Console


def _train(features: Path, settings: TrainConfig, job: _Job, *, test_run: bool) -> Trained:
    """Open the features, draw the split, train, and write the model folder."""
    console, group = job.console, job.group
    with distributed.fail_together(group, job.device):
        folder = FeatureFolder.open(features)
        split = splits.split(
            folder.tracks,
            test_share=settings.run.test_share,
            seed=settings.run.seed,
            strict_groups=settings.run.strict_groups,
        )
        if test_run:
            split = _few_tracks(folder, split)
            settings = config.replace(settings, "optim", epochs=1, head_epochs=0)
            settings = config.replace(settings, "watch", val_share=0.0)
            console.info("test run: a few tracks of two subgenres, one epoch, no validation")
        for warning in (*split.warnings, *missing_material(folder, settings)):
            console.warn(warning)
        fingerprint = _fingerprint(folder, split, settings, group.world)
        old = _find_checkpoint(job, fingerprint) if job.resume else None
        check_output("checkpoints", job.checkpoints, folder=True)
        name, run = _new_folders(job, old)
    kept = old.parent if old else job.checkpoints / name
    with (
        tidy_checkpoints(kept, run, console, own=group.first),
        stop_signals(console) as stop_requested,
        _tracking(job, name, settings) as track,
    ):
        fitted = fit.fit(
            folder,
            split.train,
            settings,
            device=job.device,
            group=group,
            checkpoints=kept,
            resume=old,
            fingerprint=fingerprint,
            stop_requested=stop_requested,
            track=track,
            only=_few_chunks(folder, split) if test_run else None,
            console=console,
        )
        with distributed.fail_together(group, job.device):
            if group.first:
                stop_requested()  # from here on the model is finished first
                # another training may have the same model folder
                engine = fitted.encoder.backbone.engine  # which `auto` is, and so will be used
                settings = config.replace(settings, "run", engine=engine)
                with files.locked(job.checkpoints / f".{run.name}.lock"):
                    _write(run, fitted, folder, split, settings, test_run=test_run)
                console.info(messages.chosen_weights(fitted.result, settings))
                console.info(f"model: {run}")
    result = fitted.result
    return Trained(run, result.best_epoch, result.seconds, result.stopped_early, result.history)


def _find_checkpoint(job: _Job, fingerprint: Mapping[str, str]) -> Path | None:
    """Return the newest checkpoint of this run, if possible one without a finished model."""

    def finished(path: Path) -> bool:
        run = workspace.model_folder(job.out, path.absolute().parent.name)
        return (run / workspace.CONFIG).is_file()

    saved = checkpoint.of_run(
        job.checkpoints, fingerprint, on_damaged=job.console.warn, finished=finished
    )
    if not saved:
        job.console.info(f"no checkpoint of this run under {job.checkpoints}: starting anew")
        return None
    path = next((path for path in saved if not finished(path)), saved[0])
    job.console.info(f"continuing from {path}, after step {checkpoint.steps_done(path)}")
    return path


def _new_folders(job: _Job, old: Path | None) -> tuple[str, Path]:
    """Return the name of the run and its model folder; make the folder of its checkpoints."""
    name = old.absolute().parent.name if old else workspace.stamp()
    if not job.group.first:
        return name, Path()
    run = workspace.new_run(job.out, name, begun=_WRITTEN if old else ())
    if not old:
        try:
            (job.checkpoints / name).mkdir(parents=True)
        except FileExistsError:  # another run began in this second
            time.sleep(0.2)
            return _new_folders(job, old)
    return name, run


def _tracking(
    job: _Job, name: str, settings: TrainConfig
) -> AbstractContextManager[Callable[[Epoch], None]]:
    """Open the tracker of a run, if one was requested."""
    if not job.track:
        return nullcontext(lambda _: None)
    return trackers.tracking(job.track, workspace.TRACKING, name, settings, job.console)


def _few_tracks(folder: FeatureFolder, split: splits.Split) -> splits.Split:
    """Cut a split down to a few tracks of two subgenres, of two genres if there are two."""
    other_genre = [n for n, genre in enumerate(folder.genres) if genre != folder.genres[0]]
    labels = (0, *(other_genre or range(1, len(folder.labels)))[:1])
    everyone = (*folder.tracks, *folder.trash)
    pairs = zip(folder.track_of.tolist(), folder.label_of.tolist(), strict=True)
    label_of = {everyone[track].id: label for track, label in pairs}

    def few(ids: tuple[str, ...], most: int) -> tuple[str, ...]:
        of_label = [[track for track in ids if label_of[track] == label] for label in labels]
        return tuple(track for tracks in of_label for track in tracks[:most])

    return dataclasses.replace(
        split, train=few(split.train, _TEST_TRACKS - 1), test=few(split.test, 1)
    )


def _few_chunks(folder: FeatureFolder, split: splits.Split) -> NDArray[np.int64]:
    """Return the row of the first chunk of each track, and of a few of the trash pool."""
    trash = [track.id for track in folder.trash[:_TEST_TRACKS]]
    rows = folder.rows((*split.train, *split.test, *trash))
    return rows[np.unique(folder.track_of[rows], return_index=True)[1]]


def _fingerprint(
    folder: FeatureFolder, split: splits.Split, settings: TrainConfig, processes: int
) -> dict[str, str]:
    """Return what must be the same for a run to be resumed."""
    plain = validation.to_dict(settings)
    recipe = plain.pop("recipe")
    options = {
        f"{section}.{key}": json.dumps(value, ensure_ascii=False)
        for section, values in plain.items()
        for key, value in values.items()
        if f"{section}.{key}" not in _FREE
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
            f"another run has written its model to {run} meanwhile; the same command with --resume "
            "and another --out writes this one"
        )
    workspace.clear(run, _WRITTEN)
    encoder.save(fitted.encoder, run)
    splits.save(split, run / workspace.SPLIT, folder.tracks)
    toml = validation.to_toml(settings).encode()
    rows = [dataclasses.asdict(epoch) for epoch in fitted.result.history]
    tables.write(run / workspace.HISTORY, pa.Table.from_pylist(rows))
    data = {
        "format_version": 1,
        "features": files.portable(folder.path.resolve(), run),
        "fingerprint": folder.fingerprint,
        "tracks": folder.fingerprint_of((*split.train, *split.test)),
        "root": files.portable(folder.root, run),
        "n_trash": len(folder.trash),
        "test_run": test_run,
        "labels": list(folder.labels),
        "genres": list(folder.genres),
        "train_s": fitted.result.seconds,
        "best_epoch": fitted.result.best_epoch,
        "stopped_early": fitted.result.stopped_early,
        "versions": versions(),
        "encoder": encoder.fingerprint(fitted.encoder),
        "preprocess": folder.config.to_dict(),
        "checksums": {
            workspace.CONFIG: files.checksum(toml),
            **{
                name: files.checksum((run / name).read_bytes())
                for name in (workspace.SPLIT, workspace.HISTORY)
            },
        },
    }
    files.write_json(run / workspace.DATA, data)
    _write_vectors(run, fitted, folder, split)
    files.write_bytes(run / workspace.CONFIG, toml)


def _write_vectors(
    run: Path, fitted: fit.Fitted, folder: FeatureFolder, split: splits.Split
) -> None:
    """Write the vectors of the tracks if the output of a frozen backbone is at hand.

    If the backbone has learnt too, `evaluate` writes them.
    """
    if fitted.pooled is None:
        return
    device = next(fitted.encoder.parameters()).device
    sides = [
        embed_tracks(fitted.encoder, folder, folder.rows(ids), device=device, pooled=fitted.pooled)
        for ids in (split.train, split.test)
    ]
    track_vectors.write_embeddings(
        run / workspace.EMBEDDINGS,
        [folder.tracks[number] for numbers, _ in sides for number in numbers],
        np.concatenate([vectors for _, vectors in sides]),
        split=["train"] * len(sides[0][0]) + ["test"] * len(sides[1][0]),
        fingerprint=encoder.fingerprint(fitted.encoder),
    )
