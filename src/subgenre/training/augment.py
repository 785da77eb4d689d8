"""Augmentation of un-normalised log-mels and of pooled vectors.

Every function returns a new tensor and draws from an explicit generator: training is repeatable.
"""

from __future__ import annotations

import torch
from torch import Tensor

from subgenre.audio.features import FRONT_ENDS
from subgenre.config import AugmentConfig

# A gain of x dB on samples multiplies their power by 10 ** (x / 10).
_NEPER_PER_DB = 0.2302585092994046


def gain(
    features: Tensor, largest_db: float, generator: torch.Generator, *, front_end: str
) -> Tensor:
    """Change the level of each chunk [T, F] by up to `largest_db`, either way; padding stays 0."""
    db = (torch.rand(len(features), generator=generator) * 2 - 1) * largest_db
    neper = (db * _NEPER_PER_DB).to(features.device)[:, None, None]
    return FRONT_ENDS[front_end].gain(features, neper)


def mask(features: Tensor, share: float, dim: int, generator: torch.Generator) -> Tensor:
    """Set one random stripe of each chunk to its mean: SpecAugment (Park et al. 2019, s. 2).

    `features` [B, T, F]; the stripe is at most `share` of `dim`, 1 for time, 2 for frequency.
    """
    length = features.shape[dim]
    width = torch.rand(len(features), generator=generator) * share * length
    start = torch.rand(len(features), generator=generator) * (length - width)
    place = torch.arange(length)
    stripe = (place >= start[:, None]) & (place < (start + width)[:, None])
    stripe = stripe.to(features.device).unsqueeze(3 - dim)
    return torch.where(stripe, features.mean((1, 2), keepdim=True), features)


def features(
    values: Tensor, config: AugmentConfig, generator: torch.Generator, *, front_end: str
) -> Tensor:
    """Augment log-mels [B, T, F]: gain, then masks."""
    if config.gain_db:
        values = gain(values, config.gain_db, generator, front_end=front_end)
    if config.time_mask:
        values = mask(values, config.time_mask, 1, generator)
    if config.freq_mask:
        values = mask(values, config.freq_mask, 2, generator)
    return values


def vectors(
    values: Tensor, deviation: Tensor, config: AugmentConfig, generator: torch.Generator
) -> Tensor:
    """Add noise to pooled vectors [B, H], in units of `deviation` [H]."""
    if not config.vector_noise:
        return values
    scale = deviation * config.vector_noise
    varies = scale.nonzero().flatten()  # only a third of musicnn's columns does
    noise = torch.randn((len(values), len(varies)), generator=generator).to(values.device)
    return values.index_add(1, varies, noise * scale[varies])
