"""Read an audio file: identity and length from its packets, and one window of its samples.

Headers are not trusted: lengths come from the packets. Where the time stamps are exact, only the
requested window is decoded, and they give its position; elsewhere the decoded samples are counted
from the beginning of the file.
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
from subgenre.audio.decoder import Float32
from subgenre.errors import AudioError

__all__ = [
    "CANCELLED",
    "MARGIN_S",
    "PREROLL_S",
    "Probe",
    "channels_cancel",
    "downmix",
    "mono_window",
    "probe",
    "read_window",
    "resample",
]

PREROLL_S = 0.25  # decoded before a window, because codecs use earlier frames
MARGIN_S = 0.05  # on either side of a window, to keep edge effects of the resampler out of it
CANCELLED = 0.01  # power of the mean, as a share of the channels', below which they cancel
_AGREE_S = 0.1  # within this of the packets' length, the header is more exact about encoder padding
_HOLE_S = 0.1  # a larger step of the time stamps means missing samples
_RESTART_S = 1.0  # a larger step back of the time stamps means that they begin again
_PEAK = 1000.0  # 60 dB above full scale: no music, and its power may overflow
_SLACK_S = 60.0  # of sound kept beside a window; more means time stamps that stand still
_TRIES = 64  # packets without samples before a stream counts as undecodable


@dataclass(frozen=True)
class Probe:
    """Identity and format of one file.

    Attributes:
        id: 32 hex digits, a hash of the first audio stream's packets without tags, artwork or name.
        duration_s: measured from the packets, seconds. rate: Hz. bit_rate: bits per second.
    """

    id: str
    duration_s: float
    rate: int
    channels: int
    codec: str
    container: str
    bit_rate: int


def probe(path: Path) -> Probe:
    """Read all packets of a file; only the first and those of unknown length are decoded.

    Raises:
        AudioError: not a regular file, no audio, too long, or not decodable; the message does not
            name the path.
    """
    digest = hashlib.blake2b(digest_size=16)
    size, length_s, end_s, earlier_s = 0, 0.0, 0.0, 0.0
    first: av.AudioFrame | None = None
    tries = 0
    with decoder.opened(path) as (container, stream):
        tick_s = float(stream.time_base or 0)
        start = stream.start_time or 0
        for packet in decoder.packets(container, stream):
            digest.update(packet)
            size += packet.size
            took_s = _ticks(packet.duration) * tick_s
            if not packet.duration or (first is None and tries < _TRIES):
                tries += 1
                frames = decoder.decode(packet)
                first = first or next(iter(frames), None)
                if not packet.duration:
                    took_s = sum(frame.samples / frame.sample_rate for frame in frames)
            at_s = end_s if packet.pts is None else earlier_s + (packet.pts - start) * tick_s
            if at_s < end_s - _RESTART_S:  # a chained stream begins
                earlier_s += end_s - at_s
                at_s = end_s
            length_s += took_s
            decoder.check_length(length_s)
            end_s = max(end_s, at_s + took_s)
        header_s = (stream.duration or 0) * tick_s
        codec, name = stream.codec_context.codec.canonical_name, container.format.name
        channels = stream.codec_context.channels
    if size == 0:
        raise AudioError("holds no audio")
    if first is None and channels == 0:
        raise AudioError(f"has no channels, or too many; 1 to {decoder.MAX_CHANNELS} are supported")
    if first is None:
        raise AudioError(f"its {codec} stream can't be decoded")
    rate, channels = decoder.check_shape(first)
    # packet lengths are rounded, so their sum is used only if the time stamps skip a hole
    duration_s = end_s if length_s > 0.95 * end_s else length_s
    if duration_s - _AGREE_S < header_s < duration_s:
        duration_s = header_s
    if duration_s <= 0:
        raise AudioError("holds no audio")
    bit_rate = round(8 * size / duration_s)
    return Probe(digest.hexdigest(), duration_s, rate, channels, codec, name, bit_rate)


def _ticks(duration: int | None) -> int:
    """Return a packet's duration; the last one of Ogg may be negative, stored as 32 bits."""
    duration = duration or 0
    return duration - 2**32 if 2**31 <= duration < 2**32 else duration


def read_window(
    path: Path, start_s: float, length_s: float, *, margin_s: float = 0.0
) -> tuple[Float32, int, int]:
    """Decode one window with a margin on either side.

    Returns:
        samples [C, n] at the file's own rate, the rate in Hz, and the number of samples before
        `start_s` (fewer than the margin at the beginning of a file). At the end of a file there are
        fewer samples than requested. Damaged parts are zero.

    Raises:
        AudioError: unreadable, no samples at this position, samples that are not finite, or more
            than half of the window damaged; the message does not name the path.
    """
    for preroll_s in (PREROLL_S, 16 * PREROLL_S, math.inf):
        with decoder.opened(path) as (container, stream):
            exact = decoder.can_seek(path, container, stream)
            window = _Window(stream, start_s, length_s, margin_s, counted=not exact)
            from_s = start_s - margin_s - preroll_s if exact else 0
            if from_s > 0 and not decoder.seek(container, stream, from_s):
                continue
            window.decode(container)
        # if the seek ended too late or in damage, try again from further back
        if from_s <= 0 or window.covers_start():
            break
    return window.samples(), window.rate, window.lead


def resample(samples: Float32, from_rate: int, to_rate: int) -> Float32:
    """Resample [n] from one rate to another (soxr, HQ)."""
    if from_rate == to_rate:
        return samples
    resampled: Float32 = soxr.resample(samples, from_rate, to_rate, quality="HQ")
    return resampled


