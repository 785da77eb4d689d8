"""A trained model's head, fitted anew with corrected labels: seconds, on cached vectors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from subgenre import config
from subgenre.commands.model_folder import ModelFolder
from subgenre.config import TrainConfig
from subgenre.core.progress import Console, Silent
from subgenre.dataset.track_vectors import Embeddings
from subgenre.errors import EvaluationError
from subgenre.library.scan import Track
from subgenre.search.collection import Collection
from subgenre.training.compatibility import at_rest

if TYPE_CHECKING:
    from subgenre.dataset.folder import FeatureFolder
    from subgenre.models.encoder import Encoder

QUICK = "laptop"  # a person waits: seconds, where an epoch of drawn triplets alone takes some


def can_refit(run: ModelFolder, tracks: Collection) -> bool:
    """Whether every track shown is one whose features are still in the run's feature folder."""
    if not run.has_embeddings or not Path(run.data.get("features", "")).is_dir():
        return False
    known = set(run.embeddings.ids)
    ids = tracks.rows["id"].to_pylist()
    return all(ids[row] in known for row in tracks.live)


def refit(
    run: ModelFolder,
    moved: Mapping[str, tuple[str, str]],
    wrong: frozenset[str] = frozenset(),
    *,
    console: Console | None = None,
) -> ModelFolder:
    """Train a new head on the run's own backbone, with the labels corrected. Needs torch.

    The backbone stays as the run left it, so that its output is computed once and cached. A run
    that was trained on drawn triplets gets a head of the same form by the recipe `laptop`. A track
    that was moved is learnt from even where it was held out: the person's word is there to be used.

    Args:
        moved: track id -> (genre, subgenre) where it belongs. wrong: ids that belong nowhere
            known: they are left out of training, and keep their label for the eye.

    Returns:
        a run in memory, with vectors of all tracks; nothing is written.

    Raises:
        FeatureError: the features are gone or damaged. EvaluationError: an unknown subgenre, or
            fewer than two are left.
    """
    from subgenre.core import hardware
    from subgenre.dataset.folder import FeatureFolder
    from subgenre.models import embedding, encoder
    from subgenre.training import fit

    folder = _corrected(FeatureFolder.open(Path(run.data["features"])), moved)
    stored = run.embeddings
    learnt = (run.train_ids | (moved.keys() & set(stored.ids))) - wrong
    train = [track.id for track in folder.tracks if track.id in learnt]
    labels = {(t.genre, t.subgenre) for t in folder.tracks if t.id in set(train)}
    if len(labels) < 2:
        raise EvaluationError("fewer than two subgenres are left to learn; take a correction back")
    backbone = encoder.load(run.path).backbone
    settings = _settings(run.settings, transformer=backbone.transformer)
    device = hardware.pick_device(settings.run.device)
    fitted = fit.fit(
        folder, train, settings, backbone=backbone, device=device, console=console or Silent()
    )
    if fitted.pooled is None:
        raise EvaluationError(f"{run.path} has no frozen part to refit a head on")
    rows = folder.rows(stored.ids)
    chunks = embedding.project_vectors(fitted.encoder, fitted.pooled[rows], device=device)
    numbers, vectors = embedding.track_vectors(chunks, folder.track_of[rows])
    tracks = [folder.tracks[int(number)] for number in numbers]
    side = dict(zip(stored.ids, stored.splits, strict=True))
    side |= dict.fromkeys(train, "train") | dict.fromkeys(wrong, "")
    return _in_memory(run, settings, fitted.encoder, tracks, vectors, side)


def _settings(own: TrainConfig, *, transformer: bool) -> TrainConfig:
    """Train the head alone, on everything, in seconds; lay to rest what was for the backbone."""
    quick = own if own.batch.kind == "pk" else config.load_recipe(QUICK)
    settings = dataclasses.replace(quick, model=own.model, run=own.run)
    settings = config.replace(settings, "model", tune="head")
    settings = config.replace(settings, "watch", val_share=0.0)
    return at_rest(settings, (), transformer=transformer)[0]


def _in_memory(
    run: ModelFolder,
    settings: TrainConfig,
    trained: Encoder,
    tracks: Sequence[Track],
    vectors: NDArray[np.float32],
    side: Mapping[str, str],
) -> ModelFolder:
    from subgenre.models import encoder

    new = ModelFolder(run.path, settings, run.data)
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
    """Put other labels on tracks and their chunks; on disk nothing changes."""
    number: dict[tuple[str, str], int] = {}
    for at, label in zip(folder.track_of.tolist(), folder.label_of.tolist(), strict=True):
        if at < len(folder.tracks):
            number[folder.tracks[at].genre, folder.tracks[at].subgenre] = label
    unknown = sorted(set(moved.values()) - set(number))
    if unknown:
        raise EvaluationError(f"{'/'.join(unknown[0])} is no subgenre that the model has learnt")
    tracks = tuple(
        dataclasses.replace(track, genre=moved[track.id][0], subgenre=moved[track.id][1])
        if track.id in moved
        else track
        for track in folder.tracks
    )
    labels = np.array([number[t.genre, t.subgenre] for t in tracks], dtype=np.int64)
    inside = folder.track_of < len(tracks)
    label_of = folder.label_of.copy()
    label_of[inside] = labels[folder.track_of[inside]]
    return dataclasses.replace(folder, tracks=tracks, label_of=label_of)
