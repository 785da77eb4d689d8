"""The settings: one frozen dataclass for each section of a recipe, and the recipe files.

Most modules take their own section or plain values, not the whole `TrainConfig`.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from subgenre.core import validation, workspace
from subgenre.core.validation import check_choice, check_ranges, check_tune, either
from subgenre.errors import ConfigError

DEFAULT_BACKBONE = "MIT/ast-finetuned-audioset-10-10-0.4593"
CHUNK_STRATEGIES = ("random", "sequential", "spaced")
POOLINGS = ("mean", "cls")
BATCH_KINDS = ("triplet", "pk")
MININGS = ("none", "semihard", "hard")
SCHEDULES = ("constant", "cosine")
ALPHA = 0.1  # share of tracks of the subgenres that may be rejected as "none of these"
DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16")
ENGINES = ("auto", "torch", "openvino", "onnx")
MULTI = ("exclude", "keep")
SEEDS = (0, 4_000_000_000)  # scikit-learn takes 32 bits; repeats count up from the seed
_MANY = 1_000_000


@dataclass(frozen=True)
class LossKind:
    """The source of a loss and what it reads; one entry of `LOSSES` registers it.

    Attributes:
        source: `module:class`, a `losses.Loss`. reads: keys of `[loss]`.
        triplets: whether it is made of triplets, mined or drawn.
        trash: whether it compares with the trash pool.
    """

    source: str
    reads: tuple[str, ...] = ()
    triplets: bool = False
    trash: bool = True


LOSSES: dict[str, LossKind] = {
    "triplet": LossKind("subgenre.losses.triplet:TripletLoss", ("margin",), triplets=True),
    "quadruplet": LossKind(
        "subgenre.losses.triplet:QuadrupletLoss",
        ("negative_margin", "trash_margin", "trash_weight"),
        triplets=True,
    ),
    "multi_similarity": LossKind(
        "subgenre.losses.library:MultiSimilarityLoss", ("alpha", "beta", "base")
    ),
    "supcon": LossKind("subgenre.losses.supcon:SupConLoss", ("temperature",)),
    "proxy_anchor": LossKind("subgenre.losses.library:ProxyAnchorLoss", ("scale",), trash=False),
    "norm_softmax": LossKind(
        "subgenre.losses.library:NormSoftmaxLoss", ("temperature",), trash=False
    ),
    "arcface": LossKind(
        "subgenre.losses.library:ArcFaceLoss", ("scale", "angular_margin"), trash=False
    ),
}
# Options of earlier versions: the default that they had, and what to do about another value.
REMOVED: dict[str, tuple[Any, str]] = {
    "model.skip": (False, "leave it out"),
    "model.members": (1, "leave it out: one head has the whole embedding_size"),
    "augment.mixup": (0.0, "leave it out, or use augment.time_mask and augment.freq_mask"),
    "augment.vector_mixup": (0.0, "leave it out, or use augment.vector_noise"),
    "augment.crop": (False, "leave it out"),
    "loss.genre_margin": (0.0, "leave it out"),
    "preprocess.store_s": (0.0, "run `subgenre preprocess` again"),
}
# Values of earlier versions, of options that remain.
REMOVED_VALUES = {
    ("model.layer", "weighted"): "give the number of one block, e.g. -1 for the last",
    ("loss.name", "track_triplet"): 'use "triplet" or "multi_similarity" with batch.kind = "pk"',
}

T = TypeVar("T")


@dataclass(frozen=True)
class PreprocessConfig:
    """How tracks become chunks.

    Attributes:
        chunk_s: length of a chunk, seconds. max_chunks: of a track.
        min_track_s: a shorter track is skipped, seconds.
        multi: a recording in two subgenres: `exclude` it, or `keep` both. seed: of `random`.
    """

    chunk_s: float = 10.0
    max_chunks: int = 3
    chunk_strategy: str = "random"
    min_track_s: float = 3.0
    multi: str = "exclude"
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("chunk_strategy", self.chunk_strategy, CHUNK_STRATEGIES)
        check_choice("multi", self.multi, MULTI)
        check_ranges(self, chunk_s=(0.5, 600), max_chunks=(1, 10_000), min_track_s=(0.1, 3600))
        check_ranges(self, seed=SEEDS)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, with the option that earlier versions had.

        The fingerprint of a feature folder covers them, so it does not change between versions.
        """
        return {**validation.to_dict(self), "store_s": 0.0}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "preprocess") -> PreprocessConfig:
        """Build the settings from the values of `to_dict`; errors as of `from_plain`."""
        return validation.from_dict(cls, _without_removed("preprocess", values, where), where)


