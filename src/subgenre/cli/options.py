"""Options that several commands share."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

import subgenre
from subgenre import config
from subgenre.cli.console import Terminal
from subgenre.config import TrainConfig
from subgenre.core import plugins, workspace
from subgenre.errors import ConfigError

if TYPE_CHECKING:
    from subgenre.api import Model

MAP_EXAMPLE = "D:/Music=/home/ann/Music"


def import_code(*names: str | None) -> None:
    """Import those names of backbones that are `package:function`, as the user typed them.

    Raises:
        BackboneError: there is no such package, or no such function in it.
    """
    named = [name for name in names if name and plugins.is_factory(name)]
    if named:
        from subgenre.models import backbones

        backbones.import_factories(named)


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """What a command prints."""

    json: bool = False
    "Print the result as one JSON object on standard output."
    quiet: bool = False
    "Print only warnings and errors, and no table; --json is printed."

    trust: tuple[str, ...] = ()
    "package:function of a backbone that a folder names, whose code may run; may be given again."

    def again(self, *names: str | None) -> str:
        """Return the options by which a next command may run the same code, and that of `names`."""
        code = dict.fromkeys((*self.trust, *(n for n in names if n and plugins.is_factory(n))))
        return "".join(f" --trust {name}" for name in code)

    def terminal(self, *, first: bool = True) -> Terminal:
        """Import the code that is trusted, and open the terminal; `first` as for `Terminal`."""
        import_code(*self.trust)
        return Terminal(quiet=self.quiet, as_json=self.json, first=first)


@Parameter(name="*")
@dataclass(frozen=True)
class Recipe:
    """What to train, and how; by default as the recipe says."""

    recipe: str | None = None
    "A recipe of the package or a TOML file; by default laptop, or gpu for an AST on CUDA."
    backbone: str | None = None
    "A hub name, a folder, musicnn or package:function; by default that of the features."
    tune: str | None = None
    "How much of the backbone learns: head, last:N, lora or full."
    loss: str | None = None
    "The loss, e.g. triplet, quadruplet, supcon, multi_similarity."
    epochs: int | None = None
    "Passes over the training chunks."
    lr: float | None = None
    "Learning rate."
    margin: float | None = None
    "Triplet margin on cosine distance."
    batch_size: int | None = None
    "Triplets a step (batches of drawn triplets)."
    device: str | None = None
    "auto, cpu, cuda or mps."
    engine: str | None = None
    "Of a frozen transformer on a CPU: torch, openvino, onnx, or auto: the fastest, measured once."
    seed: int | None = None
    "Seed of the split, the first weights and the batches."
    strict_groups: bool = False
    "Refuse a split that can't keep artists and albums together."
    set: Annotated[tuple[str, ...], Parameter(name="--set")] = ()
    "Any option of the recipe, as section.key=value; may be given again."

    def check(self, features: Path | None = None) -> None:
        """Refuse wrong options, and a folder without features, before torch is loaded.

        Raises:
            ConfigError: see `config.override`. FeatureError: there are no features.
            BackboneError: the backbone is code that can't be imported.
        """
        given = self.given()
        config.override(config.load_recipe(self.recipe or "laptop"), given)
        import_code(given.get("model.backbone"))
        if features is not None:
            workspace.check_features(features)

    def settings(self, features: Path, terminal: Terminal) -> TrainConfig:
        """Return the recipe with these options, adapted to the features.

        Raises:
            As `recipes.settings_for`.
        """
        from subgenre.training import recipes

        return recipes.settings_for(features, self.given(), recipe=self.recipe, console=terminal)

    def given(self) -> dict[str, Any]:
        """Return the options that were given: `section.key` -> value; the last --set of one counts.

        Raises:
            ConfigError: a --set that is not section.key=value, or contradicts a flag.
        """
        flags = {
            "model.backbone": self.backbone,
            "model.tune": self.tune,
            "loss.name": self.loss,
            "optim.epochs": self.epochs,
            "optim.lr": self.lr,
            "loss.margin": self.margin,
            "batch.size": self.batch_size,
            "run.device": self.device,
            "run.engine": self.engine,
            "run.seed": self.seed,
            "run.strict_groups": self.strict_groups or None,
        }
        by_flag = {name: value for name, value in flags.items() if value is not None}
        by_set = dict(_assignment(words) for words in self.set)
        for name in by_flag.keys() & by_set.keys():
            if by_flag[name] != by_set[name]:
                raise ConfigError(
                    f"{name} is given twice, as {by_flag[name]} and by --set as {by_set[name]}; "
                    "give one of the two"
                )
        return by_flag | by_set


@Parameter(name="*")
@dataclass(frozen=True)
class Mapped:
    """Lists from another machine."""

    map: Annotated[tuple[str, ...], Parameter(name="--map")] = ()
    "FROM=TO, a prefix of the paths in lists of another machine, and its folder here."

    def maps(self) -> list[tuple[str, str]]:
        """Read each `FROM=TO`.

        Raises:
            ConfigError: not of this form.
        """
        pairs = [words.rpartition("=") for words in self.map]
        for words, (source, _, target) in zip(self.map, pairs, strict=True):
            if not (source and target):
                raise ConfigError(
                    f"--map {words} is not FROM=TO, neither of them empty; "
                    f"give for example --map {MAP_EXAMPLE}"
                )
        return [(source, target) for source, _, target in pairs]


def _assignment(words: str) -> tuple[str, Any]:
    """Read 'section.key=value'; the value is TOML, or a bare word."""
    name, equals, text = words.partition("=")
    section, dot, key = name.strip().partition(".")
    if not (equals and dot and key):
        raise ConfigError(f"--set {words}: write it as section.key=value, e.g. optim.lr=1e-4")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    return f"{section}.{key}", value


@Parameter(name="*")
@dataclass(frozen=True)
class Source:
    """The model, and the tracks that are searched."""

    run: Path | None = None
    "The model folder; by default the newest with vectors."
    index: str | None = None
    "An index: a folder, postgresql://... or http://... (Milvus); by default the model's own."
    engine: str | None = None
    "Of a transformer on a CPU: torch, openvino, onnx or auto; by default that of the training."

    def load(self, terminal: Terminal) -> Model:
        """Open the model."""
        return subgenre.load(self.run, index=self.index, engine=self.engine, console=terminal)


@Parameter(name="*")
@dataclass(frozen=True)
class Selection:
    """Which tracks a list may hold, and how they are ranked."""

    genre: tuple[str, ...] = ()
    "Only tracks of this genre; may be given again."
    subgenre: tuple[str, ...] = ()
    "Only tracks of this subgenre; may be given again."
    artist: tuple[str, ...] = ()
    "Only tracks of this artist; may be given again."
    folder: tuple[Path, ...] = ()
    "Only tracks with a file below this folder; may be given again."
    min_bpm: float | None = None
    "Lowest tempo."
    max_bpm: float | None = None
    "Highest tempo."
    key: tuple[str, ...] = ()
    "Only tracks in this key, as Am or 8A; may be given again."
    in_key: tuple[str, ...] = ()
    "Only tracks in this key or a neighbour on the Camelot wheel; may be given again."
    min_seconds: float | None = None
    "Shortest duration."
    max_seconds: float | None = None
    "Longest duration."
    per_artist: int = 0
    "At most this many tracks of one artist; 0: no limit."
    versions: bool = False
    "Keep several versions of one recording."
    plain: bool = False
    "Rank by cosine instead of mutual proximity, which corrects hubs."

    def options(self) -> dict[str, Any]:
        """Return the fields of a `PlaylistRequest`.

        Raises:
            ConfigError: a lowest value above the highest.
        """
        from subgenre.search.track_rows import Filter

        chosen = Filter(
            genre=self.genre,
            subgenre=self.subgenre,
            artist=self.artist,
            folder=tuple(str(folder.absolute()) for folder in self.folder),
            bpm=_between("bpm", self.min_bpm, self.max_bpm),
            key=self.key,
            in_key=self.in_key,
            duration_s=_between("seconds", self.min_seconds, self.max_seconds),
        )
        return {
            "filter": chosen,
            "per_artist": self.per_artist,
            "versions": self.versions,
            "mutual": not self.plain,
        }


def _between(name: str, low: float | None, high: float | None) -> tuple[float, float] | None:
    if low is None and high is None:
        return None
    low, high = low if low is not None else 0.0, high if high is not None else math.inf
    if low > high:
        raise ConfigError(f"--min-{name} {low:g} is above --max-{name} {high:g}; swap them")
    return low, high
