"""Log-mel against the hub's own extractor, scipy and the original musicnn; statistics."""

from __future__ import annotations

import random
import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from subgenre.audio import features
from subgenre.audio.features import AST_SPEC, MUSICNN_SPEC, FeatureSpec, Statistics, log_mel
from subgenre.errors import ConfigError, FeatureError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from transformers import ASTFeatureExtractor
    from transformers.audio_utils import mel_filter_bank

N = 160_000
GOLDEN = Path(__file__).parents[1] / "data" / "musicnn_golden.npz"


def music(n: int = N, seed: int = 0) -> NDArray[np.float32]:
    """Decaying chords, a bass drum every half second and hiss."""
    rng = np.random.default_rng(seed)
    t = np.arange(n) / 16_000
    chord = sum(np.sin(2 * np.pi * f * t) / f for f in (110, 220.5, 331, 1318.5, 4186)) * 30
    beat = t % 0.5
    drum = np.sin(2 * np.pi * 60 * beat) * np.exp(-beat * 12)
    hiss = rng.normal(size=n) * np.exp(-(t % 0.25) * 40)
    return (0.3 * chord * np.exp(-(t % 2.0)) + 0.5 * drum + 0.1 * hiss).astype(np.float32)


def signals() -> dict[str, NDArray[np.float32]]:
    t = np.arange(N) / 16_000
    noise = np.random.default_rng(1).normal(0, 0.3, N)
    found = {
        "music": music(),
        "silence": np.zeros(N),
        "sine": np.sin(2 * np.pi * 440 * t),
        "quiet sine": 1e-4 * np.sin(2 * np.pi * 1000 * t),
        "noise": noise,
        "DC offset": np.full(N, 0.3),
        "noise on a DC offset": 0.5 + 1e-3 * noise,
        "clipped": np.clip(5 * noise, -1, 1),
        "short": music(70_000),
    }
    return {name: values.astype(np.float32) for name, values in found.items()}


@pytest.fixture(scope="module")
def hub() -> ASTFeatureExtractor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 128 bands at 16 kHz leave some empty: so in Kaldi too
        return ASTFeatureExtractor()


