"""The map of a model: fitted on its training tracks and kept; other tracks are placed on it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from subgenre.commands.model_folder import ModelFolder
from subgenre.core import files
from subgenre.core.progress import Console, Silent
from subgenre.errors import EvaluationError
from subgenre.report.maps import Map, fit_map
from subgenre.search.collection import Collection

FILE = "map.npz"  # in the model folder
FORMAT_VERSION = 2
_ARRAYS = ("coordinates", "vectors", "meta")
_FIGURES = ("method", "trustworthiness", "knn_agreement", "k")


def load_map(model: ModelFolder, *, console: Console | None = None) -> Map:
    """Return the map of a model's training tracks; the first call fits it and keeps it.

    Raises:
        RunError: the model has no vectors. EvaluationError: it has no training track.
    """
    path = model.path / FILE
    stored, train = model.embeddings, _train_rows(model)
    seed = model.settings.run.seed
    key = {"format_version": FORMAT_VERSION, "encoder": stored.fingerprint, "seed": seed}
    fitted = _read(path, key, stored.vectors[train])
    if fitted is None:
        (console or Silent()).info("drawing the map")
        fitted = fit(model)
        _write(path, key, fitted)
    return fitted


def fit(model: ModelFolder) -> Map:
    """Fit the map of a model's training tracks; the same seed gives the same map.

    Raises:
        EvaluationError: it has no training track.
    """
    return fit_map(model.embeddings.vectors[_train_rows(model)], model.settings.run.seed)


def _train_rows(model: ModelFolder) -> list[int]:
    """Return the rows of the training tracks."""
    train = model.embeddings.rows("train")
    if not train:
        raise EvaluationError(f"{model.path} has no training track; run `subgenre evaluate`")
    return train


def coordinates(fitted: Map, model: ModelFolder, tracks: Collection) -> NDArray[np.float64]:
    """Return the map coordinates [N, 2] of the rows `tracks.live`.

    Training tracks lie where the fit put them. All others are placed by their vectors alone, so
    that a track stays where it is when the index grows.
    """
    train_ids = [model.embeddings.ids[row] for row in _train_rows(model)]
    of_train = dict(zip(train_ids, fitted.coordinates, strict=True))
    ids = tracks.rows["id"][tracks.live].tolist()
    result = np.array([of_train.get(i, (0.0, 0.0)) for i in ids]).reshape(-1, 2)
    others = [n for n, track_id in enumerate(ids) if track_id not in of_train]
    if others:
        result[others] = fitted.place(tracks.vectors(tracks.live[others]))
    return result


def _read(path: Path, key: dict[str, object], vectors: NDArray[np.floating]) -> Map | None:
    """Read a kept map; None if it is damaged or of other vectors."""
    try:
        with files.arrays(path) as kept:
            coordinates, known, text = (kept[name] for name in _ARRAYS)
        meta = json.loads(str(text))
    except (OSError, ValueError):
        return None
    if (
        meta.get("key") != key
        or known.shape != vectors.shape
        or not np.allclose(known, vectors, atol=1e-5)
    ):
        return None
    if coordinates.shape != (len(vectors), 2) or not np.isfinite(coordinates).all():
        return None
    return Map(coordinates, vectors=known, **meta["figures"])


def _write(path: Path, key: dict[str, object], fitted: Map) -> None:
    figures = {name: getattr(fitted, name) for name in _FIGURES}
    meta = json.dumps({"key": key, "figures": figures})
    data = io.BytesIO()
    np.savez(data, coordinates=fitted.coordinates, vectors=fitted.vectors, meta=np.array(meta))
    files.write_bytes(path, data.getvalue())