@dataclass(frozen=True)
class ModelConfig:
    """The encoder: backbone, pooling, projection head.

    Attributes:
        backbone: a hub name, a folder, `musicnn`, or one's own (`package:function`).
        tune: how much of the backbone learns: `head`, `last:N`, `lora` or `full`.
        layer: the block whose output is pooled, -1 for the last.
        pooling: `mean` over all tokens, or `cls` (AST: class and distillation token).
        head: sizes of the head's hidden layers.
        embedding_size: D.
        dropout: before each linear layer of the head.
        standardise: pooled vectors to zero mean and unit deviation over the training chunks:
            `on`, `off`, or `auto`: if the backbone is frozen.
        pca: half-whitened principal axes of the standardised vectors, input of the head; 0: all
            columns.
        fusion: weight of those axes in the embedding, beside the head's output; 0: left out.
        centre: subtract the mean of the training chunks from the embedding after training; the
            validation sees it uncentred.
        lora_rank: rank of the adapters with `tune = "lora"`.
    """

    backbone: str = DEFAULT_BACKBONE
    tune: str = "full"
    layer: int = -1
    pooling: str = "mean"
    head: tuple[int, ...] = (768, 512)
    embedding_size: int = 128
    dropout: float = 0.0
    standardise: str = "auto"
    pca: int = 0
    fusion: float = 0.0
    centre: bool = False
    lora_rank: int = 8

    def __post_init__(self) -> None:
        if not self.backbone:
            raise ConfigError("backbone is empty; give a hub name, a folder or musicnn")
        check_tune(self.tune)
        check_choice("pooling", self.pooling, POOLINGS)
        check_choice("standardise", self.standardise, ("auto", "on", "off"))
        check_ranges(self, embedding_size=(2, 65_536), lora_rank=(1, 1024), dropout=(0, 0.95))
        check_ranges(self, pca=(0, 65_536), fusion=(0, 100))
        if any(size < 1 for size in self.head):
            raise ConfigError(f"head is {list(self.head)}; each size must be 1 or more")

    @property
    def standardised(self) -> bool:
        """Whether pooled vectors are standardised, with `auto` resolved."""
        return self.standardise == "on" or (self.standardise == "auto" and self.tune == "head")


@dataclass(frozen=True)
class BatchConfig:
    """How chunks are combined into batches.

    Attributes:
        kind: `triplet` (each epoch has one triplet for each training chunk) or `pk`.
        size: triplets a step, for `triplet`.
        subgenres: P of a `pk` batch; 0: all. tracks: K of each subgenre; 0: all.
        chunks: C of each track; 0: all.
        same_genre: share of the `pk` batches drawn from one genre (siblings are hard negatives).
        accumulate: steps whose gradients are averaged for one update of the weights.
    """

    kind: str = "triplet"
    size: int = 2
    subgenres: int = 8
    tracks: int = 4
    chunks: int = 2
    same_genre: float = 0.5
    accumulate: int = 1

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, BATCH_KINDS)
        check_ranges(self, size=(1, _MANY), same_genre=(0, 1), accumulate=(1, 100_000))
        check_ranges(self, subgenres=(0, _MANY), tracks=(0, _MANY), chunks=(0, _MANY))
        if self.tracks == 1:
            raise ConfigError("tracks is 1: two chunks of one track would be the only positive")


@dataclass(frozen=True)
class LossConfig:
    """The loss and its numbers.

    Attributes:
        name: one of `LOSSES`.
        margin: triplet margin on cosine distance.
        negative_margin, trash_margin, trash_weight: quadruplet loss (0.2, 0.5, 1).
        mining: `none`, `semihard` or `hard` triplets of the batch.
        temperature: of `supcon`, `norm_softmax`.
        alpha, beta, base: of `multi_similarity`.
        scale, angular_margin: of `arcface` (degrees) and `proxy_anchor` (margin 0.1).
    """

    name: str = "triplet"
    margin: float = 0.3
    negative_margin: float = 0.2
    trash_margin: float = 0.5
    trash_weight: float = 1.0
    mining: str = "none"
    temperature: float = 0.1
    alpha: float = 2.0
    beta: float = 50.0
    base: float = 0.5
    scale: float = 32.0
    angular_margin: float = 28.6

    def __post_init__(self) -> None:
        check_choice("loss", self.name, tuple(LOSSES))
        check_choice("mining", self.mining, MININGS)
        check_ranges(self, margin=(0, 2), negative_margin=(0, 2), trash_margin=(0, 2))
        check_ranges(self, trash_weight=(0, 1000), temperature=(1e-4, 100))
        check_ranges(self, alpha=(1e-4, 1e4), beta=(1e-4, 1e4), base=(-10, 10))
        check_ranges(self, scale=(1e-4, 1e4), angular_margin=(0, 90))


