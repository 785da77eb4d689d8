"""Several processes that share one batch: torchrun's environment, gathering with gradient.

Each process encodes its share of the batch, gathers the others' vectors, and computes the loss of
the whole batch. The gradient of that loss by its own vectors is exact, so the gradients of the
encoder's parameters add up (a sum, not a mean) to those of one process with the whole batch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch import distributed as dist

from subgenre.errors import ConfigError, SubgenreError, TrainingError

T = TypeVar("T")

# The others wait while the first process runs the frozen backbone or validates. One that has died
# is noticed by torchrun, not by the clock.
_PATIENCE = timedelta(hours=12)


@dataclass(frozen=True)
class Group:
    """This process's place among those that train together."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this process writes the files and talks."""
        return self.rank == 0


def start(device: str) -> Group:
    """Join the processes that torchrun started; alone, do nothing.

    NCCL on CUDA, gloo elsewhere; each process takes the GPU of its local rank. The addresses come
    from torchrun's environment.
    """
    if _alone():
        return Group()
    local = int(os.environ.get("LOCAL_RANK", "0"))
    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.set_device(local)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if cuda else "gloo", timeout=_PATIENCE)
    return Group(dist.get_rank(), dist.get_world_size(), local)


def is_first() -> bool:
    """Tell whether this process will be the first of its group, or alone, before it joins."""
    return _alone() or os.environ.get("RANK", "0") == "0"


def _alone() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) < 2 or "MASTER_ADDR" not in os.environ


def stop() -> None:
    """Leave the group, if there is one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def share(batch: NDArray[np.int64], group: Group) -> NDArray[np.int64]:
    """Return this process's part of a batch of positions [b, ...]: a contiguous slice.

    Raises:
        ConfigError: fewer rows than processes.
    """
    if group.world == 1:
        return batch
    if len(batch) < group.world:
        raise ConfigError(
            f"a batch of {len(batch)} can't be shared by {group.world} processes; "
            "start fewer processes or enlarge the batch"
        )
    part: NDArray[np.int64] = np.array_split(batch, group.world)[group.rank]
    return part


def gather(vectors: Tensor, group: Group) -> Tensor:
    """Gather vectors [b, D] of all processes into [B, D], in rank order.

    The own rows keep their gradient.
    The parts may differ in length, as `share` makes them.
    """
    if group.world == 1:
        return vectors
    own = torch.tensor([len(vectors)], device=vectors.device)
    sizes = [torch.zeros_like(own) for _ in range(group.world)]
    dist.all_gather(sizes, own)
    longest = max(int(size) for size in sizes)
    padded = vectors.new_zeros(longest, *vectors.shape[1:])
    padded[: len(vectors)] = vectors.detach()
    parts = [torch.empty_like(padded) for _ in range(group.world)]
    dist.all_gather(parts, padded)
    whole = [part[: int(size)] for part, size in zip(parts, sizes, strict=True)]
    whole[group.rank] = vectors
    return torch.cat(whole)


def sum_gradients(parameters: Iterable[nn.Parameter], group: Group) -> None:
    """Add up the gradients of all processes in place, as one flat message.

    Of the parameters that learn now, the same in every process. One without a gradient here counts
    as zero, so that the messages have equal form. What no process has a gradient for stays without,
    as in one process: to an optimizer a gradient of zero is a step, with its weight decay.
    """
    learning = [p for p in parameters if p.requires_grad]
    if group.world == 1 or not learning:
        return
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in learning]
    has = [p.grad is not None for p in learning]
    flags = torch.tensor(has).to(grads[0])
    flat = torch.cat([*(g.reshape(-1) for g in grads), flags])
    dist.all_reduce(flat)
    *sums, counts = torch.split(flat, [*(g.numel() for g in grads), len(flags)])
    # where each has one here, nobody need wait for the device to tell
    known = has if all(has) else (counts > 0).tolist()
    for parameter, summed, moves in zip(learning, sums, known, strict=True):
        parameter.grad = summed.view_as(parameter) if moves else None


def broadcast(value: float, group: Group, device: torch.device) -> float:
    """Return the first process's value to all."""
    if group.world == 1:
        return value
    told = torch.tensor([value], device=device, dtype=torch.float64)
    dist.broadcast(told, src=0)
    return float(told.item())


def first_then_others(work: Callable[[], T], group: Group, device: torch.device) -> T:
    """Run `work` in the first process, then in the others: they find what it has cached.

    Raises:
        TrainingError: the first process failed; it raises its own error.
    """
    if group.world == 1:
        return work()
    if group.first:
        with fail_together(group, device):
            return work()
    with fail_together(group, device):
        pass
    return work()


@contextmanager
def fail_together(group: Group, device: torch.device) -> Iterator[None]:
    """Leave a block together: what one process could not do stops all, and none waits for ever.

    Raises:
        TrainingError: another process failed.
    """
    failed: SubgenreError | None = None
    try:
        yield
    except SubgenreError as problem:
        failed = problem
    if any_process(failed is not None, group, device):
        raise failed or TrainingError("another process of this run stopped; its message says why")


def any_process(flag: bool, group: Group, device: torch.device) -> bool:
    """Return whether any process raised its flag: all take the same branch."""
    if group.world == 1:
        return flag
    value = torch.tensor([int(flag)], device=device)
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return bool(value.item())
