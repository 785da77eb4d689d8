"""The options that commands share, and how they change a recipe."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from subgenre import checks, config
from subgenre.cli.console import Terminal
from subgenre.config import TrainConfig
from subgenre.errors import ConfigError


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
    "Name of a recipe in the package, or a TOML file; by default gpu on CUDA, laptop otherwise."
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
        """Read the recipe; where none is named, the one for this device and these features.

        Raises:
            ConfigError: an unknown recipe, option or value.
            FeatureError: no feature folder to choose by.
        """
        from subgenre.pipeline import choice

        if self.recipe is not None:
            return self.settings(self.recipe)
        chosen = choice.choose(features, device=self.device, backbone=self.backbone)
        terminal.say(chosen.why)
        backbone = self.backbone or chosen.backbone
        return dataclasses.replace(self, backbone=backbone).settings(chosen.recipe)

    def settings(self, default: str) -> TrainConfig:
        """Read the recipe and put the given options over it.

        Raises:
            ConfigError: an unknown recipe, option or value.
        """
        settings = config.load_recipe(self.recipe or default)
        for section, key, value in (
            ("model", "backbone", self.backbone),
            ("model", "tune", self.tune),
            ("loss", "name", self.loss),
            ("optim", "epochs", self.epochs),
            ("optim", "lr", self.lr),
            ("loss", "margin", self.margin),
            ("batch", "size", self.batch_size),
            ("run", "device", self.device),
            ("run", "seed", self.seed),
            ("run", "strict_groups", self.strict_groups or None),
        ):
            if value is not None:
                settings = _put(settings, section, key, value)
        for words in self.set:
            settings = _put(settings, *_assignment(words))
        return settings


def _assignment(words: str) -> tuple[str, str, Any]:
    """Read 'section.key=value'; the value is TOML, or a bare word."""
    name, equals, text = words.partition("=")
    section, dot, key = name.strip().partition(".")
    if not (equals and dot and key):
        raise ConfigError(f"--set {words}: write it as section.key=value, e.g. optim.lr=1e-4")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    return section, key, value


def _put(settings: TrainConfig, section: str, key: str, value: Any) -> TrainConfig:
    """Replace one value, with the same checks and words as in a file."""
    plain = checks.to_dict(settings)
    sections = tuple(name for name, part in plain.items() if isinstance(part, dict))
    if section not in sections:
        near = checks.nearest(section, sections)
        raise ConfigError(f"no section '{section}'{near}; choose {checks.either(sections)}")
    if key == "epochs" and plain["optim"]["head_epochs"] > value:
        plain["optim"]["head_epochs"] = value
    plain[section] = {**plain[section], key: value}
    return checks.from_dict(TrainConfig, plain, "options")
