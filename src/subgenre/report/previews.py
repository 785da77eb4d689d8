"""Ten seconds of a track as a small MP3, to be heard inside the report."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from subgenre.audio import reading as audio
from subgenre.errors import AudioError

LENGTH_S = 10.0
BIT_RATE = 64_000
FADE_S = 0.02
MP3_RATES = (16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
FALLBACK_RATE = 44_100
DATA_URI_GROWTH = 4 / 3  # base64: three bytes become four characters


@dataclass(frozen=True)
class Wanted:
    """A preview that is asked for: a track's id, its file, and where in it to begin."""

    id: str
    path: str
    start_s: float = 0.0


@dataclass(frozen=True)
class Previews:
    """Previews by track id, how many did not fit, and the files that could not be read."""

    audio: dict[str, bytes]
    left_out: int = 0
    unreadable: tuple[str, ...] = ()


def preview(path: Path, start_s: float, length_s: float = LENGTH_S) -> bytes:
    """Encode `length_s` seconds from `start_s` as mono MP3, 64 kbit/s.

    MP3 plays in every browser. A window that passes the end of the file gives what is there.

    Raises:
        AudioError: the file can't be read, or holds nothing from `start_s` on.
    """
    samples, rate, lead = audio.read_window(path, start_s, length_s)
    mono = samples[:, lead:].mean(axis=0, dtype=np.float32)
    if not mono.size:
        raise AudioError(f"{path.name} holds no sound from {start_s:.1f} s on")
    if rate not in MP3_RATES:
        mono = audio.resample(mono, rate, FALLBACK_RATE)
        rate = FALLBACK_RATE
    return encode_mp3(_faded(mono[: round(length_s * rate)], rate), rate)


def encode_mp3(mono: NDArray[np.float32], rate: int) -> bytes:
    """Encode samples [n] in -1 to 1 as mono MP3 at 64 kbit/s; `rate` one of `MP3_RATES`."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp3", options={"id3v2_version": "0"}) as container:
        stream: Any = container.add_stream(
            "libmp3lame", rate=rate, layout="mono", options={"compression_level": "7"}
        )
        stream.bit_rate = BIT_RATE
        stream.format = "fltp"
        frame = av.AudioFrame.from_ndarray(
            np.clip(mono, -1.0, 1.0)[None, :], format="fltp", layout="mono"
        )
        frame.sample_rate = rate
        frame.pts = 0
        container.mux([*stream.encode(frame), *stream.encode(None)])
    return buffer.getvalue()


def collect(
    wanted: Iterable[Wanted],
    *,
    max_mb: float,
    make: Callable[[Path, float], bytes] = preview,
) -> Previews:
    """Make previews in the order asked for until `max_mb` megabytes of base64 are full.

    A track asked for twice is made once. A file that can't be read costs its own preview only.
    """
    queue = list({w.id: w for w in reversed(list(wanted))}.values())[::-1]
    found: dict[str, bytes] = {}
    unreadable: list[str] = []
    room = max_mb * 1e6 / DATA_URI_GROWTH
    workers = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        remaining = iter(queue)
        while room > 0 and (batch := list(islice(remaining, 4 * workers))):
            for one, data in zip(batch, pool.map(lambda w: _try(make, w), batch), strict=True):
                if data is None:
                    unreadable.append(one.path)
                elif len(data) <= room:
                    found[one.id] = data
                    room -= len(data)
                else:
                    room = 0.0
    return Previews(found, len(queue) - len(found) - len(unreadable), tuple(unreadable))


def _try(make: Callable[[Path, float], bytes], one: Wanted) -> bytes | None:
    try:
        return make(Path(one.path), one.start_s)
    except (AudioError, OSError, ValueError, av.error.FFmpegError):
        return None


def _faded(mono: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    n = min(round(FADE_S * rate), mono.size // 2)
    ramp = np.linspace(0.0, 1.0, n, dtype=np.float32)
    faded = mono.copy()
    faded[:n] *= ramp
    faded[mono.size - n :] *= ramp[::-1]
    return faded
