"""Losses on cosine distance: triplet, quadruplet, and those of pytorch-metric-learning.

`build` makes any of them from a configuration, behind one interface.
"""

from subgenre.losses.base import Loss, MemberLoss
from subgenre.losses.mining import mine, pair_masks
from subgenre.losses.registry import BUILDERS, build
from subgenre.losses.triplet import (
    LossResult,
    cosine_distances,
    explicit_quadruplets,
    explicit_triplets,
    quadruplet_loss,
    triplet_loss,
    unit,
)

__all__ = [
    "BUILDERS",
    "Loss",
    "LossResult",
    "MemberLoss",
    "build",
    "cosine_distances",
    "explicit_quadruplets",
    "explicit_triplets",
    "mine",
    "pair_masks",
    "quadruplet_loss",
    "triplet_loss",
    "unit",
]
