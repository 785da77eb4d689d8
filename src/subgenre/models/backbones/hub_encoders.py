"""The audio encoders of the hub's library other than the AST: `ARCHITECTURES` names each.

Waveform transformers (wav2vec 2.0, HuBERT, WavLM, data2vec, UniSpeech-SAT, and MERT, whose network
is HuBERT's), Whisper's encoder, CLAP's audio tower, and the encoders of EnCodec and DAC. The
library's own modules run on unchanged weights; what its `forward` does between them in training
(dropping whole layers, masking the input) is left out, and statistics of batches stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from subgenre.audio import features
from subgenre.audio.features import FeatureSpec
from subgenre.errors import BackboneError, ConfigError
from subgenre.models.backbones import hub
from subgenre.models.backbones.base import Backbone, refuse_patchout
from subgenre.models.backbones.stack import BlockStack, even

MOST_BLOCKS = 256
_COUNTS = (  # settings that say how often a part is made
    *("num_hidden_layers", "encoder_layers", "num_conv_pos_embeddings"),
    *("num_residual_layers", "num_lstm_layers"),
)
_WAVES = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    *("hidden_act", "hidden_dropout", "activation_dropout", "attention_dropout"),
    *("feat_proj_dropout", "feat_extract_activation", "layer_norm_eps", "conv_dim"),
    *("conv_stride", "conv_kernel", "conv_bias", "num_conv_pos_embeddings"),
    "num_conv_pos_embedding_groups",
)
_STABLE = (*_WAVES, "feat_extract_norm", "do_stable_layer_norm")


class HubNetwork(Backbone):
    """A network of the hub's library, whose structure goes into the saved model.

    Args:
        model: the part of the library's model that is used. config: of that model.
        kind: a name of `ARCHITECTURES`. spec: the front end.
    """

    def __init__(
        self, model: nn.Module, config: Any, *, kind: str, spec: FeatureSpec, **origin: str
    ) -> None:
        super().__init__()
        self.model: Any = model
        self.config = config
        self.kind, self.spec = kind, spec
        self.source, self.licence = origin["source"], origin["licence"]

    def config_dict(self) -> dict[str, Any]:
        """Return the structure, the front end and the source of the weights."""
        names = ARCHITECTURES[self.kind].structure
        structure = {name: getattr(self.config, name) for name in names}
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in structure.items()}
        origin = {"source": self.source, "licence": self.licence}
        return {"kind": self.kind, "spec": self.spec.to_dict(), **plain, **origin}

    def train(self, mode: bool = True) -> HubNetwork:
        """Set the mode; batch norms keep the statistics of the pretraining."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def check_pooling(self, how: str) -> None:
        """Accept the mean over the tokens only."""
        super().check_pooling(how)
        if how != "mean":
            raise ConfigError(f"pooling is '{how}'; {self.kind} has no class token: use mean")


class HubStack(HubNetwork, BlockStack):
    """A transformer of the hub's library.

    The last block's tokens pass the model's final norm, where it has one; those of an earlier block
    pass a norm without weights instead. In a network that norms behind each block, tokens stay as
    they are.
    """

    @property
    def norm(self) -> nn.Module | None:
        """The norm after the last block; None: each block ends with one."""
        last: nn.Module = self.model.layer_norm
        return last

    def finish(self, hidden: Tensor, index: int) -> Tensor:
        """Norm the tokens of block `index`."""
        if self.norm is None:
            return hidden
        if index < self.n_blocks - 1:
            return even(hidden, self.norm.eps)  # type: ignore[arg-type]
        out: Tensor = self.norm(hidden)
        return out

    def parameters_by_depth(self) -> list[list[nn.Parameter]]:
        """Return the parameters below the first block, of each block, and of the last norm."""
        blocks = [list(block.parameters()) for block in self.blocks]
        above = [] if self.norm is None else list(self.norm.parameters())
        known = {id(p) for part in (*blocks, above) for p in part}
        return [[p for p in self.parameters() if id(p) not in known], *blocks, above]


