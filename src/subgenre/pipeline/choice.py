"""Which recipe a run takes when none is named, and why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from subgenre import files, precision, store
from subgenre.backbones import MUSICNN
from subgenre.config import DEFAULT_BACKBONE, load_recipe
from subgenre.errors import FeatureError


@dataclass(frozen=True)
class Choice:
    """A recipe by name, the backbone that the features are made for, and a sentence that says why.

    Attributes:
        backbone: None where it is the recipe's own.
    """

    recipe: str
    backbone: str | None
    why: str


def choose(features: Path, *, device: str | None = None, backbone: str | None = None) -> Choice:
    """Choose `gpu` for an AST on CUDA and `laptop` otherwise.

    Args:
        features: the feature folder; its front end tells which backbone it is made for.
        device: as on the command line.
        backbone: as on the command line.

    Raises:
        FeatureError: no feature folder.
        TrainingError: the device can't be had.
    """
    if not features.is_dir():
        raise FeatureError(
            f"there are no features in {features}; run `subgenre preprocess ROOT` first, or name "
            "their folder with --features"
        )
    found = files.read_json(
        features / store.DATASET, version=store.FORMAT_VERSION, error=FeatureError
    )
    small = found["spec"]["front_end"] == MUSICNN
    cuda = precision.pick_device(device or "auto").type == "cuda"
    name = "gpu" if cuda and not small else "laptop"
    why = (
        "there is a GPU"
        if name == "gpu"
        else "the features are made for the built-in backbone, which needs no GPU"
        if cuda
        else "there is no GPU"
    )
    wanted = None
    if backbone is None:
        own = MUSICNN if small else DEFAULT_BACKBONE
        recipes = load_recipe(name).model.backbone
        wanted = own if (recipes == MUSICNN) != small else None
    told = f"recipe {name}: {why}"
    if wanted:
        told += f"; backbone {wanted}, for which the features are made"
    return Choice(name, wanted, f"{told} (--recipe and --backbone choose others)")
