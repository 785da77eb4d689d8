"""A person's own backbone: made by a function of another package."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch

from subgenre.audio.features import FeatureSpec
from subgenre.errors import BackboneError, SubgenreError
from subgenre.models.backbones.base import Backbone

_REQUIRED = ("spec", "hidden_size", "n_blocks", "transformer", "licence", "source")


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
            BackboneError: the function fails, or gives no whole `Backbone`.
        """
        with _foreign_code(self.name), torch.device("cpu"):
            network = self.factory(**config)
        if not isinstance(network, Backbone):
            raise BackboneError(
                f"{self.name} gives a {type(network).__name__}; a Backbone of "
                "subgenre.models.backbones is required"
            )
        missing = [name for name in _REQUIRED if not hasattr(network, name)]
        if missing or not isinstance(network.spec, FeatureSpec):
            what = (
                f"no {missing[0]}" if missing else f"the spec {network.spec!r:.80}, no FeatureSpec"
            )
            raise BackboneError(f"{self.name} gives a Backbone with {what}; see docs/extending.md")
        network.kind = self.name  # by which a saved model finds it again
        network.eval()
        return network


def find(name: str) -> Own:
    """Import `package:function`.

    Raises:
        BackboneError: there is no such package, or no such function in it, or it can't be imported.
    """
    package, _, function = name.partition(":")
    with _foreign_code(name):
        try:
            return Own(name, getattr(import_module(package), function))
        except (ImportError, AttributeError) as problem:
            raise BackboneError(
                f"{name} can't be imported ({problem}); install the package, or put its folder on "
                "PYTHONPATH"
            ) from problem


@contextmanager
def _foreign_code(name: str) -> Iterator[None]:
    """Turn all that a person's own code raises into an error of one line."""
    try:
        yield
    except (SubgenreError, MemoryError):
        raise
    except (Exception, SystemExit) as problem:
        reason = next(iter(str(problem).strip().splitlines()), "")
        raise BackboneError(
            f"{name} fails ({type(problem).__name__}: {reason:.200}); call it in Python to see "
            "where"
        ) from problem
