"""Which backbone, and which of its layers, suits this music? A probe answers before any training.

Each frozen backbone runs once over the chunks. A linear probe on its vectors is judged on folds
inside the training side, so no test track is touched, and all on the same tracks.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from subgenre import config, metrics
from subgenre.commands import preprocess
from subgenre.commands.tune import FAILURES, Trial, Tuned, finish, inner_folds, measure
from subgenre.config import RunConfig
from subgenre.core import csv_tables, files, hardware, validation
from subgenre.core.progress import Console, Silent
from subgenre.dataset import track_vectors
from subgenre.dataset.folder import FeatureFolder
from subgenre.dataset.splits import Split
from subgenre.errors import FeatureError
from subgenre.evaluation.audits.probe import fold_positions
from subgenre.evaluation.baselines import probe_vectors
from subgenre.evaluation.tracks import EvaluationTracks
from subgenre.models import backbones, embedding
from subgenre.models.cache import CACHE
from subgenre.training import checkpoint, fit, recipes
from subgenre.training.search_space import Candidate


def tune_backbones(
    features: Path,
    names: Sequence[str],
    *,
    layers: bool = False,
    recipe: str | None = None,
    given: Mapping[str, Any] | None = None,
    folds: int = 3,
    by: str = "map_at_r",
    out: Path = Path("tuned.toml"),
    kept: Path = Path("tuning"),
    workers: int | None = None,
    console: Console | None = None,
) -> Tuned:
    """Compare frozen backbones by a probe on folds of the training side; write the best recipe.

    Features of another front end than that of `features` are computed from the same tracks, with
    the same chunks, into `kept`. A backbone that fails is recorded, and the others go on.

    Args:
        features: the feature folder, whose tracks and split count.
        names: the backbones.
        layers: also each earlier layer of a backbone that has several.
        recipe, given: see `recipes.settings_for`; the winner's recipe is this one with its
            backbone and layer.
        folds, by, out, kept: as of `tune`.
        workers: processes that compute features.
        console: receives messages and progress.

    Raises:
        ConfigError: an unknown metric, or an output that can't be written.
        TrainingError: every backbone failed.
        FeatureError, SplitError: there are no features, or no split or folds of them.
    """
    console = console or Silent()
    validation.check_choice("by", by, tuple(metrics.METRICS))
    validation.check_output("out", out)
    validation.check_output("kept", kept, folder=True)
    folder = FeatureFolder.open(features)
    own = recipes.settings_for(features, given or {}, recipe=recipe, console=console)
    inner, n_tracks = inner_folds(folder, own.run, folds, console)
    trials: list[Trial] = []
    names = tuple(dict.fromkeys(names))
    for number, name in enumerate(names, 1):
        console.info(f"{number} of {len(names)}: {name}")
        began = time.monotonic()
        try:
            found = _features(name, folder, kept, workers, console)
            settings = recipes.settings_for(
                found.path, {**(given or {}), "model.backbone": name}, recipe=recipe
            )
            pooled = _pooled(name, found, inner, layers, own.run, console)
        except FAILURES as problem:
            console.warn(f"{name}: {problem}")
            trials.append(Trial(Candidate(name, own, str(problem)), {}, failed=str(problem)))
            continue
        seconds = time.monotonic() - began
        for layer in range(-pooled.shape[1], 0):
            title = f"{name}, layer {layer}" if layers and pooled.shape[1] > 1 else name
            one = Candidate(title, config.replace(settings, "model", layer=layer))
            parts = _probe(found, pooled[:, layer], inner, own.run.seed)
            scores = metrics.combine(parts, seed=own.run.seed)
            trials.append(Trial(one, scores, tuple(parts), seconds, features=found.path))
    return finish(trials, by, out, n_tracks, folds, console)


def _features(
    name: str, folder: FeatureFolder, kept: Path, workers: int | None, console: Console
) -> FeatureFolder:
    """Return features of a backbone's front end, of the same tracks."""
    spec = backbones.feature_spec(name)
    if spec == folder.spec:
        return folder
    settings = checkpoint.digest([name, spec.to_dict(), folder.config.to_dict()])[:8]
    path = kept / f"features_{files.safe_name(name)}_{settings}"
    library = kept / "library.csv"
    rows = [(str(track.path), track.genre, track.subgenre) for track in folder.tracks]
    csv_tables.write(library, [("path", "genre", "subgenre"), *rows])
    preprocess.preprocess(
        library, path, backbone=name, settings=folder.config, workers=workers, console=console
    )
    found = FeatureFolder.open(path)
    missing = {track.id for track in folder.tracks} - {track.id for track in found.tracks}
    if missing:
        raise FeatureError(
            f"{len(missing)} tracks of {folder.path} are missing in {path}, see its skipped.csv; "
            "mend or remove these files and run `subgenre preprocess` again"
        )
    return found


def _pooled(
    name: str,
    folder: FeatureFolder,
    inner: Sequence[Split],
    layers: bool,
    run: RunConfig,
    console: Console,
) -> np.ndarray:
    """Return the pooled output of a backbone, [n, L, H]; of the last layer alone, [n, 1, H]."""
    statistics = folder.statistics(folder.rows([id_ for split in inner for id_ in split.test]))
    backbone = fit.load_backbone(name, folder, run, console)
    if not (layers and backbone.transformer):
        pooled = EvaluationTracks(folder).pooled(backbone, run.device, console, statistics)
        return pooled[:, None]
    with console.progress("backbone") as bar:
        return embedding.layer_vectors(
            backbone,
            folder,
            cache=folder.path / CACHE,
            device=hardware.pick_device(run.device),
            on_progress=bar,
            statistics=statistics,
        )


def _probe(
    folder: FeatureFolder, pooled: np.ndarray, inner: Sequence[Split], seed: int
) -> list[metrics.Measured]:
    """Score a probe on pooled vectors [n, H], on each fold."""
    tracks = EvaluationTracks(folder)
    parts = []
    for split, (train, test) in zip(inner, fold_positions(inner, tracks.ids), strict=True):
        _, frozen = track_vectors.frozen_track_vectors(
            pooled, folder.track_of, folder.rows(split.train), tracks.rows
        )
        vectors = probe_vectors(frozen, tracks.labels, train, test, seed=seed)
        parts += measure(folder, split, vectors, seed)
    return parts
