"""One audio file: its identity and length by its packets, and one window of its samples.

PyAV reads every format in one way, and only what is asked for is decoded. No header is believed:
lengths come from the packets, positions from the time stamps of what was decoded.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import soxr
from av.container import InputContainer
from numpy.typing import NDArray

from subgenre.audio import decoder
from subgenre.audio.decoder import EXTENSIONS, Float32
from subgenre.errors import AudioError

__all__ = [
    "EXTENSIONS",
    "MARGIN_S",
    "PREROLL_S",
    "Probe",
    "mono_window",
    "probe",
    "read_window",
    "resample",
]

PREROLL_S = 0.25  # decoded before a window: codecs overlap, and borrow bits from what came before
MARGIN_S = 0.05  # on either side of a window, so that the resampler sees no edge in it
_AGREE_S = 0.1  # a header this near the packets' length knows the encoder's padding better
_HOLE_S = 0.1  # time stamps that step further tell of samples that are missing
_TRIES = 64  # packets without a sample, after which nothing can be decoded


@dataclass(frozen=True)
class Probe:
    """What one file is.

    Attributes:
        id: 32 hex digits, a hash of the first audio stream's packets: tags, artwork and name are
            no part of it. duration_s: by the packets, seconds. rate: Hz. bit_rate: bits a second.
    """

    id: str
    duration_s: float
    rate: int
    channels: int
    codec: str
    container: str
    bit_rate: int


def probe(path: Path) -> Probe:
    """Read all packets of a file and decode only the first.

    Raises:
        AudioError: no regular file, no audio, or nothing that can be decoded; the message is a
            reason for a person and leaves the path out.
    """
    digest = hashlib.blake2b(digest_size=16)
    size, length_s, end_s = 0, 0.0, 0.0
    first: av.AudioFrame | None = None
    tries = 0
    with decoder.opened(path) as (container, stream):
        tick_s = float(stream.time_base or 0)
        start = stream.start_time or 0
        for packet in decoder.packets(container, stream):
            digest.update(packet)
            size += packet.size
            at_s = end_s if packet.pts is None else (packet.pts - start) * tick_s
            took_s = _ticks(packet.duration) * tick_s
            length_s += took_s
            end_s = max(end_s, at_s + took_s)
            if first is None and tries < _TRIES:
                tries += 1
                first = next(iter(decoder.decode(packet)), None)
        header_s = (stream.duration or 0) * tick_s
        codec, name = stream.codec_context.codec.canonical_name, container.format.name
        channels = stream.codec_context.channels
    if size == 0:
        raise AudioError("holds no audio")
    if first is None and channels == 0:
        raise AudioError("has no channels")
    if first is None:
        raise AudioError(f"nothing can be decoded from its {codec} stream")
    rate, channels = decoder.check_shape(first)
    # the packets' lengths are rounded: their sum counts only where the stamps leap over a hole
    duration_s = end_s if length_s > 0.95 * end_s else length_s
    if duration_s - _AGREE_S < header_s < duration_s:
        duration_s = header_s
    if duration_s <= 0:
        raise AudioError("holds no audio")
    bit_rate = round(8 * size / duration_s)
    return Probe(digest.hexdigest(), duration_s, rate, channels, codec, name, bit_rate)


def _ticks(duration: int | None) -> int:
    """Return a packet's duration: where Ogg's last one goes back, it wraps around 32 bits."""
    duration = duration or 0
    return duration - 2**32 if 2**31 <= duration < 2**32 else duration


def read_window(
    path: Path, start_s: float, length_s: float, *, margin_s: float = 0.0
) -> tuple[Float32, int, int]:
    """Decode one window, with a margin on either side, and nothing else.

    Returns:
        samples [C, n] at the file's own rate, the rate in Hz, and how many of the samples lie
        before `start_s` (fewer than the margin at the beginning of a file). At the end of a file
        there are fewer samples than asked for. What damage left out is zero.

    Raises:
        AudioError: unreadable, nothing at this place, samples that are no finite numbers, or more
            than half of the window damaged; the message leaves the path out.
    """
    for preroll_s in (PREROLL_S, 16 * PREROLL_S, math.inf):
        with decoder.opened(path) as (container, stream):
            window = _Window(stream, start_s, length_s, margin_s)
            from_s = start_s - margin_s - preroll_s
            if from_s > 0 and not decoder.seek(container, stream, from_s):
                continue
            window.decode(container)
        # a seek that came down too late, or in damage: once more from further back
        if from_s <= 0 or window.covers_start():
            break
    return window.samples(), window.rate, window.lead


def resample(samples: Float32, from_rate: int, to_rate: int) -> Float32:
    """Resample [n] from one rate to another (soxr, HQ)."""
    if from_rate == to_rate:
        return samples
    resampled: Float32 = soxr.resample(samples, from_rate, to_rate, quality="HQ")
    return resampled


def mono_window(samples: Float32, rate: int, lead: int, length_s: float, to_rate: int) -> Float32:
    """Turn what `read_window` gave into a mono window without margins, [n] at `to_rate`.

    Exactly round(length_s * to_rate) samples, or fewer at the end of the file.
    """
    mono = resample(samples.mean(axis=0, dtype=np.float32), rate, to_rate)
    first = round(lead * to_rate / rate)
    return mono[first : first + round(length_s * to_rate)]


class _Window:
    """The samples of one window, gathered frame by frame."""

    def __init__(
        self, stream: av.AudioStream, start_s: float, length_s: float, margin_s: float
    ) -> None:
        self.stream = stream
        self.start_s, self.length_s, self.margin_s = start_s, length_s, margin_s
        self.rate = self.first = self.lead = self.end = 0
        self.places: list[float] = []  # of each frame, by its time stamp; samples
        self.blocks: list[Float32] = []

    def decode(self, container: InputContainer) -> None:
        """Decode from where the container stands to the end of the window."""
        tick_s, zero = float(self.stream.time_base or 0), self.stream.start_time or 0
        end_s = self.start_s + self.length_s + self.margin_s
        place = 0.0
        for packet in decoder.packets(container, self.stream):
            if packet.pts is not None and (packet.pts - zero) * tick_s > end_s + 1:
                return
            for frame in decoder.decode(packet):
                if not self.rate:
                    self._set_rate(frame)
                if frame.sample_rate != self.rate:
                    raise AudioError("its sample rate changes on the way")
                if frame.pts is not None:
                    place = (frame.pts - zero) * tick_s * self.rate
                # one second more than needed is kept, for _lay_out to lean on
                if place + frame.samples > self.first - self.rate:
                    self.places.append(place)
                    self.blocks.append(decoder.to_float(frame))
                place += frame.samples
            if self.rate and place > self.end + PREROLL_S * self.rate:
                return
        if self.rate:
            self._flush(place)

    def _flush(self, place: float) -> None:
        """Take what the decoder still holds at the end of the file."""
        try:
            frames = self.stream.decode(None)
        except av.FFmpegError:
            return
        for frame in frames:
            self.places.append(place)
            self.blocks.append(decoder.to_float(frame))
            place += frame.samples

    def _set_rate(self, frame: av.AudioFrame) -> None:
        self.rate, _ = decoder.check_shape(frame)
        start = round(self.start_s * self.rate)
        self.first = max(0, start - round(self.margin_s * self.rate))
        self.lead = start - self.first
        self.end = start + round((self.length_s + self.margin_s) * self.rate)

    def covers_start(self) -> bool:
        """Whether the first frame lies before the window."""
        return bool(self.places) and min(self.places) <= self.first

    def samples(self) -> Float32:
        """Lay the frames where they belong, [C, n]; checked."""
        if not self.blocks:
            raise AudioError(f"no samples at {self.start_s:.1f} s; it ends or is damaged there")
        channels = max(block.shape[0] for block in self.blocks)
        found = np.zeros((channels, self.end - self.first), np.float32)
        filled = np.zeros(self.end - self.first, bool)
        lengths = [block.shape[1] for block in self.blocks]
        starts = _lay_out(np.array(self.places), lengths, _HOLE_S * self.rate)
        for place, block in zip(starts - self.first, self.blocks, strict=True):
            lo, hi = max(0, place), min(len(filled), place + block.shape[1])
            if lo < hi:
                same = block if block.shape[0] == channels else block.mean(axis=0, keepdims=True)
                found[:, lo:hi] = same[:, lo - place : hi - place]
                filled[lo:hi] = True
        count = len(filled) - int(filled[::-1].argmax()) if filled.any() else 0
        if count <= self.lead:
            raise AudioError(f"no samples at {self.start_s:.1f} s; it ends or is damaged there")
        if filled.sum() < count / 2:
            raise AudioError(f"damaged at {self.start_s:.1f} s: less than half can be decoded")
        if not np.isfinite(found).all():
            raise AudioError("holds samples that are no finite numbers (NaN or infinite)")
        return found[:, :count]


def _lay_out(places: NDArray[np.float64], lengths: list[int], hole: float) -> NDArray[np.int64]:
    """Turn time stamps into sample positions.

    Ogg pages stamp single frames, and whole pages, some hundred samples off, and coarse clocks
    round. So frames follow one another without a gap, where most of their stamps put them; only
    a step of more than `hole` samples means that something is missing there.
    """
    before = np.concatenate(([0], np.cumsum(lengths)[:-1]))
    shift = places - before
    holes = (np.abs(np.diff(shift)) > hole).nonzero()[0] + 1
    runs = np.split(shift, holes)
    level = np.concatenate([np.full(len(run), np.rint(np.median(run))) for run in runs])
    return (level + before).astype(np.int64)
