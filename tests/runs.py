"""Model folders made by hand: one of vectors alone, one with an encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from subgenre import config
from subgenre.audio import reading
from subgenre.config import PreprocessConfig, TrainConfig
from subgenre.core import files, validation, workspace
from subgenre.dataset import track_vectors
from subgenre.models import backbones, encoder, file_embedding
from tests.small_library import write_wav

LABELS = (("techno", "dark"), ("techno", "emotional"), ("house", "deep"))
CHUNKS = PreprocessConfig(chunk_s=3.0, max_chunks=2, chunk_strategy="spaced")
DIM = 8


@dataclass(frozen=True)
class Row:
    id: str
    path: Path
    genre: str
    subgenre: str


def settings(dim: int = DIM) -> TrainConfig:
    model = {"backbone": "musicnn", "tune": "head", "embedding_size": dim, "head": ()}
    plain = config.replace(config.load_recipe("thesis"), "model", **model)
    plain = config.replace(plain, "optim", epochs=2, head_epochs=0)
    return config.replace(plain, "run", device="cpu")


def write_run(
    path: Path,
    rows: Sequence[Row],
    values: np.ndarray,
    split: Sequence[str],
    *,
    encoder: str,
    features: Path | None = None,
) -> Path:
    """Write what the uses of a model folder read of it; the weights are the caller's."""
    path.mkdir(parents=True, exist_ok=True)
    data = {
        "format_version": 1,
        "features": str(features or path / "gone"),
        "root": str(path.parent),
        "labels": sorted({row.subgenre for row in rows}),
        "genres": ["?"] * len({row.subgenre for row in rows}),
        "n_trash": 0,
        "train_s": 1.0,
        "encoder": encoder,
        "preprocess": validation.to_dict(CHUNKS),
    }
    files.write_json(path / workspace.DATA, data)
    track_vectors.write_embeddings(
        path / workspace.EMBEDDINGS, rows, values, split=split, fingerprint=encoder
    )
    validation.save_toml(path / workspace.CONFIG, settings(values.shape[1]))
    return path


def vector_run(
    path: Path, *, each: int = 10, spread: float = 0.25, seed: int = 0, encoder: str = "e" * 32
) -> Path:
    """A run of `each` tracks a subgenre around three corners; every fourth track is held out."""
    rng = np.random.default_rng(seed)
    rows, values, split = [], [], []
    for number, (genre, subgenre) in enumerate(LABELS):
        for i in range(each):
            where = path.parent / "WAV" / genre / subgenre / f"{subgenre} {i}.wav"
            rows.append(Row(f"{number:02x}{i:030x}", where, genre, subgenre))
            values.append(np.eye(DIM)[number] + spread * rng.normal(size=DIM))
            split.append("test" if i % 4 == 3 else "train")
    unit = np.array(values) / np.linalg.norm(values, axis=1, keepdims=True)
    return write_run(path, rows, unit, split, encoder=encoder)


def sounding_run(folder: Path, *, each: int = 4) -> Path:
    """A library of two subgenres in `folder/WAV`, and a run of it with an encoder.

    The caller must have replaced the workers (`small_library.replace_workers`).
    """
    seeded, backbone = torch.Generator().manual_seed(0), backbones.load("musicnn")
    net = encoder.Encoder(backbone, head=(), embedding_size=DIM, generator=seeded).eval()
    rows, split = [], []
    for number, (genre, subgenre) in enumerate(LABELS[:2]):
        for i in range(each):
            path = folder / "WAV" / genre / subgenre / f"{subgenre}, ü {i}.wav"
            write_wav(path, 4.0 + i, 10 * number + i)
            rows.append(Row(reading.probe(path).id, path, genre, subgenre))
            split.append("test" if i == each - 1 else "train")
    found = file_embedding.embed_files(net, [row.path for row in rows], CHUNKS, workers=1)
    run = folder / "fully_trained_models_1"
    run.mkdir(parents=True)
    encoder.save(net, run)
    return write_run(run, rows, found.vectors, split, encoder=encoder.fingerprint(net))
