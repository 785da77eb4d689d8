"""Measure the tempo and the key of a track on a minute from its middle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from subgenre.audio import reading
from subgenre.audio.keys import MAJOR, MINOR
from subgenre.audio.measures import Float32, beat, hann, onset_envelope

MEASURED_S = 60.0
RATE = 22_050
_BEAT = 0.35  # lowest score of a beat
_KEYED = 0.25  # lowest deviation of the pitch classes, as a share of their mean
_FAINT = 0.02  # level of a tone of -100 dB
_SIZE = 8192  # samples of a frame: 2.7 Hz, a semitone at 45 Hz
_RANGE_HZ = (50.0, 2000.0)
# The pitch classes above the tonic of electronic dance music (A. Faraldo, E. Gomez, S. Jorda and
# P. Herrera, Key estimation in electronic dance music, ECIR 2016, profiles 'edma').
_PROFILES = (
    (0.165, 0.047, 0.083, 0.067, 0.100, 0.093, 0.053, 0.132, 0.052, 0.074, 0.069, 0.064),
    (0.172, 0.053, 0.076, 0.100, 0.056, 0.085, 0.050, 0.135, 0.075, 0.050, 0.092, 0.055),
)


def measure_file(path: Path, duration_s: float) -> tuple[float | None, str | None]:
    """Return tempo and key of the middle of a file of `duration_s` seconds.

    Raises:
        AudioError: the file can't be read there.
    """
    start_s = max(0.0, (duration_s - MEASURED_S) / 2)
    mono = reading.mono_window(*reading.read_window(path, start_s, MEASURED_S), MEASURED_S, RATE)
    return tempo(mono, RATE), key(mono, RATE)


def tempo(mono: Float32, rate: int) -> float | None:
    """Return the tempo of mono samples [n], 50 to 220 beats a minute; None without a beat.

    The tempo of `measures.beat` is refined within 1 %: all multiples of the period up to half of
    the samples count, so that the error falls with the length.
    """
    envelope, frame_rate = onset_envelope(mono, rate)
    bpm, score, correlation = beat(envelope, frame_rate)
    if not score >= _BEAT:  # also NaN
        return None
    fine = bpm * np.linspace(0.99, 1.01, 401)
    period = 60 * frame_rate / fine
    multiples = np.arange(1, 1 + max(4, int(len(envelope) / 2 / period[0])))[:, None]
    lags = np.arange(len(correlation))
    return round(float(fine[np.interp(multiples * period, lags, correlation).mean(0).argmax()]), 2)


def key(mono: Float32, rate: int) -> str | None:
    """Return the key of mono samples [n] whose pitch classes correlate best with its profile.

    A peak of the spectrum counts for the nearest pitch class, in the tuning of the track; loud and
    quiet frames count alike. None for silence, and where all classes are as strong, as in noise.
    """
    from scipy import fft

    if len(mono) < _SIZE:
        return None
    frames = np.lib.stride_tricks.sliding_window_view(mono, _SIZE)[:: _SIZE // 2]
    level = np.abs(fft.rfft((frames - frames.mean(axis=1, keepdims=True)) * hann(_SIZE)))
    low, high = (round(hz * _SIZE / rate) for hz in _RANGE_HZ)
    before, at, after = (level[:, low + i : high + i] for i in (-1, 0, 1))
    loudest = at.max(axis=1, keepdims=True)
    audible = at > np.maximum(0.01 * loudest, max(0.001 * loudest.max(), _FAINT))
    row, column = np.nonzero((at > before) & (at >= after) & audible)
    if not len(row):
        return None
    # the top of the parabola through three levels, in dB
    before, at, after = (np.log(side[row, column] + 1e-9) for side in (before, at, after))
    offset = 0.5 * (before - after) / np.minimum(before - 2 * at + after, -1e-9)
    pitch = 12 * np.log2((low + column + offset.clip(-0.5, 0.5)) * rate / _SIZE / 440) + 69
    weight = np.exp(at) / loudest[row, 0]
    pitch -= np.angle((weight * np.exp(2j * np.pi * pitch)).sum()) / (2 * np.pi)
    nearest = np.rint(pitch)
    weight *= np.exp(-0.5 * ((pitch - nearest) / 0.25) ** 2)
    classes = np.bincount(nearest.astype(int) % 12, weight, 12).astype(np.float64)
    return best_key(classes) if classes.std() > _KEYED * classes.mean() else None


def best_key(classes: NDArray[np.floating]) -> str:
    """Return the key whose profile correlates best with the strengths [12] of C, C#, ... B."""
    rolled = [np.roll(profile, tonic) for profile in _PROFILES for tonic in range(12)]
    return (*MAJOR, *MINOR)[int(np.argmax([np.corrcoef(classes, one)[0, 1] for one in rolled]))]
