"""Change the tags of a file, or take a change back: the old file or the new one is there, whole.

The change is made in a copy beside the file, which replaces it. What a record holds is enough to
make the old file from the new one, byte for byte.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from subgenre.audio import reading
from subgenre.core import files, patches
from subgenre.errors import AudioError
from subgenre.library import tag_fields
from subgenre.library.scan import CHANGED, stamp
from subgenre.library.tag_fields import Change


def check(path: Path) -> None:
    """Refuse a file that must not be replaced.

    Raises:
        AudioError: it is read-only, or has other names (hard links), which would keep the old tags.
        OSError: it is gone.
    """
    status = path.stat()
    if not (status.st_mode & stat.S_IWUSR and os.access(path, os.W_OK)):
        raise AudioError("is read-only")
    if status.st_nlink > 1:
        raise AudioError(
            f"has {status.st_nlink} names (hard links), and only this one would get the tags; "
            "tag a copy"
        )


def change(
    path: Path,
    changes: Sequence[Change],
    *,
    track_id: str,
    seen: tuple[int, int],
    record: Callable[[Mapping[str, Any]], None],
) -> None:
    """Write changes into the tags of a file.

    Args:
        path: not a symbolic link.
        track_id: of the file, which stays.
        seen: the stamp of the file when the changes were planned.
        record: keeps what `undo` needs; it is called before the file is replaced.

    Raises:
        AudioError: the file has changed since, or can't be tagged. OSError: the disk is full, or
            the folder can't be written.
    """
    with _replaced(path, seen) as copy:
        tag_fields.write(copy, changes)
        if reading.probe(copy).id != track_id:
            if reading.probe(path).id != track_id:
                raise AudioError(CHANGED)
            raise AudioError("its audio would not stay the same; please report it with the file")
        with patches.mapped(path) as old, patches.mapped(copy) as new:
            entry = {
                "id": track_id,
                "fields": {c.field: {"old": c.old, "new": c.new} for c in changes},
                "mtime_ns": seen[1],
                "old": files.checksum(old),
                "new": files.checksum(new),
                "patch": patches.difference(old, new),
            }
        record(entry)


def undo(path: Path, entry: Mapping[str, Any]) -> bool:
    """Make a file what it was before a change; return False if it is that already.

    Args:
        path: not a symbolic link. entry: what `change` recorded.

    Raises:
        AudioError: somebody changed the file since. OSError: it is gone, the disk is full, or the
            folder can't be written.
    """
    seen = stamp(path)
    with patches.mapped(path) as found:
        present = files.checksum(found)
    if present == entry["old"]:
        return False
    if present != entry["new"]:
        raise AudioError("was changed after its tags were written, so it stays as it is")
    with _replaced(path, seen, mtime_ns=entry["mtime_ns"]) as copy:
        with patches.mapped(path) as new, copy.open("wb") as out:
            patches.restore(new, entry["patch"], out)
        with patches.mapped(copy) as old:
            if files.checksum(old) != entry["old"]:
                raise AudioError("can't be restored: its record is damaged")
    return True


@contextmanager
def _replaced(path: Path, seen: tuple[int, int], mtime_ns: int | None = None) -> Iterator[Path]:
    """Yield a copy beside a file, which replaces it when the block ends without error.

    Owner, mode and extended attributes stay; the time of the last change is now, or `mtime_ns`.
    """
    check(path)
    with files.temporary_path(path.parent, path.suffix) as copy, files.named(path):
        shutil.copyfile(path, copy)
        yield copy
        status = path.stat()
        if hasattr(os, "chown"):
            os.chown(copy, status.st_uid, status.st_gid)
        shutil.copystat(path, copy)
        os.utime(copy, ns=(status.st_atime_ns, mtime_ns or time.time_ns()))
        with copy.open("rb") as written:
            os.fsync(written.fileno())
        if stamp(path) != seen:
            raise AudioError(CHANGED)
        copy.replace(path)
