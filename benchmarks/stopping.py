"""The time from Ctrl-C or SIGTERM to the end of a command, at seeded moments of each stage.

    python benchmarks/stopping.py [kills a stage] [stage ...]

Makes the demo's library in a temporary folder. Each stage runs once undisturbed, for its duration;
the moments are drawn within it. Prints each stop with the phase that it met, then the worst of each
stage; 2 s are promised.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

import psutil

LIMIT_S = 2.0
GIVEN_UP_S = 60.0
LONGEST_S = 30.0  # of the undisturbed run; the explorer has no end
FEATURES = ("--features", "preprocessed_features")
# the command, and the folders that it writes
STAGES = {
    "preprocess": (["preprocess", "WAV", "--backbone", "musicnn", "--out", "f"], ["f"]),
    "train": (["train", *FEATURES, "--out", "m", "--checkpoints", "c"], ["m", "c"]),
    "train anew": (["train", "--features", "fresh", "--out", "m", "--checkpoints", "c"], []),
    "evaluate": (["evaluate", "--run", "model"], ["model/report.html"]),
    "folds": (["evaluate", "--folds", "3", "--workers", "1", "--out", "v"], ["v"]),
    "folds side by side": (["evaluate", "--folds", "3", "--out", "v"], ["v"]),
    "tune": (["tune", *FEATURES, "--trials", "3", "--kept", "k"], ["k"]),
    "index": (["index", "WAV", "--run", "model", "--index", "i"], ["i"]),
    "embed": (["embed", "WAV", "--run", "copy", "--out", "e.parquet"], ["copy/.vectors"]),
    "classify": (["classify", "WAV", "--run", "copy"], ["copy/.vectors"]),
    "playlist": (["playlist", "--expand", "ambient", "--run", "model", "--out", "p.m3u8"], []),
    "explore": (["explore", "--run", "model", "--port", "0"], []),
    "doctor": (["doctor", *FEATURES], ["doctor"]),
    "run": (["run", "../WAV", "--backbone", "musicnn"], ["r"]),
}


def start(name: str, log: IO[str]) -> subprocess.Popen[str]:
    """Start a stage without what an earlier start of it has written.

    As a terminal does: a process that a script starts in the background ignores Ctrl-C.
    """
    words, written = STAGES[name]
    for path in map(Path, written):
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    if name == "train anew":
        shutil.rmtree("fresh/.vectors", ignore_errors=True)
        shutil.rmtree("m", ignore_errors=True)
    place = Path("r" if name == "run" else "")
    place.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "subgenre", *words],
        cwd=place,
        stdout=subprocess.DEVNULL,
        stderr=log,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    )


def duration_s(name: str) -> float:
    """Run a stage undisturbed, at most `LONGEST_S`."""
    began = time.monotonic()
    with Path("log.txt").open("w") as log:
        running = start(name, log)
    try:
        running.wait(LONGEST_S)
    except subprocess.TimeoutExpired:
        running.terminate()
        running.wait()
    return time.monotonic() - began


def stop(name: str, at_s: float, number: signal.Signals) -> float | None:
    """Stop one command; print and return the seconds to its end, None if it had ended before."""
    with Path("log.txt").open("w") as log:
        running = start(name, log)
    try:
        print(f"{name:20} {at_s:5.1f} s  ended before: exit {running.wait(at_s)}", flush=True)
        return None
    except subprocess.TimeoutExpired:
        children = psutil.Process(running.pid).children(recursive=True)
        sent = time.monotonic()
        running.send_signal(number)
    try:
        running.wait(GIVEN_UP_S)
    except subprocess.TimeoutExpired:
        running.kill()
        running.wait()
    took = time.monotonic() - sent
    time.sleep(1)
    left = [c for c in children if c.is_running() and c.status() != psutil.STATUS_ZOMBIE]
    err = Path("log.txt").read_text(errors="replace")
    phase = re.findall(r"^(.*): \d+ of \d+$", err, re.MULTILINE)
    faults = " TRACEBACK" * ("Traceback" in err) + f" {len(left)} LEFT" * bool(left)
    faults += " SLOW" * (took > LIMIT_S)
    print(
        f"{name:20} {at_s:5.1f} s  {number.name:7} {took:5.2f} s  exit {running.returncode:4} "
        f"in {phase[-1] if phase else '-'}{faults}",
        flush=True,
    )
    return took


def main() -> None:
    kills, *names = sys.argv[1:] or ["4"]
    folder = Path(os.environ.get("STOPPING", "") or tempfile.mkdtemp())
    os.chdir(folder)
    if not Path("model").exists():
        subprocess.run([sys.executable, "-m", "subgenre", "demo", "--out", "."], check=True)
        next(Path().glob("fully_*")).rename("model")
        shutil.copytree("model", "copy")
        shutil.copytree("preprocessed_features", "fresh")
    draw, worst = random.Random(0), {}
    for name in names or STAGES:
        whole_s = duration_s(name)
        found = [
            stop(name, draw.uniform(0.3, whole_s), number)
            for _ in range(int(kills) // 2)
            for number in (signal.SIGINT, signal.SIGTERM)
        ]
        worst[name] = max((took for took in found if took is not None), default=0.0)
    for name, took in worst.items():
        print(f"{name:20} {took:.2f} s at worst")


if __name__ == "__main__":
    main()
