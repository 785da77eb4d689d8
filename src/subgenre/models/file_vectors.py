"""Vectors of files outside any library, and those that a model has computed before; no torch."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from subgenre.config import PreprocessConfig
from subgenre.dataset import starts
from subgenre.dataset.track_vectors import track_vectors
from subgenre.errors import AudioError
from subgenre.library.sources import Skipped
from subgenre.models.cache import ArrayCache
from subgenre.models.cache import key as cache_key

if TYPE_CHECKING:
    from subgenre.audio.reading import Probe

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class FileVectors:
    """Vectors of files outside any library.

    Attributes:
        paths, ids, duration_s: of the N files that could be read, in the order they were given.
        vectors: [N, D], unit norm.
        chunks: [n, D] of their chunks. chunk_file: [n], position in `paths`.
        chunk_start_s: [n], where each chunk starts.
        skipped: the other files, each with its reason.
    """

    paths: tuple[Path, ...]
    ids: tuple[str, ...]
    duration_s: tuple[float, ...]
    vectors: Floats
    chunks: Floats
    chunk_file: Ints
    chunk_start_s: Doubles
    skipped: tuple[Skipped, ...]

    @classmethod
    def of(
        cls, path: Path, track_id: str, duration_s: float, chunks: Floats, start_s: Doubles
    ) -> FileVectors:
        """Return the vectors of one file from those of its chunks."""
        of = np.zeros(len(chunks), np.int64)
        vectors = track_vectors(chunks, of)[1]
        return cls((path,), (track_id,), (duration_s,), vectors, chunks, of, start_s, ())


@dataclass(frozen=True)
class Kept:
    """The chunks' vectors of files that a model has embedded: an array [n, D] for each id.

    Attributes:
        folder: of the arrays. fingerprint: of the encoder. dim: D. config: how files are cut.
        engine: `engines.precision` of it.
    """

    folder: Path
    fingerprint: str
    dim: int
    config: PreprocessConfig
    engine: str = ""

    def find(self, path: Path) -> FileVectors | None:
        """Return the vectors of a file; None if they are not kept, or the file can't be read."""
        from subgenre.audio import isolated

        try:
            return self.read(path, isolated.probe(path))
        except AudioError:
            return None

    def read(self, path: Path, probe: Probe) -> FileVectors | None:
        """Return the vectors of a file; None if they are not kept."""
        cache, start_s = self._array(probe.id, probe.duration_s)
        values = cache.read(np.arange(len(start_s)))
        if values is None:
            return None
        whole = np.isfinite(values).all(axis=1)  # the others could not be decoded
        return FileVectors.of(path, probe.id, probe.duration_s, values[whole], start_s[whole])

    def write(self, found: FileVectors) -> None:
        """Keep the vectors of one file; not in a folder that can't be written."""
        cache, start_s = self._array(found.ids[0], found.duration_s[0])
        values = np.full(cache.shape, np.nan, np.float32)
        values[np.isin(start_s, found.chunk_start_s)] = found.chunks
        with contextlib.suppress(OSError):
            cache.fill(np.arange(len(values)), values.__getitem__, batch_size=len(values))

    def _array(self, track_id: str, duration_s: float) -> tuple[ArrayCache, Doubles]:
        """Return the array of a file, and where its chunks start."""
        start_s = np.array(starts.of_track(self.config, duration_s, track_id))
        engine = {"engine": self.engine} if self.engine else {}
        cut = self.config.to_dict()
        key = cache_key(encoder=self.fingerprint, cut=cut, track=track_id, **engine)
        return ArrayCache(self.folder, key, (len(start_s), self.dim), np.float32), start_s
