"""Audio files -> placements, written as a table and sorted into folders or playlists."""

from __future__ import annotations

import dataclasses
import filecmp
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subgenre.audio import tags
from subgenre.commands.model_folder import ModelFolder
from subgenre.config import ALPHA
from subgenre.core import csv_tables, files, text
from subgenre.core.progress import Console, Silent
from subgenre.errors import LibraryError, PlaylistError
from subgenre.library import formats, sources
from subgenre.library.sources import Skipped
from subgenre.library.track import Track
from subgenre.library.uris import Maps

if TYPE_CHECKING:
    from subgenre.models.file_vectors import FileVectors
    from subgenre.search.classifier import Classifier, Placement

NONE = "none of these"  # folder and playlist of rejected files
NAMED = 5  # files in a warning
RELIABLE_AUROC = 0.7  # chance is 0.5


@dataclass(frozen=True)
class Classified:
    """The result of `classify`.

    Attributes:
        placements: of the files that could be read. chunk_s: length of a chunk, seconds.
        skipped: the other files. copies, playlists: files that were written.
    """

    placements: tuple[Placement, ...]
    chunk_s: float
    skipped: tuple[Skipped, ...] = ()
    copies: tuple[Path, ...] = ()
    playlists: tuple[Path, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "placements": [placement.row() for placement in self.placements],
            "chunk_s": self.chunk_s,
            "skipped": [one.to_dict() for one in self.skipped],
            "copies": [str(path) for path in self.copies],
            "playlists": [str(path) for path in self.playlists],
        }


def classify(
    audio: Sequence[Path],
    model: ModelFolder,
    *,
    alpha: float = ALPHA,
    out: Path | None = None,
    copy_to: Path | None = None,
    m3u_to: Path | None = None,
    maps: Maps = (),
    workers: int | None = None,
    console: Console | None = None,
) -> Classified:
    """Classify audio files; the files themselves are only read.

    Args:
        audio: files, folders or playlists.
        alpha: share of tracks of the subgenres that may be rejected as none of these.
        out: a .csv or .json of the placements.
        copy_to: folder to copy each file into, by genre/subgenre.
        m3u_to: folder of playlists, one for each subgenre; each file is added to one.
        maps: prefixes of paths in playlists of another machine, and their folders here.
        workers: processes that decode.

    Raises:
        RunError: the model has no vectors. LibraryError: no audio, or none of it can be read.
        PlaylistError: `out` is of another kind, or a copy would replace another file.
    """
    console = console or Silent()
    if out is not None and out.suffix.lower() not in (".csv", ".json"):
        raise PlaylistError(f"{out} is neither .csv nor .json; give one of them with --out")
    listed = sources.audio_files(audio, maps)
    classifier = model.classifier(alpha)
    if not classifier.held_out:
        console.warn("the model has no test tracks, so “fits” is too high")
    vectors = model.embed(listed.paths, workers=workers, console=console)
    placements = place(classifier, vectors)
    names = [p.track.path.name for p in placements if p.track.id in model.train_ids]
    if names:
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        console.warn(
            f"the model was trained on {len(names)} of these files, so “fits” is too high for "
            f"{', '.join(names[:NAMED])}{more}"
        )
    auroc = model.rejection.get("auroc", {}).get("value")
    if auroc is not None and auroc < RELIABLE_AUROC and not all(p.belongs for p in placements):
        console.warn(
            f"'{NONE}' can't be relied on here: in the evaluation a track of these subgenres "
            f"fitted better than one of another subgenre in {text.percent(auroc)} of the pairs, by "
            "chance in 50 %; listen to these files"
        )
    skipped = sources.warn_of_skipped(console, (*listed.skipped, *vectors.skipped))
    if not placements:
        n_files = text.counted(len(skipped), "file")
        raise LibraryError(f"none of {n_files} could be classified; nothing is written")
    if out is not None:
        _write(out, placements)
    copies, playlists = [], []
    if copy_to:
        copies = copy_files(placements, copy_to)
        folders = text.counted(len({path.parent for path in copies}), "folder")
        console.info(f"{copy_to}: {text.counted(len(copies), 'file')} in {folders}")
    if m3u_to:
        playlists = add_to_playlists(placements, m3u_to)
        tracks = text.counted(len(placements), "track")
        console.info(f"{m3u_to}: {tracks} in {text.counted(len(playlists), 'playlist')}")
    return Classified(
        tuple(placements), model.preprocess.chunk_s, skipped, tuple(copies), tuple(playlists)
    )


