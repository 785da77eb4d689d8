"""The commands that show how far a library and a model can be trusted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from subgenre.cli.options import Common, Recipe, import_code
from subgenre.core import workspace
from subgenre.core.text import counted, p_value, signed
from subgenre.errors import ConfigError
from subgenre.search import address

if TYPE_CHECKING:
    from subgenre.cli.console import Terminal
    from subgenre.commands.runs import RunRow
    from subgenre.report.writer import Evaluated

MAX_MB = 3.0
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
    """Score a model on its held-out tracks, or cross-validate a recipe with --folds.

    Writes the figures, a map, the doctor's table, a model card, and a report as one HTML file.

    Example: subgenre evaluate --run fully_trained_models_20261122_101500

    Example: subgenre evaluate --folds 5 --repeats 3 --out evaluation

    Args:
        run: the model folder; by default the newest fully_trained_models_... here. Not with
            --folds.
        features: the feature folder; by default the model's own, or preprocessed_features.
        folds: number of folds, each a training; each track is held out once. An evaluation that
            was stopped goes on.
        repeats: with --folds, how often to draw the folds.
        out: with --folds, the output folder; by default 'evaluation'.
        max_mb: size of the audio in the report, megabytes; 0: none.
        quick: only the figures, no audits.
        open_set: with --folds, the audit of unknown subgenres: frozen, or full (one more training
            for each subgenre left out).
        workers: with --folds, parallel trainings; by default one for each core.
    """
    _check_options(folds, run, recipe, repeats=repeats, out=out, open_set=open_set)
    common = common or Common()
    terminal = common.terminal()
    recipe = recipe or Recipe()
    if folds:
        recipe.check(features or workspace.FEATURES)
    else:
        run = workspace.find_run(run, terminal)
    from subgenre.commands import evaluate as stage

    settings = None
    if folds:
        settings = recipe.settings(features or workspace.FEATURES, terminal)
    evaluated = stage.evaluate(
        run,
        features=features,
        settings=settings,
        folds=folds,
        repeats=repeats,
        out=out or stage.OUT,
        max_mb=max_mb,
        quick=quick,
        open_set=open_set,
        workers=workers,
        console=terminal,
    )
    show_evaluation(evaluated, terminal, common.again())
    terminal.result(evaluated.metrics)
    return 0


def show_evaluation(evaluated: Evaluated, terminal: Terminal, code: str) -> None:
    """Print the figures, the first sentences of the summary, and the next command.

    Args:
        code: the options of the next command by `Common.again`.
    """
    terminal.table("Held-out tracks", *evaluated.table())
    for sentence in evaluated.sentences[:3]:
        terminal.info(sentence)
    if not evaluated.metrics["folds"]:
        terminal.info(f"next: subgenre classify NEW_FILES --run {evaluated.run}{code}")


def check(path: str, *, common: Common | None = None) -> int:
    """Read every file of a feature folder, a model folder or an index, and list damaged ones.

    Example: subgenre check preprocessed_features

    Args:
        path: a feature folder, a model folder (with its index), or an index, also on a server.
    """
    from subgenre.commands import check as stage

    terminal = (common or Common()).terminal()
    checked = stage.check(address.parse(path), console=terminal)
    for bad in checked.bad:
        file = "" if str(bad.path) in bad.reason else f"{bad.path}: "
        terminal.warn(f"{file}{bad.reason}; to mend it: {bad.command}")
    good = counted(checked.n_files - len(checked.bad), "file")
    terminal.info(f"{path}: {good} checked and whole, {len(checked.bad)} damaged or missing")
    terminal.result(checked.to_dict())
    return 1 if checked.bad else 0


def doctor(
    *,
    features: Path | None = None,
    run: Path | None = None,
    backbone: str | None = None,
    folds: int | None = None,
    repeats: int = 3,
    out: Path = Path("doctor.csv"),
    seed: int = 0,
    device: str = "auto",
    engine: str | None = None,
    common: Common | None = None,
) -> int:
    """List tracks to check: in the wrong playlist, copies, outliers, broken files.

    It needs no trained model, and moves nothing.

    Example: subgenre doctor --out doctor.csv

    Args:
        features: the feature folder; by default preprocessed_features.
        run: a model folder, whose features and backbone are used.
        backbone: a hub name, a folder, musicnn or package:function; by default that of the
            features.
        folds: number of folds; each track is judged by probes trained without it. By default 5,
            or fewer in a small library.
        repeats: how often to draw the folds.
        out: the table, as CSV.
        seed: of the folds.
        device: auto, cpu, cuda or mps.
        engine: of a transformer on a CPU: torch, openvino, onnx or auto; by default that of the
            model, or torch.
    """
    if run is not None and (features is not None or backbone is not None):
        raise ConfigError("--run has its own features and backbone; leave out the other options")
    import_code(backbone)
    from subgenre.commands import doctor as stage

    terminal = (common or Common()).terminal()
    diagnosed = stage.doctor(
        features or workspace.FEATURES,
        run=run,
        backbone=backbone,
        folds=folds,
        repeats=repeats,
        out=out,
        seed=seed,
        device=device,
        engine=engine,
        console=terminal,
    )
    if diagnosed.findings:
        terminal.table("Tracks to check", *diagnosed.table(), caption=diagnosed.caption)
    terminal.result(diagnosed.to_dict())
    return 0


def runs(folder: Path = Path(), *, common: Common | None = None) -> int:
    """List the trained models of a folder with their figures on held-out tracks.

    With --quiet there is no table, only warnings of damaged models.

    Example: subgenre runs

    Args:
        folder: where the models are; by default here.
    """
    from subgenre.commands import runs as stage
    from subgenre.metrics import METRICS

    terminal = (common or Common()).terminal()
    rows = stage.runs(folder, console=terminal)
    columns = ["run", "model", "train/test", *(METRICS[name].title for name in SHOWN)]
    no_scores = [row.path for row in rows if not row.scores]
    hint = f"-: not evaluated; run `subgenre evaluate --run {no_scores[0]}`" if no_scores else None
    terminal.table("Trained models", columns, [_run_row(row) for row in rows], caption=hint)
    terminal.result({"runs": [row.to_dict() for row in rows]})
    return 0


def compare(a: Path | None = None, b: Path | None = None, *, common: Common | None = None) -> int:
    """Compare two models on the tracks held out of both, with a confidence interval.

    Example: subgenre compare fully_trained_models_1 fully_trained_models_2

    Args:
        a: a model folder.
        b: another.
    """
    if a is None or b is None:
        raise ConfigError("compare needs two models; name both folders")
    from subgenre.commands import runs as stage
    from subgenre.metrics import METRICS

    terminal = (common or Common()).terminal()
    compared = stage.compare(a, b)
    names = [name for name in METRICS if all(name in scores for scores in compared.scores)]
    table = [
        [METRICS[name].title, *(_score(scores[name]) for scores in compared.scores)]
        for name in names
    ]
    if table:
        terminal.table("Each on its own held-out tracks", ["metric", a.name, b.name], table)
    for path in compared.unevaluated:
        terminal.warn(f"{path} is not evaluated; run `subgenre evaluate --run {path}`")
    terminal.table(
        f"Both on the {compared.n_tracks} tracks held out of both",
        ["metric", a.name, b.name, "difference", "p"],
        [
            [
                METRICS[name].title,
                f"{compared.first[name].value:.3f}",
                f"{compared.second[name].value:.3f}",
                f"{signed(one.difference, 3)} [{signed(one.low, 3)}, {signed(one.high, 3)}]",
                p_value(one.p),
            ]
            for name, one in compared.differences.items()
        ],
        caption=f"right by only one: {compared.first_only} and {compared.second_only} tracks",
    )
    terminal.info(compared.verdict)
    terminal.result(compared.to_dict())
    return 0


def _check_options(
    folds: int,
    run: Path | None,
    recipe: Recipe | None,
    *,
    repeats: int,
    out: Path | None,
    open_set: str,
) -> None:
    """Refuse a model together with --folds, and training options without it."""
    if folds and run is not None:
        raise ConfigError("--folds trains new models and takes no --run; leave out one of the two")
    given = [name for name in OPTIONS if recipe and getattr(recipe, name) is not None]
    given += ["repeats"] if repeats != 1 else []
    given += ["out"] if out is not None else []
    given += ["open-set"] if open_set != "frozen" else []
    if given and not folds:
        name = given[0].replace("_", "-")
        raise ConfigError(f"--{name} needs --folds: a trained model is evaluated as it is")


def _run_row(row: RunRow) -> list[str]:
    scores = [row.scores.get(name) for name in SHOWN]
    counts = "/".join("-" if n is None else str(n) for n in (row.n_train, row.n_test))
    note = " (test run)" if row.test_run else ""
    cells = [row.path.name, f"{row.backbone}, {row.tune}, {row.loss}{note}", counts]
    return [*cells, *("-" if score is None else _score(score) for score in scores)]


def _score(score: object) -> str:
    """Format a figure of `metrics.json` with its interval."""
    if not isinstance(score, dict):
        return "-"
    low, high = score.get("low"), score.get("high")
    interval = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
    return f"{score['value']:.3f}{interval}"
