"""A model as the explorer shows it: map, placements, the doctor's word, and how files are heard."""

from __future__ import annotations

import csv
import dataclasses
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from subgenre.commands import model_map, refit
from subgenre.commands.model_folder import ModelFolder
from subgenre.config import PreprocessConfig
from subgenre.core import workspace
from subgenre.core.progress import Console, Silent
from subgenre.errors import AudioError, EvaluationError
from subgenre.evaluation.audits.mislabels import Finding
from subgenre.explorer import Correction, Encoded, Library, create_app, serve
from subgenre.library.sources import TRASH
from subgenre.search.collection import Collection
from subgenre.search.track_rows import IndexedTrack

CORRECTIONS = "corrections.json"  # in the model folder
CACHE = "explorer"


def explore(
    run: Path | ModelFolder | None = None,
    *,
    index: Path | None = None,
    playlists: Path = Path("playlists"),
    host: str = "127.0.0.1",
    port: int = 0,
    on_ready: Callable[[str], None] | None = None,
    console: Console | None = None,
) -> None:
    """Serve the map of a model until it is interrupted.

    Args:
        run: the model folder; by default the newest with vectors.
        index: by default the model's own.
        playlists: folder that saved playlists go to.
        host, port: where it listens; loopback and a free port by default.
        on_ready: hears the page's address.

    Raises:
        MissingExtraError: the web extra is not installed. RunError, IndexStoreError: as for
        `ModelFolder.collection`. ConfigError: the address can't be had.
    """
    opened = run if isinstance(run, ModelFolder) else ModelFolder.open(run, console)
    shown = library(opened, index=index, playlists=playlists, console=console)
    serve(create_app(shown), host=host, port=port, on_ready=on_ready)


def library(
    run: ModelFolder,
    *,
    index: Path | None = None,
    playlists: Path = Path("playlists"),
    console: Console | None = None,
) -> Library:
    """Gather what the explorer shows of a model and its tracks.

    Raises:
        RunError: the run has no vectors. IndexStoreError: the index is of another model.
    """
    console = console or Silent()
    tracks = run.collection(index)
    fitted = model_map.load_map(run, console=console)
    try:
        classifier = run.classifier()
    except EvaluationError as problem:
        console.warn(f"no placements: {problem}")
        classifier = None
    shown = Library(
        collection=tracks,
        coordinates=model_map.coordinates(fitted, run, tracks),
        place=fitted.place,
        playlists=playlists.absolute(),
        corrections=run.path / CORRECTIONS,
        cache=run.path / CACHE,
        root=_root(run),
        title=run.path.name,
        note=model_map.note(fitted),
        classifier=classifier,
        trained=run.train_ids,
        findings=_findings(run.path / workspace.DOCTOR),
        windows=_windows(run),
        chunk_s=run.preprocess.chunk_s,
        encode=hearing(run),
    )
    if not refit.can_refit(run, tracks):
        console.info(f"corrections are kept, but not refitted: {_lacking(run, tracks)}")
        return shown
    return dataclasses.replace(shown, refit=refitting(run, shown))


def hearing(run: ModelFolder) -> Callable[[Path], Encoded]:
    """Return the function that hears one file by a model."""

    def hear(path: Path) -> Encoded:
        found = run.embed([path], workers=1)
        if found.skipped:
            raise AudioError(f"{path} {found.skipped[0].reason}")
        starts = found.chunk_start_s.tolist()
        return Encoded(found.vectors[0], found.chunks, starts, found.duration_s[0])

    return hear


