"""Similar tracks and playlists of a model: seeds by any name or file, the list made and written."""

from __future__ import annotations

import contextlib
import math
import os
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from subgenre.audio import keys
from subgenre.commands.model_folder import ModelFolder
from subgenre.core import text
from subgenre.core.progress import Console, Silent
from subgenre.errors import AudioError, IndexStoreError, PlaylistError
from subgenre.library import formats, sources
from subgenre.search import requests
from subgenre.search.classifier import Classifier
from subgenre.search.collection import Collection
from subgenre.search.playlists import Seed
from subgenre.search.ranking import Hit
from subgenre.search.requests import PlaylistRequest

if TYPE_CHECKING:
    from subgenre.search.served import ServedIndex

REKORDBOX_KEEPS = (
    "rekordbox ignores changes to tracks that it already has: the genre, grouping, tempo, key and "
    "colour of this file reach only tracks that are new to it"
)
NO_TRACK_LEFT = "no track is left to choose from; remove a filter, or run: subgenre index FOLDER"


def playlist(
    model: ModelFolder,
    tracks: Collection,
    request: PlaylistRequest,
    *,
    out: Path | None = None,
    console: Console | None = None,
) -> list[Hit]:
    """Make a list and write it; if no track fits, the list is empty and the console says why.

    Args:
        model: embeds seeds that are files. tracks: to choose from.
        out: a .m3u8, .csv or .xml (rekordbox); an empty list is not written.

    Raises:
        PlaylistError: an unknown track or subgenre, or an extension that no format has.
        AudioError: a seed that can't be read. IndexStoreError: an unknown name in the filter.
    """
    console = console or Silent()
    given = request.seeds
    request = replace(
        request,
        seeds=_seeds(model, tracks, request.seeds, console),
        like=_seeds(model, tracks, request.like, console),
        unlike=_seeds(model, tracks, request.unlike, console),
    )
    for seed in (tracks.track(tracks.row(s)) for s in request.seeds if isinstance(s, str)):
        if seed.tempo_and_key:
            console.info(f"{seed.name}: {seed.tempo_and_key}")
    classifier = _classifier(model, console) if request.expand else None
    hits = requests.make(tracks, request, classifier=classifier)
    if request.journey:
        _name_replaced_ends(given, request.seeds, console)
    if not hits:
        console.warn(_why_empty(tracks, request, classifier))
    for note in requests.notes(tracks, request, hits):
        console.warn(note)
    _write(out, hits, console)
    return hits


def nearby(
    model: ModelFolder,
    index: ServedIndex,
    request: PlaylistRequest,
    *,
    console: Console | None = None,
) -> Collection | None:
    """Return the tracks of a served index that decide a list of similar tracks.

    Returns:
        None where all are needed: for any other list, and for a seed that names no single track.
    """
    is_other = request.expand or request.axis or request.journey or request.minutes
    if is_other or len(request.seeds) != 1 or request.tracks is None:
        return None
    (name,) = request.seeds
    named = _named(index, name)
    try:
        (seed,) = _seeds(model, named, [name], console or Silent())
        return index.candidates(named, seed, request)
    except PlaylistError:
        return None  # the message names the most similar name of all


def _named(index: ServedIndex, name: Seed) -> Collection:
    """Return the tracks of a served index that a seed may mean."""
    if isinstance(name, np.ndarray):
        return index.find()
    paths = [("path", str(name)), ("path", str(Path(name).absolute()))]
    if not os.path.isfile(name):  # noqa: PTH113 - False for a name that is too long, too
        return index.find(("id", str(name)), ("name", str(name).casefold()), *paths)
    from subgenre.audio import isolated

    with contextlib.suppress(AudioError):
        paths.append(("id", isolated.probe(Path(name)).id))
    return index.find(*paths)


def _seeds(
    model: ModelFolder, tracks: Collection, names: Sequence[Seed], console: Console
) -> list[Seed]:
    """Resolve seeds to ids of the collection, or to vectors; a file from elsewhere is embedded."""
    seeds = [_resolve(tracks, name) for name in names]
    files = [seed for seed in seeds if isinstance(seed, Path)]
    if not files:
        return seeds
    embedded = model.embed(files, console=console)
    if embedded.skipped:
        first = embedded.skipped[0]
        raise PlaylistError(f"{first.path} can't be a seed: {first.reason}")
    vectors = iter(embedded.vectors)
    return [next(vectors) if isinstance(seed, Path) else seed for seed in seeds]


