"""The vectors of tracks for a search library, a map and a viewer; row i is the i-th track."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from subgenre.core import csv_tables, files, tables
from subgenre.errors import MissingExtraError
from subgenre.library.track import Track
from subgenre.search.collection import Collection

COLUMNS = ("id", "name", "genre", "subgenre", "path")
_PROJECTOR = """embeddings {
  tensor_name: "tracks"
  tensor_path: "tensors.tsv"
  metadata_path: "metadata.tsv"
}
"""


def write_faiss(tracks: Collection, out: Path) -> None:
    """Write `index.faiss`, an exact index by inner product, here the cosine, and `tracks.csv`.

    Raises:
        MissingExtraError: FAISS is not installed.
    """
    try:
        import faiss
    except ImportError as problem:
        raise MissingExtraError("--faiss", "faiss") from problem
    index = faiss.IndexFlatIP(tracks.dim)
    index.add(np.ascontiguousarray(tracks.vectors(tracks.live)))
    files.write_bytes(out / "index.faiss", faiss.serialize_index(index).tobytes())
    csv_tables.write(out / "tracks.csv", [COLUMNS, *_rows(tracks)])


def write_parquet(tracks: Collection, coordinates: NDArray[np.float64], out: Path) -> None:
    """Write `tracks.parquet`: names, labels, the map's coordinates [N, 2], vectors."""
    rows, vectors = _rows(tracks), tracks.vectors(tracks.live)
    texts = {name: [row[i] for row in rows] for i, name in enumerate(COLUMNS)}
    table = pa.table(
        {
            **{name: pa.array(column, pa.string()) for name, column in texts.items()},
            "projection_x": pa.array(coordinates[:, 0]),
            "projection_y": pa.array(coordinates[:, 1]),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), tracks.dim),
        }
    )
    tables.write(out / "tracks.parquet", table)


def write_tensorboard(tracks: Collection, out: Path) -> None:
    """Write a log folder for TensorBoard's projector: vectors, labels and its configuration."""
    shown = COLUMNS[1:4]
    vectors = tracks.vectors(tracks.live)
    rows = [shown, *(row[1:4] for row in _rows(tracks))]
    lines = ["\t".join(f"{value:.7g}" for value in vector) for vector in vectors.tolist()]
    files.write_text(out / "tensors.tsv", "\n".join(lines) + "\n")
    files.write_text(out / "metadata.tsv", "\n".join("\t".join(row) for row in rows) + "\n")
    files.write_text(out / "projector_config.pbtxt", _PROJECTOR)


def _rows(tracks: Collection) -> list[tuple[str, ...]]:
    """Return the texts of each track: valid Unicode, names and labels on one line."""
    return [_texts(track) for track in tracks.tracks(tracks.live)]


def _texts(track: Track) -> tuple[str, ...]:
    lines = (" ".join(text.split()) for text in (track.name, track.genre, track.subgenre))
    texts = (track.id, *lines, track.path.as_posix())
    return tuple(text.encode("utf-8", "backslashreplace").decode() for text in texts)
