"""The backbones by kind: `KINDS` names the module of each.

To add a backbone, write a module with the four functions `feature_spec`, `is_available`, `load` and
`build`, and give it a line of `KINDS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from subgenre.audio.features import FeatureSpec
from subgenre.config import DEFAULT_BACKBONE
from subgenre.errors import BackboneError
from subgenre.models.backbones import hub, hub_encoders
from subgenre.models.backbones.base import Backbone


@dataclass(frozen=True)
class BackboneKind:
    """A kind of backbone and its module.

    Attributes:
        source: module with these functions; heavy libraries are imported inside them:
            `feature_spec(name) -> FeatureSpec`, without loading weights;
            `is_available(name) -> bool`: the weights can be loaded without a network (of a built-in
            backbone alone; the hub's are looked up in its cache);
            `load(name) -> Backbone`, pretrained;
            `build(config) -> Backbone`: the structure of a `Backbone.config_dict()`.
        transformer: as of `Backbone`.
        name: the one name of a built-in backbone; "": hub names and folders.
    """

    source: str
    transformer: bool
    name: str = ""


_ROOM = "subgenre.models.backbones"
KINDS: dict[str, BackboneKind] = {
    "ast": BackboneKind(f"{_ROOM}.ast", transformer=True),
    "maest": BackboneKind(f"{_ROOM}.maest", transformer=True),
    "musicnn": BackboneKind(f"{_ROOM}.musicnn", transformer=False, name="musicnn"),
    **{
        kind: BackboneKind(hub_encoders.__name__, transformer=one.wrapper.transformer)
        for kind, one in hub_encoders.ARCHITECTURES.items()
    },
}
# of a `config.json`, where it is not the kind
_MODEL_TYPES = {"audio-spectrogram-transformer": "ast", **hub_encoders.MODEL_TYPES}
_EXTRACTORS = {"MAESTFeatureExtractor": "maest"}  # of networks that share a model type


def feature_spec(backbone: str) -> FeatureSpec:
    """Return the front end of a backbone without loading its weights.

    Raises:
        BackboneError: the name is unknown, or its configuration is not available.
    """
    spec: FeatureSpec = _module(kind_of(backbone)).feature_spec(backbone)
    return spec


def is_available(backbone: str) -> bool:
    """Check whether the weights of a backbone can be loaded without a network."""
    if is_built_in(backbone):
        return bool(_module(kind_of(backbone)).is_available(backbone))
    return hub.is_cached(backbone)


def load(backbone: str) -> Backbone:
    """Load a pretrained backbone: a hub name, a folder, or a built-in name.

    Raises:
        BackboneError: it is not available, or weights are missing; the message says what to do.
    """
    import torch

    with torch.random.fork_rng(devices=[]):  # modules draw weights that are then replaced
        loaded: Backbone = _module(kind_of(backbone)).load(backbone)
        return loaded


def build(kind: str, config: dict[str, Any]) -> Backbone:
    """Make the structure of a backbone from its `config_dict`; the weights are filled in later.

    Raises:
        BackboneError: an unknown kind, or a configuration that makes no network.
    """
    if kind not in KINDS:
        raise BackboneError(f"no backbone of kind '{kind}'; known: {', '.join(KINDS)}")
    built: Backbone = _module(kind).build(config)
    return built


def is_built_in(backbone: str) -> bool:
    """Check whether this is the name of a built-in backbone, not a hub name or a folder."""
    return any(kind.name == backbone for kind in KINDS.values())


def kind_of(backbone: str) -> str:
    """Return the kind of a backbone; of a hub name or a folder, from its `config.json`.

    Raises:
        BackboneError: it is not available, or of no known kind.
    """
    for kind, entry in KINDS.items():
        if entry.name == backbone:
            return kind
    if backbone == DEFAULT_BACKBONE:
        return "ast"  # known without a file
    model_type = hub.read_config(backbone).get("model_type")
    kind = _MODEL_TYPES.get(str(model_type), str(model_type))
    if kind not in KINDS or KINDS[kind].name:
        types = sorted({*_MODEL_TYPES, *(k for k, entry in KINDS.items() if not entry.name)})
        raise BackboneError(
            f"{backbone} is of type {model_type!r}; known: {', '.join(types)}; {hub.WAYS_ON}"
        )
    extractor = hub.read_extractor(backbone).get("feature_extractor_type")
    return _EXTRACTORS.get(str(extractor), kind)


def is_transformer(backbone: str) -> bool:
    """Check whether a backbone is a transformer, without loading its weights.

    Raises:
        BackboneError: as of `kind_of`.
    """
    return KINDS[kind_of(backbone)].transformer


def _module(kind: str) -> Any:
    return import_module(KINDS[kind].source)
