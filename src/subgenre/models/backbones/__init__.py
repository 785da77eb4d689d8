"""Pretrained networks: the AST from the hub or a folder, and the built-in musicnn.

Heavy libraries are imported when a backbone is made, not when this package is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from subgenre.audio.features import MUSICNN_SPEC, FeatureSpec
from subgenre.errors import BackboneError
from subgenre.models.backbones.base import Backbone

__all__ = ["KINDS", "MUSICNN", "Backbone", "build", "feature_spec", "is_at_hand", "load"]

MUSICNN = "musicnn"


def feature_spec(backbone: str) -> FeatureSpec:
    """Tell the front end of a backbone without loading its weights.

    The default AST and musicnn need no file at all; other names read their configuration.

    Raises:
        BackboneError: the name is neither, or its configuration can't be had.
    """
    if backbone == MUSICNN:
        return MUSICNN_SPEC
    from subgenre.models.backbones import ast

    return ast.feature_spec(backbone)


def is_at_hand(backbone: str) -> bool:
    """Say whether a backbone's weights can be loaded without network."""
    if backbone == MUSICNN:
        return True
    from subgenre.models.backbones import hub

    return hub.is_cached(backbone)


def load(backbone: str) -> Backbone:
    """Load a pretrained backbone: a hub name, a folder, or `musicnn`.

    Raises:
        BackboneError: it can't be had, or lacks weights; the message names the ways on.
    """
    import torch

    with torch.random.fork_rng(devices=[]):  # modules draw first weights even if they are replaced
        if backbone == MUSICNN:
            from subgenre.models.backbones import musicnn

            return musicnn.load()
        from subgenre.models.backbones import ast

        return ast.load(backbone)


def build(kind: str, config: dict[str, Any]) -> Backbone:
    """Make the structure of a backbone from its `config_dict`, with weights yet to be filled in.

    Raises:
        BackboneError: an unknown kind, or a configuration that makes no network.
    """
    if kind not in KINDS:
        raise BackboneError(f"no backbone of kind '{kind}'; known: {', '.join(KINDS)}")
    return KINDS[kind](config)


def _build_ast(config: dict[str, Any]) -> Backbone:
    from subgenre.models.backbones import ast

    return ast.build(config)


def _build_musicnn(config: dict[str, Any]) -> Backbone:
    from subgenre.models.backbones import musicnn

    if config:
        raise BackboneError(f"musicnn takes no configuration; found {', '.join(config)}")
    return musicnn.Musicnn().eval()


KINDS: dict[str, Callable[[dict[str, Any]], Backbone]] = {
    "ast": _build_ast,
    "musicnn": _build_musicnn,
}
