"""The context of an audit from a few arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from subgenre.evaluation.audits.base import Context
from subgenre.evaluation.audits.duplicates import Duplicates
from subgenre.evaluation.audits.probe import grouped_folds
from subgenre.evaluation.baselines import Fold
from subgenre.library.track import Track


def folds_of(labels, k=4, groups=None, seed=0):
    groups = np.arange(labels.size) if groups is None else groups
    return grouped_folds(labels, groups, k, seed=seed)


def context(x: np.ndarray, labels: np.ndarray, **given: Any) -> Context:
    """Use x [N, D] as the vectors of the tracks, of their chunks and of each trained model."""
    n = len(labels)
    pairs = given.pop("folds", None) or folds_of(labels)
    fields = {
        "tracks": [Track(f"{i:032x}", Path(f"{i}.mp3")) for i in range(n)],
        "names": "abcdef",
        "genres": np.zeros(6, dtype=np.int64),
        "groups": np.arange(n),
        "columns": {},
        "chunks": x,
        "chunk_track": np.arange(n),
        "copies": Duplicates("features", (), ""),
        "chance": float(np.bincount(labels).max() / n),
    }
    folds = [Fold(train, test, {"trained": x}) for train, test in pairs]
    return Context(labels=labels, frozen=x, vectors=x, folds=folds, **(fields | given))