class WaveTransformer(HubStack):
    """Wav2vec 2.0 and its kin: a token for each 20 ms of samples [B, n, 1].

    Baevski et al. 2020 (arXiv:2006.11477), section 2; Hsu et al. 2021, HuBERT (arXiv:2106.07447);
    Baevski et al. 2022, data2vec (arXiv:2202.03555); Chen et al. 2021, UniSpeech-SAT
    (arXiv:2110.05752); Li et al. 2023, MERT (arXiv:2306.00107).
    """

    lora_targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "out_proj")

    def __init__(self, model: nn.Module, config: Any, **more: Any) -> None:
        super().__init__(model, config, **more)
        if hasattr(model, "masked_spec_embed"):
            del model.masked_spec_embed  # UniSpeech-SAT's, always there
        self.hidden_size = config.hidden_size
        self.n_blocks = config.num_hidden_layers
        self.shortest = 1  # samples of one token
        for kernel, stride in zip(config.conv_kernel[::-1], config.conv_stride[::-1], strict=True):
            self.shortest = (self.shortest - 1) * stride + kernel

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The library's layers."""
        layers: Sequence[nn.Module] = self.model.encoder.layers
        return layers

    @property
    def norm(self) -> nn.Module | None:
        """The norm after the last block, in the variant that norms inside of the blocks."""
        inside = getattr(self.config, "do_stable_layer_norm", False)
        return self.model.encoder.layer_norm if inside else None

    def pad(self, x: Tensor) -> Tensor:
        """Pad [B, n, 1] with silence to the samples of one token."""
        return self.spec.pad(x, self.shortest)

    def embed(self, x: Tensor) -> Tensor:
        """Convolutions over samples, projection and positions: [B, n, 1] -> [B, S, H]."""
        encoder = self.model.encoder
        x = x.transpose(1, 2)
        for layer in self.model.feature_extractor.conv_layers:
            x = layer(x)
        projected = self.model.feature_projection(x.transpose(1, 2))
        hidden = projected[0] if isinstance(projected, tuple) else projected
        hidden = hidden + encoder.pos_conv_embed(hidden)
        if self.norm is None:
            hidden = encoder.layer_norm(hidden)
        out: Tensor = encoder.dropout(hidden)
        return out


class WavLM(WaveTransformer):
    """WavLM: blocks share one bias by the distance of two tokens.

    Chen et al. 2022 (arXiv:2110.13900), section 3.2. Its attention reads the weights of its
    projections without calling them, so that adapters go on the feed-forward layers.
    """

    lora_targets: tuple[str, ...] = ("intermediate_dense", "output_dense")

    def context(self, hidden: Tensor, kept: Tensor | None) -> dict[str, Any]:
        """Return the bias, which the first block would give to the next: [B * heads, S, S]."""
        B, S, _ = hidden.shape
        bias = self.model.encoder.layers[0].attention.compute_bias(S, S)
        if kept is not None:
            bias = bias[:, kept][:, :, kept]
        return {"position_bias": bias.repeat(B, 1, 1)}


class Whisper(HubStack):
    """Whisper's encoder: 1500 tokens for a window of 30 s, which a shorter chunk does not fill.

    Radford et al. 2022 (arXiv:2212.04356), section 2.2.
    """

    lora_targets = ("q_proj", "k_proj", "v_proj", "out_proj")

    def __init__(self, model: nn.Module, config: Any, **more: Any) -> None:
        super().__init__(model, config, **more)
        self.hidden_size = config.d_model
        self.n_blocks = config.encoder_layers

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The library's layers."""
        layers: Sequence[nn.Module] = self.model.layers
        return layers

    def context(self, _hidden: Tensor, _kept: Tensor | None) -> dict[str, Any]:
        """Return the mask that the library's layers require: none."""
        return {"attention_mask": None}

    def pad(self, x: Tensor) -> Tensor:
        """Pad [B, T, F] with silence to the window."""
        return self.spec.pad(x, features.WHISPER_FRAMES)

    def embed(self, x: Tensor) -> Tensor:
        """Two convolutions over frames, and positions: [B, 3000, F] -> [B, 1500, H]."""
        hidden = F.gelu(self.model.conv1(x.transpose(1, 2)))
        hidden = F.gelu(self.model.conv2(hidden)).transpose(1, 2)
        hidden = hidden + self.model.embed_positions.weight
        return F.dropout(hidden, self.model.dropout, training=self.training)


