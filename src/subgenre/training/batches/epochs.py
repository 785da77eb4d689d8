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
from subgenre.training.batches.triplets import draw_triplets

Ints = NDArray[np.int64]

_ORDER = 2  # apart from the streams of the draws


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
    # in drawn triplets trash is the fourth chunk of a quadruplet, in `pk` batches a negative to all
    trash = loss == "quadruplet" if settings.kind == "triplet" else LOSSES[loss].trash
    table = chunk_table(folder, ids, trash=trash, only=only)
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

    A batch has positions in the table: [b], or [b, 3] of drawn triplets, [b, 4] of quadruplets.

    Raises:
        ConfigError: fewer drawn triplets than processes, `world`.
        ConfigError, SplitError: see `pk_batches` and `draw_triplets`.
    """
    if settings.kind == "triplet":
        drawn = draw_triplets(table, seed=seed, epoch=epoch, quadruplet=quadruplet)
        if len(drawn) < world:
            raise ConfigError(
                f"{len(drawn)} triplets can't be shared by {world} processes; start fewer"
            )
        np.random.default_rng([seed, epoch, _ORDER]).shuffle(drawn)
        size = settings.size * world
        cut = [drawn[start : start + size] for start in range(0, len(drawn), size)]
        return [batch for batch in cut if len(batch) >= world]
    return pk_batches(
        table,
        subgenres=settings.subgenres,
        tracks=settings.tracks * world,
        chunks=settings.chunks,
        same_genre=settings.same_genre,
        seed=seed,
        epoch=epoch,
    )
