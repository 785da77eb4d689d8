"""What a search tries: each recipe as it is, then changed in every way that can act, no twins."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from subgenre import config
from subgenre.config import TrainConfig
from subgenre.core.progress import Console, Silent
from subgenre.errors import ConfigError
from subgenre.models import backbones
from subgenre.models.backbones import MUSICNN, Backbone
from subgenre.training import compatibility as idle
from subgenre.training import recipes as choice

LOSSES = ("multi_similarity", "supcon", "triplet")  # tried where nothing else is asked for
RATES = (1.0, 1 / 3, 3.0)  # times the recipe's learning rate
SPLIT = ("seed", "test_share", "strict_groups")  # of [run]: they draw the test tracks

Values = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Candidate:
    """A recipe with some options changed; `name` says which."""

    name: str
    settings: TrainConfig


@dataclass(frozen=True)
class _Made:
    """A candidate, what is to be said of it, and the options changed in it: all, and the idle."""

    candidate: Candidate
    told: Sequence[str]
    changed: Collection[str] = ()
    idle: Mapping[str, str] = field(default_factory=dict)

    def key(self) -> TrainConfig:
        """Return what makes two candidates twins: all but the recipe's name."""
        return dataclasses.replace(self.candidate.settings, recipe="")


def propose(
    bases: Sequence[TrainConfig],
    vary: Values,
    *,
    trials: int,
    seed: int = 0,
    asked: Collection[str] = (),
    features: Path | None = None,
    console: Console | None = None,
) -> list[Candidate]:
    """List what is tried: each base as it is, then changed in every way, at most `trials` in all.

    All are given the first base's split. What can't act of a change is left out of it and told; of
    twins one is kept.

    Args:
        bases: recipes, with nothing laid to rest yet.
        vary: `section.key` -> values; empty: a few losses and learning rates.
        trials: at least as many as bases; where there are more candidates, some are drawn.
        seed: of that drawing.
        asked: `section.key` of each option that was given by hand, for all.
        features: the feature folder; what a recipe of the package sets but can't act on it is laid
            to rest, as `train` does. None: all are taken to act.
        console: hears what was left out.

    Raises:
        ConfigError: an unknown option, one that draws the split or can act nowhere, a value that
            makes sense in no combination, or more bases than trials.
        FeatureError: no feature folder.
    """
    check_trials(trials)
    _refuse_split(vary)
    console, bases = console or Silent(), on_one_split(bases, console)
    found = _distinct([_as_it_is(base, asked, features) for base in bases])
    if len(found) < len(bases):
        console.info("recipes that are the same but for their name are tried once")
    if len(found) > trials:
        raise ConfigError(
            f"trials is {trials}, but {len(found)} recipes are to be tried as they are; give "
            f"--trials {len(found)} or more, or fewer --recipes"
        )
    made = _all_made(bases, vary, asked, features, console)
    _tell_idle(vary, made, console)
    made = [one for one in made if not _fails(one, features, console)]
    changed = _distinct([*found, *(one for one in made if one.changed)])[len(found) :]
    room = trials - len(found)
    if len(changed) > room:
        console.info(
            f"{room} of {len(changed)} changes are tried, drawn by chance (--trials {trials})"
        )
        drawn = np.random.default_rng([seed, len(changed)]).permutation(len(changed))[:room]
        changed = [changed[i] for i in sorted(drawn.tolist())]
    for sentence in dict.fromkeys(told for one in (*found, *changed) for told in one.told):
        console.info(sentence)
    return [one.candidate for one in (*found, *changed)]


def check_trials(trials: int) -> None:
    """Refuse a search that tries nothing.

    Raises:
        ConfigError: fewer than 1.
    """
    if trials < 1:
        raise ConfigError(f"trials is {trials}; give 1 or more")


def on_one_split(
    recipes: Sequence[TrainConfig], console: Console | None = None
) -> list[TrainConfig]:
    """Give all recipes the split of the first, and tell which said otherwise.

    A winner with a split of its own would be tested on tracks that the search has seen.
    """
    same = {key: getattr(recipe.run, key) for recipe in recipes[:1] for key in SPLIT}
    aligned = []
    for recipe in recipes:
        own = {key: getattr(recipe.run, key) for key in SPLIT}
        other = [f"run.{key} {_plain(same[key])}" for key in SPLIT if own[key] != same[key]]
        if other and console:
            console.warn(
                f"recipe {recipe.recipe} takes {', '.join(other)} from the first recipe: all are "
                "judged on one split (--set gives another to all)"
            )
        aligned.append(config.replace(recipe, "run", **same))
    return aligned


def _refuse_split(vary: Values) -> None:
    """Refuse to search over test tracks."""
    for key in SPLIT:
        if f"run.{key}" in vary:
            raise ConfigError(
                f"--vary run.{key} would try another split each time, and no search may choose its "
                f"test tracks; give one to all with --set run.{key}=VALUE"
            )


def _changes(vary: Values) -> list[dict[str, Any]]:
    """List all combinations of values."""
    return [dict(zip(vary, values, strict=True)) for values in itertools.product(*vary.values())]


