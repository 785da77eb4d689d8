"""The commands that show how far a library and a model can be trusted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from subgenre.cli.options import Common, Recipe
from subgenre.errors import ConfigError

if TYPE_CHECKING:
    from subgenre.commands.runs import RunRow

MAX_MB = 15.0
SHOWN = ("centroid_accuracy", "knn_accuracy", "map_at_r")
OPTIONS = ("backbone", "tune", "loss", "epochs", "lr", "margin", "batch_size", "recipe")


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

    terminal = (common or Common()).terminal()
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

    terminal = (common or Common()).terminal()
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


def runs(folder: Path = Path(), *, common: Common | None = None) -> int:
    """List the trained models of a folder with their figures on held-out tracks.

    Example: subgenre runs

    Args:
        folder: where the models are; by default here.
    """
    from subgenre.commands import runs as stage

    terminal = (common or Common()).terminal()
    found = stage.runs(folder, console=terminal)
    columns = ["run", "model", "train/test", *(name.replace("_", " ") for name in SHOWN)]
    bare = [row.path for row in found if not row.scores]
    hint = f"-: not evaluated yet; for figures: subgenre evaluate --run {bare[0]}" if bare else None
    terminal.table("Trained models", columns, [_run(row) for row in found], caption=hint)
    terminal.result({"runs": [row.to_dict() for row in found]})
    return 0


def compare(a: Path | None = None, b: Path | None = None, *, common: Common | None = None) -> int:
    """Set two models side by side on the tracks held out of both, with the interval.

    Example: subgenre compare fully_trained_models_1 fully_trained_models_2

    Args:
        a: a model folder.
        b: another.
    """
    if a is None or b is None:
        raise ConfigError("compare sets two models side by side: name both of their folders")
    from subgenre.commands import runs as stage

    terminal = (common or Common()).terminal()
    found = stage.compare(a, b)
    names = [name for name in found.scores[0] if name in found.scores[1]]
    table = [[name, *(_score(scores[name]) for scores in found.scores)] for name in names]
    if table:
        terminal.table("Each on its own held-out tracks", ["metric", a.name, b.name], table)
    for path in found.unevaluated:
        terminal.warn(f"{path} has no figures of its own yet: subgenre evaluate --run {path}")
    terminal.table(
        f"Paired, {found.n_tracks} tracks held out of both",
        ["centroid accuracy", "value"],
        [
            [a.name, f"{found.first:.3f}"],
            [b.name, f"{found.second:.3f}"],
            ["difference", f"{found.difference:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"],
            ["right by one only", f"{found.first_only} and {found.second_only}"],
        ],
    )
    terminal.info(found.verdict)
    terminal.result(found.to_dict())
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


def _run(row: RunRow) -> list[str]:
    scores = [row.scores.get(name) for name in SHOWN]
    counts = "/".join("-" if n is None else str(n) for n in (row.n_train, row.n_test))
    trial = " (test run)" if row.test_run else ""
    told = [row.path.name, f"{row.backbone}, {row.tune}, {row.loss}{trial}", counts]
    return [*told, *("-" if score is None else _score(score) for score in scores)]


def _score(score: object) -> str:
    """Tell a figure of `metrics.json` with its interval."""
    if not isinstance(score, dict):
        return "-"
    low, high = score.get("low"), score.get("high")
    interval = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
    return f"{score['value']:.3f}{interval}"
