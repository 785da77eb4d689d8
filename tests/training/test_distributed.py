"""Two processes against one: same losses, same gradients, same weights."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from torch import nn

from subgenre.core import stopping
from subgenre.errors import ConfigError, TrainingError
from subgenre.training import distributed
from subgenre.training.distributed import Group


@pytest.mark.slow
def test_processes_that_do_not_meet_are_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:  # nobody listens there
        closed.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(closed.getsockname()[1])}
        for name, value in (place | {"RANK": "1", "WORLD_SIZE": "2"}).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(distributed, "_JOIN_TIMEOUT", timedelta(seconds=1))
        with pytest.raises(TrainingError, match="can't reach one another"):
            distributed.start("cpu")


def test_shares_cover_the_batch_once() -> None:
    batch = np.arange(11)
    parts = [distributed.share(batch, Group(rank, 3)) for rank in range(3)]
    assert np.array_equal(np.concatenate(parts), batch)
    assert {len(part) for part in parts} == {3, 4}
    with pytest.raises(ConfigError, match="can't be shared by 3 processes"):
        distributed.share(batch[:2], Group(0, 3))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def join(rank: int, port: int) -> Group:
    """Become one of two processes, as torchrun would have it."""
    os.environ.update(
        RANK=str(rank),
        WORLD_SIZE="2",
        LOCAL_RANK=str(rank),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    torch.set_num_threads(1)
    return distributed.start("cpu")


def two_processes(rank: Callable[..., None], *arguments: object) -> None:
    """Run `rank(number, port, *arguments)` in two forks of this process: torch is there already."""
    mp.start_processes(rank, args=(free_port(), *arguments), nprocs=2, start_method="fork")


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).double()


def pairwise(vectors: torch.Tensor) -> torch.Tensor:
    """A loss that ties every row to every other."""
    return torch.cdist(vectors, vectors).tanh().sum() + (vectors @ vectors.T).square().mean()


def work(rank: int, port: int, folder: Path) -> None:
    group = join(rank, port)
    x = torch.randn(7, 6, generator=torch.Generator().manual_seed(1)).double()
    model = net()
    mine = distributed.share(np.arange(7), group)
    loss = pairwise(distributed.gather(model(x[mine]), group))
    loss.backward()
    distributed.sum_gradients(model.parameters(), group)
    flags = [distributed.any_process(rank == 1, group, torch.device("cpu"))]
    flags.append(distributed.any_process(False, group, torch.device("cpu")))
    timeout = torch.distributed.group.WORLD._get_backend(torch.device("cpu")).options._timeout
    torch.save(
        {
            "loss": loss.detach(),
            "grads": [p.grad for p in model.parameters()],
            "flags": flags,
            "timeout_s": timeout.total_seconds(),
        },
        folder / f"{rank}.pt",
    )
    distributed.stop()


def _waits(port: int) -> None:
    with stopping.caught():
        join(0, port)


@pytest.mark.slow
def test_a_process_that_waits_for_another_ends_at_once() -> None:
    """torchrun stops it so when the other has died."""
    port = free_port()
    waiting = mp.get_context("fork").Process(target=_waits, args=(port,))
    waiting.start()
    while waiting.is_alive():
        with contextlib.suppress(ConnectionRefusedError):  # it does not yet listen
            socket.create_connection(("127.0.0.1", port)).close()
            break
    waiting.terminate()
    waiting.join(timeout=20)
    code = waiting.exitcode
    waiting.kill()
    assert code == -signal.SIGTERM


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one(tmp_path: Path) -> None:
    two_processes(work, tmp_path)
    x = torch.randn(7, 6, generator=torch.Generator().manual_seed(1)).double()
    model = net()
    loss = pairwise(model(x))
    loss.backward()
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert torch.allclose(found["loss"], loss.detach(), atol=1e-10)
        for grad, parameter in zip(found["grads"], model.parameters(), strict=True):
            assert torch.allclose(grad, parameter.grad, atol=1e-10)
        assert found["flags"] == [True, False]
        assert found["timeout_s"] == 12 * 3600  # that of joining is shorter


def test_what_learns_in_no_process_stays_without_a_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Threads in place of processes: a parameter frozen, one learning nowhere, one in one alone."""
    meet, sent = threading.Barrier(2, timeout=10), {}

    def all_reduce(flat: torch.Tensor) -> None:
        sent[threading.get_ident()] = flat.clone()
        meet.wait()
        flat.copy_(sum(sent.values()))
        meet.wait()

    def learn(rank: int) -> list[list[float] | None]:
        frozen, everywhere, here, nowhere = (nn.Parameter(torch.ones(2)) for _ in range(4))
        frozen.requires_grad_(False)
        everywhere.grad = torch.full((2,), 1.0 + rank)
        if rank == 1:
            here.grad = torch.full((2,), 5.0)
        every = [frozen, everywhere, here, nowhere]
        distributed.sum_gradients(every, Group(rank, 2))
        return [None if p.grad is None else p.grad.tolist() for p in every]

    monkeypatch.setattr(distributed.dist, "all_reduce", all_reduce)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(learn, range(2)))
    assert found == [[None, [3.0, 3.0], [5.0, 5.0], None]] * 2
