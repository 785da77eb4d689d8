"""The doctor on swapped labels: 5 % of the labels of a library, swapped at random, are to be found.

Among as many suggestions as labels were swapped, surest first: precision, recall, and the ratio to
random choice, whose precision is the swapped share. Each seed swaps others.
Run: python benchmarks/doctor.py FEATURES [--share 0.05] [--seeds 3]
FEATURES is a feature folder, as `subgenre preprocess LIBRARY --out FEATURES` writes it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from subgenre.commands import doctor as stage
from subgenre.core.progress import Silent
from subgenre.evaluation.audits import mislabels
from subgenre.evaluation.audits.probe import grouped_folds

FOLDS, REPEATS = 5, 3


def swapped(labels: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Give a share of the tracks a random other label: the labels and which were swapped."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(labels), max(1, round(share * len(labels))), replace=False)
    given = labels.copy()
    given[chosen] = (labels[chosen] + rng.integers(1, labels.max() + 1, len(chosen))) % (
        labels.max() + 1
    )
    return given, chosen


def judged(means: np.ndarray, given: np.ndarray, seed: int) -> np.ndarray:
    """How surely each track is in the wrong playlist, [N], by folds of the new labels."""
    tracks = np.arange(len(given))
    folds = [
        fold
        for repeat in range(REPEATS)
        for fold in grouped_folds(given, tracks, FOLDS, seed=seed + repeat)
    ]
    return mislabels.misfit(mislabels.oof_probabilities(means, given, folds), given)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("features", type=Path)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    tracks, pooled = stage.frozen_output(options.features, None, None, "cpu", Silent())
    means, labels = tracks.means(pooled), tracks.labels
    hits, wanted = 0, 0
    for seed in range(options.seeds):
        given, chosen = swapped(labels, options.share, seed)
        start = time.perf_counter()
        sure = judged(means, given, seed)
        seconds = time.perf_counter() - start
        first = np.argsort(-sure, kind="stable")[: len(chosen)]
        found = len(np.intersect1d(first, chosen))
        listed = int((sure > mislabels.LEAST).sum())
        right = len(np.intersect1d(np.flatnonzero(sure > mislabels.LEAST), chosen))
        hits, wanted = hits + found, wanted + len(chosen)
        print(
            f"seed {seed}: {found} of {len(chosen)} swapped among the first {len(chosen)}; "
            f"listed by itself {listed}, {right} of them swapped; {seconds:.1f} s"
        )
    precision, chance = hits / wanted, wanted / options.seeds / len(labels)
    print(
        f"{len(labels)} tracks, {len(tracks.folder.labels)} subgenres: precision and recall "
        f"{precision:.3f}, at random {chance:.3f}: {precision / chance:.1f} times random"
    )


if __name__ == "__main__":
    main()
