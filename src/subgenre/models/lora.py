"""Low-rank adapters on a transformer's attention, by peft; merged before anything is saved.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (ICLR 2022, arXiv:2106.09685),
section 4: W + B A / r * alpha, B starting at zero, so that the model starts as it was.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from subgenre.errors import ConfigError, MissingExtraError
from subgenre.models.backbones import Backbone


def check(backbone: Backbone) -> None:
    """Check that adapters can be used.

    Raises:
        ConfigError: the backbone has no attention.
        MissingExtraError: peft is not installed.
    """
    if not backbone.transformer:
        raise ConfigError(
            f"tune 'lora' puts adapters on attention, and {backbone.kind} has none; "
            "choose --tune head or full"
        )
    try:
        import peft  # noqa: F401 - checks that it is installed
    except ImportError:
        raise MissingExtraError("tune 'lora'", "lora") from None


def add(backbone: Backbone, *, rank: int, seed: int) -> None:
    """Put adapters on the attention of every block, in place; freeze all other weights.

    Args:
        backbone: a transformer.
        rank: of the adapters; alpha is twice the rank.
        seed: of their initial values.

    Raises:
        ConfigError, MissingExtraError: see `check`.
    """
    check(backbone)
    import peft

    settings = peft.LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules=list(backbone.lora_targets)
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        peft.inject_adapter_in_model(settings, backbone)


def merge(backbone: Backbone) -> None:
    """Add the adapters, if any, to their base weights; the result needs no peft."""
    adapted: list[tuple[str, Any]] = [
        (name, module) for name, module in backbone.named_modules() if hasattr(module, "lora_A")
    ]
    for name, module in adapted:
        module.merge()
        parent, _, child = name.rpartition(".")
        layer: nn.Module = module.get_base_layer()
        setattr(backbone.get_submodule(parent), child, layer)
