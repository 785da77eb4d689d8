"""The candidates of `tune`: each recipe as it is, then with all values of the varied options."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from subgenre import config
from subgenre.config import TrainConfig
from subgenre.core.progress import Console, Silent
from subgenre.errors import ConfigError
from subgenre.training import compatibility, recipes

LOSSES = ("multi_similarity", "supcon", "triplet")  # varied by default
RATES = (1.0, 1 / 3, 3.0)  # times the recipe's learning rate, varied by default
SPLIT = ("run.seed", "run.test_share", "run.strict_groups")  # options that draw the test tracks


@dataclass(frozen=True)
class Candidate:
    """A recipe with some options changed.

    `failed` gives the reason if it can't be trained; the settings are those of the recipe then.
    """

    name: str
    settings: TrainConfig
    failed: str = ""


def candidates(
    features: Path,
    names: Sequence[str | None],
    vary: Mapping[str, Sequence[Any]],
    *,
    given: Mapping[str, Any],
    trials: int,
    console: Console,
) -> list[Candidate]:
    """Return the recipes as they are, then changed ones: at most `trials`, then those that failed.

    All have the test tracks of the first. A varied option is left out where the loss or the batches
    do not read it, and of candidates with equal settings the first is kept. If there are too many
    changed ones, some are drawn with the seed of the first recipe.

    Args:
        names: recipes, by name or file; None: the one that `train` takes for these features.
        vary: `section.key` -> values; empty: a few losses and learning rates.
        given: `section.key` -> value, from the user, for all recipes.

    Raises:
        ConfigError: a recipe or an option that can't be used, or more recipes than trials.
    """
    if trials < 1:
        raise ConfigError(f"trials is {trials}; give 1 or more")
    for option in SPLIT:
        if option in vary:
            raise ConfigError(
                f"--vary {option} would try another split each time, and no search may choose its "
                f"test tracks; give one to all with --set {option}=VALUE"
            )
    console = _Once(console)
    bases = _bases(features, names, given, console)
    first = bases[0].settings
    options = {**given, **{option: config.value(first, option) for option in SPLIT}}
    known = {_key(base.settings): base for base in bases}
    if len(known) > trials:
        raise ConfigError(
            f"trials is {trials}, but there are {len(known)} recipes; give --trials {len(known)} "
            "or more, or fewer --recipes"
        )
    failed: list[Candidate] = []
    used: set[str] = set()
    for base, recipe in zip(bases, names, strict=True):
        recipe = recipe or base.settings.recipe
        backbone = {"model.backbone": base.settings.model.backbone}
        varied = vary
        if not varied:
            rates = [float(f"{base.settings.optim.lr * factor:.2g}") for factor in RATES]
            drawn = base.settings.batch.kind == "triplet"  # drawn triplets have one loss
            varied = {"optim.lr": rates} if drawn else {"loss.name": LOSSES, "optim.lr": rates}
        for values in itertools.product(*varied.values()):
            change = dict(zip(varied, values, strict=True))
            unread = _unread(recipe, {**options, **change})
            change = {option: value for option, value in change.items() if option not in unread}
            used |= change.keys()
            name = f"{base.name}: {', '.join(f'{k}={_text(v)}' for k, v in change.items())}"
            try:
                settings = recipes.settings_for(
                    features, {**backbone, **options, **change}, recipe=recipe, console=console
                )
            except ConfigError as problem:
                failed.append(Candidate(name, base.settings, str(problem)))
            else:
                known.setdefault(_key(settings), Candidate(name, settings))
    for option in vary.keys() - used:
        reason = _unread(names[0] or first.recipe, options)[option]
        raise ConfigError(f"--vary {option} has no effect: {reason}")
    changed = [one for one in known.values() if one not in bases]
    if failed and not changed:
        raise ConfigError(f"--vary: {failed[0].failed}")
    room = trials - (len(known) - len(changed))
    if len(changed) > room:
        console.info(f"{room} of {len(changed)} changes are tried, drawn at random (--trials)")
        rng = np.random.default_rng([first.run.seed, len(changed)])
        changed = [changed[i] for i in sorted(rng.permutation(len(changed))[:room].tolist())]
    return [*(one for one in known.values() if one in bases), *changed, *failed]


def _bases(
    features: Path, names: Sequence[str | None], given: Mapping[str, Any], console: Console
) -> list[Candidate]:
    """Return the recipes as they are, on the split of the first.

    Recipes that name no backbone take that of the first.
    """
    bases: list[Candidate] = []
    for name in names:
        options = dict(given)
        if bases and name is not None and recipes.names_no_backbone(name):
            options.setdefault("model.backbone", bases[0].settings.model.backbone)
        try:
            settings = recipes.settings_for(features, options, recipe=name, console=console)
        except ConfigError as problem:
            raise ConfigError(f"recipe {name}: {problem}" if name else str(problem)) from problem
        first = bases[0].settings if bases else settings
        differing = [o for o in SPLIT if config.value(settings, o) != config.value(first, o)]
        if differing:
            values = ", ".join(f"{o} {_text(config.value(first, o))}" for o in differing)
            console.warn(
                f"recipe {name} takes {values} from the first recipe: all are judged on one split "
                "(--set gives another to all)"
            )
            settings = config.override(settings, {o: config.value(first, o) for o in SPLIT})
        bases.append(Candidate(name or settings.recipe, settings))
    return bases


def _unread(recipe: str, options: Mapping[str, Any]) -> dict[str, str]:
    return compatibility.unread(config.override(config.load_recipe(recipe), options))


def _key(settings: TrainConfig) -> TrainConfig:
    """Return what two equal candidates share: all but the name of the recipe."""
    return dataclasses.replace(settings, recipe="")


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


class _Once(Silent):
    """Shows each message once: candidates of one recipe share most messages."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.shown: set[str] = set()

    def info(self, text: str) -> None:
        """Show a message that is new."""
        if text not in self.shown:
            self.shown.add(text)
            self.console.info(text)

    def warn(self, text: str) -> None:
        """Show a warning."""
        self.console.warn(text)
