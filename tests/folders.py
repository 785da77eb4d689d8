"""Feature folders made by hand, with a difference between the subgenres that can be learnt."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from subgenre.audio import measures
from subgenre.audio.features import MUSICNN_SPEC, FeatureSpec, Statistics
from subgenre.config import PreprocessConfig
from subgenre.core import files, validation
from subgenre.dataset import folder
from subgenre.dataset.folder import FeatureFolder
from subgenre.library.track import Track


def make_folder(
    path: Path,
    *,
    labels: tuple[tuple[str, str], ...] = (("a", "one"), ("a", "two"), ("b", "three")),
    tracks: int = 8,
    chunks: int = 2,
    trash: int = 0,
    spec: FeatureSpec = MUSICNN_SPEC,
    chunk_s: float = 3.2,
    level: float = 1.0,
    seed: int = 0,
) -> FeatureFolder:
    """Write and open a feature folder; each subgenre has its own band that is louder by `level`."""
    generator = torch.Generator().manual_seed(seed)
    config = PreprocessConfig(chunk_s=chunk_s, max_chunks=chunks)
    frames = folder.window_frames(spec, config)
    rows, everyone = [], []
    pools = [(*label, tracks, number) for number, label in enumerate(labels)]
    for genre, subgenre, n, number in [*pools, ("", "", trash, -1)]:
        for i in range(n):
            track = _track(f"{number:02x}{i:030x}".replace("-", "f"), genre, subgenre, i, path)
            everyone.append(track)
            for index in range(chunks):
                values = torch.rand(frames, spec.n_mels, generator=generator)
                if number >= 0:
                    values[:, 8 * number : 8 * number + 8] += level
                rows.append(_write(path, track, subgenre, index, values))
    settings = {"spec": spec.to_dict(), "config": validation.to_dict(config)}
    described = folder.dataset_json(
        root=str(path.parent),
        settings=settings,
        labels=[(subgenre, genre, subgenre) for genre, subgenre in labels],
        rows=rows,
        n_tracks=len(everyone) - trash,
        n_trash=trash,
        n_skipped=0,
    )
    folder.write_chunks(path, rows)
    folder.write_tracks(path, everyone, path.parent)
    files.write_json(path / folder.DATASET, described)
    return FeatureFolder.open(path)


def _track(id_: str, genre: str, subgenre: str, i: int, path: Path) -> Track:
    where = path.parent / (subgenre or "trash") / f"track {i}.mp3"
    artist = f"{subgenre} artist {i}"
    return Track(id_, where, genre, subgenre, artist, duration_s=60.0, trash=not subgenre)


def _write(path: Path, track: Track, label: str, index: int, values: torch.Tensor) -> dict:
    file = folder.chunk_file(label or "trash", track.path, track.id, index)
    folder.write_chunk(path / file, values, start_s=3.0 * index, track_id=track.id)
    statistics = Statistics.of(values.half().float())
    row = {"file": file, "track": track.id, "label": label, "index": index}
    row |= {"start_s": 3.0 * index, "n_frames": len(values), **dataclasses.asdict(statistics)}
    measured = (-14.0, 0.5, 0.0, 0.0, 16000.0, 120.0, 0.0)
    return row | dict(zip(measures.COLUMNS, measured, strict=True))
