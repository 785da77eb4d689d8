"""The commands that lead to a model: demo, run, preprocess, train, tune."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from subgenre.cli.judge import show_evaluation
from subgenre.cli.options import Common, Mapped, Recipe, import_code
from subgenre.config import DEFAULT_BACKBONE, PreprocessConfig
from subgenre.core import workspace
from subgenre.core.shards import Shard
from subgenre.errors import ConfigError


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
    root: Path = workspace.LIBRARY,
    *,
    out: Path = workspace.FEATURES,
    backbone: str = DEFAULT_BACKBONE,
    chunk_strategy: str = "random",
    chunk_s: float = 10.0,
    max_chunks: int = 3,
    trash: Path | None = None,
    multi: str = "exclude",
    workers: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
    shard: str | None = None,
    mapped: Mapped | None = None,
    common: Common | None = None,
) -> int:
    """Cut the tracks of a library into chunks and compute their features.

    Example: subgenre preprocess WAV --backbone musicnn

    Args:
        root: a folder genre/subgenre/*, a CSV path,genre,subgenre, a folder of playlists, or a
            rekordbox XML.
        out: the feature folder; tracks that are in it already are not computed again.
        backbone: a hub name, a folder, musicnn or package:function; the features are made for it.
        chunk_strategy: random, sequential or spaced.
        chunk_s: length of a chunk, seconds.
        max_chunks: at most this many chunks a track.
        trash: folder of music of none of the subgenres; by default ROOT/trash.
        multi: exclude or keep a recording that is in two subgenres.
        workers: processes; by default all cores.
        seed: of the random chunks.
        overwrite: replace features made with other settings.
        shard: I/N, do only the I-th of N equal parts; `subgenre merge` joins them and lists what
            was skipped.
    """
    part = None if shard is None else Shard.parse(shard)
    settings = PreprocessConfig(
        chunk_s=chunk_s,
        max_chunks=max_chunks,
        chunk_strategy=chunk_strategy,
        multi=multi,
        seed=seed,
    )
    from subgenre.library import sources

    sources.check(root, trash)
    import_code(backbone)
    from subgenre.commands import preprocess as stage

    common = common or Common()
    terminal = common.terminal()
    summary = stage.preprocess(
        root,
        out,
        backbone=backbone,
        settings=settings,
        trash=trash,
        maps=(mapped or Mapped()).maps(),
        workers=workers,
        overwrite=overwrite,
        shard=part,
        console=terminal,
    )
    if part:
        terminal.info(f"next, after all shards: subgenre merge {out}")
    else:
        terminal.info(f"next: subgenre train{_named(out)}{common.again(backbone)}")
    terminal.result(summary.to_dict())
    return 1 if summary.skipped and not part else 0


def merge(out: Path, *, workers: int | None = None, common: Common | None = None) -> int:
    """Check and join the shards of `preprocess --shard` or `embed --shard`.

    The result is that of one process without --shard.

    Example: subgenre merge preprocessed_features

    Args:
        out: the --out of the shards.
        workers: processes, for tracks whose chunks are missing; by default all cores.
    """
    common = common or Common()
    terminal = common.terminal()
    from subgenre.commands import merge as stage

    merged = stage.merge(out, workers=workers, console=terminal)
    if out.is_dir():
        terminal.info(f"next: subgenre train{_named(out)}{common.again()}")
    terminal.result(merged.to_dict())
    return 1 if merged.skipped else 0


def _named(features: Path) -> str:
    return "" if features == workspace.FEATURES else f" --features {features}"


def train(
    *,
    features: Path = workspace.FEATURES,
    recipe: Recipe | None = None,
    test_run: bool = False,
    resume: bool = False,
    out: Path | None = None,
    checkpoints: Path = workspace.CHECKPOINTS,
    track: str = "",
    common: Common | None = None,
) -> int:
    """Train a model on a feature folder.

    Example: subgenre train --tune head

    Args:
        features: the feature folder.
        test_run: a small subset, start to end; no command uses such a model by default if there
            is another.
        resume: go on from the newest checkpoint of a run with these options, or start where there
            is no checkpoint.
        out: the model folder; by default fully_trained_models_<time>.
        checkpoints: where checkpoints go.
        track: record the figures of each epoch with tensorboard, mlflow, wandb or trackio, offline
            in the folder tracking.
    """
    recipe = recipe or Recipe()
    recipe.check(features)
    from subgenre.commands import train as stage
    from subgenre.training import distributed

    common = common or Common()
    terminal = common.terminal(first=distributed.is_first())
    trained = stage.train(
        features,
        recipe.settings(features, terminal),
        out=out,
        checkpoints=checkpoints,
        resume=resume,
        test_run=test_run,
        track=track,
        console=terminal,
    )
    code = common.again(recipe.backbone)
    terminal.info(f"next: subgenre evaluate --run {trained.run}{code}")
    terminal.result(trained.to_dict())
    return 0


def run(
    root: Path = workspace.LIBRARY,
    *,
    recipe: Recipe | None = None,
    mapped: Mapped | None = None,
    common: Common | None = None,
) -> int:
    """Do the whole job: preprocess a library, train, evaluate, and open the report.

    Example: subgenre run WAV --backbone musicnn

    Args:
        root: the library, as for `preprocess`.
    """
    recipe = recipe or Recipe()
    recipe.check()
    from subgenre.library import sources

    sources.check(root)
    from subgenre.commands import run as stage

    common = common or Common()
    terminal = common.terminal()
    evaluated = stage.run(
        root,
        recipe.backbone or DEFAULT_BACKBONE,
        lambda features: recipe.settings(features, terminal),
        maps=(mapped or Mapped()).maps(),
        console=terminal,
    )
    show_evaluation(evaluated, terminal, common.again(recipe.backbone))
    terminal.result({"run": str(evaluated.run), **evaluated.metrics})
    return 0


def tune(
    *,
    features: Path = workspace.FEATURES,
    recipes: tuple[str, ...] = (),
    vary: Annotated[tuple[str, ...], Parameter(name="--vary")] = (),
    backbones: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = (),
    layers: bool = False,
    folds: int = 3,
    trials: int = 12,
    by: str = "map_at_r",
    out: Path = Path("tuned.toml"),
    kept: Path = Path("tuning"),
    workers: int | None = None,
    recipe: Recipe | None = None,
    common: Common | None = None,
) -> int:
    """Try recipes on folds of the training tracks, and write the best one as a file.

    The test tracks of `subgenre train` are never used. A search that was stopped goes on.

    Example: subgenre tune --vary loss.name=supcon,triplet --vary optim.lr=1e-3,3e-3

    Example: subgenre tune --backbones musicnn mtg-upf/discogs-maest-10s-pw-129e --layers

    Args:
        features: the feature folder.
        recipes: more recipes to try, by name or file; may be given again.
        vary: an option and its values, section.key=value,value; may be given again: then all
            combinations are tried. By default a few losses and learning rates.
        backbones: compare these instead, frozen, by a linear probe.
        layers: with --backbones, also each earlier layer.
        folds: number of folds.
        trials: at most this many trainings, the unchanged recipes among them.
        by: the metric that decides.
        out: the winner, as a recipe file.
        kept: folder of the finished trainings.
        workers: trainings side by side.
    """
    first = recipe or Recipe()
    first.check(features)
    if backbones and (recipes or vary):
        raise ConfigError("--backbones compares frozen networks; leave out --recipes and --vary")
    if layers and not backbones:
        raise ConfigError("--layers needs --backbones")
    for name in backbones:
        import_code(name)
    terminal = (common or Common()).terminal()
    shared: dict[str, Any] = {
        "given": first.given(),
        "folds": folds,
        "by": by,
        "out": out,
        "kept": kept,
        "workers": workers,
        "console": terminal,
    }
    if backbones:
        from subgenre.commands.tune_backbones import tune_backbones

        tuned = tune_backbones(features, backbones, layers=layers, recipe=first.recipe, **shared)
    else:
        from subgenre.commands import tune as stage

        names, options = (first.recipe, *recipes), _vary_options(vary)
        tuned = stage.tune(features, names, options, trials=trials, **shared)
    title = f"{tuned.n_folds} folds of {tuned.n_tracks} training tracks, by {by}"
    terminal.table(title, *tuned.table())
    terminal.result(tuned.to_dict())
    return 0


def _vary_options(vary: tuple[str, ...]) -> dict[str, list[Any]]:
    """Read 'section.key=value,value'; values are TOML or bare words, those of one option joined."""
    options: dict[str, list[Any]] = {}
    for text in vary:
        name, equals, words = text.partition("=")
        if not (equals and "." in name and words.strip()):
            raise ConfigError(f"--vary {text}: write it as section.key=value,value")
        try:
            values = tomllib.loads(f"values = [{words}]")["values"]
        except tomllib.TOMLDecodeError:
            values = [word.strip() for word in words.split(",")]
        options.setdefault(name.strip(), []).extend(values)
    return options
