"""What a model is known by: a hash of its weights and of what it is made of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


def of_module(module: nn.Module, description: Mapping[str, Any]) -> str:
    """Hash weights and structure: 32 hex digits, the same on every device.

    Args:
        module: whose weights.
        description: of a backbone (`kind`, `config`), or of an encoder (`backbone`, `structure`).
    """
    backbone = description.get("backbone", description)
    # where the weights came from is told in the description, but does not make another model
    config = {k: v for k, v in backbone["config"].items() if k not in ("source", "licence")}
    told = [config, description.get("structure"), backbone["kind"]]
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for name, value in sorted(module.state_dict().items()):
        tensor = value.detach().to("cpu").contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(memoryview(tensor.reshape(-1).view(torch.uint8).numpy()))
    return digest.hexdigest()[:32]
