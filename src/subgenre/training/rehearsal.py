"""What a run will take, and in which number format: measured by steps that move no weight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from subgenre.config import RunConfig
from subgenre.core import hardware
from subgenre.training.state import Estimate

_ADAMW = 2  # numbers that AdamW keeps beside each weight
_GRADIENTS = 2  # activations' gradients at a time: of what a backward pass is at, and of the next


@dataclass(frozen=True)
class Rehearsal:
    """A small step that can be run again and again, and how it stands to a real one.

    Attributes:
        step: forward and backward pass over a few chunks, in bf16 if true.
        ratio: chunks of a real step by those of this one.
        costly: a deep network runs, and not the head alone.
        network: what runs; its weights are there already.
    """

    step: Callable[[bool], None]
    ratio: float
    costly: bool
    device: torch.device
    network: nn.Module

    def choose(self, settings: RunConfig) -> tuple[bool, str]:
        """Choose the number format, and say why."""
        if settings.precision == "auto" and not self.costly:
            return False, "fp32: the head alone is small"
        return hardware.pick_dtype(settings.precision, self.device, self.step)

    def estimate(self, bf16: bool, why: str, *, steps: int, learning: int, copies: int) -> Estimate:
        """Tell what `steps` steps will take.

        Args:
            bf16, why: as `choose` gave them.
            steps: to come.
            learning: numbers that learn.
            copies: of them that will be kept beside AdamW's (gradients, best weights).
        """
        before, batch = self._memory(bf16)  # a first run, too
        seconds = hardware.once(lambda: self.step(bf16))
        to_come = learning * 4 * (_ADAMW + copies) + batch * max(1.0, self.ratio)
        return Estimate(seconds * self.ratio * steps, int(before + to_come), steps, why)

    def _memory(self, bf16: bool) -> tuple[int, int]:
        """Return the bytes in use, and those that one step adds for a while.

        CUDA counts them. Elsewhere a small step is hidden by what the process holds free for it, so
        that the activations kept for the backward pass are added up.
        """
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            before = torch.cuda.memory_allocated(self.device)
            self.step(bf16)
            return before, torch.cuda.max_memory_allocated(self.device) - before
        sizes = _activations(lambda: self.step(bf16), self.network)
        return hardware.memory_now(), sum(sizes) + _GRADIENTS * max(sizes, default=0)


def _activations(step: Callable[[], None], network: nn.Module) -> list[int]:
    """Return the bytes of each tensor that a step keeps for its backward pass, weights left out."""
    own = {tensor.untyped_storage().data_ptr() for tensor in network.state_dict().values()}
    found: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # itself would keep its own graph alive

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        step()
    return list(found.values())
