"""Corrections of labels: what a person said of a track, kept beside the library, never in it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from subgenre.core import files
from subgenre.errors import LibraryError

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Correction:
    """What was said of one track: another label, or that its label is wrong.

    Attributes:
        genre, subgenre: where it belongs; "" where it was only marked wrong.
        wrong: it does not belong where it is, and nothing else is known.
        path: of the track when it was said, for a reader of the file.
    """

    genre: str = ""
    subgenre: str = ""
    wrong: bool = False
    path: str = ""


class Corrections:
    """The corrections of one library, in a JSON file that is replaced as a whole.

    Raises:
        LibraryError: the file is damaged or of another version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._said = read(path)

    def all(self) -> dict[str, Correction]:
        """Return a copy of all corrections, by track id."""
        with self._lock:
            return dict(self._said)

    def put(self, track_id: str, said: Correction) -> None:
        """Say something of a track; it is on disk when this returns."""
        with self._lock:
            self._write({**self._said, track_id: said})

    def drop(self, track_id: str) -> bool:
        """Take back what was said of a track; False where nothing was."""
        with self._lock:
            if track_id not in self._said:
                return False
            self._write({key: said for key, said in self._said.items() if key != track_id})
            return True

    def _write(self, said: Mapping[str, Correction]) -> None:
        told = {key: asdict(one) for key, one in said.items()}
        files.write_json(self.path, {"format_version": FORMAT_VERSION, "corrections": told})
        self._said = dict(said)


def read(path: Path) -> dict[str, Correction]:
    """Read a file of corrections; none where it does not exist.

    Raises:
        LibraryError: damaged or of another version.
    """
    if not path.exists():
        return {}
    value = files.read_json(path, version=FORMAT_VERSION, error=LibraryError)
    try:
        return {str(key): Correction(**one) for key, one in value["corrections"].items()}
    except (KeyError, TypeError, AttributeError) as problem:
        raise LibraryError(f"{path} holds no corrections as they are written: {problem}") from None
