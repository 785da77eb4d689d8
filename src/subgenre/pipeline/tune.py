"""A small search over recipes, on folds inside the training side: no test track is ever touched."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from subgenre import checkpoint, checks, metrics, splits
from subgenre.config import RunConfig, TrainConfig
from subgenre.errors import ConfigError, TrainingError
from subgenre.library import Track
from subgenre.metrics import Measured, Score
from subgenre.pipeline import folds as trainings
from subgenre.splits import Split
from subgenre.store import FeatureFolder
from subgenre.talk import Silent, Talk

OUT, KEPT = Path("tuned.toml"), Path("tuning")
SHOWN = ("centroid_accuracy", "precision_at_1", "map_at_r")
LOSSES = ("multi_similarity", "supcon", "triplet")  # tried where nothing else is asked for
RATES = (1.0, 1 / 3, 3.0)  # times the recipe's learning rate

Values = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Candidate:
    """A recipe with some options changed; `name` says which."""

    name: str
    settings: TrainConfig


@dataclass(frozen=True)
class Tried:
    """What became of a candidate.

    Attributes:
        scores: by metric, over all folds; empty where training failed.
        seconds: of training, mean of a fold.
        failed: why, for a person.
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
        return ["recipe", *SHOWN, "seconds"], [_row(one) for one in self.tried]

    def to_dict(self) -> dict[str, Any]:
        """Give plain values for JSON."""
        rows = [
            {
                "name": one.candidate.name,
                "settings": checks.to_dict(one.candidate.settings),
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


def candidates(
    bases: Sequence[TrainConfig], vary: Values, *, trials: int, seed: int = 0
) -> list[Candidate]:
    """List what is tried: each base as it is, then changed in every way, at most `trials` in all.

    Args:
        bases: recipes.
        vary: `section.key` -> values; empty: a few losses and learning rates.
        trials: 1 or more; where there are more candidates, some are drawn.
        seed: of that drawing.

    Raises:
        ConfigError: an unknown option, or a value that makes no sense.
    """
    check_trials(trials)
    found = [Candidate(base.recipe, base) for base in bases]
    changed: list[Candidate] = []
    for base in bases:
        options = dict(vary) if vary else _usual(base)
        for values in itertools.product(*options.values()):
            change = dict(zip(options, values, strict=True))
            settings = base
            for name, value in change.items():
                settings = _with(settings, name, value)
            if settings not in [one.settings for one in (*found, *changed)]:
                told = ", ".join(f"{name}={_short(value)}" for name, value in change.items())
                changed.append(Candidate(f"{base.recipe}: {told}", settings))
    room = max(0, trials - len(found))
    if len(changed) > room:
        drawn = np.random.default_rng([seed, len(changed)]).permutation(len(changed))[:room]
        changed = [changed[i] for i in sorted(drawn.tolist())]
    return found + changed


def check_trials(trials: int) -> None:
    """Refuse a search that tries nothing.

    Raises:
        ConfigError: fewer than 1.
    """
    if trials < 1:
        raise ConfigError(f"trials is {trials}; give 1 or more")


def check_places(out: Path, kept: Path) -> None:
    """Refuse, before any training, what can't be written after it.

    Raises:
        ConfigError: naming the option.
    """
    checks.check_output("out", out)
    checks.check_output("kept", kept, folder=True)


def tune(
    features: Path,
    tried: Sequence[Candidate],
    *,
    folds: int = 3,
    by: str = "map_at_r",
    out: Path = OUT,
    kept: Path = KEPT,
    workers: int | None = None,
    talk: Talk | None = None,
) -> Tuned:
    """Train each candidate once a fold of the training side, and write the best as a recipe.

    The split is the one that `train` draws from the first candidate's seed; its test tracks are
    left out before the folds are cut. What was trained before with the same settings, data and
    folds is read from `kept`.

    Args:
        features: the feature folder.
        tried: candidates.
        folds: each training track is validated on once.
        by: metric that decides.
        out: the winner's TOML.
        kept: folder of what was trained.
        workers: trainings side by side; by default as many as pay.
        talk: hears how it goes.

    Raises:
        ConfigError: no candidate, an unknown metric, or an output that can't be written.
        TrainingError: every candidate failed.
        FeatureError, SplitError, BackboneError.
    """
    talk = talk or Silent()
    checks.check_choice("by", by, metrics.METRICS)
    check_places(out, kept)
    if not tried:
        raise ConfigError("there is no recipe to try; name one with --recipes")
    folder = FeatureFolder.open(features)
    tracks = _training_side(folder, tried[0].settings.run)
    run = tried[0].settings.run
    cut = splits.folds(tracks, folds, seed=run.seed, strict_groups=run.strict_groups)
    for warning in cut[0].warnings:
        talk.warn(warning)
    found = []
    for number, one in enumerate(tried, 1):
        talk.say(f"{number} of {len(tried)}: {one.name}")
        found.append(_try(one, folder, cut, kept, workers, talk))
    ranked = sorted(found, key=lambda one: -_value(one, by))
    if ranked[0].failed:
        raise TrainingError(f"every candidate failed; the first: {ranked[0].failed}")
    checks.save_toml(out, dataclasses.replace(ranked[0].candidate.settings, recipe=Path(out).stem))
    talk.say(_verdict(ranked, found[0], by))
    talk.say(f"recipe: {out} (subgenre train --recipe {out})")
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
    talk: Talk,
) -> Tried:
    """Train and score one candidate on all folds; a collapse counts against it, no more."""
    name = checkpoint.digest(checks.to_dict(one.settings))[:12]
    jobs = [
        trainings.job(
            f"fold {i} of {len(cut)}", folder, one.settings, split, kept / f"{name}_{i}.npz"
        )
        for i, split in enumerate(cut, 1)
    ]
    try:
        results = trainings.train_all(jobs, workers=workers, talk=_Quiet(talk))
    except TrainingError as problem:
        talk.warn(f"{one.name}: {problem}")
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


def _usual(base: TrainConfig) -> Values:
    """Return what is varied where nothing is asked for; drawn triplets know one loss."""
    rates = [float(f"{base.optim.lr * factor:.2g}") for factor in RATES]
    if base.batch.kind == "triplet":
        return {"optim.lr": rates}
    return {"loss.name": LOSSES, "optim.lr": rates}


def _with(settings: TrainConfig, name: str, value: Any) -> TrainConfig:
    """Replace one option, with the checks of a recipe file."""
    section, _, key = name.partition(".")
    plain = checks.to_dict(settings)
    if not isinstance(plain.get(section), dict):
        raise ConfigError(f"--vary {name}: write it as section.key=value,value")
    plain[section] = {**plain[section], key: value}
    return checks.from_dict(TrainConfig, plain, "--vary")


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


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


class _Quiet(Silent):
    """Passes on warnings alone: a line a fold would bury the table."""

    def __init__(self, talk: Talk) -> None:
        self.talk = talk

    def warn(self, text: str) -> None:
        """Pass it on."""
        self.talk.warn(text)