def refitting(run: ModelFolder, shown: Library) -> Callable[[Mapping[str, Correction]], Library]:
    """Return the function that trains the head anew with what the person said.

    Each call begins from the model as it was trained, so that a correction can be taken back.
    """

    def again(said: Mapping[str, Correction]) -> Library:
        moved = {key: (one.genre, one.subgenre) for key, one in said.items() if one.subgenre}
        wrong = frozenset(key for key, one in said.items() if one.wrong)
        new = refit.refit(run, moved, wrong)
        fitted = model_map.fit(new)
        row = {track_id: i for i, track_id in enumerate(new.embeddings.ids)}
        told = shown.collection.tracks(shown.collection.live)
        order = [row[track.id] for track in told]
        told = [
            dataclasses.replace(track, genre=new.tracks[i].genre, subgenre=new.tracks[i].subgenre)
            for track, i in zip(told, order, strict=True)
        ]
        tracks = Collection.of(told, new.embeddings.vectors[order])
        return dataclasses.replace(
            shown,
            collection=tracks,
            coordinates=model_map.coordinates(fitted, new, tracks),
            place=fitted.place,
            note=model_map.note(fitted),
            classifier=new.classifier(),
            trained=new.train_ids,
            encode=hearing(new),
        )

    def named(said: Mapping[str, Correction]) -> Library:
        return dataclasses.replace(again(said), refit=named)

    return named


def _lacking(run: ModelFolder, tracks: Collection) -> str:
    """Say what a refit lacks, and which commands mend it."""
    features = Path(run.data.get("features") or "preprocessed_features")
    out, path = shlex.quote(str(features)), shlex.quote(str(run.path))
    preprocess = _preprocess(run, out)
    if not features.is_dir():
        return f"the features are gone from {features}; {preprocess} computes them again"
    if not run.has_embeddings:
        return f"the model has no vectors of tracks; `subgenre evaluate --run {path}` writes them"
    known = set(run.embeddings.ids)
    more = sum(track.id not in known for track in tracks.tracks(tracks.live))
    return (
        f"{more} of {len(tracks)} tracks shown are not among those that the model was trained and "
        f"tested on. Sort them into the library's subgenres (classify --copy-to helps), "
        f"then {preprocess} and `subgenre train --features {out} --recipe {path}/config.toml`: the "
        f"new model refits them, with {path}/{CORRECTIONS} copied into its folder"
    )


def _preprocess(run: ModelFolder, out: str) -> str:
    """Name the command that makes the run's features, where the run can tell it."""
    root, own, usual = _root(run), vars(run.preprocess), vars(PreprocessConfig())
    others = {name: value for name, value in own.items() if value != usual[name]}
    elsewhere = not all(_in_folder(track, root) for track in run.tracks)  # a CSV, or playlists
    has_trash = bool(run.data.get("n_trash", 1)) and not (root / TRASH).is_dir()  # --trash PLACE
    if elsewhere or has_trash or "min_track_s" in others:
        return f"the `subgenre preprocess` command that made {out}"
    words = [shlex.quote(str(root)), "--out", out]
    words += ["--backbone", shlex.quote(run.settings.model.backbone)]
    for name, value in others.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return f"`subgenre preprocess {' '.join(words)}`"


def _in_folder(track: IndexedTrack, root: Path) -> bool:
    """Tell whether a track lies in the folder root/genre/subgenre of its label."""
    return track.path.is_relative_to(root / track.genre / track.subgenre)


def _root(run: ModelFolder) -> Path:
    return Path(run.data.get("root") or Path.cwd())


def _findings(path: Path) -> tuple[Finding, ...]:
    """Read what the doctor said, where it was asked; the page does without a damaged list."""
    names = [f.name for f in dataclasses.fields(Finding)]
    found = []
    try:
        with path.open(encoding="utf-8", newline="") as table:
            for row in csv.DictReader(table):
                told = {name: row.get(name) or "" for name in names if name != "confidence"}
                found.append(Finding(**told, confidence=float(row["confidence"])))
    except (OSError, ValueError, KeyError, csv.Error):
        return ()
    return tuple(found)


def _windows(run: ModelFolder) -> dict[str, tuple[float, ...]]:
    """Where the chunks of each track start, while the feature folder is there to tell."""
    try:
        table = pq.read_table(
            Path(run.data["features"]) / "chunks.parquet", columns=["track", "start_s"]
        )
    except (OSError, ValueError, KeyError, pa.ArrowException):
        return {}
    found: dict[str, list[float]] = {}
    for track, start in zip(*(table[name].to_pylist() for name in table.column_names), strict=True):
        found.setdefault(track, []).append(float(start))
    return {track: tuple(np.unique(starts).tolist()) for track, starts in found.items()}
