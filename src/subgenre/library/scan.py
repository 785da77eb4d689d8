"""Read a library: each file becomes a track with its label, its tags and a stable id."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from subgenre.audio import reading, tags
from subgenre.config import MULTI
from subgenre.core import files, parallel
from subgenre.core.shards import Shard
from subgenre.core.validation import check_choice
from subgenre.errors import LibraryError
from subgenre.library import sources
from subgenre.library.sources import Entry, Skipped, shown
from subgenre.library.track import Track
from subgenre.library.uris import Maps

PROBE_TIMEOUT_S = 120.0
CHANGED = "changed while it was read; run the same command again"


@dataclass(frozen=True)
class Library:
    """A library that was read.

    Attributes:
        root: the folder of the library, or that of its list.
        tracks, trash: sorted by genre, subgenre and path, each recording once.
        read: all files that could be read, copies too.
        labels: pairs (genre, subgenre) of all files, unreadable ones too.
        skipped: files left out, with reasons. notes: for the user.
    """

    root: Path
    tracks: tuple[Track, ...]
    trash: tuple[Track, ...]
    read: tuple[Track, ...]
    labels: frozenset[tuple[str, str]]
    skipped: tuple[Skipped, ...]
    notes: tuple[str, ...]


def scan(
    source: Path,
    *,
    trash: Path | None = None,
    multi: str = "exclude",
    maps: Maps = (),
    workers: int | None = None,
    known: Mapping[str, Track] | None = None,
    shard: Shard | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Library:
    """Read a library: ROOT/genre/subgenre/**, a CSV `path,genre,subgenre`, or a folder of M3U8.

    Each file is opened in a worker process. Of two copies in one subgenre the first path is kept.

    Args:
        source: the library. trash: a folder of trash, besides ROOT/trash.
        multi: a recording in two subgenres is left out ("exclude") or kept in both ("keep").
        maps: prefixes of paths in lists of another machine, see `uris.resolve`.
        workers: processes; by default all cores.
        known: tracks by str(path); a file of the same size and time is not read again.
        shard: read only its share of the files; copies in other shards are not known.
        on_progress: called with (files done, files).

    Raises:
        LibraryError: no library, no audio in it, or fewer than two subgenres.
    """
    check_choice("multi", multi, MULTI)
    found = sources.find(source, trash, maps)
    root = source if source.is_dir() else source.parent
    entries = _share(found.entries, shard) if shard else found.entries
    tracks, unread = describe(entries, workers=workers, known=known, on_progress=on_progress)
    kept, repeated = _without_repeats(tracks, multi, root)
    skipped = {*found.skipped, *unread, *repeated}
    library = Library(
        root=root,
        tracks=tuple(track for track in kept if not track.trash),
        trash=tuple(track for track in kept if track.trash),
        read=tuple(tracks),
        labels=frozenset((e.genre, e.subgenre) for e in found.entries if not e.trash),
        skipped=tuple(sorted(skipped, key=lambda s: (str(s.path), s.reason))),
        notes=tuple(found.notes),
    )
    if shard is None:
        _check(library, source)
    return library


def _share(entries: Sequence[Entry], shard: Shard) -> list[Entry]:
    """Return the entries of a shard's paths, in the order in which copies are kept."""
    own = set(shard.share(sorted({str(entry.path) for entry in entries})))
    return [entry for entry in entries if str(entry.path) in own]


def describe(
    entries: Sequence[Entry],
    *,
    workers: int | None = None,
    known: Mapping[str, Track] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Track], list[Skipped]]:
    """Read the listed files, with or without labels; the options are those of `scan`.

    The tracks are sorted, so that the result does not depend on the workers.
    """
    known = known or {}
    paths = sorted({entry.path for entry in entries})
    described: dict[Path, Track | str] = {}  # by path, a track without a label or a reason
    for path in paths:
        track = known.get(str(path))
        if track is not None and (track.size, track.mtime_ns) == stamp(path):
            described[path] = track
    unread = [path for path in paths if path not in described]
    count = min(parallel.worker_count(workers), max(1, len(unread)))
    results = parallel.map_files(
        _describe,
        unread,
        workers=count,
        timeout_s=PROBE_TIMEOUT_S,
        initializer=parallel.limit_memory,
    )
    for position, result in results:
        reason_or_track = result.reason if isinstance(result, parallel.Failure) else result
        described[unread[position]] = reason_or_track
        if on_progress is not None:
            on_progress(len(described), len(paths))
    tracks, skipped = [], []
    for entry in entries:
        found = described[entry.path]
        if isinstance(found, str):
            origin = f" ({entry.origin})" if entry.origin else ""
            skipped.append(Skipped(entry.path, found + origin))
        else:
            label = dataclasses.replace(found, genre=entry.genre, subgenre=entry.subgenre)
            tracks.append(dataclasses.replace(label, path=entry.path, trash=entry.trash))
    return sorted(tracks, key=lambda t: (t.genre, t.subgenre, str(t.path))), skipped


def stamp(path: Path) -> tuple[int, int]:
    """Return size and time of a file; a changed file has another size or time."""
    try:
        status = path.stat()
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _describe(path: Path) -> Track:
    """Read one file; runs in a worker."""
    # before reading: a file that changes meanwhile is then read again the next time
    size, mtime_ns = stamp(path)
    return Track(
        path=path,
        size=size,
        mtime_ns=mtime_ns,
        **dataclasses.asdict(reading.probe(path)),
        **dataclasses.asdict(tags.read_tags(path)),
    )


def _without_repeats(
    tracks: list[Track], multi: str, root: Path
) -> tuple[list[Track], list[Skipped]]:
    """Keep one track per recording and label; drop recordings with two labels, unless kept."""
    first: dict[tuple[str, str, str, bool], Track] = {}
    labelled: dict[str, list[Track]] = {}  # by id, one track of each label
    kept, skipped = [], []
    for track in tracks:
        same = first.setdefault((track.id, track.genre, track.subgenre, track.trash), track)
        if same is not track:
            reason = f"the same recording as {_named(same, root)}"
            skipped.append(Skipped(track.path, reason))
        elif not track.trash:
            labelled.setdefault(track.id, []).append(track)
    for track in first.values():
        own = labelled.get(track.id, [])
        if track.trash and own:
            reason = f"the same recording as {_named(own[-1], root)}, which has a label"
            skipped.append(Skipped(track.path, reason))
        elif len(own) > 1 and multi == "exclude":
            labels = " and in ".join(f"{one.genre}/{one.subgenre}" for one in own)
            reason = f"the same recording is in {labels}; --multi keep keeps it in each"
            skipped.append(Skipped(track.path, reason))
        else:
            kept.append(track)
    return kept, skipped


def _named(track: Track, root: Path) -> str:
    return shown(files.path_to_text(track.path, root))


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
