"""CSV files that a spreadsheet opens: no cell is a formula, no line break ends a row.

A text that a spreadsheet would run starts with an apostrophe in the file; `plain` takes it away.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from subgenre.core import files

_FORMULA = re.compile(r"'*[=+\-@\t\r]")  # OWASP, CSV Injection


def write(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    """Write rows as UTF-8, the header first; bytes that are not UTF-8 are escaped."""
    text = "".join(_line(row) + "\n" for row in rows)
    files.write_text(path, text.encode("utf-8", "backslashreplace").decode("utf-8"))


def delimiter(text: str) -> str:
    """Return what separates the cells of the first line: a comma, a semicolon or a tab."""
    first = re.split("[\r\n]", text, maxsplit=1)[0]
    return max(",;\t", key=first.count)


def plain(cell: str) -> str:
    """Return the text of a cell as it was written."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def _line(row: Sequence[Any]) -> str:
    line = io.StringIO()
    guarded = [f"'{c}" if isinstance(c, str) and _FORMULA.match(c) else c for c in row]
    csv.writer(line, lineterminator="\r\n").writerow(guarded)  # quotes cells with either character
    return line.getvalue()[:-2]
