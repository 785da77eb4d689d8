"""Triplet and quadruplet loss on cosine distance, d = 1 - cos.

Triplet loss: Schroff, Kalenichenko, Philbin, "FaceNet" (CVPR 2015), equation 2, with the cosine
distance in place of the squared Euclidean one. Quadruplet loss: the same with a second hinge that
keeps a trash sample, music of no subgenre, further off than another subgenre.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# Below this norm a vector counts as having no direction: the division by it must not overflow.
_SMALLEST_NORM = 1e-6


@dataclass(frozen=True)
class LossResult:
    """What a loss gives for one batch.

    Attributes:
        value: scalar, tied to the graph of the vectors even where it is zero.
        active: share of the compared triplets that still break the margin, 0 to 1. A loss that is
            not made of triplets counts those of 64 anchors at most.
        n: triplets compared.
    """

    value: Tensor
    active: float
    n: int


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


def _distance(left: Tensor, right: Tensor) -> Tensor:
    return 1 - (unit(left) * unit(right)).sum(dim=-1)


def triplet_loss(
    anchor: Tensor, positive: Tensor, negative: Tensor, margin: float | Tensor = 0.3
) -> Tensor:
    """Return the mean of max(0, d(a, p) - d(a, n) + margin) over the rows of three [B, D].

    `margin` is one number or one a row, [B]. No rows give a zero that is tied to the graph.
    Source: FaceNet, equation 2.
    """
    hinge = F.relu(_distance(anchor, positive) - _distance(anchor, negative) + margin)
    return hinge.sum() / max(1, hinge.numel())


def quadruplet_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    trash: Tensor,
    *,
    negative_margin: float | Tensor = 0.2,
    trash_margin: float = 0.5,
    trash_weight: float = 1.0,
) -> Tensor:
    """Return the mean over the rows of four [B, D] of the hinge to the negative plus that to trash.

    max(0, d(a, p) - d(a, n) + negative_margin) + w max(0, d(a, p) - d(a, t) + trash_margin).
    """
    to_negative = triplet_loss(anchor, positive, negative, negative_margin)
    return to_negative + trash_weight * triplet_loss(anchor, positive, trash, trash_margin)


def explicit_triplets(vectors: Tensor, *, margin: float | Tensor = 0.3) -> LossResult:
    """Triplet loss of drawn triplets, `vectors` [b, 3, D]: anchor, positive, negative."""
    anchor, positive, negative = vectors.unbind(dim=1)
    value = triplet_loss(anchor, positive, negative, margin)
    with torch.no_grad():
        active = _distance(anchor, positive) - _distance(anchor, negative) + margin > 0
    return LossResult(value, share(int(active.sum()), active.numel()), active.numel())


def explicit_quadruplets(
    vectors: Tensor,
    *,
    negative_margin: float | Tensor = 0.2,
    trash_margin: float = 0.5,
    trash_weight: float = 1.0,
) -> LossResult:
    """Quadruplet loss of drawn quadruplets, `vectors` [b, 4, D]: a, p, n and trash.

    `active` and `n` count both hinges.
    """
    to_negative = explicit_triplets(vectors[:, :3], margin=negative_margin)
    to_trash = explicit_triplets(vectors[:, [0, 1, 3]], margin=trash_margin)
    return LossResult(
        to_negative.value + trash_weight * to_trash.value,
        (to_negative.active + to_trash.active) / 2,
        to_negative.n + to_trash.n,
    )


def share(part: int, whole: int) -> float:
    """Return part / whole, 0 where there is no whole."""
    return part / whole if whole else 0.0
