"""The state that all requests share: the current view, the corrections, and the two slow jobs."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from subgenre.audio import isolated
from subgenre.core import files
from subgenre.core.progress import Progress, Silent
from subgenre.errors import AudioError, LibraryError, SubgenreError
from subgenre.explorer import playback
from subgenre.explorer.content import Correction, Library
from subgenre.explorer.limits import MAX_UPLOADS
from subgenre.explorer.view import DECIMALS, View
from subgenre.library.track import Track
from subgenre.search.playlists import similar
from subgenre.search.ranking import Limits

NEIGHBOURS = 12  # shown for a dropped file
_CORRECTIONS_VERSION = 1

_LOG = logging.getLogger(__name__)


class BusyError(SubgenreError):
    """A refit is running already."""


class Explorer:
    """One library while it is explored.

    Attributes:
        view: the current state; a refit, or a change on disk, replaces it.
        corrections: of the person, by track.
        uploads: the files that may be placed at once.
        fitted: the corrections that `view` was fitted with; none before the first refit.
        refitting: how far the running refit is.
    """

    def __init__(self, library: Library) -> None:
        self.view = View(library, 1)
        self.corrections = Corrections(library.corrections)
        self.fitted: dict[str, Correction] = {}
        self.refitting = Refitting()
        self.uploads = asyncio.Semaphore(MAX_UPLOADS)
        self._encoding = threading.Lock()
        self._refitting = threading.Lock()
        self._replacing = threading.Lock()  # the view

    def refresh(self) -> None:
        """Show what another process has changed on disk; a running request keeps its view.

        While one request reads it, the others go on with the view before it. A library that can't
        be read any more is shown as it was.
        """
        if not self._replacing.acquire(blocking=False):
            return
        try:
            view = self.view
            if view.library.reread is None or (library := view.library.reread()) is None:
                return
            after = View(library, view.revision + 1)
            after.warm()
            self.view = after
        except SubgenreError as problem:
            _LOG.warning("the map stays as it is until a restart: %s", problem)
            self.view = View(dataclasses.replace(view.library, reread=None), view.revision)
        finally:
            self._replacing.release()

    def correct(self, track_id: str, subgenre: str, wrong: bool) -> Correction:
        """Keep a correction of a track."""
        view = self.view
        path = view.paths[view.position[view.row(track_id)]]
        label = view.library.collection.label(subgenre) if subgenre else ("", "")
        correction = Correction(*label, wrong, path)
        self.corrections.put(track_id, correction)
        return correction

    def refit(self) -> View:
        """Refit the model with the corrections and show the new map."""
        if not self._refitting.acquire(blocking=False):
            raise BusyError("a refit is running already; wait until it ends")
        try:
            with self._replacing:
                before = self.view
                if before.library.refit is None:
                    raise SubgenreError(
                        "this library can't be refitted: open it with its trained run"
                    )
                corrections = self.corrections.by_track
                self.refitting = Refitting()
                library = before.library.refit(corrections, self.refitting)
                after = View(library, before.revision + 1)
                after.warm()
                self.view, self.fitted = after, corrections
                return after
        finally:
            self._refitting.release()

    def place(self, path: Path, name: str) -> dict[str, Any]:
        """Place a file from outside the library on the map; `name` is for messages."""
        view = self.view
        library = view.library
        if library.encode is None:
            raise SubgenreError("files can't be placed: open the library with its trained run")
        try:
            track_id = isolated.probe(path).id
            peaks = playback.peaks(path)
            with self._encoding:
                encoded = library.encode(path)
        except AudioError as problem:
            reason = str(problem).replace(path.name, name)
            raise AudioError(f"'{name}' can't be placed: {reason}") from problem
        known = track_id if library.collection.has(track_id) else ""
        vector = np.asarray(encoded.vector, dtype=np.float32)
        x, y = np.round(np.asarray(library.place(vector[None]), np.float64)[0], DECIMALS).tolist()
        limits = Limits(k=NEIGHBOURS)
        near = similar(library.collection, [known or vector], limits)
        return {
            "name": name,
            "known_as": known,
            "duration_s": round(encoded.duration_s, 2),
            "x": x,
            "y": y,
            "windows_s": [round(float(s), 2) for s in encoded.starts_s],
            "chunk_s": library.chunk_s,
            "placement": view.placement(Track(known, path), vector, encoded),
            "neighbours": view.hits(near),
            "peaks": {"count": len(peaks), "peaks": playback.packed(peaks)},
        }


class Refitting(Silent):
    """How far a refit is.

    Attributes:
        stage: what it does now; "" before the first bar.
        done, total: of the stage.
    """

    def __init__(self) -> None:
        self.stage, self.done, self.total = "", 0, 0

    @contextmanager
    def progress(self, title: str) -> Iterator[Progress]:
        """Keep the figures of a bar for the page to ask."""

        def keep(done: int, total: int) -> None:
            self.stage, self.done, self.total = title, done, total

        yield keep


class Corrections:
    """The corrections of one library, kept in a JSON file that each change replaces."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self.by_track: dict[str, Correction] = {}  # never changed, only replaced
        if not path.exists():
            return
        value = files.read_json(path, version=_CORRECTIONS_VERSION, error=LibraryError)
        try:
            self.by_track = {str(key): Correction(**c) for key, c in value["corrections"].items()}
        except (KeyError, TypeError, AttributeError) as problem:
            raise LibraryError(f"{path} is no file of corrections: {problem}") from None

    def put(self, track_id: str, correction: Correction) -> None:
        """Keep the correction of a track; it is on disk when this returns."""
        with self._lock:
            self._write({**self.by_track, track_id: correction})

    def drop(self, track_id: str) -> bool:
        """Remove the correction of a track; return whether it had one."""
        with self._lock:
            if track_id not in self.by_track:
                return False
            self._write({key: c for key, c in self.by_track.items() if key != track_id})
            return True

    def _write(self, corrections: dict[str, Correction]) -> None:
        plain = {key: dataclasses.asdict(correction) for key, correction in corrections.items()}
        record = {"format_version": _CORRECTIONS_VERSION, "corrections": plain}
        files.write_json(self.path, record)
        self.by_track = corrections
