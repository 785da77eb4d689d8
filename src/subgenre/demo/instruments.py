"""The sound palette that all styles share: drum kits and synthesiser patches, drawn at random.

Drums are short recordings made once a track. A synthesiser note is a band-limited wavetable read
at the note's pitch: one table for each position of the filter, blended as its envelope moves, so
that nothing aliases and a moving filter costs no more than a few look-ups.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, sosfilt

RATE = 22050  # Hz of every demo recording
TABLE = 2048
Samples = NDArray[np.float32]


def _time(length_s: float) -> NDArray[np.float64]:
    return np.arange(int(length_s * RATE)) / RATE


def _noise(rng: np.random.Generator, n: int, kind: str, cutoff_hz: float | list[float]) -> Samples:
    sos = butter(2, cutoff_hz, kind, fs=RATE, output="sos")
    return np.asarray(sosfilt(sos, rng.standard_normal(n)), np.float32)


def _peak_one(samples: NDArray[np.float64] | Samples) -> Samples:
    return np.asarray(samples / np.abs(samples).max(), np.float32)


def _kick(rng: np.random.Generator) -> Samples:
    t = _time(rng.uniform(0.18, 0.34))
    pitch = rng.uniform(46, 60) + rng.uniform(80, 260) * np.exp(-t / rng.uniform(0.012, 0.04))
    body = np.sin(2 * np.pi * np.cumsum(pitch) / RATE) * np.exp(-t / rng.uniform(0.06, 0.14))
    click = rng.uniform(0.05, 0.3) * np.exp(-t / 0.003) * _noise(rng, t.size, "highpass", 1500)
    return _peak_one(np.tanh(rng.uniform(1, 5) * (body + click)))


def _snare(rng: np.random.Generator) -> Samples:
    t = _time(0.25)
    tone = np.sin(2 * np.pi * rng.uniform(160, 230) * t) * np.exp(-t / rng.uniform(0.03, 0.07))
    rattle = _noise(rng, t.size, "highpass", rng.uniform(700, 2000))
    return _peak_one(tone * rng.uniform(0.3, 1) + rattle * np.exp(-t / rng.uniform(0.04, 0.09)))


def _clap(rng: np.random.Generator) -> Samples:
    t = _time(0.25)
    envelope = np.exp(-t / rng.uniform(0.04, 0.08))
    for late_s in (0.011, 0.022):
        envelope += (t > late_s) * np.exp(-np.maximum(t - late_s, 0) / 0.006)
    return _peak_one(envelope * _noise(rng, t.size, "bandpass", [800, rng.uniform(2500, 5000)]))


def _cymbal(rng: np.random.Generator, decay_s: float) -> Samples:
    t = _time(decay_s * 5)
    metal = _noise(rng, t.size, "highpass", rng.uniform(4500, 7500))
    partials = rng.uniform(4000, 9500, 5)[:, None]
    metal += rng.uniform(0, 0.3) * np.sin(2 * np.pi * partials * t).sum(0).astype(np.float32)
    return _peak_one(metal * np.exp(-t / decay_s))


def _blip(rng: np.random.Generator, low_hz: float, high_hz: float, decay_s: float) -> Samples:
    t = _time(decay_s * 5)
    pitch = rng.uniform(low_hz, high_hz) * (1 + 0.5 * np.exp(-t / 0.01))
    body = np.sin(2 * np.pi * np.cumsum(pitch) / RATE) + 0.2 * _noise(rng, t.size, "highpass", 2e3)
    return _peak_one(body * np.exp(-t / decay_s))


def draw_kit(rng: np.random.Generator) -> dict[str, Samples]:
    """Draw a drum kit: one recording for each name, [n] at `RATE`, peak 1."""
    return {
        "kick": _kick(rng),
        "snare": _snare(rng),
        "clap": _clap(rng),
        "hat": _cymbal(rng, rng.uniform(0.012, 0.035)),
        "open": _cymbal(rng, rng.uniform(0.06, 0.12)),
        "shaker": _cymbal(rng, rng.uniform(0.015, 0.03)),
        "rim": _blip(rng, 700, 1500, rng.uniform(0.008, 0.02)),
        "perc": _blip(rng, 180, 700, rng.uniform(0.02, 0.06)),
    }


@dataclass(frozen=True)
class Patch:
    """A synthesiser sound: two waves blended, voices detuned, a resonant low-pass that closes."""

    square: float
    detune_cents: tuple[float, ...]
    cutoff_hz: float
    resonance: float
    opening: float  # octaves by which the filter starts above its cut-off
    decay_s: float
    sustain: float


def draw_patch(rng: np.random.Generator) -> Patch:
    """Draw a patch; basses, chords and leads of all styles come from this one distribution."""
    spread = rng.uniform(3, 14)
    return Patch(
        square=float(rng.uniform()),
        detune_cents=(0.0,) if rng.uniform() < 0.3 else (-spread, spread),
        cutoff_hz=float(np.exp(rng.uniform(np.log(500), np.log(2500)))),
        resonance=float(rng.uniform(0.5, 5)),
        opening=float(rng.uniform(0.5, 2.5)),
        decay_s=float(rng.uniform(0.08, 0.4)),
        sustain=float(rng.uniform(0.4, 0.8)),
    )


def _wavetable(patch: Patch, hz: float, cutoff_hz: float) -> Samples:
    k = np.arange(1, max(2, min(TABLE // 2, int(0.48 * RATE / hz))))
    saw, square = 1 / k, (k % 2) / k
    octaves = np.log2(k * hz / cutoff_hz)
    low_pass = 1 / np.sqrt(1 + 2.0 ** (4 * octaves))
    peak = patch.resonance * np.exp(-((octaves / 0.3) ** 2))
    spectrum = np.zeros(TABLE // 2 + 1, np.complex128)
    spectrum[k] = ((1 - patch.square) * saw + patch.square * square) * (
        low_pass + peak / (1 + 4 / k)
    )
    wave = np.fft.irfft(-1j * spectrum)
    return np.asarray(wave / (np.sqrt(np.mean(wave**2)) * 3), np.float32)


def play(
    patch: Patch, hz: float, length_s: float, *, attack_s: float = 0.004, sweep: float = 0.0
) -> Samples:
    """Play one note: [n] samples, `length_s` and a short release long; `sweep` opens the filter."""
    release_s = max(0.03, min(attack_s, 0.6))
    t = _time(length_s + release_s)
    cutoff_hz = patch.cutoff_hz * 2.0**sweep
    tables = [_wavetable(patch, hz, cutoff_hz * 2.0**up) for up in (0.0, patch.opening)]
    wave = [np.zeros(t.size, np.float32) for _ in tables]
    for number, cents in enumerate(patch.detune_cents):
        phase = t * (hz * 2 ** (cents / 1200)) + 0.37 * number
        index = ((phase - np.floor(phase)) * TABLE).astype(np.intp)
        for total, table in zip(wave, tables, strict=True):
            total += table[index]
    fall = np.exp(-t / patch.decay_s).astype(np.float32)
    level = np.minimum(1, t / attack_s) * np.clip((length_s + release_s - t) / release_s, 0, 1)
    level *= patch.sustain + (1 - patch.sustain) * fall
    return np.asarray((wave[0] + (wave[1] - wave[0]) * fall) * level, np.float32)
