"""Drawn triplets and quadruplets: for training step by step, and as a PyTorch data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from subgenre.errors import SplitError
from subgenre.training.batches.table import ChunkTable, Ints, chunk_table
from subgenre.training.batches.units import Units

if TYPE_CHECKING:
    from subgenre.dataset.folder import FeatureFolder

# One number for each kind of draw, so that no two share a random stream.
_TRIPLETS, _ORDER = 1, 2


def draw_triplets(table: ChunkTable, *, seed: int, epoch: int, quadruplet: bool = False) -> Ints:
    """Draw one triplet or quadruplet for each chunk that can be an anchor, in the table's order.

    Each draw is uniform. Positive: another recording of the anchor's subgenre, then one of its
    chunks. Negative: another subgenre, then another recording of it, then a chunk. Trash: a
    recording of the trash pool, else of another genre. A lone recording of a subgenre is no anchor.

    Returns:
        Positions in the table, [m, 3] or [m, 4].

    Raises:
        SplitError: fewer than two subgenres, or none with two recordings.
        ConfigError: a quadruplet without trash pool and with one genre only.
    """
    units = Units(table)
    if len(units.labels) < 2:
        raise SplitError(
            f"triplets need 2 or more subgenres in training; there are {len(units.labels)}"
        )
    rng = np.random.default_rng([seed, epoch, _TRIPLETS])
    anchor = np.flatnonzero((table.label >= 0) & (units.siblings >= 2))
    if not len(anchor):
        raise SplitError("no subgenre has two training tracks, so no anchor has a positive")
    columns = [anchor, units.positives(anchor, rng), units.negatives(anchor, rng)]
    if quadruplet:
        columns.append(units.trash(anchor, rng))
    return np.stack(columns, axis=1)


def triplet_batches(
    table: ChunkTable,
    *,
    size: int,
    seed: int,
    epoch: int,
    quadruplet: bool = False,
) -> list[Ints]:
    """Return an epoch of `draw_triplets`, shuffled, `size` a step: positions [b, 3 or 4]."""
    drawn = draw_triplets(table, seed=seed, epoch=epoch, quadruplet=quadruplet)
    np.random.default_rng([seed, epoch, _ORDER]).shuffle(drawn)
    return [drawn[start : start + size] for start in range(0, len(drawn), size)]


class TripletAudioDataset(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """One triplet for each training chunk: features of anchor, positive, negative, and trash.

    An item is a dict of un-normalised log-mels [T, F]. The triplets depend on seed and epoch only;
    call `set_epoch` before each epoch. Errors are those of `draw_triplets`.
    """

    def __init__(
        self,
        folder: FeatureFolder,
        track_ids: Sequence[str],
        *,
        seed: int,
        quadruplet: bool = False,
    ) -> None:
        self.folder, self.seed, self.quadruplet = folder, seed, quadruplet
        self.table = chunk_table(folder, track_ids, trash=quadruplet)
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw the triplets of an epoch."""
        self.triplets = draw_triplets(
            self.table, seed=self.seed, epoch=epoch, quadruplet=self.quadruplet
        )

    def __len__(self) -> int:
        return len(self.triplets)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        features = self.folder.load(self.table.row[self.triplets[index]])
        names = ("anchor", "positive", "negative", "trash")[: len(features)]
        return dict(zip(names, features, strict=True))
