"""The explorer of a model: its map, placements, the doctor's findings, and refits of its head."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from subgenre.commands import model_map, refit
from subgenre.commands.model_folder import ModelFolder
from subgenre.core import csv_tables, text, workspace
from subgenre.core.progress import Console, Silent
from subgenre.errors import AudioError, EvaluationError, MissingExtraError
from subgenre.evaluation.audits.findings import Finding
from subgenre.explorer import Correction, Encoded, Library
from subgenre.search import storage
from subgenre.search.collection import Collection

_CORRECTIONS, _CACHE = "corrections.json", "explorer"  # in the model folder


def explore(
    model: ModelFolder,
    *,
    index: Path | None = None,
    playlists: Path,
    host: str,
    port: int,
    on_ready: Callable[[str], None],
    console: Console | None = None,
) -> None:
    """Serve the map of a model until it is interrupted.

    Args:
        index: an index folder; by default the model's own.
        playlists: folder for saved playlists.
        host: address to listen on. port: 0 takes a free one.
        on_ready: is called with the page's address.

    Raises:
        MissingExtraError: the web extra is not installed. ConfigError: the address or port is not
            available. RunError, IndexStoreError: as for `library`.
    """
    try:
        from subgenre.explorer.server import serve
    except ImportError as problem:
        raise MissingExtraError("the explorer", "web") from problem
    shown = library(model, index=index, playlists=playlists, console=console)
    serve(shown, host=host, port=port, on_ready=on_ready)


def library(
    model: ModelFolder,
    *,
    index: Path | None = None,
    playlists: Path,
    console: Console | None = None,
) -> Library:
    """Gather what the explorer shows of a model and its tracks.

    Raises:
        RunError: the model has no vectors. IndexStoreError: the index is of another model.
    """
    console = console or Silent()
    folder = index or model.index_path
    stamp = storage.stamp(folder)  # before reading: what changes meanwhile is read again
    tracks = model.collection(index)
    fitted = model_map.load_map(model, console=console)
    try:
        classifier = model.classifier()
    except EvaluationError as problem:
        console.warn(f"no placements: {problem}")
        classifier = None
    shown = Library(
        collection=tracks,
        coordinates=model_map.coordinates(fitted, model, tracks),
        place=fitted.place,
        playlists=playlists.absolute(),
        corrections=model.path / _CORRECTIONS,
        cache=model.path / _CACHE,
        root=model.root or Path.cwd(),
        title=model.path.name,
        note=fitted.note,
        classifier=classifier,
        trained=model.train_ids,
        findings=_findings(model.path / workspace.DOCTOR),
        chunk_starts=_chunk_starts(model),
        chunk_s=model.preprocess.chunk_s,
        encode=_encoder(model),
    )
    obstacle = refit.obstacle(model)
    if obstacle:
        console.info(f"corrections are kept, but the model can't be refitted: {obstacle}")

    def watched(made: Library, stamp: object) -> Library:
        def reread() -> Library | None:
            now = storage.stamp(folder)
            if now == stamp:
                return None
            tracks = model.collection(index)
            coordinates = model_map.coordinates(fitted, model, tracks)
            return watched(
                dataclasses.replace(made, collection=tracks, coordinates=coordinates), now
            )

        made = dataclasses.replace(made, reread=reread)
        return made if obstacle else dataclasses.replace(made, refit=_refitter(model, made))

    return watched(shown, stamp)


def _encoder(model: ModelFolder) -> Callable[[Path], Encoded]:
    """Return the function that encodes one file."""

    def encode(path: Path) -> Encoded:
        vectors = model.embed([path], workers=1)
        if vectors.skipped:
            raise AudioError(f"{path} {vectors.skipped[0].reason}")
        starts_s = vectors.chunk_start_s.tolist()
        return Encoded(vectors.vectors[0], vectors.chunks, starts_s, vectors.duration_s[0])

    return encode


def _refitter(
    model: ModelFolder, shown: Library
) -> Callable[[Mapping[str, Correction], Console], Library]:
    """Return the function that refits the head with the corrections.

    Each call starts from the model as it was trained, so that a correction can be taken back.
    """

    def refitted(corrections: Mapping[str, Correction], console: Console) -> Library:
        moved = {i: (c.genre, c.subgenre) for i, c in corrections.items() if c.subgenre}
        wrong = frozenset(i for i, c in corrections.items() if c.wrong)
        before = shown.collection.tracks(shown.collection.live)
        new = refit.refit(model, moved, wrong, indexed=before, console=console)
        fitted = model_map.fit(new)
        classifier = new.classifier()

        def carried(library: Library) -> Library:
            """Return a library that is not refitted as it is after this refit."""
            tracks = _after(model, new, library.collection, moved)
            estimated = len(tracks) - sum(map(tracks.has, new.embeddings.ids))
            note = fitted.note.rstrip(".") + "."
            if estimated:
                indexed = f"{text.counted(estimated, 'track')} that were only indexed"
                note += f" Since the refit, the places of {indexed} are estimates."

            def reread() -> Library | None:
                now = library.reread and library.reread()
                return now and carried(now)

            return dataclasses.replace(
                library,
                collection=tracks,
                coordinates=model_map.coordinates(fitted, new, tracks),
                place=fitted.place,
                note=note,
                classifier=classifier,
                trained=new.train_ids,
                encode=_encoder(new),
                refit=library.refit or refitted,
                reread=reread,
            )

        return carried(shown)

    return refitted


def _after(
    model: ModelFolder, new: ModelFolder, shown: Collection, moved: Mapping[str, tuple[str, str]]
) -> Collection:
    """Return the tracks shown with their labels and vectors after a refit.

    The vectors of tracks that were only indexed are estimated, see `refit.carried`.
    """
    before = shown.tracks(shown.live)
    row_of = {track_id: row for row, track_id in enumerate(new.embeddings.ids)}
    own = [row_of[track_id] for track_id in model.embeddings.ids]
    vectors = refit.carried(
        model.embeddings.vectors, new.embeddings.vectors[own], shown.vectors(shown.live)
    )
    tracks = []
    for i, track in enumerate(before):
        genre, subgenre = moved.get(track.id, (track.genre, track.subgenre))
        tracks.append(dataclasses.replace(track, genre=genre, subgenre=subgenre))
        if track.id in row_of:
            vectors[i] = new.embeddings.vectors[row_of[track.id]]
    return Collection.of(tracks, vectors)


def _findings(path: Path) -> tuple[Finding, ...]:
    """Read the doctor's findings; none without a readable table."""
    texts = ("track", "path", "kind", "subgenre", "suggestion", "why")
    findings = []
    try:
        with path.open(encoding="utf-8", newline="") as table:
            for row in csv.DictReader(table):
                findings.append(
                    Finding(
                        **{name: csv_tables.plain(row.get(name) or "") for name in texts},
                        confidence=float(row["confidence"]),
                        fit=float(row["fit"]) if row.get("fit") else None,
                        nearest=tuple((row.get("nearest") or "").split()),
                    )
                )
    except (OSError, ValueError, KeyError, csv.Error):
        return ()
    return tuple(findings)


def _chunk_starts(model: ModelFolder) -> dict[str, tuple[float, ...]]:
    """Read where the chunks of each track start, in seconds; empty without the feature folder."""
    starts: dict[str, list[float]] = {}
    for row in model.feature_rows("chunks.parquet", "track", "start_s"):
        starts.setdefault(row["track"], []).append(float(row["start_s"]))
    return {track_id: tuple(np.unique(values).tolist()) for track_id, values in starts.items()}
