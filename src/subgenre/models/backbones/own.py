"""A person's own backbone: made by a function of another package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch

from subgenre.audio.features import FeatureSpec
from subgenre.errors import BackboneError
from subgenre.models.backbones.base import Backbone


@dataclass(frozen=True)
class Own:
    """What the registry calls of a backbone, around a function that makes it.

    Attributes:
        name: `package:function`, or that of an entry point.
        factory: without arguments, the pretrained backbone; with those of its `config_dict`, the
            structure of a saved one.
    """

    name: str
    factory: Callable[..., Any]

    def feature_spec(self, _name: str) -> FeatureSpec:
        """Return the front end."""
        return self.build({}).spec

    def is_available(self, _name: str) -> bool:
        """Leave it to the function where the weights are."""
        return True

    def load(self, _name: str) -> Backbone:
        """Make the pretrained backbone."""
        return self.build({})

    def build(self, config: dict[str, Any]) -> Backbone:
        """Make the backbone of a `config_dict`.

        Raises:
            BackboneError: it is no `Backbone`.
        """
        with torch.device("cpu"):
            network = self.factory(**config)
        if not isinstance(network, Backbone):
            raise BackboneError(
                f"{self.name} gives a {type(network).__name__}; a Backbone of "
                "subgenre.models.backbones is required"
            )
        network.kind = self.name  # by which a saved model finds it again
        network.eval()
        return network


def find(name: str) -> Own:
    """Import `package:function`.

    Raises:
        BackboneError: there is no such package, or no such function in it.
    """
    package, _, function = name.partition(":")
    try:
        return Own(name, getattr(import_module(package), function))
    except (ImportError, AttributeError) as problem:
        raise BackboneError(
            f"{name} can't be imported ({problem}); install the package, or put its folder on "
            "PYTHONPATH"
        ) from problem