@pytest.mark.parametrize("name", signals())
def test_ast_front_end_equals_the_hubs(name: str, hub: ASTFeatureExtractor) -> None:
    assert hasattr(hub, "mel_filters"), "the hub took torchaudio's path, not numpy's"
    samples = signals()[name]
    expected = hub(samples, sampling_rate=16_000, return_tensors="np")["input_values"][0]
    ours = log_mel(torch.from_numpy(samples)[None], AST_SPEC)[0]
    assert ours.dtype == torch.float32
    assert tuple(ours.shape) == (AST_SPEC.frames(len(samples)), 128)
    for stored, tolerance in ((ours, 1e-3), (ours.to(torch.float16).to(torch.float32), 2e-3)):
        padded = torch.nn.functional.pad(
            stored, (0, 0, 0, 1024 - len(stored)), value=features.PAD_VALUE
        )
        np.testing.assert_allclose(hub.normalize(padded.numpy()), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("ours", "n_mels", "low_hz", "rate", "norm", "scale"),
    [
        (features.kaldi_mel_filters, 64, 20, 16_000, None, "kaldi"),
        (features.kaldi_mel_filters, 128, 20, 16_000, None, "kaldi"),
        (features.slaney_mel_filters, 96, 0, 16_000, "slaney", "slaney"),
        (features.slaney_mel_filters, 40, 0, 1_800, "slaney", "slaney"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_filters_equal_the_hubs(ours, n_mels, low_hz, rate, norm, scale) -> None:
    in_mel = scale == "kaldi"
    expected = mel_filter_bank(257, n_mels, low_hz, rate / 2, rate, norm, scale, in_mel)
    np.testing.assert_allclose(ours(n_mels, rate), expected, atol=1e-12)


def test_musicnn_front_end_equals_scipys_stft() -> None:
    samples = music(50_000)
    padded = np.pad(samples.astype(np.float64), 256)
    _, _, spectrum = scipy.signal.stft(
        padded, window="hann", nperseg=512, noverlap=256, boundary=None, padded=False
    )
    power = np.abs(spectrum * 256) ** 2  # scipy divides by the window's sum
    filters = mel_filter_bank(257, 96, 0, 8000, 16_000, "slaney", "slaney")
    expected = np.log10(1 + 10_000 * filters.T @ power).T
    ours = log_mel(torch.from_numpy(samples)[None], MUSICNN_SPEC)[0].numpy()
    assert ours.shape == (1 + 50_000 // 256, 96)
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_musicnn_front_end_equals_the_originals() -> None:
    golden = np.load(GOLDEN, allow_pickle=False)
    ours = log_mel(torch.from_numpy(golden["samples"])[None], MUSICNN_SPEC)[0]
    patches = ours[: 3 * 187].reshape(3, 187, 96).numpy()
    np.testing.assert_allclose(patches, golden["log_mel"], rtol=0, atol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("spec", [AST_SPEC, MUSICNN_SPEC])
def test_a_batch_equals_its_rows(spec: FeatureSpec) -> None:
    batch = torch.from_numpy(np.stack([music(40_000, seed) for seed in range(3)]))
    one_by_one = torch.cat([log_mel(row[None], spec) for row in batch])
    torch.testing.assert_close(log_mel(batch, spec), one_by_one, rtol=0, atol=0)


@pytest.mark.parametrize("spec", [AST_SPEC, MUSICNN_SPEC])
@pytest.mark.parametrize("n", [0, 399, 400, 559, 560, 16_000, 41_037])
def test_frames_is_the_length(spec: FeatureSpec, n: int) -> None:
    shape = tuple(log_mel(torch.zeros(2, n), spec).shape)
    assert shape == (2, spec.frames(n), spec.n_mels)


def test_samples_of_another_shape_are_refused() -> None:
    with pytest.raises(FeatureError, match=r"shape \[5\]"):
        log_mel(torch.zeros(5), AST_SPEC)


def test_spec_round_trip_and_bad_values() -> None:
    assert FeatureSpec.from_dict(AST_SPEC.to_dict()) == AST_SPEC
    with pytest.raises(ConfigError, match="did you mean 'ast'"):
        FeatureSpec.from_dict({**AST_SPEC.to_dict(), "front_end": "asst"})
    with pytest.raises(ConfigError, match="unknown key"):
        FeatureSpec.from_dict({**AST_SPEC.to_dict(), "hops": 3})


@given(
    st.lists(st.lists(st.floats(-1e3, 1e3), max_size=30), min_size=1, max_size=6),
    st.floats(-1e4, 1e4),
    st.randoms(use_true_random=False),
)
def test_statistics_merged_in_any_order_equal_numpys(
    parts: list[list[float]], offset: float, order: random.Random
) -> None:
    arrays = [np.array(part) + offset for part in parts]
    everything = np.concatenate(arrays)
    left = [Statistics.of(array) for array in arrays]
    while len(left) > 1:  # any two, as a tree
        one, other = (left.pop(order.randrange(len(left))) for _ in range(2))
        left.append(one.merge(other))
    merged = Statistics.merged(left)
    assert merged.count == everything.size
    if everything.size:
        assert merged.mean == pytest.approx(everything.mean(), rel=1e-9, abs=1e-7)
        assert merged.std == pytest.approx(everything.std(), rel=1e-5, abs=1e-6)


def test_statistics_of_nothing() -> None:
    assert Statistics.merged([]) == Statistics.of(np.empty((0, 3))) == Statistics()
    assert Statistics().std == 0.0


def test_statistics_hold_at_float16_chunks() -> None:
    rng = np.random.default_rng(3)
    chunks = [rng.normal(-5, 3, (500, 128)).astype(np.float16) for _ in range(8)]
    merged = Statistics.merged(Statistics.of(torch.from_numpy(chunk)) for chunk in chunks)
    everything = np.concatenate(chunks).astype(np.float64)
    assert merged.mean == pytest.approx(everything.mean(), rel=1e-12)
    assert merged.std == pytest.approx(everything.std(), rel=1e-12)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_equals_the_cpu() -> None:
    batch = torch.from_numpy(np.stack([music(40_000, seed) for seed in range(3)]))
    for spec in (AST_SPEC, MUSICNN_SPEC):
        there = log_mel(batch.cuda(), spec).cpu()
        torch.testing.assert_close(there, log_mel(batch, spec), rtol=1e-4, atol=2e-3)
