"""Messages, warnings and progress of long work, for whoever listens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Progress = Callable[[int, int], None]


class Console(Protocol):
    """A listener; the command line has one for the terminal, a notebook may bring its own."""

    def info(self, text: str) -> None:
        """Report an ordinary event."""

    def warn(self, text: str) -> None:
        """Report something that the user should look at."""

    def progress(self, title: str) -> AbstractContextManager[Progress]:
        """Open a progress bar; the function it gives takes (done, total)."""


class Silent:
    """A listener that drops everything."""

    def info(self, text: str) -> None:
        """Drop the sentence."""

    def warn(self, text: str) -> None:
        """Drop the warning."""

    @contextmanager
    def progress(self, title: str) -> Iterator[Progress]:  # noqa: ARG002 - one interface
        """Give a function that does nothing."""
        yield lambda _done, _total: None


class WarningsOnly(Silent):
    """Passes on the warnings of many small trainings; a line for each step of them is too much."""

    def __init__(self, console: Console) -> None:
        self.warn = console.warn  # type: ignore[method-assign]
