"""Options that could not act on the chosen backbone, cache or loss are refused before any work."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from subgenre import config
from subgenre.config import AugmentConfig, ModelConfig, TrainConfig
from subgenre.core.validation import check_tune, either
from subgenre.errors import ConfigError
from subgenre.models import lora
from subgenre.models.backbones import Backbone
from subgenre.training import inputs

# What each loss reads of `[loss]`; those that mine read `mining` too, of a batch that they search.
_READS: dict[str, tuple[str, ...]] = {
    "triplet": ("margin", "genre_margin"),
    "quadruplet": ("negative_margin", "trash_margin", "trash_weight", "genre_margin"),
    "track_triplet": ("margin", "genre_margin"),
    "multi_similarity": ("alpha", "beta", "base"),
    "supcon": ("temperature",),
    "proxy_anchor": ("scale",),
    "norm_softmax": ("temperature",),
    "arcface": ("scale", "angular_margin"),
}
_BATCHES = {"triplet": ("size",), "pk": ("subgenres", "tracks", "chunks", "same_genre")}


@dataclass(frozen=True)
class Option:
    """An option that can't act: `section.key`, the value that lets it rest, and why."""

    name: str
    rest: Any
    why: str

    def value(self, settings: TrainConfig) -> Any:
        """Return what the settings say."""
        section, _, key = self.name.partition(".")
        return getattr(getattr(settings, section), key)


def asleep(settings: TrainConfig, *, transformer: bool) -> Iterator[Option]:
    """Yield each option that is set, though nothing would read it.

    Args:
        transformer: whether the backbone is one.
    """
    for option in _options(settings, transformer=transformer):
        if option.value(settings) != option.rest:
            yield option


def refuse_idle(settings: TrainConfig, backbone: Backbone) -> None:
    """Raise where an option would be read by nothing, or asks what the backbone hasn't, and say so.

    Raises:
        ConfigError: naming the option and what to set it to.
        MissingExtraError: adapters are asked for, and peft is not installed.
    """
    if settings.model.tune == "lora":
        lora.check(backbone)
    if problem := barred(settings, transformer=backbone.transformer):
        raise ConfigError(problem)
    _check_layer(settings.model, backbone)
    backbone.check_pooling(settings.model.pooling)


def barred(settings: TrainConfig, *, transformer: bool) -> str:
    """Tell what keeps a training from its start, "" where nothing does.

    Args:
        transformer: as of `asleep`.
    """
    if problem := conflict(settings):
        return problem
    for option in asleep(settings, transformer=transformer):
        return (
            f"{option.name} is {option.value(settings)}, but can't act: {option.why}; "
            f"give --set {option.name}={str(option.rest).lower()}"
        )
    return ""


def conflict(settings: TrainConfig) -> str:
    """Tell what a recipe says that can't go together, "" where nothing does.

    It is asked where a training starts: a model's own recipe is read again without it.
    """
    loss, optim, watch = settings.loss, settings.optim, settings.watch
    drawn = settings.batch.kind == "triplet"
    if drawn and loss.name not in config.DRAWN_LOSSES:
        return (
            f"loss '{loss.name}' compares whole batches, not drawn triplets; set "
            f'kind = "pk" under [batch] (--set batch.kind=pk), or choose the loss '
            f"{either(config.DRAWN_LOSSES)}"
        )
    if drawn and loss.mining != "none":
        return (
            f"loss.mining is {loss.mining}, but can't act: drawn triplets are not searched; give "
            "--set batch.kind=pk or --set loss.mining=none"
        )
    if settings.model.tune != "head" and optim.head_epochs >= optim.epochs:
        return (
            f"optim.head_epochs is {optim.head_epochs} of {optim.epochs} epochs: nothing of the "
            "backbone would learn; give fewer, or --tune head"
        )
    if watch.val_share and 0 < watch.patience < watch.every:
        return (
            f"watch.patience is {watch.patience}, shorter than from one validation to the next "
            f"(watch.every is {watch.every}); give as many epochs or more"
        )
    return ""


def refuse_unread(settings: TrainConfig, asked: Collection[str]) -> None:
    """Raise where an option that a person asked for is not read by the loss or the batches chosen.

    A recipe may hold such options: they wait for another loss.

    Args:
        asked: `section.key` of each option that was given by hand.

    Raises:
        ConfigError: naming the option, and what is read instead.
    """
    idle = unread(settings)
    for name in asked:
        if name in idle:
            raise ConfigError(f"{name} can't act: {idle[name]}")


