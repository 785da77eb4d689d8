"""The backbones by name: `KINDS` names the module of each.

To add a backbone, write a module with the four functions `feature_spec`, `is_available`, `load` and
`build`, and give it a line of `KINDS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from subgenre.audio.features import FeatureSpec
from subgenre.errors import BackboneError
from subgenre.models.backbones.base import Backbone


@dataclass(frozen=True)
class BackboneKind:
    """A kind of backbone and its module.

    Attributes:
        source: module with these functions; heavy libraries are imported inside them:
            `feature_spec(name) -> FeatureSpec`, without loading weights;
            `is_available(name) -> bool`: the weights can be loaded without a network;
            `load(name) -> Backbone`, pretrained;
            `build(config) -> Backbone`: the structure of a `Backbone.config_dict()`.
        front_end: of its features. transformer: as of `Backbone`.
        name: the one name of a built-in backbone; "": hub names and folders.
    """

    source: str
    front_end: str
    transformer: bool
    name: str = ""


KINDS: dict[str, BackboneKind] = {
    "ast": BackboneKind("subgenre.models.backbones.ast", "ast", transformer=True),
    "musicnn": BackboneKind(
        "subgenre.models.backbones.musicnn", "musicnn", transformer=False, name="musicnn"
    ),
}


def feature_spec(backbone: str) -> FeatureSpec:
    """Return the front end of a backbone without loading its weights.

    Raises:
        BackboneError: the name is unknown, or its configuration is not available.
    """
    spec: FeatureSpec = _module_of(backbone).feature_spec(backbone)
    return spec


def is_available(backbone: str) -> bool:
    """Check whether the weights of a backbone can be loaded without a network."""
    return bool(_module_of(backbone).is_available(backbone))


def load(backbone: str) -> Backbone:
    """Load a pretrained backbone: a hub name, a folder, or a built-in name.

    Raises:
        BackboneError: it is not available, or weights are missing; the message says what to do.
    """
    import torch

    with torch.random.fork_rng(devices=[]):  # modules draw weights that are then replaced
        loaded: Backbone = _module_of(backbone).load(backbone)
        return loaded


def build(kind: str, config: dict[str, Any]) -> Backbone:
    """Make the structure of a backbone from its `config_dict`; the weights are filled in later.

    Raises:
        BackboneError: an unknown kind, or a configuration that makes no network.
    """
    if kind not in KINDS:
        raise BackboneError(f"no backbone of kind '{kind}'; known: {', '.join(KINDS)}")
    built: Backbone = import_module(KINDS[kind].source).build(config)
    return built


def kind_of_features(front_end: str) -> BackboneKind:
    """Return the kind of backbone that features of a front end are made for.

    Raises:
        BackboneError: no backbone has this front end.
    """
    for kind in KINDS.values():
        if kind.front_end == front_end:
            return kind
    raise BackboneError(f"no backbone is known for features of the front end '{front_end}'")


def is_built_in(backbone: str) -> bool:
    """Check whether this is the name of a built-in backbone, not a hub name or a folder."""
    return any(kind.name == backbone for kind in KINDS.values())


def _module_of(backbone: str) -> Any:
    """Return the module of a name; hub names and folders are those of an AST."""
    by_name = {kind.name: kind.source for kind in KINDS.values() if kind.name}
    return import_module(by_name.get(backbone, KINDS["ast"].source))
