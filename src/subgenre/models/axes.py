"""Standardisation of the pooled vectors, and their principal axes, set before a training begins."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from subgenre.dataset.track_vectors import CONSTANT
from subgenre.models.encoder import Encoder

_NO_AXIS = 1e-6  # an axis that varies by less than this share of the first is rounding
_STILL = 1e-2  # a column that varies by less than this share of its size hardly varies


def standardise(
    encoder: Encoder, pooled: NDArray[np.float32], *, backbone_learns: bool = False
) -> None:
    """Set the encoder's pooled statistics, and its axes, by training chunks [n, H].

    Where the backbone learns, a column that hardly varied is left out: with the first step it would
    be thousands of its deviations off.

    The axes are the principal ones of the standardised chunks. Each is divided by the square root
    of its deviation: whitened half way, so that the first few do not drown what sets siblings
    apart, nor the last be raised to noise.
    """
    values = torch.from_numpy(pooled.astype(np.float64))
    constant = _STILL if backbone_learns else CONSTANT
    encoder.set_pooled_statistics(values.mean(0), values.std(0, correction=0), constant=constant)
    if encoder.axes is not None:
        whole = (values - encoder.pooled_mean) / encoder.pooled_std
        encoder.set_axes(_half_white(whole, encoder.axes.shape[1]))


def _half_white(values: Tensor, n_axes: int) -> Tensor:
    """Principal axes [H, n_axes] of values [n, H], scaled; 0 beyond the rank of the values."""
    _, scale, right = torch.linalg.svd(values - values.mean(0), full_matrices=False)
    deviation = scale / len(values) ** 0.5
    n = min(n_axes, int((deviation > _NO_AXIS * deviation[0]).sum()))
    right, deviation = right[:n], deviation[:n]
    # a sign is free in an SVD: the largest loading of each axis points up
    largest = right.gather(1, right.abs().argmax(1, keepdim=True))
    axes = (right * largest.sign() / deviation[:, None].sqrt()).T
    axes = axes / deviation.mean().sqrt()  # the turned values have a mean variance of 1
    return torch.nn.functional.pad(axes, (0, n_axes - n))
