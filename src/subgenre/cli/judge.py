"""The commands that say how far a model, and a library, can be trusted: evaluate, doctor."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

from subgenre.cli.console import Terminal
from subgenre.cli.options import Common, Recipe
from subgenre.errors import ConfigError

MAX_MB = 15.0
OPTIONS = ("backbone", "tune", "loss", "epochs", "lr", "margin", "batch_size", "recipe")


def register(app: App) -> None:
    """Add the commands to the app."""
    for command in (evaluate, doctor):
        app.command(command)


def evaluate(
    *,
    run: Path | None = None,
    features: Path | None = None,
    folds: int = 0,
    repeats: int = 1,
    out: Path | None = None,
    max_mb: float = MAX_MB,
    quick: bool = False,
    open_set: str = "frozen",
    workers: int | None = None,
    recipe: Recipe | None = None,
    common: Common | None = None,
) -> int:
    """Score a model on its held-out tracks, or train once a fold and score them all.

    Writes figures, map, doctor's table, model card and one HTML report that opens without network.

    Example: subgenre evaluate --run fully_trained_models_20261122_101500

    Example: subgenre evaluate --folds 5 --repeats 3 --backbone musicnn --out evaluation

    Args:
        run: the model folder; by default the newest fully_trained_models_... here. Not with
            --folds.
        features: the feature folder; by default the run's own, or preprocessed_features.
        folds: hold out each track once, in so many trainings; goes on where it was stopped.
        repeats: of the folds, each drawn anew.
        out: where the evaluation over folds goes; by default the folder 'evaluation'.
        max_mb: size of the sound in the report, megabytes; 0: none.
        quick: the figures alone, no audits.
        open_set: with --folds: frozen, or full: train anew without each subgenre.
        workers: trainings side by side; by default as many as there are cores.
    """
    _refuse_mixed(folds, run, recipe, repeats=repeats, out=out, open_set=open_set)
    from subgenre.commands import cross_validate
    from subgenre.commands import evaluate as single
    from subgenre.core import workspace

    terminal = _terminal(common)
    if folds:
        evaluated = cross_validate.evaluate_folds(
            features or workspace.FEATURES,
            (recipe or Recipe()).suited(features or workspace.FEATURES, terminal),
            folds=folds,
            repeats=repeats,
            out=out or cross_validate.OUT,
            max_mb=max_mb,
            quick=quick,
            open_set=open_set,
            workers=workers,
            console=terminal,
        )
    else:
        evaluated = single.evaluate(
            run, features=features, max_mb=max_mb, quick=quick, console=terminal
        )
    terminal.table("Held-out tracks", *evaluated.table())
    terminal.result(evaluated.metrics)
    return 0


def doctor(
    *,
    features: Path | None = None,
    run: Path | None = None,
    backbone: str | None = None,
    folds: int = 5,
    repeats: int = 3,
    out: Path = Path("doctor.csv"),
    seed: int = 0,
    device: str = "auto",
    common: Common | None = None,
) -> int:
    """List tracks to look at again: in the wrong playlist, copies, outliers, silent or clipped.

    Nothing is moved. No model needs to be trained.

    Example: subgenre doctor --out doctor.csv

    Args:
        features: the feature folder; by default preprocessed_features.
        run: a model folder: its features and its backbone.
        backbone: a hub name, a folder or musicnn; by default the one the features are made for.
        folds: each track is judged by probes that have not heard it.
        repeats: of the folds.
        out: the table, as CSV.
        seed: of the folds.
        device: auto, cpu, cuda or mps.
    """
    if run is not None and (features is not None or backbone is not None):
        raise ConfigError("--run brings its own features and backbone; leave the others out")
    from subgenre.commands import doctor as stage
    from subgenre.core import workspace

    terminal = _terminal(common)
    done = stage.doctor(
        features or workspace.FEATURES,
        run=run,
        backbone=backbone,
        folds=folds,
        repeats=repeats,
        out=out,
        seed=seed,
        device=device,
        console=terminal,
    )
    if done.findings:
        terminal.table("To look at again", *done.table())
    terminal.result(done.to_dict())
    return 0


def _refuse_mixed(
    folds: int,
    run: Path | None,
    recipe: Recipe | None,
    *,
    repeats: int,
    out: Path | None,
    open_set: str,
) -> None:
    """Refuse a finished model where folds train anew, and options that it can't follow any more."""
    if folds and run is not None:
        raise ConfigError("--folds trains anew and takes no --run; leave one of them out")
    given = [name for name in OPTIONS if recipe and getattr(recipe, name) is not None]
    given += ["repeats"] if repeats != 1 else []
    given += ["out"] if out is not None else []
    given += ["open-set"] if open_set != "frozen" else []
    if given and not folds:
        name = given[0].replace("_", "-")
        raise ConfigError(f"--{name} goes with --folds: a trained model stays as it is")


def _terminal(common: Common | None) -> Terminal:
    common = common or Common()
    return Terminal(quiet=common.quiet, as_json=common.json)
