"""Which recipe a run takes when none is named, and how a recipe of the package suits features."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from subgenre import config
from subgenre.config import DEFAULT_BACKBONE, TrainConfig
from subgenre.core import hardware, validation
from subgenre.dataset import folder
from subgenre.errors import FeatureError
from subgenre.models.backbones import MUSICNN
from subgenre.training import compatibility


@dataclass(frozen=True)
class Choice:
    """A recipe by name, the backbone that the features are made for, and a sentence that says why.

    Attributes:
        backbone: None where it is the recipe's own.
        why: "" where there is nothing to say.
    """

    recipe: str
    backbone: str | None
    why: str


def choose(
    features: Path,
    *,
    device: str | None = None,
    backbone: str | None = None,
    recipe: str | None = None,
    tune: str | None = None,
) -> Choice:
    """Choose `gpu` for an AST on CUDA, or where more than the head learns; `laptop` otherwise.

    Args:
        features: the feature folder; its front end tells which backbone it is made for.
        device, backbone, tune: as on the command line.
        recipe: as on the command line: nothing but the backbone is left to choose.

    Raises:
        FeatureError: no feature folder.
        TrainingError: the device can't be had.
    """
    small = _described(features)["spec"]["front_end"] == MUSICNN
    name, why = (recipe, "") if recipe else _recipe(small, device, tune)
    own, wanted = MUSICNN if small else DEFAULT_BACKBONE, None
    if backbone is None and names_no_backbone(name):
        recipes = config.load_recipe(name).model.backbone
        wanted = own if (recipes == MUSICNN) != small else None
    told = [f"recipe {name}: {why}"] if why else []
    if wanted:
        told.append(f"backbone {wanted}, for which the features are made")
    others = " (--recipe and --backbone choose others)" if told else ""
    return Choice(name, wanted, "; ".join(told) + others)


def suit(
    settings: TrainConfig, asked: Collection[str], features: Path, *, planned: int = 0
) -> tuple[TrainConfig, list[str]]:
    """Lay to rest what a recipe of the package sets but can't act here, and say so.

    What a person asked for is left as it is, and so is a recipe of one's own: there, an option that
    can't act is an error when the training starts.

    Args:
        asked: `section.key` of each option that was given by hand.
        planned: epochs of the head alone as the recipe has them.

    Returns:
        the settings, and sentences that tell what changed.

    Raises:
        ConfigError: an option asked for that the loss or the batches do not read.
    """
    compatibility.refuse_unread(settings, asked)
    if settings.recipe not in config.recipe_names():
        return settings, _shortened(settings, planned, asked)
    told: list[str] = []
    settings, names = compatibility.at_rest(settings, asked, **of_features(features))
    if names:
        told.append(
            f"left out of recipe {settings.recipe}, as they can't act with tune "
            f"{settings.model.tune} on {settings.model.backbone}: {', '.join(names)}"
        )
    return settings, told + _shortened(settings, planned, {*asked, *names})


def of_features(features: Path) -> dict[str, bool]:
    """Tell what `idle.asleep` asks of features: are they a transformer's.

    Raises:
        FeatureError: no feature folder.
    """
    found = _described(features)
    return {"transformer": found["spec"]["front_end"] != MUSICNN}


def _shortened(settings: TrainConfig, planned: int, known: Collection[str]) -> list[str]:
    """Tell that the head learns alone for less than planned, where nobody knows it yet."""
    first = settings.optim.head_epochs
    if first >= planned or "optim.head_epochs" in known:
        return []
    return [
        f"the head alone learns first for {first} epochs instead of {planned}, as there are "
        f"{settings.optim.epochs} in all (--set optim.head_epochs=N)"
    ]


def _recipe(small: bool, device: str | None, tune: str | None) -> tuple[str, str]:
    """Name the recipe for these features, this device and how much is to learn, and say why."""
    cuda = hardware.pick_device(device or "auto").type == "cuda"
    if tune not in (None, "head"):
        return "gpu", f"it is made for more than the head (tune {tune})"
    if not cuda:
        return "laptop", "there is no GPU"
    if small:
        return "laptop", "the features are made for the built-in backbone, which needs no GPU"
    return "gpu", "there is a GPU"


def beside(first: TrainConfig, settings: TrainConfig, recipe: str) -> TrainConfig:
    """Give a recipe that names no backbone the first one's, if both are transformers."""
    if MUSICNN in (first.model.backbone, settings.model.backbone) or not names_no_backbone(recipe):
        return settings
    return config.replace(settings, "model", backbone=first.model.backbone)


def names_no_backbone(recipe: str) -> bool:
    """Tell whether a recipe leaves the backbone open, as those of the package do."""
    if recipe in config.recipe_names():
        return True
    return "backbone" not in validation.load_toml(Path(recipe)).get("model", {})


def _described(features: Path) -> dict[str, Any]:
    """Read what a feature folder says of itself."""
    if not features.is_dir():
        raise FeatureError(
            f"there are no features in {features}; run `subgenre preprocess ROOT` first, or name "
            "their folder with --features"
        )
    return folder.read_dataset(features)