class Clap(HubStack):
    """CLAP's audio tower: a Swin transformer on the log-mel of 10 s, folded into a square.

    Wu et al. 2023 (arXiv:2211.06687); Chen et al. 2022, HTS-AT (arXiv:2202.00874), section 2. From
    stage to stage tokens get fewer and wider, so that only blocks of the last stage can be chosen
    as the layer; `last:N` may reach into any.
    """

    drops_tokens = False  # windows need all
    lora_targets = ("query", "key", "value")

    def __init__(self, model: nn.Module, config: Any, **more: Any) -> None:
        super().__init__(model, config, **more)
        self.hidden_size = self.model.num_features
        self.n_blocks = sum(config.depths)
        if config.enable_fusion:  # joins parts of longer sounds, which there are none of
            del self.model.patch_embed.fusion_model, self.model.patch_embed.mel_conv2d
            self.model.patch_embed.enable_fusion = False
        self._blocks = list(_clap_blocks(model))  # a list: the model holds the weights

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The library's layers, the last one of a stage with the merging of its tokens."""
        return self._blocks

    @property
    def norm(self) -> nn.Module | None:
        """The norm after the last block."""
        last: nn.Module = self.model.norm
        return last

    def pad(self, x: Tensor) -> Tensor:
        """Return the window of 10 s as it is."""
        return x

    def embed(self, x: Tensor) -> Tensor:
        """Norm the bands, fold the log-mel into a square, cut patches: [B, T, F] -> [B, S, C]."""
        normed = self.model.batch_norm(x[:, None].transpose(1, 3)).transpose(1, 3)
        hidden: Tensor = self.model.patch_embed(self.model.reshape_mel2img(normed))
        return hidden

    def _last(self, layer: int) -> int:
        index, n_last = super()._last(layer), self.config.depths[-1]
        if index < self.n_blocks - n_last:
            raise ConfigError(
                f"layer is {layer}; the blocks of clap change their width, and only the last "
                f"{n_last} have that of its output: choose {-n_last} to -1"
            )
        return index


class _ClapBlock(nn.Module):
    """One layer of a stage, and after the last one the merging of four tokens into one."""

    def __init__(self, layer: nn.Module, size: tuple[int, int], merge: nn.Module | None) -> None:
        super().__init__()
        self.layer, self.size, self.merge = layer, size, merge

    def forward(self, hidden: Tensor) -> Tensor:
        """Run on tokens [B, S, C]."""
        out: Tensor = self.layer(hidden, self.size)[0]
        return out if self.merge is None else self.merge(out, self.size)


def _clap_blocks(model: Any) -> Iterator[_ClapBlock]:
    for stage, size in zip(model.layers, model.input_resolutions, strict=True):
        *rest, last = stage.blocks
        yield from (_ClapBlock(layer, size, None) for layer in rest)
        yield _ClapBlock(last, size, stage.downsample)


