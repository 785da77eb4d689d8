"""The Audio Spectrogram Transformer, from the hub or from a folder.

Gong, Chung & Glass, "AST: Audio Spectrogram Transformer" (Interspeech 2021, arXiv:2104.01778),
section 2.1. The blocks of the hub's `ASTModel` are called one by one here, so that chunks of any
length, middle layers, patchout and cached activations work on unchanged weights.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from subgenre.audio.features import AST_SPEC, FeatureSpec
from subgenre.config import DEFAULT_BACKBONE
from subgenre.errors import ConfigError
from subgenre.models.backbones import hub
from subgenre.models.backbones.base import Backbone, check_keep

N_CLASS = 2  # the class token and the distillation token come before the patches
NEARLY_FULL = 0.9  # a chunk of at least this share of max_length is padded to it


class Ast(Backbone):
    """The hub's `ASTModel`, block by block.

    A token is the class token, the distillation token, or one 16 x 16 patch; patches go band by
    band, and along time within a band. A layer is a block, counted as Python counts (0 the first,
    -1 the last). The last block's tokens pass the model's final layer norm, as in the hub's model.
    Those of an earlier block pass a layer norm without weights: the residual stream grows from
    block to block, and the final norm's gain was learnt for the last one alone.
    """

    kind = "ast"
    transformer = True

    def __init__(self, model: nn.Module, *, source: str, licence: str) -> None:
        super().__init__()
        self.model: Any = model
        config: Any = model.config
        self.spec = _spec(config)
        self.hidden_size = config.hidden_size
        self.n_blocks = config.num_hidden_layers
        self.max_length: int = config.max_length
        self.patch_size: int = config.patch_size
        self.source, self.licence = source, licence
        self.checkpointing = False

    def forward(
        self,
        x: Tensor,
        *,
        layer: int = -1,
        keep: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Encode normalised log-mel [B, T, F] as tokens [B, 2 + patches, H].

        `keep` below 1 drops patch tokens at random, the same ones for the whole batch, in training
        only (patchout: Koutini et al. 2022, arXiv:2110.05069, section 3.1).

        Raises:
            ConfigError: no such layer, or a share of kept tokens outside (0, 1].
        """
        hidden = self.prefix(x, self.n_blocks)
        return self.suffix(hidden, self.n_blocks, layer, keep=keep, generator=generator)

    def prefix(self, x: Tensor, n_last: int) -> Tensor:
        """Run everything below the last `n_last` blocks: [B, T, F] -> residual stream [B, S, H].

        Raises:
            ConfigError: there are fewer blocks than that.
        """
        hidden = self._embed(x)
        for block in self.model.layers[: self._first(n_last)]:
            hidden = self._run(block, hidden)
        return hidden

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
        hidden = self._thin(hidden, keep, generator)
        for block in self.model.layers[first : last + 1]:
            hidden = self._run(block, hidden)
        return self._normed(hidden, last)

    def pad(self, x: Tensor) -> Tensor:
        """Pad [B, T, F] with 0.0 before normalisation, as the hub's extractor does.

        To `max_length` where at most a tenth is missing, else only to the width of one patch: a
        clearly shorter chunk takes the matching part of the position grid.
        """
        T, shortest = x.shape[1], self.patch_size
        full = NEARLY_FULL * self.max_length <= T < self.max_length
        return F.pad(x, (0, 0, 0, self.max_length - T if full else max(0, shortest - T)))

    def config_dict(self) -> dict[str, Any]:
        """Return the structure and the source of the weights."""
        structure = {name: getattr(self.model.config, name) for name in hub.STRUCTURE}
        return {**structure, "source": self.source, "licence": self.licence}

    def check_layer(self, layer: int) -> None:
        """Refuse a block that does not exist."""
        self._last(layer)

    def set_checkpointing(self, on: bool) -> None:
        """Compute each block's activations again in the backward pass, or keep them."""
        self.checkpointing = on

    def parameters_by_depth(self) -> list[list[nn.Parameter]]:
        """Return the parameters of the embeddings, of each block, and above the last block."""
        above = list(self.model.layernorm.parameters())
        blocks = [list(block.parameters()) for block in self.model.layers]
        return [list(self.model.embeddings.parameters()), *blocks, above]

    def _embed(self, x: Tensor) -> Tensor:
        """Patches, class tokens and positions: [B, T, F] -> [B, S, H]."""
        parts, config = self.model.embeddings, self.model.config
        B, T, n_mels = x.shape
        if n_mels != config.num_mel_bins:
            raise ConfigError(f"features have {n_mels} bands, the AST takes {config.num_mel_bins}")
        patches = parts.patch_embeddings(x)
        columns = (T - self.patch_size) // config.time_stride + 1
        patches = patches + self._positions(columns)
        tokens = torch.cat([parts.cls_token, parts.distillation_token], dim=1)
        tokens = tokens + parts.position_embeddings[:, :N_CLASS]
        hidden: Tensor = parts.dropout(torch.cat([tokens.expand(B, -1, -1), patches], dim=1))
        return hidden

    def _positions(self, columns: int) -> Tensor:
        """The grid of positions for so many columns of patches, [1, rows * columns, H]."""
        parts = self.model.embeddings
        rows, trained = parts.get_shape(self.model.config)
        grid = parts.position_embeddings[:, N_CLASS:].unflatten(1, (rows, trained))
        if columns > trained:
            stretched = F.interpolate(
                grid.permute(0, 3, 1, 2), (rows, columns), mode="bicubic", align_corners=False
            )
            grid = stretched.permute(0, 2, 3, 1)
        positions: Tensor = grid[:, :, :columns].flatten(1, 2)
        return positions

    def _thin(self, hidden: Tensor, keep: float, generator: torch.Generator | None) -> Tensor:
        """Keep the class tokens and a random share of the patches, in training."""
        check_keep(keep)
        if keep == 1.0 or not self.training:
            return hidden
        n_patches = hidden.shape[1] - N_CLASS
        drawn = torch.randperm(n_patches, generator=generator)[: max(1, round(keep * n_patches))]
        chosen = torch.cat([torch.arange(N_CLASS), N_CLASS + drawn.sort().values])
        return hidden[:, chosen.to(hidden.device)]

    def _run(self, block: nn.Module, hidden: Tensor) -> Tensor:
        out: Tensor
        if self.checkpointing and self.training and torch.is_grad_enabled():
            out = checkpoint(block, hidden, use_reentrant=False)
        else:
            out = block(hidden)
        return out

    def _normed(self, hidden: Tensor, index: int) -> Tensor:
        if index < self.n_blocks - 1:
            return F.layer_norm(hidden, hidden.shape[-1:], eps=self.model.config.layer_norm_eps)
        out: Tensor = self.model.layernorm(hidden)
        return out

    def _first(self, n_last: int) -> int:
        if not 0 <= n_last <= self.n_blocks:
            raise ConfigError(
                f"the last {n_last} blocks are requested; this AST has {self.n_blocks}"
            )
        return self.n_blocks - n_last

    def _last(self, layer: int) -> int:
        """Index of the last block that a choice of layer needs."""
        if not -self.n_blocks <= layer < self.n_blocks:
            raise ConfigError(
                f"layer is {layer}; this AST has {self.n_blocks} blocks: "
                f"choose {-self.n_blocks} to {self.n_blocks - 1}"
            )
        return layer % self.n_blocks


