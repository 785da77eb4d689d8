"""The options that have an effect with each other, and what a library lacks for a recipe.

An option of `RULES` is refused if it is set without effect, one of `unread` only if the user gave
it: a recipe may set it for another loss.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection

import numpy as np

from subgenre import config
from subgenre.audio.measures import SILENT
from subgenre.config import LOSSES, BatchConfig, TrainConfig
from subgenre.core.validation import check_tune, either
from subgenre.dataset.folder import FeatureFolder
from subgenre.errors import ConfigError, FeatureError
from subgenre.models import lora
from subgenre.models.backbones import Backbone, Traits


def _kind(settings: TrainConfig) -> str:
    return settings.model.tune.partition(":")[0]


# A condition on the settings and on the backbone; the reason why, where it does not hold, the
# options have no effect. An option comes after those that it depends on.
RULES: tuple[tuple[Callable[[TrainConfig, Traits], bool], str, tuple[str, ...]], ...] = (
    (
        lambda s, _: _kind(s) != "head",
        "the backbone is frozen (tune head)",
        (
            "optim.head_epochs",
            "optim.backbone_lr",
            "optim.layer_decay",
            "run.compile",
            "run.checkpointing",
            "augment.patchout",
        ),
    ),
    (
        lambda s, _: s.model.tune != "last:1",
        "one block alone learns (tune last:1)",
        ("optim.layer_decay",),
    ),
    (
        lambda _, traits: traits.transformer,
        "the backbone is no transformer",
        ("augment.patchout", "run.checkpointing"),
    ),
    (
        lambda _, traits: traits.drops_tokens or not traits.transformer,
        "the windows of the backbone need all tokens",
        ("augment.patchout",),
    ),
    (
        lambda _, traits: traits.bands,
        "the features are samples, which have no bands",
        ("augment.freq_mask",),
    ),
    (
        lambda _, traits: traits.level,
        "the samples of each chunk are scaled to variance 1",
        ("augment.gain_db",),
    ),
    (
        lambda s, traits: traits.transformer or _kind(s) != "last",
        "the blocks of a backbone that is no transformer are not compiled one by one",
        ("run.compile",),
    ),
    (
        lambda s, _: _kind(s) in ("full", "lora"),
        "the network learns on cached values (tune head and last:N)",
        ("augment.time_mask", "augment.freq_mask", "augment.gain_db"),
    ),
    (
        lambda s, _: _kind(s) == "head",
        "only tune head learns on cached vectors",
        ("augment.vector_noise",),
    ),
    (
        lambda s, _: s.model.standardised,
        'pooled vectors are not standardised (model.standardise = "on" does so)',
        ("model.pca",),
    ),
    (lambda s, _: s.model.pca > 0, "there are no principal axes (model.pca)", ("model.fusion",)),
    (
        lambda s, _: s.batch.kind == "pk",
        "drawn triplets are not mined (batch.kind=pk searches batches)",
        ("loss.mining",),
    ),
)
BATCH_OPTIONS = {"triplet": ("size",), "pk": ("subgenres", "tracks", "chunks", "same_genre")}


def without_effect(settings: TrainConfig, *, traits: Traits) -> dict[str, str]:
    """Return the options of `RULES` that are set without effect, each with the reason."""
    defaults = TrainConfig()
    return {
        option: reason
        for has_effect, reason, options in RULES
        if not has_effect(settings, traits)
        for option in options
        if config.value(settings, option) != config.value(defaults, option)
    }


def unread(settings: TrainConfig) -> dict[str, str]:
    """Return the options that the loss, the batches and the validation do not read, and why."""
    loss, kind = settings.loss.name, settings.batch.kind
    reads = (*LOSSES[loss].reads, *(("mining",) if LOSSES[loss].triplets else ()))
    every = {"mining", *(key for other in LOSSES.values() for key in other.reads)}
    reasons = {f"loss.{key}": f"loss {loss} reads {either(reads)}" for key in every - {*reads}}
    unread_batch = BATCH_OPTIONS["pk" if kind == "triplet" else "triplet"]
    reason = f"batches of kind '{kind}' read {either(BATCH_OPTIONS[kind])}"
    reasons |= dict.fromkeys((f"batch.{key}" for key in unread_batch), reason)
    if settings.model.tune != "lora":
        reasons["model.lora_rank"] = f"only tune lora has adapters; tune is {settings.model.tune}"
    if not settings.watch.val_share:
        reason = "there are no validation tracks (watch.val_share)"
        reasons |= dict.fromkeys(("watch.patience", "watch.every"), reason)
    return reasons


def disable_unused(
    settings: TrainConfig, *, traits: Traits, given: Collection[str] = ()
) -> tuple[TrainConfig, tuple[str, ...]]:
    """Set options without effect to their default, unless `given`; return their names too."""
    disabled = []
    for _, _, options in RULES:
        for option in options:
            if option in without_effect(settings, traits=traits) and option not in given:
                default = config.value(TrainConfig(), option)
                settings = config.override(settings, {option: default})
                disabled.append(option)
    return settings, tuple(disabled)


def check_settings(settings: TrainConfig, *, traits: Traits, given: Collection[str] = ()) -> None:
    """Refuse options that contradict each other or have no effect, before a training starts.

    `given`: `section.key` of the options that the user gave by hand.
    """
    loss, optim, watch = settings.loss, settings.optim, settings.watch
    drawn = tuple(name for name, kind in LOSSES.items() if kind.triplets)
    if settings.batch.kind == "triplet" and loss.name not in drawn:
        raise ConfigError(
            f"loss '{loss.name}' compares whole batches, not drawn triplets; give --set "
            f"batch.kind=pk, or choose the loss {either(drawn)}"
        )
    if settings.model.tune != "head" and optim.head_epochs >= optim.epochs:
        raise ConfigError(
            f"optim.head_epochs is {optim.head_epochs} of {optim.epochs} epochs, so nothing of the "
            "backbone would learn; give fewer, or --tune head"
        )
    if watch.val_share and 0 < watch.patience < watch.every:
        raise ConfigError(
            f"watch.patience is {watch.patience}, shorter than from one validation to the next "
            f"(watch.every is {watch.every}); give as many epochs or more"
        )
    for option, reason in unread(settings).items():
        if option in given:
            raise ConfigError(f"{option} has no effect: {reason}")
    for option, reason in without_effect(settings, traits=traits).items():
        raise ConfigError(
            f"{option} is {config.value(settings, option)}, but has no effect: {reason}; give "
            f"--set {option}={str(config.value(TrainConfig(), option)).lower()}"
        )


def check_compatibility(settings: TrainConfig, backbone: Backbone) -> None:
    """Refuse settings that can't be trained on this backbone, before any work.

    Raises:
        ConfigError, MissingExtraError: with the option and what to set or install.
    """
    model, n_last, n_blocks = settings.model, check_tune(settings.model.tune), backbone.n_blocks
    if model.tune == "lora":
        lora.check(backbone)
    check_settings(settings, traits=backbone.traits)
    backbone.check_layer(model.layer)
    if n_last and not (1 < n_blocks >= n_last):
        raise ConfigError(
            f"tune is '{model.tune}', but {backbone.kind} has {n_blocks} blocks to tune; choose "
            "fewer, or --tune head or full"
        )
    if n_last and model.layer % n_blocks < n_blocks - n_last:
        raise ConfigError(
            f"layer {model.layer} lies below the last {n_last} of {n_blocks} blocks, so they "
            "would have no effect; give --set model.layer=-1, or a larger N"
        )
    backbone.check_pooling(model.pooling)


def missing_material(folder: FeatureFolder, settings: TrainConfig) -> list[str]:
    """Return a sentence for each thing that the recipe needs and the library does not have.

    Raises:
        FeatureError: all tracks are silent, or all features are the same.
    """
    batch, genres = settings.batch, Counter(folder.genres)
    same_genre = batch.same_genre if batch.kind == "pk" else 0.0
    found = []
    if settings.loss.name == "quadruplet" and not folder.trash:
        none = "no trash pool in these features"
        if len(genres) < 2:
            found.append(f"{none}, and there is one genre: quadruplets have no fourth chunk")
        elif same_genre == 1 and max(genres.values()) > 1:
            found.append(f"{none}, and batch.same_genre is 1: quadruplets have no fourth chunk")
        else:
            found.append(f"{none}: quadruplets take chunks of other genres instead")
    pairs = zip(folder.labels, folder.genres, strict=True)
    alone = [label for label, genre in pairs if genres[genre] == 1]
    if same_genre and len(alone) == len(folder.labels):
        found.append(
            "no genre has two subgenres: batch.same_genre has no effect, each batch is drawn "
            "across genres"
        )
    elif same_genre == 1 and alone:
        found.append(
            f"batch.same_genre is 1, so nothing is learnt of {', '.join(alone)}: alone in their "
            "genre; give less than 1"
        )
    return found + _silent_tracks(folder) + _oversized_batches(folder, batch)


def _silent_tracks(folder: FeatureFolder) -> list[str]:
    """Warn of silent tracks and of equal features, and refuse a library of nothing else."""
    rows = np.flatnonzero(folder.label_of >= 0)
    quiet, *values = (folder.chunks[c].to_numpy()[rows] for c in ("silent_share", "mean", "m2"))
    count, track_of = len(folder.tracks), folder.track_of[rows]
    silent = int((np.bincount(track_of, quiet) >= SILENT * np.bincount(track_of)).sum())
    if silent == count:
        raise FeatureError(
            f"all {count} tracks are silent (below -60 dBFS), so there is nothing to learn; check "
            "the recordings and run `subgenre preprocess` again"
        )
    if len(set(zip(*(column.tolist() for column in values), strict=True))) == 1:
        raise FeatureError(
            f"the features of all {len(rows)} chunks are the same, so there is nothing to learn; "
            "check that the recordings differ and run `subgenre preprocess` again"
        )
    if silent:
        return [f"silent tracks: {silent} of {count}; `subgenre doctor` lists them"]
    return []


def _oversized_batches(folder: FeatureFolder, batch: BatchConfig) -> list[str]:
    """Warn of batches larger than the library, if the size is not one of a packaged recipe."""
    packaged = [BatchConfig(), *(config.load_recipe(name).batch for name in config.recipe_names())]
    per_label = Counter((track.genre, track.subgenre) for track in folder.tracks)
    available = {
        "size": (int((folder.label_of >= 0).sum()), "chunks, a triplet of each"),
        "subgenres": (len(per_label), "subgenres"),
        "tracks": (max(per_label.values(), default=0), "tracks in the largest subgenre"),
        "chunks": (int(np.bincount(folder.track_of).max(initial=0)), "chunks of a track at most"),
    }
    found = []
    for key in [key for key in BATCH_OPTIONS[batch.kind] if key in available]:
        size, (n, what) = getattr(batch, key), available[key]
        if size > n and size not in (getattr(usual, key) for usual in packaged):
            found.append(f"batch.{key} is {size}, but there are {n} {what}: a batch has no more")
    return found
