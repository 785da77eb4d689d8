"""From the name of a loss to the loss, by `config.LOSSES`."""

from __future__ import annotations

from importlib import import_module

import torch
from torch import Tensor

from subgenre.config import LOSSES, LossConfig
from subgenre.losses.base import Loss


def build(
    config: LossConfig,
    *,
    n_labels: int,
    embedding_size: int,
    label_genre: Tensor,
    seed: int = 0,
) -> Loss:
    """Build the loss that `config.name` names; `seed` draws its proxies, if it has any.

    The other arguments are those of `Loss`.
    """
    module, _, name = LOSSES[config.name].source.partition(":")
    make = getattr(import_module(module), name)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        loss: Loss = make(config, n_labels, embedding_size, label_genre)
    return loss
