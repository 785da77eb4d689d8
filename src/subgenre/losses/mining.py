"""Which triplets of a batch count, and the triplet loss over them.

A valid triplet: anchor and positive of one label and of two tracks; a negative of another label and
another recording. Trash (label -1) is a negative for everyone and anchor or positive for none.

`none` takes every valid triplet, `semihard` those with d(a, p) < d(a, n) < d(a, p) + margin
(FaceNet, section 3.2), `hard` the farthest positive and the nearest negative of each anchor
(Hermans, Beyer, Leibe, "In Defense of the Triplet Loss", 2017, equation 5).

The miners of pytorch-metric-learning take labels only, so two chunks of one track would be a
positive pair; with them, loss and gradient take 1.1 to 10 times as long (`benchmarks/mining.py`).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from subgenre.losses.base import LossResult
from subgenre.losses.cosine import cosine_distances, share

# Numbers held at once while a batch's triplets are gone through (32 MB of float32).
_BLOCK_NUMBERS = 8_000_000
_WATCHED_ANCHORS = 64  # a share of a hundred thousand triplets and more is known well enough


def pair_masks(label: Tensor, track: Tensor, recording: Tensor) -> tuple[Tensor, Tensor]:
    """Return the positives and the negatives of each anchor, two boolean [B, B].

    `label`, `track`, `recording`: whole numbers [B]; label -1 is trash.
    """
    known = label >= 0
    same_label = label[:, None] == label[None, :]
    other_track = track[:, None] != track[None, :]
    other_recording = recording[:, None] != recording[None, :]
    positive = same_label & other_track & other_recording & known[:, None]
    negative = ~same_label & other_recording & known[:, None]
    return positive, negative


def batch_triplet_loss(
    distances: Tensor, positive: Tensor, negative: Tensor, *, margin: float, mining: str = "none"
) -> LossResult:
    """Return the mean of max(0, d(a, p) - d(a, n) + margin) over the mined triplets.

    `distances` [B, B]; `positive`, `negative` boolean [B, B] as `pair_masks` gives. No triplet
    gives a zero that is tied to the graph of `distances`.
    """
    # With the set of active triplets fixed the loss is linear in the distances: the weight of
    # d(a, p) is the number of its active negatives, that of d(a, n) minus the number of its active
    # positives. So value and gradient need one [B, B] matrix in the graph, not all triplets.
    weight = torch.zeros_like(distances)
    n = n_active = 0
    fixed = distances.detach()
    for anchors, positives, mask in _blocks(fixed, positive, negative, margin, mining):
        hinge = fixed[anchors, positives][:, None] - fixed[anchors] + margin
        active = mask & (hinge > 0)
        weight.index_put_((anchors, positives), active.sum(dim=1).to(weight), accumulate=True)
        weight.index_add_(0, anchors, -active.to(weight))
        n += int(mask.sum())
        n_active += int(active.sum())
    # not weight * 0: a distance that is not a number must not hide behind a weight of zero
    value = ((weight * distances).sum() + margin * n_active) / max(1, n)
    return LossResult(value, share(n_active, n), n)


def with_activity(
    value: Tensor, vectors: Tensor, positive: Tensor, negative: Tensor, margin: float
) -> LossResult:
    """Add the share of triplets inside the margin, which shows a collapse under any loss.

    In a large batch it is counted for some anchors alone, spread evenly over the batch: for all of
    them it would take as long as the loss. The negatives of an anchor are sorted once, so it takes
    A B log B steps and not one for each triplet.
    """
    n = int((positive.sum(dim=1) * negative.sum(dim=1)).sum())
    watched = min(len(vectors), _WATCHED_ANCHORS)
    anchors = torch.arange(watched, device=vectors.device) * len(vectors) // max(1, watched)
    positive, negative = positive[anchors], negative[anchors]
    with torch.no_grad():
        distances = cosine_distances(vectors.detach(), anchors)
        nearest = distances.masked_fill(~negative, torch.inf).sort(dim=1).values
        nearer = torch.searchsorted(nearest, (distances + margin).contiguous())
        active = int((nearer * positive).sum())
    watched_triplets = int((positive.sum(dim=1) * negative.sum(dim=1)).sum())
    return LossResult(value, share(active, watched_triplets), n)


def _blocks(
    distances: Tensor, positive: Tensor, negative: Tensor, margin: float, mining: str
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield anchors [m], positives [m] and the mask [m, B] of the negatives that count for them."""
    if mining == "hard":
        anchors = (positive.any(dim=1) & negative.any(dim=1)).nonzero(as_tuple=True)[0]
        rows = distances[anchors]
        far = rows.masked_fill(~positive[anchors], -torch.inf).argmax(dim=1)
        near = rows.masked_fill(~negative[anchors], torch.inf).argmin(dim=1)
        yield anchors, far, functional.one_hot(near, len(distances)).bool()
        return
    anchors, positives = positive.nonzero(as_tuple=True)
    step = max(1, _BLOCK_NUMBERS // max(1, distances.shape[0]))
    for start in range(0, len(anchors), step):
        a, p = anchors[start : start + step], positives[start : start + step]
        mask = negative[a]
        if mining == "semihard":
            to_positive = distances[a, p][:, None]
            beyond = distances[a] > to_positive
            mask = mask & beyond & (distances[a] < to_positive + margin)
        yield a, p, mask
