"""Library -> the index of a model: embeds what is new, forgets what is gone."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from subgenre.commands.model_folder import ModelFolder
from subgenre.core import text
from subgenre.core.progress import Console, Silent
from subgenre.errors import LibraryError
from subgenre.library import scan, sources
from subgenre.library.sources import Entry, Found, Skipped
from subgenre.library.track import Track
from subgenre.search import storage
from subgenre.search.vector_index import Index, Plan, Relinked

KEEP_EVERY_S = 10.0  # a killed run loses at most what was embedded in this time
_KEEP_EVERY = 256  # tracks


@dataclass(frozen=True)
class Indexed:
    """What `index` did.

    Attributes:
        path: of the index. n_tracks: in it now.
        embedded, reused, updated, forgotten: tracks; reused vectors are the run's own.
        others: tracks in it that lie in other libraries.
        relinked: tracks found at the new root, and ids that were not.
        skipped: files left out, each with its reason.
    """

    path: Path
    n_tracks: int
    embedded: int = 0
    reused: int = 0
    updated: int = 0
    forgotten: int = 0
    others: int = 0
    relinked: Relinked | None = None
    skipped: tuple[Skipped, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Give plain values for JSON."""
        found = {"path": str(self.path)} | {
            name: getattr(self, name)
            for name in ("n_tracks", "embedded", "reused", "updated", "forgotten", "others")
        }
        if self.relinked is not None:
            found["relinked"] = len(self.relinked.found)
            found["missing"] = list(self.relinked.missing)
        return {
            **found,
            "skipped": [{"path": str(s.path), "reason": s.reason} for s in self.skipped],
        }


def index(
    source: Path | None,
    run: Path | ModelFolder | None = None,
    *,
    path: Path | None = None,
    root: Path | None = None,
    replace: bool = False,
    workers: int | None = None,
    console: Console | None = None,
) -> Indexed:
    """Bring the index of a model up to date with a library.

    The model's own index begins with the tracks that it was trained and tested on, which lists
    chose from before. Tracks of other libraries in the same index stay. Which labels a folder
    gives: see `listing`.

    Args:
        source: folder, CSV, folder of playlists or rekordbox XML; None: only `root` counts.
        run: the model folder; by default the newest with vectors.
        path: of the index; by default `index` in the model folder.
        root: the new place of a library that has moved; its tracks are found by their ids first.
        replace: forget the tracks of all other libraries, the model's own among them.
        workers: processes that read and decode; by default the cores.
        console: hears how it goes.

    Raises:
        RunError, IndexStoreError: the index is another model's; dimension and fingerprint named.
        LibraryError: no audio there, or neither source nor root is named.
    """
    console = console or Silent()
    opened = run if isinstance(run, ModelFolder) else ModelFolder.open(run, console)
    place = path or opened.index_path
    if source is None and (root is None or replace):
        what = "replace the index by" if replace else "index"
        raise LibraryError(f"nothing to {what}: name a library, or its new place with --root")
    listed = None if source is None else listing(source, opened.labels)
    store = _open(opened, place, listed)
    begun = _begin(opened, store)
    relinked = None if root is None else _relink(store, root, console)
    if source is None or listed is None:
        return Indexed(place, store.count, relinked=relinked)
    tracks, unread = _described(listed, store, workers, console)
    tracks = _with_labels(tracks, store, source, replace=replace)
    plan = store.plan(tracks)
    kept = {s.path for s in (*listed.skipped, *unread)}
    gone, others = _gone(store, plan, source, kept, replace=replace)
    store.update(plan.updated)
    left = _reuse(opened, store, plan.new)
    embedded, failed = _embed(opened, store, left, workers, console)
    forgotten = store.delete(gone)
    store.keep_proximity()
    skipped = sources.warn_of_skipped(console, (*listed.skipped, *unread, *failed))
    reused = len(plan.new) - len(left) + len(begun & {track.id for track in tracks})
    updated = sum(track.id not in begun for track in plan.updated)
    done = Indexed(
        place, store.count, embedded, reused, updated, forgotten, others, relinked, skipped
    )
    _tell(done, source, opened, store, console)
    return done


