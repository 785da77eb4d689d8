"""How tests call a command as a program does."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from subgenre.cli import main

Call = Callable[..., tuple[int, Any, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command with --json: exit code, its object, its messages."""

    def run(*words: object) -> tuple[int, Any, str]:
        capsys.readouterr()
        code = main([*map(str, words), "--json"])
        out, err = capsys.readouterr()
        return code, json.loads(out) if out else None, err

    return run
