"""Audio files from outside any library to vectors: cut and transformed as `preprocess` does it."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from subgenre.audio import reading
from subgenre.audio.features import FeatureSpec
from subgenre.audio.measures import SILENT
from subgenre.config import PreprocessConfig
from subgenre.core import parallel
from subgenre.dataset import chunking, folder, windows
from subgenre.dataset.chunking import Job
from subgenre.errors import AudioError
from subgenre.library.scan import CHANGED, stamp
from subgenre.library.sources import Skipped
from subgenre.models import engines
from subgenre.models.encoder import Encoder, evaluating
from subgenre.models.file_vectors import FileVectors, Kept

Floats = NDArray[np.float32]
Device = torch.device | str
Progress = Callable[[int, int], None]
_Chunked: TypeAlias = tuple[reading.Probe, tuple[dict[str, Any], ...]]

FILE_TIMEOUT_S = 600.0


def embed_files(
    encoder: Encoder,
    paths: Sequence[Path],
    config: PreprocessConfig | None = None,
    *,
    on_progress: Progress | None = None,
    **options: Any,
) -> FileVectors:
    """Embed audio files from outside a library; one that can't be read or is silent is skipped.

    Args:
        encoder, paths, config, options: as for `embed_each`.
        on_progress: called with the number of files that are done, and of all.
    """
    each: dict[int, FileVectors] = {}
    for i, found in embed_each(encoder, paths, config, **options):
        each[i] = found
        if on_progress:
            on_progress(len(each), len(paths))
    return _joined([each[i] for i in sorted(each)], encoder.size)


def embed_each(
    encoder: Encoder,
    paths: Sequence[Path],
    config: PreprocessConfig | None = None,
    *,
    device: Device = "cpu",
    batch_size: int = 16,
    workers: int | None = None,
    timeout_s: float = FILE_TIMEOUT_S,
    kept: Kept | None = None,
    pooled: engines.Frozen | None = None,
) -> Iterator[tuple[int, FileVectors]]:
    """Embed audio files one by one, as they finish, so that each can be kept at once.

    Workers decode the next files while this process encodes.

    Args:
        encoder: the trained model.
        paths: of the files.
        config: how tracks become chunks; by default spaced over the track.
        device, batch_size: where, and how many chunks at a time.
        workers: processes that decode; by default one a core.
        timeout_s: for one file.
        kept: what the model has computed before; a file in it is not decoded again.
        pooled: `encoder.pooled`, for several calls: an engine converts it once.

    Yields:
        position in `paths`, and the vectors of that one file or why it was skipped.
    """
    config = config or PreprocessConfig(chunk_strategy="spaced")
    with tempfile.TemporaryDirectory(prefix="subgenre-") as place, evaluating(encoder, device):
        spec, frozen = encoder.backbone.spec, pooled or engines.Frozen(encoder, encoder.pooled)

        def encode(features: torch.Tensor) -> torch.Tensor:
            return encoder.project(frozen(features.float().to(device)))

        tasks = [
            _Task(Path(path), Path(place) / str(i), spec, config, kept)
            for i, path in enumerate(paths)
        ]
        results: Iterable[tuple[int, _Chunked | parallel.Failure]]
        if len(tasks) == 1:  # workers would take longer to start than to decode it
            results = [(0, _chunk_alone(tasks[0], timeout_s))]
        else:
            results = parallel.map_files(
                _chunk_file,
                tasks,
                workers=max(1, min(len(tasks), parallel.worker_count(workers))),
                timeout_s=timeout_s,
                initializer=chunking.start_worker,
            )
        for i, result in results:
            try:
                found = _embed_one(encode, tasks[i], *_checked(result), batch_size)
            except AudioError as problem:
                skipped = Skipped(tasks[i].path, str(problem))
                found = replace(_joined([], encoder.size), skipped=(skipped,))
            yield i, found


@dataclass(frozen=True)
class _Task:
    """One file for a worker, and a folder of its own for the chunk files."""

    path: Path
    out: Path
    spec: FeatureSpec
    config: PreprocessConfig
    kept: Kept | None

    @property
    def cut(self) -> windows.Cut:
        """How the file is cut into windows."""
        return windows.Cut(self.path, self.spec.rate, self.config, measure=False)


def _chunk_file(task: _Task) -> _Chunked:
    """Decode, cut and transform one file; runs in a worker."""
    return _chunks(task, windows.of_file(task.cut))


def _chunk_alone(task: _Task, timeout_s: float) -> _Chunked | parallel.Failure:
    """Cut and transform one file here, and decode it in a process of its own."""
    try:
        with closing(parallel.alone(windows.of_file, task.cut, timeout_s=timeout_s)) as decoded:
            return _chunks(task, decoded)
    except AudioError as problem:
        return parallel.Failure(str(problem))


def _checked(result: _Chunked | parallel.Failure) -> _Chunked:
    if isinstance(result, parallel.Failure):
        raise AudioError(result.reason)
    return result


def _chunks(task: _Task, decoded: Iterator[Any]) -> _Chunked:
    """Cut and transform one file exactly as `preprocess` does.

    There are no rows of a file whose vectors are kept.

    Args:
        decoded: as from `windows.of_file`.
    """
    before = stamp(task.path)
    probed: reading.Probe = next(decoded)
    if task.kept and task.kept.read(task.path, probed):
        return probed, ()
    if probed.duration_s < task.config.min_track_s:
        shown = math.floor(probed.duration_s * 10) / 10
        raise AudioError(
            f"is {shown:.1f} s long; at least {task.config.min_track_s:g} s are needed"
        )
    job = Job(
        probed.id,
        task.path,
        "",
        probed.duration_s,
        task.out,
        task.spec,
        task.config,
        measure=False,
    )
    outcome = chunking.make_chunks(job, decoded)
    if stamp(task.path) != before:  # the id, or an error, may be of another recording
        raise AudioError(CHANGED)
    if not outcome.rows:
        raise AudioError(outcome.reason)
    if np.mean([row["silent_share"] for row in outcome.rows]) >= SILENT:
        raise AudioError("is silent")
    return probed, outcome.rows


def _embed_one(
    encode: Callable[[torch.Tensor], torch.Tensor],
    task: _Task,
    probe: reading.Probe,
    rows: Sequence[dict[str, Any]],
    batch_size: int,
) -> FileVectors:
    """Encode the chunk files that a worker wrote, and remove them; or read what is kept."""
    if task.kept and not rows:
        found = task.kept.read(task.path, probe)
        if found:
            return found
        again = _checked(_chunk_alone(replace(task, kept=None), FILE_TIMEOUT_S))
        return _embed_one(encode, task, *again, batch_size)
    shape = (folder.window_frames(task.spec, task.config), task.spec.n_mels)
    parts = []
    for at in range(0, len(rows), batch_size):
        names = [row["file"] for row in rows[at : at + batch_size]]
        features = torch.stack([folder.read_chunk(task.out / n, shape, probe.id) for n in names])
        with torch.inference_mode():
            parts.append(encode(features).cpu().numpy())
    shutil.rmtree(task.out)
    chunks = np.concatenate(parts)
    if not np.isfinite(chunks).all():
        raise AudioError("has vectors that are not finite")
    start_s = np.array([row["start_s"] for row in rows], dtype=np.float64)
    found = FileVectors.of(task.path, probe.id, probe.duration_s, chunks, start_s)
    if task.kept:
        task.kept.write(found)
    return found


def _joined(each: Sequence[FileVectors], embedding_size: int) -> FileVectors:
    """Join the vectors of single files."""
    none = np.empty((0, embedding_size), np.float32)
    whole = [found for found in each if not found.skipped]
    return FileVectors(
        tuple(path for found in whole for path in found.paths),
        tuple(id for found in whole for id in found.ids),
        tuple(seconds for found in whole for seconds in found.duration_s),
        np.concatenate([none, *(found.vectors for found in whole)]),
        np.concatenate([none, *(found.chunks for found in whole)]),
        np.repeat(np.arange(len(whole)), [len(found.chunks) for found in whole]),
        np.concatenate([np.empty(0), *(found.chunk_start_s for found in whole)]),
        tuple(skipped for found in each for skipped in found.skipped),
    )
