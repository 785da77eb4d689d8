"""What the probes decide, by a clock that the steps themselves move: no timing here is real."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from subgenre.config import RunConfig
from subgenre.core import hardware
from subgenre.errors import TrainingError
from subgenre.training.rehearsal import Rehearsal

CPU = torch.device("cpu")
MB = 2**20


class Clock:
    """Stands for the module `time`; work takes as long as it says."""

    def __init__(self) -> None:
        self.now, self.runs = 100.0, 0

    def perf_counter(self) -> float:
        return self.now

    def work(self, seconds: float) -> None:
        self.runs += 1
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(hardware, "time", found)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return found


def never(_bf16: bool) -> None:
    raise AssertionError("no probe is needed")


@pytest.mark.parametrize(
    ("fp32_s", "bf16_s", "bf16"),
    [
        (0.30, 0.10, True),
        (0.10, 0.30, False),
        (0.10, 0.10, False),
        (0.11, 0.10, False),  # within the noise of a probe
        (0.12, 0.10, True),
        (30.0, 10.0, True),
    ],
)
def test_a_cpu_computes_in_bf16_only_where_the_probe_is_faster(
    clock: Clock, fp32_s: float, bf16_s: float, bf16: bool
) -> None:
    def step(half: bool) -> None:
        clock.work(bf16_s if half else fp32_s)

    chosen, why = hardware.pick_dtype("auto", CPU, step)
    assert chosen is bf16
    assert why.startswith("bf16:" if bf16 else "fp32:")
    assert f"{fp32_s:.3g} s in fp32, {bf16_s:.3g} s in bf16" in why


def test_the_run_that_decides_is_the_one_that_is_told(clock: Clock) -> None:
    fp32 = iter([0.20, 0.20, 0.20, 0.10, 0.20, 0.20])
    chosen, why = hardware.pick_dtype(
        "auto", CPU, lambda half: clock.work(0.10 if half else next(fp32))
    )
    assert not chosen
    assert "0.1 s in fp32, 0.1 s in bf16" in why


def test_compiling_again_without_a_compiler_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    blocks: list[nn.Module] = [nn.Linear(2, 2)]
    monkeypatch.setattr(torch, "compile", lambda call: call)

    def step() -> None:
        raise RuntimeError("no C++ compiler")

    with pytest.raises(TrainingError, match=r"no C\+\+ compiler.*; go on elsewhere"):
        hardware.compiled_time(blocks, step, "go on elsewhere")
    assert not hardware.are_compiled(blocks)


def test_one_lucky_run_of_many_does_not_make_the_choice(clock: Clock) -> None:
    """A machine with other work beside must not give other weights than an idle one."""
    fp32 = iter([0.10, 0.10, 0.10, 0.30, 0.10, 0.10])

    def step(half: bool) -> None:
        clock.work(0.10 if half else next(fp32))

    assert hardware.pick_dtype("auto", CPU, step)[0] is False


def test_a_device_that_there_is_not_is_an_error() -> None:
    with pytest.raises(TrainingError, match="no device 'tpu'; choose auto, cpu, cuda, mps"):
        hardware.pick_device("tpu")


@pytest.mark.parametrize("device", ["cpu", "mps", "cuda"])
@pytest.mark.parametrize("asked", ["fp32", "bf16"])
def test_what_is_asked_for_is_not_probed(asked: str, device: str) -> None:
    chosen, why = hardware.pick_dtype(asked, torch.device(device), never)
    assert chosen is (asked == "bf16")
    assert why == f"{asked} as asked"


@pytest.mark.parametrize("has", [True, False])
def test_a_gpu_is_asked_and_other_devices_stay_exact(
    monkeypatch: pytest.MonkeyPatch, has: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has)
    assert hardware.pick_dtype("auto", torch.device("cuda"), never)[0] is has
    assert hardware.pick_dtype("auto", torch.device("mps"), never)[0] is False


def test_the_first_run_does_not_count_and_long_work_is_timed_once(clock: Clock) -> None:
    each = iter([0.9, 0.3, 0.2, 0.1])
    assert hardware.timed(lambda: clock.work(next(each))) == pytest.approx(0.2)
    clock.runs, slow = 0, iter([5.0, 4.0, 3.0])
    assert hardware.timed(lambda: clock.work(next(slow))) == pytest.approx(4.0)
    assert clock.runs == 2


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """Two blocks, compiled in name only."""
    monkeypatch.setattr(torch, "compile", lambda call: call)
    return [nn.Linear(2, 2), nn.Linear(2, 2)]


def compiled(blocks: list[nn.Module]) -> list[bool]:
    return [block._compiled_call_impl is not None for block in blocks]


def step_of(clock: Clock, blocks: list[nn.Module], plain: float, fast: float) -> Callable[[], None]:
    return lambda: clock.work(fast if all(compiled(blocks)) else plain)


def test_compiled_blocks_are_kept_where_a_step_is_faster(
    clock: Clock, blocks: list[nn.Module]
) -> None:
    said = hardware.compile_if_faster(blocks, step_of(clock, blocks, 0.5, 0.25))
    assert compiled(blocks) == [True, True]
    assert said == "compiled: a probe took 0.25 s, 0.5 s plain"


@pytest.mark.parametrize("seconds", [0.5, 0.75])
def test_compilation_is_dropped_where_a_step_is_no_faster(
    clock: Clock, blocks: list[nn.Module], seconds: float
) -> None:
    said = hardware.compile_if_faster(blocks, step_of(clock, blocks, 0.5, seconds))
    assert compiled(blocks) == [False, False]
    assert said == f"not compiled: a probe took {seconds} s compiled, 0.5 s plain"


def test_a_compiler_that_fails_is_named_and_undone(clock: Clock, blocks: list[nn.Module]) -> None:
    def step() -> None:
        clock.work(0.5)
        if any(compiled(blocks)):
            raise RuntimeError("no C++ compiler\nlong trace")

    with pytest.raises(TrainingError, match=r"no C\+\+ compiler\); train with .*compile=false"):
        hardware.compile_if_faster(blocks, step)
    assert compiled(blocks) == [False, False]


@pytest.fixture
def rehearsal(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Rehearsal:
    """A step of 0.2 s (0.1 s in bf16) that keeps 4 and 6 MB, in a process of 100."""
    monkeypatch.setattr(hardware, "memory_now", lambda: 100 * MB)
    network = nn.Linear(1, 2, bias=False)  # its weight is kept for the backward pass too

    def step(half: bool) -> None:
        clock.work(0.1 if half else 0.2)
        chunks = torch.zeros(MB, 1), torch.zeros(MB + MB // 2, 1)  # each is kept
        torch.autograd.backward([network(each).sum() for each in chunks])

    return Rehearsal(step, ratio=4.0, costly=True, device=CPU, network=network)


def test_the_time_grows_with_the_steps_and_the_size_of_one(rehearsal: Rehearsal) -> None:
    def seconds(steps: int, bf16: bool = False) -> float:
        told = rehearsal.estimate(bf16, "why", steps=steps, learning=0, copies=1)
        assert (told.steps, told.why) == (steps, "why")
        return told.seconds

    assert seconds(10) == pytest.approx(0.2 * 4 * 10)
    assert seconds(1000) == pytest.approx(100 * seconds(10))
    assert seconds(10, bf16=True) == pytest.approx(0.1 * 4 * 10)
    assert seconds(0) == 0


def test_the_memory_grows_with_what_learns_and_what_is_kept_of_it(rehearsal: Rehearsal) -> None:
    def memory(learning: int, copies: int) -> int:
        return rehearsal.estimate(False, "", steps=10, learning=learning, copies=copies).memory

    idle = (100 + 4 * (4 + 6 + 2 * 6)) * MB  # two gradients of the largest beside what is kept
    assert memory(0, 1) == idle
    assert memory(1_000_000, 1) == idle + 3 * 4_000_000  # the gradient, and AdamW's two
    assert memory(1_000_000, 2) == idle + 4 * 4_000_000  # the best weights too
    assert memory(2_000_000, 1) - idle == 2 * (memory(1_000_000, 1) - idle)


def test_a_head_alone_is_not_probed() -> None:
    head = Rehearsal(never, ratio=1.0, costly=False, device=CPU, network=nn.Linear(1, 1))
    assert head.choose(RunConfig()) == (False, "fp32: the head alone is small")
    assert head.choose(RunConfig(precision="bf16"))[0] is True


def test_a_deep_network_is_probed(rehearsal: Rehearsal) -> None:
    chosen, why = rehearsal.choose(RunConfig())
    assert chosen
    assert "0.2 s in fp32, 0.1 s in bf16" in why


@pytest.mark.parametrize(
    ("problem", "lacking"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (MemoryError("Unable to allocate 9 GiB for an array"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_a_want_of_memory_is_told_and_no_other_fault_is_taken_for_it(
    problem: Exception, lacking: bool
) -> None:
    with (
        pytest.raises(TrainingError if lacking else type(problem)) as caught,
        hardware.memory_told(),
    ):
        raise problem
    assert caught.value.__cause__ is problem if lacking else caught.value is problem
