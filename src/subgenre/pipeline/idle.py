"""Options that could not act on the chosen backbone or cache are refused before any work."""

from __future__ import annotations

from subgenre import lora
from subgenre.backbones import Backbone
from subgenre.checks import check_tune
from subgenre.config import ModelConfig, TrainConfig
from subgenre.errors import ConfigError
from subgenre.store import FeatureFolder


def refuse_idle(settings: TrainConfig, backbone: Backbone, folder: FeatureFolder) -> None:
    """Raise where an option would be read by nothing, and say which and why.

    What acts on features or on cached vectors alone is refused by `sources`, as it is built.

    Raises:
        ConfigError: naming the option and what to set it to.
        MissingExtraError: adapters are asked for, and peft is not installed.
    """
    if settings.model.tune == "lora":
        lora.check(backbone)
    model, optim, run = settings.model, settings.optim, settings.run
    if model.tune == "head":
        frozen = "the backbone is frozen (tune head)"
        _refuse("optim.head_epochs", optim.head_epochs, 0, frozen)
        _refuse("optim.backbone_lr", optim.backbone_lr, 0.0, frozen)
        _refuse("optim.layer_decay", optim.layer_decay, 1.0, frozen)
        _refuse("run.compile", run.compile, False, "the head works on cached vectors (tune head)")
        _refuse("run.checkpointing", run.checkpointing, False, frozen)
    if check_tune(model.tune) == 1:
        _refuse("optim.layer_decay", optim.layer_decay, 1.0, "one block alone learns (tune last:1)")
    if not model.standardised:
        raw = 'pooled vectors are not standardised (model.standardise = "on" does so)'
        _refuse("model.pca", model.pca, 0, raw)
    if not model.pca:
        _refuse("model.fusion", model.fusion, 0, "no principal axes are taken (model.pca)")
    if not backbone.transformer:
        alone = f"{backbone.kind} is no transformer"
        _refuse("augment.patchout", settings.augment.patchout, 0.0, alone)
        _refuse("run.checkpointing", run.checkpointing, False, alone)
        if check_tune(model.tune):
            _refuse("run.compile", run.compile, False, f"{alone}, whose blocks are compiled apart")
    if folder.config.window_s <= folder.config.chunk_s:
        window = (
            f"chunks of {folder.config.chunk_s:g} s are stored as they are (preprocess with "
            "--store-s to keep a longer window)"
        )
        _refuse("augment.crop", settings.augment.crop, False, window)
    _check_last(model, backbone)


def _refuse(name: str, value: object, idle: object, why: str) -> None:
    if value != idle:
        text = str(idle).lower()
        raise ConfigError(f"{name} is {value}, but can't act: {why}; give --set {name}={text}")


def _check_last(model: ModelConfig, backbone: Backbone) -> None:
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
    if isinstance(model.layer, str):
        raise ConfigError(
            f"layer is '{model.layer}', which needs every block; with tune '{model.tune}' choose "
            "one layer (--set model.layer=-1), or tune head or full"
        )
    if model.layer % backbone.n_blocks < backbone.n_blocks - n_last:
        raise ConfigError(
            f"layer {model.layer} lies below the last {n_last} of {backbone.n_blocks} blocks, so "
            f"that nothing of them would be used; choose --set model.layer=-1, or a larger N"
        )
