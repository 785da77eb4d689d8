"""The device, the number format, and what one training step costs in time and memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import psutil
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from subgenre.errors import TrainingError

# How torch reports missing memory where it has no class for it: on a CPU, on a Mac, in cuBLAS.
_OUT_OF_MEMORY = ("DefaultCPUAllocator", "out of memory", "ALLOC_FAILED")
_GRADIENTS = 2  # gradients of activations that a backward pass holds at a time


def pick_device(name: str) -> torch.device:
    """Return the device of this name; `auto` is CUDA or a Mac's GPU where there is one.

    Raises:
        TrainingError: the device is unknown or not available.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(kind for kind, there in available.items() if there))
    if name not in available:
        raise TrainingError(f"no device '{name}'; choose auto, cuda, mps or cpu")
    if not available[name]:
        raise TrainingError(f"device '{name}' is not available; choose --device auto or cpu")
    return torch.device(name)


def pick_bf16(precision: str, device: torch.device) -> tuple[bool, str]:
    """Decide by a fixed rule whether to compute in bf16, and return the reason too.

    `auto` takes bf16 where the processor has instructions for it: a CPU with AVX512-BF16, a GPU
    that computes in bf16 natively. Elsewhere bf16 is several times slower than fp32.

    Args:
        precision: `fp32`, `bf16` or `auto`.
    """
    if precision != "auto":
        return precision == "bf16", f"{precision} by run.precision"
    native = (
        device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    ) or (device.type == "cpu" and torch.cpu._is_avx512_bf16_supported())
    if native:
        return True, f"bf16: the {device.type} computes in it natively"
    return False, f"fp32: the {device.type} has no bf16 instructions"


def autocast(device: torch.device, bf16: bool) -> AbstractContextManager[object]:
    """Return the context in which the forward pass runs."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if bf16 else nullcontext()


@contextmanager
def clear_memory_errors() -> Iterator[None]:
    """Turn missing memory, of the device or the machine, into an error with a remedy.

    Raises:
        TrainingError: there was not enough.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as problem:
        known = isinstance(problem, torch.OutOfMemoryError | MemoryError)
        if not known and not any(words in str(problem) for words in _OUT_OF_MEMORY):
            raise
        reason = str(problem).partition("\n")[0]
        raise TrainingError(
            f"there is not enough memory ({reason}); give smaller batches (tracks, chunks or size "
            "under [batch]), train less of the model (--tune), or set run.checkpointing for a "
            "transformer"
        ) from problem


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread of the CPU for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def seed_device(device: torch.device, seed: int) -> None:
    """Seed the global generators that dropout draws from: the CPU's, and the device's own."""
    # torch.manual_seed does this for every kind of device, at half a millisecond a call.
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def step_seconds(step: Callable[[], None], device: torch.device) -> float:
    """Return how long a step takes, until a GPU has finished it too."""
    start = time.perf_counter()
    step()
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter() - start


def step_memory(
    step: Callable[[], None], network: nn.Module, device: torch.device
) -> tuple[int, int]:
    """Return the bytes in use, and those that a step adds until its backward pass is done.

    CUDA counts them. Elsewhere a small step fits into what the process has reserved, so the
    activations kept for the backward pass are added up.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        return before, torch.cuda.max_memory_allocated(device) - before
    weights = {tensor.untyped_storage().data_ptr() for tensor in network.state_dict().values()}
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # the tensor itself would keep its graph alive

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        step()
    kept = sum(sizes.values()) + _GRADIENTS * max(sizes.values(), default=0)
    return int(psutil.Process().memory_info().rss), kept
