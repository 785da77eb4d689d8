"""Seconds until a command answers, as ratios to `python -c "import torch"` in the same run.

Marks: a refusal of wrong arguments or paths at most 0.3; `runs`, and `similar` of an indexed track,
at most 0.5; `classify` and `similar` of one new file at most 2.0; the first page of `explore` at
most 1.5. Processor seconds of the process and its children count, so that other work on the machine
matters less.

    subgenre demo --out demo
    python benchmarks/latency.py demo
"""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from subgenre.models.cache import CACHE

PR_SET_CHILD_SUBREAPER = 36  # of prctl(2): a process whose parent ends becomes ours
PROGRAM = (sys.executable, "-m", "subgenre")


def processor_s(action: Callable[[], object]) -> float:
    """Return the processor seconds of all processes that an action starts, workers included."""
    if sys.platform == "linux":  # the server that forks the workers outlives its command
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    action()
    with suppress(ChildProcessError):
        while True:
            os.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def command(words: tuple[str, ...], folder: Path, code: int) -> Callable[[], object]:
    """Return an action that runs a command in a folder and checks its exit code."""

    def run() -> None:
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode != code:
            raise SystemExit(f"{' '.join(words)}: exit code {done.returncode}\n{done.stderr}")

    return run


def of_new(name: str, track: Path, folder: Path) -> Callable[[], object]:
    """Return an action that runs a command on a file which the model has not embedded."""
    run = command((*PROGRAM, name, str(track)), folder, 0)

    def forget_and_run() -> None:
        for kept in folder.glob(f"fully_trained_models_*/{CACHE}"):
            shutil.rmtree(kept)
        run()

    return forget_and_run


def first_page(folder: Path) -> None:
    """Serve the map, fetch the page and its first data, and stop."""
    words = (*PROGRAM, "explore", "--port", "0")
    with subprocess.Popen(words, cwd=folder, stderr=subprocess.PIPE, text=True) as served:
        assert served.stderr is not None
        address = next(
            found[0] for line in served.stderr if (found := re.search(r"http://\S+", line))
        )
        for path in ("", "api/library"):
            urllib.request.urlopen(address + path).read()
        served.terminate()


def main() -> None:
    """Print each command's processor seconds, its ratio and its mark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demo", type=Path, help="what `subgenre demo` made")
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    demo = chosen.demo.resolve()
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed program is compiled once
    track = next(iter(sorted((demo / "WAV").rglob("*.mp3"))))
    with tempfile.TemporaryDirectory() as temporary:
        new = Path(temporary) / "new.mp3"  # another recording: the file without its last part
        new.write_bytes(track.read_bytes()[:-20_000])
        empty = Path(temporary) / "empty"
        empty.mkdir()
        index = Path(temporary) / "index"
        subprocess.run((*PROGRAM, "index", "WAV"), cwd=demo, check=True, capture_output=True)
        shutil.copytree(next(demo.glob("fully_trained_models_*")) / "index", index)
        actions = {
            "unknown option": (command((*PROGRAM, "train", "--nonsense", "1"), demo, 2), 0.3),
            "preprocess, no such folder": (command((*PROGRAM, "preprocess", "gone"), demo, 2), 0.3),
            "train, no features": (command((*PROGRAM, "train"), empty, 2), 0.3),
            "evaluate, no model": (command((*PROGRAM, "evaluate"), empty, 2), 0.3),
            "classify, no such file": (command((*PROGRAM, "classify", "gone.mp3"), demo, 2), 0.3),
            "similar, no such track": (command((*PROGRAM, "similar", "gone"), demo, 2), 0.3),
            "runs": (command((*PROGRAM, "runs"), demo, 0), 0.5),
            "similar, indexed track": (command((*PROGRAM, "similar", str(track)), demo, 0), 0.5),
            "classify, new file": (of_new("classify", new, demo), 2.0),
            "similar, new file": (of_new("similar", new, demo), 2.0),
            "explore, first page": (lambda: first_page(demo), 1.5),
        }
        reference = command((sys.executable, "-c", "import torch"), demo, 0)
        reference()  # the first reads the files from the disk
        torch_s = min(processor_s(reference) for _ in range(chosen.rounds))
        print(f"import torch: {torch_s:.2f} s")
        for name, (action, mark) in actions.items():
            action()
            began = time.perf_counter()
            seconds = min(processor_s(action) for _ in range(chosen.rounds))
            wall = (time.perf_counter() - began) / chosen.rounds
            ratio = seconds / torch_s
            held = "yes" if ratio <= mark else "NO"
            print(f"{name:28} {seconds:5.2f} s  ratio {ratio:4.2f}  mark {mark} {held}"
                  f"  ({wall:.1f} s by the clock)")  # fmt: skip


if __name__ == "__main__":
    main()
