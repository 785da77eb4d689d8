"""A small search over recipes, on folds inside the training side: no test track is ever touched."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from subgenre import metrics
from subgenre.config import RunConfig
from subgenre.core import validation
from subgenre.core.progress import Console, Silent
from subgenre.dataset import splits
from subgenre.dataset.folder import FeatureFolder
from subgenre.dataset.splits import Split
from subgenre.errors import (
    BackboneError,
    ConfigError,
    FeatureError,
    MissingExtraError,
    SplitError,
    TrainingError,
)
from subgenre.evaluation import cross_validation as trainings
from subgenre.library.track import Track
from subgenre.metrics import Measured, Score
from subgenre.training import checkpoint
from subgenre.training.search_space import Candidate, on_one_split

OUT, KEPT = Path("tuned.toml"), Path("tuning")
SHOWN = ("centroid_accuracy", "precision_at_1", "map_at_r")
# What is wrong with one candidate, and no reason to drop the others.
FAILURES = (
    BackboneError,
    ConfigError,
    FeatureError,
    MissingExtraError,
    SplitError,
    TrainingError,
)


@dataclass(frozen=True)
class Tried:
    """What became of a candidate.

    Attributes:
        scores: by metric, over all folds; empty where training failed.
        seconds: of training, mean of a fold.
        failed: why, for a person; empty where it was trained.
    """

    candidate: Candidate
    scores: Mapping[str, Score]
    seconds: float = 0.0
    failed: str = ""


@dataclass(frozen=True)
class Tuned:
    """The search's result, best candidate first."""

    tried: tuple[Tried, ...]
    by: str
    out: Path
    n_tracks: int
    n_folds: int

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return columns and rows for a person."""
        columns, rows = ["recipe", *SHOWN, "seconds"], [_row(one) for one in self.tried]
        if any(one.failed for one in self.tried):
            columns.append("why")
            rows = [[*row, one.failed] for row, one in zip(rows, self.tried, strict=True)]
        return columns, rows

    def to_dict(self) -> dict[str, Any]:
        """Give plain values for JSON."""
        rows = [
            {
                "name": one.candidate.name,
                "settings": validation.to_dict(one.candidate.settings),
                "scores": {name: score.to_dict() for name, score in one.scores.items()},
                "train_s": one.seconds,
                "failed": one.failed,
            }
            for one in self.tried
        ]
        return {
            "winner": self.tried[0].candidate.name,
            "recipe": str(self.out),
            "by": self.by,
            "folds": self.n_folds,
            "n_tracks": self.n_tracks,
            "tried": rows,
        }


def check_places(out: Path, kept: Path) -> None:
    """Refuse, before any training, what can't be written after it.

    Raises:
        ConfigError: naming the option.
    """
    validation.check_output("out", out)
    validation.check_output("kept", kept, folder=True)


def tune(
    features: Path,
    tried: Sequence[Candidate],
    *,
    folds: int = 3,
    by: str = "map_at_r",
    out: Path = OUT,
    kept: Path = KEPT,
    workers: int | None = None,
    console: Console | None = None,
) -> Tuned:
    """Train each candidate once a fold of the training side, and write the best as a recipe.

    The split is the one that `train` draws for the first candidate, and all are given it: its test
    tracks are left out before the folds are cut. What was trained before with the same settings,
    data and folds is read from `kept`. A candidate that can't be trained is told of, and the others
    go on.

    Args:
        features: the feature folder.
        tried: candidates.
        folds: each training track is validated on once.
        by: metric that decides.
        out: the winner's TOML.
        kept: folder of what was trained.
        workers: trainings side by side; by default as many as pay.
        console: hears how it goes.

    Raises:
        ConfigError: no candidate, an unknown metric, or an output that can't be written.
        TrainingError: every candidate failed.
        FeatureError, SplitError: there are no features, or no split or folds of them.
    """
    console = console or Silent()
    validation.check_choice("by", by, metrics.METRICS)
    check_places(out, kept)
    if not tried:
        raise ConfigError("there is no recipe to try; name one with --recipes")
    folder = FeatureFolder.open(features)
    aligned = on_one_split([one.settings for one in tried], console)
    tried = [Candidate(one.name, own) for one, own in zip(tried, aligned, strict=True)]
    run = aligned[0].run
    tracks = _training_side(folder, run)
    cut = splits.folds(tracks, folds, seed=run.seed, strict_groups=run.strict_groups)
    for warning in cut[0].warnings:
        console.warn(warning)
    found = []
    for number, one in enumerate(tried, 1):
        console.info(f"{number} of {len(tried)}: {one.name}")
        found.append(_try(one, folder, cut, kept, workers, console))
    ranked = sorted(found, key=lambda one: -_value(one, by))
    if ranked[0].failed:
        raise TrainingError(f"every candidate failed; the first: {ranked[0].failed}")
    own = f"{Path(out).stem}.toml"  # never the name of a recipe of the package
    validation.save_toml(out, dataclasses.replace(ranked[0].candidate.settings, recipe=own))
    console.info(_verdict(ranked, found[0], by))
    console.info(f"recipe: {out} (subgenre train --recipe {out})")
    return Tuned(tuple(ranked), by, out, len(tracks), folds)


def _training_side(folder: FeatureFolder, run: RunConfig) -> list[Track]:
    """Return the tracks that `train` would learn from: the test tracks are never looked at."""
    split = splits.split(
        folder.tracks, test_share=run.test_share, seed=run.seed, strict_groups=run.strict_groups
    )
    side = set(split.train)
    return [track for track in folder.tracks if track.id in side]


def _try(
    one: Candidate,
    folder: FeatureFolder,
    cut: Sequence[Split],
    kept: Path,
    workers: int | None,
    console: Console,
) -> Tried:
    """Train and score one candidate on all folds; what fails in it counts against it, no more."""
    name = checkpoint.digest(validation.to_dict(one.settings))[:12]
    jobs = [
        trainings.job(
            f"fold {i} of {len(cut)}", folder, one.settings, split, kept / f"{name}_{i}.npz"
        )
        for i, split in enumerate(cut, 1)
    ]
    try:
        results = trainings.train_all(jobs, workers=workers, console=_Quiet(console))
    except FAILURES as problem:
        console.warn(f"{one.name}: {problem}")
        return Tried(one, {}, failed=str(problem))
    seed = one.settings.run.seed
    parts = [
        part
        for split, result in zip(cut, results, strict=True)
        for part in _measured(folder, split, result, seed)
    ]
    seconds = float(np.mean([result.seconds for result in results]))
    return Tried(one, metrics.combine(parts, seed=seed), seconds)


def _measured(
    folder: FeatureFolder, split: Split, result: trainings.FoldResult, seed: int
) -> list[Measured]:
    """Score the vectors [N, D] of all tracks on one fold."""
    names = sorted(set(folder.genres))
    label = np.empty(len(folder.tracks), dtype=np.int64)
    known = folder.track_of < len(label)
    label[folder.track_of[known]] = folder.label_of[known]
    place = {track.id: i for i, track in enumerate(folder.tracks)}
    train, test = ([place[id_] for id_ in side] for side in (split.train, split.test))
    return metrics.measure(
        result.vectors[train],
        label[train],
        result.vectors[test],
        label[test],
        genres=[names.index(genre) for genre in folder.genres],
        seed=seed,
        ids=split.test,
    )


def _value(one: Tried, by: str) -> float:
    return one.scores[by].value if by in one.scores else -1.0


def _verdict(ranked: Sequence[Tried], first: Tried, by: str) -> str:
    """Say who won, and whether by more than the noise."""
    best = ranked[0]
    level = [one.candidate.name for one in ranked[1:] if _value(one, by) == _value(best, by)]
    told = f"best {by}: {best.candidate.name} ({_value(best, by):.3f})"
    if level:
        told += f", level with {', '.join(level)}"
    if best is first or first.failed:
        return told
    score = first.scores[by]
    noise = "inside" if best.scores[by].low <= score.value else "below"
    return f"{told}; {first.candidate.name} has {score.value:.3f}, {noise} the winner's interval"


def _row(one: Tried) -> list[str]:
    if one.failed:
        return [one.candidate.name, *["failed"] * len(SHOWN), "-"]
    cells = []
    for name in SHOWN:
        score = one.scores.get(name)
        cells.append(f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]" if score else "-")
    return [one.candidate.name, *cells, f"{one.seconds:.1f}"]


class _Quiet(Silent):
    """Passes on warnings alone: a line a fold would bury the table."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def warn(self, text: str) -> None:
        """Pass it on."""
        self.console.warn(text)
