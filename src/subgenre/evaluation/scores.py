"""Vectors of the tracks on both sides of a split, and their scores: of a run or of a fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from subgenre import metrics
from subgenre.dataset.folder import FeatureFolder
from subgenre.dataset.splits import Split
from subgenre.library.track import Track
from subgenre.models import embedding
from subgenre.models.encoder import Encoder

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Side:
    """The tracks of one side: numbers in `folder.tracks`, their labels [N] and vectors by model.

    Attributes:
        vectors: name of a model (`frozen`, `trained`) -> [N, its own width], unit norm.
    """

    tracks: Ints
    labels: Ints
    vectors: Mapping[str, Floats]


@dataclass(frozen=True)
class Scored:
    """Both sides of a split and the chunk vectors [n, D] of the trained model, by folder row."""

    train: Side
    test: Side
    chunk_rows: Ints
    chunk_vectors: Floats


def sides(
    folder: FeatureFolder,
    split: Split,
    encoder: Encoder,
    pooled: Floats,
    *,
    device: torch.device,
    head_only: bool = False,
) -> Scored:
    """Embed the tracks of a split by the trained encoder and by the frozen backbone.

    Args:
        pooled: [n, H] of ALL chunks, by the backbone as it was before training.
        head_only: the backbone is still that one, so that its output need not be computed again.
    """
    train_rows, test_rows = folder.rows(split.train), folder.rows(split.test)
    rows = np.concatenate([train_rows, test_rows])
    if head_only:
        chunks = embedding.project_vectors(encoder, pooled[rows], device=device)
    else:
        chunks = embedding.chunk_vectors(encoder, folder, rows, device=device)
    at = len(train_rows)
    track = folder.track_of
    frozen_train, frozen_test = embedding.frozen_track_vectors(pooled, track, train_rows, test_rows)
    train = _side(folder, train_rows, chunks[:at], frozen_train)
    test = _side(folder, test_rows, chunks[at:], frozen_test)
    return Scored(train, test, rows, chunks)


def _side(folder: FeatureFolder, rows: Ints, trained: Floats, frozen: Floats) -> Side:
    """Pool one side's chunks; `frozen` is by track already, in ascending order of the tracks."""
    tracks, vectors = embedding.track_vectors(trained, folder.track_of[rows])
    label = dict(zip(folder.track_of[rows].tolist(), folder.label_of[rows].tolist(), strict=True))
    labels = np.array([label[int(track)] for track in tracks], dtype=np.int64)
    return Side(tracks, labels, {"frozen": frozen, "trained": vectors})


def scores(scored: Scored, folder: FeatureFolder, seed: int) -> dict[str, dict[str, metrics.Score]]:
    """Score each model of both sides by every metric."""
    names = {genre: number for number, genre in enumerate(sorted(set(folder.genres)))}
    genres = [names[genre] for genre in folder.genres]
    return {
        name: metrics.evaluate(
            scored.train.vectors[name],
            scored.train.labels,
            scored.test.vectors[name],
            scored.test.labels,
            genres=genres,
            seed=seed,
        )
        for name in scored.test.vectors
    }


def tracks_of(folder: FeatureFolder, numbers: Sequence[int] | Ints) -> list[Track]:
    """Return the tracks with these numbers."""
    return [folder.tracks[int(number)] for number in numbers]
