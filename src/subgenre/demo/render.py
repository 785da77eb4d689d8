"""From a score to samples: voices mixed at random levels, then matched to a random spectrum."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft
from scipy.signal import lfilter

from subgenre.demo.instruments import RATE, Patch, Samples, draw_kit, draw_patch, play
from subgenre.demo.score import Score
from subgenre.demo.styles import Style

N_FFT = 704  # 32 ms: the frame of the front ends, so that lows leak into their neighbours alike
HOP = 880
N_BANDS = 90
# brings the power of a 704-point Hann frame to the scale on which the musicnn front end takes
# log10(1 + 10000 x), so that what is matched here is what is averaged there
SCALE = 169.0


def _add(track: Samples, samples: Samples, start: int, level: float) -> None:
    end = min(track.size, start + samples.size)
    if end > start:
        track[start:end] += np.float32(level) * samples[: end - start]


def _drums(score: Score, n: int, rng: np.random.Generator) -> Samples:
    kit = draw_kit(rng)
    gain = {drum: 10 ** (rng.uniform(-5, 5) / 20) for drum in sorted(kit)}
    gain["kick"] *= 1.6
    track = np.zeros(n, np.float32)
    for hit in score.hits:
        _add(track, kit[hit.drum], int(hit.start_s * RATE), hit.level * gain[hit.drum])
    return track


def _part(score: Score, style: Style, name: str, patch: Patch, n: int) -> Samples:
    part = style.parts[name]
    played: dict[tuple[int, float, float], Samples] = {}
    track = np.zeros(n, np.float32)
    for note in score.notes:
        if note.part != name:
            continue
        sweep = round(note.sweep * 4) / 4
        key = (note.pitch, note.length_s, sweep)
        if key not in played:
            hz = 440.0 * 2 ** ((note.pitch - 69) / 12)
            played[key] = play(patch, hz, note.length_s, attack_s=part.attack_s, sweep=sweep)
        _add(track, played[key], int(note.start_s * RATE), note.level / part.size**0.5)
    if part.echo:
        delay = int(RATE * 60 / score.tempo_bpm * 0.75)
        for repeat in range(1, 5):
            if delay * repeat < n:
                track[delay * repeat :] += (
                    part.echo * 0.6 ** (repeat - 1) * track[: n - delay * repeat]
                )
    return track


def _duck(score: Score, n: int, depth: float) -> Samples:
    """The gain of a compressor that every kick drives."""
    gain = np.ones(n, np.float32)
    dip = 1 - depth * np.exp(-np.arange(int(0.3 * RATE)) / (0.09 * RATE)).astype(np.float32)
    for hit in score.hits:
        if hit.drum == "kick":
            start = int(hit.start_s * RATE)
            stretch = gain[start : start + dip.size]
            np.minimum(stretch, dip[: stretch.size], out=stretch)
    return gain


def _level(track: Samples) -> float:
    return float(np.sqrt(np.mean(np.square(track)))) + 1e-9


def _mix(score: Score, style: Style, n: int, rng: np.random.Generator) -> Samples:
    drums = _drums(score, n, rng)
    melodic = np.zeros(n, np.float32)
    for name in style.parts:
        track = _part(score, style, name, draw_patch(rng), n)
        melodic += track * (10 ** (rng.uniform(-4, 4) / 20) / _level(track))
    melodic *= _duck(score, n, style.pump * rng.uniform(0.6, 1.0))
    balance = 10 ** (rng.uniform(-4, 4) / 20)
    dry = melodic / _level(melodic)
    if score.hits:
        dry += drums * (balance / _level(drums))
    return dry + _floor(n, rng)


def _floor(n: int, rng: np.random.Generator) -> Samples:
    """Hiss and rumble: white noise and noise that falls by 6 dB an octave."""
    white = rng.standard_normal(n, np.float32)
    rumble = np.asarray(lfilter([0.03], [1, -0.995], white), np.float32)
    return (white + 4 * rumble) * np.float32(10 ** (rng.uniform(-52, -30) / 20))


def _reverberation(rng: np.random.Generator) -> Samples:
    decay_s = rng.uniform(0.2, 0.6)
    t = np.arange(int(3 * decay_s * RATE)) / RATE
    tail = rng.standard_normal(t.size) * np.exp(-t / decay_s)
    tail *= rng.uniform(0.03, 0.12) / np.sqrt(np.sum(tail**2))
    tail[0] = 1  # the dry sound
    return np.asarray(tail, np.float32)


@lru_cache(maxsize=1)
def _band_edges() -> NDArray[np.intp]:
    mel = np.linspace(0, 2595 * np.log10(1 + RATE / 2 / 700), N_BANDS + 1)
    edges = np.round(700 * (10 ** (mel / 2595) - 1) / RATE * N_FFT).astype(np.intp)
    return np.unique(edges)


def _centres_hz() -> NDArray[np.float64]:
    edges = _band_edges()
    return np.asarray((edges[:-1] + edges[1:] - 1) / 2 * RATE / N_FFT)


def _band_power(samples: Samples) -> NDArray[np.float32]:
    """Mean power of each band in each frame [T, B]."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, N_FFT)[::HOP]
    spectrum = rfft(frames * np.hanning(N_FFT).astype(np.float32), axis=1)
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    edges = _band_edges()
    total = np.add.reduceat(power[:, : edges[-1]], edges[:-1], axis=1)
    return np.asarray(total / np.diff(edges), np.float32)


