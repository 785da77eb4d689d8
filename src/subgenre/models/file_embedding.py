"""Audio files from outside any library to vectors: cut and transformed as `preprocess` does it."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from subgenre.audio import reading
from subgenre.audio.features import FeatureSpec
from subgenre.config import PreprocessConfig
from subgenre.core import parallel
from subgenre.dataset import chunking, folder
from subgenre.dataset.chunking import Job
from subgenre.dataset.track_vectors import track_vectors
from subgenre.errors import AudioError
from subgenre.library.scan import Skipped
from subgenre.models.encoder import Encoder, evaluating

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Device = torch.device | str
Progress = Callable[[int, int], None]

FILE_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class FileVectors:
    """Vectors of files outside any library.

    Attributes:
        paths, ids, duration_s: of the N files that could be read, in the order they were given.
        vectors: [N, D], unit norm.
        chunks: [n, D] of their chunks. chunk_file: [n], position in `paths`.
        chunk_start_s: [n], where each chunk starts.
        skipped: the other files, each with its reason.
    """

    paths: tuple[Path, ...]
    ids: tuple[str, ...]
    duration_s: tuple[float, ...]
    vectors: Floats
    chunks: Floats
    chunk_file: Ints
    chunk_start_s: NDArray[np.float64]
    skipped: tuple[Skipped, ...]


def embed_files(
    encoder: Encoder,
    paths: Sequence[Path],
    config: PreprocessConfig | None = None,
    *,
    device: Device = "cpu",
    batch_size: int = 16,
    workers: int | None = None,
    timeout_s: float = FILE_TIMEOUT_S,
    on_progress: Progress | None = None,
) -> FileVectors:
    """Embed audio files from outside a library; one that can't be read is skipped.

    Args:
        encoder: the trained model.
        paths: of the files.
        config: how tracks become chunks; by default spaced over the track.
        device, batch_size: where, and how many chunks at a time.
        workers: processes that decode; by default one a core.
        timeout_s: for one file.
        on_progress: called with the number of files that are done, and of all.
    """
    found: dict[int, _Embedded] = {}
    skipped: dict[int, Skipped] = {}
    results = _results(encoder, paths, config, device, batch_size, workers, timeout_s)
    for i, result in results:
        if isinstance(result, Skipped):
            skipped[i] = result
        else:
            found[i] = result
        if on_progress:
            on_progress(len(found) + len(skipped), len(paths))
    return _file_vectors([found[i] for i in sorted(found)], skipped, encoder.size)


def embed_each(
    encoder: Encoder,
    paths: Sequence[Path],
    config: PreprocessConfig | None = None,
    *,
    device: Device = "cpu",
    batch_size: int = 16,
    workers: int | None = None,
    timeout_s: float = FILE_TIMEOUT_S,
) -> Iterator[tuple[int, FileVectors]]:
    """Embed audio files one by one, as they finish, so that each can be kept at once.

    Yields:
        position in `paths`, and the vectors of that one file or why it was skipped.
    """
    results = _results(encoder, paths, config, device, batch_size, workers, timeout_s)
    for i, result in results:
        if isinstance(result, Skipped):
            yield i, _file_vectors([], {i: result}, encoder.size)
        else:
            yield i, _file_vectors([result], {}, encoder.size)


def _results(
    encoder: Encoder,
    paths: Sequence[Path],
    config: PreprocessConfig | None,
    device: Device,
    batch_size: int,
    workers: int | None,
    timeout_s: float,
) -> Iterator[tuple[int, _Embedded | Skipped]]:
    """Decode in workers and encode here; what is decoded is encoded while they decode on."""
    config = config or PreprocessConfig(chunk_strategy="spaced")
    with tempfile.TemporaryDirectory(prefix="subgenre-") as place, evaluating(encoder, device):
        spec = encoder.backbone.spec
        tasks = [
            _Task(Path(path), Path(place) / str(i), spec, config) for i, path in enumerate(paths)
        ]
        for i, result in parallel.map_files(
            _chunk_file,
            tasks,
            workers=max(1, min(len(tasks), parallel.worker_count(workers))),
            timeout_s=timeout_s,
            initializer=chunking.start_worker,
        ):
            if isinstance(result, parallel.Failure):
                yield i, Skipped(tasks[i].path, result.reason)
            else:
                yield i, _embed_one(encoder, tasks[i], *result, device, batch_size)


@dataclass(frozen=True)
class _Task:
    """One file for a worker, and a folder of its own for the chunk files."""

    path: Path
    out: Path
    spec: FeatureSpec
    config: PreprocessConfig


def _chunk_file(task: _Task) -> tuple[reading.Probe, tuple[dict[str, Any], ...]]:
    """Cut and transform one file exactly as `preprocess` does; runs in a worker."""
    probed = reading.probe(task.path)
    if probed.duration_s < task.config.min_track_s:
        shown = math.floor(probed.duration_s * 10) / 10
        raise AudioError(
            f"is {shown:.1f} s long; at least {task.config.min_track_s:g} s are needed"
        )
    job = Job(probed.id, task.path, "", probed.duration_s, task.out, task.spec, task.config)
    outcome = chunking.make_chunks(job)
    if not outcome.rows:
        raise AudioError(outcome.reason)
    return probed, outcome.rows


@dataclass(frozen=True)
class _Embedded:
    """One file's chunk vectors [n, D] and where the chunks start."""

    path: Path
    probe: reading.Probe
    chunks: Floats
    start_s: list[float]


def _embed_one(
    encoder: Encoder,
    task: _Task,
    probe: reading.Probe,
    rows: Sequence[dict[str, Any]],
    device: Device,
    batch_size: int,
) -> _Embedded:
    """Encode the chunk files that a worker wrote, and remove them."""
    shape = (folder.window_frames(task.spec, task.config), task.spec.n_mels)
    parts = []
    for at in range(0, len(rows), batch_size):
        names = [row["file"] for row in rows[at : at + batch_size]]
        features = torch.stack([folder.read_chunk(task.out / n, shape, probe.id) for n in names])
        with torch.inference_mode():
            parts.append(encoder(features.float().to(device)).cpu().numpy())
    shutil.rmtree(task.out)
    return _Embedded(task.path, probe, np.concatenate(parts), [row["start_s"] for row in rows])


def _file_vectors(
    found: Sequence[_Embedded], skipped: Mapping[int, Skipped], embedding_size: int
) -> FileVectors:
    chunks = np.concatenate([np.empty((0, embedding_size), np.float32), *(f.chunks for f in found)])
    chunk_file = np.repeat(np.arange(len(found)), [len(f.chunks) for f in found])
    return FileVectors(
        tuple(f.path for f in found),
        tuple(f.probe.id for f in found),
        tuple(f.probe.duration_s for f in found),
        track_vectors(chunks, chunk_file)[1],
        chunks,
        chunk_file,
        np.array([start for f in found for start in f.start_s], dtype=np.float64),
        tuple(skipped[i] for i in sorted(skipped)),
    )
