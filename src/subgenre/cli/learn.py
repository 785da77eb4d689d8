"""The commands of the main job: demo, preprocess, train, embed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from cyclopts import App

from subgenre.cli.console import Terminal
from subgenre.cli.options import Common, Recipe
from subgenre.config import DEFAULT_BACKBONE, PreprocessConfig

FEATURES = Path("preprocessed_features")


def register(app: App) -> None:
    """Add the commands to the app."""
    for command in (demo, preprocess, train, embed):
        app.command(command)


def demo(*, out: Path = Path("demo"), seed: int = 0, common: Common | None = None) -> int:
    """Make a small library of music and run the main job on it, offline.

    Example: subgenre demo --out demo

    Args:
        out: the demo's folder; an earlier demo there is used again.
        seed: of the music.
    """
    from subgenre.commands import demo as stage

    terminal = _terminal(common)
    result = stage.demo(out, seed=seed, console=terminal)
    terminal.result(result)
    return 0


def preprocess(
    root: Path = Path("WAV"),
    *,
    out: Path = FEATURES,
    backbone: str = DEFAULT_BACKBONE,
    chunk_strategy: str = "random",
    chunk_s: float = 10.0,
    max_chunks: int = 3,
    store_s: float = 0.0,
    trash: Path | None = None,
    multi: str = "exclude",
    workers: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
    common: Common | None = None,
) -> int:
    """Cut the tracks of a library into chunks and compute their features.

    Example: subgenre preprocess WAV --backbone musicnn

    Args:
        root: genre/subgenre/*, a CSV path,genre,subgenre, a folder of playlists, a rekordbox XML.
        out: the feature folder; what is done there and unchanged is not done again.
        backbone: a hub name, a folder, or musicnn: whose features to compute.
        chunk_strategy: random, sequential or spaced.
        chunk_s: length of a chunk, seconds.
        max_chunks: at most this many chunks a track.
        store_s: length of what is stored of each chunk, for random crops in training; 0: chunk_s.
        trash: music that belongs to none of the subgenres; by default ROOT/trash.
        multi: one recording in two subgenres: exclude it, or keep both.
        workers: processes; by default all cores.
        seed: of the random windows.
        overwrite: replace features that were made with other settings.
    """
    from subgenre.commands import preprocess as stage

    terminal = _terminal(common)
    settings = PreprocessConfig(
        chunk_s=chunk_s,
        max_chunks=max_chunks,
        chunk_strategy=chunk_strategy,
        store_s=store_s,
        multi=multi,
        seed=seed,
    )
    summary = stage.preprocess(
        root,
        out,
        backbone=backbone,
        settings=settings,
        trash=trash,
        workers=workers,
        overwrite=overwrite,
        console=terminal,
    )
    skipped = [{"path": str(s.path), "reason": s.reason} for s in summary.skipped]
    terminal.result({**dataclasses.asdict(summary), "skipped": skipped})
    return 1 if summary.skipped else 0


def train(
    *,
    features: Path = FEATURES,
    recipe: Recipe | None = None,
    test_run: bool = False,
    resume: bool = False,
    out: Path | None = None,
    checkpoints: Path = Path("ast_triplet_output"),
    common: Common | None = None,
) -> int:
    """Train a model on a feature folder.

    Example: subgenre train --backbone musicnn --tune head

    Args:
        features: the feature folder.
        test_run: a small subset, start to end; no command takes such a model unasked while there
            is another.
        resume: go on from the newest checkpoint of a run with these options, or start where there
            is no checkpoint.
        out: the model folder; by default fully_trained_models_<time>.
        checkpoints: where checkpoints go.
    """
    from subgenre.commands import train as stage
    from subgenre.training import distributed

    terminal = _terminal(common, first=distributed.talks())
    trained = stage.train(
        features,
        (recipe or Recipe()).suited(features, terminal),
        out=out,
        checkpoints=checkpoints,
        resume=resume,
        test_run=test_run,
        console=terminal,
    )
    terminal.result(trained.to_dict())
    return 0


def embed(
    *audio: Path,
    run: Path | None = None,
    out: Path = Path("embeddings.parquet"),
    common: Common | None = None,
) -> int:
    """Write the vectors of audio files, or of the model's held-out tracks, as one table.

    Example: subgenre embed new/*.mp3 --out new.parquet

    Args:
        audio: files or folders; without any, the held-out tracks of the model.
        run: the model folder; by default the newest fully_trained_models_... here.
        out: a Parquet file: id, path, genre, subgenre, vector.
    """
    from subgenre.commands import embed as stage

    terminal = _terminal(common)
    done = stage.embed(audio, run, out, console=terminal)
    terminal.result(done.to_dict())
    return 1 if done.skipped else 0


def _terminal(common: Common | None, *, first: bool = True) -> Terminal:
    common = common or Common()
    return Terminal(quiet=common.quiet, as_json=common.json, first=first)
