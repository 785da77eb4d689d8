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

    Attributes:
        loss, active, spread: means over the steps; `active` is the share of triplets with a loss.
        val_map_at_r: on the validation tracks, if it was computed.
        seconds: of training and validation.
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
    """The outcome of a run; the encoder that was trained holds the chosen weights.

    Attributes:
        best_epoch: the epoch of the chosen weights, from 1.
        seconds: of training and validation, in all processes of a resumed run.
    """

    history: tuple[Epoch, ...]
    best_epoch: int
    seconds: float
    stopped_early: bool


@dataclass(frozen=True)
class Estimate:
    """What the run will take, measured on a small step before the first epoch.

    Attributes:
        seconds: of all remaining steps, without validation.
        memory: bytes: the process, a whole batch, gradients and optimizer.
        steps: that remain.
        precision: the number format and its reason.
    """

    seconds: float
    memory: int
    steps: int
    precision: str


@dataclass(frozen=True)
class Callbacks:
    """What the trainer calls: each may be None.

    Attributes:
        on_step: takes epoch (from 0), steps done in it, steps of an epoch.
        stop_requested: called after each step.
    """

    on_estimate: Callable[[Estimate], None] | None = None
    on_step: Callable[[int, int, int], None] | None = None
    on_epoch: Callable[[Epoch], None] | None = None
    stop_requested: Callable[[], bool] | None = None


@dataclass
class State:
    """The position of a run: saved in a checkpoint beside the weights.

    Attributes:
        epoch, step: finished; `step` within the present epoch, `done` over all of them.
        sums: of loss, active share, spread, and the number of steps, in the present epoch.
        latest: loss and active share of the last step whose figures were read.
        best_weights: of all parameters that learn, at `best_epoch`.
        bf16: as chosen before the first step.
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

    def keep_best(self, value: float, weights: Mapping[str, Tensor]) -> None:
        """Keep a copy of the weights if the present epoch is the best so far."""
        if value > self.best:
            self.best, self.best_epoch = value, self.epoch + 1
            self.best_weights = {
                name: p.detach().to("cpu", copy=True) for name, p in weights.items()
            }

    def restore_best(self, weights: Mapping[str, Tensor]) -> None:
        """Copy the best weights back, or without validation keep the last ones."""
        if self.best_weights is not None:
            copy_weights(self.best_weights, weights)
        else:
            self.best_epoch = self.epoch

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
