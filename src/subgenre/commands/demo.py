"""The main job on a small library that is made on the spot, offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from subgenre import config
from subgenre import demo as room
from subgenre.commands.evaluate import evaluate
from subgenre.commands.preprocess import preprocess
from subgenre.commands.train import train
from subgenre.config import PreprocessConfig
from subgenre.core import text, workspace
from subgenre.core.progress import Console, Silent
from subgenre.core.validation import check_range
from subgenre.dataset import splits, track_vectors
from subgenre.dataset.folder import FeatureFolder

BACKBONE, RECIPE = "musicnn", "laptop"
_NEAREST = 5
_SOUND_MB = 4.0  # the held-out tracks can be played in the report


def demo(out: Path, *, seed: int = 0, console: Console | None = None) -> dict[str, Any]:
    """Make a library of synthetic music in `out`, train on it, evaluate, and find similar tracks.

    Returns:
        what was found: the held-out accuracies of the trained model and of the baseline on
        loudness and mean spectrum alone, the query's neighbours, and the report's path.

    Raises:
        SubgenreError: `out` holds something else, or the seed can't be.
    """
    console = console or Silent()
    check_range("seed", seed, *config.SEEDS)
    root, features = out / workspace.LIBRARY, out / workspace.FEATURES
    with console.progress("making music") as bar:
        room.make_library(root, seed=seed, on_progress=bar)
    preprocess(
        root, features, backbone=BACKBONE, settings=PreprocessConfig(seed=seed), console=console
    )
    settings = config.replace(config.load_recipe(RECIPE), "model", backbone=BACKBONE)
    settings = config.replace(settings, "run", seed=seed)
    run = out / f"{workspace.RUN_PREFIX}{workspace.stamp()}"
    train(features, settings, out=run, checkpoints=out / workspace.CHECKPOINTS, console=console)
    found = evaluate(run, max_mb=_SOUND_MB, console=console).metrics["models"]
    baseline = baseline_accuracy(FeatureFolder.open(features), run)
    trained = found["trained"]["centroid_accuracy"]
    query, nearest = neighbours(run)
    console.info(
        "held-out tracks that are assigned to the right subgenre: "
        f"{text.percent(trained['value'])} with the trained model, "
        f"{text.percent(found['frozen']['centroid_accuracy']['value'])} with the frozen backbone, "
        f"{text.percent(baseline)} by loudness and mean spectrum alone, "
        f"{text.percent(trained['chance'])} by chance"
    )
    console.info(f"nearest to {query}: {', '.join(nearest)}")
    console.info(f"open the report in a browser: {run / workspace.REPORT}")
    return {
        "run": str(run),
        "report": str(run / workspace.REPORT),
        "trained": trained,
        "frozen": found["frozen"]["centroid_accuracy"],
        "loudness_and_mean_spectrum": baseline,
        "query": query,
        "nearest": nearest,
    }


def baseline_accuracy(folder: FeatureFolder, run: Path) -> float:
    """Return how many held-out tracks loudness and the mean log-mel place rightly."""
    split = splits.load(run / workspace.SPLIT, folder.tracks)
    loudness = np.asarray(folder.chunks["loudness_lufs"].to_numpy())
    means, levels, labels, known = [], [], [], []
    train_ids = set(split.train)
    for number, track in enumerate(folder.tracks):
        rows = np.flatnonzero(folder.track_of == number)
        means.append(folder.load(rows).mean((0, 1)).numpy())
        levels.append(loudness[rows].mean())
        labels.append(folder.label_of[rows[0]])
        known.append(track.id in train_ids)
    return room.loudness_spectrum_accuracy(means, levels, labels, known)


def neighbours(run: Path) -> tuple[str, list[str]]:
    """Name a held-out track and the tracks nearest to it, by the run's stored vectors."""
    stored = track_vectors.read_embeddings(run / workspace.EMBEDDINGS)
    first = stored.splits.index("test")
    cosine = stored.vectors @ stored.vectors[first]
    order = [i for i in np.argsort(-cosine, kind="stable") if i != first][:_NEAREST]
    names = [f"{stored.subgenres[i]}/{stored.paths[i].stem}" for i in (first, *order)]
    return names[0], names[1:]
