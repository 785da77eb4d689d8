"""The shards of `preprocess` or `embed` -> what one process would have written."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from subgenre.commands import embed, preprocess
from subgenre.commands.embed import Embedded
from subgenre.config import PreprocessConfig
from subgenre.core import files, shards, text, workspace
from subgenre.core.progress import Console, Silent
from subgenre.dataset import building, track_vectors
from subgenre.dataset.building import Summary
from subgenre.errors import ConfigError, LibraryError
from subgenre.library import sources
from subgenre.library.sources import Skipped
from subgenre.library.track import Track
from subgenre.models import backbones


def merge(
    path: Path, *, workers: int | None = None, console: Console | None = None
) -> Summary | Embedded:
    """Check and join the shards of a feature folder, or of a table of vectors.

    Args:
        path: the `out` of the shards.
        workers: processes, for tracks whose chunks are missing; by default all cores.

    Raises:
        ConfigError: no shards there, or one that has not finished. RunError, FeatureError,
            LibraryError: as for one process.
    """
    console = console or Silent()
    if (path / workspace.SHARDS).is_dir():
        return _merge_features(path, workers, console)
    if embed.shards_of(path).is_dir():
        return _merge_vectors(path, console)
    raise ConfigError(
        f"{path} has no shards; name the --out of `subgenre preprocess --shard` or of "
        "`subgenre embed --shard`"
    )


def _merge_features(path: Path, workers: int | None, console: Console) -> Summary:
    """Run `preprocess` with all that the shards have recorded.

    It makes anew what is missing or damaged, and sees the copies of a recording in all shards.
    """
    place = path / workspace.SHARDS
    shards.check_complete(place)
    job = shards.read_job(place)
    config = PreprocessConfig.from_dict(job["config"], str(place))
    with console.progress("checking chunks") as bar:
        spec = backbones.feature_spec(job["backbone"])
        damaged = building.remove_damaged(path, spec, config, bar)
    if damaged:
        damage = text.counted(damaged, "damaged chunk")
        console.warn(f"{damage} in {path}: made again from the audio")
    return preprocess.preprocess(
        files.located(job["source"], path),
        path,
        backbone=job["backbone"],
        settings=config,
        trash=files.located(job["trash"], path) if job["trash"] else None,
        maps=[(source, target) for source, target in job["maps"]],
        workers=workers,
        console=console,
    )


def _merge_vectors(out: Path, console: Console) -> Embedded:
    """Join the tables of the shards in order."""
    place = embed.shards_of(out)
    shards.check_complete(place)
    every = shards.every(place)
    parts = [track_vectors.read_embeddings(s.folder(place) / workspace.EMBEDDINGS) for s in every]
    left_out = dict.fromkeys(tuple(pair) for s in every for pair in s.result(place)["skipped"])
    skipped = [Skipped(files.path_from_text(name), reason) for name, reason in left_out]
    tracks = [
        Track(track_id, path)
        for part in parts
        for track_id, path in zip(part.ids, part.paths, strict=True)
    ]
    if not tracks:
        raise LibraryError(f"no shard in {place} could embed a file, so {out} is not written")
    track_vectors.write_embeddings(
        out,
        tracks,
        np.concatenate([part.vectors for part in parts]),
        fingerprint=parts[0].fingerprint,
    )
    shutil.rmtree(place)
    console.info(f"{out}: {text.counted(len(tracks), 'file')}")
    return Embedded(out, len(tracks), sources.warn_of_skipped(console, skipped))