def place(classifier: Classifier, vectors: FileVectors) -> list[Placement]:
    """Classify embedded files; their chunks show which part is most typical."""
    tracks = [
        Track(
            track_id,
            path.absolute(),
            duration_s=duration_s,
            size=path.stat().st_size,
            **dataclasses.asdict(tags.read_tags(path)),
        )
        for track_id, path, duration_s in zip(
            vectors.ids, vectors.paths, vectors.duration_s, strict=True
        )
    ]
    of_file = [vectors.chunk_file == file for file in range(len(tracks))]
    return classifier.place(
        tracks,
        vectors.vectors,
        chunks=[vectors.chunks[chunks] for chunks in of_file],
        starts_s=[vectors.chunk_start_s[chunks].tolist() for chunks in of_file],
    )


def _write(out: Path, placements: Sequence[Placement]) -> None:
    """Write the rows of the placements as CSV or JSON."""
    rows = [placement.row() for placement in placements]
    if out.suffix.lower() == ".json":
        files.write_text(out, json.dumps(rows, indent=2, ensure_ascii=True) + "\n")
        return
    csv_tables.write(out, [list(rows[0]), *(list(row.values()) for row in rows)])


def copy_files(placements: Sequence[Placement], folder: Path) -> list[Path]:
    """Copy each file to `folder/genre/subgenre`, or to `folder/none of these`.

    A copy that is there already is left as it is. Of two files with one name in one folder, the
    second gets the start of its id.

    Returns:
        the copies.

    Raises:
        PlaylistError: a target is another file, or a source is gone; nothing is copied then.
    """
    targets = _targets(placements, folder)
    for source, target in targets.items():
        if not source.is_file():
            raise PlaylistError(f"{source} is gone; classify again")
        if target.exists() and not (
            target.samefile(source) or filecmp.cmp(source, target, shallow=False)
        ):
            raise PlaylistError(
                f"{target} exists with other content than {source}; nothing is copied. Name "
                "another folder, or move that file away"
            )
    for source, target in targets.items():
        if not target.exists():
            with files.atomic_path(target) as temporary:
                shutil.copyfile(source, temporary)
    return list(targets.values())


def _targets(placements: Sequence[Placement], folder: Path) -> dict[Path, Path]:
    """Return source -> target; targets have safe names that differ in more than case."""
    targets: dict[Path, Path] = {}
    taken: set[str] = set()
    for placement in placements:
        source = placement.track.path
        suffix = source.suffix if len(source.suffix) <= 8 else ""
        stem = files.safe_name(source.name.removesuffix(suffix))
        target = _folder(placement, folder) / f"{stem}{suffix}"
        if str(target).casefold() in taken:
            target = target.with_name(f"{stem} {placement.track.id[:8]}{suffix}")
        taken.add(str(target).casefold())
        targets[source] = target
    return targets


def add_to_playlists(placements: Sequence[Placement], folder: Path) -> list[Path]:
    """Add each track to `folder/genre/subgenre.m3u8`, or to `folder/none of these.m3u8`.

    A playlist keeps what it has; a track that is in it is not added again.

    Returns:
        the playlists, in the order of their first track.
    """
    playlists: dict[Path, list[Track]] = {}
    for placement in placements:
        path = _folder(placement, folder)
        labels = {"genre": placement.genre, "subgenre": placement.subgenre}
        track = dataclasses.replace(placement.track, **labels)
        playlists.setdefault(path.with_name(f"{path.name}.m3u8"), []).append(track)
    for path, tracks in playlists.items():
        formats.append_m3u8(path, tracks)
    return list(playlists)


def _folder(placement: Placement, folder: Path) -> Path:
    if not placement.belongs:
        return folder / NONE
    return folder / files.safe_name(placement.genre) / files.safe_name(placement.subgenre)
