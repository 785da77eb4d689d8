"""The built-in backbone: seconds a chunk, our convolutions against PyTorch's own over every filter.

The same weights and inputs, the two in turn, medians: the forward pass alone, as the frozen
backbone is used, and with the backward pass, as `--tune full` does. The largest difference between
the two outputs and gradients is printed beside.

Run: python benchmarks/backbone.py [--chunks 6] [--rounds 5] [--threads N]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from subgenre.models.backbones import musicnn

FRAMES, BANDS = 626, 96  # 10 s


def every_filter(
    conv: nn.Conv2d, x: Tensor, gain: Tensor, shift: Tensor, *, falls: Tensor, **_reach: float
) -> Tensor:
    """What `frequency_max` gives to a relu, by a convolution over all filters and positions."""
    frames = conv.kernel_size[0]
    y = conv(F.pad(gain * x + shift, (0, 0, (frames - 1) // 2, frames // 2)))
    return torch.where(falls[:, None], y.amin(dim=3), y.amax(dim=3))


@contextmanager
def plain() -> Iterator[None]:
    """The backbone with PyTorch's convolutions."""
    ours = musicnn.frequency_max, musicnn.time_conv
    musicnn.frequency_max = every_filter
    musicnn.time_conv = lambda conv, x, **_reach: conv(x)
    try:
        yield
    finally:
        musicnn.frequency_max, musicnn.time_conv = ours


def forward(net: nn.Module, x: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return [net(x)]


def both_ways(net: nn.Module, x: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(net(x).square().sum(), list(net.parameters())))


def timed(run: Callable[[], list[Tensor]]) -> tuple[float, list[Tensor]]:
    start = time.perf_counter()
    found = run()
    return time.perf_counter() - start, found


def difference(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """The largest, as a share of each tensor's largest value."""
    pairs = zip(ours, theirs, strict=True)
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-12)) for a, b in pairs)


def run(chunks: int, rounds: int) -> None:
    net = musicnn.load().train()
    x = torch.rand(chunks, FRAMES, BANDS, generator=torch.Generator().manual_seed(0)) * 4
    print(f"{chunks} chunks of 10 s, {torch.get_num_threads()} threads, {rounds} rounds")
    print(f"{'s a chunk':22}{'all filters':>12}{'ours':>8}{'ratio':>7}{'difference':>12}")
    for title, act in (("forward", forward), ("forward and backward", both_ways)):
        seconds: tuple[list[float], list[float]] = ([], [])
        for _ in range(rounds + 1):
            with plain():
                taken, expected = timed(lambda: act(net, x))  # noqa: B023 - called at once
            seconds[0].append(taken)
            taken, found = timed(lambda: act(net, x))  # noqa: B023
            seconds[1].append(taken)
        theirs, ours = (median(side[1:]) / chunks for side in seconds)  # the first warms up
        off = difference(found, expected)
        print(f"{title:22}{theirs:12.3f}{ours:8.3f}{theirs / ours:7.2f}{off:12.1e}", flush=True)


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--chunks", type=int, default=6)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    run(given.chunks, given.rounds)
