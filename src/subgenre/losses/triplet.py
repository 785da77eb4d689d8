"""Triplet and quadruplet loss on cosine distance, d = 1 - cos.

Triplet loss: Schroff, Kalenichenko, Philbin, "FaceNet" (CVPR 2015), equation 2, with the cosine
distance in place of the squared Euclidean one. Quadruplet loss: the same with a second hinge that
keeps a trash sample, music of no subgenre, farther than another subgenre.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from subgenre.losses.base import Loss, LossResult
from subgenre.losses.cosine import cosine_distances, share, unit
from subgenre.losses.mining import batch_triplet_loss, pair_masks


def _distance(left: Tensor, right: Tensor) -> Tensor:
    return 1 - (unit(left) * unit(right)).sum(dim=-1)


def triplet_loss(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 0.3) -> Tensor:
    """Return the mean of max(0, d(a, p) - d(a, n) + margin) over the rows of three [B, D].

    No rows give a zero that is tied to the graph. Source: FaceNet, equation 2.
    """
    hinge = F.relu(_distance(anchor, positive) - _distance(anchor, negative) + margin)
    return hinge.sum() / max(1, hinge.numel())


def quadruplet_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    trash: Tensor,
    *,
    negative_margin: float = 0.2,
    trash_margin: float = 0.5,
    trash_weight: float = 1.0,
) -> Tensor:
    """Return the mean over the rows of four [B, D] of the hinge to the negative plus that to trash.

    max(0, d(a, p) - d(a, n) + negative_margin) + w max(0, d(a, p) - d(a, t) + trash_margin).
    """
    to_negative = triplet_loss(anchor, positive, negative, negative_margin)
    return to_negative + trash_weight * triplet_loss(anchor, positive, trash, trash_margin)


def explicit_triplets(vectors: Tensor, margin: float) -> LossResult:
    """Return the triplet loss of drawn `vectors` [b, 3, D]: anchor, positive, negative."""
    anchor, positive, negative = vectors.unbind(dim=1)
    value = triplet_loss(anchor, positive, negative, margin)
    with torch.no_grad():
        active = _distance(anchor, positive) - _distance(anchor, negative) + margin > 0
    return LossResult(value, share(int(active.sum()), active.numel()), active.numel())


class TripletLoss(Loss):
    """Triplet loss over the mined triplets of the batch."""

    def forward(
        self, vectors: Tensor, label: Tensor, track: Tensor, recording: Tensor
    ) -> LossResult:
        """See `Loss.forward`."""
        masks = pair_masks(label, track, recording)
        margin, mining = self.config.margin, self.config.mining
        return batch_triplet_loss(cosine_distances(vectors), *masks, margin=margin, mining=mining)

    def explicit(self, vectors: Tensor) -> LossResult:
        """See `Loss.explicit`."""
        return explicit_triplets(vectors, self.config.margin)


class QuadrupletLoss(Loss):
    """Triplet loss over the batch plus the same against its trash.

    Without trash in the batch, chunks of another genre take its place.
    """

    def forward(
        self, vectors: Tensor, label: Tensor, track: Tensor, recording: Tensor
    ) -> LossResult:
        """See `Loss.forward`; `active` and `n` count both hinges."""
        distances = cosine_distances(vectors)
        positive, other = pair_masks(label, track, recording)
        is_trash = (label < 0)[None, :]
        near = batch_triplet_loss(
            distances,
            positive,
            other & ~is_trash,
            margin=self.config.negative_margin,
            mining=self.config.mining,
        )
        genre = self.label_genre[label]  # unused where there is trash, which has none
        trash = other & (is_trash if is_trash.any() else genre[:, None] != genre[None, :])
        far = batch_triplet_loss(distances, positive, trash, margin=self.config.trash_margin)
        n = near.n + far.n
        active = (near.active * near.n + far.active * far.n) / max(1, n)
        return LossResult(near.value + self.config.trash_weight * far.value, active, n)

    def explicit(self, vectors: Tensor) -> LossResult:
        """See `Loss.explicit`; `active` and `n` count both hinges."""
        near = explicit_triplets(vectors[:, :3], self.config.negative_margin)
        far = explicit_triplets(vectors[:, [0, 1, 3]], self.config.trash_margin)
        value = near.value + self.config.trash_weight * far.value
        return LossResult(value, (near.active + far.active) / 2, near.n + far.n)
