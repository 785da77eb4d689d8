"""The device, the number format, and what a run will cost: measured, never assumed.

bf16 is several times slower than fp32 on a CPU without the instructions for it, and faster where it
has them: a timed probe decides.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import psutil
import torch

from subgenre.errors import TrainingError

# bf16 must win by this factor: what is within the noise of a probe stays exact.
_WORTH_IT = 1.15


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
    if not had[asked]:
        raise TrainingError(f"device '{asked}' can't be had here; choose --device auto or cpu")
    return torch.device(asked)


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
        fit = torch.cuda.is_bf16_supported()
        return fit, "bf16: the GPU has it" if fit else "fp32: the GPU lacks bf16"
    if device.type != "cpu":
        return False, "fp32: bf16 is not tried on this device"
    plain, half = timed(lambda: step(False)), timed(lambda: step(True))
    use = plain > half * _WORTH_IT
    return (
        use,
        f"{'bf16' if use else 'fp32'}: a step took {plain:.3g} s in fp32, {half:.3g} s in bf16",
    )


def autocast(device: torch.device, bf16: bool) -> AbstractContextManager[object]:
    """Return the context in which the forward pass runs."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if bf16 else nullcontext()


def timed(work: Callable[[], None], *, runs: int = 2) -> float:
    """Return the shortest time of `runs` runs after a first one, seconds."""
    work()
    best = float("inf")
    for _ in range(runs):
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best


def peak_memory() -> int:
    """Return the largest resident memory of this process so far, bytes (macOS: its present one)."""
    info = psutil.Process().memory_info()
    if hasattr(info, "peak_wset"):  # Windows
        return int(info.peak_wset)
    status = Path("/proc/self/status")
    if status.is_file():
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        return int(fields["VmHWM"].split()[0]) * 1024
    return int(info.rss)
