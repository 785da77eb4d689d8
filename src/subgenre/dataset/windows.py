"""The windows of a track as mono samples, decoded and measured; loads no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from subgenre.audio import measures, reading
from subgenre.audio.decoder import Float32
from subgenre.config import PreprocessConfig
from subgenre.dataset import starts


@dataclass(frozen=True)
class Cut:
    """How the windows of a file are cut and measured.

    Attributes:
        rate: of the result, Hz.
        measure: whether to measure the windows; of a file that is only embedded, only silence is.
    """

    path: Path
    rate: int
    config: PreprocessConfig
    measure: bool


@dataclass(frozen=True)
class Sound:
    """One window.

    Attributes:
        start_s: in the track. mono: [n] without margins.
        measured: values of `measures.measure`.
    """

    start_s: float
    mono: Float32
    measured: dict[str, float]


def of_track(cut: Cut, duration_s: float, track_id: str) -> Iterator[Sound]:
    """Decode the windows of a track one by one.

    Raises:
        AudioError: a window can't be decoded.
    """
    length_s = cut.config.chunk_s
    for start_s in starts.of_track(cut.config, duration_s, track_id):
        samples, rate, lead = reading.read_window(
            cut.path, start_s, length_s, margin_s=reading.MARGIN_S
        )
        inside = samples[:, lead : lead + round(length_s * rate)]
        if cut.measure:
            measured = measures.measure(inside, rate)
        else:
            measured = {"silent_share": measures.silent_share(inside, rate)}
        mono = reading.mono_window(samples, rate, lead, length_s, cut.rate)
        yield Sound(start_s, mono, measured)


def of_file(cut: Cut) -> Iterator[Any]:
    """Yield a file's `Probe`, then each window as a `Sound`; a track below `min_track_s` has none.

    Raises:
        AudioError: the file can't be read.
    """
    probed = reading.probe(cut.path)
    yield probed
    if probed.duration_s >= cut.config.min_track_s:
        yield from of_track(cut, probed.duration_s, probed.id)
