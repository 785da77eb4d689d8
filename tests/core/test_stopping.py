"""A signal ends the program wherever it is, also where Python would lose the exception."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import signal, sys
from pathlib import Path
from subgenre.core import stopping

signal.signal(signal.SIGINT, signal.default_int_handler)

def work():
    Path("ready").touch()
    end = __import__("time").monotonic() + 30
    while __import__("time").monotonic() < end:
        pass

class Dying:
    def __del__(self):
        work()

try:
    with stopping.caught():
        {place}
except KeyboardInterrupt:
    sys.exit(130)
except stopping.Terminated:
    sys.exit(143)
"""
PLACES = {
    "plain": "work()",
    "destructor": "Dying(); work()",
    "import": "import guarded",
}


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM to another process")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("place", PLACES)
def test_a_signal_is_never_lost(tmp_path: Path, place: str, number: signal.Signals) -> None:
    (tmp_path / "run.py").write_text(PROGRAM.format(place=PLACES[place]))
    (tmp_path / "guarded.py").write_text(
        "try:\n    import slow\nexcept BaseException:\n    slow = None\n"
        "import __main__\n__main__.work()\n"
    )
    (tmp_path / "slow.py").write_text("import __main__\n__main__.work()\n")
    running = subprocess.Popen(
        [sys.executable, "run.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(1000):
            if (tmp_path / "ready").exists():
                break
            time.sleep(0.01)
        running.send_signal(number)
        assert running.wait(timeout=10) == 128 + number
    finally:
        running.kill()
