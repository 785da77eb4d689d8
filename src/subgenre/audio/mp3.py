"""Write MP3, which every browser plays."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import IO, Any

import av

RATES = (16_000, 22_050, 24_000, 32_000, 44_100, 48_000)


def write(
    out: Path | IO[bytes],
    frames: Iterable[av.AudioFrame],
    *,
    rate: int,
    layout: str,
    bit_rate: int,
    compression_level: int = 5,
) -> int:
    """Write frames as one MP3 and return its number of samples a channel.

    Args:
        rate: of the MP3 in Hz, one of `RATES`; frames of another rate or layout are converted.
        compression_level: of LAME, 0 (best) to 9 (fastest).
    """
    count = 0
    target = out if not isinstance(out, Path) else str(out)
    with av.open(target, "w", format="mp3", options={"id3v2_version": "0"}) as container:
        options = {"compression_level": str(compression_level)}
        stream: Any = container.add_stream("libmp3lame", rate=rate, layout=layout, options=options)
        stream.bit_rate = bit_rate
        resampler = av.AudioResampler("fltp", layout, rate)
        for frame in chain(frames, [None]):  # None flushes the resampler
            for part in resampler.resample(frame):
                part.pts, count = count, count + part.samples
                container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return count
