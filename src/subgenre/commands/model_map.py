"""The map of a model: fitted on its training tracks, or a sample, and kept; others are placed."""

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
from subgenre.report.maps import Map, fit_map, fitted_rows
from subgenre.search.collection import Collection

FILE = "map.npz"  # in the model folder
FORMAT_VERSION = 2
_BLOCK = 65_536  # tracks whose vectors are in memory at a time
_ARRAYS = ("coordinates", "vectors", "meta")
_FIGURES = ("method", "trustworthiness", "knn_agreement", "k")


def load_map(model: ModelFolder, *, console: Console | None = None) -> Map:
    """Return the map of a model; the first call fits it on the training tracks and keeps it.

    Raises:
        RunError: the model has no vectors. EvaluationError: it has no training track.
    """
    path = model.path / FILE
    stored, train = model.embeddings, _fitted_rows(model)
    seed = model.settings.run.seed
    key = {"format_version": FORMAT_VERSION, "encoder": stored.fingerprint, "seed": seed}
    fitted = _read(path, key, stored.vectors[train])
    if fitted is None:
        (console or Silent()).info("drawing the map")
        fitted = fit(model)
        _write(path, key, fitted)
    return fitted


def fit(model: ModelFolder) -> Map:
    """Fit the map of a model; the same seed gives the same map.

    Raises:
        EvaluationError: it has no training track.
    """
    return fit_map(model.embeddings.vectors[_fitted_rows(model)], model.settings.run.seed)


def _fitted_rows(model: ModelFolder) -> NDArray[np.int64]:
    """Return the rows of the training tracks that the map is fitted on."""
    train = np.array(model.embeddings.rows("train"), dtype=np.int64)
    if not len(train):
        raise EvaluationError(f"{model.path} has no training track; run `subgenre evaluate`")
    return train[fitted_rows(len(train), model.settings.run.seed)]


def coordinates(fitted: Map, model: ModelFolder, tracks: Collection) -> NDArray[np.float64]:
    """Return the map coordinates [N, 2] of the rows `tracks.live`.

    The fitted tracks lie where the fit put them. All others are placed by their vectors alone, so
    that a track stays where it is when the index grows.
    """
    places = zip(_fitted_rows(model).tolist(), fitted.coordinates, strict=True)
    fitted_at = {model.embeddings.ids[row]: place for row, place in places}
    ids = tracks.rows["id"][tracks.live].tolist()
    result = np.array([fitted_at.get(i, (0.0, 0.0)) for i in ids]).reshape(-1, 2)
    others = np.array([n for n, track_id in enumerate(ids) if track_id not in fitted_at], np.int64)
    for start in range(0, len(others), _BLOCK):
        some = others[start : start + _BLOCK]
        result[some] = fitted.place(tracks.vectors(tracks.live[some]))
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
