"""What the explorer shows: a library, its map, and functions that encode a file and refit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subgenre.core.progress import Console
from subgenre.errors import LibraryError
from subgenre.search.classifier import Classifier
from subgenre.search.collection import Collection

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Correction:
    """A person's correction of one track: another label, or only that its label is wrong.

    Attributes:
        genre, subgenre: where it belongs; "" if it was only marked as wrong.
        wrong: its label is wrong, and the right one is not known.
        path: of the track at that time, for a reader of the file.
    """

    genre: str = ""
    subgenre: str = ""
    wrong: bool = False
    path: str = ""


@dataclass(frozen=True)
class Encoded:
    """The vectors of one audio file.

    Attributes:
        vector: [D]. chunks: [n, D]. starts_s: of the chunks. duration_s: of the file.
    """

    vector: Floats
    chunks: Floats
    starts_s: Sequence[float]
    duration_s: float


@dataclass(frozen=True)
class Library:
    """What is explored.

    Attributes:
        collection: tracks and their vectors.
        coordinates: [N, 2], map coordinates of the rows `collection.live`, in their order.
        place: vectors [M, D] -> map coordinates [M, 2], such as `report.maps.Map.place`.
        playlists: folder for saved playlists. corrections: JSON file of the corrections.
        cache: folder for peaks, transcoded audio and uploads.
        root: folder that shown paths are relative to.
        title: of the page. note: one sentence on the map's quality, or "".
        classifier: places tracks; None: no placements are shown.
        trained: ids that the classifier or the encoder was fitted on; their placements look better
            than they are.
        findings: of the doctor (`evaluation.audits.mislabels.Finding`).
        chunk_starts: by track id, where its chunks start, in seconds.
        chunk_s: length of a chunk, seconds.
        encode: encodes a file, or raises `AudioError`; None: no file can be dropped.
        refit: corrections by track id, and a console for its progress -> the library after a
            refit; None: no refit.
        reread: the library as it is on disk now, or None while it is as here; None: it never
            changes there.
    """

    collection: Collection
    coordinates: Floats
    place: Callable[[Floats], Floats]
    playlists: Path
    corrections: Path
    cache: Path
    root: Path
    title: str = "Library"
    note: str = ""
    classifier: Classifier | None = None
    trained: frozenset[str] = frozenset()
    findings: Sequence[Any] = ()
    chunk_starts: Mapping[str, Sequence[float]] = field(default_factory=dict)
    chunk_s: float = 10.0
    encode: Callable[[Path], Encoded] | None = None
    refit: Callable[[Mapping[str, Correction], Console], Library] | None = None
    reread: Callable[[], Library | None] | None = None

    def __post_init__(self) -> None:
        """Check the coordinates."""
        shape = (len(self.collection), 2)
        if np.shape(self.coordinates) != shape:
            raise LibraryError(
                f"the coordinates have shape {np.shape(self.coordinates)}; the map needs {shape}"
            )
        if not np.isfinite(self.coordinates).all():
            raise LibraryError("a coordinate of the map is not finite; fit the map again")
