"""The chunks of some tracks as parallel arrays, to draw batches from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from subgenre.dataset.folder import FeatureFolder

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class ChunkTable:
    """The chunks of some tracks, as parallel arrays [n] of numbers; trash has label and genre -1.

    Two tracks that are one recording in two subgenres have one number in `recording`; `row` is the
    row in the feature folder.
    """

    label: Ints
    genre: Ints
    track: Ints
    recording: Ints
    row: Ints

    def __len__(self) -> int:
        return len(self.row)


def chunk_table(
    folder: FeatureFolder,
    track_ids: Sequence[str],
    *,
    trash: bool = False,
    only: Ints | None = None,
) -> ChunkTable:
    """Return the chunks of `track_ids`, then, with `trash`, those of the trash pool.

    `only`: rows of the folder to use; by default all.
    """
    row = np.asarray(folder.rows(track_ids), dtype=np.int64)
    if trash and folder.trash:
        row = np.concatenate([row, folder.rows([track.id for track in folder.trash])])
    if only is not None:
        row = row[np.isin(row, only)]
    number = {name: i for i, name in enumerate(sorted(set(folder.genres)))}
    genre_of = np.array([*(number[name] for name in folder.genres), -1], dtype=np.int64)
    ids = np.array([track.id for track in (*folder.tracks, *folder.trash)])
    recording_of = np.unique(ids, return_inverse=True)[1]
    label = np.asarray(folder.label_of, dtype=np.int64)[row]
    track = np.asarray(folder.track_of, dtype=np.int64)[row]
    return ChunkTable(label, genre_of[label], track, recording_of[track].astype(np.int64), row)
