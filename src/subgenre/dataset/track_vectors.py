"""Track vectors without torch: pooling of chunks and `embeddings.parquet`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from subgenre.core import tables
from subgenre.errors import RunError
from subgenre.metrics.vectors import standardisation, standardised, unit

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

FORMAT_VERSION = 1
TEXTS = ("id", "path", "genre", "subgenre", "split")


class Labelled(Protocol):
    """A track as a row of the table."""

    @property
    def id(self) -> str:
        """Track id."""

    @property
    def path(self) -> Path:
        """Path of the audio file."""

    @property
    def genre(self) -> str:
        """Genre, or ""."""

    @property
    def subgenre(self) -> str:
        """Subgenre, or ""."""


@dataclass(frozen=True)
class Embeddings:
    """Track vectors, one row per track.

    Attributes:
        ids, paths, genres, subgenres: of each track; an unknown label is "".
        splits: `train`, `test` or "".
        vectors: [N, D], unit norm. fingerprint: of the encoder.
    """

    ids: tuple[str, ...]
    paths: tuple[Path, ...]
    genres: tuple[str, ...]
    subgenres: tuple[str, ...]
    splits: tuple[str, ...]
    vectors: Floats
    fingerprint: str

    @cached_property
    def labels(self) -> list[tuple[str, str]]:
        """Pair (genre, subgenre) of each row."""
        return list(zip(self.genres, self.subgenres, strict=True))

    def rows(self, split: str) -> list[int]:
        """Return the rows of the tracks in `train` or `test`."""
        return [row for row, name in enumerate(self.splits) if name == split]


def track_vectors(vectors: ArrayLike, track: ArrayLike) -> tuple[Ints, Floats]:
    """Pool chunks to tracks: the mean of a track's vectors, scaled to unit norm.

    Args:
        vectors: [n, D].
        track: [n], the track of each chunk.

    Returns:
        the tracks, ascending [N], and their vectors [N, D] of unit norm.
    """
    rows = np.asarray(vectors, dtype=np.float64)
    tracks, place, count = np.unique(np.asarray(track), return_inverse=True, return_counts=True)
    total = np.zeros((len(tracks), rows.shape[1]))
    np.add.at(total, place, rows)
    return tracks.astype(np.int64), unit(total / count[:, None]).astype(np.float32)


def frozen_track_vectors(
    pooled: ArrayLike, track: ArrayLike, train_rows: Ints, *sides: Ints
) -> tuple[Floats, ...]:
    """Return track vectors of a frozen backbone, the reference for any training.

    Pooled outputs are standardised over the training chunks, averaged over the chunks of a track
    and scaled to unit norm.

    Args:
        pooled: [n, H] of all chunks, or [n, L, H] of L layers, which are averaged.
        track: [n], the track of each chunk.
        train_rows: rows of the training chunks.
        sides: rows of other sets of chunks.

    Returns:
        track vectors [N, H] of the training rows and of each side, tracks ascending.
    """
    values, tracks = np.asarray(pooled), np.asarray(track)
    mean, std = standardisation(values[train_rows])
    results = []
    for rows in (train_rows, *sides):
        side = standardised(values[rows], mean, std)
        results.append(track_vectors(side if side.ndim == 2 else side.mean(1), tracks[rows])[1])
    return tuple(results)


def write_embeddings(
    path: Path,
    tracks: Sequence[Labelled],
    vectors: ArrayLike,
    *,
    split: Sequence[str] | None = None,
    fingerprint: str,
) -> None:
    """Write `embeddings.parquet`: id, path, genre, subgenre, split, vector; atomically.

    Args:
        path: of the file.
        tracks: one per row. vectors: [N, D].
        split: the side of each track, `train` or `test`.
        fingerprint: of the encoder.
    """
    rows = np.ascontiguousarray(vectors, dtype=np.float32)
    texts = {
        "id": [track.id for track in tracks],
        "path": [_text(track.path.as_posix()) for track in tracks],
        "genre": [_text(track.genre) for track in tracks],
        "subgenre": [_text(track.subgenre) for track in tracks],
        "split": list(split) if split is not None else [""] * len(tracks),
    }
    columns = [pa.array(texts[name], pa.string()) for name in TEXTS]
    columns.append(pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1]))
    header = {"format_version": str(FORMAT_VERSION), "fingerprint": fingerprint}
    table = pa.table(columns, names=[*TEXTS, "vector"]).replace_schema_metadata(header)
    tables.write(Path(path), table)


def read_embeddings(path: Path) -> Embeddings:
    """Read `embeddings.parquet`.

    Raises:
        RunError: missing, damaged or of another format version.
    """
    try:
        table = tables.read(path)
        header = table.schema.metadata or {}
        version = header.get(b"format_version", b"?").decode()
        texts = {name: tuple(table[name].to_pylist()) for name in TEXTS}
        column = table["vector"].combine_chunks()
        flat = np.from_dlpack(column.flatten())  # `to_numpy` would load pandas
        vectors = np.asarray(flat, dtype=np.float32).reshape(len(column), column.type.list_size)
    except FileNotFoundError:
        raise RunError(f"{path} does not exist; `subgenre embed` writes it") from None
    except (OSError, KeyError, ValueError, AttributeError, pa.ArrowException) as problem:
        raise RunError(f"{path} holds no embeddings ({problem}); write it again") from problem
    if version != str(FORMAT_VERSION):
        raise RunError(f"{path} has format version {version}; this program reads {FORMAT_VERSION}")
    if not np.isfinite([vectors.min(initial=0), vectors.max(initial=0)]).all():
        raise RunError(f"{path} holds vectors that are not finite; write it again")
    paths = tuple(Path(text) for text in texts["path"])
    labels = (texts["genre"], texts["subgenre"], texts["split"])
    fingerprint = header.get(b"fingerprint", b"").decode()
    return Embeddings(texts["id"], paths, *labels, vectors, fingerprint)


def _text(text: str) -> str:
    """Replace characters that are not valid Unicode with question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")
