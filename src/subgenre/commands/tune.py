"""A small search over recipes, on folds inside the training side: it never touches a test track."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from subgenre import metrics
from subgenre.config import RunConfig
from subgenre.core import validation
from subgenre.core.progress import Console, Silent, WarningsOnly
from subgenre.core.text import p_value, signed
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
from subgenre.evaluation import cross_validation
from subgenre.metrics import Measured, Score
from subgenre.training import checkpoint, search_space
from subgenre.training.search_space import Candidate

SHOWN = ("centroid_accuracy", "precision_at_1", "map_at_r")
# Errors of one candidate, which do not stop the search.
FAILURES = (
    BackboneError,
    ConfigError,
    FeatureError,
    MissingExtraError,
    SplitError,
    TrainingError,
)


@dataclass(frozen=True)
class Trial:
    """The result of one candidate.

    Attributes:
        scores: by metric, over all folds; empty if the training failed. measured: of each fold.
        seconds: of training, mean of a fold; of a frozen backbone, for its features and its pass.
        failed: the reason; empty if it was trained.
        features: the feature folder of a backbone, if it is another.
    """

    candidate: Candidate
    scores: Mapping[str, Score]
    measured: tuple[Measured, ...] = ()
    seconds: float = 0.0
    failed: str = ""
    features: Path | None = None

    def value(self, metric: str) -> float:
        """Return a metric's value, -1 if the training failed."""
        return self.scores[metric].value if self.scores else -1.0

    def row(self) -> list[str]:
        """Return the row of the table."""
        if self.failed:
            return [self.candidate.name, *["failed"] * len(SHOWN), "-", self.failed]
        cells = [
            f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]"
            for score in (self.scores[name] for name in SHOWN)
        ]
        return [self.candidate.name, *cells, f"{self.seconds:.1f}", ""]


@dataclass(frozen=True)
class Tuned:
    """The result of the search, best candidate first."""

    trials: tuple[Trial, ...]
    by: str
    out: Path
    n_tracks: int
    n_folds: int

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return columns and rows for people."""
        titles = (metrics.METRICS[name].title for name in SHOWN)
        columns, rows = ["recipe", *titles, "seconds", "why"], [one.row() for one in self.trials]
        if any(one.failed for one in self.trials):
            return columns, rows
        return columns[:-1], [row[:-1] for row in rows]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        rows = [
            {
                "name": one.candidate.name,
                "settings": validation.to_dict(one.candidate.settings),
                "scores": {name: score.to_dict() for name, score in one.scores.items()},
                "train_s": one.seconds,
                "failed": one.failed,
            }
            for one in self.trials
        ]
        return {
            "winner": self.trials[0].candidate.name,
            "recipe": str(self.out),
            "by": self.by,
            "folds": self.n_folds,
            "n_tracks": self.n_tracks,
            "tried": rows,
        }


def tune(
    features: Path,
    recipes: Sequence[str | None] = (None,),
    vary: Mapping[str, Sequence[Any]] | None = None,
    *,
    given: Mapping[str, Any] | None = None,
    folds: int = 3,
    trials: int = 12,
    by: str = "map_at_r",
    out: Path = Path("tuned.toml"),
    kept: Path = Path("tuning"),
    workers: int | None = None,
    console: Console | None = None,
) -> Tuned:
    """Train recipes, as they are and changed, once a fold of the training side; write the best.

    The test tracks that `train` would draw are left out before the folds are cut. Trainings with
    the same settings, data and folds are read from `kept`. A candidate that fails is recorded, and
    the search goes on.

    Args:
        features: the feature folder.
        recipes, vary, given, trials: see `search_space.candidates`.
        folds: each training track is validated on once.
        by: the metric that decides.
        out: the winner, as a TOML recipe.
        kept: folder of the trainings.
        workers: trainings side by side; by default as many as pay.
        console: receives messages and progress.

    Raises:
        ConfigError: see `candidates`; an unknown metric, or an output that can't be written.
        TrainingError: every candidate failed.
        FeatureError, SplitError: there are no features, or no split or folds of them.
    """
    console = console or Silent()
    validation.check_choice("by", by, tuple(metrics.METRICS))
    validation.check_output("out", out)
    validation.check_output("kept", kept, folder=True)
    tried = search_space.candidates(
        features, recipes, vary or {}, given=given or {}, trials=trials, console=console
    )
    folder = FeatureFolder.open(features)
    inner, n_tracks = inner_folds(folder, tried[0].settings.run, folds, console)
    results = []
    for number, one in enumerate(tried, 1):
        console.info(f"{number} of {len(tried)}: {one.name}")
        results.append(_train(one, folder, inner, kept, workers, console))
    return finish(results, by, out, n_tracks, folds, console)


def inner_folds(
    folder: FeatureFolder, run: RunConfig, folds: int, console: Console
) -> tuple[list[Split], int]:
    """Return folds of the training side of the split that `train` draws, and its tracks' number."""
    split = splits.split(
        folder.tracks, test_share=run.test_share, seed=run.seed, strict_groups=run.strict_groups
    )
    side = set(split.train)
    tracks = [track for track in folder.tracks if track.id in side]
    inner = splits.folds(tracks, folds, seed=run.seed, strict_groups=run.strict_groups)
    for warning in inner[0].warnings:
        console.warn(warning)
    return list(inner), len(tracks)


