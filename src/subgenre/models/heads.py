"""The projection head: linear layers with ReLUs between them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from subgenre.losses.cosine import unit


def build(
    sizes: Sequence[int], *, dropout: float = 0.0, generator: torch.Generator | None = None
) -> nn.Sequential:
    """Build a head of layer sizes [H, ..., D], with dropout before each linear layer."""
    parts: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise(sizes):
        if parts:
            parts.append(nn.ReLU())
        if dropout:
            parts.append(Dropout(dropout))
        parts.append(linear(n_in, n_out, generator))
    return nn.Sequential(*parts)


def fused(out: Tensor, axes: Tensor, weight: float) -> Tensor:
    """Join unit vectors [..., D] and axes [..., P], scaled to `weight`: [..., D + P] of norm 1.

    The cosine of the result is the mean of the two cosines, weighted 1 and `weight` squared.
    """
    return unit(torch.cat([out, weight * unit(axes)], dim=-1))


def linear(n_in: int, n_out: int, generator: torch.Generator | None) -> nn.Linear:
    """Make a linear layer with weights drawn as by torch, uniform within 1 / sqrt(n_in)."""
    linear = nn.Linear(n_in, n_out, device="meta")  # draws nothing
    bound = n_in**-0.5
    weight, bias = torch.empty(n_out, n_in), torch.empty(n_out)
    linear.weight = nn.Parameter(weight.uniform_(-bound, bound, generator=generator))
    linear.bias = nn.Parameter(bias.uniform_(-bound, bound, generator=generator))
    return linear


class Dropout(nn.Dropout):
    """torch's dropout; on a CPU it draws uniform numbers, which takes a third of the time.

    (Srivastava et al. 2014, section 4, scaled in training.)
    """

    def forward(self, x: Tensor) -> Tensor:
        """Drop values of x [..., H], each with probability `p`, and scale up the others."""
        if not self.training or not self.p or x.device.type != "cpu":
            return super().forward(x)
        return x * (torch.rand(x.shape) >= self.p) * (1 / (1 - self.p))