def feature_spec(name: str) -> FeatureSpec:
    """Read the front end of a hub name or a folder from its configuration.

    Raises:
        BackboneError: no such folder, no answer from the hub, or another front end.
    """
    return AST_SPEC if name == DEFAULT_BACKBONE else _spec(hub.read_config(name))


def is_available(name: str) -> bool:
    """Check whether the weights are in a folder or the hub's cache, without network access."""
    return hub.is_cached(name)


def load(name: str) -> Ast:
    """Load pretrained weights from a hub name or a folder; SafeTensors only.

    Takes the backbone of an `ASTForAudioClassification`, or an `ASTModel`.

    Raises:
        BackboneError: it is not available, a tensor is missing or of another shape, or it has
            another front end.
    """
    return Ast(hub.load_model(name), source=name, licence=hub.licence(name))


def build(config: dict[str, Any]) -> Ast:
    """Make the structure that `Ast.config_dict` describes; the weights are filled in later.

    Raises:
        BackboneError: the configuration makes no network.
    """
    from transformers import ASTModel

    values = dict(config)
    source, licence = str(values.pop("source", "")), str(values.pop("licence", ""))
    with torch.device("meta"):  # nothing is drawn, nothing is computed
        model = ASTModel(hub.make_config(values, "the saved model"))
    return Ast(model.to_empty(device="cpu").eval(), source=source, licence=licence)


def _spec(config: Any) -> FeatureSpec:
    return dataclasses.replace(AST_SPEC, n_mels=config.num_mel_bins)