class Codec(HubNetwork):
    """The encoder of a neural codec: convolutions from samples [B, n, 1] to frames [B, S, H].

    Défossez et al. 2022, EnCodec (arXiv:2210.13438), section 3.1; Kumar et al. 2023, DAC
    (arXiv:2306.06546), section 3. It is one block.
    """

    transformer = False
    n_blocks = 1

    def __init__(self, model: nn.Module, config: Any, **more: Any) -> None:
        super().__init__(model, config, **more)
        self.hidden_size = config.hidden_size
        self.hop: int = config.hop_length

    def prefix(self, x: Tensor, n_last: int) -> Tensor:
        """Return the samples: there is nothing below the one block."""
        self._check_last(n_last)
        return x

    def suffix(
        self,
        hidden: Tensor,
        n_last: int,
        layer: int = -1,
        *,
        keep: float = 1.0,
        generator: torch.Generator | None = None,  # noqa: ARG002 (nothing is drawn here)
    ) -> Tensor:
        """Run the encoder: [B, n, 1] -> [B, S, H]."""
        self._check_last(n_last)
        self.check_layer(layer)
        refuse_patchout(keep, self.kind)
        frames: Tensor = self.model(hidden.transpose(1, 2)).transpose(1, 2)
        return frames

    def pad(self, x: Tensor) -> Tensor:
        """Pad with silence to whole frames, as the hub's extractor does for DAC."""
        return self.spec.pad(x, math.ceil(x.shape[1] / self.hop) * self.hop)

    def check_layer(self, layer: int) -> None:
        """Accept the last layer only."""
        if layer not in (-1, 0):
            raise ConfigError(f"layer is {layer}; {self.kind} is one block: leave it at -1")

    def set_checkpointing(self, on: bool) -> None:
        """Accept only that it stays off."""
        if on:
            raise ConfigError(
                f"checkpointing is for transformers; {self.kind} is none: leave it off"
            )

    def parameters_by_depth(self) -> list[list[nn.Parameter]]:
        """Return all parameters as those of the one block."""
        return [[], list(self.parameters()), []]

    def _check_last(self, n_last: int) -> None:
        if n_last != 1:
            raise ConfigError(f"the last {n_last} blocks are requested; {self.kind} has 1")


@dataclass(frozen=True)
class Architecture:
    """How a kind of network is found in the hub's library.

    Attributes:
        wrapper: the backbone around it.
        module: of `transformers.models`; `config` and `model` are classes in it.
        structure: what the saved model keeps of the configuration.
        extractor: the type of the feature extractor.
        section: of `config.json`, where the configuration is not the whole of it.
        part: of the model, if not all of it is used.
        prefixes: see `hub.load_model`.
        fixed: settings that get these values. unused: those that must have them already, as what
            they stand for is left out.
    """

    wrapper: type[HubNetwork]
    module: str
    config: str
    model: str
    structure: tuple[str, ...]
    extractor: str = "Wav2Vec2FeatureExtractor"
    section: str = ""
    part: str = ""
    prefixes: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    unused: Mapping[str, Any] = field(default_factory=dict)


