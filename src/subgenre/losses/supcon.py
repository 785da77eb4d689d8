"""Supervised contrastive loss, on masks.

The mean of pytorch-metric-learning's leaves out an anchor whose loss is exactly 0; here, as in the
paper, such an anchor counts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from subgenre.losses.base import Loss, LossResult
from subgenre.losses.cosine import similarities
from subgenre.losses.mining import pair_masks, with_activity


class SupConLoss(Loss):
    """Supervised contrastive loss over all pairs (Khosla et al. 2020, equation 2, `L_out`).

    Two chunks of one track are no pair; trash is a negative of everyone, and no anchor.
    """

    def forward(
        self, vectors: Tensor, label: Tensor, track: Tensor, recording: Tensor
    ) -> LossResult:
        """See `Loss.forward`; `active` counts triplets inside the configuration's `margin`."""
        positive, negative = pair_masks(label, track, recording)
        value = vectors.sum() * 0  # nothing to compare: zero, and tied to the graph
        anchor = positive.any(dim=1)
        if anchor.any() and negative.any():
            logits = similarities(vectors) / self.config.temperature
            # a row that is no anchor keeps all: -inf alone would make its gradient no number
            left_out = ~(positive | negative) & anchor[:, None]
            total = logits.masked_fill(left_out, -torch.inf).logsumexp(dim=1)
            mean = (logits * positive).sum(dim=1) / positive.sum(dim=1).clamp(min=1)
            value = value + (total - mean)[anchor].mean()
        return with_activity(value, vectors, positive, negative, self.config.margin)
