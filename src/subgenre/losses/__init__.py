"""Losses on cosine distance: vectors and labels of a batch in, one number out.

The project's own are the triplet, quadruplet and supervised contrastive losses; the others are
those of pytorch-metric-learning. `build` makes any of them from a configuration.
"""

from subgenre.losses.base import Loss, LossResult, build
from subgenre.losses.triplet import quadruplet_loss, triplet_loss

__all__ = ["Loss", "LossResult", "build", "quadruplet_loss", "triplet_loss"]
