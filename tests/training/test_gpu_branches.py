"""What the program does on CUDA or a Mac's GPU alone, with recorders in place of the device."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from subgenre.core import hardware
from subgenre.training import distributed, inputs

CUDA, MPS, CPU = (torch.device(name) for name in ("cuda", "mps", "cpu"))


@pytest.mark.parametrize(
    ("cuda", "mps", "chosen"),
    [(True, False, "cuda"), (True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_takes_the_gpu_that_is_there(monkeypatch, cuda, mps, chosen) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert hardware.pick_device("auto").type == chosen


def test_the_generators_of_the_cpu_and_of_the_device_are_seeded(monkeypatch) -> None:
    seeds: dict[str, int] = {}
    monkeypatch.setattr(torch.cuda, "manual_seed", lambda seed: seeds.update(cuda=seed))
    monkeypatch.setattr(torch.mps, "manual_seed", lambda seed: seeds.update(mps=seed))
    with torch.random.fork_rng(devices=[]):
        hardware.seed_device(CUDA, 5)
        hardware.seed_device(MPS, 6)
        drawn = torch.rand(3)
        hardware.seed_device(CPU, 6)
        assert torch.equal(torch.rand(3), drawn)
    assert seeds == {"cuda": 5, "mps": 6}


def test_the_memory_of_a_step_on_cuda_is_its_peak_over_what_was_in_use(monkeypatch) -> None:
    used = {"now": 100, "peak": 900}  # the peak of earlier work
    monkeypatch.setattr(
        torch.cuda, "reset_peak_memory_stats", lambda _device: used.update(peak=used["now"])
    )
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _device: used["now"])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _device: used["peak"])
    step = lambda: used.update(peak=used["peak"] + 70)  # noqa: E731
    assert hardware.step_memory(step, nn.Linear(1, 1), CUDA) == (100, 70)


@pytest.mark.parametrize(("device", "waits"), [(CUDA, [CUDA]), (MPS, [MPS]), (CPU, [])])
def test_a_step_is_timed_until_the_device_has_finished(monkeypatch, device, waits) -> None:
    waited: list[torch.device] = []
    monkeypatch.setattr(torch.accelerator, "synchronize", waited.append)
    assert hardware.step_seconds(lambda: None, device) >= 0
    assert waited == waits


@pytest.mark.parametrize(("bf16", "expected"), [(True, torch.bfloat16), (False, None)])
def test_the_forward_pass_on_cuda_computes_in_bf16_on_request(monkeypatch, bf16, expected) -> None:
    opened: dict[str, Any] = {}
    monkeypatch.setattr(
        torch, "autocast", lambda kind, dtype: opened.update(kind=kind, dtype=dtype)
    )
    hardware.autocast(CUDA, bf16)
    assert opened == ({"kind": "cuda", "dtype": expected} if bf16 else {})


class Stored:
    """A batch that records how it travels."""

    def __init__(self, log: list[str]) -> None:
        self.log = log

    def pin_memory(self) -> Stored:
        self.log.append("pinned")
        return self

    def to(self, device: torch.device, non_blocking: bool = False) -> Stored:
        self.log.append(f"{device.type}{' while computing' if non_blocking else ''}")
        return self


@pytest.mark.parametrize(
    ("device", "on_disk", "deep", "expected"),
    [
        (CUDA, True, True, ["pinned", "cuda while computing"]),
        (CUDA, False, True, ["pinned", "cuda while computing"]),
        (CUDA, False, False, ["cuda"]),
        (MPS, True, True, ["mps while computing"]),
        (CPU, False, True, ["cpu"]),
    ],
)
def test_only_batches_for_cuda_are_pinned(device, on_disk, deep, expected) -> None:
    log: list[str] = []
    source: Any = SimpleNamespace(on_disk=on_disk, deep=deep, load=lambda _rows: Stored(log))
    batches = [np.array([0, 1]), np.array([2])]
    assert len(list(inputs.prefetch(source, batches, device))) == 2
    assert sorted(log) == sorted(2 * expected)


@pytest.mark.parametrize(("device", "backend"), [("cuda", "nccl"), ("cpu", "gloo")])
def test_each_process_takes_the_gpu_of_its_local_rank(monkeypatch, device, backend) -> None:
    started: dict[str, Any] = {}
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "1"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setattr(torch.cuda, "set_device", lambda number: started.update(gpu=number))
    fake = SimpleNamespace(
        is_initialized=lambda: False,
        init_process_group=lambda name, timeout: started.update(backend=name),
        get_rank=lambda: 1,
        get_world_size=lambda: 2,
        distributed_c10d=SimpleNamespace(_set_pg_timeout=lambda timeout: None),
    )
    monkeypatch.setattr(distributed, "dist", fake)
    assert distributed.start(device) == distributed.Group(1, 2, 1)
    assert started == {"backend": backend} | ({"gpu": 1} if device == "cuda" else {})
