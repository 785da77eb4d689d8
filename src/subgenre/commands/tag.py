"""Placements -> tags of the files: what would change, the change with its backup, and the undo."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from subgenre.commands.classify import NONE, classify
from subgenre.commands.model_folder import ModelFolder
from subgenre.config import ALPHA
from subgenre.core import files, parallel
from subgenre.core.progress import Console, Silent
from subgenre.core.validation import check_choice
from subgenre.dataset import journal
from subgenre.errors import AudioError, ConfigError, LibraryError, SubgenreError
from subgenre.library import retagging, sources, tag_fields
from subgenre.library.scan import stamp
from subgenre.library.sources import Skipped
from subgenre.library.tag_fields import FIELDS, MODES, Change
from subgenre.library.uris import Maps

KIND = "tags"  # of a backup, in its header
# of a line of a backup, with JSON's escapes
_PATH = re.compile(rb'\{"path": ("(?:[ !#-\[\]-~]|\\["\\/bfnrt]|\\u[0-9a-f]{4})*")')


@dataclass(frozen=True)
class Retagged:
    """The changes of one file."""

    path: Path
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Tagged:
    """The result of `tag`.

    Attributes:
        files: with their changes. kept: files that need none. none: files of no subgenre.
        skipped: files that can't be read or written. backup: if the changes were written.
    """

    files: tuple[Retagged, ...]
    kept: tuple[Path, ...]
    none: tuple[Path, ...]
    skipped: tuple[Skipped, ...]
    backup: Path | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "files": [
                {"path": str(f.path), "changes": [dict(vars(change)) for change in f.changes]}
                for f in self.files
            ],
            "kept": [str(path) for path in self.kept],
            "none_of_these": [str(path) for path in self.none],
            "skipped": [one.to_dict() for one in self.skipped],
            "backup": str(self.backup) if self.backup else None,
        }


@dataclass(frozen=True)
class Undone:
    """The result of `undo`: files restored, files that were as before, files that can't be."""

    restored: tuple[Path, ...]
    unchanged: tuple[Path, ...]
    skipped: tuple[Skipped, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "restored": [str(path) for path in self.restored],
            "unchanged": [str(path) for path in self.unchanged],
            "skipped": [one.to_dict() for one in self.skipped],
        }


@dataclass(frozen=True)
class _Plan:
    path: Path
    id: str
    seen: tuple[int, int]
    changes: list[Change]


def tag(
    audio: Sequence[Path],
    model: ModelFolder,
    *,
    fields: Sequence[str],
    mode: str = "missing",
    apply: bool = False,
    alpha: float = ALPHA,
    maps: Maps = (),
    workers: int | None = None,
    console: Console | None = None,
) -> Tagged:
    """Classify audio files and write the subgenre into their tags.

    Files of no subgenre stay as they are.

    Args:
        audio: files, folders or playlists.
        fields: of `FIELDS`. mode: of `MODES`, see `tag_fields.plan`.
        apply: write; else only tell what would change.
        alpha, maps, workers: as of `classify`.

    Raises:
        MissingExtraError: mutagen is not installed. ConfigError: no field, or no such field or
            mode.
        RunError: the model has no vectors. LibraryError: no audio, or none of it can be read.
        OSError: the disk is full; what the backup names can be undone.
    """
    console = console or Silent()
    if not fields:
        raise ConfigError("no field is named; give for example --write subgenre=GENRE")
    for field in fields:
        check_choice("field", field, FIELDS)
    check_choice("mode", mode, MODES)
    tag_fields.check_library()
    found = classify(audio, model, alpha=alpha, maps=maps, workers=workers, console=console)
    # two symbolic links may be one file
    placed = {Path(os.path.realpath(p.track.path)): p for p in found.placements}
    plans: dict[Path, _Plan] = {}
    kept, none, skipped = [], [], []
    for path, placement in placed.items():
        if not placement.belongs:
            none.append(path)
            continue
        try:
            seen = stamp(path)
            retagging.check(path)
            changes = tag_fields.plan(path, placement.subgenre, fields, mode)
        except (AudioError, OSError) as problem:
            skipped.append(_skipped(path, problem))
            continue
        if changes:
            plans[path] = _Plan(path, placement.track.id, seen, changes)
        else:
            kept.append(path)
    backup = None
    if plans and apply:
        backup = _new_backup(model.path)
        way_back = shlex.join(["subgenre", "tag", "--undo", str(backup)])
        console.info(f"backup: {backup} (to undo: {way_back})")
        unwritten = _write(list(plans.values()), backup, console)
        skipped += unwritten
        for one in unwritten:
            del plans[one.path]
    for path in none:
        console.info(f"{sources.shown(path.name)} stays as it is: {NONE}")
    skipped = [*found.skipped, *sources.warn_of_skipped(console, skipped)]
    done = tuple(Retagged(p.path, tuple(p.changes)) for p in plans.values())
    return Tagged(done, tuple(kept), tuple(none), tuple(skipped), backup)


