"""Where a training step gets its chunks from: log-mels, or what a frozen part made of them.

Each source gives the inputs of some rows of the feature folder and knows which part of the encoder
is still to run on them. Options that can't act on what is cached are refused here.
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
from subgenre.errors import ConfigError
from subgenre.models.encoder import Encoder
from subgenre.training import augment

# Stored features are kept in memory when they take less than this share of what is free.
_MEMORY_SHARE = 0.4
# Cached vectors live on the device when they take less than this, bytes.
_ON_DEVICE = 2**30
_AHEAD = 2  # batches that are read while one is computed
ON_FEATURES = ("time_mask", "freq_mask", "gain_db")
ON_VECTORS = ("vector_noise",)


class Source(Protocol):
    """Inputs for rows of the feature folder, and the rest of the encoder on them.

    Attributes:
        costly: the rest of the encoder is a deep network: a chunk is not encoded twice.
        on_disk: rows are read from disk, so that reading ahead pays.
    """

    costly: bool
    on_disk: bool

    def load(self, rows: NDArray[np.int64]) -> Tensor:
        """Return what is stored of `rows`, as it is stored."""

    def augment(self, inputs: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return loaded inputs as the encoder takes them; with a generator as in training.

        On the device where the inputs are.
        """

    def encode(self, encoder: Encoder, inputs: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return unit vectors [b, D] of inputs on the encoder's device."""


class VectorSource:
    """Pooled outputs of a frozen backbone, in memory: an epoch costs milliseconds.

    Args:
        rows: of the feature folder, ascending.
        vectors: their pooled outputs [n, H].
        config: augmentation; only `vector_noise` has an effect.
        train_rows: of the training side, validation too: noise is a share of their deviation.
        device: where they are held, if they are not too many.

    Raises:
        ConfigError: an augmentation that acts on features or tokens.
    """

    costly = on_disk = False

    def __init__(
        self,
        rows: NDArray[np.int64],
        vectors: NDArray[np.float32],
        config: AugmentConfig,
        *,
        train_rows: NDArray[np.int64],
        device: torch.device | str = "cpu",
    ) -> None:
        refuse(config, (*ON_FEATURES, "patchout"), "cached vectors", "vector_noise")
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
        rows: all rows that will be asked for.
        config: augmentation.
        frames: length of a chunk in frames; a longer stored window is cropped to it.

    Raises:
        ConfigError: an augmentation that acts on cached vectors.
    """

    costly = True

    def __init__(
        self,
        folder: FeatureFolder,
        rows: NDArray[np.int64],
        config: AugmentConfig,
        *,
        frames: int,
    ) -> None:
        instead = "time_mask, freq_mask, gain_db, patchout"
        refuse(config, ON_VECTORS, "log-mels (they act on vectors cached by tune head)", instead)
        self.folder, self.config, self.frames = folder, config, frames
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
        """Cut to the chunk's length, and augment in training."""
        values = augment.crop(inputs, self.frames).float()
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
        activations: float16 [n, S, H], memory-mapped, as `activations.cached` gives them.
        n_last: blocks that learn.
        config: augmentation; only `patchout` can act above the cache.

    Raises:
        ConfigError: another augmentation.
    """

    costly = on_disk = True

    def __init__(
        self,
        rows: NDArray[np.int64],
        activations: NDArray[np.float16],
        n_last: int,
        config: AugmentConfig,
    ) -> None:
        refuse(
            config,
            (*ON_FEATURES, *ON_VECTORS),
            "cached activations",
            "patchout, of a transformer",
        )
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


def refuse(config: AugmentConfig, names: Sequence[str], where: str, instead: str) -> None:
    """Raise where an augmentation is asked for that can't act.

    Raises:
        ConfigError: naming the option, why, and what acts instead.
    """
    asked = [name for name in names if getattr(config, name)]
    if asked:
        raise ConfigError(
            f"augment.{asked[0]} can't act on {where}: set it 0; what acts there is {instead}"
        )


def ahead(
    source: Source, wanted: Sequence[NDArray[np.int64]], device: torch.device
) -> Iterator[Tensor]:
    """Yield what is stored of each batch of rows, on the device, read while another is computed.

    On CUDA through pinned memory, so that the copy runs beside the computation too. What lies in
    memory on a CPU is taken as it comes: a thread would only steal time.
    """
    cuda = device.type == "cuda"
    if not (source.on_disk or (cuda and source.costly)):
        for rows in wanted:
            yield source.load(rows).to(device)
        return

    def read(rows: NDArray[np.int64]) -> Tensor:
        values = source.load(rows)
        return values.pin_memory() if cuda else values

    with ThreadPoolExecutor(1) as pool:
        waiting = deque(pool.submit(read, rows) for rows in wanted[:_AHEAD])
        for number in range(len(wanted)):
            values = waiting.popleft().result()
            if number + _AHEAD < len(wanted):
                waiting.append(pool.submit(read, wanted[number + _AHEAD]))
            yield values.to(device, non_blocking=True)


@torch.inference_mode()
def encode_rows(
    source: Source,
    encoder: Encoder,
    rows: NDArray[np.int64],
    *,
    device: torch.device,
    batch_size: int = 0,
) -> NDArray[np.float32]:
    """Encode rows without augmentation: [n, D], float32; the encoder should be in eval mode.

    `batch_size` 0: 16 through a deep network (2 on a CPU, whose caches more would spill), 4096
    through the head alone.
    """
    deep = 2 if device.type == "cpu" else 16
    size = batch_size or (deep if source.costly else 4096)
    wanted = [rows[start : start + size] for start in range(0, len(rows), size)]
    parts = [
        source.encode(encoder, source.augment(inputs, None), None).float().cpu().numpy()
        for inputs in ahead(source, wanted, device)
    ]
    return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)


def _positions(held: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Find rows among the ascending rows that are held; one that is not would be another's chunk.

    Raises:
        IndexError: a row is not held.
    """
    found: NDArray[np.int64] = np.searchsorted(held, rows)
    inside = found < len(held)
    if not (inside.all() and np.array_equal(held[found], rows)):
        raise IndexError(f"{len(rows)} rows were asked for, of which some are not held")
    return found
