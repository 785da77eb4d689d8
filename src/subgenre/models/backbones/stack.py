"""A transformer as a stack of blocks: parts, middle layers, patchout and checkpointing."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from subgenre.errors import ConfigError
from subgenre.models.backbones.base import Backbone, check_keep


class BlockStack(Backbone):
    """A backbone of equal blocks, called one by one; a subclass gives what lies around them.

    A layer is a block, counted as Python counts (0 the first, -1 the last).

    Attributes:
        blocks: in their order. n_class: tokens before the others, which patchout keeps.
    """

    transformer = True
    drops_tokens = True
    n_class = 0

    def __init__(self) -> None:
        super().__init__()
        self.checkpointing = False

    @property
    @abstractmethod
    def blocks(self) -> Sequence[nn.Module]:
        """The blocks, from the first to the last."""

    @abstractmethod
    def embed(self, x: Tensor) -> Tensor:
        """Run everything below the first block: [B, T, F] -> [B, S, H]."""

    @abstractmethod
    def finish(self, hidden: Tensor, index: int) -> Tensor:
        """Turn the output of block `index` into tokens of even scale, [B, S, H]."""

    def context(self, hidden: Tensor, kept: Tensor | None) -> dict[str, Any]:  # noqa: ARG002
        """Arguments of every block beside the tokens.

        Args:
            hidden: all tokens [B, S, H]. kept: those of them that patchout keeps; None: all.
        """
        return {}

    def prefix(self, x: Tensor, n_last: int) -> Tensor:
        """Run everything below the last `n_last` blocks: [B, T, F] -> residual stream [B, S, H].

        Raises:
            ConfigError: there are fewer blocks than that.
        """
        hidden = self.embed(x)
        return self._run(self.blocks[: self._first(n_last)], hidden, self.context(hidden, None))

    def suffix(
        self,
        hidden: Tensor,
        n_last: int,
        layer: int = -1,
        *,
        keep: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Run the last `n_last` blocks, up to `layer`, on what `prefix` gave: [B, S, H] -> tokens.

        Raises:
            ConfigError: `layer` needs blocks below these.
        """
        first, last = self._first(n_last), self._last(layer)
        if first > last + 1:
            raise ConfigError(
                f"layer {layer} lies below the last {n_last} of {self.n_blocks} blocks; "
                "choose a later layer, or more blocks"
            )
        kept = self._drawn(hidden, keep, generator)
        context = self.context(hidden, kept)
        hidden = hidden if kept is None else hidden[:, kept]
        return self.finish(self._run(self.blocks[first : last + 1], hidden, context), last)

    def layers(self, x: Tensor) -> list[Tensor]:
        """Encode features [B, T, F] as the tokens of each layer that can be chosen."""
        hidden = self.embed(x)
        context, found = self.context(hidden, None), []
        for index, block in enumerate(self.blocks):
            hidden = self._run([block], hidden, context)
            with suppress(ConfigError):
                self.check_layer(index)
                found.append(self.finish(hidden, index))
        return found

    def check_layer(self, layer: int) -> None:
        """Refuse a block that does not exist."""
        self._last(layer)

    def set_checkpointing(self, on: bool) -> None:
        """Compute each block's activations again in the backward pass, or keep them."""
        self.checkpointing = on

    def _drawn(
        self, hidden: Tensor, keep: float, generator: torch.Generator | None
    ) -> Tensor | None:
        """Places of the class tokens and of a random share of the others; None: all of them."""
        check_keep(keep)
        if keep != 1.0 and not self.drops_tokens:
            raise ConfigError(f"patchout drops tokens, and {self.kind} needs all: set it 0")
        if keep == 1.0 or not self.training:
            return None
        n_tokens = hidden.shape[1] - self.n_class
        drawn = torch.randperm(n_tokens, generator=generator)[: max(1, round(keep * n_tokens))]
        kept = torch.cat([torch.arange(self.n_class), self.n_class + drawn.sort().values])
        return kept.to(hidden.device)

    def _run(self, blocks: Sequence[nn.Module], hidden: Tensor, context: dict[str, Any]) -> Tensor:
        again = self.checkpointing and self.training and torch.is_grad_enabled()
        for block in blocks:
            if again:
                out = checkpoint(block, hidden, use_reentrant=False, **context)
            else:
                out = block(hidden, **context)
            hidden = out[0] if isinstance(out, tuple) else out
        return hidden

    def _first(self, n_last: int) -> int:
        if not 0 <= n_last <= self.n_blocks:
            raise ConfigError(
                f"the last {n_last} blocks are requested; this {self.kind} has {self.n_blocks}"
            )
        return self.n_blocks - n_last

    def _last(self, layer: int) -> int:
        """Index of the last block that a choice of layer needs."""
        if not -self.n_blocks <= layer < self.n_blocks:
            raise ConfigError(
                f"layer is {layer}; this {self.kind} has {self.n_blocks} blocks: "
                f"choose {-self.n_blocks} to {self.n_blocks - 1}"
            )
        return layer % self.n_blocks


def even(hidden: Tensor, eps: float) -> Tensor:
    """Layer norm without weights: the residual stream grows from block to block."""
    return F.layer_norm(hidden, hidden.shape[-1:], eps=eps)
