"""The interface of every loss over a batch, and `build`, which makes one by its name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib import import_module

import torch
from torch import Tensor, nn

from subgenre.config import LOSSES, LossConfig
from subgenre.errors import ConfigError


@dataclass(frozen=True)
class LossResult:
    """The loss of one batch.

    Attributes:
        value: scalar, tied to the graph of the vectors even where it is zero.
        active: share of the compared triplets that still violate the margin, 0 to 1; see
            `mining.with_activity` for a loss that is not made of triplets.
        n: triplets compared.
    """

    value: Tensor
    active: float
    n: int


class Loss(nn.Module, ABC):
    """A loss over one batch of chunk vectors [B, D], D being `embedding_size`.

    `n_labels`: number of subgenres; `label_genre` [n_labels]: the genre number of each.
    """

    label_genre: Tensor

    def __init__(
        self, config: LossConfig, n_labels: int, embedding_size: int, label_genre: Tensor
    ) -> None:
        super().__init__()
        self.config, self.n_labels, self.embedding_size = config, n_labels, embedding_size
        self.register_buffer("label_genre", label_genre.long(), persistent=False)

    @abstractmethod
    def forward(
        self, vectors: Tensor, label: Tensor, track: Tensor, recording: Tensor
    ) -> LossResult:
        """Return the loss of `vectors` [B, D]; `label` (-1: trash), `track`, `recording` [B]."""

    def explicit(self, vectors: Tensor) -> LossResult:
        """Return the loss of drawn triplets [b, 3, D] or quadruplets [b, 4, D], if it has one."""
        raise ConfigError(
            f"loss '{self.config.name}' compares whole batches, not {len(vectors)} drawn triplets; "
            'set kind = "pk" under [batch]'
        )


def build(
    config: LossConfig, *, n_labels: int, embedding_size: int, label_genre: Tensor, seed: int = 0
) -> Loss:
    """Build the loss that `config.name` names; `seed` draws its proxies, if it has any."""
    module, _, name = LOSSES[config.name].source.partition(":")
    make = getattr(import_module(module), name)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        loss: Loss = make(config, n_labels, embedding_size, label_genre)
    return loss
