"""A new head for a trained model, fitted with corrected labels on cached vectors in seconds."""

from __future__ import annotations

import dataclasses
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from subgenre import config
from subgenre.commands.model_folder import ModelFolder
from subgenre.config import TrainConfig
from subgenre.core import parallel
from subgenre.core.progress import Console, Silent
from subgenre.dataset import track_vectors
from subgenre.dataset.track_vectors import Embeddings
from subgenre.errors import AudioError, EvaluationError
from subgenre.library.track import Track

if TYPE_CHECKING:
    from subgenre.dataset.folder import FeatureFolder
    from subgenre.models.backbones import Traits
    from subgenre.models.encoder import Encoder

RECIPE = "laptop"  # takes seconds, which a person can wait


def obstacle(model: ModelFolder) -> str:
    """Return why the head can't be refitted, and what to do; "" if it can be."""
    features = model.features_path
    if not features.is_dir():
        return (
            f"the features are gone from {features}; compute them again with the `subgenre "
            "preprocess` command that made them"
        )
    if not model.has_embeddings:
        path = shlex.quote(str(model.path))
        return f"the model has no vectors of tracks; `subgenre evaluate --run {path}` writes them"
    return ""


def refit(
    model: ModelFolder,
    moved: Mapping[str, tuple[str, str]],
    wrong: frozenset[str] = frozenset(),
    *,
    indexed: Sequence[Track] = (),
    console: Console | None = None,
) -> ModelFolder:
    """Train a new head on the model's own backbone with corrected labels; loads torch.

    The backbone stays as it is, so its output is computed once and cached. A model trained on
    drawn triplets gets a head of the same form by the recipe `laptop`. A corrected test track
    becomes a training track.

    Args:
        moved: track id -> (genre, subgenre) where it belongs.
        wrong: ids whose label is wrong, and the right one unknown: they leave training.
        indexed: more tracks; those that are moved become training tracks, cut from their files.

    Returns:
        the new model, in memory, with vectors of its own tracks and of those; nothing is written.

    Raises:
        FeatureError: the features are gone or damaged. AudioError: the file of a moved track can't
            be read. EvaluationError: an unknown subgenre, or
            fewer than two are left.
    """
    from subgenre.core import hardware
    from subgenre.dataset.folder import FeatureFolder
    from subgenre.models import embedding, encoder, engines
    from subgenre.models.cache import CACHE
    from subgenre.training import fit

    plain = FeatureFolder.open(model.features_path)
    known = {track.id for track in plain.tracks}
    added = [track for track in indexed if track.id in moved and track.id not in known]
    stored = model.embeddings
    train_ids = (model.train_ids | moved.keys()) - wrong
    backbone = encoder.load(model.path).backbone
    settings = _settings(model.settings, traits=backbone.traits)
    device, console = hardware.pick_device(settings.run.device), console or Silent()
    engine = settings.run.engine
    engines.select(backbone, engine, plain.config, device=device, console=console)
    with tempfile.TemporaryDirectory(prefix="subgenre-", ignore_cleanup_errors=True) as place:
        folder = _corrected(_extended(plain, added, moved, Path(place)), moved)
        train = [track.id for track in folder.tracks if track.id in train_ids]
        if len({(t.genre, t.subgenre) for t in folder.tracks if t.id in set(train)}) < 2:
            raise EvaluationError("fewer than two subgenres are left to learn; remove a correction")
        if added:
            start = (backbone, settings.model, folder, folder.rows(train), settings.run.seed)
            whole = fit.new_encoder(*start)
            every = np.arange(len(plain.track_of))
            cache = plain.path / CACHE
            pooled = embedding.pooled_vectors(whole, plain, every, cache=cache, device=device)
            every = np.arange(len(folder.track_of))
            cache = folder.path / CACHE
            embedding.pooled_vectors(whole, folder, every, cache=cache, device=device, known=pooled)
        fitted = fit.fit(folder, train, settings, backbone=backbone, device=device, console=console)
        if fitted.pooled is None:
            raise EvaluationError(f"{model.path} has no frozen part to refit a head on")
        rows = folder.rows([*stored.ids, *(track.id for track in added)])
        chunks = embedding.project_vectors(fitted.encoder, fitted.pooled[rows], device=device)
    numbers, vectors = track_vectors.track_vectors(chunks, folder.track_of[rows])
    tracks = [folder.tracks[int(number)] for number in numbers]
    side = dict(zip(stored.ids, stored.splits, strict=True))
    side |= dict.fromkeys(train, "train") | dict.fromkeys(wrong, "")
    return _in_memory(model, settings, fitted.encoder, tracks, vectors, side)


