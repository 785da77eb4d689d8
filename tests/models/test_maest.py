"""MAEST: its front end against the published definition, its network against the hub's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import ASTModel
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from subgenre.audio.features import log_mel
from subgenre.errors import BackboneError
from subgenre.models import backbones
from subgenre.models.backbones import hub, maest
from tests.toy import make_ast_folder

EXTRACTOR = {  # of the published folder
    "auto_map": {"AutoFeatureExtractor": "feature_extraction_maest.MAESTFeatureExtractor"},
    "do_normalize": True,
    "feature_extractor_type": "MAESTFeatureExtractor",
    "hop_length": 256,
    "log_compression": "logC",
    "max_length": 626,
    "mean": 2.06755686098554,
    "n_fft": 512,
    "num_mel_bins": 96,
    "sampling_rate": 16000,
    "std": 1.268292820667291,
}


def published(samples: np.ndarray) -> np.ndarray:
    """The log-mel of maest/feature_extraction_maest.py (github.com/palonso/MAEST), [T, 96]."""
    mel = spectrogram(
        samples,
        window_function(512, "hann"),
        frame_length=512,
        hop_length=256,
        power=2,
        mel_filters=mel_filter_bank(257, 96, 0, 8000, 16000, norm="slaney", mel_scale="slaney"),
        mel_floor=1e-30,
        pad_mode="constant",
    )
    return np.log10(1 + 10_000 * mel.T)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("maest") / "maest"
    make_ast_folder(path, num_mel_bins=96, max_length=626, layer_norm_eps=1e-6)
    (path / "preprocessor_config.json").write_text(json.dumps(EXTRACTOR), encoding="utf-8")
    return path


@torch.inference_mode()
def test_samples_to_tokens_as_published(folder: Path) -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, (2, 160_000)).astype(np.float32)
    network = backbones.load(str(folder))
    assert isinstance(network, maest.Maest)
    assert backbones.feature_spec(str(folder)) == network.spec
    features = log_mel(torch.from_numpy(samples), network.spec)
    expected = torch.from_numpy(np.stack([published(one) for one in samples])).float()
    torch.testing.assert_close(features, expected, atol=1e-4, rtol=0)
    with hub.quiet():
        theirs = ASTModel.from_pretrained(folder).eval()
    normalised = (expected - 2.06755686098554) / (1.268292820667291 * 2)
    torch.testing.assert_close(
        network(network.pad(features)), theirs(normalised).last_hidden_state, atol=1e-4, rtol=0
    )


def test_the_licence_is_of_the_weights_and_outlives_a_saved_model(folder: Path) -> None:
    network = backbones.load(str(folder))
    again = backbones.build("maest", json.loads(json.dumps(network.config_dict())))
    assert network.licence == again.licence == "CC BY-NC-SA 4.0"
    assert again.source == str(folder)


@pytest.mark.parametrize("setting", [{"mean": 0.0}, {"log_compression": "log"}, {"n_fft": 1024}])
def test_another_front_end_is_refused(tmp_path: Path, setting: dict[str, object]) -> None:
    path = make_ast_folder(tmp_path / "maest", num_mel_bins=96, max_length=626)
    (path / "preprocessor_config.json").write_text(json.dumps({**EXTRACTOR, **setting}), "utf-8")
    with pytest.raises(BackboneError, match=next(iter(setting))):
        backbones.feature_spec(str(path))
