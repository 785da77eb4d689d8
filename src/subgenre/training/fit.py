"""Training tracks -> a trained encoder; it writes nothing but checkpoints and the cache."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from subgenre import losses, metrics
from subgenre.config import ModelConfig, RunConfig, TrainConfig
from subgenre.core import hardware
from subgenre.core.progress import Console, Silent
from subgenre.core.shards import Shard
from subgenre.core.validation import check_tune
from subgenre.dataset import splits, track_vectors
from subgenre.dataset.folder import FeatureFolder
from subgenre.errors import FeatureError
from subgenre.models import backbones, embedding, engines, lora
from subgenre.models.backbones import Backbone
from subgenre.models.cache import CACHE
from subgenre.models.encoder import Encoder, standardise
from subgenre.training import batches, distributed, inputs
from subgenre.training.compatibility import check_compatibility
from subgenre.training.distributed import Group
from subgenre.training.inputs import ActivationSource, FeatureSource, Source, VectorSource
from subgenre.training.messages import report_estimate, training_progress
from subgenre.training.run_state import Callbacks, Epoch, Result
from subgenre.training.trainer import Trainer


@dataclass(frozen=True)
class Fitted:
    """A trained encoder, in eval mode.

    `pooled`: backbone outputs [n, H] of all chunks of the folder; None if the backbone learnt or
    some chunks were left out.
    """

    encoder: Encoder
    result: Result
    pooled: NDArray[np.float32] | None


def load_backbone(
    name: str, folder: FeatureFolder, run: RunConfig | None = None, console: Console | None = None
) -> Backbone:
    """Load a backbone and select its engine.

    Raises:
        FeatureError: the features are made for another front end.
        BackboneError: as `backbones.load`. ConfigError, MissingExtraError: as `engines.select`.
    """
    if backbones.feature_spec(name) != folder.spec:
        raise FeatureError(
            f"the features in {folder.path} are made for {folder.backbone}, not for {name}: leave "
            f"out --backbone, or run `subgenre preprocess --backbone {name} --out OTHER` first"
        )
    backbone = backbones.load(name)
    run = run or RunConfig()
    device = hardware.pick_device(run.device)
    engines.select(backbone, run.engine, folder.config, device=device, console=console or Silent())
    return backbone


def new_encoder(
    backbone: Backbone,
    settings: ModelConfig,
    folder: FeatureFolder,
    rows: NDArray[np.int64],
    seed: int,
) -> Encoder:
    """Build the encoder on a pretrained backbone; the seed draws the head's first weights.

    `rows`: chunks of the training tracks, for the statistics of the input.
    """
    encoder = Encoder(
        backbone,
        layer=settings.layer,
        pooling=settings.pooling,
        head=settings.head,
        embedding_size=settings.embedding_size,
        dropout=settings.dropout,
        pca=settings.pca,
        fusion=settings.fusion,
        centre=settings.centre,
        generator=torch.Generator().manual_seed(seed),
    )
    encoder.set_statistics(folder.statistics(rows))
    return encoder


@hardware.clear_memory_errors()
def fit(
    folder: FeatureFolder,
    train_ids: Iterable[str],
    settings: TrainConfig,
    *,
    backbone: Backbone | None = None,
    device: torch.device | None = None,
    group: Group | None = None,
    checkpoints: Path | None = None,
    resume: Path | None = None,
    fingerprint: Mapping[str, str] | None = None,
    stop_requested: Callable[[], bool] = lambda: False,
    track: Callable[[Epoch], None] = lambda _: None,
    only: NDArray[np.int64] | None = None,
    console: Console | None = None,
) -> Fitted:
    """Train an encoder on some tracks of a feature folder.

    Args:
        backbone: already loaded, and not changed; by default `settings.model.backbone` is loaded.
        checkpoints, resume, fingerprint: see `Trainer`.
        stop_requested: called between steps. track: called with each finished epoch.
        only: rows of the chunks to use; by default all.

    Raises:
        ConfigError: options that have no effect here, or contradict each other.
        BackboneError, FeatureError, SplitError, TrainingError, CheckpointError.
    """
    console, group, ids = console or Silent(), group or Group(), tuple(train_ids)
    device = device or hardware.pick_device(settings.run.device)
    if backbone is None:
        backbone = load_backbone(settings.model.backbone, folder, settings.run, console)
        console.info(f"backbone {backbone.source}; licence of its weights: {backbone.licence}")
    elif settings.model.tune != "head":
        backbone = copy.deepcopy(backbone)  # training would change the caller's
    check_compatibility(settings, backbone)
    chunks = np.arange(len(folder.track_of)) if only is None else np.unique(only)
    rows = np.intersect1d(folder.rows(ids), chunks)
    encoder = new_encoder(backbone, settings.model, folder, rows, settings.run.seed)
    fit_ids, val_ids = _hold_out(folder, ids, settings, chunks, console)
    table = batches.learnt_chunks(folder, fit_ids, settings.batch, settings.loss.name, only=only)
    source, pooled = _source(encoder, folder, rows, chunks, settings, device, group, console)
    if settings.model.tune == "lora":
        lora.add(backbone, rank=settings.model.lora_rank, seed=settings.run.seed)
    on_estimate = partial(
        report_estimate, console=console, settings=settings, device=device, backbone=backbone
    )
    loss = losses.build(
        settings.loss,
        n_labels=len(folder.labels),
        embedding_size=settings.model.embedding_size,
        label_genre=torch.from_numpy(np.unique(folder.genres, return_inverse=True)[1]),
        seed=settings.run.seed,
    )
    with training_progress(console, settings.optim.epochs) as (on_step, show):

        def on_epoch(row: Epoch) -> None:
            show(row)
            track(row)

        trainer = Trainer(
            encoder,
            loss,
            source,
            table,
            settings,
            device=device,
            validate=_validation(encoder, source, folder, val_ids, chunks, device),
            group=group,
            folder=checkpoints,
            fingerprint=fingerprint or {},
            callbacks=Callbacks(on_estimate, on_step, on_epoch, stop_requested),
        )
        result = trainer.run(resume=resume)
    if encoder.structure.centre:
        encoder.set_centre(inputs.mean_vector(source, encoder, rows, device=device)[None])
    lora.merge(encoder.backbone)
    encoder.eval()
    return Fitted(encoder, result, pooled if only is None else None)


def _hold_out(
    folder: FeatureFolder,
    ids: tuple[str, ...],
    settings: TrainConfig,
    chunks: NDArray[np.int64],
    console: Console,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split off the validation tracks of the recipe; return both sides."""
    share = settings.watch.val_share
    if not share:
        return ids, ()
    run, known = settings.run, set(ids)
    tracks = [track for track in folder.tracks if track.id in known]
    inner = splits.validation(
        tracks, ids, share=share, seed=run.seed, strict_groups=run.strict_groups
    )
    rows = np.intersect1d(folder.rows(inner.test), chunks)
    first = np.unique(folder.track_of[rows], return_index=True)[1]
    splits.check_validation(folder.label_of[rows[first]], share)
    console.info(f"validation: {len(inner.test)} of {len(ids)} training tracks choose the epoch")
    for warning in inner.warnings:
        console.warn(warning)
    return inner.train, inner.test


