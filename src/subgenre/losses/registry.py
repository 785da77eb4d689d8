"""From the name of a loss to the loss: `config.LOSSES` says where each one lies."""

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
    """Build the loss that `config.name` names.

    Args:
        n_labels: number of subgenres. embedding_size: D.
        label_genre: genre number of each label, [n_labels].
        seed: of the first values of proxies, where it has any.
    """
    module, _, name = LOSSES[config.name].source.partition(":")
    make = getattr(import_module(module), name)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        loss: Loss = make(config, n_labels, embedding_size, label_genre)
    return loss
