"""Chunks and files to vectors: by the whole encoder, or by its frozen part, kept on disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from subgenre.audio.features import Statistics
from subgenre.dataset.folder import FeatureFolder
from subgenre.dataset.track_vectors import (
    Embeddings,
    frozen_track_vectors,
    read_embeddings,
    standardisation,
    standardised,
    track_vectors,
    write_embeddings,
)
from subgenre.errors import ConfigError
from subgenre.models import cache as pooled_cache
from subgenre.models.backbones import Backbone
from subgenre.models.cache import Cached
from subgenre.models.encoder import Encoder, backbone_fingerprint, evaluating
from subgenre.models.file_embedding import FileVectors, embed_each, embed_files

__all__ = [
    "Embeddings",
    "FileVectors",
    "chunk_vectors",
    "embed_each",
    "embed_files",
    "frozen_track_vectors",
    "pooled_vectors",
    "project_vectors",
    "read_embeddings",
    "standardisation",
    "standardised",
    "track_vectors",
    "write_embeddings",
]

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Device = torch.device | str
Progress = Callable[[int, int], None]

GPU_BATCH = 16
CPU_BATCH = 2  # more spills the caches, and memory is asked for and given back at every layer
SAVE_EVERY_S = 60.0  # what a killed run loses of a long backbone pass, seconds


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
    wanted = np.asarray(rows, dtype=np.int64)
    size = encoder.size
    out = np.empty((len(wanted), size), np.float32)
    for at, vectors in _batches(encoder, encoder, folder, wanted, device, batch_size):
        out[at : at + len(vectors)] = vectors
        if on_progress:
            on_progress(at + len(vectors), len(wanted))
    return out


def pooled_vectors(
    encoder: Encoder | Backbone,
    folder: FeatureFolder,
    rows: ArrayLike,
    *,
    cache: Path | None = None,
    device: Device = "cpu",
    batch_size: int = 0,
    on_progress: Progress | None = None,
    statistics: Statistics | None = None,
) -> Floats:
    """Run the backbone and pool, before standardisation: float32 [n, H].

    In the order of `rows`; not writable where they come from the cache.

    Args:
        encoder: or a backbone alone: mean of its last layer.
        folder, rows: the chunks.
        cache: a folder where the vectors are kept; rows that it lacks are added to it, once a
            minute while they are made and when the work is stopped. Without it nothing is kept.
        device, batch_size: where, and how many chunks at a time; 0: as many as suit the device.
        on_progress: hears how many of the rows are done.
        statistics: of the training side, for a backbone alone that normalises its input.

    Raises:
        ConfigError: a backbone alone, without the statistics that it needs.
    """
    whole = _around(encoder, statistics)
    wanted = np.asarray(rows, dtype=np.int64)
    name = _cache_key(whole, folder)
    known = pooled_cache.read(cache, name) if cache else None
    needed = np.unique(wanted)
    missing = needed if known is None else np.setdiff1d(needed, known.rows)
    n_known = len(needed) - len(missing)
    if on_progress:
        on_progress(n_known, len(needed))
    new = np.empty((len(missing), *whole.pooled_mean.shape), np.float32)
    done, saved_at = 0, time.monotonic()

    try:
        for at, vectors in _batches(whole, whole.pooled, folder, missing, device, batch_size):
            done = at + len(vectors)
            new[at:done] = vectors
            if on_progress:
                on_progress(n_known + done, len(needed))
            if time.monotonic() - saved_at > SAVE_EVERY_S and done < len(missing):
                _keep(cache, name, known, missing, new[:done])
                saved_at = time.monotonic()
    except BaseException:  # stopped by the user, or by a cluster: what is done is done
        if done:
            _keep(cache, name, known, missing, new[:done])
        raise
    if known is None or done:
        made = _keep(cache, name, known, missing, new[:done])
        known = (pooled_cache.read(cache, name) if cache else None) or made
    return known.take(wanted)


def _keep(
    cache: Path | None, name: str, known: Cached | None, rows: NDArray[np.int64], new: Floats
) -> Cached:
    """Return what is known and what is new of it as one, written to the cache where there is one.

    `new` holds the vectors of the first of the `rows`.
    """
    found = pooled_cache.merged(known, Cached(rows[: len(new)], new))
    if cache:
        pooled_cache.write(cache, name, found)
    return found


def project_vectors(encoder: Encoder, pooled: ArrayLike, *, device: Device = "cpu") -> Floats:
    """Run the head on pooled vectors: [n, H] -> float32 [n, D], unit norm."""
    values = np.asarray(pooled, dtype=np.float32)
    out = np.empty((len(values), encoder.size), np.float32)
    with evaluating(encoder, device), torch.inference_mode():
        for at in range(0, len(values), 4096):
            part = torch.tensor(values[at : at + 4096], device=device)
            out[at : at + len(part)] = encoder.project(part).cpu().numpy()
    return out


def _batches(
    encoder: Encoder,
    run: Callable[[Tensor], Tensor],
    folder: FeatureFolder,
    rows: Ints,
    device: Device,
    batch_size: int,
) -> Iterator[tuple[int, Floats]]:
    """Load and run, a batch at a time: (position, vectors)."""
    if not batch_size:
        batch_size = CPU_BATCH if torch.device(device).type == "cpu" else GPU_BATCH
    with evaluating(encoder, device):
        for at in range(0, len(rows), batch_size):
            features = folder.load(rows[at : at + batch_size])
            with torch.inference_mode():
                yield at, run(features.to(device)).float().cpu().numpy()


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


def _cache_key(encoder: Encoder, folder: FeatureFolder) -> str:
    """Name everything that a chunk's pooled vector follows from."""
    normal = encoder.backbone.spec.normalise != "none"
    return pooled_cache.key(
        backbone=backbone_fingerprint(encoder.backbone),
        features=folder.fingerprint,
        layer=encoder.structure.layer,
        pooling=encoder.structure.pooling,
        statistics=[float(encoder.mean), float(encoder.std)] if normal else None,
    )
