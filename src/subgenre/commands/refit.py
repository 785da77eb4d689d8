"""A new head for a trained model, fitted with corrected labels on cached vectors in seconds."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from subgenre import config
from subgenre.commands.model_folder import ModelFolder
from subgenre.config import TrainConfig
from subgenre.core import workspace
from subgenre.core.progress import Console, Silent
from subgenre.dataset import track_vectors
from subgenre.dataset.track_vectors import Embeddings
from subgenre.errors import EvaluationError
from subgenre.library.track import Track
from subgenre.search.collection import Collection
from subgenre.training.compatibility import disable_unused

if TYPE_CHECKING:
    from subgenre.dataset.folder import FeatureFolder
    from subgenre.models.encoder import Encoder

RECIPE = "laptop"  # takes seconds, which a person can wait


def obstacle(model: ModelFolder, tracks: Collection) -> str:
    """Return why the head can't be refitted on these tracks, and what to do; "" if it can be."""
    features = Path(model.data.get("features") or workspace.FEATURES)
    if not features.is_dir():
        return (
            f"the features are gone from {features}; compute them again with the `subgenre "
            "preprocess` command that made them"
        )
    out, path = shlex.quote(str(features)), shlex.quote(str(model.path))
    if not model.has_embeddings:
        return f"the model has no vectors of tracks; `subgenre evaluate --run {path}` writes them"
    known = set(model.embeddings.ids)
    others = sum(track.id not in known for track in tracks.tracks(tracks.live))
    if not others:
        return ""
    return (
        f"{others} of {len(tracks)} tracks shown are neither training nor test tracks of the "
        f"model. Sort them into the library's subgenres (classify --copy-to helps), run the "
        f"`subgenre preprocess` command that made {out} again, then `subgenre train --features "
        f"{out} --recipe {path}/config.toml`"
    )


def refit(
    model: ModelFolder,
    moved: Mapping[str, tuple[str, str]],
    wrong: frozenset[str] = frozenset(),
    *,
    console: Console | None = None,
) -> ModelFolder:
    """Train a new head on the model's own backbone with corrected labels; loads torch.

    The backbone stays as it is, so its output is computed once and cached. A model trained on
    drawn triplets gets a head of the same form by the recipe `laptop`. A corrected test track
    becomes a training track.

    Args:
        moved: track id -> (genre, subgenre) where it belongs.
        wrong: ids whose label is wrong, and the right one unknown: they leave training.

    Returns:
        the new model, in memory, with vectors of all tracks; nothing is written.

    Raises:
        FeatureError: the features are gone or damaged. EvaluationError: an unknown subgenre, or
            fewer than two are left.
    """
    from subgenre.core import hardware
    from subgenre.dataset.folder import FeatureFolder
    from subgenre.models import embedding, encoder
    from subgenre.training import fit

    folder = _corrected(FeatureFolder.open(Path(model.data["features"])), moved)
    stored = model.embeddings
    train_ids = (model.train_ids | (moved.keys() & set(stored.ids))) - wrong
    train = [track.id for track in folder.tracks if track.id in train_ids]
    labels = {(t.genre, t.subgenre) for t in folder.tracks if t.id in set(train)}
    if len(labels) < 2:
        raise EvaluationError("fewer than two subgenres are left to learn; remove a correction")
    backbone = encoder.load(model.path).backbone
    settings = _settings(model.settings, transformer=backbone.transformer)
    device = hardware.pick_device(settings.run.device)
    fitted = fit.fit(
        folder, train, settings, backbone=backbone, device=device, console=console or Silent()
    )
    if fitted.pooled is None:
        raise EvaluationError(f"{model.path} has no frozen part to refit a head on")
    rows = folder.rows(stored.ids)
    chunks = embedding.project_vectors(fitted.encoder, fitted.pooled[rows], device=device)
    numbers, vectors = track_vectors.track_vectors(chunks, folder.track_of[rows])
    tracks = [folder.tracks[int(number)] for number in numbers]
    side = dict(zip(stored.ids, stored.splits, strict=True))
    side |= dict.fromkeys(train, "train") | dict.fromkeys(wrong, "")
    return _in_memory(model, settings, fitted.encoder, tracks, vectors, side)


def _settings(own: TrainConfig, *, transformer: bool) -> TrainConfig:
    """Return settings that train the head alone, on all tracks, without validation."""
    quick = own if own.batch.kind == "pk" else config.load_recipe(RECIPE)
    settings = dataclasses.replace(quick, model=own.model, run=own.run)
    settings = config.replace(settings, "model", tune="head")
    settings = config.replace(settings, "watch", val_share=0.0)
    return disable_unused(settings, transformer=transformer)[0]


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
    number_of = dict(zip(folder.track_of[inside], folder.label_of[inside], strict=True))
    number = {(t.genre, t.subgenre): number_of[i] for i, t in enumerate(folder.tracks)}
    unknown = sorted(set(moved.values()) - set(number))
    if unknown:
        raise EvaluationError(f"{'/'.join(unknown[0])} is not a subgenre of the model")
    tracks = tuple(
        dataclasses.replace(track, genre=moved[track.id][0], subgenre=moved[track.id][1])
        if track.id in moved
        else track
        for track in folder.tracks
    )
    labels = np.array([number[t.genre, t.subgenre] for t in tracks], dtype=np.int64)
    label_of = folder.label_of.copy()
    label_of[inside] = labels[folder.track_of[inside]]
    return dataclasses.replace(folder, tracks=tracks, label_of=label_of)