def unread(settings: TrainConfig) -> dict[str, str]:
    """Tell which options the loss, the batches and the watch chosen do not read, and why."""
    return dict(_unread(settings))


def _options(settings: TrainConfig, *, transformer: bool) -> Iterator[Option]:
    model, n_last = settings.model, check_tune(settings.model.tune)
    if model.tune == "head":
        frozen = "the backbone is frozen (tune head)"
        yield Option("optim.head_epochs", 0, frozen)
        yield Option("optim.backbone_lr", 0.0, frozen)
        yield Option("run.compile", False, "the head works on cached vectors (tune head)")
        yield Option("run.checkpointing", False, frozen)
    if model.tune == "head" or n_last == 1:
        single = "one block alone learns (tune last:1)"
        yield Option("optim.layer_decay", 1.0, single if n_last else "the backbone is frozen")
    if not model.standardised:
        raw = 'pooled vectors are not standardised (model.standardise = "on" does so)'
        yield Option("model.pca", 0, raw)
    if not model.pca:
        yield Option("model.fusion", 0.0, "no principal axes are taken (model.pca)")
    if not transformer:
        alone = "musicnn is no transformer"
        yield Option("augment.patchout", 0.0, alone)
        yield Option("run.checkpointing", False, alone)
        if n_last:
            yield Option("run.compile", False, f"{alone}, whose blocks are compiled apart")
    yield from _augmentations(model.tune)


def _augmentations(tune: str) -> Iterator[Option]:
    """Options of `[augment]`; what each source of chunks refuses too, told before it is built."""
    where = {"head": "cached vectors", "last": "cached activations"}.get(tune.partition(":")[0])
    reason = f"the network learns on {where} (tune {tune})"
    why = dict.fromkeys(inputs.ON_FEATURES, reason) if where else {}
    if tune == "head":
        why["patchout"] = "no token passes the head (tune head)"
    else:
        alone = "it acts on the cached vectors of tune head alone"
        why |= dict.fromkeys(inputs.ON_VECTORS, alone)
    for name, reason in why.items():
        yield Option(f"augment.{name}", getattr(AugmentConfig(), name), reason)


def _unread(settings: TrainConfig) -> Iterator[tuple[str, str]]:
    loss, batch = settings.loss.name, settings.batch.kind
    mines = loss in config.MINING_LOSSES
    reads = (*_READS[loss], "mining") if mines and batch == "pk" else _READS[loss]
    why = f"loss {loss} reads {either(reads)}"
    for key in sorted({key for keys in _READS.values() for key in keys} - set(reads)):
        yield f"loss.{key}", why
    if "mining" not in reads:
        drawn = "drawn triplets are not searched (batch.kind)"
        yield "loss.mining", drawn if mines else why
    for kind, keys in _BATCHES.items():
        for key in keys if kind != batch else ():
            yield f"batch.{key}", f"batches of kind '{batch}' read {either(_BATCHES[batch])}"
    if settings.model.tune != "lora":
        yield "model.lora_rank", f"it is of adapters, and tune is '{settings.model.tune}'"
    if not settings.watch.val_share:
        for key in ("patience", "every"):
            yield f"watch.{key}", "nothing is held out for validation (watch.val_share)"


def _check_layer(model: ModelConfig, backbone: Backbone) -> None:
    """Refuse a layer that there is not, or that the last N blocks do not reach."""
    backbone.check_layer(model.layer)
    n_last = check_tune(model.tune)
    if not n_last:
        return
    if n_last > backbone.n_blocks:
        raise ConfigError(
            f"tune is '{model.tune}', but {backbone.kind} has {backbone.n_blocks} blocks to tune "
            "apart; choose fewer, or --tune head or full"
        )
    if model.layer % backbone.n_blocks < backbone.n_blocks - n_last:
        raise ConfigError(
            f"layer {model.layer} lies below the last {n_last} of {backbone.n_blocks} blocks, so "
            f"that nothing of them would be used; choose --set model.layer=-1, or a larger N"
        )


def at_rest(
    settings: TrainConfig, asked: Collection[str], *, transformer: bool
) -> tuple[TrainConfig, tuple[str, ...]]:
    """Lay options to rest that can't act and that nobody asked for; return their names too."""
    laid: list[str] = []
    while True:
        found = asleep(settings, transformer=transformer)
        option = next((option for option in found if option.name not in asked), None)
        if option is None:
            return settings, tuple(laid)
        section, _, key = option.name.partition(".")
        settings = config.replace(settings, section, **{key: option.rest})
        laid.append(option.name)
