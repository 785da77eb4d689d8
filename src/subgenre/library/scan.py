"""Folders, playlists or a CSV become tracks with labels, tags and stable ids."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    """Tracks sorted by genre, subgenre and path, the trash pool, and what was left out and why."""

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

    Each file is opened in a worker process. `trash` adds to ROOT/trash. One recording in two
    subgenres is left out (`multi="exclude"`) or kept in both (`"keep"`); twice in one subgenre, the
    first path is kept. `known` tracks, by str(path), are not read again while size and time are
    the same. `on_progress` gets how many files are done, and of how many.

    Raises:
        LibraryError: no library there, no audio in it, or fewer than two subgenres.
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
    """Read files that are listed already, with a label or without; see `scan` for the options."""
    described = _describe_all(list(entries), workers, known or {}, on_progress)
    return _labelled(list(entries), described)


def _describe_all(
    entries: list[Entry],
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
    """Return size and time of a file, by which a change shows."""
    try:
        status = path.stat()
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _describe(path: Path) -> Track:
    """Read one file; runs in a worker."""
    # taken first: a file that changes while it is read is then read again the next time
    size, mtime_ns = _stamp(path)
    found = reading.probe(path)
    return Track(
        path=path,
        genre="",
        subgenre="",
        size=size,
        mtime_ns=mtime_ns,
        **dataclasses.asdict(found),
        **dataclasses.asdict(tags.read_tags(path)),
    )


def _labelled(
    entries: list[Entry], described: Mapping[Path, Track | str]
) -> tuple[list[Track], list[Skipped]]:
    """Put the labels on the tracks, sorted so that the order of the work leaves no trace."""
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
    """Keep one track a recording and label; none of a recording with two labels, unless kept."""
    first: dict[tuple[str, str, str, bool], Track] = {}
    homes: dict[str, list[str]] = {}
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
            homes.setdefault(track.id, []).append(f"{track.genre}/{track.subgenre}")
    if multi == "keep":
        return kept, skipped
    single = []
    for track in kept:
        home = homes.get(track.id, [])
        if len(home) < 2 or track.trash:
            single.append(track)
            continue
        reason = f"the same recording is in {' and in '.join(home)}; --multi keep keeps it in each"
        skipped.append(Skipped(track.path, reason))
    return single, skipped


def _check(library: Library, source: Path) -> None:
    """Refuse a library from which nothing can be learned."""
    subgenres = sorted({(track.genre, track.subgenre) for track in library.tracks})
    if len(subgenres) >= 2:
        return
    if not subgenres:
        what = f"{shown(source)} holds no audio that carries a label"
        wanted = "put files into ROOT/genre/subgenre/, with two subgenres or more"
    else:
        what = f"{shown(source)} holds one subgenre only ('{'/'.join(subgenres[0])}')"
        wanted = "at least two are needed to tell them apart"
    raise LibraryError("; ".join([what, wanted, *_first_reasons(library.skipped)]))


def _first_reasons(skipped: tuple[Skipped, ...]) -> Iterator[str]:
    if skipped:
        first = ", ".join(f"{shown(s.path.name)} ({s.reason})" for s in skipped[:3])
        yield f"{len(skipped)} left out, the first: {first}"
