"""A training for each fold: in parallel where the cores allow; a result on disk is used again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subgenre import config
from subgenre.config import TrainConfig
from subgenre.core import files, hardware, parallel, validation
from subgenre.core.progress import Console, Silent, WarningsOnly
from subgenre.core.text import duration
from subgenre.dataset import splits
from subgenre.dataset.folder import FeatureFolder
from subgenre.dataset.splits import Split
from subgenre.errors import RunError, TrainingError
from subgenre.evaluation.tracks import embed_tracks
from subgenre.models import backbones
from subgenre.training import checkpoint, fit

FORMAT_VERSION = 1
MANIFEST, FOLDS = "evaluation.json", "folds"  # in the folder of an evaluation
_NO_TIMEOUT_S = 1e8


@dataclass(frozen=True)
class Job:
    """One training on the training side of a split; its result is kept in `path`.

    Attributes:
        name: "fold 2 of 5", in messages.
    """

    name: str
    features: Path
    settings: TrainConfig
    split: Split
    path: Path
    fingerprint: str


@dataclass(frozen=True)
class FoldResult:
    """Vectors [N, D] of all tracks by the trained model, seconds of training, and its epochs."""

    vectors: NDArray[np.float32]
    seconds: float
    history: tuple[dict[str, Any], ...]


def plan(
    folder: FeatureFolder, settings: TrainConfig, *, folds: int, repeats: int, out: Path
) -> list[Job]:
    """Draw the folds of each repeat, describe their trainings, and claim `out` for them.

    Raises:
        SplitError: too few tracks or groups. RunError: `out` holds something else.
    """
    jobs = []
    for repeat in range(repeats):
        seed = settings.run.seed + repeat
        drawn = splits.folds(
            folder.tracks, folds, seed=seed, strict_groups=settings.run.strict_groups
        )
        for number, split in enumerate(drawn):
            name = f"fold {number + 1} of {folds}"
            name += f", repeat {repeat + 1} of {repeats}" if repeats > 1 else ""
            path = out / FOLDS / f"repeat{repeat}_fold{number}.npz"
            seeded = config.replace(settings, "run", seed=seed)
            jobs.append(job(name, folder, seeded, split, path))
    _claim(out, folder, settings, folds)
    return jobs


def _claim(out: Path, folder: FeatureFolder, settings: TrainConfig, folds: int) -> None:
    """Write which evaluation `out` holds, or check that it is this one; repeats may differ."""
    manifest = {
        "format_version": FORMAT_VERSION,
        "configuration": checkpoint.digest(_training_settings(settings)),
        "data": folder.fingerprint,
        "folds": folds,
    }
    path = out / MANIFEST
    if path.is_file():
        known = files.read_json(path, version=FORMAT_VERSION, error=RunError)
        different = [name for name, value in manifest.items() if known.get(name) != value]
        if different:
            raise RunError(
                f"{out} holds an evaluation with another {different[0]}; "
                "name another folder with --out, or remove it"
            )
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out} exists and holds no evaluation; name another with --out")
    files.write_json(path, manifest)


def _training_settings(settings: TrainConfig) -> dict[str, Any]:
    """Return the settings that determine the weights."""
    plain = validation.to_dict(settings)
    plain["run"] = {k: v for k, v in plain["run"].items() if k not in ("device", "save_every")}
    return plain


def job(name: str, folder: FeatureFolder, settings: TrainConfig, split: Split, path: Path) -> Job:
    """Describe one training; its fingerprint covers settings, data and split."""
    identity = [
        FORMAT_VERSION,
        _training_settings(settings),
        folder.fingerprint,
        split.train,
        split.test,
    ]
    return Job(name, folder.path, settings, split, path, checkpoint.digest(identity))


def train_all(
    jobs: Sequence[Job], *, workers: int | None = None, console: Console | None = None
) -> list[FoldResult]:
    """Train the jobs that have no result yet; return all results in the order of the jobs.

    Heads on a frozen backbone train in parallel on a CPU, a process each; larger trainings run one
    after another.

    Raises:
        TrainingError, BackboneError, FeatureError: of any job; finished results are kept.
    """
    console = console or Silent()
    results = {one.path: result for one in jobs if (result := read(one)) is not None}
    if results:
        console.info(f"{len(results)} of {len(jobs)} trainings are already done")
    missing = [one for one in jobs if one.path not in results]
    n_workers = parallel.worker_count(workers) if jobs and _is_small(jobs[0].settings) else 1
    with console.progress("folds") as bar:
        bar(len(results), len(jobs))
        for one in _trained(missing, min(n_workers, len(missing)), console):
            result = read(one)
            if result is None:
                raise RunError(f"{one.path} was written and can't be read; is the disk full?")
            results[one.path] = result
            console.info(f"{one.name}: trained in {duration(result.seconds)}")
            bar(len(results), len(jobs))
    return [results[one.path] for one in jobs]


def read(one: Job) -> FoldResult | None:
    """Read a result; None if it is missing, damaged, or of another fingerprint."""
    try:
        with files.arrays(one.path) as stored:
            details = json.loads(str(stored["details" if "details" in stored else "told"]))
            vectors = np.asarray(stored["vectors"], dtype=np.float32)
    except (OSError, ValueError):
        return None
    if details.get("fingerprint") != one.fingerprint:
        return None
    return FoldResult(vectors, float(details["seconds"]), tuple(details["history"]))


def train_one(one: Job, *, console: Console | None = None) -> None:
    """Train one job and write its result, atomically."""
    # several threads round sums differently: the figures must not depend on the number of workers
    with hardware.one_thread() if _is_small(one.settings) else nullcontext():
        folder = FeatureFolder.open(one.features)
        fitted = fit.fit(folder, one.split.train, one.settings, console=console)
        _, vectors = embed_tracks(
            fitted.encoder,
            folder,
            np.flatnonzero(folder.label_of >= 0),
            device=hardware.pick_device(one.settings.run.device),
            pooled=fitted.pooled if one.settings.model.tune == "head" else None,
        )
    details = {
        "fingerprint": one.fingerprint,
        "seconds": fitted.result.seconds,
        "history": [dataclasses.asdict(epoch) for epoch in fitted.result.history],
    }
    with files.atomic_path(one.path) as temporary:
        np.savez(temporary, details=np.array(json.dumps(details)), vectors=vectors)


def _is_small(settings: TrainConfig) -> bool:
    """Whether a training can run in parallel with others, a thread each."""
    on_cpu = hardware.pick_device(settings.run.device).type == "cpu"
    return on_cpu and settings.model.tune == "head"


def _trained(jobs: Sequence[Job], workers: int, console: Console) -> Iterator[Job]:
    """Train the jobs; yield each when it is done."""
    if workers < 2:
        for one in jobs:
            train_one(one, console=WarningsOnly(console))
            yield one
        return
    outcomes = parallel.map_files(
        _train_in_process,
        jobs,
        workers=workers,
        timeout_s=_NO_TIMEOUT_S,
        initializer=backbones.import_factories,
        initargs=(backbones.imported(),),
    )
    with closing(outcomes):  # an interruption or a failure ends the running ones
        for position, problem in outcomes:
            one = jobs[position]
            if problem == parallel.Failure(parallel.CRASHED):
                raise TrainingError(
                    f"{one.name} ended abruptly, probably for lack of memory; run it again with "
                    "--workers 1: finished trainings are kept"
                )
            if isinstance(problem, parallel.Failure):
                raise TrainingError(f"{one.name}: {problem.reason}")
            if problem is not None:
                raise problem
            yield one


def _train_in_process(one: Job) -> Exception | None:
    """Train one job and return its error, so that its class reaches the parent process."""
    try:
        train_one(one)
    except Exception as problem:  # noqa: BLE001  the parent process raises it
        return problem
    return None


def mean_history(results: Sequence[FoldResult]) -> tuple[dict[str, Any], ...]:
    """Average the epochs that all trainings have."""
    history = []
    for rows in zip(*(result.history for result in results), strict=False):
        epoch: dict[str, Any] = {"epoch": rows[0]["epoch"]}
        for name in ("loss", "active", "spread", "val_map_at_r"):
            values = [row[name] for row in rows]
            epoch[name] = None if None in values else float(np.mean(values))
        history.append(epoch)
    return tuple(history)
