"""What a run of training is made of beside its loop: where it stands, what it says, how it ends."""

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
        val_map_at_r: on the validation tracks, where there are any and it was computed.
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
    """What training ends with; the encoder it was given holds the chosen weights.

    Attributes:
        best_epoch: whose weights were chosen, from 1.
        seconds: of training and validation, of all processes of a run that was resumed.
    """

    history: tuple[Epoch, ...]
    best_epoch: int
    seconds: float
    stopped_early: bool


@dataclass(frozen=True)
class Estimate:
    """What the run will take, measured on a small step before the first epoch.

    Attributes:
        seconds: of all steps to come, validation left out.
        memory: bytes: what the process holds, a whole batch, gradients and optimizer.
        steps: to come.
        why: how the number format was chosen, and whether the network was compiled.
    """

    seconds: float
    memory: int
    steps: int
    why: str


@dataclass(frozen=True)
class Callbacks:
    """How the trainer talks: each may be None."""

    on_estimate: Callable[[Estimate], None] | None = None
    on_step: Callable[[int, int, int], None] | None = None
    on_epoch: Callable[[Epoch], None] | None = None
    stop_asked: Callable[[], bool] | None = None


@dataclass
class State:
    """Where a run is: saved in a checkpoint beside the weights.

    Attributes:
        epoch, step: done; `step` within the present epoch, `done` over all of them.
        sums: of loss, active share, spread, and their number, in the present epoch.
        latest: loss and active share of the step that was looked at last.
        best_weights: of what learns, at `best_epoch`.
        bf16, compiled: as chosen before the first step.
        watch: what the watch for collapse remembers. seconds: of work so far.
    """

    epoch: int = 0
    step: int = 0
    done: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0, 0.0])
    latest: tuple[float, float] = (0.0, 0.0)
    history: list[dict[str, Any]] = field(default_factory=list)
    best: float = -1.0
    best_epoch: int = 0
    best_weights: dict[str, Tensor] | None = None
    bf16: bool = False
    compiled: bool = False
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

    def put_best(self, weights: Mapping[str, Tensor]) -> None:
        """Put the best weights of ALL that learns back, or keep the last ones."""
        if self.best_weights is not None:
            put(self.best_weights, weights)
        else:
            self.best_epoch = self.epoch

    def close_epoch(self, lr: float, seconds: float, value: float | None) -> Epoch:
        """Write the present epoch's figures into the history and go on to the next."""
        loss, active, spread = (total / max(self.sums[3], 1.0) for total in self.sums[:3])
        row = Epoch(self.epoch + 1, loss, active, spread, lr, seconds, value)
        self.history.append(asdict(row))
        self.epoch, self.step, self.sums = self.epoch + 1, 0, [0.0] * 4
        return row


def put(found: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Copy what was kept into the weights themselves."""
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(found[name])


def step_seed(seed: int, step: int, rank: int) -> int:
    """Mix seed, step and rank into one 63-bit number (splitmix64's finaliser)."""
    mask = (1 << 64) - 1
    value = (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + rank + 1) & mask
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
    return (value ^ (value >> 31)) >> 1
