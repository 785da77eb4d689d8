"""Library -> the index of a model: new tracks are embedded, missing ones removed."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from subgenre.audio import reading, tempo_key
from subgenre.commands.model_folder import ModelFolder
from subgenre.core import parallel, text
from subgenre.core.progress import Console, Silent
from subgenre.errors import AudioError, LibraryError
from subgenre.library import scan, sources
from subgenre.library.sources import Entry, Found, Skipped
from subgenre.library.track import Track
from subgenre.library.uris import Maps
from subgenre.search.address import Address
from subgenre.search.track_rows import Filter, Measured, lies_below
from subgenre.search.vector_index import Index, Plan, Relinked

SAVE_EVERY_S = 10.0  # a killed run loses at most what was embedded in this time
_SAVE_EVERY = 256  # tracks
_COPY_AT_ONCE = 4096  # tracks
_NO_TEXT = "its path is not valid UTF-8; rename it to have it in the index"
_MEASURE_TIMEOUT_S = 120.0  # a track


@dataclass(frozen=True)
class Indexed:
    """The result of `index`.

    Attributes:
        path: of the index. n_tracks: in it now.
        embedded, reused, updated, forgotten: numbers of tracks; a reused vector is one of the
            model folder; a forgotten track is removed from the index.
        copied: tracks of another index that are new in this one.
        others: number of tracks of other libraries.
        relinked: tracks found below the new root, and ids that were not found.
        skipped: files left out, each with its reason.
    """

    path: Address
    n_tracks: int
    copied: int = 0
    embedded: int = 0
    reused: int = 0
    updated: int = 0
    forgotten: int = 0
    others: int = 0
    relinked: Relinked | None = None
    skipped: tuple[Skipped, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        names = ("n_tracks", "copied", "embedded", "reused", "updated", "forgotten", "others")
        plain = {"path": str(self.path)} | {name: getattr(self, name) for name in names}
        if self.relinked is not None:
            plain["relinked"] = len(self.relinked.found)
            plain["missing"] = list(self.relinked.missing)
        return {
            **plain,
            "skipped": [one.to_dict() for one in self.skipped],
        }


def index(
    source: Path | None,
    model: ModelFolder,
    *,
    path: Address | None = None,
    root: Path | None = None,
    origin: Address | None = None,
    replace: bool = False,
    maps: Maps = (),
    workers: int | None = None,
    console: Console | None = None,
) -> Indexed:
    """Update the index of a model with a library.

    The model's own index starts with its training and test tracks. Tracks of other libraries stay
    in the index. For the labels of a folder, see `listing`.

    Args:
        source: folder, CSV, folder of playlists or rekordbox XML; None: only look below `root`.
        path: of the index, or its address on a server; by default `index` in the model folder.
        root: the new folder of a library that has moved; its tracks are found by their ids first.
        origin: another index of this model, whose tracks are copied first; a copy that was killed
            goes on where it ended.
        replace: remove the tracks of all other libraries, the model's own among them.
        maps: prefixes of paths in lists of another machine, and their folders here.
        workers: processes that read and decode; by default all cores.

    Raises:
        IndexStoreError: the index is of another model. LibraryError: no audio there, or neither
            source, root nor origin is given.
    """
    console = console or Silent()
    path = path or model.index_path
    if source is None and ((root is None and origin is None) or replace):
        what = "replace the index by" if replace else "index"
        raise LibraryError(
            f"nothing to {what}: name a library, its new folder with --root, or another index with "
            "--from"
        )
    copied = None if origin is None else model.open_index(origin)
    listed = None if source is None else listing(source, maps)
    for note in listed.notes if listed else ():
        console.warn(note)
    store = _open(model, path, create=listed is not None or copied is not None)
    own = _add_own_tracks(model, store)
    n_copied = 0 if copied is None else _copy(copied, store, console)
    relinked = None if root is None else _relink(store, root, console)
    if source is None or listed is None:
        return Indexed(path, store.count, n_copied, relinked=relinked)
    tracks, unreadable = _describe(listed, store, workers, console)
    paths = _paths(tracks, store, source, listed, unreadable, replace=replace)
    tracks = _keep_known(tracks, store, source, model.labels, replace=replace)
    plan = store.plan(tracks)
    gone = [track_id for track_id in plan.gone if not paths[track_id]]
    moved = _elsewhere(store, plan, paths)
    if _has_own_vectors(model):  # where the training's tracks were then is no library of its own
        then = {str(path.absolute()) for path in model.embeddings.paths}
        gone += [track.id for track in moved if then.issuperset(paths[track.id])]
    store.update([*plan.updated, *moved])
    new = _reuse(model, store, plan.new)
    embedded, failed = _embed(model, store, new, workers, console)
    forgotten = store.delete(gone)
    kept = store.collection.paths()
    store.set_copies(
        {i: [p for p in every if p != kept[i][0]] for i, every in paths.items() if i in kept}
    )
    store.keep_proximity()
    failed += _measure(store, workers, console)
    indexed = Indexed(
        path,
        store.count,
        n_copied,
        embedded,
        reused=len(plan.new) - len(new) + len(own & {track.id for track in tracks}),
        updated=sum(track.id not in own for track in plan.updated),
        forgotten=forgotten,
        others=_count_others(store, source, {track.id for track in tracks}),
        relinked=relinked,
        skipped=sources.warn_of_skipped(console, (*listed.skipped, *unreadable, *failed)),
    )
    _report(indexed, source, model, store, console)
    return indexed


def _report(
    indexed: Indexed, source: Path, model: ModelFolder, store: Index, console: Console
) -> None:
    """Report what was done, and which other tracks lists may hold."""
    console.info(
        f"{indexed.path}: {text.counted(indexed.n_tracks, 'track')}; {indexed.embedded} embedded, "
        f"{indexed.reused} with the model's own vectors, {indexed.updated} updated, "
        f"{indexed.forgotten} removed"
    )
    if indexed.others:
        leave_out = f"leave them out of a list, give it --folder {sources.shown(source)}; to "
        console.info(
            f"The index also has {text.counted(indexed.others, 'track')} of other libraries. To "
            f"{leave_out if source.is_dir() else ''}remove them, index again with --replace."
        )
    own = indexed.path == model.index_path
    if own and not _casefold(model.labels) & _casefold(store.collection.labels):
        console.warn(
            "No track in the index has a subgenre of the model, so --expand and --axis find "
            f"nothing. Run: subgenre index {model.root or 'LIBRARY'}"
        )


def listing(source: Path, maps: Maps = ()) -> Found:
    """List a library's files with their labels: ROOT/genre/subgenre/, a CSV or playlists.

    All other audio below a folder follows without labels. Trash is left out.

    Raises:
        LibraryError: no audio there.
    """
    try:
        found = sources.find(source, maps=maps)
    except LibraryError:
        if not source.is_file() or source.suffix.lower() in (".csv", ".xml"):
            raise
        files = sources.audio_files([source], maps)
        found = Found([Entry(path, "", "") for path in files.paths], list(files.skipped))
    entries = [entry for entry in found.entries if not entry.trash]
    if source.is_dir():
        # `Path.resolve` fails on a link to itself
        named = {os.path.realpath(entry.path) for entry in found.entries}
        below = sources.listing(source).entries
        entries += [entry for entry in below if os.path.realpath(entry.path) not in named]
    if not entries:
        raise LibraryError(f"{sources.shown(source)} holds no audio; name another folder")
    paths = {entry.path for entry in entries}
    skipped = [s for s in found.skipped if s.path not in paths]
    # the index is a database of text
    skipped += [Skipped(entry.path, _NO_TEXT) for entry in entries if not _is_text(entry.path)]
    return Found([entry for entry in entries if _is_text(entry.path)], skipped, found.notes)


def _is_text(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _casefold(pairs: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return labels (genre, subgenre) without differences of case."""
    return {(genre.casefold(), subgenre.casefold()) for genre, subgenre in pairs}


