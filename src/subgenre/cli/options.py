"""The options that commands share, and how they change a recipe."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from subgenre import config
from subgenre.cli.console import Terminal
from subgenre.config import TrainConfig
from subgenre.errors import ConfigError
from subgenre.training import overrides


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """How a command talks."""

    json: bool = False
    "Print the result as one JSON object on standard output."
    quiet: bool = False
    "Say nothing but warnings and errors."


@Parameter(name="*")
@dataclass(frozen=True)
class Recipe:
    """What to train, and how; what is not given is the recipe's."""

    recipe: str | None = None
    "Name of a recipe in the package, or a TOML file; by default gpu on CUDA or beyond the head."
    backbone: str | None = None
    "A hub name, a folder saved by the hub's library, or musicnn (built in)."
    tune: str | None = None
    "How much of the backbone learns: head, last:N, lora or full."
    loss: str | None = None
    "The loss, e.g. triplet, quadruplet, supcon, multi_similarity."
    epochs: int | None = None
    "Passes over the training chunks."
    lr: float | None = None
    "Learning rate."
    margin: float | None = None
    "Triplet margin on cosine distance."
    batch_size: int | None = None
    "Triplets a step (batches of drawn triplets)."
    device: str | None = None
    "auto, cpu, cuda or mps."
    seed: int | None = None
    "Of the split, the first weights, the batches: everything."
    strict_groups: bool = False
    "Refuse a split that can't keep artists and albums together."
    set: Annotated[tuple[str, ...], Parameter(name="--set")] = ()
    "Any option of the recipe, as section.key=value; may be given again."

    def suited(self, features: Path, terminal: Terminal) -> TrainConfig:
        """Read the recipe, and lay to rest what can't act on these features and nobody asked for.

        Raises:
            ConfigError: an unknown recipe, option or value, or one that can't act.
            FeatureError: no feature folder to choose by.
        """
        from subgenre.training import recipes

        settings = self.read(features, terminal)
        planned = config.load_recipe(self.recipe or settings.recipe).optim.head_epochs
        settings, told = recipes.suit(settings, self.given(), features, planned=planned)
        for sentence in told:
            terminal.info(sentence)
        return settings

    def read(self, features: Path, terminal: Terminal) -> TrainConfig:
        """Read the recipe; where none is named, the one for this device and these features.

        Raises:
            ConfigError: an unknown recipe, option or value.
            FeatureError: no feature folder to choose by.
        """
        from subgenre.training import recipes

        given = self.given()
        if self.recipe is not None:
            self.settings(self.recipe)  # its errors come before those of the features
        chosen = recipes.choose(
            features,
            device=given.get("run.device"),
            backbone=given.get("model.backbone"),
            recipe=self.recipe,
            tune=given.get("model.tune"),
        )
        if chosen.why:
            terminal.info(chosen.why)
        own = dataclasses.replace(self, backbone=chosen.backbone or self.backbone)
        return own.settings(chosen.recipe)

    def given(self) -> dict[str, Any]:
        """Return what was given by hand, by section.key; of a --set given twice the last counts.

        Raises:
            ConfigError: a --set that is not section.key=value, or says another thing than a flag.
        """
        flags = {
            "model.backbone": self.backbone,
            "model.tune": self.tune,
            "loss.name": self.loss,
            "optim.epochs": self.epochs,
            "optim.lr": self.lr,
            "loss.margin": self.margin,
            "batch.size": self.batch_size,
            "run.device": self.device,
            "run.seed": self.seed,
            "run.strict_groups": self.strict_groups or None,
        }
        found = {name: value for name, value in flags.items() if value is not None}
        more = dict(_assignment(words) for words in self.set)
        for name in found.keys() & more.keys():
            if found[name] != more[name]:
                raise ConfigError(
                    f"{name} is given twice, as {found[name]} and by --set as {more[name]}; "
                    "give one of the two"
                )
        return found | more

    def settings(self, default: str) -> TrainConfig:
        """Read the recipe and put the given options over it.

        Raises:
            ConfigError: an unknown recipe, option or value.
        """
        return overrides.put(config.load_recipe(self.recipe or default), self.given())


def _assignment(words: str) -> tuple[str, Any]:
    """Read 'section.key=value'; the value is TOML, or a bare word."""
    name, equals, text = words.partition("=")
    section, dot, key = name.strip().partition(".")
    if not (equals and dot and key):
        raise ConfigError(f"--set {words}: write it as section.key=value, e.g. optim.lr=1e-4")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    return f"{section}.{key}", value
