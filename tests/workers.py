"""Functions for worker processes: spawned workers import them by name."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

STATE: list[str] = []


def double(x: int) -> int:
    return 2 * x


def misbehave(what: str) -> str:
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "segfault":
        ctypes.string_at(0)
    if what == "exit":
        os._exit(3)
    if what == "hang":
        time.sleep(1000)
    if what == "raise":
        raise ValueError("two\nlines of \udcff text")
    if what == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if what == "leave":
        raise SystemExit(2)
    return what


def allocate(size: int) -> int:
    return np.empty(size, np.uint8).nbytes


def misbehave_after(what: str) -> Iterator[str]:
    yield "first"
    yield misbehave(what)


def allocate_alone(size: int) -> list[int]:
    return [allocate(size)]


def modules(_: int) -> list[set[str]]:
    return [set(sys.modules)]


def wait_for_ever(_: int) -> Iterator[int]:
    yield os.getpid()
    time.sleep(1000)


def process_id(_: int) -> int:
    return os.getpid()


def receives_ctrl_c(_: int) -> bool:
    return signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, set())


def prepare(word: str) -> None:
    STATE.append(word)


def prepared(_: int) -> list[str]:
    return STATE


def leave_mark(folder: Path) -> None:
    (folder / f"{os.getpid()}").touch()
    time.sleep(1000)
