"""Chunks and files to vectors: by the whole encoder, or by its frozen part, kept on disk."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from subgenre.audio.features import Statistics
from subgenre.core.shards import Shard
from subgenre.dataset.folder import FeatureFolder
from subgenre.errors import BackboneError, ConfigError
from subgenre.models import engines
from subgenre.models.backbones import Backbone
from subgenre.models.cache import ArrayCache
from subgenre.models.cache import key as cache_key
from subgenre.models.encoder import Encoder, backbone_fingerprint, evaluating

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Device = torch.device | str
Progress = Callable[[int, int], None]

GPU_BATCH = 16  # chunks
CPU_BATCH = 2  # more spills the caches, and each layer allocates its memory anew
_SPARE = 2**30  # bytes that are left free on the disk


def chunk_vectors(
    encoder: Encoder,
    folder: FeatureFolder,
    rows: ArrayLike,
    *,
    device: Device = "cpu",
    batch_size: int = 0,
    on_progress: Progress | None = None,
) -> Floats:
    """Encode chunks of a feature folder: float32 [n, D], unit norm, in the order of `rows`.

    The encoder moves to `device` and stays there; its mode comes back as it was.
    """
    pooled = engines.Frozen(encoder, encoder.pooled)
    requested = np.asarray(rows, dtype=np.int64)
    batch_size = batch_size or _batch_size(device)
    out = np.empty((len(requested), encoder.size), np.float32)
    with evaluating(encoder, device):
        for at in range(0, len(requested), batch_size):
            some = requested[at : at + batch_size]
            out[at : at + len(some)] = _run(
                lambda features: encoder.project(pooled(features)), folder, some, device
            )
            if on_progress:
                on_progress(at + len(some), len(requested))
    return out


def pooled_vectors(
    encoder: Encoder | Backbone,
    folder: FeatureFolder,
    rows: ArrayLike,
    *,
    cache: Path,
    device: Device = "cpu",
    batch_size: int = 0,
    on_progress: Progress | None = None,
    statistics: Statistics | None = None,
    known: Floats | None = None,
    shard: Shard | None = None,
) -> Floats:
    """Run the backbone and pool, before standardisation: float32 [n, H], in the order of `rows`.

    Args:
        encoder: or a backbone alone: mean of its last layer.
        folder, rows: the chunks.
        cache: folder where the vectors are kept; only those that are missing are computed.
        device, batch_size: where, and how many chunks at a time; 0: as many as suit the device.
        on_progress: called with the number of rows that are done, and of all.
        statistics: of the training side, for a backbone alone that normalises its input.
        known: the vectors of the first chunks of the folder, which are not computed again.
        shard: compute only its share; the others are not in the result, see `ArrayCache.fill`.

    Raises:
        ConfigError: a backbone alone, without the statistics that it needs.
    """
    whole = _around(encoder, statistics)
    requested = np.asarray(rows, dtype=np.int64)
    parts = {"layer": whole.structure.layer, "pooling": whole.structure.pooling}
    key = _key(whole, folder, device, **parts)
    shape = (len(folder.track_of), *whole.pooled_mean.shape)
    pooled = engines.Frozen(whole, whole.pooled)

    def compute(some: Ints) -> Floats:
        if known is not None and some.max() < len(known):
            return known[some]
        return _run(pooled, folder, some, device)

    with evaluating(whole, device):
        vectors = ArrayCache(cache, key, shape, np.float32).fill(
            np.unique(requested),
            compute,
            batch_size=batch_size or _batch_size(device),
            shard=shard,
            on_progress=on_progress,
        )
    everything = np.array_equal(requested, np.arange(len(vectors)))
    return vectors if everything else vectors[requested]


def layer_vectors(
    backbone: Backbone,
    folder: FeatureFolder,
    *,
    cache: Path,
    device: Device = "cpu",
    on_progress: Progress | None = None,
    statistics: Statistics,
) -> Floats:
    """Run the backbone once and pool each layer that can be chosen: float32 [n, L, H], -L to -1.

    Args: as of `pooled_vectors`; all chunks of the folder.
    """
    whole = _around(backbone, statistics)

    def pooled(features: Tensor) -> Tensor:
        tokens = backbone.layers(whole.inputs(features))
        return torch.stack([backbone.pool(layer) for layer in tokens], dim=1)

    each = engines.Frozen(whole, pooled)

    def compute(some: Ints) -> Floats:
        return _run(each, folder, some, device)

    with evaluating(whole, device):
        every = np.arange(len(folder.track_of))
        shape = (len(every), *compute(every[:1]).shape[1:])
        key = _key(whole, folder, device, layers="each")
        return ArrayCache(cache, key, shape, np.float32).fill(
            every, compute, batch_size=_batch_size(device), on_progress=on_progress
        )


def frozen_activations(
    encoder: Encoder,
    folder: FeatureFolder,
    n_last: int,
    *,
    cache: Path,
    device: Device = "cpu",
    batch_size: int = 8,
    on_progress: Progress | None = None,
    shard: Shard | None = None,
) -> NDArray[np.float16]:
    """Return the input of the last `n_last` blocks for every chunk of a feature folder.

    Args:
        encoder: its backbone as it is before training.
        folder: the chunks; row i of the array is row i of the folder.
        n_last: blocks that will learn.
        cache: folder where the array is kept; only the rows that are missing are computed.
        device, batch_size: where, and how many chunks at a time.
        on_progress: called with the number of chunks that are done, and of all.
        shard: as of `pooled_vectors`.

    Returns:
        float16 [n, S, H], a read-only memory map: the whole array never lies in memory.

    Raises:
        ConfigError: the disk has no room for it, or the backbone no such blocks.
    """
    largest = float(np.finfo(np.float16).max)
    prefix = engines.Frozen(encoder, lambda features: encoder.prefix(features, n_last))

    def compute(rows: Ints) -> Floats:
        hidden = _run(prefix, folder, rows, device)
        return hidden.clip(-largest, largest)

    def check_room(size: int) -> None:
        free = shutil.disk_usage(cache).free
        if size + _SPARE > free:
            raise ConfigError(
                f"tune last:{n_last} keeps {size / 2**30:.1f} GB of activations in {cache}, where "
                f"{free / 2**30:.1f} GB are free; make room, or choose --tune head or full"
            )

    with evaluating(encoder, device):
        shape = (len(folder.track_of), *compute(np.arange(1)).shape[1:])
        key = _key(encoder, folder, device, last=n_last)
        return ArrayCache(cache, key, shape, np.float16).fill(
            np.arange(len(folder.track_of)),
            compute,
            batch_size=batch_size,
            shard=shard,
            check_room=check_room,
            on_progress=on_progress,
        )


def project_vectors(encoder: Encoder, pooled: ArrayLike, *, device: Device = "cpu") -> Floats:
    """Run the head on pooled vectors: [n, H] -> float32 [n, D], unit norm."""
    values = np.asarray(pooled, dtype=np.float32)
    out = np.empty((len(values), encoder.size), np.float32)
    with evaluating(encoder, device), torch.inference_mode():
        for at in range(0, len(values), 4096):
            part = torch.tensor(values[at : at + 4096], device=device)
            out[at : at + len(part)] = encoder.project(part).cpu().numpy()
    return out


def _batch_size(device: Device) -> int:
    return CPU_BATCH if torch.device(device).type == "cpu" else GPU_BATCH


def _run(
    network: Callable[[Tensor], Tensor], folder: FeatureFolder, rows: Ints, device: Device
) -> Floats:
    """Load some chunks and run the network on them.

    Raises:
        BackboneError: a value is not finite.
    """
    with torch.inference_mode():
        output: Floats = network(folder.load(rows).to(device)).float().cpu().numpy()
    bad = np.flatnonzero(~np.isfinite(output.reshape(len(rows), -1)).all(axis=1))
    if len(bad):
        file = folder.chunks["file"][int(rows[bad[0]])].as_py()
        raise BackboneError(
            f"the network gives values that are not finite for {folder.path / file}; its weights "
            "are damaged: copy or download them again, or train again"
        )
    return output


def _around(encoder: Encoder | Backbone, statistics: Statistics | None) -> Encoder:
    """Return an encoder around a backbone alone; its head is not used."""
    if isinstance(encoder, Encoder):
        return encoder
    whole = Encoder(encoder, head=(), embedding_size=2, generator=torch.Generator())
    if statistics is not None:
        whole.set_statistics(statistics)
    elif encoder.spec.normalise != "none":
        raise ConfigError(
            f"the {encoder.kind} backbone needs normalised input: give an Encoder, or `statistics` "
            "of the training chunks"
        )
    return whole


def _key(encoder: Encoder, folder: FeatureFolder, device: Device, **parts: Any) -> str:
    """Hash everything that the values of a chunk follow from."""
    normal = encoder.backbone.spec.normalise != "none"
    if engine := engines.precision(encoder.backbone.engine, device):
        parts["engine"] = engine
    return cache_key(
        backbone=backbone_fingerprint(encoder.backbone),
        features=folder.fingerprint,
        statistics=[float(encoder.mean), float(encoder.std)] if normal else None,
        **parts,
    )
