"""The command that searches for a better recipe."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from subgenre.cli.console import Terminal
from subgenre.cli.options import Common, Recipe
from subgenre.config import TrainConfig
from subgenre.errors import ConfigError


def register(app: App) -> None:
    """Add the command to the app."""
    app.command(tune)


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

    common = common or Common()
    terminal = Terminal(quiet=common.quiet, as_json=common.json)
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
