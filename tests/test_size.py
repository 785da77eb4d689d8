"""Files and functions stay short enough to be read in one go."""

from __future__ import annotations

import ast
from pathlib import Path

import subgenre

PACKAGE = Path(subgenre.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
MOST_IN_FILE, MOST_IN_FUNCTION = 350, 60


def n_lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def functions(path: Path) -> list[tuple[str, int]]:
    """Each function or method, nested ones too, and its lines from `def` to its end."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [
        (f"{path.relative_to(PACKAGE)}: {node.name}", (node.end_lineno or 0) - node.lineno + 1)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def test_no_file_is_longer_than_a_sitting() -> None:
    assert len(FILES) > 100
    long = {str(path.relative_to(PACKAGE)): n_lines(path) for path in FILES}
    assert {name: n for name, n in long.items() if n > MOST_IN_FILE} == {}


def test_the_trainer_is_a_visible_loop() -> None:
    assert n_lines(PACKAGE / "train.py") < MOST_IN_FILE


def test_no_function_is_longer_than_a_screen() -> None:
    found = [one for path in FILES for one in functions(path)]
    assert len(found) > 500
    assert [(name, n) for name, n in found if n > MOST_IN_FUNCTION] == []
