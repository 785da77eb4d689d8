"""Ten seconds of each track as a small MP3 inside the report."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from subgenre.audio import mp3, reading
from subgenre.core.progress import Progress
from subgenre.errors import AudioError
from subgenre.report.data import Point

LENGTH_S = 10.0
BIT_RATE = 64_000
FADE_S = 0.02
FALLBACK_RATE = 44_100
BASE64_GROWTH = 4 / 3  # three bytes become four characters


@dataclass(frozen=True)
class Previews:
    """MP3s by track id, how many did not fit, and the files that could not be read."""

    audio: dict[str, bytes]
    left_out: int = 0
    unreadable: tuple[str, ...] = ()


def preview(path: Path, start_s: float) -> bytes:
    """Encode ten seconds from `start_s`, or what is there, as mono MP3 with 64 kbit/s.

    Raises:
        AudioError: the file can't be read, or ends before `start_s`.
    """
    samples, rate, lead = reading.read_window(path, start_s, LENGTH_S)
    mono = reading.downmix(samples[:, lead:])[: round(LENGTH_S * rate)]
    if not mono.size:
        raise AudioError(f"{path.name} ends before {start_s:.1f} s")
    n = min(round(FADE_S * rate), mono.size // 2)
    fade = np.linspace(0.0, 1.0, n, dtype=np.float32)
    mono[:n] *= fade
    mono[mono.size - n :] *= fade[::-1]
    return encode(mono, rate)


def encode(mono: NDArray[np.float32], rate: int) -> bytes:
    """Encode samples [n] from -1 to 1 as mono MP3 with 64 kbit/s."""
    frame = av.AudioFrame.from_ndarray(np.clip(mono, -1.0, 1.0)[None, :], "fltp", "mono")
    frame.sample_rate = rate
    buffer = io.BytesIO()
    mp3.write(
        buffer,
        [frame],
        rate=rate if rate in mp3.RATES else FALLBACK_RATE,
        layout="mono",
        bit_rate=BIT_RATE,
        compression_level=7,
    )
    return buffer.getvalue()


def collect(
    points: Sequence[Point], *, max_mb: float, on_progress: Progress | None = None
) -> Previews:
    """Make previews in the given order until they fill `max_mb` megabytes of base64.

    A file that can't be read is listed in the result; the others are still made. `on_progress` is
    called with (points done, points).
    """
    audio: dict[str, bytes] = {}
    unreadable: list[str] = []
    room = max_mb * 1e6 / BASE64_GROWTH
    workers = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        remaining = iter(points)
        while room > 0 and (batch := list(islice(remaining, 4 * workers))):
            for point, made in zip(batch, pool.map(_attempt, batch), strict=True):
                if made is None:
                    unreadable.append(point.path)
                elif len(made) <= room:
                    audio[point.id] = made
                    room -= len(made)
                else:
                    room = 0.0
            if on_progress:
                on_progress(len(audio) + len(unreadable), len(points))
    return Previews(audio, len(points) - len(audio) - len(unreadable), tuple(unreadable))


def _attempt(point: Point) -> bytes | None:
    try:
        return preview(Path(point.path), point.start_s)
    except (AudioError, OSError, ValueError, av.error.FFmpegError):
        return None
