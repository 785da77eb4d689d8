"""Cosines of vectors, with gradients that stay finite."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# Below this norm a vector counts as having no direction: the division by it must not overflow.
_SMALLEST_NORM = 1e-6


def unit(vectors: Tensor) -> Tensor:
    """Return `vectors` [..., D] at norm 1, in single precision or better.

    A zero vector stays zero and gets a finite gradient.
    """
    if vectors.dtype in (torch.float16, torch.bfloat16):
        vectors = vectors.float()
    return F.normalize(vectors, dim=-1, eps=_SMALLEST_NORM)


def cosine_distances(vectors: Tensor, anchors: Tensor | None = None) -> Tensor:
    """Return the distances 1 - cos between all rows of `vectors` [B, D], as [B, B], 0 to 2.

    With `anchors`, places [A], only those rows of them: [A, B].
    """
    return 1 - similarities(vectors, anchors)


def similarities(vectors: Tensor, anchors: Tensor | None = None) -> Tensor:
    """Return the cosines of all rows, -1 to 1; arguments and shapes as of `cosine_distances`."""
    # Autocast would do this product in bfloat16, whose steps are as wide as a fine margin.
    with torch.autocast(vectors.device.type, enabled=False):
        normed = unit(vectors)
        if anchors is not None:
            return normed[anchors] @ normed.T
        products: Tensor = _Products.apply(normed)  # type: ignore[no-untyped-call]
        return products


class _Products(torch.autograd.Function):
    """X X^T; its gradient (G + G^T) X takes one product, where autograd would take two."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x @ x.T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        found: Tensor = (gradient + gradient.T) @ x
        return found


def share(part: int, whole: int) -> float:
    """Return part / whole, 0 where there is no whole."""
    return part / whole if whole else 0.0
