"""The settings of a run: the recipe, adapted to the features."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from subgenre import config
from subgenre.config import TrainConfig
from subgenre.core import hardware, validation
from subgenre.core.progress import Console, Silent
from subgenre.core.text import counted
from subgenre.dataset import folder
from subgenre.models import backbones
from subgenre.training import compatibility


def settings_for(
    features: Path,
    given: Mapping[str, Any],
    *,
    recipe: str | None = None,
    console: Console | None = None,
) -> TrainConfig:
    """Return a recipe with the given options, adapted to the features.

    Without a name, the recipe is `gpu` for a transformer on CUDA or where more than the head
    learns, else `laptop`. A recipe that names no backbone takes that of the features. Options of a
    packaged recipe without effect here are disabled; in the user's own recipe they are errors.

    Args:
        given: `section.key` -> value, from the user.
        recipe: a name in the package, or a TOML file.
        console: receives what was chosen and disabled.

    Raises:
        FeatureError, ConfigError, TrainingError: no features, bad options, no such device.
    """
    console, options = console or Silent(), dict(given)
    dataset = folder.read_dataset(features)
    if recipe is None or names_no_backbone(recipe):
        options.setdefault("model.backbone", folder.backbone_of(dataset))
    else:
        options.setdefault("model.backbone", config.load_recipe(recipe).model.backbone)
    backbone = options["model.backbone"]
    traits, choices = backbones.traits(backbone), []
    if recipe is None:
        recipe, reason = _choose_recipe(not traits.transformer, given)
        choices.append(f"recipe {recipe}: {reason}")
    planned = config.load_recipe(recipe)
    if "model.backbone" not in given and backbone != planned.model.backbone:
        choices.append(f"backbone {backbone}, which the features are made for")
    if choices:
        console.info(f"{'; '.join(choices)} (--recipe and --backbone choose others)")
    settings = config.override(planned, options)
    if recipe in config.recipe_names():
        settings, disabled = compatibility.disable_unused(settings, traits=traits, given=given)
        if disabled:
            console.info(
                f"disabled in recipe {recipe}, without effect with tune {settings.model.tune} on "
                f"{settings.model.backbone}: {', '.join(disabled)}"
            )
    compatibility.check_settings(settings, traits=traits, given=given)
    shortened = settings.optim.head_epochs < planned.optim.head_epochs
    if shortened and "optim.head_epochs" not in given and settings.model.tune != "head":
        console.info(
            f"the head alone learns for {counted(settings.optim.head_epochs, 'epoch')} first "
            f"instead of {planned.optim.head_epochs}, as there are {settings.optim.epochs} in all "
            "(--set optim.head_epochs=N)"
        )
    return settings


def names_no_backbone(recipe: str) -> bool:
    """Return whether a recipe leaves the backbone open, as those of the package do."""
    if recipe in config.recipe_names():
        return True
    return "backbone" not in validation.load_toml(Path(recipe)).get("model", {})


def _choose_recipe(small: bool, given: Mapping[str, Any]) -> tuple[str, str]:
    """Return a recipe for the features, the device and `tune`, and the reason."""
    tune = given.get("model.tune", "head")
    cuda = hardware.pick_device(given.get("run.device", "auto")).type == "cuda"
    if tune != "head":
        return "gpu", f"it is made for more than the head (tune {tune})"
    if not cuda:
        return "laptop", "there is no GPU"
    if small:
        return "laptop", "the features are made for the built-in backbone, which needs no GPU"
    return "gpu", "there is a GPU"