def downmix(samples: Float32) -> Float32:
    """Return the mean of the channels of [C, n]; where they cancel, the loudest channel."""
    mono: Float32 = samples.mean(axis=0, dtype=np.float32)
    if channels_cancel(samples):
        mono = samples[int(_power(samples).argmax())]
    return mono


def channels_cancel(samples: Float32) -> bool:
    """Whether hardly any power is left in the mean of the channels of [C, n]."""
    mono = samples.mean(axis=0, dtype=np.float32)
    return len(samples) > 1 and bool(mono @ mono < CANCELLED * _power(samples).mean())


def _power(samples: Float32) -> Float32:
    return np.asarray(np.einsum("cn,cn->c", samples, samples))


def mono_window(samples: Float32, rate: int, lead: int, length_s: float, to_rate: int) -> Float32:
    """Turn the result of `read_window` into a mono window without margins, [n] at `to_rate`.

    Exactly round(length_s * to_rate) samples, or fewer at the end of the file.
    """
    mono = resample(downmix(samples), rate, to_rate)
    first = round(lead * to_rate / rate)
    return mono[first : first + round(length_s * to_rate)]


class _Window:
    """Samples of one window, collected frame by frame.

    With `counted` the samples are counted from the beginning of the file, and the time stamps show
    only where some are missing.
    """

    def __init__(
        self,
        stream: av.AudioStream,
        start_s: float,
        length_s: float,
        margin_s: float,
        *,
        counted: bool,
    ) -> None:
        self.stream, self.counted = stream, counted
        self.start_s, self.length_s, self.margin_s = start_s, length_s, margin_s
        self.rate = self.first = self.lead = self.end = 0
        self.places: list[float] = []  # position of each frame by its time stamp, samples
        self.blocks: list[Float32] = []

    def decode(self, container: InputContainer) -> None:
        """Decode from the container's position to the end of the window."""
        tick_s, zero = float(self.stream.time_base or 0), self.stream.start_time or 0
        end_s = self.start_s + self.length_s + self.margin_s
        place = earlier = 0.0
        kept = 0
        for packet in decoder.packets(container, self.stream):
            late = packet.pts is not None and not self.counted
            if late and (packet.pts - zero) * tick_s > end_s + 1:
                return
            for frame in decoder.decode(packet):
                if not self.rate:
                    self._set_rate(frame)
                if frame.sample_rate != self.rate:
                    raise AudioError("its sample rate changes inside the file")
                if frame.pts is not None:
                    stamp = earlier + (frame.pts - zero) * tick_s * self.rate
                    if stamp < place - _RESTART_S * self.rate:
                        earlier += place - stamp  # a chained stream begins
                    elif not self.counted or stamp > place + _HOLE_S * self.rate:
                        place = stamp
                # one more second is kept for _lay_out
                if place + frame.samples > self.first - self.rate:
                    kept += frame.samples
                    if kept > self.end - self.first + _SLACK_S * self.rate:
                        raise AudioError("has time stamps that do not advance")
                    self.places.append(place)
                    self.blocks.append(decoder.to_float(frame))
                place += frame.samples
            if self.rate and place > self.end + PREROLL_S * self.rate:
                return
        if self.rate:
            self._flush(place)

    def _flush(self, place: float) -> None:
        """Take the last frames of the decoder at the end of the file."""
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
        """Place the frames at their positions, [C, n], and check the result."""
        if not self.blocks:
            raise AudioError(
                f"no samples at {self.start_s:.1f} s; the file ends or is damaged there"
            )
        channels = max(block.shape[0] for block in self.blocks)
        samples = np.zeros((channels, self.end - self.first), np.float32)
        filled = np.zeros(self.end - self.first, bool)
        lengths = [block.shape[1] for block in self.blocks]
        starts = _lay_out(np.array(self.places), lengths, _HOLE_S * self.rate)
        for place, block in zip(starts - self.first, self.blocks, strict=True):
            lo, hi = max(0, place), min(len(filled), place + block.shape[1])
            if lo < hi:
                same = block if block.shape[0] == channels else block.mean(axis=0, keepdims=True)
                samples[:, lo:hi] = same[:, lo - place : hi - place]
                filled[lo:hi] = True
        count = len(filled) - int(filled[::-1].argmax()) if filled.any() else 0
        if count <= self.lead:
            raise AudioError(
                f"no samples at {self.start_s:.1f} s; the file ends or is damaged there"
            )
        if filled.sum() < count / 2:
            raise AudioError(f"damaged at {self.start_s:.1f} s: less than half can be decoded")
        if not np.isfinite(samples).all():
            raise AudioError("has samples that are not finite (NaN or infinite)")
        if (peak := float(np.abs(samples).max())) > _PEAK:
            raise AudioError(f"has samples of {peak:.0e}, full scale is 1; scale it to -1 ... 1")
        return samples[:, :count]


def _lay_out(places: NDArray[np.float64], lengths: list[int], hole: float) -> NDArray[np.int64]:
    """Turn time stamps into sample positions.

    Time stamps of Ogg pages may be some hundred samples off, and coarse clocks round. So frames
    follow one another without a gap, at the median position of their stamps; a step of more than
    `hole` samples means missing samples.
    """
    before = np.concatenate(([0], np.cumsum(lengths)[:-1]))
    shift = places - before
    holes = (np.abs(np.diff(shift)) > hole).nonzero()[0] + 1
    runs = np.split(shift, holes)
    level = np.concatenate([np.full(len(run), np.rint(np.median(run))) for run in runs])
    return (level + before).astype(np.int64)
