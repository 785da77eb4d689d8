"""Losses of pytorch-metric-learning behind the project's interface.

`build` imports this module when it makes one of them: the library loads scikit-learn.
"""

from __future__ import annotations

from typing import Any

import torch
from pytorch_metric_learning import losses as library
from torch import Tensor, nn

from subgenre.losses.base import Loss, LossResult
from subgenre.losses.cosine import unit
from subgenre.losses.mining import pair_masks, with_activity

_PROXY_ANCHOR_MARGIN = 0.1  # the paper's, section 4.2; the configuration's `scale` is its alpha


class PairLoss(Loss):
    """A loss of the library over pairs, `inner`; two chunks of one track are no pair."""

    inner: nn.Module

    def forward(
        self, vectors: Tensor, label: Tensor, track: Tensor, recording: Tensor
    ) -> LossResult:
        """See `Loss.forward`; `active` counts triplets inside the configuration's `margin`."""
        positive, negative = pair_masks(label, track, recording)
        known = label >= 0
        pairs = (*positive[known].nonzero(as_tuple=True), *negative[known].nonzero(as_tuple=True))
        zero = vectors.sum() * 0
        with torch.autocast(vectors.device.type, enabled=False):
            normed = unit(vectors)
            # trash is a reference only: as an anchor it would dilute the mean
            value = self.inner(normed[known], label[known], pairs, normed, label)
        return with_activity(value + zero, vectors, positive, negative, self.config.margin)


class ProxyLoss(Loss):
    """A loss of the library against one learnt vector per label, `inner`; it ignores trash."""

    inner: nn.Module

    def forward(
        self, vectors: Tensor, label: Tensor, track: Tensor, recording: Tensor
    ) -> LossResult:
        """See `Loss.forward`; `active` counts triplets inside the configuration's `margin`."""
        positive, negative = pair_masks(label, track, recording)
        known = label >= 0
        value = vectors.sum() * 0
        if known.any():
            with torch.autocast(vectors.device.type, enabled=False):
                value = value + self.inner(unit(vectors)[known], label[known])
        return with_activity(value, vectors, positive, negative, self.config.margin)


class MultiSimilarityLoss(PairLoss):
    """Multi-similarity loss (Wang et al., CVPR 2019, equation 15)."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        alpha, beta, base = self.config.alpha, self.config.beta, self.config.base
        self.inner = library.MultiSimilarityLoss(alpha, beta, base)


class ProxyAnchorLoss(ProxyLoss):
    """Proxy-anchor loss (Kim et al., CVPR 2020, equation 4)."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.inner = library.ProxyAnchorLoss(
            self.n_labels, self.embedding_size, _PROXY_ANCHOR_MARGIN, self.config.scale
        )


class NormSoftmaxLoss(ProxyLoss):
    """Normalised softmax loss (Zhai and Wu, BMVC 2019, equation 4)."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.inner = library.NormalizedSoftmaxLoss(
            self.n_labels, self.embedding_size, self.config.temperature
        )


class ArcFaceLoss(ProxyLoss):
    """ArcFace loss (Deng et al., CVPR 2019, equation 3)."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.inner = library.ArcFaceLoss(
            self.n_labels, self.embedding_size, self.config.angular_margin, self.config.scale
        )