def _resolve(tracks: Collection, name: Seed) -> Seed:
    """Return the id of a track, a vector as it is, or the path of a file to embed."""
    if isinstance(name, np.ndarray):
        return name
    path = Path(name)
    if not os.path.isfile(path):  # noqa: PTH113 - False for a name that is too long, too
        try:
            return tracks.track(tracks.row(name)).id
        except IndexStoreError as problem:
            raise PlaylistError(f"{problem} of a track, or a file that exists") from problem
    if tracks.has_path(path):
        return tracks.track(tracks.row(path)).id
    from subgenre.audio import isolated

    try:
        track_id = isolated.probe(path).id  # a copy of an indexed track has the same id
    except AudioError as problem:
        raise AudioError(f"{path} can't be a seed: {problem}") from problem
    return track_id if tracks.has(track_id) else path


def _classifier(model: ModelFolder, console: Console) -> Classifier | None:
    """Return the model's classifier; None if the model has no vectors."""
    if model.has_embeddings:
        return model.classifier()
    path = shlex.quote(str(model.path))
    console.warn(
        f"{model.path} has no vectors of its own tracks, so how well a track fits is estimated "
        f"from the index alone; `subgenre evaluate --run {path}` writes them"
    )
    return None


def _why_empty(tracks: Collection, request: PlaylistRequest, classifier: Classifier | None) -> str:
    if request.between:
        return (
            f"no track is left {_range(request.between)} on the axis; widen --between, remove a "
            "filter, or run: subgenre index FOLDER"
        )
    best = None
    if request.expand:
        best = requests.best_fit(tracks, request, classifier=classifier)
    if best is None:
        return NO_TRACK_LEFT
    return (
        f"no track fits {request.expand} at {request.until_fit:g}; the best fit is "
        f"{fit_text(best.score)} ({best.track.name}). Lower --until-fit, or leave it out"
    )


def _name_replaced_ends(given: Sequence[Seed], seeds: Sequence[Seed], console: Console) -> None:
    """Name the ends of a journey that are not in the index; the nearest track replaces each."""
    for name, seed in zip(given, seeds, strict=True):
        if isinstance(seed, np.ndarray) and name is not seed:
            console.info(f"{name} is not in the index; the most similar track replaces it")


def _range(between: tuple[float, float]) -> str:
    low, high = sorted(between)
    return f"between {low:g} and {high:g}"


def fit_text(fit: float) -> str:
    """Return a fit with three digits, rounded down: as --until-fit it still includes the track."""
    return f"{math.floor(fit * 1000) / 1000:.3f}"


def _write(out: Path | None, hits: Sequence[Hit], console: Console) -> None:
    """Write a list that is not empty, and warn of files that are gone."""
    tracks = [hit.track for hit in hits]
    gone = [track for track in tracks if not track.path.is_file()]
    for track in gone[:3]:
        console.warn(f"{sources.shown(track.path)} is gone")
    if gone:
        console.warn(
            f"{text.counted(len(gone), 'file')} of this list missing. If the library has moved, "
            "run `subgenre index --root NEW_FOLDER`."
        )
    if out is None:
        return
    if not tracks:
        console.warn(f"{out} is not written, because the list is empty")
        return
    formats.write_playlist(out, tracks)
    console.info(f"{out}: {text.counted(len(tracks), 'track')}")
    if out.suffix.lower() == ".xml":
        console.warn(REKORDBOX_KEEPS)


def rows_of(hits: Sequence[Hit], ranking: str) -> list[dict[str, Any]]:
    """Return hits as plain values; those of an expansion also have `fits`."""
    return [
        _row(hit) | ({"fits": round(hit.score, 4)} if ranking == "fits" else {}) for hit in hits
    ]


def _row(hit: Hit) -> dict[str, Any]:
    track = hit.track
    return {
        "id": track.id,
        "path": str(track.path),
        "artist": track.artist,
        "title": track.title,
        "genre": track.genre,
        "subgenre": track.subgenre,
        "bpm": track.bpm or None,
        "tempo": track.tempo,
        "tempo_bpm": track.tempo_bpm,
        "key": track.key,
        "camelot": track.key and keys.camelot(track.key),
        "duration_s": track.duration_s,
        "cosine": None if math.isnan(hit.cosine) else round(hit.cosine, 6),
        "score": round(hit.score, 6),
        "before": hit.before,
    }
