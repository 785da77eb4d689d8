"""The map of a model: fitted on its training tracks, kept beside it, every other track placed."""

from __future__ import annotations

import io
import json
import zipfile
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
FORMAT_VERSION = 1
_ARRAYS = ("coordinates", "vectors", "told")


def load_map(run: ModelFolder, *, console: Console | None = None) -> Map:
    """Return the map of a run's training tracks; the first time it is fitted and kept.

    Raises:
        RunError: the run has no vectors. EvaluationError: it has no training track.
    """
    path = run.path / FILE
    stored, train = run.embeddings, _train(run)
    seed = run.settings.run.seed
    wanted = {"format_version": FORMAT_VERSION, "encoder": stored.fingerprint, "seed": seed}
    kept = _read(path, wanted, stored.vectors[train])
    if kept is None:
        (console or Silent()).info("drawing the map")
        kept = fit(run)
        _write(path, wanted, kept)
    return kept


def fit(run: ModelFolder) -> Map:
    """Fit the map of a run's training tracks; the same seed gives the same map.

    Raises:
        EvaluationError: it has no training track.
    """
    return fit_map(run.embeddings.vectors[_train(run)], run.settings.run.seed)


def _train(run: ModelFolder) -> list[int]:
    """Rows of the training tracks."""
    train = [i for i, side in enumerate(run.embeddings.splits) if side == "train"]
    if not train:
        raise EvaluationError(f"{run.path} tells of no training track; run `subgenre evaluate`")
    return train


def coordinates(fitted: Map, run: ModelFolder, tracks: Collection) -> NDArray[np.float64]:
    """Places [N, 2] of the rows `tracks.live`: training tracks where they were put, others by them.

    Equal vectors have equal places, so that a track stays where it is when the index grows.
    """
    ids_of = run.embeddings.ids
    place = {ids_of[i]: fitted.coordinates[n] for n, i in enumerate(_train(run))}
    ids = tracks.rows["id"].to_pylist()
    found = np.zeros((len(tracks.live), 2))
    others = [n for n, row in enumerate(tracks.live) if ids[row] not in place]
    for n, row in enumerate(tracks.live):
        if ids[row] in place:
            found[n] = place[ids[row]]
    if others:
        found[others] = fitted.place(tracks.vectors(tracks.live[others]))
    return found


def note(fitted: Map) -> str:
    """Say in a sentence how far the map can be trusted."""
    if fitted.trustworthiness is None or fitted.knn_agreement is None:
        return fitted.method
    return (
        f"{fitted.method}; trustworthiness {fitted.trustworthiness:.2f}; "
        f"{fitted.knn_agreement:.0%} of the {fitted.k} nearest tracks are near on the map too"
    )


def _read(path: Path, wanted: dict[str, object], vectors: NDArray[np.floating]) -> Map | None:
    """Read a kept map; one of other vectors, or a damaged one, counts as absent."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            places, known, told = (kept[name] for name in _ARRAYS)
        text = json.loads(str(told))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    figures = [text.pop(name, None) for name in ("method", "trust", "agreement", "k")]
    if text != wanted or known.shape != vectors.shape or not np.allclose(known, vectors, atol=1e-5):
        return None
    if places.shape != (len(vectors), 2) or not np.isfinite(places).all():
        return None
    return Map(places, figures[0], figures[1], figures[2], figures[3], known)


def _write(path: Path, wanted: dict[str, object], fitted: Map) -> None:
    told = {
        **wanted,
        "method": fitted.method,
        "trust": fitted.trustworthiness,
        "agreement": fitted.knn_agreement,
        "k": fitted.k,
    }
    data = io.BytesIO()
    np.savez(
        data,
        coordinates=fitted.coordinates,
        vectors=fitted.vectors,
        told=np.array(json.dumps(told)),
    )
    files.write_bytes(path, data.getvalue())
