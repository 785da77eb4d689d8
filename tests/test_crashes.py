"""A stage that is killed or fails on its way leaves nothing that a second run does not mend."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="forks, and limits the size of a file")
def test_a_broken_stage_ends_at_its_second_run_as_if_nothing_had_happened() -> None:
    command = [sys.executable, "-m", "tests.crashes", "--cases", "12"]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ended.stdout == "12 cases, 0 wrong\n", ended.stdout + ended.stderr
