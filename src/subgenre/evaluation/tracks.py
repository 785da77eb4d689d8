"""The tracks of a feature folder as an evaluation needs them, and their vectors by a model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from subgenre.audio import measures
from subgenre.audio.features import Statistics
from subgenre.core import hardware
from subgenre.core.progress import Console
from subgenre.dataset import track_vectors
from subgenre.dataset.folder import FeatureFolder
from subgenre.dataset.splits import Split
from subgenre.evaluation.audits import probe
from subgenre.evaluation.audits.confounders import track_columns
from subgenre.evaluation.baselines import Fold, column_vectors, probe_vectors
from subgenre.metrics.vectors import BLOCK, Floats, Ints, blocks
from subgenre.models import embedding
from subgenre.models.backbones import Backbone
from subgenre.models.cache import CACHE, ArrayCache, key
from subgenre.models.encoder import Encoder

_READ_AT_ONCE = 64  # chunks
_MOMENTS_VERSION = 1


@dataclass(frozen=True, eq=False)
class EvaluationTracks:
    """N labelled tracks in the order of their feature folder."""

    folder: FeatureFolder

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Ids of the tracks, [N]."""
        return tuple(track.id for track in self.folder.tracks)

    @cached_property
    def labels(self) -> Ints:
        """Class number of each track, [N]."""
        labels = np.full(len(self.folder.tracks), -1, dtype=np.int64)
        labels[self.track_of] = self.folder.label_of[self.rows]
        return labels

    @cached_property
    def genres(self) -> Ints:
        """Genre number of each subgenre, [C]."""
        number = {genre: i for i, genre in enumerate(sorted(set(self.folder.genres)))}
        return np.array([number[genre] for genre in self.folder.genres], dtype=np.int64)

    @cached_property
    def rows(self) -> Ints:
        """Rows of the folder's chunks that are not trash, ascending."""
        return np.flatnonzero(self.folder.label_of >= 0)

    @property
    def track_of(self) -> Ints:
        """Track of each of `rows`."""
        return self.folder.track_of[self.rows]

    @cached_property
    def columns(self) -> dict[str, NDArray[np.generic]]:
        """Measured and tagged columns of the tracks, [N] each; NaN or "" where unknown."""
        chunks = self.folder.chunks
        values = {name: chunks[name].to_numpy()[self.rows] for name in measures.COLUMNS}
        return track_columns(self.folder.tracks, values, self.track_of)

    def pooled(
        self,
        model: Encoder | Backbone,
        device: str,
        console: Console,
        statistics: Statistics | None = None,
    ) -> NDArray[np.float32]:
        """Return the output of a frozen backbone for all chunks, [n, H]; it is cached.

        Args:
            statistics: as for `embedding.pooled_vectors`.
        """
        with console.progress("backbone") as bar:
            return embedding.pooled_vectors(
                model,
                self.folder,
                np.arange(len(self.folder.track_of)),
                cache=self.folder.path / CACHE,
                device=hardware.pick_device(device),
                statistics=statistics,
                on_progress=bar,
            )

    def means(self, pooled: NDArray[np.floating]) -> Floats:
        """Average the output of a frozen backbone [n, H] by track: [N, H]."""
        total = np.zeros((len(self.ids), pooled.shape[1]))
        for start, values in enumerate(blocks(pooled, self.rows)):
            np.add.at(total, self.track_of[start * BLOCK :][: len(values)], values)
        return np.asarray(total / np.bincount(self.track_of)[:, None])

    def fold(
        self,
        split: Split,
        trained: NDArray[np.floating],
        pooled: NDArray[np.floating],
        *,
        seed: int = 0,
    ) -> Fold:
        """Gather the vectors of the model and its baselines on one split.

        Args:
            trained: [N, D] by the encoder of this split; rows of other tracks don't matter.
            pooled: [n, H] of all chunks, by the backbone as it was before training.
        """
        ((train, test),) = probe.fold_positions([split], self.ids)
        _, frozen = track_vectors.frozen_track_vectors(
            pooled, self.folder.track_of, self.folder.rows(split.train), self.rows
        )
        numbers = np.stack([self.columns[name] for name in ("tempo_bpm", "loudness_lufs")], axis=1)
        vectors: dict[str, NDArray[np.floating]] = {
            "tempo_loudness": column_vectors(numbers, train),
            # of samples there is one band, whose mean and deviation are its level
            **({"mean_log_mel": column_vectors(self.log_mel, train)} if self.has_bands else {}),
            "frozen": frozen,
            "probe": probe_vectors(frozen, self.labels, train, test, seed=seed),
            "trained": trained,
        }
        return Fold(train, test, vectors)

    @property
    def has_bands(self) -> bool:
        """Whether the features are log-mel, not samples."""
        return self.folder.spec.n_mels > 1

    @cached_property
    def log_mel(self) -> Floats:
        """Mean and deviation of each band over the music of a track, [N, 2 F]."""
        moments, n_frames = self._moments(), self.folder.n_frames(self.rows).astype(np.float64)
        total = np.zeros((len(self.ids), moments.shape[1]))
        np.add.at(total, self.track_of, moments * n_frames[:, None])
        total /= np.maximum(np.bincount(self.track_of, n_frames), 1.0)[:, None]
        mean, square = np.split(total, 2, axis=1)
        return np.hstack([mean, np.sqrt(np.maximum(square - mean**2, 0.0))])

    def _moments(self) -> Floats:
        """Return mean and mean square of each band of each chunk, [n, 2 F]; cached on disk."""
        n_frames = self.folder.n_frames(self.rows)
        shape = (len(self.rows), 2 * self.folder.spec.n_mels)

        def compute(some: Ints) -> Floats:
            moments = np.empty((len(some), shape[1]))
            chunks = self.folder.load(self.rows[some]).numpy().astype(np.float64)
            for out, chunk, n in zip(moments, chunks, n_frames[some], strict=True):
                music = chunk[: max(int(n), 1)]
                out[:] = np.concatenate([music.mean(axis=0), (music**2).mean(axis=0)])
            return moments

        name = key(log_mel=_MOMENTS_VERSION, features=self.folder.fingerprint)
        cache = ArrayCache(self.folder.path / CACHE, name, shape, np.float64)
        return np.asarray(cache.fill(np.arange(shape[0]), compute, batch_size=_READ_AT_ONCE))


def embed_tracks(
    encoder: Encoder,
    folder: FeatureFolder,
    rows: Ints,
    *,
    device: torch.device,
    pooled: NDArray[np.float32] | None = None,
) -> tuple[Ints, NDArray[np.float32]]:
    """Embed the tracks of some chunks: their numbers, ascending [M], and their vectors [M, D].

    The chunks are read block by block.

    Args:
        rows: of the folder's chunks.
        pooled: [n, H] of all chunks, where the backbone was not trained.
    """
    rows = rows[np.argsort(folder.track_of[rows], kind="stable")]
    numbers, first = np.unique(folder.track_of[rows], return_index=True)
    vectors = np.empty((len(numbers), encoder.size), np.float32)
    end = np.append(first[1:], len(rows))
    for start in range(0, len(numbers), BLOCK):
        tracks = slice(start, start + BLOCK)
        some = rows[first[start] : end[tracks][-1]]
        if pooled is not None:
            chunks = embedding.project_vectors(encoder, pooled[some], device=device)
        else:
            chunks = embedding.chunk_vectors(encoder, folder, some, device=device)
        vectors[tracks] = track_vectors.track_vectors(chunks, folder.track_of[some])[1]
    return numbers, vectors
