"""Chunks per second on one thread: our log-mel against the hub's `ASTFeatureExtractor`.

Both take the same 10 s chunks in turn, several times, to what the model takes in: padded to 1024
frames and normalised. The ratio of the medians is printed.
Run: python benchmarks/features.py [--chunks 16] [--rounds 7]. Target: 5 or more.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from subgenre.audio.features import AST_SPEC, PAD_VALUE, log_mel

TARGET = 5.0


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, default=16, help="10 s chunks a round")
    parser.add_argument("--rounds", type=int, default=7, help="rounds, after one to warm up")
    return parser


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def ours_of(batch: Tensor, mean: float, std: float) -> Tensor:
    mel = log_mel(batch, AST_SPEC)
    padded = F.pad(mel, (0, 0, 0, 1024 - mel.shape[1]), value=PAD_VALUE)
    return (padded - mean) / (2 * std)


def run(n_chunks: int, rounds: int) -> float:
    """Print the figures and return the ratio of the medians."""
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import ASTFeatureExtractor

        hub = ASTFeatureExtractor()
    path = "numpy" if hasattr(hub, "mel_filters") else "torchaudio"
    noise = np.random.default_rng(0).normal(0, 0.1, (n_chunks, 160_000)).astype(np.float32)
    batch, rows = torch.from_numpy(noise), list(noise)
    ours, theirs = [], []
    expected = np.stack(hub(rows, sampling_rate=16_000, return_tensors="np")["input_values"])
    apart = float(np.abs(ours_of(batch, hub.mean, hub.std).numpy() - expected).max())
    for _ in range(rounds):
        ours.append(seconds(lambda: ours_of(batch, hub.mean, hub.std)))
        theirs.append(seconds(lambda: hub(rows, sampling_rate=16_000, return_tensors="np")))
    rates = [n_chunks / statistics.median(times) for times in (ours, theirs)]
    print(f"largest difference:  {apart:8.1e} of normalised values")
    print(f"ours:                {rates[0]:8.1f} chunks/s on one thread")
    print(f"hub ({path + ' path':15}) {rates[1]:7.1f} chunks/s on one thread")
    print(f"ratio of medians:    {rates[0] / rates[1]:8.2f} (target: {TARGET:g} or more)")
    return rates[0] / rates[1]


def main() -> int:
    args = get_parser().parse_args()
    return 0 if run(args.chunks, args.rounds) >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
