from __future__ import annotations

import csv
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from subgenre.core import csv_tables

CELLS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"))


@given(st.lists(st.tuples(CELLS, CELLS)))
def test_any_text_comes_back(tmp_path_factory, rows) -> None:
    path: Path = tmp_path_factory.mktemp("tables") / "t.csv"
    csv_tables.write(path, rows)
    with path.open(encoding="utf-8", newline="") as file:
        found = list(csv.reader(file, strict=True))
    assert [tuple(map(csv_tables.plain, row)) for row in found] == rows


def test_no_cell_is_a_formula_and_numbers_stay_numbers(tmp_path: Path) -> None:
    dangerous = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"]
    csv_tables.write(tmp_path / "t.csv", [dangerous, [-1.5, None, "'tis", "a\rb", "x", "y"]])
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as file:
        first, second = csv.reader(file)
    assert all(cell.startswith("'") for cell in first)
    assert second == ["-1.5", "", "'tis", "a\rb", "x", "y"]