def undo(backup: Path, console: Console | None = None) -> Undone:
    """Restore the files that `tag` changed, byte for byte, with their times.

    A file that somebody changed since stays as it is, and so does one whose line is damaged.

    Raises:
        LibraryError: no backup of tags.
    """
    console = console or Silent()
    if not backup.exists():
        raise LibraryError(f"{backup} does not exist; name the file that `tag` wrote")
    header, entries = journal.read(backup)
    if header.get("kind") != KIND:
        raise LibraryError(f"{backup} is no backup of tags; name the file that `tag` wrote")
    restored: list[Path] = []
    unchanged: list[Path] = []
    skipped: list[Skipped] = []
    with console.progress("restoring") as update:
        for done, entry in enumerate(entries, start=1):
            path = backup
            try:
                retagging.check_record(entry, f"line {1 + done}")
                path = files.located(entry["path"], backup.parent)
                path = Path(os.path.realpath(path))
                (restored if retagging.undo(path, entry) else unchanged).append(path)
            except (SubgenreError, OSError, ValueError) as problem:  # ValueError: no path
                skipped.append(_skipped(path, problem))
            update(done, len(entries))
    if torn := journal.torn(backup):
        skipped.append(Skipped(backup, f"line {2 + len(entries)} {_damage(torn)}"))
    return Undone(tuple(restored), tuple(unchanged), sources.warn_of_skipped(console, skipped))


def _damage(torn: bytes) -> str:
    """Describe what follows the last whole line of a backup."""
    if b"\n" in torn:
        return "is damaged; the files from there on stay as they are"
    path = _PATH.match(torn)
    file = sources.shown(json.loads(path[1])) if path else "its file"
    return (
        f"is incomplete: {file} is unchanged if `tag --apply` was killed there; if the backup was "
        "cut later, it keeps its new tags"
    )


def _write(plans: Sequence[_Plan], backup: Path, console: Console) -> list[Skipped]:
    """Write the changes of each file; return the files that could not be changed."""
    skipped = []
    with (
        journal.Journal(backup, {"kind": KIND}) as book,
        console.progress("writing tags") as update,
    ):
        for done, plan in enumerate(plans, start=1):
            try:
                _change(plan, book, backup.parent)
            except (AudioError, OSError) as problem:
                skipped.append(_skipped(plan.path, problem))
            update(done, len(plans))
    return skipped


def _change(plan: _Plan, book: journal.Journal, folder: Path) -> None:
    where = {"path": files.portable(plan.path, folder)}
    retagging.change(
        plan.path,
        plan.changes,
        track_id=plan.id,
        seen=plan.seen,
        record=lambda entry: book.append({**where, **entry}),
    )


def _skipped(path: Path, problem: SubgenreError | OSError | ValueError) -> Skipped:
    """Return why a file was skipped; a full disk ends the command instead."""
    if parallel.no_room(problem):
        raise problem
    reason = problem.strerror if isinstance(problem, OSError) else None
    return Skipped(path, reason or str(problem))


def _new_backup(folder: Path) -> Path:
    """Make an empty file for the old tags, beside those of earlier commands."""
    number = 1
    while True:
        path = folder / f"tags_{number}.jsonl"
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            number += 1
        else:
            return path