@dataclass(frozen=True)
class OptimConfig:
    """AdamW and its schedule.

    Attributes:
        epochs: passes over the training chunks (`pk`: as many batches as cover them).
        lr: learning rate of the head. backbone_lr: of the backbone; 0: the same.
        weight_decay: of AdamW. warmup: share of all steps. schedule: one of `SCHEDULES`.
        layer_decay: learning rate of a block, as a factor of that of the block above.
        head_epochs: first epochs, in which the head learns alone (LP-FT).
        clip_norm: largest norm of the gradient; 0: not clipped.
    """

    epochs: int = 30
    lr: float = 1e-4
    backbone_lr: float = 0.0
    weight_decay: float = 0.01
    warmup: float = 0.0
    schedule: str = "constant"
    layer_decay: float = 1.0
    head_epochs: int = 0
    clip_norm: float = 0.0

    def __post_init__(self) -> None:
        check_choice("schedule", self.schedule, SCHEDULES)
        check_ranges(self, epochs=(1, _MANY), head_epochs=(0, self.epochs))
        check_ranges(self, lr=(1e-12, 1e6), backbone_lr=(0, 1e6), layer_decay=(1e-3, 1))
        check_ranges(self, warmup=(0, 1), weight_decay=(0, 100), clip_norm=(0, 1e6))


@dataclass(frozen=True)
class AugmentConfig:
    """Augmentation on the device; all off by default.

    Attributes:
        time_mask, freq_mask: widest mask, as a share of the frames and of the bands.
        gain_db: largest change of level, either way.
        patchout: share of the AST's patch tokens dropped in training.
        vector_noise: noise on cached vectors, in units of their deviation.
    """

    time_mask: float = 0.0
    freq_mask: float = 0.0
    gain_db: float = 0.0
    patchout: float = 0.0
    vector_noise: float = 0.0

    def __post_init__(self) -> None:
        check_ranges(self, time_mask=(0, 0.9), freq_mask=(0, 0.9), gain_db=(0, 60))
        check_ranges(self, patchout=(0, 0.9), vector_noise=(0, 10))


@dataclass(frozen=True)
class WatchConfig:
    """Validation, early stopping, collapse.

    Attributes:
        val_share: share of the training tracks held out for validation; 0: none.
        patience: epochs without a better validation MAP@R before training stops; 0: never.
        every: epochs between two validations. collapse: stop when the embeddings collapse.
    """

    val_share: float = 0.0
    patience: int = 0
    every: int = 1
    collapse: bool = True

    def __post_init__(self) -> None:
        check_ranges(self, val_share=(0, 0.5), patience=(0, _MANY), every=(1, _MANY))


@dataclass(frozen=True)
class RunConfig:
    """Device, number format, split, seed and checkpoints.

    Attributes:
        device: one of `DEVICES`. precision: one of `PRECISIONS`, see `hardware.pick_bf16`.
        engine: one of `ENGINES`, runs frozen transformers on a CPU, see `engines.select`; `torch`
            by default, so that figures don't depend on the machine.
        compile: use torch.compile. checkpointing: less memory and more time in the backbone.
        test_share: share of the tracks held out for test. strict_groups: refuse a split that
            can't keep artists and albums together. seed: of split, weights and batches.
        save_every: steps between checkpoints; 0: at the end of each epoch.
    """

    device: str = "auto"
    engine: str = "torch"
    precision: str = "auto"
    compile: bool = False
    checkpointing: bool = False
    test_share: float = 0.2
    strict_groups: bool = False
    seed: int = 0
    save_every: int = 0

    def __post_init__(self) -> None:
        check_choice("device", self.device, DEVICES)
        check_choice("engine", self.engine, ENGINES)
        check_choice("precision", self.precision, PRECISIONS)
        check_ranges(self, test_share=(0.02, 0.5), seed=SEEDS, save_every=(0, 1_000_000_000))