def _copy(origin: Index, store: Index, console: Console) -> int:
    """Copy the tracks that an index lacks, and what differs of others; return how many are new."""
    held = origin.collection
    plan = store.plan(held.tracks(held.live))
    rows = [held.row_of_id(track.id) for track in plan.new]
    with console.progress("copying") as bar:
        for start in range(0, len(rows), _COPY_AT_ONCE):
            some = rows[start : start + _COPY_AT_ONCE]
            store.upsert(held.tracks(some), held.vectors(some))
            bar(start + len(some), len(rows))
    store.update(plan.updated)
    store.set_copies(held.copies)
    known = store.collection.measured
    missing = [(i, values) for i, values in held.measured.items() if known.get(i) != values]
    for start in range(0, len(missing), _COPY_AT_ONCE):
        store.set_measured(dict(missing[start : start + _COPY_AT_ONCE]))
    store.keep_proximity()
    console.info(f"{store.address}: {text.counted(len(rows), 'track')} copied")
    return len(rows)


def _relink(store: Index, root: Path, console: Console) -> Relinked:
    with console.progress("looking for tracks") as bar:
        relinked = store.relink(root, on_progress=bar)
    console.info(f"{text.counted(len(relinked.found), 'track')} found below {root}")
    if relinked.missing:
        missing = text.counted(len(relinked.missing), "track")
        console.warn(f"{missing} not found below {root}; their paths stay as they were")
    return relinked


