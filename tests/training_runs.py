"""A small training for tests: the built-in backbone frozen, three epochs of a small head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from subgenre import config
from subgenre.config import TrainConfig
from subgenre.dataset.folder import FeatureFolder
from subgenre.training import fit


def recipe(**sections: dict[str, Any]) -> TrainConfig:
    """A small head on the frozen built-in backbone."""
    base = config.load_recipe("thesis")
    base = config.replace(base, "model", backbone="musicnn", tune="head", head=(32,))
    base = config.replace(base, "optim", epochs=3, lr=1e-3)
    for section, values in sections.items():
        base = config.replace(base, section, **values)
    return base


def ids(folder: FeatureFolder) -> tuple[str, ...]:
    return tuple(track.id for track in folder.tracks)


def weights(fitted: fit.Fitted) -> dict[str, torch.Tensor]:
    return {k: v for k, v in fitted.encoder.state_dict().items() if not k.startswith("backbone")}


def same(a: fit.Fitted, b: fit.Fitted) -> bool:
    one, two = weights(a), weights(b)
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def same_models(one: Path, two: Path) -> bool:
    first, second = (load_file(run / "model.safetensors") for run in (one, two))
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)
