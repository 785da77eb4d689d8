from __future__ import annotations

import pytest
import torch

from subgenre.audio.features import AST_SPEC, MUSICNN_SPEC, FeatureSpec, log_mel
from subgenre.config import AugmentConfig
from subgenre.training import augment


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


SPECS = (
    AST_SPEC,
    MUSICNN_SPEC,
    FeatureSpec("samples", 16_000, 1, 1, "none"),
    FeatureSpec("whisper", 16_000, 80, 160, "none"),
    FeatureSpec("clap", 48_000, 64, 480, "none"),
)


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.front_end)
def test_gain_on_features_is_gain_on_samples(spec) -> None:
    samples = torch.randn(1, 16000, generator=generator()) * 0.1
    features = log_mel(samples, spec)
    changed = augment.gain(features, 6.0, generator(3), front_end=spec.front_end)
    db = (torch.rand(1, generator=generator(3)) * 2 - 1) * 6.0
    expected = log_mel(samples * 10 ** (db / 20), spec)
    assert torch.allclose(changed, expected, atol=2e-3)
    assert not torch.allclose(changed, features, atol=0.02)


def test_gain_leaves_padding_alone() -> None:
    features = torch.randn(2, 10, 4)
    features[:, 7:] = 0
    assert (augment.gain(features, 9.0, generator(), front_end="ast")[:, 7:] == 0).all()


@pytest.mark.parametrize("dim", [1, 2])
def test_a_mask_is_one_stripe_of_at_most_its_share(dim: int) -> None:
    features = torch.randn(64, 50, 40, generator=generator())
    masked = augment.mask(features, 0.3, dim, generator(1))
    hidden = (masked != features).transpose(1, dim).all(2)
    widths = hidden.sum(1)
    assert widths.max() <= 0.3 * features.shape[dim] + 1
    assert widths.float().mean() > 0.08 * features.shape[dim]
    edges = (hidden[:, 1:] != hidden[:, :-1]).sum(1)
    assert edges.max() <= 2
    fill = masked[0][(masked != features)[0]]
    assert torch.allclose(fill, features[0].mean().expand_as(fill))


def test_noise_has_the_given_size_and_is_repeatable() -> None:
    values = torch.zeros(4000, 3)
    deviation = torch.tensor([1.0, 2.0, 0.0])
    config = AugmentConfig(vector_noise=0.5)
    noisy = augment.vectors(values, deviation, config, generator())
    assert torch.allclose(noisy.std(0), deviation * 0.5, atol=0.05)
    assert torch.equal(noisy, augment.vectors(values, deviation, config, generator()))
    assert abs(float((noisy[:, 0] * noisy[:, 1]).mean())) < 0.05  # of its own in each column
    assert not values.any()  # what is cached stays as it is


def test_the_default_changes_nothing() -> None:
    features = torch.randn(3, 20, 8)
    same = augment.features(features, AugmentConfig(), generator(), front_end="ast")
    assert torch.equal(same, features)