def _open(model: ModelFolder, path: Address, *, create: bool) -> Index:
    """Open an index; create it if there are tracks to put into it."""
    create = create or (path == model.index_path and _has_own_vectors(model))
    if Index.exists(path) or not create:
        return model.open_index(path)
    return Index.create(path, dim=model.dim, fingerprint=model.fingerprint)


def _add_own_tracks(model: ModelFolder, store: Index) -> frozenset[str]:
    """Put the model's own tracks into its own index if that is empty; return their ids."""
    if store.count or store.address != model.index_path or not _has_own_vectors(model):
        return frozenset()
    store.upsert(model.tracks, model.embeddings.vectors)
    return frozenset(model.embeddings.ids)


def _has_own_vectors(model: ModelFolder) -> bool:
    """Whether the model folder has vectors, by the encoder that it has now."""
    return model.has_embeddings and model.embeddings.fingerprint == model.fingerprint


def _describe(
    listed: Found, store: Index, workers: int | None, console: Console
) -> tuple[list[Track], list[Skipped]]:
    """Read ids and tags; unchanged files of the index are not opened."""
    entries = [dataclasses.replace(entry, path=entry.path.absolute()) for entry in listed.entries]
    indexed = store.collection.tracks(store.collection.live)
    known = {str(track.path): track for track in indexed}
    with console.progress("reading tracks") as bar:
        return scan.describe(entries, workers=workers, known=known, on_progress=bar)


def _keep_known(
    tracks: Sequence[Track],
    store: Index,
    source: Path,
    labels: frozenset[tuple[str, str]],
    *,
    replace: bool,
) -> list[Track]:
    """Keep the first path of a recording while its file exists, and labels that others gave.

    A label of the model, in `labels`, is replaced only by a library that has labels of the model.
    Of two copies the index takes the first: one with a label, then the one that it has.
    """
    has_labels, known = any(track.subgenre for track in tracks), _casefold(labels)
    shares = not known.isdisjoint(_casefold((t.genre, t.subgenre) for t in tracks))
    result, paths = [], set()
    for track in tracks:
        if not store.collection.has(track.id):
            result.append(track)
            continue
        old = store.get(track.id)
        paths.add(old.path)
        is_own = _is_of(old.path, source)
        is_kept = not shares and not known.isdisjoint(_casefold([(old.genre, old.subgenre)]))
        stays = old.path != track.path and not (is_own or replace) and old.path.is_file()
        if (stays and old.subgenre) or is_kept or not (track.subgenre or (has_labels and is_own)):
            named = old
        else:
            named = track
        kept = old if stays else track
        result.append(dataclasses.replace(kept, genre=named.genre, subgenre=named.subgenre))
    return sorted(result, key=lambda track: (not track.subgenre, track.path not in paths))


def _is_of(path: Path, source: Path) -> bool:
    """Whether an indexed file is of this library: below its folder, or gone if it is a list."""
    if not source.is_dir():
        return not path.exists()
    return lies_below(path, source)


def _paths(
    tracks: Sequence[Track],
    store: Index,
    source: Path,
    listed: Found,
    unreadable: Sequence[Skipped],
    *,
    replace: bool,
) -> dict[str, list[str]]:
    """Return every path of each track by id: those of the library now, then those elsewhere.

    A path of this library that is no longer there is left out, but not that of a file that can't
    be read now; a path elsewhere is kept while its file exists, and not with `replace`. A track
    without a path is to be removed.
    """
    skipped = {str(s.path.absolute()) for s in (*listed.skipped, *unreadable)}
    paths: dict[str, list[str]] = {}
    for track in tracks:
        paths.setdefault(track.id, []).append(str(track.path))
    for track_id, before in store.collection.paths().items():
        found = paths.setdefault(track_id, [])
        elsewhere = [p for p in before if not (replace or _is_of(Path(p), source))]
        there = [p for p in elsewhere if Path(p).is_file()]
        if not found and not there:
            there = elsewhere[:1]  # of another library that is away now
        found += [p for p in before if (p in there or p in skipped) and p not in found]
    return paths