def _all_made(
    bases: Sequence[TrainConfig],
    vary: Values,
    asked: Collection[str],
    features: Path | None,
    console: Console,
) -> list[_Made]:
    """Change each base in every way; what makes no sense together is left out and told.

    Raises:
        ConfigError: a value that makes sense in no combination.
    """
    made, sense, refused = [], [], []
    for base in bases:
        for change in _changes(vary or _usual(base)):
            try:
                made.append(_made(base, change, asked, features))
                sense.append(change)
            except ConfigError as problem:
                refused.append((base, change, problem))
    for base, change, why in refused:
        for name, value in change.items():
            if not any(name in other and other[name] == value for other in sense):
                raise why
        console.info(f"{base.recipe}: {_words(change)} is left out: {why}")
    return made


def _as_it_is(base: TrainConfig, asked: Collection[str], features: Path | None) -> _Made:
    try:
        settings, told = _suited(base, asked, features, base)
    except ConfigError as problem:
        raise ConfigError(f"recipe {base.recipe}: {problem}") from problem
    return _Made(Candidate(base.recipe, settings), told)


def _made(
    base: TrainConfig, change: Mapping[str, Any], asked: Collection[str], features: Path | None
) -> _Made:
    """Change a base; an option that can't act is left out of the change, so that twins show."""
    acting, first = dict(change), _head_epochs(base, change, asked)
    resting: dict[str, Any] = {}
    why: dict[str, str] = {}
    while True:
        settings = config.override(
            base, {**first, **acting, **resting}, fixed=asked, where="--vary"
        )
        unread = idle.unread(settings)
        wanted = {*asked, *change} - unread.keys()  # what waits for another loss is no error here
        settings, told = _suited(settings, wanted, features, base)
        asleep = _asleep(settings, features)
        reasons = {**unread, **{name: option.why for name, option in asleep.items()}}
        still = [name for name in acting if name in reasons]
        if not still:
            break
        for name in still:
            del acting[name]
            why[name] = reasons[name]
            if name in asleep:
                resting[name] = asleep[name].rest
    name = f"{base.recipe}: {_words(acting)}"
    return _Made(Candidate(name, settings), told, tuple(acting), why)


def _fails(one: _Made, features: Path | None, console: Console) -> bool:
    """Tell whether a candidate can't be trained, and say so: it takes no trial from another.

    What only a backbone from elsewhere could tell shows when it is loaded.
    """
    problem = _problem(one.candidate.settings, features)
    if problem:
        console.info(f"{one.candidate.name} is left out: {problem}")
    return bool(problem)


def _problem(settings: TrainConfig, features: Path | None) -> str:
    """Tell what would keep the training from its start, as far as it is known; "" for nothing."""
    if features is None:
        return idle.conflict(settings)
    found = choice.of_features(features)
    if settings.model.backbone != MUSICNN:
        return idle.barred(settings, **found)
    try:
        idle.refuse_idle(settings, _built_in())
    except ConfigError as problem:
        return str(problem)
    return ""


@functools.cache
def _built_in() -> Backbone:
    return backbones.load(MUSICNN)


def _suited(
    settings: TrainConfig, asked: Collection[str], features: Path | None, base: TrainConfig
) -> tuple[TrainConfig, list[str]]:
    """Lay to rest what `train` would, and say what."""
    if features is None:
        return settings, []
    return choice.suit(settings, asked, features, planned=_planned(base))


def _planned(base: TrainConfig) -> int:
    """Return for how many epochs the head learns alone, as the recipe has them."""
    if base.recipe in config.recipe_names():
        base = config.load_recipe(base.recipe)
    return base.optim.head_epochs


def _head_epochs(
    base: TrainConfig, change: Mapping[str, Any], asked: Collection[str]
) -> dict[str, int]:
    """Count the head's epochs anew, from a packaged recipe's, where `--epochs` is varied again.

    Fewer epochs that were given by hand have shortened the base's own already.
    """
    epochs = change.get("optim.epochs")
    if not isinstance(epochs, int) or "optim.head_epochs" in {*change, *asked}:
        return {}
    if "optim.epochs" not in asked:
        return {}
    return {"optim.head_epochs": min(_planned(base), max(0, epochs - 1))}


def _asleep(settings: TrainConfig, features: Path | None) -> dict[str, idle.Option]:
    """Tell which options are set, though nothing would read them on these features."""
    if features is None:
        return {}
    options = idle.asleep(settings, **choice.of_features(features))
    return {option.name: option for option in options}


def _distinct(made: Sequence[_Made]) -> list[_Made]:
    """Keep the first of twins."""
    found: dict[TrainConfig, _Made] = {}
    for one in made:
        found.setdefault(one.key(), one)
    return list(found.values())


def _tell_idle(vary: Values, made: Sequence[_Made], console: Console) -> None:
    """Say what was left out of some changes, and refuse an option that can act in none."""
    for name in vary:
        reasons = dict.fromkeys(one.idle[name] for one in made if name in one.idle)
        if reasons and not any(name in one.changed for one in made):
            raise ConfigError(f"--vary {name} can't act: {'; '.join(reasons)}")
        for why in reasons:
            console.info(f"--vary {name} is left out where it can't act: {why}")


def _usual(base: TrainConfig) -> Values:
    """Return what is varied where nothing is asked for; drawn triplets know one loss."""
    rates = [float(f"{base.optim.lr * factor:.2g}") for factor in RATES]
    if base.batch.kind == "triplet":
        return {"optim.lr": rates}
    return {"loss.name": LOSSES, "optim.lr": rates}


def _words(change: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={_plain(value)}" for name, value in change.items())


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
