"""The terminal: messages on standard error, results on standard output."""

from __future__ import annotations

import json
import os
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from rich.cells import cell_len

from subgenre.core.progress import Progress

if TYPE_CHECKING:
    from rich.console import Console


class Terminal:
    """Prints messages, progress, tables and results; a `core.progress.Console`.

    Args:
        quiet: print only warnings and errors.
        as_json: print the result as one JSON object, and no tables.
        first: print at all; false in all but the first of several processes on one job. Errors
            are always printed.
    """

    def __init__(self, *, quiet: bool = False, as_json: bool = False, first: bool = True) -> None:
        from rich.console import Console

        self.quiet, self.as_json, self.first = quiet, as_json, first
        # without markup, so that brackets in tags and file names are printed as they are
        self.err = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
        self.out = Console(markup=False, highlight=False, soft_wrap=True)

    def info(self, text: str) -> None:
        """Print a message, unless quiet."""
        if self.first and not self.quiet:
            self.err.print(printable(text))

    def warn(self, text: str) -> None:
        """Print a warning."""
        if self.first:
            self.err.print(printable(text), style="yellow")

    def fail(self, text: str) -> None:
        """Print in one line why the command failed."""
        self.err.print(printable(f"subgenre: {text}".replace("\n", " ")), style="red")

    @contextmanager
    def progress(self, title: str) -> Iterator[Progress]:
        """Show a progress bar; where there is no terminal, print a line at each tenth."""
        if self.quiet or not self.first:
            yield lambda _done, _total: None
        elif self.err.is_terminal:
            with _bar(self.err, title) as update:
                yield update
        else:
            yield self._tenths(title)

    def _tenths(self, title: str) -> Progress:
        last = -1

        def update(done: int, total: int) -> None:
            nonlocal last
            tenth = 10 * done // max(total, 1)
            if tenth != last:
                last = tenth
                self.info(f"{title}: {done} of {total}")

        return update

    def result(self, value: Mapping[str, Any]) -> None:
        """Print a command's result as JSON, if `as_json`."""
        if self.as_json and self.first and sys.stdout:  # None: closed by the caller
            sys.stdout.write(json.dumps(value, ensure_ascii=True, allow_nan=False) + "\n")

    def table(
        self,
        title: str,
        columns: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        caption: str | None = None,
    ) -> None:
        """Print a table, unless quiet or `as_json`.

        It fits the width of the terminal; in a file or pipe it is as wide as its cells.
        """
        from rich.table import Table
        from rich.text import Text

        if self.quiet or self.as_json or not self.first:
            return
        cells = [[printable(cell) for cell in row] for row in (columns, *rows)]
        borders = 3 * len(columns) + 1
        free = not self.out.is_terminal and "COLUMNS" not in os.environ
        widths = _column_widths(cells, None if free else self.out.width - borders)
        head, *body = [
            [Text(_fold(*cell)) for cell in zip(row, widths, strict=True)] for row in cells
        ]
        table = Table(title=printable(title), width=sum(widths) + borders)
        table.title_justify = "left"
        for position, (name, width) in enumerate(zip(head, widths, strict=True)):
            text = any(letter.isalpha() for row in cells[1:] for letter in row[position])
            side: Literal["left", "right"] = "left" if text else "right"
            table.add_column(name, justify=side, width=width, no_wrap=True, overflow="ellipsis")
        for row in body:
            table.add_row(*row)
        self.out.print(table, soft_wrap=False, crop=False)
        if caption and not free:  # rich's own caption would break paths, which users copy
            width = self.out.width
            caption = textwrap.fill(caption, width, break_long_words=False, break_on_hyphens=False)
        if caption:
            self.out.print(printable(caption))


@contextmanager
def _bar(console: Console, title: str) -> Iterator[Progress]:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}", markup=False), BarColumn())
    with Bars(*columns, MofNCompleteColumn(), TimeRemainingColumn(), console=console) as bars:
        task = bars.add_task(printable(title), total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def printable(text: str) -> str:
    """Escape control characters and undecodable bytes, which could upset a terminal."""
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


# Words may break after an underscore, and after a hyphen or slash that a letter follows.
_BREAK = re.compile(r"(?<=_)(?=\w)|(?<=\w[-/])(?=[^\W\d])")
_MIN_WIDTH = 3


def _column_widths(rows: Sequence[Sequence[str]], total: int | None) -> list[int]:
    """Divide the width of a table among its columns.

    Each column gets the width of its longest word, and the columns with the longest cells get what
    is left. Where even the words don't fit, the widest columns shrink.

    Args:
        rows: of cells, with the header.
        total: width of all columns together; None: as wide as the cells.
    """
    columns = list(zip(*rows, strict=True))
    full = [max(cell_len(line) for c in column for line in c.split("\n")) for column in columns]
    if total is None or sum(full) <= total:
        return full
    widths = [max(cell_len(word) for c in column for word in _words(c)) for column in columns]
    while sum(widths) > total and max(widths) > _MIN_WIDTH:
        widths[widths.index(max(widths))] -= 1
    while sum(widths) < total:
        need = [long / max(width, 1) for long, width in zip(full, widths, strict=True)]
        widths[need.index(max(need))] += 1
    return widths


def _fold(text: str, width: int) -> str:
    """Break text between words into lines of at most `width`; a longer word stays whole."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for part in re.split(r"(?<=\S)(?=\s)", paragraph):
            for word in _BREAK.split(part):
                if line and cell_len(line + word) > width:
                    lines.append(line)
                    line = word.lstrip()
                else:
                    line += word
        lines.append(line)
    return "\n".join(lines)


def _words(text: str) -> list[str]:
    """Return the words of a cell as `_fold` keeps them whole."""
    return [word for part in text.split() for word in _BREAK.split(part)] or [""]