def _elsewhere(store: Index, plan: Plan, paths: Mapping[str, Sequence[str]]) -> list[Track]:
    """Return the tracks that have left this library and lie in another one, with that path."""
    moved = []
    for track_id in plan.gone:
        if paths[track_id] and str((track := store.get(track_id)).path) not in paths[track_id]:
            moved.append(dataclasses.replace(track, path=Path(paths[track_id][0])))
    return moved


def _count_others(store: Index, source: Path, listed: set[str]) -> int:
    """Count the tracks of other libraries: those that `--folder` leaves out of a list."""
    if source.is_dir():
        inside = store.collection.allowed(Filter(folder=(str(source),)))
        return store.count - int(np.count_nonzero(inside))
    return sum(track_id not in listed for track_id in store.collection.paths())


def _reuse(model: ModelFolder, store: Index, new: Sequence[Track]) -> list[Track]:
    """Add the new tracks whose vectors the model folder has; return the others."""
    if not _has_own_vectors(model):
        return list(new)
    row_of = {track_id: row for row, track_id in enumerate(model.embeddings.ids)}
    own = [track for track in new if track.id in row_of]
    if own:
        store.upsert(own, model.embeddings.vectors[[row_of[track.id] for track in own]])
    return [track for track in new if track.id not in row_of]


def _embed(
    model: ModelFolder, store: Index, tracks: Sequence[Track], workers: int | None, console: Console
) -> tuple[int, list[Skipped]]:
    """Embed tracks and save them in the index every few seconds; return how many."""
    count = 0
    skipped: list[Skipped] = []
    unsaved: list[tuple[Track, np.ndarray]] = []
    saved_at = time.monotonic()

    def save() -> None:
        if unsaved:
            store.upsert([track for track, _ in unsaved], np.stack([v for _, v in unsaved]))
            unsaved.clear()

    if not tracks:
        return 0, []
    try:
        with console.progress("embedding") as bar:
            for position, vectors in model.embed_each([t.path for t in tracks], workers=workers):
                if vectors.skipped:
                    skipped += vectors.skipped
                elif vectors.ids[0] != tracks[position].id:
                    skipped.append(Skipped(tracks[position].path, scan.CHANGED))
                else:
                    count += 1
                    unsaved.append((tracks[position], vectors.vectors[0]))
                bar(count + len(skipped), len(tracks))
                if len(unsaved) >= _SAVE_EVERY or time.monotonic() - saved_at > SAVE_EVERY_S:
                    save()
                    saved_at = time.monotonic()
    finally:
        save()
    return count, skipped


def _measure(store: Index, workers: int | None, console: Console) -> list[Skipped]:
    """Measure tempo and key of each track of the index once, and save them every few seconds.

    A track that can't be measured has neither, and is not tried again; one whose file is away, or
    is replaced meanwhile, is.
    """
    known, every = store.collection.measured, store.collection.tracks(store.collection.live)
    todo = [track for track in every if track.id not in known and track.path.is_file()]
    if not todo:
        return []
    skipped: list[Skipped] = []
    unsaved: dict[str, Measured] = {}
    saved_at = time.monotonic()
    workers = min(len(todo), parallel.worker_count(workers))
    results = parallel.map_files(
        _tempo_key,
        todo,
        workers=workers,
        timeout_s=_MEASURE_TIMEOUT_S,
        initializer=parallel.limit_memory,
    )
    with console.progress("measuring tempo and key") as bar:
        for done, (position, result) in enumerate(results, start=1):
            track = todo[position]
            if not _is_still(track):
                skipped.append(Skipped(track.path, scan.CHANGED))
            elif isinstance(result, parallel.Failure):
                skipped.append(Skipped(track.path, f"no tempo and key: {result.reason}"))
                unsaved[track.id] = (None, None)
            else:
                unsaved[track.id] = result
            bar(done, len(todo))
            if done == len(todo) or time.monotonic() - saved_at > SAVE_EVERY_S:
                store.set_measured(unsaved)
                unsaved, saved_at = {}, time.monotonic()
    return skipped


def _tempo_key(track: Track) -> Measured:
    """Measure one track; runs in a worker."""
    return tempo_key.measure_file(track.path, track.duration_s)


def _is_still(track: Track) -> bool:
    """Whether a file holds this recording, perhaps with other tags."""
    if scan.stamp(track.path) == (track.size, track.mtime_ns):
        return True
    with contextlib.suppress(AudioError):
        return reading.probe(track.path).id == track.id
    return False