def carried(
    before: NDArray[np.floating], after: NDArray[np.floating], others: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Estimate where a refit takes other vectors [M, D], from tracks before and after it [N, D].

    The rotation that best maps the one onto the other (orthogonal Procrustes; Schönemann,
    Psychometrika 31, 1966), and a ridge regression of what it leaves.
    """
    x, y = np.asarray(before, np.float64), np.asarray(after, np.float64)
    left, _, right = np.linalg.svd(x.T @ y)
    rotation = left @ right
    rest = np.linalg.solve(x.T @ x + np.eye(x.shape[1]), x.T @ (y - x @ rotation))
    return np.asarray(others @ (rotation + rest))


def _extended(
    folder: FeatureFolder,
    added: Sequence[Track],
    moved: Mapping[str, tuple[str, str]],
    place: Path,
) -> FeatureFolder:
    """Return the feature folder with more tracks; their chunks are written to `place`."""
    from subgenre.dataset import chunking, windows
    from subgenre.dataset.chunking import Job
    from subgenre.models.file_embedding import FILE_TIMEOUT_S

    if not added:
        return folder
    number = _numbers(folder)
    rows, track_of, label_of = [], [], []
    for position, track in enumerate(added, start=len(folder.tracks)):
        cut = windows.Cut(track.path, folder.spec.rate, folder.config, measure=True)
        decoded = parallel.alone(windows.of_file, cut, timeout_s=FILE_TIMEOUT_S)
        try:
            duration_s = next(decoded).duration_s
        except AudioError as problem:
            raise AudioError(f"{track.path} can't be learnt: {problem}") from problem
        job = Job(track.id, track.path, "", duration_s, place, folder.spec, folder.config)
        outcome = chunking.make_chunks(job, decoded)
        if not outcome.rows:
            raise AudioError(f"{track.path} can't be learnt: {outcome.reason}")
        rows += [{**row, "file": str(place / row["file"])} for row in outcome.rows]
        track_of += [position] * len(outcome.rows)
        label_of += [_number(number, moved[track.id])] * len(outcome.rows)
    paths = pa.array([str(folder.path / file) for file in folder.chunks["file"].to_pylist()])
    column = folder.chunks.schema.get_field_index("file")
    old = folder.chunks.set_column(column, folder.chunks.schema.field("file"), paths)
    new = pa.Table.from_pylist(rows, schema=old.schema)
    trash = folder.track_of >= len(folder.tracks)
    return dataclasses.replace(
        folder,
        path=place,
        tracks=(*folder.tracks, *added),
        chunks=pa.concat_tables([old, new]),
        track_of=np.append(folder.track_of + len(added) * trash, np.array(track_of, np.int64)),
        label_of=np.append(folder.label_of, np.array(label_of, np.int64)),
    )


def _numbers(folder: FeatureFolder) -> dict[tuple[str, str], int]:
    """Return the class number of each (genre, subgenre)."""
    inside = folder.track_of < len(folder.tracks)  # not trash
    number_of = dict(zip(folder.track_of[inside], folder.label_of[inside], strict=True))
    return {(t.genre, t.subgenre): int(number_of[i]) for i, t in enumerate(folder.tracks)}


def _number(number: Mapping[tuple[str, str], int], pair: tuple[str, str]) -> int:
    if pair not in number:
        raise EvaluationError(f"{'/'.join(pair)} is not a subgenre of the model")
    return number[pair]


def _settings(own: TrainConfig, *, traits: Traits) -> TrainConfig:
    """Return settings that train the head alone, on all tracks, without validation."""
    from subgenre.training.compatibility import disable_unused

    quick = own if own.batch.kind == "pk" else config.load_recipe(RECIPE)
    settings = dataclasses.replace(quick, model=own.model, run=own.run)
    settings = config.replace(settings, "model", tune="head")
    settings = config.replace(settings, "watch", val_share=0.0)
    return disable_unused(settings, traits=traits)[0]


def _in_memory(
    model: ModelFolder,
    settings: TrainConfig,
    trained: Encoder,
    tracks: Sequence[Track],
    vectors: NDArray[np.float32],
    side: Mapping[str, str],
) -> ModelFolder:
    from subgenre.models import encoder

    new = ModelFolder(model.path, settings, model.data)
    # cached properties that would otherwise be read from the folder
    new.__dict__["encoder"] = trained
    new.__dict__["fingerprint"] = encoder.fingerprint(trained)
    new.__dict__["embeddings"] = Embeddings(
        tuple(track.id for track in tracks),
        tuple(track.path for track in tracks),
        tuple(track.genre for track in tracks),
        tuple(track.subgenre for track in tracks),
        tuple(side[track.id] for track in tracks),
        vectors,
        new.fingerprint,
    )
    return new


def _corrected(folder: FeatureFolder, moved: Mapping[str, tuple[str, str]]) -> FeatureFolder:
    """Return the feature folder with other labels of these tracks and their chunks."""
    inside = folder.track_of < len(folder.tracks)  # not trash
    number = _numbers(folder)
    tracks = tuple(
        dataclasses.replace(track, genre=moved[track.id][0], subgenre=moved[track.id][1])
        if track.id in moved
        else track
        for track in folder.tracks
    )
    labels = np.array([_number(number, (t.genre, t.subgenre)) for t in tracks], dtype=np.int64)
    label_of = folder.label_of.copy()
    label_of[inside] = labels[folder.track_of[inside]]
    return dataclasses.replace(folder, tracks=tracks, label_of=label_of)
