"""The commands that lead to a model: demo, preprocess, train, tune."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from subgenre.cli.console import Terminal
from subgenre.cli.options import Common, Recipe
from subgenre.config import DEFAULT_BACKBONE, PreprocessConfig, TrainConfig
from subgenre.errors import ConfigError

FEATURES = Path("preprocessed_features")


def demo(*, out: Path = Path("demo"), seed: int = 0, common: Common | None = None) -> int:
    """Make a small library of synthetic music, and preprocess, train and evaluate on it, offline.

    Example: subgenre demo --out demo

    Args:
        out: folder of the demo; an earlier demo there is reused.
        seed: of the music.
    """
    from subgenre.commands import demo as stage

    terminal = (common or Common()).terminal()
    terminal.result(stage.demo(out, seed=seed, console=terminal))
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
        root: a folder genre/subgenre/*, a CSV path,genre,subgenre, a folder of playlists, or a
            rekordbox XML.
        out: the feature folder; tracks that are in it already are not computed again.
        backbone: a hub name, a folder, or musicnn; the features are made for it.
        chunk_strategy: random, sequential or spaced.
        chunk_s: length of a chunk, seconds.
        max_chunks: at most this many chunks a track.
        store_s: length of what is stored of each chunk, for random crops in training; 0: chunk_s.
        trash: folder of music of none of the subgenres; by default ROOT/trash.
        multi: exclude or keep a recording that is in two subgenres.
        workers: processes; by default all cores.
        seed: of the random chunks.
        overwrite: replace features made with other settings.
    """
    from subgenre.commands import preprocess as stage

    terminal = (common or Common()).terminal()
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

    terminal = (common or Common()).terminal(first=distributed.talks())
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


def tune(
    *,
    features: Path = Path("preprocessed_features"),
    recipes: tuple[str, ...] = (),
    vary: Annotated[tuple[str, ...], Parameter(name="--vary")] = (),
    folds: int = 3,
    trials: int = 12,
    by: str = "map_at_r",
    out: Path = Path("tuned.toml"),
    kept: Path = Path("tuning"),
    workers: int | None = None,
    recipe: Recipe | None = None,
    common: Common | None = None,
) -> int:
    """Try recipes on folds inside the training side, and write the best one as a file.

    The test tracks of `subgenre train` are left out: they stay an honest test. What is done already
    is not done again.

    Example: subgenre tune --vary loss.name=supcon,triplet --vary optim.lr=1e-3,3e-3

    Args:
        features: the feature folder.
        recipes: more recipes to try as they are, by name or file; may be given again.
        vary: an option and its values, section.key=value,value; may be given again: of several
            options all combinations are tried. By default a few losses and learning rates.
        folds: of the training side.
        trials: at most so many candidates, the recipes as they are among them.
        by: the metric that decides.
        out: the winner, as a recipe file.
        kept: where trainings are kept, so that a search that was stopped goes on.
        workers: trainings side by side.
    """
    from subgenre.commands import tune as stage
    from subgenre.training import search_space

    terminal = (common or Common()).terminal()
    search_space.check_trials(trials)
    stage.check_places(out, kept)
    changes, first = _changes(vary), recipe or Recipe()
    bases = _bases(first, recipes, features, terminal)
    wanted = search_space.propose(
        bases,
        changes,
        trials=trials,
        seed=bases[0].run.seed,
        asked=first.given().keys(),
        features=features,
        console=terminal,
    )
    tuned = stage.tune(
        features, wanted, folds=folds, by=by, out=out, kept=kept, workers=workers, console=terminal
    )
    title = f"{tuned.n_folds} folds of {tuned.n_tracks} training tracks, by {by}"
    terminal.table(title, *tuned.table())
    terminal.result(tuned.to_dict())
    return 0


def _bases(
    first: Recipe, names: tuple[str, ...], features: Path, terminal: Terminal
) -> list[TrainConfig]:
    """Read all recipes as `train` does, but lay nothing to rest yet: a change may wake it."""
    from subgenre.training import recipes as choice

    bases = [first.read(features, terminal)]
    for name in names:
        settings = dataclasses.replace(first, recipe=name).read(features, terminal)
        if "model.backbone" not in first.given():
            settings = choice.beside(bases[0], settings, name)
        bases.append(settings)
    known = [base.recipe for base in bases]
    given = [first.recipe or known[0], *names]
    return [  # each model's own recipe is a config.toml: the folder tells them apart
        dataclasses.replace(base, recipe=name) if known.count(base.recipe) > 1 else base
        for base, name in zip(bases, given, strict=True)
    ]


def _changes(vary: tuple[str, ...]) -> dict[str, list[Any]]:
    """Read all that is varied; the values of an option that is given again are joined."""
    found: dict[str, list[Any]] = {}
    for words in vary:
        name, values = _values(words)
        found.setdefault(name, []).extend(values)
    return found


def _values(words: str) -> tuple[str, list[Any]]:
    """Read 'section.key=value,value'; the values are TOML, or bare words."""
    name, equals, text = words.partition("=")
    if not (equals and "." in name and text.strip()):
        raise ConfigError(f"--vary {words}: write it as section.key=value,value")
    try:
        values = tomllib.loads(f"values = [{text}]")["values"]
    except tomllib.TOMLDecodeError:
        values = [word.strip() for word in text.split(",")]
    return name.strip(), list(values)
