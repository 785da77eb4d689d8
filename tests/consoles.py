"""Consoles for tests: one keeps its messages, one sends a signal at a step of a progress bar."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from subgenre.core.progress import Silent


class RecordingConsole(Silent):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def info(self, text: str) -> None:
        self.messages.append(text)

    warn = info


class SignallingConsole(Silent):
    """Sends this process a signal at a step of a progress bar."""

    def __init__(self, number: signal.Signals, at: int, title: str = "training") -> None:
        self.number, self.at, self.title = number, at, title

    @contextmanager
    def progress(self, title: str) -> Iterator[Callable[[int, int], None]]:
        def update(done: int, _total: int) -> None:
            if title == self.title and done == self.at:
                os.kill(os.getpid(), self.number)

        yield update
