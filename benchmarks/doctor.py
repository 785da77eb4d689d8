"""The doctor on swapped labels: 5 % of the labels of a library, swapped at random, are to be found.

Among as many suggestions as labels were swapped: precision, which is the recall as well, beside
the scores of cleanlab (confident learning, Northcutt et al. 2021) on the same out-of-fold
probabilities. Then the doctor's own list: its precision beside the one that it expects. Each seed
swaps others.
Run: python benchmarks/doctor.py FEATURES [--share 0.05] [--seeds 6]
FEATURES is a feature folder, as `subgenre preprocess LIBRARY --out FEATURES` writes it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from cleanlab.rank import get_label_quality_scores

from subgenre.commands import doctor as stage
from subgenre.core.progress import Silent
from subgenre.evaluation.audits import mislabels
from subgenre.evaluation.audits.probe import grouped_folds

FOLDS, REPEATS = 5, 3
PEERS = {
    "cleanlab, self-confidence": {"method": "self_confidence"},
    "cleanlab, margin": {"method": "normalized_margin"},
    "cleanlab, weighted entropy": {"method": "confidence_weighted_entropy"},
    "cleanlab, self-confidence over thresholds": {
        "method": "self_confidence",
        "adjust_pred_probs": True,
    },
    "cleanlab, margin over thresholds": {"method": "normalized_margin", "adjust_pred_probs": True},
}


def swapped(labels: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Give a share of the tracks a random other label: the labels and which were swapped."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(labels), max(1, round(share * len(labels))), replace=False)
    given = labels.copy()
    given[chosen] = (labels[chosen] + rng.integers(1, labels.max() + 1, len(chosen))) % (
        labels.max() + 1
    )
    return given, chosen


def probabilities(means: np.ndarray, given: np.ndarray, seed: int) -> np.ndarray:
    """Return the out-of-fold probabilities of each subgenre, [N, C], by folds of the new labels."""
    tracks = np.arange(len(given))
    folds = [
        fold
        for repeat in range(REPEATS)
        for fold in grouped_folds(given, tracks, FOLDS, seed=seed + repeat)
    ]
    return mislabels.oof_probabilities(means, given, folds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("features", type=Path)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--seeds", type=int, default=6)
    options = parser.parse_args()
    tracks, pooled = stage.frozen_output(options.features, None, None, "cpu", Silent())
    means, labels = tracks.means(pooled), tracks.labels
    position = {track.id: i for i, track in enumerate(tracks.folder.tracks)}
    precisions: dict[str, list[float]] = {"the doctor": [], **{name: [] for name in PEERS}}
    sure, right = [], []
    for seed in range(options.seeds):
        given, chosen = swapped(labels, options.share, seed)
        p = probabilities(means, given, seed)
        doubts = {"the doctor": mislabels.certainty(p, given) - p[np.arange(len(p)), given]}
        doubts |= {name: -get_label_quality_scores(given, p, **how) for name, how in PEERS.items()}
        for name, doubt in doubts.items():
            first = np.argsort(-doubt, kind="stable")[: len(chosen)]
            precisions[name].append(np.isin(first, chosen).mean())
        found = mislabels.wrong_playlist(
            means, given, tracks.folder.labels, tracks.folder.tracks, p
        )
        sure += [one.confidence for one in found]
        right += [position[one.track] in chosen for one in found]
    print(f"{len(labels)} tracks, {len(tracks.folder.labels)} subgenres, {len(chosen)} swapped")
    for name, values in precisions.items():
        print(f"{name:42} {np.mean(values):.3f} ({min(values):.2f} to {max(values):.2f})")
    print(
        f"listed {len(right) / options.seeds:.1f} a library: expected precision "
        f"{np.mean(sure):.2f}, found {np.mean(right):.2f}"
    )


if __name__ == "__main__":
    main()
