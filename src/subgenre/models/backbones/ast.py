"""The Audio Spectrogram Transformer, from the hub or from a folder.

Gong, Chung & Glass, "AST: Audio Spectrogram Transformer" (Interspeech 2021, arXiv:2104.01778),
section 2.1. The blocks of the hub's `ASTModel` are called one by one here, so that chunks of any
length, middle layers, patchout and cached activations work on unchanged weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from subgenre.audio.features import AST_SPEC, FeatureSpec
from subgenre.config import DEFAULT_BACKBONE
from subgenre.errors import BackboneError, ConfigError
from subgenre.models.backbones import hub
from subgenre.models.backbones.stack import BlockStack, even

MODEL_TYPE = "audio-spectrogram-transformer"
STRUCTURE = (  # what the saved model keeps of the hub's configuration
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "layer_norm_eps",
    "patch_size",
    "qkv_bias",
    "frequency_stride",
    "time_stride",
    "max_length",
    "num_mel_bins",
)
NEARLY_FULL = 0.9  # a chunk of at least this share of max_length is padded to it


class Ast(BlockStack):
    """The hub's `ASTModel`, block by block.

    A token is the class token, the distillation token, or one 16 x 16 patch; patches go band by
    band, and along time within a band. A layer is a block, counted as Python counts (0 the first,
    -1 the last). The last block's tokens pass the model's final layer norm, as in the hub's model.
    Those of an earlier block pass a layer norm without weights: the residual stream grows from
    block to block, and the final norm's gain was learnt for the last one alone.
    """

    kind = "ast"
    n_class = 2  # the class token and the distillation token come before the patches

    def __init__(self, model: nn.Module, *, source: str, licence: str) -> None:
        super().__init__()
        self.model: Any = model
        config: Any = model.config
        self.spec = self.spec_of(config)
        self.hidden_size = config.hidden_size
        self.n_blocks = config.num_hidden_layers
        self.max_length: int = config.max_length
        self.patch_size: int = config.patch_size
        self.source, self.licence = source, licence

    @staticmethod
    def spec_of(config: Any) -> FeatureSpec:
        """Return the front end of an `ASTConfig`."""
        return dataclasses.replace(AST_SPEC, n_mels=config.num_mel_bins)

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
        structure = {name: getattr(self.model.config, name) for name in STRUCTURE}
        return {**structure, "source": self.source, "licence": self.licence}

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The hub's layers."""
        layers: Sequence[nn.Module] = self.model.layers
        return layers

    def finish(self, hidden: Tensor, index: int) -> Tensor:
        """Norm the tokens; the model's own norm was learnt for the last block alone."""
        if index < self.n_blocks - 1:
            return even(hidden, self.model.config.layer_norm_eps)
        out: Tensor = self.model.layernorm(hidden)
        return out

    def parameters_by_depth(self) -> list[list[nn.Parameter]]:
        """Return the parameters of the embeddings, of each block, and above the last block."""
        above = list(self.model.layernorm.parameters())
        blocks = [list(block.parameters()) for block in self.model.layers]
        return [list(self.model.embeddings.parameters()), *blocks, above]

    def embed(self, x: Tensor) -> Tensor:
        """Patches, class tokens and positions: [B, T, F] -> [B, S, H]."""
        parts, config = self.model.embeddings, self.model.config
        B, T, n_mels = x.shape
        if n_mels != config.num_mel_bins:
            raise ConfigError(f"features have {n_mels} bands, the AST takes {config.num_mel_bins}")
        patches = parts.patch_embeddings(x)
        columns = (T - self.patch_size) // config.time_stride + 1
        patches = patches + self._positions(columns)
        tokens = torch.cat([parts.cls_token, parts.distillation_token], dim=1)
        tokens = tokens + parts.position_embeddings[:, : self.n_class]
        hidden: Tensor = parts.dropout(torch.cat([tokens.expand(B, -1, -1), patches], dim=1))
        return hidden

    def _positions(self, columns: int) -> Tensor:
        """The grid of positions for so many columns of patches, [1, rows * columns, H]."""
        parts = self.model.embeddings
        rows, trained = parts.get_shape(self.model.config)
        grid = parts.position_embeddings[:, self.n_class :].unflatten(1, (rows, trained))
        if columns > trained:
            stretched = F.interpolate(
                grid.permute(0, 3, 1, 2), (rows, columns), mode="bicubic", align_corners=False
            )
            grid = stretched.permute(0, 2, 3, 1)
        positions: Tensor = grid[:, :, :columns].flatten(1, 2)
        return positions


def feature_spec(name: str) -> FeatureSpec:
    """Read the front end of a hub name or a folder from its configuration.

    Raises:
        BackboneError: no such folder, no answer from the hub, or another front end.
    """
    return AST_SPEC if name == DEFAULT_BACKBONE else Ast.spec_of(_read_config(name))


def load(name: str) -> Ast:
    """Load pretrained weights from a hub name or a folder; SafeTensors only.

    Takes the backbone of an `ASTForAudioClassification`, or an `ASTModel`.

    Raises:
        BackboneError: it is not available, a tensor is missing or of another shape, or it has
            another front end.
    """
    from transformers import ASTModel

    model = hub.load_model(name, ASTModel, _read_config(name))
    return Ast(model, source=name, licence=hub.licence(name))


def build(config: dict[str, Any]) -> Ast:
    """Make the structure that `Ast.config_dict` describes; the weights are filled in later.

    Raises:
        BackboneError: the configuration makes no network.
    """
    values = dict(config)
    source, licence = str(values.pop("source", "")), str(values.pop("licence", ""))
    return Ast(new_model(values), source=source, licence=licence)


def new_model(structure: Mapping[str, Any]) -> Any:
    """Make an `ASTModel` whose weights are filled in later.

    Raises:
        BackboneError: the structure makes no network.
    """
    from transformers import ASTModel

    with torch.device("meta"):  # nothing is drawn, nothing is computed
        model = ASTModel(make_config(structure, "the saved model"))
    return model.to_empty(device="cpu").eval()


def make_config(values: Mapping[str, Any], name: str) -> Any:
    """Make the hub's `ASTConfig` of those of the values that make up the structure.

    Raises:
        BackboneError: the values make no network.
    """
    from transformers import ASTConfig

    config = hub.make_config(ASTConfig, {k: values[k] for k in STRUCTURE if k in values}, name)
    if not isinstance(config.patch_size, int) or config.patch_size > config.max_length:
        raise BackboneError(f"the AST of {name} has patches of {config.patch_size}; 16 is usual")
    if config.hidden_size % config.num_attention_heads:
        raise BackboneError(
            f"the AST of {name} shares {config.hidden_size} values among "
            f"{config.num_attention_heads} heads, which is no whole number; correct its config.json"
        )
    return config


def _read_config(name: str) -> Any:
    """Read the hub's `ASTConfig` of a folder or a hub name, and check its front end."""
    values = hub.read_config(name)
    if values.get("model_type") != MODEL_TYPE:
        raise BackboneError(
            f"{name} is of type {values.get('model_type')!r}, not an AST ({MODEL_TYPE}); "
            f"{hub.WAYS_ON}"
        )
    hub.check_no_code(values, name)
    config = make_config(values, name)
    hub.check_extractor(
        name,
        {
            "feature_extractor_type": "ASTFeatureExtractor",
            "sampling_rate": AST_SPEC.rate,
            "num_mel_bins": config.num_mel_bins,
        },
    )
    return config
