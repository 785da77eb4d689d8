"""Every loss by its name, behind one interface: a batch's vectors and labels in, one number out.

The pair and proxy losses are pytorch-metric-learning's, imported when one is built.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from subgenre.config import LossConfig
from subgenre.core.validation import check_choice
from subgenre.errors import ConfigError
from subgenre.losses.base import Loss, MemberLoss
from subgenre.losses.mining import batch_triplet_loss, pair_masks, with_activity
from subgenre.losses.supcon import SupConLoss
from subgenre.losses.triplet import (
    LossResult,
    cosine_distances,
    explicit_quadruplets,
    explicit_triplets,
    unit,
)

_PROXY_ANCHOR_MARGIN = 0.1  # the paper's, section 4.2; the configuration's `scale` is its alpha


class TripletLoss(Loss):
    """Triplet loss over the mined triplets of the batch."""

    def forward(
        self, vectors: Tensor, label: Tensor, track: Tensor, recording: Tensor
    ) -> LossResult:
        """See `Loss.forward`."""
        distances = cosine_distances(vectors)
        positive, negative = pair_masks(label, track, recording)
        margin = self.margins(label[:, None], label[None], self.config.margin, distances)
        return batch_triplet_loss(
            distances, positive, negative, margin=margin, mining=self.config.mining
        )

    def explicit(self, vectors: Tensor, label: Tensor) -> LossResult:
        """See `Loss.explicit`; `label` [b, 3]."""
        if vectors.shape[1] != 3:
            return super().explicit(vectors, label)
        margin = self.margins(label[:, 0], label[:, 2], self.config.margin, vectors)
        return explicit_triplets(vectors, margin=margin)


class QuadrupletLoss(Loss):
    """Triplet loss over the batch plus the same against its trash.

    Without trash in the batch, chunks of another genre stand in for it.
    """

    def forward(
        self, vectors: Tensor, label: Tensor, track: Tensor, recording: Tensor
    ) -> LossResult:
        """See `Loss.forward`; `active` and `n` count both hinges."""
        distances = cosine_distances(vectors)
        positive, other = pair_masks(label, track, recording)
        is_trash = (label < 0)[None, :]
        margin = self.margins(label[:, None], label[None], self.config.negative_margin, distances)
        near = batch_triplet_loss(
            distances, positive, other & ~is_trash, margin=margin, mining=self.config.mining
        )
        genre = self.genres(label)
        trash = other & (is_trash if is_trash.any() else genre[:, None] != genre[None, :])
        trash_margin = torch.full_like(distances, self.config.trash_margin)
        far = batch_triplet_loss(distances, positive, trash, margin=trash_margin)
        n = near.n + far.n
        active = (near.active * near.n + far.active * far.n) / max(1, n)
        return LossResult(near.value + self.config.trash_weight * far.value, active, n)

    def explicit(self, vectors: Tensor, label: Tensor) -> LossResult:
        """See `Loss.explicit`; `label` [b, 4]."""
        if vectors.shape[1] != 4:
            return super().explicit(vectors, label)
        margin = self.margins(label[:, 0], label[:, 2], self.config.negative_margin, vectors)
        return explicit_quadruplets(
            vectors,
            negative_margin=margin,
            trash_margin=self.config.trash_margin,
            trash_weight=self.config.trash_weight,
        )


class TrackTripletLoss(TripletLoss):
    """Triplet loss between tracks: a track's chunks are pooled before they are compared.

    A playlist's label belongs to the track; a single chunk, an intro say, need not show it.
    """

    def forward(
        self, vectors: Tensor, label: Tensor, track: Tensor, recording: Tensor
    ) -> LossResult:
        """See `Loss.forward`."""
        _, first, group = _first_of_each(track)
        total = torch.zeros(len(first), vectors.shape[1], device=vectors.device)
        total = total.to(unit(vectors).dtype).index_add(0, group, unit(vectors))
        return super().forward(total, label[first], track[first], recording[first])

    def explicit(self, vectors: Tensor, label: Tensor) -> LossResult:
        """Raise: a drawn triplet holds one chunk a track."""
        return Loss.explicit(self, vectors, label)


class LibraryLoss(Loss):
    """A loss of pytorch-metric-learning, `inner`, behind our interface."""

    def __init__(self, config: LossConfig, label_genre: Tensor, inner: nn.Module) -> None:
        super().__init__(config, label_genre)
        self.inner = inner


class PairLoss(LibraryLoss):
    """A loss over pairs, the library's; two chunks of one track are no pair."""

    def forward(
        self, vectors: Tensor, label: Tensor, track: Tensor, recording: Tensor
    ) -> LossResult:
        """See `Loss.forward`; `active` counts triplets inside the configuration's `margin`."""
        positive, negative = pair_masks(label, track, recording)
        known = label >= 0
        pairs = (
            *positive[known].nonzero(as_tuple=True),
            *negative[known].nonzero(as_tuple=True),
        )
        zero = vectors.sum() * 0
        with torch.autocast(vectors.device.type, enabled=False):
            normed = unit(vectors)
            # trash stands among the references alone, so that it can't water down the mean
            value = self.inner(normed[known], label[known], pairs, normed, label)
        return with_activity(value + zero, vectors, positive, negative, self.config.margin)


