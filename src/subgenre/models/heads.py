"""The projection head, or several side by side: linear layers with ReLUs between them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from subgenre.errors import ConfigError


class Members(nn.ModuleList):
    """Heads with first weights of their own, their outputs joined: [B, H] -> [B, D].

    Each is trained by a loss of its own (`losses.MemberLoss`), so that the joint embedding is an
    ensemble: its cosine is the mean of theirs, and their errors partly cancel (Lakshminarayanan et
    al., "Simple and scalable predictive uncertainty estimation using deep ensembles", 2017).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Run every head on the same input and join what they give."""
        return torch.cat([member(x) for member in self], dim=-1)


def build(
    sizes: Sequence[int],
    *,
    dropout: float = 0.0,
    members: int = 1,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """Build a head of layer sizes [H, ..., D], or `members` of them with D / members each.

    Raises:
        ConfigError: D can't be shared evenly.
    """
    if members == 1:
        return _head(sizes, dropout, generator)
    *below, D = sizes
    if D % members:
        raise ConfigError(f"{members} members can't share {D} dimensions evenly")
    return Members(_head([*below, D // members], dropout, generator) for _ in range(members))


def unit(vectors: Tensor, members: int = 1) -> Tensor:
    """Scale each member's share of [..., D] to the same norm, and the whole to norm 1."""
    shares = vectors.view(*vectors.shape[:-1], members, -1)
    return F.normalize(shares, dim=-1, eps=1e-12).flatten(-2) / math.sqrt(members)


def fused(out: Tensor, axes: Tensor, weight: float) -> Tensor:
    """Join unit vectors [..., D] and axes [..., P], scaled to `weight`: [..., D + P] of norm 1.

    The cosine of what comes out is the mean of the two cosines, weighed 1 and weight squared.
    """
    both = torch.cat([out, weight * F.normalize(axes, dim=-1, eps=1e-12)], dim=-1)
    return F.normalize(both, dim=-1, eps=1e-12)


def linear(n_in: int, n_out: int, generator: torch.Generator | None) -> nn.Linear:
    """Draw as torch does, uniform within 1 / sqrt(n_in), but from a generator of our own."""
    with torch.device("meta"):
        linear = nn.Linear(n_in, n_out)
    linear = linear.to_empty(device="cpu")
    bound = n_in**-0.5
    with torch.no_grad():
        linear.weight.uniform_(-bound, bound, generator=generator)
        linear.bias.uniform_(-bound, bound, generator=generator)
    return linear


class Dropout(nn.Dropout):
    """Dropout as torch has it; on a CPU by uniform numbers, which it draws in a third of the time.

    (Srivastava et al. 2014, section 4, scaled in training.)
    """

    def forward(self, x: Tensor) -> Tensor:
        """Drop values of x [..., H], each with probability `p`, and scale up the others."""
        if not self.training or not self.p or x.device.type != "cpu":
            return super().forward(x)
        return x * (torch.rand(x.shape) >= self.p) * (1 / (1 - self.p))


def _head(sizes: Sequence[int], dropout: float, generator: torch.Generator | None) -> nn.Sequential:
    """Linear layers with ReLUs between them, and dropout before each where there is any."""
    parts: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise(sizes):
        if parts:
            parts.append(nn.ReLU())
        if dropout:
            parts.append(Dropout(dropout))
        parts.append(linear(n_in, n_out, generator))
    return nn.Sequential(*parts)
