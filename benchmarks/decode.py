"""One 10 s window from the middle of a 5-minute mp3: ours against soundfile decoding the file.

    python benchmarks/decode.py [--repeats 15]

Both end with the same window; the figure is the ratio of the medians of runs in turn.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from subgenre.audio.reading import MARGIN_S, read_window

RATE = 44_100
FILE_S, START_S, WINDOW_S = 300, 145.0, 10.0
SEED = 0


def write_mp3(path: Path) -> None:
    """Write five minutes of stereo: noise under a sweep, so that no frame is cheap."""
    rng = np.random.default_rng(SEED)
    shape = {"samplerate": RATE, "channels": 2, "format": "MP3"}
    with soundfile.SoundFile(path, "w", **shape) as file:
        for second in range(FILE_S):
            t = second + np.arange(RATE) / RATE
            tone = 0.3 * np.sin(2 * np.pi * (200 * t + 30 * np.sin(t)))
            file.write(tone[:, None] + 0.1 * rng.standard_normal((RATE, 2)))


def ours(path: Path) -> np.ndarray:
    samples, _, lead = read_window(path, START_S, WINDOW_S, margin_s=MARGIN_S)
    return samples[:, lead : lead + round(WINDOW_S * RATE)]


def whole_file(path: Path) -> np.ndarray:
    samples, _ = soundfile.read(path, dtype="float32")
    return samples[round(START_S * RATE) : round((START_S + WINDOW_S) * RATE)].T


def seconds(read: Callable[[Path], np.ndarray], path: Path) -> float:
    start = time.perf_counter()
    read(path)
    return time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "five minutes.mp3"
        write_mp3(path)
        difference = float(np.abs(ours(path) - whole_file(path)).max())
        if difference > 1e-3:
            print(f"the two windows differ by {difference:.3g}: nothing to compare")
            return 1
        pairs = [(seconds(ours, path), seconds(whole_file, path)) for _ in range(repeats)]
    window, whole = (statistics.median(times) for times in zip(*pairs, strict=True))
    print(f"{repeats} runs in turn, {FILE_S} s of mp3, the two windows differ by {difference:.1e}")
    print(f"window of {WINDOW_S:g} s (read_window): {1000 * window:.1f} ms")
    print(f"whole file (soundfile):      {1000 * whole:.1f} ms")
    print(f"ratio of medians: {whole / window:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