def _tell(done: Indexed, source: Path, run: ModelFolder, store: Index, console: Console) -> None:
    """Say what was done, and what else lists choose from."""
    console.info(
        f"{done.path}: {text.counted(done.n_tracks, 'track')}; {done.embedded} embedded, "
        f"{done.reused} by the run's own vectors, {done.updated} updated, "
        f"{done.forgotten} forgotten"
    )
    if done.others:
        console.info(
            f"{done.others} of them lie in other libraries and stay: lists choose from "
            f"{sources.shown(source)} alone with --folder, the index keeps it alone with --replace"
        )
    if done.path == run.index_path and not _folded(run.labels) & _folded(store.collection.labels):
        console.warn(
            "no track in the index is of a subgenre that the model has learnt, so that "
            "--expand and --axis find none; to add them: subgenre index "
            f"{run.data.get('root') or 'LIBRARY'}"
        )


def listing(source: Path, learnt: frozenset[tuple[str, str]]) -> Found:
    """List a library's files: with labels where its folders tell them, else without.

    Folders give labels where at least one genre/subgenre is one that the model has learnt; the
    other audio below the folder, at any depth, is listed after them without labels. The trash of
    a folder with labels is left out.

    Raises:
        LibraryError: no audio there.
    """
    try:
        found = sources.find(source)
    except LibraryError:
        if not source.is_file() or source.suffix.lower() in (".csv", ".xml"):
            raise
        found = Found([Entry(p, "", "") for p in sources.audio_files([source]).paths])
    entries = [entry for entry in found.entries if not entry.trash]
    if source.is_dir():
        named = {entry.path.resolve() for entry in found.entries}
        if not _folded((e.genre, e.subgenre) for e in entries) & _folded(learnt):
            entries = [Entry(e.path, "", "", origin=e.origin) for e in entries]
            named = {entry.path.resolve() for entry in entries}
        below = sources.listing(source).entries
        entries += [entry for entry in below if entry.path.resolve() not in named]
    if not entries:
        raise LibraryError(f"{sources.shown(source)} holds no audio; name another folder")
    listed = {entry.path for entry in entries}
    return Found(entries, [s for s in found.skipped if s.path not in listed], found.notes)


