"""The cases of `device_cases.py`, in a process of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_everything_runs_on_a_device_that_refuses_to_mix_with_the_cpu() -> None:
    """Torch counts the devices at its first backward pass, so it must not have had one before."""
    cases = Path(__file__).with_name("device_cases.py")
    options = ["-q", "-p", "no:cacheprovider", "--assert=plain"]
    command = [sys.executable, "-m", "pytest", *options, str(cases)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert found.returncode == 0, found.stdout[-8000:]
