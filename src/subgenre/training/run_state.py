"""The state of a training run: its position and figures, its callbacks, its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Epoch:
    """Figures of one epoch, a row of `history.parquet`.

    `loss`, `active` (the share of triplets with a loss) and `spread` are means over the steps.
    """

    epoch: int
    loss: float
    active: float
    spread: float
    lr: float
    seconds: float
    val_map_at_r: float | None = None


@dataclass(frozen=True)
class Result:
    """The outcome of a run; the encoder holds the weights of `best_epoch`, counted from 1."""

    history: tuple[Epoch, ...]
    best_epoch: int
    seconds: float
    stopped_early: bool


@dataclass(frozen=True)
class Estimate:
    """What the remaining steps take: seconds without validation, bytes of memory.

    `precision` is the number format and its reason.
    """

    seconds: float
    memory: int
    steps: int
    precision: str


@dataclass(frozen=True)
class Callbacks:
    """What the trainer calls; `on_step` with epoch (from 0), steps done in it, steps in all."""

    on_estimate: Callable[[Estimate], None]
    on_step: Callable[[int, int, int], None]
    on_epoch: Callable[[Epoch], None]
    stop_requested: Callable[[], bool]


@dataclass
class State:
    """The position of a run: saved in a checkpoint beside the weights.

    Attributes:
        epoch, step: finished; `step` within the present epoch, `done` over all of them.
        sums: of loss, active share, spread, and the number of steps, in the present epoch.
        latest: loss and active share of the last step whose figures were read.
        watch: state of the collapse watch. seconds: of work so far.
    """

    epoch: int = 0
    step: int = 0
    done: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0] * 4)
    latest: tuple[float, float] = (0.0, 0.0)
    history: list[dict[str, Any]] = field(default_factory=list)
    best: float = -1.0
    best_epoch: int = 0
    best_weights: dict[str, Tensor] | None = None
    bf16: bool = False
    watch: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def add(self, loss: float, active: float, spread: float) -> None:
        """Add the figures of one step to those of the present epoch."""
        self.latest = loss, active
        for place, value in enumerate((loss, active, spread, 1.0)):
            self.sums[place] += value

    def close_epoch(self, lr: float, seconds: float, value: float | None) -> Epoch:
        """Write the figures of the present epoch into the history and go on to the next."""
        loss, active, spread = (total / max(self.sums[3], 1.0) for total in self.sums[:3])
        row = Epoch(self.epoch + 1, loss, active, spread, lr, seconds, value)
        self.history.append(asdict(row))
        self.epoch, self.step, self.sums = self.epoch + 1, 0, [0.0] * 4
        return row


def copy_weights(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    """Copy values into the target's tensors, in place."""
    with torch.no_grad():
        for name, weight in target.items():
            weight.copy_(source[name])


def step_seed(seed: int, step: int, rank: int) -> int:
    """Mix seed, step and rank into one 63-bit number (the finaliser of splitmix64)."""
    mask = (1 << 64) - 1
    value = (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + rank + 1) & mask
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
    return (value ^ (value >> 31)) >> 1
