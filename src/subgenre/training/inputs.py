"""The inputs of a training step: log-mels, or the cached output of the frozen part of the encoder.

A source loads the inputs of some rows of the feature folder, augments them and runs the rest of the
encoder on them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from subgenre.config import AugmentConfig
from subgenre.dataset.folder import FeatureFolder
from subgenre.models.encoder import Encoder
from subgenre.training import augment

# Stored features are kept in memory if they take less than this share of the free memory.
_MEMORY_SHARE = 0.4
# Cached vectors are kept on the device if they take less than this, bytes.
_ON_DEVICE = 2**30
_AHEAD = 2  # batches that are read while one is computed


class Source(Protocol):
    """Inputs for rows of the feature folder, and the rest of the encoder on them.

    Attributes:
        deep: the rest of the encoder is a deep network, so no chunk is encoded twice in a step.
        on_disk: rows are read from disk, so prefetching pays.
    """

    deep: bool
    on_disk: bool

    def load(self, rows: NDArray[np.int64]) -> Tensor:
        """Return the stored inputs of `rows`, in their stored type."""

    def augment(self, inputs: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return loaded inputs as the encoder takes them, augmented if there is a generator."""

    def encode(self, encoder: Encoder, inputs: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return unit vectors [b, D] of inputs on the encoder's device."""


class VectorSource:
    """Pooled outputs of a frozen backbone, in memory: an epoch takes milliseconds.

    Args:
        rows: of the feature folder, ascending.
        vectors: their pooled outputs [n, H].
        config: augmentation; only `vector_noise` has an effect.
        train_rows: of the training tracks: noise is a multiple of their deviation.
        device: where the vectors are kept if they are not too many.
    """

    deep = on_disk = False

    def __init__(
        self,
        rows: NDArray[np.int64],
        vectors: NDArray[np.float32],
        config: AugmentConfig,
        *,
        train_rows: NDArray[np.int64],
        device: torch.device | str = "cpu",
    ) -> None:
        held = torch.from_numpy(np.ascontiguousarray(vectors, dtype=np.float32))
        self.vectors = held.to(device) if held.nbytes < _ON_DEVICE else held
        self.rows, self.config = np.asarray(rows), config
        self.deviation = self.load(train_rows).std(0, correction=0).to(device)

    def load(self, rows: NDArray[np.int64]) -> Tensor:
        """Return pooled vectors [b, H]."""
        at = torch.from_numpy(_positions(self.rows, rows)).to(self.vectors.device)
        return self.vectors.index_select(0, at)

    def augment(self, inputs: Tensor, generator: torch.Generator | None) -> Tensor:
        """Add noise in training."""
        if generator is None:
            return inputs
        return augment.vectors(inputs, self.deviation, self.config, generator)

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
        rows: all rows that will be loaded.
        config: augmentation; all but `vector_noise`.
    """

    deep = True

    def __init__(
        self,
        folder: FeatureFolder,
        rows: NDArray[np.int64],
        config: AugmentConfig,
    ) -> None:
        self.folder, self.config = folder, config
        self.rows = np.unique(np.asarray(rows))
        first = folder.load(self.rows[:1])
        size = first.numel() * 2 * len(self.rows)
        fits = size < psutil.virtual_memory().available * _MEMORY_SHARE
        self.held = self._hold(first) if fits else None
        self.on_disk = not fits

    def _hold(self, first: Tensor) -> Tensor:
        """Read all rows once, a few at a time."""
        held = torch.empty(len(self.rows), *first.shape[1:], dtype=torch.float16)
        for start in range(0, len(self.rows), 64):
            part = slice(start, start + 64)
            held[part] = self.folder.load(self.rows[part]).half()
        return held

    def load(self, rows: NDArray[np.int64]) -> Tensor:
        """Return un-normalised log-mels [b, T, F]: float16 from memory, float32 from disk."""
        if self.held is None:
            return self.folder.load(rows)
        return self.held[_positions(self.rows, rows)]

    def augment(self, inputs: Tensor, generator: torch.Generator | None) -> Tensor:
        """Add gain and masks in training."""
        if generator is None:
            return inputs.float()
        front_end = self.folder.spec.front_end
        return augment.features(inputs.float(), self.config, generator, front_end=front_end)

    def encode(self, encoder: Encoder, inputs: Tensor, generator: torch.Generator | None) -> Tensor:
        """Run the whole encoder; in training a share of the patch tokens is dropped."""
        keep = 1.0 - self.config.patchout if encoder.training else 1.0
        return encoder.project(encoder.pooled(inputs, keep=keep, generator=generator))


class ActivationSource:
    """Output of the frozen lower blocks for each chunk, on disk; the last N blocks run on it.

    Args:
        rows: of the feature folder, ascending.
        activations: float16 [n, S, H], memory-mapped, from `embedding.frozen_activations`.
        n_last: blocks that learn.
        config: augmentation; only `patchout` has an effect.
    """

    deep = on_disk = True

    def __init__(
        self,
        rows: NDArray[np.int64],
        activations: NDArray[np.float16],
        n_last: int,
        config: AugmentConfig,
    ) -> None:
        self.rows, self.n_last, self.config = np.asarray(rows), n_last, config
        self.held = activations

    def load(self, rows: NDArray[np.int64]) -> Tensor:
        """Return activations [b, S, H] in float16."""
        return torch.from_numpy(np.asarray(self.held[_positions(self.rows, rows)]))

    def augment(
        self,
        inputs: Tensor,
        generator: torch.Generator | None,  # noqa: ARG002 - one interface for all sources
    ) -> Tensor:
        """Return them in float32."""
        return inputs.float()

    def encode(self, encoder: Encoder, inputs: Tensor, generator: torch.Generator | None) -> Tensor:
        """Run the last blocks, the pooling and the head."""
        keep = 1.0 - self.config.patchout if encoder.training else 1.0
        pooled = encoder.pooled_from(inputs, self.n_last, keep=keep, generator=generator)
        return encoder.project(pooled)


def prefetch(
    source: Source, batches: Sequence[NDArray[np.int64]], device: torch.device
) -> Iterator[Tensor]:
    """Yield the stored inputs of each batch of rows, on the device; read while another is computed.

    On CUDA through pinned memory, so that the copy overlaps with the computation too. Inputs in
    memory on a CPU are loaded one by one: a thread would only take time.
    """
    cuda = device.type == "cuda"
    if not (source.on_disk or (cuda and source.deep)):
        for rows in batches:
            yield source.load(rows).to(device)
        return

    def read(rows: NDArray[np.int64]) -> Tensor:
        values = source.load(rows)
        return values.pin_memory() if cuda else values

    with ThreadPoolExecutor(1) as pool:
        waiting = deque(pool.submit(read, rows) for rows in batches[:_AHEAD])
        for number in range(len(batches)):
            values = waiting.popleft().result()
            if number + _AHEAD < len(batches):
                waiting.append(pool.submit(read, batches[number + _AHEAD]))
            yield values.to(device, non_blocking=True)


@torch.no_grad()
def encode_rows(
    source: Source,
    encoder: Encoder,
    rows: NDArray[np.int64],
    *,
    device: torch.device,
) -> NDArray[np.float32]:
    """Encode rows without augmentation: [n, D], float32; the encoder should be in eval mode."""
    deep = 2 if device.type == "cpu" else 16  # more would not fit into a CPU's caches
    size = deep if source.deep else 4096
    batches = [rows[start : start + size] for start in range(0, len(rows), size)]
    parts = [
        source.encode(encoder, source.augment(inputs, None), None).float().cpu().numpy()
        for inputs in prefetch(source, batches, device)
    ]
    return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)


def _positions(held: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the positions of rows among the ascending rows that are held.

    Raises:
        IndexError: a row is not held.
    """
    positions: NDArray[np.int64] = np.searchsorted(held, rows)
    inside = positions < len(held)
    if not (inside.all() and np.array_equal(held[positions], rows)):
        raise IndexError(f"some of the {len(rows)} requested rows are not held")
    return positions
