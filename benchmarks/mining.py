"""The project's masks against pytorch-metric-learning on P x K batches: same value, time of both.

    python benchmarks/mining.py

One step is the loss and its gradient. Each label's chunks come from different tracks, so that both
sides compare the same pairs. The ratio is the library's time divided by the project's.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from pytorch_metric_learning import distances, losses, miners, reducers
from torch import Tensor
from torch.nn import functional as F

from subgenre.config import LossConfig
from subgenre.losses import build

MARGIN = 0.3
BATCHES = ((8, 4), (16, 8), (16, 16))  # labels, tracks of each
EMBEDDING_SIZE = 128
REPEATS = 20
Step = Callable[[Tensor], Tensor]


def main() -> None:
    for n_labels, n_tracks in BATCHES:
        label = torch.arange(n_labels).repeat_interleave(n_tracks)
        generator = torch.Generator().manual_seed(0)
        centres = torch.randn(n_labels, EMBEDDING_SIZE, generator=generator)[label]
        noise = torch.randn(len(label), EMBEDDING_SIZE, generator=generator)
        vectors = F.normalize(centres + 2 * noise, dim=1)
        for name in ("none", "semihard", "hard", "supcon"):
            compare(name, own_step(name, label), library_step(name, label), vectors)


def own_step(name: str, label: Tensor) -> Step:
    """Return the project's loss; every chunk is a track of its own."""
    config = LossConfig(name="supcon") if name == "supcon" else LossConfig(mining=name)
    n_labels = int(label.max()) + 1
    genre = torch.zeros(n_labels, dtype=torch.long)
    loss = build(config, n_labels=n_labels, embedding_size=EMBEDDING_SIZE, label_genre=genre)
    place = torch.arange(len(label))
    return lambda vectors: loss(vectors, label, place, place).value


def library_step(name: str, label: Tensor) -> Step:
    """Return the library's loss on the same distance, with its own miner."""
    if name == "supcon":
        supcon = losses.SupConLoss(temperature=LossConfig().temperature)
        return lambda vectors: supcon(vectors, label)
    # its cosine similarity is inverted: the hinge is s(a, n) - s(a, p) + margin
    settings = {"distance": distances.CosineSimilarity(), "reducer": reducers.MeanReducer()}
    loss = losses.TripletMarginLoss(margin=MARGIN, **settings)
    if name == "hard":
        miner = miners.BatchHardMiner(distance=distances.CosineSimilarity())
    else:
        kind = {"none": "all", "semihard": "semihard"}[name]
        # "all" keeps the triplets inside its margin: 3 is more than any cosine distance
        margin = MARGIN if name == "semihard" else 3.0
        miner = miners.TripletMarginMiner(margin, kind, distance=distances.CosineSimilarity())
    return lambda vectors: loss(vectors, label, miner(vectors, label))


def compare(name: str, own: Step, library: Step, vectors: Tensor) -> None:
    """Print the times of both; the values and the gradients must be equal."""
    own_s, value, gradient = measure(own, vectors)
    library_s, expected, expected_gradient = measure(library, vectors)
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-3, atol=1e-5)
    print(
        f"{name:9} B {len(vectors):4}  own {1000 * own_s:7.1f} ms  "
        f"library {1000 * library_s:7.1f} ms  ratio {library_s / own_s:.1f}"
    )


def measure(step: Step, vectors: Tensor) -> tuple[float, Tensor, Tensor]:
    """Return the shortest time of one step in seconds, its value and its gradient."""
    times = []
    for _ in range(REPEATS):
        inputs = vectors.clone().requires_grad_()
        started = time.perf_counter()
        value = step(inputs)
        (gradient,) = torch.autograd.grad(value, inputs)
        times.append(time.perf_counter() - started)
    return min(times), value.detach(), gradient


if __name__ == "__main__":
    main()