class ProxyLoss(LibraryLoss):
    """A loss against one learnt vector a label, the library's; trash takes no part in it."""

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


def build(
    config: LossConfig,
    *,
    n_labels: int,
    embedding_size: int,
    label_genre: Tensor,
    members: int = 1,
    seed: int = 0,
) -> Loss:
    """Build the loss that `config.name` names.

    Args:
        config: its name and numbers.
        n_labels: number of subgenres. embedding_size: D.
        label_genre: genre number of each label, [n_labels].
        members: heads that share D; each gets a loss of its own.
        seed: of the proxies' first values, where it has any.

    Raises:
        ConfigError: an unknown name, or genres that don't match the labels.
    """
    check_choice("loss", config.name, tuple(BUILDERS))
    if len(label_genre) != n_labels:
        raise ConfigError(f"{len(label_genre)} genres were given for {n_labels} labels")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        make, size = BUILDERS[config.name], embedding_size // members
        each = [make(config, n_labels, size, label_genre) for _ in range(members)]
    return each[0] if members == 1 else MemberLoss(each)


def _multi_similarity(config: LossConfig, _n: int, _size: int, genre: Tensor) -> Loss:
    from pytorch_metric_learning import losses as library

    inner = library.MultiSimilarityLoss(alpha=config.alpha, beta=config.beta, base=config.base)
    return PairLoss(config, genre, inner)


def _proxy_anchor(config: LossConfig, n: int, size: int, genre: Tensor) -> Loss:
    from pytorch_metric_learning import losses as library

    inner = library.ProxyAnchorLoss(
        num_classes=n, embedding_size=size, margin=_PROXY_ANCHOR_MARGIN, alpha=config.scale
    )
    return ProxyLoss(config, genre, inner)


def _norm_softmax(config: LossConfig, n: int, size: int, genre: Tensor) -> Loss:
    from pytorch_metric_learning import losses as library

    inner = library.NormalizedSoftmaxLoss(
        num_classes=n, embedding_size=size, temperature=config.temperature
    )
    return ProxyLoss(config, genre, inner)


def _arcface(config: LossConfig, n: int, size: int, genre: Tensor) -> Loss:
    from pytorch_metric_learning import losses as library

    inner = library.ArcFaceLoss(
        num_classes=n, embedding_size=size, margin=config.angular_margin, scale=config.scale
    )
    return ProxyLoss(config, genre, inner)


BUILDERS: dict[str, Callable[[LossConfig, int, int, Tensor], Loss]] = {
    "triplet": lambda config, _n, _size, genre: TripletLoss(config, genre),
    "quadruplet": lambda config, _n, _size, genre: QuadrupletLoss(config, genre),
    "multi_similarity": _multi_similarity,
    "supcon": lambda config, _n, _size, genre: SupConLoss(config, genre),
    "proxy_anchor": _proxy_anchor,
    "norm_softmax": _norm_softmax,
    "arcface": _arcface,
    "track_triplet": lambda config, _n, _size, genre: TrackTripletLoss(config, genre),
}


def _first_of_each(track: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the tracks, ascending, a row of each, and the place of every row among them."""
    tracks, group = torch.unique(track, return_inverse=True)
    rows = torch.arange(len(track), device=track.device)
    first = rows.new_full((len(tracks),), len(track)).scatter_reduce(0, group, rows, "amin")
    return tracks, first, group
