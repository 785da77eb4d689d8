from __future__ import annotations

import pytest
import torch
from torch import nn

from subgenre.core import hardware
from subgenre.errors import TrainingError

CPU = torch.device("cpu")
MB = 2**20


def test_a_missing_device_is_an_error() -> None:
    with pytest.raises(TrainingError, match="no device 'tpu'; choose auto, cuda, mps or cpu"):
        hardware.pick_device("tpu")


@pytest.mark.parametrize("device", ["cpu", "mps", "cuda"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_given_precision_is_used(precision: str, device: str) -> None:
    assert hardware.pick_bf16(precision, torch.device(device))[0] is (precision == "bf16")


@pytest.mark.parametrize("native", [True, False])
def test_bf16_is_used_where_the_processor_computes_in_it(monkeypatch, native) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    for device in ("cuda", "cpu"):
        bf16, reason = hardware.pick_bf16("auto", torch.device(device))
        assert bf16 is native
        assert reason.startswith("bf16:" if native else "fp32:")
    assert hardware.pick_bf16("auto", torch.device("mps"))[0] is False


def test_the_memory_of_a_step_is_what_its_backward_pass_keeps(monkeypatch) -> None:
    network = nn.Linear(1, 2, bias=False)  # its weight is kept for the backward pass too

    def step() -> None:
        chunks = torch.zeros(MB, 1), torch.zeros(MB + MB // 2, 1)  # each is kept
        torch.autograd.backward([network(each).sum() for each in chunks])

    before, added = hardware.step_memory(step, network, CPU)
    assert before > 0
    assert added == (4 + 6 + 2 * 6) * MB  # two gradients of the largest beside what is kept


@pytest.mark.parametrize(
    ("problem", "memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (MemoryError("Unable to allocate 9 GiB for an array"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_missing_memory_gets_a_clear_error_and_other_errors_pass(problem, memory) -> None:
    with (
        pytest.raises(TrainingError if memory else type(problem)) as caught,
        hardware.clear_memory_errors(),
    ):
        raise problem
    assert caught.value.__cause__ is problem if memory else caught.value is problem
