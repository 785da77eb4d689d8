"""What a run will take, and in which number format: measured by steps that move no weight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from subgenre import precision
from subgenre.config import RunConfig
from subgenre.run_state import Estimate

_ADAMW = 2  # numbers that AdamW keeps beside each weight


@dataclass(frozen=True)
class Rehearsal:
    """A small step that can be run again and again, and how it stands to a real one.

    Attributes:
        step: forward and backward pass over a few chunks, in bf16 if true.
        ratio: chunks of a real step by those of this one.
        costly: a deep network runs, and not the head alone.
    """

    step: Callable[[bool], None]
    ratio: float
    costly: bool
    device: torch.device

    def choose(self, settings: RunConfig) -> tuple[bool, str]:
        """Choose the number format, and say why."""
        if settings.precision == "auto" and not self.costly:
            return False, "fp32: the head alone is small"
        return precision.pick_dtype(settings.precision, self.device, self.step)

    def estimate(self, bf16: bool, why: str, *, steps: int, learning: int, copies: int) -> Estimate:
        """Tell what `steps` steps will take.

        Args:
            bf16, why: as `choose` gave them.
            steps: to come.
            learning: numbers that learn.
            copies: of them that will be kept beside AdamW's (gradients, best weights).
        """
        cuda = self.device.type == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device) if cuda else precision.memory_now()
        seconds = precision.timed(lambda: self.step(bf16), runs=1)
        peak = torch.cuda.max_memory_allocated(self.device) if cuda else precision.peak_memory()
        batch = max(0, peak - before) * max(1.0, self.ratio)
        to_come = learning * 4 * (_ADAMW + copies)
        return Estimate(seconds * self.ratio * steps, int(before + batch + to_come), steps, why)
