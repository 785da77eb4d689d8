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
from subgenre.dataset import track_vectors

BACKBONE, RECIPE = "musicnn", "laptop"
_NEAREST = 5


def demo(out: Path, *, seed: int = 0, console: Console | None = None) -> dict[str, Any]:
    """Make a library of synthetic music in `out`, train on it, evaluate, and find similar tracks.

    Returns:
        what was found: the held-out accuracies of the trained model, of the frozen backbone and
        of the mean spectrum alone, the query's neighbours, and the report's path.

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
    found = evaluate(run, console=console).metrics["models"]
    models = ("trained", "frozen", "mean_log_mel")
    accuracy = {name: found[name]["centroid_accuracy"] for name in models}
    query, nearest = neighbours(run)
    console.info(
        "held-out tracks that are assigned to the right subgenre: "
        f"{text.percent(accuracy['trained']['value'])} with the trained model, "
        f"{text.percent(accuracy['frozen']['value'])} with the frozen backbone, "
        f"{text.percent(accuracy['mean_log_mel']['value'])} by the mean spectrum alone, "
        f"{text.percent(accuracy['trained']['chance'])} by chance"
    )
    console.info(f"nearest to {query}: {', '.join(nearest)}")
    console.info(f"open the report in a browser: {run / workspace.REPORT}")
    return {
        "run": str(run),
        "report": str(run / workspace.REPORT),
        **accuracy,
        "query": query,
        "nearest": nearest,
    }


def neighbours(run: Path) -> tuple[str, list[str]]:
    """Name a held-out track and the tracks nearest to it, by the run's stored vectors."""
    stored = track_vectors.read_embeddings(run / workspace.EMBEDDINGS)
    first = stored.splits.index("test")
    cosine = stored.vectors @ stored.vectors[first]
    order = [i for i in np.argsort(-cosine, kind="stable") if i != first][:_NEAREST]
    names = [f"{stored.subgenres[i]}/{stored.paths[i].stem}" for i in (first, *order)]
    return names[0], names[1:]
