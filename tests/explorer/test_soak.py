"""The soak for a moment: clients, uploads and updates of the index find no error."""

from __future__ import annotations

import time

import pytest
from benchmarks import soak

from tests.runs import sounding_run
from tests.small_library import replace_workers

pytestmark = pytest.mark.slow


def test_a_short_soak_finds_no_error(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        replace_workers(patch)
        run = sounding_run(tmp_path)
    (tmp_path / "music").mkdir()
    monkeypatch.setattr(soak, "update", lambda *_: time.sleep(0.1))  # a process of 5 s
    tally = soak.soak(run, tmp_path / "music", minutes=1 / 60, clients=2)
    assert tally.errors == []
    assert {"audio", "similar", "playlist", "bad place", "bad body"} <= tally.took.keys()
    assert tally.refusals > 0
    assert tally.memory_mb
