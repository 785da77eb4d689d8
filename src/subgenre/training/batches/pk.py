"""Batches of P subgenres x K tracks x C chunks.

The P x K layout: Hermans, Beyer, Leibe, "In Defense of the Triplet Loss for Person
Re-Identification" (2017), section 2.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from subgenre.errors import ConfigError, SplitError
from subgenre.training.batches.table import ChunkTable, Ints

_PK = 3  # apart from the streams of the drawn triplets


def pk_batches(
    table: ChunkTable,
    *,
    subgenres: int,
    tracks: int,
    chunks: int,
    same_genre: float,
    seed: int,
    epoch: int,
) -> list[Ints]:
    """Return an epoch of batches of P subgenres x K tracks x C chunks: positions in the table [b].

    An epoch draws each chunk about once: subgenres are drawn by the chunks that they have left, and
    in a subgenre the tracks and chunks drawn least come first. All epochs have the same number of
    batches. If the table has trash, K tracks x C chunks of it are added to every batch; if K is 0,
    as many tracks as the largest subgenre has.

    Args:
        subgenres: P. tracks: K, of each subgenre. chunks: C, of each track. 0: all.
        same_genre: share of the batches, over all epochs, with subgenres of one genre.

    Raises:
        ConfigError: P or K of 1.
        SplitError: fewer than two subgenres, or none with two tracks.
    """
    if subgenres == 1 or tracks == 1:
        raise ConfigError(
            f"a batch of {subgenres} subgenres x {tracks} tracks has no triplet; choose 2 or more "
            "of both, or 0 for all"
        )
    deck = _Deck(table, np.random.default_rng([seed, epoch, _PK]))
    batches: list[Ints] = []
    steps = deck.steps(subgenres, tracks, chunks, same_genre)
    for step in range(epoch * steps, (epoch + 1) * steps):  # a share holds over short epochs too
        of_one_genre = int((step + 1) * same_genre) > int(step * same_genre)
        names = deck.labels(subgenres, of_one_genre)
        batch = [deck.chunks(label, tracks, chunks) for label in names]
        if (table.label < 0).any():
            most = max(len(deck.tracks[label]) for label in names)
            batch.append(deck.chunks(-1, tracks or most, chunks))
        batches.append(np.concatenate(batch))
    return batches


class _Deck:
    """The chunks of each label by track, and how often each was drawn.

    A batch looks at all tracks of its labels, so what it does with each is left to numpy.
    """

    def __init__(self, table: ChunkTable, rng: np.random.Generator) -> None:
        self.rng = rng
        self.genre = table.genre
        self.tracks: dict[int, list[Ints]] = {}
        self.times_of: dict[int, Ints] = {}  # of the chunks of each track together
        self.sizes: dict[int, Ints] = {}
        for label in np.unique(table.label):
            positions = np.flatnonzero(table.label == label)
            positions = positions[np.argsort(table.track[positions], kind="stable")]
            first = np.unique(table.track[positions], return_index=True)[1]
            self.tracks[int(label)] = np.split(positions, first[1:])
            self.sizes[int(label)] = np.diff(first, append=len(positions))
            self.times_of[int(label)] = np.zeros(len(first), dtype=np.int64)
        self.names = np.array([label for label in self.tracks if label >= 0], dtype=np.int64)
        if len(self.names) < 2 or all(len(self.tracks[int(n)]) < 2 for n in self.names):
            raise SplitError(
                f"batches need 2 or more subgenres in training, one of them with 2 tracks; there "
                f"are {len(self.names)}"
            )
        self.genre_of = np.array([self.genre[self.tracks[int(n)][0][0]] for n in self.names])
        self.size = np.array([self.sizes[int(n)].sum() for n in self.names])
        self.drawn_of = np.zeros(len(self.names), dtype=np.int64)
        self.times = np.zeros(len(table), dtype=np.int64)
        genres, count = np.unique(self.genre_of, return_counts=True)
        self.genres = genres[count >= 2]

    def steps(self, n_labels: int, n_tracks: int, n_chunks: int, same_genre: float) -> int:
        """Return the number of batches that draw each chunk once, by their expected size."""
        of_label = np.array(
            [
                min(n_tracks or len(sizes), len(sizes))
                * np.mean(np.minimum(n_chunks, sizes) if n_chunks else sizes)
                for sizes in (self.sizes[int(name)] for name in self.names)
            ]
        )
        share = same_genre if len(self.genres) else 0.0
        groups = [self.genre_of == g for g in self.genres]
        weights = [self.size[inside].sum() for inside in groups]

        def expected(inside: NDArray[np.bool_]) -> float:
            n = min(n_labels, int(inside.sum())) or int(inside.sum())
            return float(n * np.average(of_label[inside], weights=self.size[inside]))

        across = expected(np.ones(len(self.names), dtype=bool))
        within = float(np.average([expected(g) for g in groups], weights=weights)) if share else 0.0
        batch = share * within + (1 - share) * across
        return math.ceil(float(self.size.sum()) / batch - 1e-9)

    def labels(self, n: int, of_one_genre: bool) -> list[int]:
        """Draw `n` labels (0: all); a label with more chunks left is likelier."""
        left = np.maximum(self.size - self.drawn_of, 0) + 1e-3
        places = np.arange(len(self.names))
        if of_one_genre and len(self.genres):
            weight = np.array([left[self.genre_of == g].sum() for g in self.genres])
            chosen = self.rng.choice(self.genres, p=weight / weight.sum())
            places = np.flatnonzero(self.genre_of == chosen)
        n = min(n, len(places)) or len(places)
        chance = left[places] / left[places].sum()
        return [int(self.names[i]) for i in self.rng.choice(places, n, replace=False, p=chance)]

    def chunks(self, label: int, n_tracks: int, n_chunks: int) -> Ints:
        """Draw chunks of one label (-1: trash), those drawn least first."""
        tracks = self.tracks[label]
        chosen = self._least(self.times_of[label] / self.sizes[label], n_tracks)
        found = [tracks[i][self._least(self.times[tracks[i]], n_chunks)] for i in chosen]
        positions = np.concatenate(found)
        self.times[positions] += 1
        self.times_of[label][chosen] += [len(drawn) for drawn in found]
        if label >= 0:
            self.drawn_of[np.searchsorted(self.names, label)] += len(positions)
        return positions

    def _least(self, times: np.ndarray, n: int) -> Ints:
        """Return the positions of the `n` smallest (0: all), ties in random order."""
        tie = self.rng.random(len(times))
        if not 0 < n < len(times):
            return np.lexsort((tie, times))
        # a whole sort would take most of the time of a large library
        least = np.partition(times, n - 1)[n - 1]
        some, equal = np.flatnonzero(times < least), np.flatnonzero(times == least)
        needed = n - len(some)
        equal = equal[np.argpartition(tie[equal], needed - 1)[:needed]]
        some = np.concatenate([some, equal])
        return some[np.lexsort((tie[some], times[some]))]
