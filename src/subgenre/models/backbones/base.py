"""The contract of a backbone: features in (log-mel, or samples), tokens out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from subgenre.audio.features import FeatureSpec
from subgenre.config import POOLINGS
from subgenre.core.validation import check_choice
from subgenre.errors import ConfigError


@dataclass(frozen=True)
class Traits:
    """What decides which options have an effect on a backbone.

    Attributes:
        transformer, drops_tokens: as of `Backbone`.
        bands: its features are log-mel. level: they keep the level of the sound.
    """

    transformer: bool
    drops_tokens: bool
    bands: bool
    level: bool

    @classmethod
    def of(cls, spec: FeatureSpec, *, transformer: bool, drops_tokens: bool) -> Traits:
        """Return the traits of a network and its features."""
        return cls(transformer, drops_tokens, spec.n_mels > 1, spec.front_end != "unit_samples")


class Backbone(nn.Module, ABC):
    """A pretrained network that turns a chunk's features into tokens.

    Attributes:
        kind: its name in `registry.KINDS`.
        spec: the front end that it was trained on.
        hidden_size: H, values a token.
        n_blocks: blocks that `last:N` can tune; `check_layer` checks a choice of `layer`.
        transformer: its blocks are attention over tokens, as LoRA and checkpointing need.
        drops_tokens: it can do without some of its tokens, as patchout needs.
        lora_targets: names of the linear layers that adapters go on.
        engine: what runs it on a CPU where it is frozen, see `engines.select`.
        licence: of the weights.
        source: where the weights come from, as given to `load`.
    """

    kind: str
    spec: FeatureSpec
    hidden_size: int
    n_blocks: int
    transformer: bool
    drops_tokens: bool = False
    lora_targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    engine: str = "torch"
    licence: str
    source: str

    @property
    def traits(self) -> Traits:
        """What decides which options have an effect."""
        return Traits.of(self.spec, transformer=self.transformer, drops_tokens=self.drops_tokens)

    def forward(
        self,
        x: Tensor,
        *,
        layer: int = -1,
        keep: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Encode normalised features [B, T, F] as tokens [B, S, H].

        Args:
            x: padded by `pad`, then normalised as `spec` says.
            layer: block whose output is returned, a Python index.
            keep: share of the tokens that a training step keeps, the same ones for the whole batch
                (patchout: Koutini et al. 2022, arXiv:2110.05069, section 3.1).
            generator: draws the tokens that are kept; on the CPU.

        Raises:
            ConfigError: no such layer, or a share of kept tokens that the backbone can't have.
        """
        hidden = self.prefix(x, self.n_blocks)
        return self.suffix(hidden, self.n_blocks, layer, keep=keep, generator=generator)

    @abstractmethod
    def pad(self, x: Tensor) -> Tensor:
        """Pad un-normalised features [B, T, F] at the end, as the network needs it."""

    @abstractmethod
    def config_dict(self) -> dict[str, Any]:
        """Return what `build` needs to make the same structure, without the weights."""

    @abstractmethod
    def prefix(self, x: Tensor, n_last: int) -> Tensor:
        """Run everything below the last `n_last` blocks: [B, T, F] -> hidden [B, S, H]."""

    @abstractmethod
    def suffix(
        self,
        hidden: Tensor,
        n_last: int,
        layer: int = -1,
        *,
        keep: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Run the last `n_last` blocks on what `prefix` gave: hidden [B, S, H] -> tokens."""

    def layers(self, x: Tensor) -> list[Tensor]:
        """Encode normalised features [B, T, F] as the tokens of each layer that can be chosen.

        In one pass; the last L layers, -L to -1, in that order.
        """
        return [self(x)]

    @abstractmethod
    def check_layer(self, layer: int) -> None:
        """Refuse a layer that this backbone does not have.

        Raises:
            ConfigError: naming the layers that there are.
        """

    @abstractmethod
    def set_checkpointing(self, on: bool) -> None:
        """Trade time for memory: compute activations again in the backward pass.

        Raises:
            ConfigError: this backbone can't.
        """

    @abstractmethod
    def parameters_by_depth(self) -> list[list[nn.Parameter]]:
        """Parameters below the first block, of each block, and above the last; in that order."""

    def check_pooling(self, how: str) -> None:
        """Refuse a pooling that this backbone has no tokens for.

        Raises:
            ConfigError: unknown, or not of this backbone.
        """
        check_choice("pooling", how, POOLINGS)

    def pool(self, tokens: Tensor, how: str = "mean") -> Tensor:
        """Pool tokens [B, S, H] to [B, H]: `mean` of all, or of the two class tokens (`cls`).

        Raises:
            ConfigError: a pooling that this backbone has no tokens for.
        """
        self.check_pooling(how)
        return (tokens if how == "mean" else tokens[:, :2]).mean(dim=1)


def check_keep(keep: float) -> None:
    """Refuse a share of kept tokens outside (0, 1]."""
    if not 0.0 < keep <= 1.0:
        raise ConfigError(f"keep is {keep}; it must lie above 0 and be at most 1")


def refuse_patchout(keep: float, kind: str) -> None:
    """Refuse a share of kept tokens below 1: a network that is no transformer needs all."""
    if keep != 1.0:
        raise ConfigError(f"patchout drops tokens of a transformer; {kind} has none: set it 0")