def _source(
    encoder: Encoder,
    folder: FeatureFolder,
    rows: NDArray[np.int64],
    chunks: NDArray[np.int64],
    settings: TrainConfig,
    device: torch.device,
    group: Group,
    console: Console,
) -> tuple[Source, NDArray[np.float32] | None]:
    """Choose the input of a step: cached vectors, cached activations, or log-mels.

    Where only some chunks are used, the frozen blocks of `last:N` run in each step.
    """
    model = settings.model
    n_last = check_tune(model.tune)
    pooled = None
    if model.tune == "head" or model.standardised:
        pooled = distributed.in_shares(
            lambda shard: _pooled(encoder, folder, chunks, device, shard, console), group, device
        )
        if model.standardised:
            learns = model.tune != "head"
            standardise(encoder, pooled, np.searchsorted(chunks, rows), backbone_learns=learns)
        if model.tune == "head":
            source = VectorSource(chunks, pooled, settings.augment, train_rows=rows, device=device)
            return source, pooled
    if n_last and len(chunks) == len(folder.track_of):
        hidden = distributed.in_shares(
            lambda shard: _activations(encoder, folder, n_last, device, shard, console),
            group,
            device,
        )
        return ActivationSource(chunks, hidden, n_last, settings.augment), None
    return FeatureSource(folder, chunks, settings.augment), None


def _pooled(
    encoder: Encoder,
    folder: FeatureFolder,
    chunks: NDArray[np.int64],
    device: torch.device,
    shard: Shard | None,
    console: Console,
) -> NDArray[np.float32]:
    """Return the frozen backbone's pooled output of the chunks, cached: [n, H]."""
    cache = folder.path / CACHE
    with console.progress("backbone") as bar:
        return embedding.pooled_vectors(
            encoder, folder, chunks, cache=cache, device=device, on_progress=bar, shard=shard
        )


def _activations(
    encoder: Encoder,
    folder: FeatureFolder,
    n_last: int,
    device: torch.device,
    shard: Shard | None,
    console: Console,
) -> NDArray[np.float16]:
    """Return the frozen blocks' output of all chunks, cached."""
    cache = folder.path / CACHE
    with console.progress("frozen blocks") as bar:
        hidden = embedding.frozen_activations(
            encoder, folder, n_last, cache=cache, device=device, on_progress=bar, shard=shard
        )
    if shard is None:
        console.info(
            f"frozen blocks: {hidden.nbytes / 2**30:.2g} GB kept in {cache}; delete it when no "
            "training runs"
        )
    return hidden


def _validation(
    encoder: Encoder,
    source: Source,
    folder: FeatureFolder,
    ids: tuple[str, ...],
    chunks: NDArray[np.int64],
    device: torch.device,
) -> Callable[[], float] | None:
    """Return a function that computes MAP@R among the validation tracks; None without any."""
    rows = np.intersect1d(folder.rows(ids), chunks)
    if not len(rows):
        return None
    track = folder.track_of[rows]
    label = dict(zip(track.tolist(), folder.label_of[rows].tolist(), strict=True))

    def score() -> float:
        chunks = inputs.encode_rows(source, encoder, rows, device=device)
        tracks, vectors = track_vectors.track_vectors(chunks, track)
        return metrics.map_at_r(vectors, np.array([label[int(t)] for t in tracks]))

    return score
