"""What the figures are made of: labels, measured columns and log-mel moments of every track."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from subgenre.audio import measures
from subgenre.core import files
from subgenre.dataset.folder import FeatureFolder
from subgenre.dataset.splits import Split
from subgenre.evaluation import baselines as protocol
from subgenre.evaluation.audits.confounders import track_columns
from subgenre.evaluation.audits.probe import Fold as Positions
from subgenre.evaluation.baselines import Fold
from subgenre.models import embedding

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_READ_AT_ONCE = 64  # chunks
_MOMENTS_VERSION = 1


@dataclass(frozen=True, eq=False)
class Material:
    """A feature folder as the figures need it: N tracks in the folder's order.

    Attributes:
        cache: folder for what takes a pass over all chunks.
    """

    folder: FeatureFolder
    cache: Path

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Ids of the tracks, [N]."""
        return tuple(track.id for track in self.folder.tracks)

    @cached_property
    def labels(self) -> Ints:
        """Class number of each track, [N]."""
        found = np.full(len(self.folder.tracks), -1, dtype=np.int64)
        found[self.track_of] = self.folder.label_of[self.rows]
        return found

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

    @cached_property
    def baselines(self) -> dict[str, Floats]:
        """Plain columns of the two lowest rungs: tempo and loudness [N, 2], log-mel [N, 2 F]."""
        named = [np.asarray(self.columns[c], np.float64) for c in ("tempo_bpm", "loudness_lufs")]
        return {"tempo_loudness": np.stack(named, axis=1), "mean_log_mel": self._log_mel()}

    def positions(self, split: Split) -> Positions:
        """Return a split as positions of tracks."""
        sides = [np.isin(self.ids, side) for side in (split.train, split.test)]
        return np.flatnonzero(sides[0]), np.flatnonzero(sides[1])

    def means(self, pooled: NDArray[np.floating]) -> Floats:
        """Average what a frozen backbone made of the folder's chunks [n, H] by track: [N, H]."""
        values = np.asarray(pooled[self.rows], dtype=np.float64)
        values = values if values.ndim == 2 else values.mean(axis=1)
        total = np.zeros((len(self.ids), values.shape[1]))
        np.add.at(total, self.track_of, values)
        return np.asarray(total / np.bincount(self.track_of)[:, None])

    def fold(
        self,
        split: Split,
        trained: NDArray[np.floating],
        pooled: NDArray[np.floating],
        *,
        seed: int = 0,
    ) -> Fold:
        """Gather every rung's vectors on one split.

        Args:
            trained: [N, D] by the encoder of this split; rows of other tracks don't matter.
            pooled: [n, H] of all chunks, by the backbone as it was before training.
        """
        train, test = self.positions(split)
        side = self.folder.rows(split.train)
        frozen = embedding.frozen_track_vectors(pooled, self.folder.track_of, side, self.rows)[1]
        found = protocol.rungs(frozen, self.labels, train, test, self.baselines, seed=seed)
        return Fold(train, test, {**found, "trained": trained})

    def _log_mel(self) -> Floats:
        """Mean and deviation of each band over the music of a track, [N, 2 F]."""
        moments, n_frames = self._moments(), self.folder.n_frames(self.rows).astype(np.float64)
        total = np.zeros((len(self.ids), moments.shape[1]))
        np.add.at(total, self.track_of, moments * n_frames[:, None])
        total /= np.maximum(np.bincount(self.track_of, n_frames), 1.0)[:, None]
        mean, square = np.split(total, 2, axis=1)
        return np.hstack([mean, np.sqrt(np.maximum(square - mean**2, 0.0))])

    def _moments(self) -> Floats:
        """Mean and mean square of each band of each chunk, [n, 2 F], kept on disk."""
        name = f"log_mel-v{_MOMENTS_VERSION}-{self.folder.fingerprint}.npy"
        path, n_frames = self.cache / name, self.folder.n_frames(self.rows)
        shape = (len(self.rows), 2 * self.folder.spec.n_mels)
        if (known := _read(path, shape)) is not None:
            return known
        found = np.empty(shape)
        for at in range(0, len(self.rows), _READ_AT_ONCE):
            part = self.rows[at : at + _READ_AT_ONCE]
            for i, chunk in enumerate(self.folder.load(part).numpy().astype(np.float64), start=at):
                music = chunk[: max(int(n_frames[i]), 1)]
                found[i] = np.concatenate([music.mean(axis=0), (music**2).mean(axis=0)])
        with files.atomic_path(path) as temporary:
            np.save(temporary, found, allow_pickle=False)
        return found


def _read(path: Path, shape: tuple[int, int]) -> Floats | None:
    """Read cached moments; what is damaged counts as absent."""
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    whole = found.shape == shape and found.dtype == np.float64 and bool(np.isfinite(found).all())
    return found if whole else None
