"""The terminal: sentences on standard error, results on standard output, progress bars by rich."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from subgenre.core.progress import Progress


class Terminal:
    """Talks to a person, or stays quiet; never mixes messages into the results.

    Args:
        quiet: only warnings and errors.
        as_json: results as one JSON object on standard output.
        first: whether this is the process that talks, where several do the same work.
    """

    def __init__(self, *, quiet: bool = False, as_json: bool = False, first: bool = True) -> None:
        from rich.console import Console

        self.quiet, self.as_json, self.first = quiet, as_json, first
        # Tags and file names are shown as they are: nothing in them is markup.
        self.err = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
        self.out = Console(markup=False, highlight=False, soft_wrap=True)

    def info(self, text: str) -> None:
        """Tell something, unless quiet."""
        if self.first and not self.quiet:
            self.err.print(printable(text))

    def warn(self, text: str) -> None:
        """Tell something that matters even when quiet."""
        if self.first:
            self.err.print(printable(text), style="yellow")

    def fail(self, text: str) -> None:
        """Tell why the command ends, in one line."""
        self.err.print(printable(f"subgenre: {text}".replace("\n", " ")), style="red")

    @contextmanager
    def progress(self, title: str) -> Iterator[Progress]:
        """Show a bar on a terminal; elsewhere (a log file) a line at each tenth."""
        if self.quiet or not self.first:
            yield lambda _done, _total: None
        elif self.err.is_terminal:
            with _bar(self, title) as update:
                yield update
        else:
            yield _tenths(self, title)

    def result(self, value: Mapping[str, Any]) -> None:
        """Print a command's result for machines, if that was asked for."""
        if self.as_json and self.first:
            sys.stdout.write(json.dumps(value, ensure_ascii=True, allow_nan=False) + "\n")

    def table(
        self,
        title: str,
        columns: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        caption: str | None = None,
    ) -> None:
        """Print a table on standard output, unless the result goes out as JSON.

        On a terminal it is as wide as that, elsewhere (a file, a pipe) as wide as its cells.
        """
        from rich.table import Table
        from rich.text import Text

        from subgenre.cli import folding

        if self.as_json or not self.first:
            return
        cells = [[printable(cell) for cell in row] for row in (columns, *rows)]
        borders = 3 * len(columns) + 1
        free = not self.out.is_terminal and "COLUMNS" not in os.environ
        widths = folding.widths(cells, None if free else self.out.width - borders)
        head, *body = [
            [Text(folding.fold(*cell)) for cell in zip(row, widths, strict=True)] for row in cells
        ]
        table = Table(title=printable(title), width=sum(widths) + borders)
        table.title_justify = "left"
        for position, (name, width) in enumerate(zip(head, widths, strict=True)):
            words = any(letter.isalpha() for row in cells[1:] for letter in row[position])
            side: Literal["left", "right"] = "left" if words else "right"
            table.add_column(name, justify=side, width=width, no_wrap=True, overflow="ellipsis")
        for row in body:
            table.add_row(*row)
        self.out.print(table, soft_wrap=False, crop=False)
        if caption and not free:  # not the table's own: that breaks paths, which are to be copied
            whole = textwrap.TextWrapper(self.out.width, break_long_words=False)
            whole.break_on_hyphens = False
            caption = whole.fill(caption)
        if caption:
            self.out.print(printable(caption))


@contextmanager
def _bar(terminal: Terminal, title: str) -> Iterator[Progress]:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}", markup=False), BarColumn())
    with Bars(*columns, MofNCompleteColumn(), TimeRemainingColumn(), console=terminal.err) as bars:
        task = bars.add_task(printable(title), total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def _tenths(terminal: Terminal, title: str) -> Progress:
    said = -1

    def update(done: int, total: int) -> None:
        nonlocal said
        tenth = 10 * done // max(total, 1)
        if tenth != said:
            said = tenth
            terminal.info(f"{title}: {done} of {total}")

    return update


def printable(text: str) -> str:
    """Show what a terminal can't or must not show (control characters, broken names) escaped."""
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)