@dataclass(frozen=True)
class TrainConfig:
    """The settings of one training: a recipe, or the `config.toml` of a model folder."""

    recipe: str = "thesis"
    model: ModelConfig = field(default_factory=ModelConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    watch: WatchConfig = field(default_factory=WatchConfig)
    run: RunConfig = field(default_factory=RunConfig)


def replace(config: T, section: str, **values: Any) -> T:
    """Return `config` with some values of one section replaced."""
    part = dataclasses.replace(getattr(config, section), **values)
    return dataclasses.replace(config, **{section: part})  # type: ignore[type-var]


def value(config: TrainConfig, option: str) -> Any:
    """Return the value of an option, `section.key`."""
    section, _, key = option.partition(".")
    return getattr(getattr(config, section), key)


def recipe_names() -> tuple[str, ...]:
    """Return the names of the package's recipes, sorted."""
    files = resources.files("subgenre").joinpath("recipes").iterdir()
    return tuple(sorted(Path(f.name).stem for f in files if f.name.endswith(".toml")))


def load_recipe(name: str) -> TrainConfig:
    """Read a recipe by its name in the package, or a user's own TOML file.

    Raises ConfigError: neither a known name nor a file, an unknown key, a bad value.
    """
    if name in recipe_names():
        source = resources.files("subgenre").joinpath("recipes", f"{name}.toml")
        values, where = tomllib.loads(source.read_text(encoding="utf-8")), f"recipe {name}"
    elif name.endswith(".toml") or Path(name).is_file():
        values, where = validation.load_toml(Path(name)), name
    else:
        near = validation.nearest(name, recipe_names())
        raise ConfigError(
            f"no recipe '{name}'{near}; choose {either(recipe_names())} or a TOML file"
        )
    # a user's file is no recipe of the package, whatever its name
    own = name if name in recipe_names() else f"{Path(name).stem}.toml"
    return from_plain({**values, "recipe": own}, where)


def load_settings(path: Path) -> TrainConfig:
    """Read the `config.toml` of a model folder; one of an earlier version is readable.

    Raises ConfigError: no TOML, an unknown key, a bad value, an option that was removed, or a
    section that is missing: every version writes each of them.
    """
    values = validation.load_toml(path)
    settings = from_plain(values, str(path))
    missing = [field.name for field in dataclasses.fields(TrainConfig) if field.name not in values]
    if missing:
        raise ConfigError(f"{path} is cut: it has no {missing[0]}; {workspace.COPY_AGAIN}")
    return settings


def from_plain(values: Mapping[str, Any], where: str) -> TrainConfig:
    """Build the settings from plain values; a removed option at its former default is dropped.

    Raises ConfigError: an unknown key, a bad value, an option that was removed; `where` names the
    file in the message.
    """
    kept = {
        section: _without_removed(section, part, where) if isinstance(part, Mapping) else part
        for section, part in values.items()
    }
    return validation.from_dict(TrainConfig, kept, where)


def _without_removed(section: str, options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Drop options that were removed, if they have their former default; else a ConfigError."""
    kept: dict[str, Any] = {}
    for key, value in options.items():
        name = f"{section}.{key}"
        default, advice = REMOVED.get(name, (None, REMOVED_VALUES.get((name, str(value)))))
        if advice and value != default:
            raise ConfigError(f"{where}: {name} = {value} no longer exists; {advice}")
        if not advice:
            kept[key] = value
    return kept


def override(settings: TrainConfig, given: Mapping[str, Any]) -> TrainConfig:
    """Return the settings with some options (`section.key` -> value) replaced, all at once.

    Where `optim.epochs` becomes so small that the head alone would learn in all of them,
    `optim.head_epochs` shrinks too: the backbone learns in the last epoch at least.

    Raises ConfigError: an unknown option, or a bad value.
    """
    plain = validation.to_dict(settings)
    sections = tuple(name for name, part in plain.items() if isinstance(part, dict))
    for name, value in given.items():
        section, dot, key = name.partition(".")
        if not dot:
            raise ConfigError(f"no option '{name}': write it as section.key")
        if section not in sections:
            near = validation.nearest(section, sections)
            raise ConfigError(f"no section '{section}'{near}; choose {either(sections)}")
        plain[section][key] = value
    epochs, optim = given.get("optim.epochs"), plain["optim"]
    if isinstance(epochs, int) and "optim.head_epochs" not in given:
        optim["head_epochs"] = min(optim["head_epochs"], max(0, epochs - 1))
    return from_plain(plain, "options")
