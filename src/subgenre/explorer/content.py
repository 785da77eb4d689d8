"""What the explorer shows, as plain data, and the two functions that are handed to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subgenre.errors import LibraryError
from subgenre.explorer.corrections import Correction
from subgenre.search.classifier import Classifier
from subgenre.search.collection import Collection

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Encoded:
    """One audio file as the model hears it.

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
        coordinates: [N, 2], on the map, of the rows `collection.live` in their order.
        place: vectors [M, D] -> [M, 2] on the same map, such as `report.maps.Map.place`.
        playlists: folder that saved playlists go to. corrections: JSON file of the corrections.
        cache: folder for peaks, transcoded sound and what is dropped on the page meanwhile.
        root: folder that shown paths are relative to.
        title: of the page. note: one sentence on the map's quality, or "".
        classifier: places tracks; None: no placements are shown.
        trained: ids that the classifier or the encoder was fitted on: their placements flatter.
        findings: what the doctor found (`audit.doctor.Finding`).
        windows: starts in seconds of the chunks that were used, by track id.
        chunk_s: length of a chunk, seconds.
        encode: hears a file; None: no file can be dropped. Raises `AudioError` for no audio.
        refit: corrections by track id -> the library after retraining with them; None: no refit.
    """

    collection: Collection
    coordinates: NDArray[np.floating]
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
    windows: Mapping[str, Sequence[float]] = field(default_factory=dict)
    chunk_s: float = 10.0
    encode: Callable[[Path], Encoded] | None = None
    refit: Callable[[Mapping[str, Correction]], Library] | None = None

    def __post_init__(self) -> None:
        """Check the shapes.

        Raises:
            LibraryError: coordinates of another count than the tracks, or not finite.
        """
        wanted = (len(self.collection), 2)
        if np.shape(self.coordinates) != wanted:
            raise LibraryError(
                f"coordinates have shape {np.shape(self.coordinates)}; the map takes {wanted}"
            )
        if not np.isfinite(self.coordinates).all():
            raise LibraryError("a coordinate of the map is not finite; fit the map again")
