"""What many tests share: where the recordings are, and when a missing tool is a failure."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
CORPUS = REPOSITORY.parent / "shared" / "corpus"


def need(condition: bool, reason: str) -> None:
    """Skip the test unless `condition`; where everything is required, fail instead."""
    if condition:
        return
    if os.environ.get("SUBGENRE_REQUIRE_ALL") == "1":
        pytest.fail(f"required here: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The shared recordings' library folder (genre/subgenre/*)."""
    need((CORPUS / "WAV").is_dir(), "the shared recordings are not beside the checkout")
    return CORPUS / "WAV"


@pytest.fixture
def keyboard() -> Iterator[None]:
    """Ctrl-C as at a terminal: a background job of a script ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
