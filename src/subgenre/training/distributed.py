"""Several processes that share one batch, started by torchrun.

Each process encodes its share of the batch, gathers the vectors of the others, and computes the
loss of the whole batch. Only its own vectors have a gradient, so the gradients of the encoder's
parameters add up (a sum, not a mean) to those of one process with the whole batch.
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

from subgenre.core import stopping
from subgenre.core.shards import Shard
from subgenre.errors import ConfigError, SubgenreError, TrainingError

T = TypeVar("T")

_JOIN_TIMEOUT = timedelta(minutes=10)
# The others wait while the first process joins the frozen backbone's output or validates.
_TIMEOUT = timedelta(hours=12)


@dataclass(frozen=True)
class Group:
    """This process's place among those that train together."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this process writes the files and the messages."""
        return self.rank == 0


def start(device: str) -> Group:
    """Join the processes that torchrun started; without torchrun, do nothing.

    NCCL on CUDA, gloo elsewhere; each process takes the GPU of its local rank.

    Raises:
        TrainingError: the processes can't reach one another.
    """
    if _alone():
        return Group()
    local = int(os.environ.get("LOCAL_RANK", "0"))
    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.set_device(local)
    if not dist.is_initialized():
        try:
            with stopping.at_once():  # torchrun stops a process that waits for one that has died
                dist.init_process_group("nccl" if cuda else "gloo", timeout=_JOIN_TIMEOUT)
            dist.distributed_c10d._set_pg_timeout(_TIMEOUT)
        except RuntimeError as problem:
            reason = next(iter(str(problem).splitlines()), type(problem).__name__)
            raise TrainingError(
                f"the processes of torchrun can't reach one another ({reason}); check the network "
                "between the machines, and --rdzv-endpoint or --master-addr"
            ) from problem
    return Group(dist.get_rank(), dist.get_world_size(), local)


def is_first() -> bool:
    """Return whether this process is alone or the first; callable before `start`."""
    return _alone() or os.environ.get("RANK", "0") == "0"


def _alone() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) < 2 or "MASTER_ADDR" not in os.environ


def stop() -> None:
    """Leave the group, if there is one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def share(batch: NDArray[np.int64], group: Group) -> NDArray[np.int64]:
    """Return this process's part of a batch of positions [b, ...]: a contiguous slice."""
    if len(batch) < group.world:
        raise ConfigError(
            f"a batch of {len(batch)} can't be shared by {group.world} processes; "
            "start fewer processes or enlarge the batch"
        )
    part: NDArray[np.int64] = np.array_split(batch, group.world)[group.rank]
    return part


def gather(vectors: Tensor, group: Group) -> Tensor:
    """Gather vectors [b, D] of all processes into [B, D], in rank order.

    Only the own rows have a gradient. The parts may differ in length, as `share` makes them.
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
    """Add up the gradients of all processes in place, in one flat message.

    A parameter without a gradient in this process counts as zero. One without a gradient in any
    process stays without: to an optimizer a zero gradient is a step, with weight decay.
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
    # if all have one here, the counts need not be read from the device
    exists = has if all(has) else (counts > 0).tolist()
    for parameter, summed, any_gradient in zip(learning, sums, exists, strict=True):
        parameter.grad = summed.view_as(parameter) if any_gradient else None


def broadcast(value: float, group: Group, device: torch.device) -> float:
    """Return the value of the first process, in all of them."""
    if group.world == 1:
        return value
    shared = torch.tensor([value], device=device, dtype=torch.float64)
    dist.broadcast(shared, src=0)
    return float(shared.item())


def in_shares(work: Callable[[Shard | None], T], group: Group, device: torch.device) -> T:
    """Run work that fills a cache: each process its share, the first joins them, then all read."""
    if group.world > 1:
        with fail_together(group, device):
            work(Shard(group.rank + 1, group.world))
    with fail_together(group, device):
        if group.first:
            return work(None)
    return work(None)


@contextmanager
def fail_together(group: Group, device: torch.device) -> Iterator[None]:
    """Leave a block together: if one process fails in it, all of them stop.

    Raises:
        TrainingError: another process failed.
    """
    failed: SubgenreError | None = None
    try:
        yield
    except SubgenreError as problem:
        failed = problem
    if any_process(failed is not None, group, device):
        raise failed or TrainingError("another process of this run stopped; see its message")


def any_process(flag: bool, group: Group, device: torch.device) -> bool:
    """Return, in all processes, whether the flag of any of them is true."""
    if group.world == 1:
        return flag
    value = torch.tensor([int(flag)], device=device)
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return bool(value.item())