def finish(
    results: Sequence[Trial], by: str, out: Path, n_tracks: int, folds: int, console: Console
) -> Tuned:
    """Rank the trials, write the best one's recipe, and say how it stands to the first.

    Raises:
        TrainingError: every trial failed.
    """
    ranked = sorted(results, key=lambda one: -one.value(by))
    best = ranked[0]
    if best.failed:
        raise TrainingError(f"every candidate failed; the first: {best.failed}")
    name = f"{Path(out).stem}.toml"  # never the name of a recipe of the package
    validation.save_toml(out, dataclasses.replace(best.candidate.settings, recipe=name))
    console.info(_verdict(ranked, results[0], by))
    where = f" --features {shlex.quote(str(best.features))}" if best.features else ""
    console.info(f"recipe: {out} (subgenre train --recipe {out}{where})")
    return Tuned(tuple(ranked), by, out, n_tracks, folds)


def _train(
    one: Candidate,
    folder: FeatureFolder,
    inner: Sequence[Split],
    kept: Path,
    workers: int | None,
    console: Console,
) -> Trial:
    """Train and score one candidate on all folds."""
    if one.failed:
        console.warn(f"{one.name}: {one.failed}")
        return Trial(one, {}, failed=one.failed)
    name = checkpoint.digest(validation.to_dict(one.settings))[:12]
    jobs = [
        cross_validation.job(
            f"fold {i} of {len(inner)}", folder, one.settings, split, kept / f"{name}_{i}.npz"
        )
        for i, split in enumerate(inner, 1)
    ]
    try:
        results = cross_validation.train_all(jobs, workers=workers, console=WarningsOnly(console))
    except FAILURES as problem:
        console.warn(f"{one.name}: {problem}")
        return Trial(one, {}, failed=str(problem))
    seed = one.settings.run.seed
    parts = [
        part
        for split, result in zip(inner, results, strict=True)
        for part in measure(folder, split, result.vectors, seed)
    ]
    seconds = float(np.mean([result.seconds for result in results]))
    return Trial(one, metrics.combine(parts, seed=seed), tuple(parts), seconds)


def measure(folder: FeatureFolder, split: Split, vectors: np.ndarray, seed: int) -> list[Measured]:
    """Score the vectors [N, D] of all tracks on one fold."""
    names = sorted(set(folder.genres))
    label = np.empty(len(folder.tracks), dtype=np.int64)
    known = folder.track_of < len(label)
    label[folder.track_of[known]] = folder.label_of[known]
    place = {track.id: i for i, track in enumerate(folder.tracks)}
    train, test = ([place[track] for track in side] for side in (split.train, split.test))
    return metrics.measure(
        vectors[train],
        label[train],
        vectors[test],
        label[test],
        genres=[names.index(genre) for genre in folder.genres],
        seed=seed,
        ids=split.test,
    )


def _verdict(ranked: Sequence[Trial], first: Trial, by: str) -> str:
    """Return a sentence on the winner, and whether it is better by more than chance."""
    best = ranked[0]
    equal = [one.candidate.name for one in ranked[1:] if one.value(by) == best.value(by)]
    sentence = f"best {by}: {best.candidate.name} ({best.value(by):.3f})"
    if equal:
        sentence += f", equal to {', '.join(equal)}"
    if best is first or first.failed:
        return sentence
    gain = metrics.compare(best.measured, first.measured, seed=first.candidate.settings.run.seed)[
        by
    ]
    doubt = "; the difference may be chance" if not gain.clear else ""
    value, low, high = (signed(figure, 3) for figure in (gain.difference, gain.low, gain.high))
    return (
        f"{sentence}, {value} [{low}, {high}] over "
        f"{first.candidate.name} on the same {gain.n} tracks (p {p_value(gain.p)}){doubt}"
    )
