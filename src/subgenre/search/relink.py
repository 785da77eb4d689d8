"""Tracks that have moved, found again by their ids."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from subgenre.errors import AudioError, IndexStoreError


def find(
    root: Path,
    ids: set[str],
    sizes: set[int],
    identify: Callable[[Path], str],
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Path]:
    """Find files below `root` by their ids: id -> path; of two copies the first by path.

    Files of a known size are asked first; the others only while tracks are still missing
    (retagging changes a file's size, but not its id).

    Args:
        root: where to look, at any depth. ids: of the tracks. sizes: of their files, bytes.
        identify: id of a file; its AudioError passes the file over.
        on_progress: called with how many files were looked at, of how many.

    Raises:
        IndexStoreError: `root` is no folder.
    """
    if not root.is_dir():
        raise IndexStoreError(f"{root} is no folder; name the library's new place")
    files = sorted(p for p in root.rglob("*") if p.is_file())
    files.sort(key=lambda p: p.stat().st_size not in sizes)
    found: dict[str, Path] = {}
    for done, path in enumerate(files):
        if on_progress is not None:
            on_progress(done, len(files))
        if len(found) == len(ids):
            break
        try:
            track_id = identify(path)
        except AudioError:
            continue
        if track_id in ids:
            found.setdefault(track_id, path)
    return found


def identify_audio(path: Path) -> str:
    """Return the id of an audio file, a hash of its packets.

    Raises:
        AudioError: no audio by its name or its content.
    """
    from subgenre.audio import reading

    if path.suffix.lower() not in reading.EXTENSIONS:
        raise AudioError(f"{path} is no audio file by its name")
    return reading.probe(path).id
