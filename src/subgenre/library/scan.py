"""Read a library: each file becomes a track with its label, its tags and a stable id."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from subgenre.audio import reading, tags
from subgenre.config import MULTI
from subgenre.core import parallel
from subgenre.core.validation import check_choice
from subgenre.errors import LibraryError
from subgenre.library import sources
from subgenre.library.sources import Entry, Skipped, folder_names, shown
from subgenre.library.track import Track

__all__ = ["Library", "Skipped", "describe", "folder_names", "scan", "shown"]

PROBE_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Library:
    """Tracks sorted by genre, subgenre and path; the trash pool; files left out, with reasons."""

    root: Path
    tracks: tuple[Track, ...]
    trash: tuple[Track, ...]
    skipped: tuple[Skipped, ...]
    notes: tuple[str, ...]


def scan(
    source: Path,
    *,
    trash: Path | None = None,
    multi: str = "exclude",
    workers: int | None = None,
    known: Mapping[str, Track] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Library:
    """Read a library: ROOT/genre/subgenre/**, a CSV `path,genre,subgenre`, or a folder of M3U8.

    Each file is opened in a worker process. Of two copies in one subgenre the first path is kept.

    Args:
        source: the library. trash: a folder of trash, besides ROOT/trash.
        multi: a recording in two subgenres is left out ("exclude") or kept in both ("keep").
        workers: processes; by default all cores.
        known: tracks by str(path); a file of the same size and time is not read again.
        on_progress: called with (files done, files).

    Raises:
        LibraryError: no library, no audio in it, or fewer than two subgenres.
    """
    check_choice("multi", multi, MULTI)
    found = sources.find(source, trash)
    described = _describe_all(found.entries, workers, known or {}, on_progress)
    tracks, skipped = _labelled(found.entries, described)
    kept, repeated = _without_repeats(tracks, multi)
    placed = {track.id: track for track in tracks if not track.trash}
    pool = []
    for track in (track for track in kept if track.trash):
        if track.id in placed:
            reason = f"the same recording as {shown(placed[track.id].path)}, which has a label"
            repeated.append(Skipped(track.path, reason))
        else:
            pool.append(track)
    skipped = [*found.skipped, *skipped, *repeated]
    library = Library(
        root=source if source.is_dir() else source.parent,
        tracks=tuple(track for track in kept if not track.trash),
        trash=tuple(pool),
        skipped=tuple(sorted(set(skipped), key=lambda s: (str(s.path), s.reason))),
        notes=tuple(found.notes),
    )
    _check(library, source)
    return library


def describe(
    entries: Sequence[Entry],
    *,
    workers: int | None = None,
    known: Mapping[str, Track] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Track], list[Skipped]]:
    """Read the listed files, with or without labels; the options are those of `scan`."""
    described = _describe_all(entries, workers, known or {}, on_progress)
    return _labelled(entries, described)


def _describe_all(
    entries: Sequence[Entry],
    workers: int | None,
    known: Mapping[str, Track],
    on_progress: Callable[[int, int], None] | None,
) -> dict[Path, Track | str]:
    """Return for each path a track without a label, or why it can't be read."""
    paths = sorted({entry.path for entry in entries})
    described: dict[Path, Track | str] = {
        path: known[str(path)] for path in paths if _unchanged(path, known.get(str(path)))
    }
    unread = [path for path in paths if path not in described]
    count = min(parallel.worker_count(workers), max(1, len(unread)))
    results = parallel.map_files(_describe, unread, workers=count, timeout_s=PROBE_TIMEOUT_S)
    for position, result in results:
        path = unread[position]
        described[path] = result.reason if isinstance(result, parallel.Failure) else result
        if on_progress is not None:
            on_progress(len(described), len(paths))
    return described


def _unchanged(path: Path, track: Track | None) -> bool:
    return track is not None and (track.size, track.mtime_ns) == _stamp(path)


def _stamp(path: Path) -> tuple[int, int]:
    """Return size and time of a file; a changed file has another size or time."""
    try:
        status = path.stat()
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _describe(path: Path) -> Track:
    """Read one file; runs in a worker."""
    # before reading: a file that changes meanwhile is then read again the next time
    size, mtime_ns = _stamp(path)
    return Track(
        path=path,
        size=size,
        mtime_ns=mtime_ns,
        **dataclasses.asdict(reading.probe(path)),
        **dataclasses.asdict(tags.read_tags(path)),
    )


def _labelled(
    entries: Sequence[Entry], described: Mapping[Path, Track | str]
) -> tuple[list[Track], list[Skipped]]:
    """Give the tracks their labels; sorted, so that the result does not depend on the workers."""
    tracks, skipped = [], []
    for entry in entries:
        track = described[entry.path]
        if isinstance(track, str):
            origin = f" ({entry.origin})" if entry.origin else ""
            skipped.append(Skipped(entry.path, track + origin))
        else:
            tracks.append(
                dataclasses.replace(
                    track,
                    path=entry.path,
                    genre=entry.genre,
                    subgenre=entry.subgenre,
                    trash=entry.trash,
                )
            )
    return sorted(tracks, key=lambda t: (t.genre, t.subgenre, str(t.path))), skipped


def _without_repeats(tracks: list[Track], multi: str) -> tuple[list[Track], list[Skipped]]:
    """Keep one track per recording and label; drop recordings with two labels, unless kept."""
    first: dict[tuple[str, str, str, bool], Track] = {}
    labels: dict[str, list[str]] = {}
    kept, skipped = [], []
    for track in tracks:
        key = (track.id, track.genre, track.subgenre, track.trash)
        if key in first:
            reason = f"the same recording as {shown(first[key].path)}"
            skipped.append(Skipped(track.path, reason))
            continue
        first[key] = track
        kept.append(track)
        if not track.trash:
            labels.setdefault(track.id, []).append(f"{track.genre}/{track.subgenre}")
    if multi == "keep":
        return kept, skipped
    single = []
    for track in kept:
        own = labels.get(track.id, [])
        if len(own) < 2 or track.trash:
            single.append(track)
            continue
        reason = f"the same recording is in {' and in '.join(own)}; --multi keep keeps it in each"
        skipped.append(Skipped(track.path, reason))
    return single, skipped


def _check(library: Library, source: Path) -> None:
    """Raise an error if the library has fewer than two subgenres."""
    subgenres = sorted({(track.genre, track.subgenre) for track in library.tracks})
    if len(subgenres) >= 2:
        return
    if not subgenres:
        fact = f"{shown(source)} has no audio with a label"
        step = "put files into ROOT/genre/subgenre/, with at least two subgenres"
    else:
        fact = f"{shown(source)} has only one subgenre ('{'/'.join(subgenres[0])}')"
        step = "add a second one"
    message = f"{fact}; {step}"
    if library.skipped:
        first = ", ".join(f"{shown(s.path.name)} ({s.reason})" for s in library.skipped[:3])
        message += f"; {len(library.skipped)} left out, the first: {first}"
    raise LibraryError(message)
