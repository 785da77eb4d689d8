"""The explorer at work: the current view, the corrections, and the two slow jobs."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np

from subgenre.audio import reading
from subgenre.audio.decoder import EXTENSIONS
from subgenre.core import files
from subgenre.errors import AudioError, SubgenreError
from subgenre.explorer import playback
from subgenre.explorer.content import Encoded, Library
from subgenre.explorer.corrections import Correction, Corrections
from subgenre.explorer.view import DECIMALS, View, placement
from subgenre.search.playlists import similar
from subgenre.search.ranking import Limits

MAX_UPLOAD_BYTES = 200 * 2**20
NEIGHBOURS = 12


class BusyError(SubgenreError):
    """A slow job of the same kind is under way."""


class TooLargeError(SubgenreError):
    """An upload over the limit."""


class Explorer:
    """One library while it is explored; requests share it.

    Attributes:
        view: the current state; a refit replaces it. corrections: what the person said.
        learnt: the corrections that the current state was fitted with; none as the run left it.

    Raises:
        LibraryError: the corrections can't be read.
    """

    def __init__(self, library: Library) -> None:
        self.view = View(library, 1)
        self.corrections = Corrections(library.corrections)
        self.learnt: dict[str, Correction] = {}
        self._encoding = threading.Lock()
        self._refitting = threading.Lock()

    def correct(self, track_id: str, subgenre: str, wrong: bool) -> Correction:
        """Keep what a person said of a track.

        Raises:
            UnknownTrackError: no such track. IndexStoreError: no such subgenre; the nearest is
                told.
        """
        view = self.view
        row = view.row(track_id)
        genre, name = (
            view.library.collection.label(subgenre) if subgenre and not wrong else ("", "")
        )
        path = view.paths[int(view.position[row])]
        said = Correction(genre, name, wrong, path)
        self.corrections.put(track_id, said)
        return said

    def refit(self) -> View:
        """Retrain with the corrections and show the map that comes of it.

        Raises:
            BusyError: a refit is under way. SubgenreError: what the function handed in raises;
                there is none.
        """
        if not self._refitting.acquire(blocking=False):
            raise BusyError("a refit is under way; wait for it to end")
        try:
            before = self.view
            if before.library.refit is None:
                raise SubgenreError("this library can't be refitted: open it with its trained run")
            said = self.corrections.all()
            after = View(before.library.refit(said), before.revision + 1)
            after.warm()
            self.view, self.learnt = after, said
            return after
        finally:
            self._refitting.release()

    def hear(self, path: Path, name: str) -> dict[str, Any]:
        """Place a file from outside on the map.

        Raises:
            AudioError: it holds no audio. SubgenreError: no model is at hand.
        """
        view = self.view
        if view.library.encode is None:
            raise SubgenreError("files can't be placed: open the library with its trained run")
        try:
            found = reading.probe(path)
            levels = playback.peaks(path)
            with self._encoding:
                heard = view.library.encode(path)
        except AudioError as problem:
            reason = str(problem).replace(path.name, name)
            raise AudioError(f"'{name}' can't be placed: {reason}") from problem
        known = found.id if view.library.collection.has(found.id) else ""
        return {"name": name, "known_as": known, **_placed(view, heard, path, known)} | {
            "peaks": {"count": len(levels), "peaks": playback.packed(levels)}
        }


def _placed(view: View, heard: Encoded, path: Path, known: str) -> dict[str, Any]:
    """Tell where a vector lies and what is near."""
    library = view.library
    vector = np.asarray(heard.vector, dtype=np.float32)
    x, y = np.round(np.asarray(library.place(vector[None]), np.float64)[0], DECIMALS).tolist()
    seed = known or vector
    near = (
        similar(library.collection, seed, Limits(k=NEIGHBOURS)) if len(library.collection) else []
    )
    told = None
    if library.classifier is not None:
        one = _Outside(known, path)
        told = placement(
            library.classifier.place(
                [one], vector[None], chunks=[heard.chunks], starts_s=[heard.starts_s]
            )[0]
        )
    return {
        "duration_s": round(heard.duration_s, 2),
        "x": x,
        "y": y,
        "windows_s": [round(float(s), 2) for s in heard.starts_s],
        "chunk_s": library.chunk_s,
        "placement": told,
        "neighbours": view.hits(near),
    }


class _Outside:
    """A file from outside the library, as the classifier asks for it."""

    def __init__(self, track_id: str, path: Path) -> None:
        self.id, self.path = track_id, path


def shown_name(name: str) -> str:
    """Turn the name of an upload into one that is safe to show and to keep."""
    return files.safe_name(Path(name.replace("\\", "/")).name or "file", 120)


async def store_upload(stream: AsyncIterator[bytes], folder: Path, name: str, limit: int) -> Path:
    """Write an upload to a temporary file, part by part; the caller removes it.

    Raises:
        TooLargeError: more than `limit` bytes. AudioError: nothing in it.
    """
    suffix = Path(name).suffix.lower()
    folder.mkdir(parents=True, exist_ok=True)
    made = tempfile.NamedTemporaryFile(  # noqa: SIM115 - it outlives this function
        prefix=".upload-", suffix=suffix if suffix in EXTENSIONS else "", dir=folder, delete=False
    )
    path, size = Path(made.name), 0
    try:
        with made:
            async for part in stream:
                size += len(part)
                if size > limit:
                    raise too_large(name, limit)
                made.write(part)
        if not size:
            raise AudioError(f"'{name}' is an empty file")
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path


def too_large(name: str, limit: int) -> TooLargeError:
    """Say that an upload is over the limit."""
    return TooLargeError(f"'{name}' is larger than {limit // 2**20} MB, the limit of an upload")
