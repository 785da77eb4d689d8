"""Audio files that a person named, one by one or by their folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from subgenre.audio.reading import EXTENSIONS
from subgenre.core.progress import Console
from subgenre.errors import LibraryError
from subgenre.library import sources
from subgenre.library.formats import M3U_EXTENSIONS, read_m3u
from subgenre.library.sources import Skipped, shown

_SHOWN = 20


@dataclass(frozen=True)
class Listed:
    """Files to read, each once, in the order they were named; and what was passed over."""

    paths: tuple[Path, ...]
    skipped: tuple[Skipped, ...]


def find(named: Sequence[Path]) -> Listed:
    """List audio files: files as they are named, folders with all below, playlists by entries.

    Whether a file is audio by its content is not asked.

    Raises:
        LibraryError: there is no audio in what was named.
    """
    paths: dict[Path, None] = {}
    skipped: list[Skipped] = []
    for path in named:
        if path.is_dir():
            found = sources.listing(path)
            paths |= dict.fromkeys(entry.path for entry in found.entries)
            skipped += found.skipped
        elif path.suffix.lower() in M3U_EXTENSIONS:
            paths |= dict.fromkeys(read_m3u(path))
        elif not path.exists():
            skipped.append(Skipped(path, "does not exist"))
        elif path.suffix.lower() in EXTENSIONS:
            paths[path] = None
        else:
            skipped.append(Skipped(path, "is no audio file by its name"))
    if not paths:
        told = ", ".join(f"{shown(s.path)} {s.reason}" for s in skipped[:3])
        what = told or f"{', '.join(shown(p) for p in named)} holds no audio"
        raise LibraryError(f"nothing to embed: {what}; name audio files, folders or playlists")
    return Listed(tuple(paths), tuple(skipped))


def tell(console: Console, skipped: Sequence[Skipped]) -> tuple[Skipped, ...]:
    """Warn of what was skipped, the first of many by name; give it back as a tuple."""
    for one in skipped[:_SHOWN]:
        console.warn(f"skipped {shown(one.path)}: {one.reason}")
    if len(skipped) > _SHOWN:
        console.warn(f"... and {len(skipped) - _SHOWN} more")
    return tuple(skipped)