def _target(rng: np.random.Generator) -> NDArray[np.float64]:
    """A mean log spectrum drawn from the one distribution of all styles [B], log10 units."""
    octaves = np.log2(np.maximum(_centres_hz(), 60) / 500)
    curve = 1.9 - 0.28 * octaves - 0.06 * np.maximum(octaves, 0)
    curve += rng.normal(0, 0.3) + rng.normal(0, 0.1) * octaves
    for _ in range(3):
        centre, width = rng.uniform(-3, 4), rng.uniform(0.5, 1.5)
        curve += rng.normal(0, 0.2) * np.exp(-(((octaves - centre) / width) ** 2))
    # a room's ripple of a decibel or two: it hides what the equaliser leaves of single partials
    curve += rng.normal(0, 0.15, curve.size)
    return np.asarray(np.maximum(curve, 0.15))


def _matching_gain(samples: Samples, target: NDArray[np.float64], size: int) -> Samples:
    """Gain at each bin of a transform of `size` that brings mean log10(1 + SCALE power) to [B]."""
    power = SCALE * _band_power(samples) + np.float32(1e-9)
    gain = np.zeros(target.size, np.float32)  # log10 of the power gain
    for _ in range(8):
        scaled = power * 10**gain
        short = target - np.log10(1 + scaled).mean(0)
        gain += np.clip(short / np.maximum((scaled / (1 + scaled)).mean(0), 0.1), -1, 1)
    hz = np.arange(size // 2 + 1) * (RATE / size)
    return np.asarray(10 ** (np.interp(hz, _centres_hz(), np.clip(gain, -6, 6)) / 2), np.float32)


def render(score: Score, style: Style, length_s: float, rng: np.random.Generator) -> Samples:
    """Render a score: [n] samples at `RATE`, within -1 and 1.

    Kit, patches, mix, noise floor, reverberation, spectrum and level are drawn from distributions
    that no style has for itself. The last step is an equaliser that brings the track's mean log
    spectrum to the drawn one, so that the average spectrum tells nothing about the style.
    """
    n = round(length_s * RATE)
    room = _reverberation(rng)
    size = next_fast_len(n + room.size, real=True)
    wet = rfft(_mix(score, style, n, rng), size) * rfft(room, size)
    mixed = irfft(wet, size)[:n]
    target = _target(rng)
    for _ in range(2):  # the second time for what the first could not see through leakage
        wet *= _matching_gain(mixed, target, size)
        mixed = irfft(wet, size)[:n]
    return np.asarray(np.tanh(mixed), np.float32)
