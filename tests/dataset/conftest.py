"""A small library and workers that run in this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.small_library import make_library, replace_workers


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_library(tmp_path / "WAV")


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return replace_workers(monkeypatch)
