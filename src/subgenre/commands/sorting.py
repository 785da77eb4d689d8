"""Placed tracks sorted into folders or playlists; the source files are only ever read."""

from __future__ import annotations

import csv
import filecmp
import io
import shutil
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from subgenre.core import files
from subgenre.errors import PlaylistError
from subgenre.library.formats import append_m3u8
from subgenre.library.track import Track
from subgenre.search.classifier import Placement

NONE = "none of these"


def write_csv(path: Path, placements: Sequence[Placement]) -> None:
    """Write one row a placement, with the columns of `Placement.row`."""
    text = io.StringIO()
    rows = [placement.row() for placement in placements]
    columns = list(rows[0]) if rows else ["path", "genre", "subgenre", "probability"]
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    files.write_bytes(path, text.getvalue().encode("utf-8", "surrogateescape"))


def copy_to(placements: Sequence[Placement], folder: Path) -> list[Path]:
    """Copy each file to `folder/genre/subgenre`, or `folder/none of these`; return the copies.

    A copy that is there already, byte for byte, is left. Two files of one name in one batch are
    told apart by the start of their ids.

    Raises:
        PlaylistError: a file of the same name with other content is there, or a source is gone;
            found before anything is copied.
    """
    wanted = _targets(placements, folder)
    for source, target in wanted.items():
        if not source.is_file():
            raise PlaylistError(f"{source} is gone: run the placing again")
        if target.exists() and not _same(source, target):
            raise PlaylistError(
                f"{target} exists with other content than {source}; nothing was copied: "
                "name another folder, or move that file away"
            )
    for source, target in wanted.items():
        if not target.exists():
            with files.atomic_path(target) as temporary:
                shutil.copyfile(source, temporary)
    return list(wanted.values())


def m3u_to(placements: Sequence[Placement], folder: Path) -> list[Path]:
    """Add each track to `folder/genre/subgenre.m3u8`, or `folder/none of these.m3u8`.

    What a playlist there holds stays; tracks that it has are not added again.

    Returns:
        the playlists, in the order of their first track.
    """
    lists: dict[Path, list[Track]] = {}
    for placement in placements:
        place = _place(placement, folder)
        lists.setdefault(place.with_name(place.name + ".m3u8"), []).append(_track(placement))
    for path, tracks in lists.items():
        append_m3u8(path, tracks)
    return list(lists)


def _place(placement: Placement, folder: Path) -> Path:
    if not placement.belongs:
        return folder / NONE
    return folder / files.safe_name(placement.genre) / files.safe_name(placement.subgenre)


def _targets(placements: Sequence[Placement], folder: Path) -> dict[Path, Path]:
    """Source -> target; names are safe and, upper and lower case alike, unique."""
    found: dict[Path, Path] = {}
    taken: set[str] = set()
    for placement in placements:
        source = Path(placement.track.path)
        suffix = source.suffix if len(source.suffix) <= 8 else ""
        stem = files.safe_name(source.name.removesuffix(suffix))
        target = _place(placement, folder) / f"{stem}{suffix}"
        if str(target).casefold() in taken:
            target = target.with_name(f"{stem} {str(placement.track.id)[:8]}{suffix}")
        taken.add(str(target).casefold())
        found[source] = target
    return found


def _same(one: Path, other: Path) -> bool:
    return one.samefile(other) or filecmp.cmp(one, other, shallow=False)


def _track(placement: Placement) -> Track:
    """Take what a playlist tells from any kind of track, labelled as it was placed."""
    told: dict[str, Any] = {
        f.name: getattr(placement.track, f.name, f.default) for f in fields(Track)
    }
    told |= {"genre": placement.genre, "subgenre": placement.subgenre}
    return Track(**{**told, "path": Path(placement.track.path)})