_NO_MASKS = {"mask_time_prob": 0.0, "mask_feature_prob": 0.0}  # else there is a weight for them
ARCHITECTURES: dict[str, Architecture] = {
    "wav2vec2": Architecture(
        WaveTransformer,
        "wav2vec2",
        "Wav2Vec2Config",
        "Wav2Vec2Model",
        _STABLE,
        fixed=_NO_MASKS,
        unused={"adapter_attn_dim": None},
    ),
    "hubert": Architecture(
        WaveTransformer,
        "hubert",
        "HubertConfig",
        "HubertModel",
        (*_STABLE, "feat_proj_layer_norm", "conv_pos_batch_norm"),
        fixed=_NO_MASKS,
        # what MERT's own code can add to HuBERT
        unused={"feature_extractor_cqt": False, "deepnorm": False, "attention_relax": -1.0},
    ),
    "wavlm": Architecture(
        WavLM,
        "wavlm",
        "WavLMConfig",
        "WavLMModel",
        (*_STABLE, "num_buckets", "max_bucket_distance"),
        fixed=_NO_MASKS,
    ),
    "data2vec-audio": Architecture(
        WaveTransformer,
        "data2vec",
        "Data2VecAudioConfig",
        "Data2VecAudioModel",
        (*_WAVES, "conv_pos_kernel_size"),
        fixed=_NO_MASKS,
    ),
    "unispeech-sat": Architecture(
        WaveTransformer, "unispeech_sat", "UniSpeechSatConfig", "UniSpeechSatModel", _STABLE
    ),
    "whisper": Architecture(
        Whisper,
        "whisper.modeling_whisper",
        "WhisperConfig",
        "WhisperEncoder",
        (
            *("num_mel_bins", "encoder_layers", "encoder_attention_heads", "encoder_ffn_dim"),
            *("activation_function", "d_model", "dropout", "attention_dropout"),
            *("activation_dropout", "max_source_positions"),
        ),
        extractor="WhisperFeatureExtractor",
        prefixes={r"^(model\.)?encoder\.": ""},
        unused={"max_source_positions": features.WHISPER_FRAMES // 2},
    ),
    "clap": Architecture(
        Clap,
        "clap",
        "ClapAudioConfig",
        "ClapAudioModel",
        (
            *("window_size", "num_mel_bins", "spec_size", "hidden_act", "patch_size"),
            *("patch_stride", "depths", "num_attention_heads", "enable_fusion"),
            *("hidden_dropout_prob", "fusion_type", "patch_embed_input_channels"),
            *("flatten_patch_embeds", "patch_embeds_hidden_size", "enable_patch_layer_norm"),
            *("drop_path_rate", "attention_probs_dropout_prob", "qkv_bias", "mlp_ratio"),
            *("aff_block_r", "layer_norm_eps"),
        ),
        extractor="ClapFeatureExtractor",
        section="audio_config",
        part="audio_encoder",
        prefixes={r"^(clap\.)?audio_model\.": ""},
    ),
    "encodec": Architecture(
        Codec,
        "encodec",
        "EncodecConfig",
        "EncodecModel",
        (
            *("sampling_rate", "hidden_size", "num_filters", "num_residual_layers"),
            *("upsampling_ratios", "norm_type", "kernel_size", "last_kernel_size"),
            *("residual_kernel_size", "dilation_growth_rate", "use_causal_conv", "pad_mode"),
            *("compress", "num_lstm_layers", "use_conv_shortcut", "target_bandwidths"),
            *("codebook_size", "codebook_dim"),
        ),
        extractor="EncodecFeatureExtractor",
        part="encoder",
        unused={"audio_channels": 1, "normalize": False, "chunk_length_s": None},
    ),
    "dac": Architecture(
        Codec,
        "dac",
        "DacConfig",
        "DacModel",
        (
            *("sampling_rate", "encoder_hidden_size", "downsampling_ratios"),
            *("decoder_hidden_size", "n_codebooks", "codebook_size", "codebook_dim"),
        ),
        extractor="DacFeatureExtractor",
        part="encoder",
    ),
}
MODEL_TYPES = {"mert_model": "hubert", "clap_audio_model": "clap"}  # where it is not the kind


def feature_spec(name: str) -> FeatureSpec:
    """Read the front end of a hub name or a folder from its configuration.

    Raises:
        BackboneError: no such folder, no answer from the hub, or another front end.
    """
    return _read(name)[2]


def load(name: str) -> HubNetwork:
    """Load pretrained weights from a hub name or a folder; SafeTensors only.

    Raises:
        BackboneError: it is not available, a tensor is missing or of another shape, or it has
            another front end.
    """
    kind, config, spec = _read(name)
    architecture = ARCHITECTURES[kind]
    model = hub.load_model(
        name,
        _class(architecture, architecture.model),
        config,
        part=architecture.part,
        prefixes=architecture.prefixes,
    )
    return _wrap(model, config, kind, spec, source=name, licence=hub.licence(name))


def build(config: dict[str, Any]) -> HubNetwork:
    """Make the structure that `HubNetwork.config_dict` describes; the weights are filled in later.

    Raises:
        BackboneError: the configuration makes no network.
    """
    kind = str(config.get("kind"))
    if kind not in ARCHITECTURES:
        raise BackboneError(f"no network of kind '{kind}'; known: {', '.join(ARCHITECTURES)}")
    plain = _make_config(ARCHITECTURES[kind], config, "the saved model")
    make = _class(ARCHITECTURES[kind], ARCHITECTURES[kind].model)
    if issubclass(ARCHITECTURES[kind].wrapper, HubStack):
        with torch.device("meta"):  # nothing is drawn, nothing is computed
            model = make(plain).to_empty(device="cpu")
    else:  # convolutions have buffers that are not saved
        with torch.random.fork_rng(devices=[]):
            model = make(plain)
    origin = {name: str(config.get(name, "")) for name in ("source", "licence")}
    return _wrap(model, plain, kind, FeatureSpec.from_dict(config["spec"]), **origin)


def _wrap(model: Any, config: Any, kind: str, spec: FeatureSpec, **origin: str) -> HubNetwork:
    """Put the used part of a model into its backbone; weights that are products become plain."""
    architecture = ARCHITECTURES[kind]
    model = model.get_submodule(architecture.part)
    for module in model.modules():
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")
    network = architecture.wrapper(model, config, kind=kind, spec=spec, **origin)
    network.eval()
    return network


def _read(name: str) -> tuple[str, Any, FeatureSpec]:
    """Read kind, configuration and front end of a folder or a hub name."""
    values = hub.read_config(name)
    model_type = str(values.get("model_type"))
    kind = MODEL_TYPES.get(model_type, model_type)
    architecture = ARCHITECTURES[kind]
    if model_type != "mert_model":  # the library's HuBERT stands for its code
        hub.check_no_code(values, name)
    for key, needed in architecture.unused.items():
        if values.get(key, needed) != needed:
            raise BackboneError(
                f"{name} has {key} = {values[key]}, which is not supported; {hub.WAYS_ON}"
            )
    config = _make_config(architecture, values.get(architecture.section, values), name)
    return kind, config, _read_spec(name, kind, config)


def _make_config(architecture: Architecture, values: Any, name: str) -> Any:
    if not isinstance(values, Mapping):
        raise BackboneError(f"config.json of {name} has no table {architecture.section}")
    kept = {key: values[key] for key in architecture.structure if key in values}
    kept |= dict(architecture.fixed)
    config = hub.make_config(_class(architecture, architecture.config), kept, name)
    counts = {key: getattr(config, key, 0) for key in _COUNTS}
    counts["depths"] = sum(getattr(config, "depths", ()))
    for key, count in counts.items():
        if count > MOST_BLOCKS:
            raise BackboneError(
                f"{name} has {key} = {count}; at most {MOST_BLOCKS} is plausible: correct its "
                "config.json"
            )
    return config


def _read_spec(name: str, kind: str, config: Any) -> FeatureSpec:
    """Read and check the front end from the settings of the feature extractor."""
    extractor = ARCHITECTURES[kind].extractor
    found = hub.read_extractor(name)
    if not found:
        raise BackboneError(
            f"{name} holds no preprocessor_config.json, which gives the sample rate; {hub.WAYS_ON}"
        )
    expected: dict[str, Any] = {"feature_extractor_type": extractor}
    if kind == "whisper":
        spec = FeatureSpec(
            "whisper", features.WHISPER_RATE, config.num_mel_bins, features.WHISPER_HOP, "none"
        )
        expected |= {"feature_size": spec.n_mels, "sampling_rate": spec.rate, "n_fft": 400}
        expected |= {"hop_length": spec.hop, "chunk_length": features.WHISPER_S, "dither": 0.0}
    elif kind == "clap":
        front_end = "clap_fusion" if found.get("truncation") == "fusion" else "clap"
        spec = FeatureSpec(
            front_end, features.CLAP_RATE, features.CLAP_BANDS, features.CLAP_HOP, "none"
        )
        expected |= {"feature_size": config.num_mel_bins, "sampling_rate": spec.rate}
        expected |= {"hop_length": spec.hop, "max_length_s": features.CLAP_S}
        expected |= {"fft_window_size": 1024, "frequency_min": 50, "frequency_max": 14_000}
        expected |= {"padding": "repeatpad", "top_db": None}
    else:
        unit = extractor == "Wav2Vec2FeatureExtractor" and found.get("do_normalize", True)
        rate: Any = found.get("sampling_rate")
        expected |= {"feature_size": 1, "sampling_rate": getattr(config, "sampling_rate", rate)}
        try:
            spec = FeatureSpec("unit_samples" if unit else "samples", rate, 1, 1, "none")
        except (ConfigError, TypeError) as problem:
            raise BackboneError(f"sampling_rate of {name} is {rate}, no sample rate") from problem
    hub.check_extractor(name, expected)
    return spec


def _class(architecture: Architecture, name: str) -> Any:
    module = import_module(f"transformers.models.{architecture.module}")
    return getattr(module, name)
