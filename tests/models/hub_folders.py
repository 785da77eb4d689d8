"""Tiny networks of the hub's library with random weights, saved by the library itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from subgenre.models.backbones.hub import quiet

WAVES = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": [8, 8],
    "conv_stride": [20, 16],
    "conv_kernel": [40, 16],
    "num_conv_pos_embeddings": 6,
    "num_conv_pos_embedding_groups": 2,
    "num_feat_extract_layers": 2,
}
STABLE = {**WAVES, "do_stable_layer_norm": True, "feat_extract_norm": "layer"}
DATA2VEC = {**WAVES, "num_conv_pos_embeddings": 2, "conv_pos_kernel_size": 3}
WHISPER = {
    "d_model": 16,
    "encoder_layers": 3,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 24,
    "vocab_size": 51_865,
}
CLAP = {
    "patch_embeds_hidden_size": 8,
    "depths": [1, 1, 2],
    "num_attention_heads": [2, 2, 2],
    "hidden_size": 32,
    "enable_fusion": False,
}
TEXT = {
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "intermediate_size": 8,
    "vocab_size": 64,
}
ENCODEC = {"hidden_size": 8, "num_filters": 2, "codebook_size": 8, "codebook_dim": 8}
DAC = {
    "encoder_hidden_size": 2,
    "decoder_hidden_size": 32,
    "codebook_size": 8,
    "sampling_rate": 16_000,
}


@dataclass(frozen=True)
class Case:
    """A network of the library, and how its own forward pass is run.

    Attributes:
        kind: of the backbone. model, config, settings: class, class and arguments.
        extractor, extraction: class and arguments of its feature extractor.
        run: (model, extracted batch) -> outputs of all blocks, embedding first, then the tokens.
        pre_norm: the outputs of its blocks grow, and its last norm is apart.
        rate: of the samples, Hz.
    """

    kind: str
    model: str
    config: str
    settings: dict[str, Any]
    extractor: str
    extraction: dict[str, Any]
    run: Callable[[Any, Any], tuple[tuple[torch.Tensor, ...], torch.Tensor]]
    pre_norm: bool = False
    rate: int = 16_000


def _hidden(model: Any, batch: Any) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    out = model(**batch, output_hidden_states=True)
    return out.hidden_states, out.last_hidden_state


def _whisper(model: Any, batch: Any) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    return _hidden(model.encoder, {"input_features": batch["input_features"]})


def _clap(model: Any, batch: Any) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    still = torch.zeros(len(batch["input_features"]), 1, dtype=torch.bool)
    out = getattr(model, "audio_model", model)(
        input_features=batch["input_features"], is_longer=still, output_hidden_states=True
    )
    return (), out.pooler_output[:, None]


def _codec(model: Any, batch: Any) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    return (), model.encoder(batch["input_values"]).transpose(1, 2)


def _waves(kind: str, name: str, settings: dict[str, Any], **more: Any) -> Case:
    normalise = {"do_normalize": more.pop("do_normalize", True)}
    stable = settings.get("do_stable_layer_norm", False)
    return Case(
        kind,
        more.pop("model", f"{name}Model"),
        f"{name}Config",
        settings,
        "Wav2Vec2FeatureExtractor",
        {"sampling_rate": more.get("rate", 16_000), **normalise},
        _hidden,
        pre_norm=stable,
        **more,
    )


CLAP_EXTRACTION = {"frequency_min": 50, "truncation": "rand_trunc"}
CASES = {
    "wav2vec2": _waves("wav2vec2", "Wav2Vec2", WAVES),
    "wav2vec2-stable": _waves("wav2vec2", "Wav2Vec2", STABLE, do_normalize=False),
    "hubert": _waves("hubert", "Hubert", WAVES),
    "hubert-stable": _waves("hubert", "Hubert", STABLE, rate=24_000),
    "hubert-batch-norm": _waves("hubert", "Hubert", {**WAVES, "conv_pos_batch_norm": True}),
    "wavlm": _waves("wavlm", "WavLM", WAVES),
    "wavlm-stable": _waves("wavlm", "WavLM", STABLE),
    "data2vec": _waves("data2vec-audio", "Data2VecAudio", DATA2VEC),
    "unispeech-sat": _waves("unispeech-sat", "UniSpeechSat", WAVES),
    "unispeech-sat-stable": _waves("unispeech-sat", "UniSpeechSat", STABLE),
    "whisper": Case(
        "whisper",
        "WhisperModel",
        "WhisperConfig",
        WHISPER,
        "WhisperFeatureExtractor",
        {},
        _whisper,
        pre_norm=True,
    ),
    "whisper-128": Case(
        "whisper",
        "WhisperModel",
        "WhisperConfig",
        {**WHISPER, "num_mel_bins": 128},
        "WhisperFeatureExtractor",
        {"feature_size": 128},
        _whisper,
        pre_norm=True,
    ),
    "clap": Case(
        "clap",
        "ClapModel",
        "ClapConfig",
        {"audio_config": CLAP, "text_config": TEXT},
        "ClapFeatureExtractor",
        CLAP_EXTRACTION,
        _clap,
        rate=48_000,
    ),
    "clap-fusion": Case(
        "clap",
        "ClapAudioModelWithProjection",
        "ClapAudioConfig",
        {**CLAP, "enable_fusion": True, "fusion_type": "aff_2d"},
        "ClapFeatureExtractor",
        {"frequency_min": 50},
        _clap,
        rate=48_000,
    ),
    "encodec": Case(
        "encodec",
        "EncodecModel",
        "EncodecConfig",
        ENCODEC,
        "EncodecFeatureExtractor",
        {},
        _codec,
        rate=24_000,
    ),
    "dac": Case("dac", "DacModel", "DacConfig", DAC, "DacFeatureExtractor", {}, _codec),
}


def save(case: Case, path: Path) -> Path:
    """Save the network of a case and its feature extractor; the same each time."""
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(0)
        config = getattr(transformers, case.config)(**case.settings)
        model = getattr(transformers, case.model)(config)
        with torch.no_grad():
            for value in model.parameters():
                value.add_(torch.randn_like(value), alpha=0.1)  # also what starts at 0 or 1
            for name, value in model.named_buffers():
                if name.endswith(("running_mean", "running_var")):
                    value.add_(torch.rand_like(value), alpha=0.5)
        model.save_pretrained(path)
        getattr(transformers, case.extractor)(**case.extraction).save_pretrained(path)
    return path


def theirs(
    case: Case, path: Path, samples: np.ndarray
) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """Run the library's own model on samples [B, n] through its own extractor."""
    extractor = getattr(transformers, case.extractor).from_pretrained(path)
    with quiet(), torch.inference_mode():
        model = getattr(transformers, case.model).from_pretrained(path).eval()
        batch = extractor([*samples], sampling_rate=case.rate, return_tensors="pt")
        return case.run(model, batch)
