"""Labels: the names of folders, playlists and cells as text; each list has its own."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from subgenre.audio.tags import clean
from subgenre.library.uris import decode

Names = tuple[str, ...]
"""The names of the folders that hold a list, and its own."""


def label(name: str) -> str:
    """Return a name as a label; one that is not UTF-8 on disk is read as Windows-1252."""
    return clean(decode(os.fsencode(name))[0]) or "_"


def apart(paths: Sequence[Names]) -> Iterator[Names]:
    """Yield each path, where it repeats an earlier one with ` (2)` or the next number not in use.

    Paths whose labels are equal, but not their names, are not repeats.
    """
    taken = {tuple(map(label, path)) for path in paths}
    following: dict[Names, int] = {}  # by path, the number of its next repeat
    for path in paths:
        free = path
        while path in following and tuple(map(label, free)) in taken:
            free = (*path[:-1], f"{path[-1]} ({following[path]})")
            following[path] += 1
        following.setdefault(path, 2)
        taken.add(tuple(map(label, free)))
        yield free
