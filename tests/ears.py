"""Listeners for tests: what is said is kept, or a signal is sent while a bar stands at a step."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from subgenre.core.progress import Silent


class Ear(Silent):
    def __init__(self) -> None:
        self.told: list[str] = []

    def info(self, text: str) -> None:
        self.told.append(text)

    warn = info


class Signalled(Silent):
    """Sends this process a signal while a bar stands at a step."""

    def __init__(self, number: signal.Signals, at: int, title: str = "training") -> None:
        self.number, self.at, self.title = number, at, title

    @contextmanager
    def progress(self, title: str) -> Iterator[Callable[[int, int], None]]:
        def update(done: int, _total: int) -> None:
            if title == self.title and done == self.at:
                os.kill(os.getpid(), self.number)

        yield update
