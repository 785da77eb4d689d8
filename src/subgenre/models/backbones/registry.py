"""The backbones by kind: `KINDS` names the module of each.

To add a backbone to the package, write a module with the four functions `feature_spec`,
`is_available`, `load` and `build`, and give it a line of `KINDS`. A backbone of another package is
an entry point, or is named by the user, `package:function`. A name that comes from a folder imports
neither: only what is installed as an entry point, or what the user named.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from subgenre.audio.features import FeatureSpec
from subgenre.config import DEFAULT_BACKBONE
from subgenre.core import plugins
from subgenre.errors import BackboneError
from subgenre.models.backbones import hub, hub_encoders, own
from subgenre.models.backbones.base import Backbone, Traits
from subgenre.models.backbones.own import Own


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
        transformer, drops_tokens: as of `Backbone`; transformer None: as its network has both.
        by_name: the kind is the one name of a backbone; else hub names and folders are of it.
    """

    source: str | Own
    transformer: bool | None
    drops_tokens: bool = False
    by_name: bool = False


_ROOM = "subgenre.models.backbones"
KINDS: dict[str, BackboneKind] = {
    "ast": BackboneKind(f"{_ROOM}.ast", transformer=True, drops_tokens=True),
    "maest": BackboneKind(f"{_ROOM}.maest", transformer=True, drops_tokens=True),
    "musicnn": BackboneKind(f"{_ROOM}.musicnn", transformer=False, by_name=True),
    **{
        kind: BackboneKind(
            hub_encoders.__name__,
            transformer=one.wrapper.transformer,
            drops_tokens=one.wrapper.drops_tokens,
        )
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
    if has_name(backbone):
        return bool(_module(backbone).is_available(backbone))
    return hub.is_cached(backbone)


def load(backbone: str) -> Backbone:
    """Load a pretrained backbone: a hub name, a folder, a built-in name or one's own.

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
    if not _is_known(kind):
        raise BackboneError(
            f"no backbone of kind '{kind}'; known: {', '.join(KINDS)}; install the package that "
            "brings it"
        )
    built: Backbone = _module(kind).build(config)
    return built


def import_factory(name: str) -> None:
    """Import `package:function`, which the user named; from now on folders may name it too.

    Raises:
        BackboneError: there is no such package, or no such function in it.
    """
    KINDS[name] = BackboneKind(own.find(name), transformer=None, by_name=True)


def imported() -> tuple[str, ...]:
    """Return the names that `import_factory` was given, for another process."""
    return tuple(name for name in KINDS if plugins.is_factory(name))


def import_factories(names: Iterable[str]) -> None:
    """Import each as `import_factory` does."""
    for name in names:
        import_factory(name)


def has_name(backbone: str) -> bool:
    """Check whether a backbone is known by its name alone, and is no hub name or folder."""
    return _is_known(backbone) and KINDS[backbone].by_name


def kind_of(backbone: str) -> str:
    """Return the kind of a backbone; of a hub name or a folder, from its `config.json`.

    Raises:
        BackboneError: it is not available, or of no known kind.
    """
    if has_name(backbone):
        return backbone
    if backbone == DEFAULT_BACKBONE:
        return "ast"  # known without a file
    model_type = hub.read_config(backbone).get("model_type")
    kind = _MODEL_TYPES.get(str(model_type), str(model_type))
    if kind not in KINDS or KINDS[kind].by_name:
        types = sorted({*_MODEL_TYPES, *(k for k, entry in KINDS.items() if not entry.by_name)})
        raise BackboneError(
            f"{backbone} is of type {model_type!r}; known: {', '.join(types)}; {hub.WAYS_ON}"
        )
    extractor = hub.read_extractor(backbone).get("feature_extractor_type")
    return _EXTRACTORS.get(str(extractor), kind)


def traits(backbone: str) -> Traits:
    """Return what decides which options have an effect, without loading weights of the hub.

    Raises:
        BackboneError: as of `kind_of`.
    """
    kind = KINDS[kind_of(backbone)]
    if kind.transformer is None:
        return load(backbone).traits
    return Traits.of(
        feature_spec(backbone), transformer=kind.transformer, drops_tokens=kind.drops_tokens
    )


def _is_known(kind: str) -> bool:
    """Look for a kind in `KINDS` and among the installed packages.

    Raises:
        BackboneError: it is code that the user has not named.
    """
    if kind not in KINDS and (entry := plugins.installed().get(kind)):
        KINDS[kind] = BackboneKind(
            dataclasses.replace(own.find(f"{entry.module}:{entry.attr}"), name=kind),
            transformer=None,
            by_name=True,
        )
    if kind not in KINDS and plugins.is_factory(kind):
        raise BackboneError(
            f"the backbone {kind} is code, and nothing but its name is in the folder: give "
            f"--trust {kind} to import it, or install a package with the entry point"
        )
    return kind in KINDS


def _module(kind: str) -> Any:
    source = KINDS[kind].source
    return import_module(source) if isinstance(source, str) else source
