"""The interface of every loss over a batch, and the sum of one a member of an ensemble."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from subgenre.config import LossConfig
from subgenre.errors import ConfigError
from subgenre.losses.triplet import LossResult, unit


class Loss(nn.Module, ABC):
    """A loss over one batch of chunk vectors.

    Attributes:
        config: its numbers. label_genre: genre number of each label, [n_labels].
    """

    label_genre: Tensor

    def __init__(self, config: LossConfig, label_genre: Tensor) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("label_genre", label_genre.long(), persistent=False)

    @abstractmethod
    def forward(
        self, vectors: Tensor, label: Tensor, track: Tensor, recording: Tensor
    ) -> LossResult:
        """Return the loss of `vectors` [B, D]; `label` (-1: trash), `track`, `recording` [B]."""

    def explicit(self, vectors: Tensor, label: Tensor) -> LossResult:
        """Return the loss of drawn triplets [b, 3, D] or quadruplets [b, 4, D], labels alike.

        Raises:
            ConfigError: this loss has no such form.
        """
        raise ConfigError(
            f"loss '{self.config.name}' compares whole batches, not the {vectors.shape[1]} rows of "
            f'{label.shape[0]} drawn triplets; set kind = "pk" under [batch]'
        )

    def margins(self, anchor: Tensor, other: Tensor, margin: float, like: Tensor) -> Tensor:
        """Return `margin`, wider where the labels `anchor` and `other` are of two genres.

        In the number format of `like`.
        """
        apart = self.genres(anchor) != self.genres(other)
        return margin + self.config.genre_margin * apart.to(like.dtype)

    def genres(self, label: Tensor) -> Tensor:
        """Return the genre number of each label, -1 for trash."""
        return torch.where(label >= 0, self.label_genre[label.clamp(min=0)], -1)


class MemberLoss(Loss):
    """One loss a member of an ensemble of heads, each on its share of D, summed.

    The sum gives each member the gradient that it would get alone.
    """

    def __init__(self, each: Sequence[Loss]) -> None:
        super().__init__(each[0].config, each[0].label_genre)
        self.each = nn.ModuleList(each)

    def forward(
        self, vectors: Tensor, label: Tensor, track: Tensor, recording: Tensor
    ) -> LossResult:
        """See `Loss.forward`; `active` is the members' mean."""
        return self._summed(vectors, lambda loss, mine: loss(mine, label, track, recording))

    def explicit(self, vectors: Tensor, label: Tensor) -> LossResult:
        """See `Loss.explicit`."""
        return self._summed(vectors, lambda loss, mine: loss.explicit(mine, label))

    def _summed(self, vectors: Tensor, ask: Callable[[Loss, Tensor], LossResult]) -> LossResult:
        losses = [loss for loss in self.each if isinstance(loss, Loss)]
        shares = vectors.chunk(len(losses), dim=-1)
        found = [ask(loss, unit(mine)) for loss, mine in zip(losses, shares, strict=True)]
        value = torch.stack([result.value for result in found]).sum()
        active = sum(result.active for result in found) / len(found)
        return LossResult(value, active, found[0].n)
