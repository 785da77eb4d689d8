"""Where a training step gets its chunks from: log-mels, or what a frozen part made of them.

Each source gives the inputs of some rows of the feature folder and knows which part of the encoder
is still to run on them. Options that can't act on what is cached are refused here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from subgenre import augment
from subgenre.config import AugmentConfig
from subgenre.encoder import Encoder
from subgenre.errors import ConfigError
from subgenre.store import FeatureFolder

# Stored features are kept in memory when they take less than this share of what is free.
_MEMORY_SHARE = 0.4


class Source(Protocol):
    """Inputs for rows of the feature folder, and the rest of the encoder on them."""

    def batch(self, rows: NDArray[np.int64], generator: torch.Generator | None) -> Tensor:
        """Return the inputs of `rows`; with a generator they are augmented as in training."""

    def encode(self, encoder: Encoder, inputs: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return unit vectors [b, D] of inputs on the encoder's device."""


class VectorSource:
    """Pooled outputs of a frozen backbone, in memory: an epoch costs milliseconds.

    Args:
        rows: of the feature folder, ascending.
        vectors: their pooled outputs [n, H], or [n, L, H] for a learnt sum over L layers.
        config: augmentation; only `vector_noise` and `vector_mixup` can act.

    Raises:
        ConfigError: an augmentation that acts on features or tokens.
    """

    def __init__(
        self, rows: NDArray[np.int64], vectors: NDArray[np.float32], config: AugmentConfig
    ) -> None:
        refuse(config, ("time_mask", "freq_mask", "gain_db", "mixup", "crop", "patchout"), "head")
        self.vectors = torch.from_numpy(np.array(vectors, dtype=np.float32))
        self.rows, self.config = np.asarray(rows), config
        self.deviation = self.vectors.std(0, correction=0)

    def batch(self, rows: NDArray[np.int64], generator: torch.Generator | None) -> Tensor:
        """Return pooled vectors [b, H], with noise and mixup in training."""
        values = self.vectors[_positions(self.rows, rows)]
        if generator is None:
            return values
        return augment.vectors(values, self.deviation, self.config, generator)

    def encode(
        self,
        encoder: Encoder,
        inputs: Tensor,
        generator: torch.Generator | None,  # noqa: ARG002 - one interface for all sources
    ) -> Tensor:
        """Run the head."""
        return encoder.project(inputs)


class FeatureSource:
    """Log-mels of the feature folder, in memory as float16 where they fit, else read per batch.

    Args:
        folder: the feature folder.
        rows: all rows that will be asked for.
        config: augmentation.
        frames: length of a chunk in frames; a longer stored window is cropped to it.
    """

    def __init__(
        self,
        folder: FeatureFolder,
        rows: NDArray[np.int64],
        config: AugmentConfig,
        *,
        frames: int,
    ) -> None:
        refuse(config, ("vector_noise", "vector_mixup"), "the backbone")
        self.folder, self.config, self.frames = folder, config, frames
        self.rows = np.unique(np.asarray(rows))
        first = folder.load(self.rows[:1])
        size = first.numel() * 2 * len(self.rows)
        fits = size < psutil.virtual_memory().available * _MEMORY_SHARE
        self.held = self._hold(first) if fits else None

    def _hold(self, first: Tensor) -> Tensor:
        """Read all rows once, a few at a time."""
        held = torch.empty(len(self.rows), *first.shape[1:], dtype=torch.float16)
        for start in range(0, len(self.rows), 64):
            part = slice(start, start + 64)
            held[part] = self.folder.load(self.rows[part]).half()
        return held

    def batch(self, rows: NDArray[np.int64], generator: torch.Generator | None) -> Tensor:
        """Return un-normalised log-mels [b, T, F] in float32, augmented in training."""
        if self.held is not None:
            values = self.held[_positions(self.rows, rows)].float()
        else:
            values = self.folder.load(rows)
        random = generator if generator is not None and self.config.crop else None
        values = augment.crop(values, self.frames, random)
        if generator is None:
            return values
        front_end = self.folder.spec.front_end
        return augment.features(values, self.config, generator, front_end=front_end)

    def encode(self, encoder: Encoder, inputs: Tensor, generator: torch.Generator | None) -> Tensor:
        """Run the whole encoder; in training a share of the patch tokens is dropped."""
        keep = 1.0 - self.config.patchout if encoder.training else 1.0
        return encoder.project(encoder.pooled(inputs, keep=keep, generator=generator))


class ActivationSource:
    """What the frozen lower blocks made of each chunk, on disk: the last N blocks are still to run.

    Args:
        rows: of the feature folder, ascending.
        path: float16 array [n, S, H], memory-mapped, as `cache_activations` wrote it.
        n_last: blocks that learn.
        config: augmentation; none can act below the cache but `patchout`, which is refused too.
    """

    def __init__(
        self, rows: NDArray[np.int64], path: Path, n_last: int, config: AugmentConfig
    ) -> None:
        names = ("time_mask", "freq_mask", "gain_db", "mixup", "crop", "patchout")
        refuse(config, (*names, "vector_noise", "vector_mixup"), f"last:{n_last}")
        self.rows, self.n_last = np.asarray(rows), n_last
        self.held = np.load(path, mmap_mode="r", allow_pickle=False)

    def batch(
        self,
        rows: NDArray[np.int64],
        generator: torch.Generator | None,  # noqa: ARG002 - one interface for all sources
    ) -> Tensor:
        """Return activations [b, S, H] in float32."""
        return torch.from_numpy(self.held[_positions(self.rows, rows)].astype(np.float32))

    def encode(
        self,
        encoder: Encoder,
        inputs: Tensor,
        generator: torch.Generator | None,  # noqa: ARG002
    ) -> Tensor:
        """Run the last blocks, the pooling and the head."""
        return encoder.project(encoder.pooled_from(inputs, self.n_last))


def refuse(config: AugmentConfig, names: Sequence[str], where: str) -> None:
    """Raise where an augmentation is asked for that can't act.

    Raises:
        ConfigError: naming the option, why, and what acts instead.
    """
    asked = [name for name in names if getattr(config, name)]
    if not asked:
        return
    instead = (
        "use vector_noise or vector_mixup"
        if where == "head"
        else "use time_mask, freq_mask, gain_db, mixup or patchout"
        if where == "the backbone"
        else "choose tune full or lora"
    )
    raise ConfigError(
        f"augment.{asked[0]} can't act when {where} alone learns from what is cached; {instead}"
        if where != "the backbone"
        else f"augment.{asked[0]} acts on cached vectors (tune head) alone; {instead}"
    )


def encode_rows(
    source: Source,
    encoder: Encoder,
    rows: NDArray[np.int64],
    *,
    device: torch.device,
    batch_size: int = 64,
) -> NDArray[np.float32]:
    """Encode rows without augmentation: [n, D], float32; the encoder should be in eval mode."""
    parts = [
        source.encode(encoder, source.batch(rows[i : i + batch_size], None).to(device), None)
        .float()
        .cpu()
        .numpy()
        for i in range(0, len(rows), batch_size)
    ]
    return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)


def _positions(held: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Find rows among the ascending rows that are held."""
    found: NDArray[np.int64] = np.searchsorted(held, rows)
    return found
