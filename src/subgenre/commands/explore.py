"""The explorer of a model: its map, placements, the doctor's findings, and refits of its head."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from subgenre.commands import model_map, refit
from subgenre.commands.model_folder import ModelFolder
from subgenre.core import csv_tables, text, workspace
from subgenre.core.progress import Console, Silent
from subgenre.errors import AudioError, EvaluationError, MissingExtraError
from subgenre.evaluation.audits.findings import Finding
from subgenre.explorer import Correction, Encoded, Library
from subgenre.report.maps import Map
from subgenre.search.address import Address
from subgenre.search.classifier import Classifier
from subgenre.search.collection import Collection
from subgenre.search.vector_index import Index

_CORRECTIONS, _CACHE = "corrections.json", "explorer"  # in the model folder


def explore(
    model: ModelFolder,
    *,
    index: Address | None = None,
    playlists: Path,
    host: str,
    port: int,
    on_ready: Callable[[str], None],
    console: Console | None = None,
) -> None:
    """Serve the map of a model until it is interrupted.

    Args:
        index: a folder or a server; by default the model's own.
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
    index: Address | None = None,
    playlists: Path,
    console: Console | None = None,
) -> Library:
    """Gather what the explorer shows of a model and its tracks.

    Raises:
        RunError: the model has no vectors. IndexStoreError: the index is of another model.
    """
    console = console or Silent()
    # before reading: what changes meanwhile is read again
    stamp = Index.stamp(index or model.index_path)
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
    return _Trained(model, index, fitted, stamp, can_refit=not obstacle).show(shown)


@dataclass(frozen=True)
class _Trained:
    """The model as it was trained, its map, and the state of its index when it was read."""

    model: ModelFolder
    index: Address | None
    fitted: Map
    stamp: object
    can_refit: bool

    def show(self, library: Library) -> Library:
        """Return the library with the functions that read it again and refit the model."""
        return dataclasses.replace(
            library,
            reread=partial(self.reread, library),
            refit=partial(self.refit, library) if self.can_refit else None,
        )

    def reread(self, library: Library) -> Library | None:
        """Return the library as its index is now; None if the index is as it was."""
        now = Index.stamp(self.index or self.model.index_path)
        if now == self.stamp:
            return None
        tracks = self.model.collection(self.index)
        coordinates = model_map.coordinates(self.fitted, self.model, tracks)
        changed = dataclasses.replace(library, collection=tracks, coordinates=coordinates)
        return dataclasses.replace(self, stamp=now).show(changed)

    def refit(
        self, library: Library, corrections: Mapping[str, Correction], console: Console
    ) -> Library:
        """Refit the head with the corrections.

        Each refit starts from the model as it was trained, so that a correction can be taken back.
        """
        moved = {i: (c.genre, c.subgenre) for i, c in corrections.items() if c.subgenre}
        wrong = frozenset(i for i, c in corrections.items() if c.wrong)
        before = library.collection.tracks(library.collection.live)
        model = refit.refit(self.model, moved, wrong, indexed=before, console=console)
        after = _Refitted(self.model, model, model_map.fit(model), model.classifier(), moved)
        return after.show(self.show(library))


@dataclass(frozen=True)
class _Refitted:
    """A model after a refit, its map, and the subgenres that corrections gave to tracks."""

    before: ModelFolder
    model: ModelFolder
    fitted: Map
    classifier: Classifier
    moved: Mapping[str, tuple[str, str]]

    def show(self, library: Library) -> Library:
        """Return a library of the model as it was trained as it is after this refit."""
        tracks = self._tracks(library.collection)
        estimated = len(tracks) - sum(map(tracks.has, self.model.embeddings.ids))
        note = self.fitted.note.rstrip(".") + "."
        if estimated:
            indexed = f"{text.counted(estimated, 'track')} that were only indexed"
            note += f" Since the refit, the places of {indexed} are estimates."
        return dataclasses.replace(
            library,
            collection=tracks,
            coordinates=model_map.coordinates(self.fitted, self.model, tracks),
            place=self.fitted.place,
            note=note,
            classifier=self.classifier,
            trained=self.model.train_ids,
            encode=_encoder(self.model),
            reread=partial(self.reread, library),
        )

    def reread(self, library: Library) -> Library | None:
        """Return `show` of the library as its index is now; None if the index is as it was."""
        now = library.reread and library.reread()
        return now and self.show(now)

    def _tracks(self, shown: Collection) -> Collection:
        """Return the tracks shown with their labels and vectors after the refit.

        The vectors of tracks that were only indexed are estimated, see `refit.carried`.
        """
        stored = self.model.embeddings
        row_of = {track_id: row for row, track_id in enumerate(stored.ids)}
        own = [row_of[track_id] for track_id in self.before.embeddings.ids]
        vectors = refit.carried(
            self.before.embeddings.vectors, stored.vectors[own], shown.vectors(shown.live)
        )
        tracks = []
        for i, track in enumerate(shown.tracks(shown.live)):
            genre, subgenre = self.moved.get(track.id, (track.genre, track.subgenre))
            tracks.append(dataclasses.replace(track, genre=genre, subgenre=subgenre))
            if track.id in row_of:
                vectors[i] = stored.vectors[row_of[track.id]]
        return Collection.of(tracks, vectors)


def _encoder(model: ModelFolder) -> Callable[[Path], Encoded]:
    """Return the function that encodes one file."""

    def encode(path: Path) -> Encoded:
        vectors = model.embed([path], workers=1)
        if vectors.skipped:
            raise AudioError(f"{path} {vectors.skipped[0].reason}")
        starts_s = vectors.chunk_start_s.tolist()
        return Encoded(vectors.vectors[0], vectors.chunks, starts_s, vectors.duration_s[0])

    return encode


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
