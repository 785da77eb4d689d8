"""Tables that fit a terminal: how wide each column is, and cells folded between words."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.cells import cell_len

# after an underscore, and between the words of well-known or genre/subgenre: not within a number
_BREAK = re.compile(r"(?<=_)(?=\w)|(?<=\w[-/])(?=[^\W\d])")
_LEAST = 3


def widths(rows: Sequence[Sequence[str]], room: int | None) -> list[int]:
    """Share out the width of a table: each column's, in cells of the terminal.

    What fits is not folded. Otherwise each column is as wide as its longest word, and those with
    the longest cells get what is left; where even the words don't fit, the widest columns give way.

    Args:
        rows: of cells, the head of the table among them.
        room: for all columns together; None: as much as they take.
    """
    columns = list(zip(*rows, strict=True))
    most = [max(cell_len(line) for c in column for line in c.split("\n")) for column in columns]
    if room is None or sum(most) <= room:
        return most
    found = [max(cell_len(word) for c in column for word in _words(c)) for column in columns]
    while sum(found) > room and max(found) > _LEAST:
        found[found.index(max(found))] -= 1
    while sum(found) < room:
        need = [long / max(width, 1) for long, width in zip(most, found, strict=True)]
        found[need.index(max(need))] += 1
    return found


def fold(text: str, width: int) -> str:
    """Break text into lines of at most `width` between words; a word that is longer stays whole."""
    lines: list[str] = []
    for given in text.split("\n"):
        line = ""
        for part in re.split(r"(?<=\S)(?=\s)", given):
            for word in _BREAK.split(part):
                if line and cell_len(line + word) > width:
                    lines.append(line)
                    word = word.lstrip()
                    line = ""
                line += word
        lines.append(line)
    return "\n".join(lines)


def _words(text: str) -> list[str]:
    """Return what `fold` keeps whole."""
    return [word for part in text.split() for word in _BREAK.split(part)] or [""]
