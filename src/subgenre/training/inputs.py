"""The inputs of a training step: log-mels, or the cached output of the frozen part of the encoder.

A source loads the inputs of some rows of the feature folder, augments them and runs the rest of the
encoder on them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from subgenre.config import AugmentConfig
from subgenre.dataset.folder import FeatureFolder
from subgenre.metrics.vectors import moments_of
from subgenre.models.encoder import Encoder
from subgenre.training import augment

# Stored features are kept in memory if they take less than this share of the free memory.
_MEMORY_SHARE = 0.4
# Cached vectors are kept on the device if they take less than this, bytes.
_ON_DEVICE = 2**30
_AHEAD = 2  # batches that are read while one is computed


class Source(ABC):
    """Inputs for rows of the feature folder, and the rest of the encoder on them.

    Attributes:
        rows: those that can be loaded, ascending.
        config: the augmentation.
        deep: the rest of the encoder is a deep network, so no chunk is encoded twice in a step.
        on_disk: rows are read from disk, so prefetching pays.
    """

    deep = True
    on_disk = True

    def __init__(self, rows: NDArray[np.int64], config: AugmentConfig) -> None:
        self.rows, self.config = rows, config

    @abstractmethod
    def load(self, rows: NDArray[np.int64]) -> Tensor:
        """Return the stored inputs of `rows`, in their stored type."""

    def augment(self, inputs: Tensor, generator: torch.Generator | None) -> Tensor:  # noqa: ARG002
        """Return loaded inputs in float32, augmented if there is a generator."""
        return inputs.float()

    @abstractmethod
    def encode(self, encoder: Encoder, inputs: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return unit vectors [b, D] of inputs on the encoder's device."""

    def positions(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the positions of `rows` among those of the source.

        Raises:
            IndexError: a row is not among them.
        """
        positions: NDArray[np.int64] = np.searchsorted(self.rows, rows)
        inside = positions < len(self.rows)
        if not (inside.all() and np.array_equal(self.rows[positions], rows)):
            raise IndexError(f"some of the {len(rows)} requested rows are not held")
        return positions

    def kept(self, encoder: Encoder) -> float:
        """Return the share of the patch tokens that is not dropped."""
        return 1.0 - self.config.patchout if encoder.training else 1.0


class VectorSource(Source):
    """Pooled outputs [n, H] of a frozen backbone: an epoch takes milliseconds.

    Small ones are in memory, large ones stay in the file that they are mapped from.

    The noise is a multiple of the deviation of `train_rows`, those of the training tracks.
    """

    deep = on_disk = False

    def __init__(
        self,
        rows: NDArray[np.int64],
        vectors: NDArray[np.float32],
        config: AugmentConfig,
        *,
        train_rows: NDArray[np.int64],
        device: torch.device,
    ) -> None:
        super().__init__(rows, config)
        small = vectors.nbytes < _ON_DEVICE
        self.vectors = torch.tensor(vectors, device=device) if small else vectors
        deviation = moments_of(vectors, self.positions(train_rows))[1]
        self.deviation = torch.from_numpy(deviation.astype(np.float32)).to(device)

    def load(self, rows: NDArray[np.int64]) -> Tensor:
        """Return pooled vectors [b, H]."""
        at = self.positions(rows)
        if isinstance(self.vectors, np.ndarray):
            return torch.from_numpy(np.asarray(self.vectors[at]))
        return self.vectors.index_select(0, torch.from_numpy(at).to(self.vectors.device))

    def augment(self, inputs: Tensor, generator: torch.Generator | None) -> Tensor:
        """Add noise in training."""
        if generator is None:
            return inputs
        return augment.vectors(inputs, self.deviation, self.config, generator)

    def encode(self, encoder: Encoder, inputs: Tensor, generator: torch.Generator | None) -> Tensor:  # noqa: ARG002
        """Run the head."""
        return encoder.project(inputs)


class FeatureSource(Source):
    """Log-mels of the feature folder, in memory as float16 where they fit, else read per batch."""

    def __init__(
        self, folder: FeatureFolder, rows: NDArray[np.int64], config: AugmentConfig
    ) -> None:
        super().__init__(rows, config)
        self.folder = folder
        first = folder.load(rows[:1])
        size = first.numel() * 2 * len(rows)
        self.on_disk = size >= psutil.virtual_memory().available * _MEMORY_SHARE
        if not self.on_disk:
            self.held = torch.empty(len(rows), *first.shape[1:], dtype=torch.float16)
            for start in range(0, len(rows), 64):
                part = slice(start, start + 64)
                self.held[part] = folder.load(rows[part]).half()

    def load(self, rows: NDArray[np.int64]) -> Tensor:
        """Return un-normalised log-mels [b, T, F]: float16 from memory, float32 from disk."""
        return self.folder.load(rows) if self.on_disk else self.held[self.positions(rows)]

    def augment(self, inputs: Tensor, generator: torch.Generator | None) -> Tensor:
        """Add gain and masks in training."""
        if generator is None:
            return inputs.float()
        front_end = self.folder.spec.front_end
        return augment.features(inputs.float(), self.config, generator, front_end=front_end)

    def encode(self, encoder: Encoder, inputs: Tensor, generator: torch.Generator | None) -> Tensor:
        """Run the whole encoder."""
        pooled = encoder.pooled(inputs, keep=self.kept(encoder), generator=generator)
        return encoder.project(pooled)


class ActivationSource(Source):
    """Output of the frozen lower blocks for each chunk, on disk; the last `n_last` blocks learn.

    `activations`: float16 [n, S, H], memory-mapped, from `embedding.frozen_activations`.
    """

    def __init__(
        self,
        rows: NDArray[np.int64],
        activations: NDArray[np.float16],
        n_last: int,
        config: AugmentConfig,
    ) -> None:
        super().__init__(rows, config)
        self.held, self.n_last = activations, n_last

    def load(self, rows: NDArray[np.int64]) -> Tensor:
        """Return activations [b, S, H] in float16."""
        return torch.from_numpy(np.asarray(self.held[self.positions(rows)]))

    def encode(self, encoder: Encoder, inputs: Tensor, generator: torch.Generator | None) -> Tensor:
        """Run the last blocks, the pooling and the head."""
        keep = self.kept(encoder)
        pooled = encoder.pooled_from(inputs, self.n_last, keep=keep, generator=generator)
        return encoder.project(pooled)


def prefetch(
    source: Source, batches: Sequence[NDArray[np.int64]], device: torch.device
) -> Iterator[Tensor]:
    """Yield the stored inputs of each batch of rows, on the device; read while another is computed.

    On CUDA through pinned memory, so that the copy overlaps with the computation too.
    """
    cuda = device.type == "cuda"
    # inputs in memory on a CPU are loaded one by one: a thread would only take time
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


def encode_rows(
    source: Source, encoder: Encoder, rows: NDArray[np.int64], *, device: torch.device
) -> NDArray[np.float32]:
    """Encode rows without augmentation: [n, D], float32; the encoder should be in eval mode."""
    return np.concatenate(list(_encoded(source, encoder, rows, device)))


def mean_vector(
    source: Source, encoder: Encoder, rows: NDArray[np.int64], *, device: torch.device
) -> NDArray[np.float64]:
    """Return the mean of `encode_rows`, [D], without holding all of them."""
    parts = _encoded(source, encoder, rows, device)
    return np.asarray(sum(part.sum(axis=0, dtype=np.float64) for part in parts)) / len(rows)


def _encoded(
    source: Source, encoder: Encoder, rows: NDArray[np.int64], device: torch.device
) -> Iterator[NDArray[np.float32]]:
    """Yield the vectors of rows, batch by batch."""
    deep = 2 if device.type == "cpu" else 16  # more would not fit into a CPU's caches
    size = deep if source.deep else 4096
    batches = [rows[start : start + size] for start in range(0, len(rows), size)]
    for inputs in prefetch(source, batches, device):
        with torch.no_grad():
            vectors = source.encode(encoder, source.augment(inputs, None), None)
        yield vectors.float().cpu().numpy()