def _folded(pairs: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """Labels (genre, subgenre), upper and lower case alike."""
    return {(genre.casefold(), subgenre.casefold()) for genre, subgenre in pairs}


def _relink(store: Index, root: Path, console: Console) -> Relinked:
    with console.progress("looking for tracks") as bar:
        relinked = store.relink(root, on_progress=bar)
    console.info(f"{text.counted(len(relinked.found), 'track')} found below {root}")
    if relinked.missing:
        lost = text.counted(len(relinked.missing), "track")
        console.warn(f"{lost} not found below {root}, left as before")
    return relinked


def _open(run: ModelFolder, place: Path, listed: Found | None) -> Index:
    """Open an index, or make one where there is something to put into it."""
    nothing = listed is None and not (place == run.index_path and _has_vectors(run))
    if nothing or storage.exists(place):
        return run.open_index(place)
    return Index.create(place, dim=run.dim, fingerprint=run.fingerprint)


def _begin(run: ModelFolder, store: Index) -> frozenset[str]:
    """Put the run's own tracks into its own index while that is empty; return their ids."""
    if store.count or store.path != run.index_path or not _has_vectors(run):
        return frozenset()
    store.upsert(run.tracks, run.embeddings.vectors)
    return frozenset(run.embeddings.ids)


def _has_vectors(run: ModelFolder) -> bool:
    """Whether the vectors of the run's own tracks are there, by the model as it is."""
    return run.has_embeddings and run.embeddings.fingerprint == run.fingerprint


def _described(
    listed: Found, store: Index, workers: int | None, console: Console
) -> tuple[list[Track], list[Skipped]]:
    """Read ids and tags; files that the index knows are not opened while they are unchanged."""
    with console.progress("reading tracks") as bar:
        return scan.describe(
            [_absolute(entry) for entry in listed.entries],
            workers=workers,
            known=_known(store),
            on_progress=bar,
        )


def _with_labels(
    tracks: Sequence[Track], store: Index, source: Path, *, replace: bool
) -> list[Track]:
    """Let music without labels take none away that another library, or the training, has told.

    Of such a recording the index keeps the file that it knows, while that is there. Tracks with a
    label come first: of two copies of a recording the index takes the first.
    """
    tells = any(track.subgenre for track in tracks)
    found = []
    for track in tracks:
        held = store.get(track.id) if store.collection.has(track.id) else None
        if track.subgenre or held is None or (tells and _lies_in(held.path, source)):
            found.append(track)
        elif not held.subgenre or held.path == track.path or replace or not held.path.is_file():
            found.append(dataclasses.replace(track, genre=held.genre, subgenre=held.subgenre))
        else:
            found.append(held)
    return sorted(found, key=lambda track: not track.subgenre)


def _lies_in(path: Path, source: Path) -> bool:
    """Whether a file was one of this library's: below its folder, or gone where it is a list."""
    if not source.is_dir():
        return not path.exists()
    return any(map(path.is_relative_to, (source.absolute(), source.resolve())))


def _absolute(entry: Entry) -> Entry:
    return Entry(entry.path.absolute(), entry.genre, entry.subgenre, entry.trash, entry.origin)


def _known(store: Index) -> dict[str, Track]:
    """Tracks of the index by path, in the library's words."""
    rows = store.collection.tracks(store.collection.live)
    return {str(row.path): row for row in rows}


def _gone(
    store: Index, plan: Plan, source: Path, skipped: set[Path], *, replace: bool
) -> tuple[list[str], int]:
    """Ids to forget, what lay in this library and lies there no more; how many lie in others.

    A file that can't be read today is not gone, nor is another library's, unless that is asked.
    """
    unread = {path.absolute() for path in skipped}
    found, others = [], 0
    for track_id in plan.gone:
        path = store.get(track_id).path
        if path in unread:
            continue
        if replace or _lies_in(path, source):
            found.append(track_id)
        else:
            others += 1
    return found, others


def _reuse(run: ModelFolder, store: Index, new: Sequence[Track]) -> list[Track]:
    """Take the run's own vectors for tracks that it has; return the others."""
    if not _has_vectors(run):
        return list(new)
    row = {track_id: i for i, track_id in enumerate(run.embeddings.ids)}
    held = [track for track in new if track.id in row]
    if held:
        store.upsert(held, run.embeddings.vectors[[row[track.id] for track in held]])
    return [track for track in new if track.id not in row]


def _embed(
    run: ModelFolder, store: Index, tracks: Sequence[Track], workers: int | None, console: Console
) -> tuple[int, list[Skipped]]:
    """Embed tracks and keep them in the index every few seconds."""
    done = 0
    skipped: list[Skipped] = []
    waiting: list[tuple[Track, np.ndarray]] = []
    kept_at = time.monotonic()

    def keep() -> None:
        if waiting:
            store.upsert([track for track, _ in waiting], np.stack([v for _, v in waiting]))
            waiting.clear()

    if not tracks:
        return 0, []
    try:
        with console.progress("embedding") as bar:
            for position, found in run.embed_each([t.path for t in tracks], workers=workers):
                if found.skipped:
                    skipped += found.skipped
                else:
                    done += 1
                    waiting.append((tracks[position], found.vectors[0]))
                bar(done + len(skipped), len(tracks))
                if len(waiting) >= _KEEP_EVERY or time.monotonic() - kept_at > KEEP_EVERY_S:
                    keep()
                    kept_at = time.monotonic()
    finally:
        keep()
    return done, skipped


def missing(tracks: Sequence[Any], console: Console) -> int:
    """Warn of tracks whose file is gone; return how many."""
    gone = [track for track in tracks if not Path(track.path).is_file()]
    for track in gone[:3]:
        console.warn(f"{sources.shown(track.path)} is gone")
    if gone:
        console.warn(
            f"{text.counted(len(gone), 'track')} gone from where the index saw them; "
            "`subgenre index --root NEW` finds a library that has moved"
        )
    return len(gone)
