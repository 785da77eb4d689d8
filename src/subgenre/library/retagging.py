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
from subgenre.core.validation import check_kinds, check_range
from subgenre.errors import AudioError
from subgenre.library import tag_fields
from subgenre.library.scan import CHANGED, stamp
from subgenre.library.tag_fields import Change

# of a record, what `undo` reads
_KINDS = {
    "path": str,
    "id": str,
    "mtime_ns": int,
    "old": int,
    "new": int,
    "patch": tuple[list | str, ...],  # type: ignore[type-arg]
}
_STEP = 2**20  # bytes that are read at once


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
    with _replaced(path, seen) as (before, after):
        shutil.copyfile(before, after)
        tag_fields.write(after, changes)
        if reading.probe(after).id != track_id:
            if reading.probe(before).id != track_id:
                raise AudioError(CHANGED)
            raise AudioError("its audio would not stay the same; please report it with the file")
        with patches.mapped(before) as old, patches.mapped(after) as new:
            entry = {
                "id": track_id,
                "fields": {c.field: {"old": c.old, "new": c.new} for c in changes},
                "mtime_ns": seen[1],
                "old": files.checksum(old),
                "new": files.checksum(new),
                "patch": patches.difference(old, new),
            }
        record(entry)


def check_record(record: Mapping[str, Any], where: str) -> None:
    """Refuse a record that is not of the shape that `undo` reads, with the path of its file.

    Raises:
        ConfigError: which value, and what it must be.
    """
    check_kinds({**dict.fromkeys(_KINDS), **record}, where, **_KINDS)
    check_range(f"{where}: mtime_ns", record["mtime_ns"], -(2**63), 2**63 - 1)


def undo(path: Path, record: Mapping[str, Any]) -> bool:
    """Make a file what it was before a change; return False if it is that already.

    Only tags can change: the audio must be that of the record, before and after.

    Args:
        path: not a symbolic link. record: what `change` recorded.

    Raises:
        AudioError: somebody changed the file since, or the record is damaged. OSError: it is gone,
            the disk is full, or the folder can't be written.
    """
    seen = stamp(path)
    if reading.probe(path).id != record["id"]:
        raise AudioError("has other audio than when its tags were written, so it stays as it is")
    present = _checksum(path)
    if present == record["old"]:
        return False
    if present != record["new"]:
        raise AudioError("was changed after its tags were written, so it stays as it is")
    with _replaced(path, seen, record["mtime_ns"]) as (new, old):
        try:
            with patches.mapped(new) as content, old.open("wb") as out:
                patches.restore(content, record["patch"], out)
        except ValueError as problem:
            raise AudioError(f"can't be restored: its patch is damaged ({problem})") from problem
        if _checksum(old) != record["old"] or reading.probe(old).id != record["id"]:
            raise AudioError("can't be restored: its record is damaged")
    return True


def _checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(_STEP):
            checksum = files.checksum(block, checksum)
    return checksum


@contextmanager
def _replaced(
    path: Path, seen: tuple[int, int], mtime_ns: int | None = None
) -> Iterator[tuple[Path, Path]]:
    """Yield a copy of a file, and a new file that replaces it when the block ends without error.

    Owner, mode and extended attributes stay; the time of the last change is now, or `mtime_ns`.
    """
    check(path)
    with (
        files.temporary_path(path.parent, path.suffix) as copy,
        files.temporary_path(path.parent, path.suffix) as made,
        files.named(path),
    ):
        shutil.copyfile(path, copy)
        yield copy, made
        status = path.stat()
        if hasattr(os, "chown"):
            os.chown(made, status.st_uid, status.st_gid)
        shutil.copystat(path, made)
        changed_ns = time.time_ns() if mtime_ns is None else mtime_ns
        os.utime(made, ns=(status.st_atime_ns, changed_ns))
        with made.open("rb") as written:
            os.fsync(written.fileno())
        if stamp(path) != seen:
            raise AudioError(CHANGED)
        made.replace(path)
