"""Which parameters learn, how fast, and how that changes over the run."""

from __future__ import annotations

import math

import torch
from torch import nn

from subgenre.config import OptimConfig
from subgenre.core.validation import check_tune
from subgenre.models.backbones import Backbone
from subgenre.models.backbones.stack import BlockStack
from subgenre.models.encoder import Encoder


def depths(backbone: Backbone) -> dict[nn.Parameter, int]:
    """Return for each backbone parameter the number of blocks above its own; 0 after the last."""
    *rest, last, above = backbone.parameters_by_depth()
    ordered = [*rest, [*last, *above]]
    return {p: len(ordered) - 1 - i for i, part in enumerate(ordered) for p in part}


def freeze(backbone: Backbone, tune: str) -> None:
    """Let the backbone parameters that `tune` names learn, and no others."""
    last = check_tune(tune)
    depth = depths(backbone)
    for name, parameter in backbone.named_parameters():
        if tune == "lora":
            parameter.requires_grad_("lora_" in name)
        elif tune == "full":
            parameter.requires_grad_(True)
        else:
            parameter.requires_grad_(depth[parameter] < last)


def optimizer(encoder: Encoder, loss: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """Build AdamW, with a lower rate in lower blocks and no weight decay on biases and norms.

    Each group has `base_lr`, for the schedule, and `part`, `head` or `backbone`.
    """
    groups: dict[tuple[str, float, float], list[nn.Parameter]] = {}
    backbone_lr = config.backbone_lr or config.lr
    depth = depths(encoder.backbone)
    for parameter in [*encoder.parameters(), *loss.parameters()]:
        if not parameter.requires_grad:
            continue
        decay = 0.0 if parameter.ndim < 2 else config.weight_decay
        if parameter in depth:
            key = ("backbone", backbone_lr * config.layer_decay ** depth[parameter], decay)
        else:
            key = ("head", config.lr, decay)
        groups.setdefault(key, []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": p, "lr": lr, "base_lr": lr, "part": part, "weight_decay": decay}
            for (part, lr, decay), p in groups.items()
        ],
        fused=True,  # one pass over the weights: small heads are bound by memory
    )


def factor(step: int, total: int, config: OptimConfig) -> float:
    """Return the factor of the learning rates at `step` of `total`.

    Linear warm-up over the first `warmup` share of the steps, then constant or a half cosine to
    zero (Loshchilov & Hutter 2017, eq. 5 without restarts).
    """
    warm = round(config.warmup * total)
    if step < warm:
        return (step + 1) / warm
    if config.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))


def set_rate(optimizer: torch.optim.Optimizer, scale: float, *, head_only: bool = False) -> None:
    """Set each group's rate to `scale` times its base; the backbone's to 0 while `head_only`."""
    for group in optimizer.param_groups:
        still = head_only and group["part"] == "backbone"
        group["lr"] = 0.0 if still else group["base_lr"] * scale


def blocks(backbone: Backbone) -> list[nn.Module]:
    """Return the parts of a backbone to compile one by one: its blocks, else the whole."""
    return list(backbone.blocks) if isinstance(backbone, BlockStack) else [backbone]
