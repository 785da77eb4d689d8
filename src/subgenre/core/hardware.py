"""The device, the number format, and what a run will cost: measured, never assumed.

bf16 is several times slower than fp32 on a CPU without the instructions for it, and faster where it
has them: a timed probe decides. So it does for compiled code.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import psutil
import torch
from torch import nn

from subgenre.errors import TrainingError

# bf16 must win by this factor: what is within the noise of a probe stays exact.
_WORTH_IT = 1.15
_LONG_S = 1.0  # work of this length is timed once after its first run
# How torch tells a want of memory where it has no class for it: on a CPU, on a Mac, in cuBLAS.
_LACKING = ("DefaultCPUAllocator", "out of memory", "ALLOC_FAILED")
_PAIRS = 5  # of runs in turn: a busy machine must not make the choice


def pick_device(asked: str) -> torch.device:
    """Return the device that was asked for; `auto` is CUDA where there is one, else the CPU.

    Raises:
        TrainingError: the asked device can't be had.
    """
    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    had = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if asked not in had:
        raise TrainingError(f"no device '{asked}'; choose auto, {', '.join(had)}")
    if not had[asked]:
        raise TrainingError(f"device '{asked}' can't be had here; choose --device auto or cpu")
    return torch.device(asked)


@contextmanager
def memory_told() -> Iterator[None]:
    """Turn a want of memory, the device's or the machine's, into an error that says what helps.

    Raises:
        TrainingError: there was not enough.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as problem:
        known = isinstance(problem, torch.OutOfMemoryError | MemoryError)
        if not known and not any(words in str(problem) for words in _LACKING):
            raise
        reason = str(problem).partition("\n")[0]
        raise TrainingError(
            f"there is not enough memory ({reason}); give smaller batches (tracks, chunks or size "
            "under [batch]), let less learn (--tune), or give a transformer run.checkpointing"
        ) from problem


def pick_dtype(asked: str, device: torch.device, step: Callable[[bool], None]) -> tuple[bool, str]:
    """Decide whether to compute in bf16.

    Args:
        asked: `fp32`, `bf16` or `auto`.
        device: where it runs.
        step: runs one forward and backward pass, with bf16 autocast if true.

    Returns:
        the choice, and a sentence that says why.
    """
    if asked != "auto":
        return asked == "bf16", f"{asked} as asked"
    if device.type == "cuda":
        fit = torch.cuda.is_bf16_supported(including_emulation=False)
        return fit, "bf16: the GPU has it" if fit else "fp32: the GPU lacks bf16"
    if device.type != "cpu":
        return False, "fp32: bf16 is not tried on this device"
    pairs = _in_turn(lambda: step(False), lambda: step(True))
    use = all(plain > half * _WORTH_IT for plain, half in pairs)
    plain, half = min(pairs, key=lambda pair: pair[0] / max(pair[1], 1e-9))  # it decides
    return (
        use,
        f"{'bf16' if use else 'fp32'}: a probe took {plain:.3g} s in fp32, {half:.3g} s in bf16",
    )


def compile_if_faster(blocks: Sequence[nn.Module], step: Callable[[], None]) -> str:
    """Compile the blocks in place, and undo it where a step is no faster; say what came of it.

    Raises:
        TrainingError: there is nothing to compile with.
    """
    plain = timed(step)
    compiled = compiled_time(blocks, step, "train with --set run.compile=false")
    if compiled >= plain:
        set_compiled(blocks, False)
        return f"not compiled: a probe took {compiled:.3g} s compiled, {plain:.3g} s plain"
    return f"compiled: a probe took {compiled:.3g} s, {plain:.3g} s plain"


def compiled_time(blocks: Sequence[nn.Module], step: Callable[[], None], instead: str) -> float:
    """Compile the blocks in place, and return the seconds of a step then.

    Raises:
        TrainingError: there is nothing to compile with; the words end with what to do `instead`.
    """
    try:
        set_compiled(blocks, True)
        return timed(step)
    except (RuntimeError, OSError) as problem:  # a compiler that is missing, or fails
        set_compiled(blocks, False)
        raise TrainingError(
            f"torch.compile does not work here ({type(problem).__name__}: "
            f"{str(problem).splitlines()[0][:200]}); {instead}"
        ) from problem


def are_compiled(blocks: Sequence[nn.Module]) -> bool:
    """Tell whether all blocks are compiled."""
    return all(block._compiled_call_impl is not None for block in blocks)


def set_compiled(blocks: Sequence[nn.Module], on: bool) -> None:
    """Compile the blocks in place where they are not, or undo it."""
    for block in blocks:
        if not on:
            block._compiled_call_impl = None
        elif block._compiled_call_impl is None:
            block.compile()


def autocast(device: torch.device, bf16: bool) -> AbstractContextManager[object]:
    """Return the context in which the forward pass runs."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if bf16 else nullcontext()


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


def timed(work: Callable[[], None], *, runs: int = 2) -> float:
    """Return the shortest time of `runs` runs after a first one, seconds; of one if they are long.

    Finished on the GPU too.
    """
    first = once(work)
    return min(once(work) for _ in range(1 if first > _LONG_S else runs))


def _in_turn(first: Callable[[], None], second: Callable[[], None]) -> list[tuple[float, float]]:
    """Time two kinds of work side by side, after a first run of each; once if they are long."""
    longest = max(once(first), once(second))
    pairs = 1 if longest > _LONG_S else _PAIRS
    return [(once(first), once(second)) for _ in range(pairs)]


def once(work: Callable[[], None]) -> float:
    """Return the time of one run, seconds. Finished on the GPU too."""
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def memory_now() -> int:
    """Return the resident memory of this process, bytes."""
    return int(psutil.Process().memory_info().rss)
