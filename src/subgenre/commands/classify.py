"""Audio files -> placements: a subgenre, a probability, the seconds that spoke for it, or none."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from subgenre.audio import tags
from subgenre.commands import sorting
from subgenre.commands.model_folder import ModelFolder
from subgenre.core import files, text
from subgenre.core.progress import Console, Silent
from subgenre.errors import LibraryError, PlaylistError
from subgenre.library import sources
from subgenre.library.sources import Skipped
from subgenre.library.track import Track
from subgenre.search.classifier import ALPHA, Classifier, Placement

if TYPE_CHECKING:
    from subgenre.models.file_embedding import FileVectors


@dataclass(frozen=True)
class Classified:
    """What `classify` found.

    Attributes:
        placements: of the files that could be read. chunk_s: length of a chunk, seconds.
        skipped: the others. copies, playlists: files that were written.
    """

    placements: tuple[Placement, ...]
    chunk_s: float
    skipped: tuple[Skipped, ...] = ()
    copies: tuple[Path, ...] = ()
    playlists: tuple[Path, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Give plain values for JSON."""
        return {
            "placements": [placement.row() for placement in self.placements],
            "chunk_s": self.chunk_s,
            "skipped": [{"path": str(s.path), "reason": s.reason} for s in self.skipped],
            "copies": [str(path) for path in self.copies],
            "playlists": [str(path) for path in self.playlists],
        }


def classify(
    named: Sequence[Path],
    run: Path | ModelFolder | None = None,
    *,
    alpha: float = ALPHA,
    out: Path | None = None,
    copy_to: Path | None = None,
    m3u_to: Path | None = None,
    workers: int | None = None,
    console: Console | None = None,
) -> Classified:
    """Place audio files; the files themselves are only read.

    Args:
        named: files, folders or playlists.
        run: the model folder; by default the newest with vectors.
        alpha: share of belonging tracks that may be called none of these.
        out: a .csv or .json of the placements.
        copy_to: folder to copy each file into, by genre/subgenre.
        m3u_to: folder of playlists, one a subgenre, that each file is added to.
        workers: processes that decode. console: hears how it goes.

    Raises:
        RunError: no model or no vectors. LibraryError: no audio, or none of it can be read.
        PlaylistError: `out` of another kind, or a copy that would replace another file.
    """
    console = console or Silent()
    if out is not None and out.suffix.lower() not in (".csv", ".json"):
        raise PlaylistError(f"{out} is neither .csv nor .json; name one of them with --out")
    opened = run if isinstance(run, ModelFolder) else ModelFolder.open(run, console)
    model = opened.classifier(alpha)
    if not model.held_out:
        console.warn("no track was held out of training: the probabilities are too kind")
    listed = sources.audio_files(named)
    found = opened.embed(listed.paths, workers=workers, console=console)
    placements = place(model, found)
    _tell_learnt(opened, placements, console)
    skipped = sources.warn_of_skipped(console, (*listed.skipped, *found.skipped))
    if not placements:
        named_files = text.counted(len(skipped), "file")
        raise LibraryError(f"none of {named_files} could be classified, so nothing is written")
    _write(out, placements)
    copies = sorting.copy_to(placements, copy_to) if copy_to else []
    lists = sorting.m3u_to(placements, m3u_to) if m3u_to else []
    _tell_written(copy_to, copies, m3u_to, lists, len(placements), console)
    chunk_s = opened.preprocess.chunk_s
    return Classified(tuple(placements), chunk_s, skipped, tuple(copies), tuple(lists))


def place(model: Classifier, found: FileVectors) -> list[Placement]:
    """Place embedded files by their vectors; their chunks say which seconds spoke."""
    chunks = [found.chunks[found.chunk_file == i] for i in range(len(found.paths))]
    starts = [found.chunk_start_s[found.chunk_file == i] for i in range(len(found.paths))]
    told = zip(found.ids, found.paths, found.duration_s, strict=True)
    tracks = [_track(track_id, path, seconds) for track_id, path, seconds in told]
    return model.place(
        tracks, found.vectors, chunks=chunks, starts_s=[np.asarray(s).tolist() for s in starts]
    )


def _track(track_id: str, path: Path, duration_s: float) -> Track:
    """Describe a file from outside by its tags."""
    return Track(
        id=track_id,
        path=path.absolute(),
        duration_s=duration_s,
        size=path.stat().st_size,
        **dataclasses.asdict(tags.read_tags(path)),
    )


def _tell_learnt(run: ModelFolder, placements: Sequence[Placement], console: Console) -> None:
    count = sum(placement.track.id in run.train_ids for placement in placements)
    if count:
        console.warn(f"{count} of these files were learnt from: their probabilities are too kind")


def _tell_written(
    copy_to: Path | None,
    copies: Sequence[Path],
    m3u_to: Path | None,
    lists: Sequence[Path],
    count: int,
    console: Console,
) -> None:
    """Say what lies where now: copies by folder, and tracks by playlist."""
    if copy_to:
        folders = text.counted(len({path.parent for path in copies}), "folder")
        console.info(f"{copy_to}: {text.counted(len(copies), 'file')} in {folders}")
    if m3u_to:
        listed = text.counted(len(lists), "playlist")
        console.info(f"{m3u_to}: {text.counted(count, 'track')} in {listed}")


def _write(out: Path | None, placements: Sequence[Placement]) -> None:
    if out is None:
        return
    if out.suffix.lower() == ".csv":
        sorting.write_csv(out, placements)
    else:
        rows = [placement.row() for placement in placements]
        files.write_text(out, json.dumps(rows, indent=2, ensure_ascii=True) + "\n")
