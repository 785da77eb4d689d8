"""One training a fold: parallel where cores allow, kept on disk, never done twice."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subgenre.config import TrainConfig
from subgenre.core import files, hardware, parallel, validation
from subgenre.core.progress import Console, Silent, WarningsOnly
from subgenre.core.text import duration
from subgenre.dataset.folder import FeatureFolder
from subgenre.dataset.splits import Split
from subgenre.errors import RunError, SubgenreError, TrainingError
from subgenre.models import embedding
from subgenre.training import checkpoint, fit

FORMAT_VERSION = 1
_FOR_EVER = 1e8  # seconds: a training is long, and watches itself


@dataclass(frozen=True)
class Job:
    """One training: on the training side of a split, its result in `path`.

    Attributes:
        name: for a person, "fold 2 of 5".
    """

    name: str
    features: Path
    settings: TrainConfig
    split: Split
    path: Path
    fingerprint: str


@dataclass(frozen=True)
class FoldResult:
    """What a training leaves: vectors [N, D] of all tracks, seconds of training, its epochs."""

    vectors: NDArray[np.float32]
    seconds: float
    history: tuple[dict[str, Any], ...]


def job(name: str, folder: FeatureFolder, settings: TrainConfig, split: Split, path: Path) -> Job:
    """Describe one training; its fingerprint is of configuration, data and split."""
    plain = validation.to_dict(settings)
    plain["run"] = {k: v for k, v in plain["run"].items() if k not in ("device", "save_every")}
    told = [FORMAT_VERSION, plain, folder.fingerprint, split.train, split.test]
    return Job(name, folder.path, settings, split, path, checkpoint.digest(told))


def train_all(
    jobs: Sequence[Job], *, workers: int | None = None, console: Console | None = None
) -> list[FoldResult]:
    """Train what is not there yet and return all results, in the order of the jobs.

    Heads on a frozen backbone train side by side on a CPU, a process each; whatever fills the
    machine by itself trains one after another.

    Raises:
        TrainingError, BackboneError, FeatureError: of any job; what is done stays done.
    """
    console = console or Silent()
    known = {i: found for i, one in enumerate(jobs) if (found := read(one)) is not None}
    if known:
        console.info(f"{len(known)} of {len(jobs)} trainings are there already")
    missing = [i for i in range(len(jobs)) if i not in known]
    side_by_side = min(_at_once(jobs, workers), len(missing))
    with console.progress("folds") as bar:
        bar(len(known), len(jobs))
        for i in _trained([(i, jobs[i]) for i in missing], side_by_side, console):
            found = read(jobs[i])
            if found is None:
                raise RunError(
                    f"{jobs[i].path} can't be read just after it was written: disk full?"
                )
            known[i] = found
            console.info(f"{jobs[i].name}: trained in {duration(found.seconds)}")
            bar(len(known), len(jobs))
    return [known[i] for i in range(len(jobs))]


def read(one: Job) -> FoldResult | None:
    """Read a result; None where there is none, a damaged one, or one of another fingerprint."""
    try:
        with one.path.open("rb") as opened, np.load(opened, allow_pickle=False) as stored:
            told = json.loads(str(stored["told"]))
            vectors = np.asarray(stored["vectors"], dtype=np.float32)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if not isinstance(told, Mapping) or told.get("fingerprint") != one.fingerprint:
        return None
    return FoldResult(vectors, float(told["seconds"]), tuple(told["history"]))


def train_one(one: Job, *, console: Console | None = None) -> None:
    """Train one job and write its result, atomically."""
    # sums of several threads round otherwise, and a head's training makes much of little:
    # the figures must not follow from how many trainings ran at once
    with hardware.one_thread() if _shares(one.settings) else nullcontext():
        _train_one(one, console)


def _train_one(one: Job, console: Console | None) -> None:
    folder = FeatureFolder.open(one.features)
    fitted = fit.fit(folder, one.split.train, one.settings, console=console)
    rows = np.flatnonzero(folder.label_of >= 0)
    device = hardware.pick_device(one.settings.run.device)
    if fitted.pooled is not None and one.settings.model.tune == "head":
        chunks = embedding.project_vectors(fitted.encoder, fitted.pooled[rows], device=device)
    else:
        chunks = embedding.chunk_vectors(fitted.encoder, folder, rows, device=device)
    _, vectors = embedding.track_vectors(chunks, folder.track_of[rows])
    told = {
        "fingerprint": one.fingerprint,
        "seconds": fitted.result.seconds,
        "history": [dataclasses.asdict(epoch) for epoch in fitted.result.history],
    }
    with files.atomic_path(one.path) as temporary:
        np.savez(temporary, told=np.array(json.dumps(told)), vectors=vectors)


def _at_once(jobs: Sequence[Job], workers: int | None) -> int:
    """Return how many trainings may run side by side."""
    return parallel.worker_count(workers) if _shares(jobs[0].settings) else 1


def _shares(settings: TrainConfig) -> bool:
    """Whether a training is small enough to run beside others, a thread each."""
    on_cpu = hardware.pick_device(settings.run.device).type == "cpu"
    return on_cpu and settings.model.tune == "head"


def _trained(jobs: Sequence[tuple[int, Job]], workers: int, console: Console) -> Iterator[int]:
    """Train and yield the number of each job as it is done."""
    if workers < 2:
        for number, one in jobs:
            train_one(one, console=WarningsOnly(console))
            yield number
        return
    items = [one for _, one in jobs]
    outcomes = parallel.map_files(_train_apart, items, workers=workers, timeout_s=_FOR_EVER)
    with closing(outcomes):  # a stop, or a failure, ends those that are under way
        for position, problem in outcomes:
            number, one = jobs[position]
            if problem == parallel.Failure(parallel.CRASHED):
                raise TrainingError(
                    f"{one.name} ended abruptly, mostly for want of memory; run it again with "
                    "--workers 1: what is trained is kept"
                )
            if isinstance(problem, parallel.Failure):
                raise TrainingError(f"{one.name}: {problem.reason}")
            if problem is not None:
                raise problem
            yield number


def _train_apart(one: Job) -> Exception | None:
    """Train one job in a process of its own; an error that a person can mend keeps its kind."""
    try:
        train_one(one)
    except (SubgenreError, OSError) as problem:
        return problem
    return None


def mean_history(results: Sequence[FoldResult]) -> tuple[dict[str, Any], ...]:
    """Average the epochs over the trainings, as far as all of them went."""
    found = []
    for rows in zip(*(result.history for result in results), strict=False):
        means: dict[str, Any] = {}
        for name in ("loss", "active", "spread", "val_map_at_r"):
            values = [row[name] for row in rows]
            known = all(value is not None for value in values)
            means[name] = float(np.mean(values)) if known else None
        found.append({"epoch": int(rows[0]["epoch"]), **means})
    return tuple(found)
