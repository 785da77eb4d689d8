"""Drawn triplets and quadruplets, as positions and as a PyTorch data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from subgenre.errors import ConfigError, SplitError
from subgenre.training.batches.table import ChunkTable, Ints, chunk_table

if TYPE_CHECKING:
    from subgenre.dataset.folder import FeatureFolder

_TRIPLETS = 1  # apart from the streams of the other draws
_REDRAWS = 100


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
    units = _Units(table)
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


class _Units:
    """The chunks of the table by unit: one recording in one subgenre (or in the trash pool).

    Units are numbered by label: those of label `labels[l]` are `first[l]` to
    `first[l] + count[l] - 1`.
    """

    def __init__(self, table: ChunkTable) -> None:
        self.table = table
        pairs, unit_of = np.unique(
            np.stack([table.label, table.recording], axis=1), axis=0, return_inverse=True
        )
        self.unit_of = unit_of.reshape(-1).astype(np.int64)
        self.n_trash = int((pairs[:, 0] < 0).sum())  # trash comes first, its label being -1
        self.labels, first, count = np.unique(
            pairs[self.n_trash :, 0], return_index=True, return_counts=True
        )
        self.first, self.count = first + self.n_trash, count
        self.place = np.searchsorted(self.labels, table.label)
        self.siblings = np.where(table.label >= 0, self.count[self.place.clip(0)], 0)
        self.chunks = np.argsort(self.unit_of, kind="stable")
        self.chunk_first = np.searchsorted(self.unit_of[self.chunks], np.arange(len(pairs)))
        self.chunk_count = np.bincount(self.unit_of, minlength=len(pairs))

    def positives(self, anchor: Ints, rng: np.random.Generator) -> Ints:
        """Return a chunk of another unit of the anchor's label."""
        place = self.place[anchor]
        own = self.unit_of[anchor] - self.first[place]
        other = rng.integers(self.count[place] - 1)
        return self._chunk(self.first[place] + other + (other >= own), rng)

    def negatives(self, anchor: Ints, rng: np.random.Generator) -> Ints:
        """Return a chunk of another label and another recording."""

        def draw(anchor: Ints) -> Ints:
            other = rng.integers(len(self.labels) - 1, size=len(anchor))
            place = other + (other >= self.place[anchor])
            return self._chunk(self.first[place] + rng.integers(self.count[place]), rng)

        return self._other_recording(anchor, draw)

    def trash(self, anchor: Ints, rng: np.random.Generator) -> Ints:
        """Return a chunk of the trash pool, or of another genre if there is none."""
        if self.n_trash:
            return self._other_recording(
                anchor, lambda some: self._chunk(rng.integers(self.n_trash, size=len(some)), rng)
            )
        genre_of = np.empty(len(self.chunk_count), dtype=np.int64)
        genre_of[self.unit_of] = self.table.genre
        order = np.argsort(genre_of, kind="stable")
        genres, first, count = np.unique(genre_of[order], return_index=True, return_counts=True)
        if len(genres) < 2:
            raise ConfigError(
                "a quadruplet needs trash: there is no trash pool and one genre only; "
                "add a folder of trash, a second genre, or choose another loss"
            )
        place = np.searchsorted(genres, self.table.genre)

        def draw(anchor: Ints) -> Ints:
            # uniform over the units outside the block of the anchor's genre
            own = place[anchor]
            other = rng.integers(len(order) - count[own])
            unit = order[other + np.where(other >= first[own], count[own], 0)]
            return self._chunk(unit, rng)

        return self._other_recording(anchor, draw)

    def _chunk(self, unit: Ints, rng: np.random.Generator) -> Ints:
        """Return a position in the table for each unit."""
        at = self.chunk_first[unit] + rng.integers(self.chunk_count[unit])
        return np.asarray(self.chunks[at])

    def _other_recording(self, anchor: Ints, draw: Callable[[Ints], Ints]) -> Ints:
        """Draw for each anchor until it is not the anchor's own recording."""
        found = draw(anchor)
        recording = self.table.recording
        for _ in range(_REDRAWS):
            again = np.flatnonzero(recording[found] == recording[anchor])
            if not len(again):
                return found
            found[again] = draw(anchor[again])
        raise SplitError(
            f"recording {recording[anchor[again[0]]]} has no negatives: the other subgenres "
            "hold the same recordings; preprocess with --multi exclude"
        )
