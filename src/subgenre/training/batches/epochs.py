"""The batches of one epoch, by the `[batch]` section of a recipe."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from subgenre.config import LOSSES, BatchConfig
from subgenre.dataset.folder import FeatureFolder
from subgenre.errors import ConfigError
from subgenre.training.batches.pk import pk_batches
from subgenre.training.batches.table import ChunkTable, chunk_table
from subgenre.training.batches.triplets import triplet_batches

Ints = NDArray[np.int64]


def takes_trash(settings: BatchConfig, loss: str) -> bool:
    """Return whether training uses the trash pool, if there is one.

    It gives the fourth chunk of a quadruplet; in `pk` batches it is a negative to all chunks.
    """
    return loss == "quadruplet" if settings.kind == "triplet" else LOSSES[loss].trash


def learnt_chunks(
    folder: FeatureFolder,
    ids: Sequence[str],
    settings: BatchConfig,
    loss: str,
    *,
    only: Ints | None = None,
) -> ChunkTable:
    """Return the chunks to learn from, after a check that batches can be drawn from them.

    `only`: rows of the chunks to use, by default all. Errors are those of `epoch_batches`.
    """
    table = chunk_table(folder, ids, trash=takes_trash(settings, loss), only=only)
    epoch_batches(table, settings, quadruplet=loss == "quadruplet", seed=0, epoch=0)
    return table


def epoch_batches(
    table: ChunkTable,
    settings: BatchConfig,
    *,
    quadruplet: bool,
    seed: int,
    epoch: int,
    world: int = 1,
) -> list[Ints]:
    """Return the whole batches of an epoch, the same in every process.

    N processes with batches of B share batches of N x B. A last batch of drawn triplets with fewer
    rows than processes is left out.

    Returns:
        Positions in the table: [b], or [b, 3] of drawn triplets, [b, 4] of quadruplets.

    Raises:
        ConfigError: fewer drawn triplets than processes `world`.
        ConfigError, SplitError: see `pk_batches` and `draw_triplets`.
    """
    if settings.kind == "triplet":
        size = settings.size * world
        drawn = triplet_batches(table, size=size, seed=seed, epoch=epoch, quadruplet=quadruplet)
        shared = [batch for batch in drawn if len(batch) >= world]
        if not shared:
            raise ConfigError(
                f"{sum(map(len, drawn))} triplets can't be shared by {world} processes; start fewer"
            )
        return shared
    return pk_batches(
        table,
        subgenres=settings.subgenres,
        tracks=settings.tracks * world,
        chunks=settings.chunks,
        same_genre=settings.same_genre,
        seed=seed,
        epoch=epoch,
    )
