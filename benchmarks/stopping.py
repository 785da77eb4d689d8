"""The time from Ctrl-C or SIGTERM to the end of a command, at seeded moments of each stage.

    python benchmarks/stopping.py [kills a stage] [stage ...]

Makes the demo's library in a temporary folder. Prints each stop with the phase that it met, then
the worst of each stage; 2 s are promised.
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
FEATURES = ("--features", "preprocessed_features")
# the command, the folders that it writes, and about how long it takes, s
STAGES = {
    "preprocess": (["preprocess", "WAV", "--backbone", "musicnn", "--out", "f"], ["f"], 20),
    "train": (["train", *FEATURES, "--out", "m", "--checkpoints", "c"], ["m", "c"], 15),
    "train anew": (["train", "--features", "fresh", "--out", "m", "--checkpoints", "c"], [], 25),
    "evaluate": (["evaluate", "--run", "model"], ["model/report.html"], 30),
    "folds": (["evaluate", "--folds", "3", "--workers", "1", "--out", "v"], ["v"], 60),
    "folds side by side": (["evaluate", "--folds", "3", "--out", "v"], ["v"], 60),
    "tune": (["tune", *FEATURES, "--trials", "3", "--kept", "k"], ["k"], 40),
    "index": (["index", "WAV", "--run", "model", "--index", "i"], ["i"], 40),
    "embed": (["embed", "WAV", "--run", "copy", "--out", "e.parquet"], ["copy/.vectors"], 25),
    "classify": (["classify", "WAV", "--run", "copy"], ["copy/.vectors"], 25),
    "playlist": (["playlist", "--expand", "ambient", "--run", "model", "--out", "p.m3u8"], [], 5),
    "explore": (["explore", "--run", "model", "--port", "0"], [], 12),
    "doctor": (["doctor", *FEATURES], ["doctor"], 60),
    "run": (["run", "../WAV", "--backbone", "musicnn"], ["r"], 60),
}


def subgenre(words: list[str], place: Path, log: IO[str]) -> subprocess.Popen[str]:
    """Start a command as a terminal does: a script in the background ignores Ctrl-C."""
    return subprocess.Popen(
        [sys.executable, "-m", "subgenre", *words],
        cwd=place,
        stdout=subprocess.DEVNULL,
        stderr=log,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    )


def stop(name: str, at_s: float, number: signal.Signals) -> float | None:
    """Stop one command; print and return the seconds to its end, None if it had ended before."""
    words, written, _ = STAGES[name]
    for path in map(Path, written):
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    if name == "train anew":
        shutil.rmtree("fresh/.vectors", ignore_errors=True)
        shutil.rmtree("m", ignore_errors=True)
    place = Path("r" if name == "run" else "")
    place.mkdir(exist_ok=True)
    with Path("log.txt").open("w") as log:
        running = subgenre(words, place, log)
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
        found = [
            stop(name, draw.uniform(0.3, STAGES[name][2]), number)
            for _ in range(int(kills) // 2)
            for number in (signal.SIGINT, signal.SIGTERM)
        ]
        worst[name] = max((took for took in found if took is not None), default=0.0)
    for name, took in worst.items():
        print(f"{name:20} {took:.2f} s at worst")


if __name__ == "__main__":
    main()
