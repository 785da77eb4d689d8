"""What the frozen lower blocks made of each chunk, kept on disk, so that N blocks alone are run.

    <folder>/<key>-activations.npy         float16 [n, S, H], one row a chunk of the feature folder
    <folder>/<key>-activations.part.npy    the same while it grows, beside
    <folder>/<key>-activations.json        how many rows of it are done
    <folder>/<key>-activations.lock        held by the run that fills it; another waits

The key is a hash of everything that the values follow from. The whole array never lies in memory.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from subgenre.core import files
from subgenre.dataset.folder import FeatureFolder
from subgenre.errors import ConfigError, FeatureError
from subgenre.models import cache as pooled_cache
from subgenre.models.encoder import Encoder, backbone_fingerprint, evaluating

FORMAT_VERSION = 1
_LARGEST = float(np.finfo(np.float16).max)
_SAVE_EVERY = 64  # batches between two notes of how far it is
_SPARE = 2**30  # bytes that are left free on the disk

Halves = NDArray[np.float16]
Progress = Callable[[int, int], None]


def cached(
    encoder: Encoder,
    folder: FeatureFolder,
    n_last: int,
    *,
    cache: Path,
    device: torch.device | str = "cpu",
    batch_size: int = 8,
    on_progress: Progress | None = None,
) -> Halves:
    """Return the input of the last `n_last` blocks for every chunk, computed where it lacks.

    Args:
        encoder: its backbone as it is before training.
        folder: the chunks; row i of the array is row i of the folder.
        n_last: blocks that will learn.
        cache: folder where the array is kept; an unfinished one is gone on with.
        device, batch_size: where, and how many chunks at a time.
        on_progress: hears how many chunks are done.

    Returns:
        float16 [n, S, H], a read-only memory map.

    Raises:
        ConfigError: the disk has no room for it, or the backbone no such blocks.
    """
    name = f"{_key(encoder, folder, n_last)}-activations"
    whole = cache / f"{name}.npy"

    def compute(rows: NDArray[np.int64]) -> Halves:
        features = folder.load(rows)
        with torch.inference_mode():
            hidden = encoder.prefix(features.to(device), n_last).float()
        halves: Halves = hidden.clamp(-_LARGEST, _LARGEST).half().cpu().numpy()
        return halves

    with evaluating(encoder, device):
        first = compute(np.arange(1))  # its shape tells whether what is kept still fits
        shape = (len(folder.track_of), *first.shape[1:])
        if (found := _open(whole, shape)) is not None:
            return found
        with files.locked(cache / f"{name}.lock"):
            if (found := _open(whole, shape)) is None:  # no other run filled it meanwhile
                _check_room(cache, shape[0] * first.nbytes, n_last)
                found = _fill(whole, shape, compute, batch_size, on_progress)
    return found


def _fill(
    whole: Path,
    shape: tuple[int, ...],
    compute: Callable[[NDArray[np.int64]], Halves],
    batch_size: int,
    on_progress: Progress | None,
) -> Halves:
    """Compute what an unfinished array lacks, give it its name, and map it."""
    part, note = whole.with_suffix(".part.npy"), whole.with_suffix(".json")
    array, done = _begin(part, note, shape)
    n = len(array)

    def keep() -> None:
        array.flush()
        files.write_json(note, {"format_version": FORMAT_VERSION, "done": done})

    try:
        for batch, at in enumerate(range(done, n, batch_size)):
            rows = np.arange(at, min(at + batch_size, n))
            array[rows] = compute(rows)
            done = int(rows[-1]) + 1
            if batch % _SAVE_EVERY == _SAVE_EVERY - 1:
                keep()
            if on_progress:
                on_progress(done, n)
    except BaseException:  # stopped by the user, or by a cluster: what is done is done
        keep()
        raise
    _finish(array, part, note, whole)
    made: Halves = np.load(whole, mmap_mode="r", allow_pickle=False)
    return made


def _key(encoder: Encoder, folder: FeatureFolder, n_last: int) -> str:
    """Name everything that the activations follow from."""
    normal = encoder.backbone.spec.normalise != "none"
    return pooled_cache.key(
        backbone=backbone_fingerprint(encoder.backbone),
        features=folder.fingerprint,
        last=n_last,
        statistics=[float(encoder.mean), float(encoder.std)] if normal else None,
    )


def _open(path: Path, shape: tuple[int, ...]) -> Halves | None:
    """Map a finished array; a damaged one counts as absent. Its values are not read for that."""
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return None
    return found if found.dtype == np.float16 and found.shape == shape else None


def _begin(part: Path, note: Path, shape: tuple[int, ...]) -> tuple[np.memmap, int]:
    """Open the unfinished array, or a new one, and tell how many rows are done."""
    try:
        done = int(files.read_json(note, version=FORMAT_VERSION, error=FeatureError)["done"])
        array = np.lib.format.open_memmap(part, mode="r+")
        if array.shape == shape and array.dtype == np.float16 and 0 <= done <= shape[0]:
            return array, done
    except (FeatureError, OSError, KeyError, TypeError, ValueError):
        pass
    part.parent.mkdir(parents=True, exist_ok=True)
    return np.lib.format.open_memmap(part, mode="w+", dtype=np.float16, shape=shape), 0


def _finish(array: np.memmap, part: Path, note: Path, whole: Path) -> None:
    """Give the array its name once every byte is on disk."""
    array.flush()
    with part.open("rb") as written:
        os.fsync(written.fileno())
    part.replace(whole)
    note.unlink(missing_ok=True)


def _check_room(cache: Path, size: int, n_last: int) -> None:
    """Refuse what the disk can't hold, before an hour is spent on it."""
    cache.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache).free
    if size + _SPARE > free:
        raise ConfigError(
            f"tune last:{n_last} keeps {size / 2**30:.1f} GB of activations in {cache}, where "
            f"{free / 2**30:.1f} GB are free; make room, or choose --tune head or full"
        )
