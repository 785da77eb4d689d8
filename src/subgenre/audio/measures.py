"""Measure a window of samples: loudness, peak, clipping, silence, cut-off, tempo, phase.

The heavy libraries are imported where they are used: most commands measure nothing.
The values are stored with each chunk; an audit tests whether they predict the labels. Samples keep
the file's own rate.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
from numpy.typing import NDArray

from subgenre.audio.reading import channels_cancel, downmix

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

COLUMNS = (
    *("loudness_lufs", "peak", "clipped_share", "silent_share", "cutoff_hz", "tempo_bpm"),
    "cancelled_share",
)

SILENCE_LUFS = -70.0  # the absolute gate of ITU-R BS.1770-4
CLIPPED_AT = 0.999
SILENT_DBFS = -60.0
SILENT = 0.99  # share of silence from which a track is silent
FRAME_S = 0.05
TEMPO_BPM = (50.0, 220.0)


def measure(samples: Float32, rate: int) -> dict[str, float]:
    """Return a finite number for each of `COLUMNS` from samples [C, n] at `rate` Hz.

    Silence has loudness -70. Tempo without a beat and cut-off without a signal are 0. Channels that
    cancel have a `cancelled_share` of 1.
    """
    mono = downmix(samples)
    return {
        "loudness_lufs": loudness_lufs(samples, rate),
        "peak": float(np.abs(samples).max(initial=0.0)),
        "clipped_share": clipped_share(samples),
        "silent_share": silent_share(samples, rate),
        "cutoff_hz": cutoff_hz(mono, rate),
        "tempo_bpm": tempo_bpm(mono, rate),
        "cancelled_share": float(channels_cancel(samples)),
    }


def loudness_lufs(samples: Float32, rate: int) -> float:
    """Return the integrated loudness of [C, n] in LUFS, ITU-R BS.1770-4; at least -70.

    The mean of the channels is measured if there are more than five. A window shorter than a gating
    block of 0.4 s is one block.
    """
    import pyloudnorm

    if samples.shape[0] > 5:
        samples = samples.mean(axis=0, keepdims=True)
    length_s = samples.shape[1] / rate
    if length_s < 0.01 or not samples.any():
        return SILENCE_LUFS
    meter = pyloudnorm.Meter(rate, block_size=min(0.4, length_s))
    with warnings.catch_warnings():
        # pyloudnorm warns if all blocks are under the gate, and of samples above 1
        warnings.simplefilter("ignore")
        loudness = float(meter.integrated_loudness(samples.T.astype(np.float64)))
    return max(SILENCE_LUFS, loudness) if math.isfinite(loudness) else SILENCE_LUFS


def clipped_share(samples: Float32) -> float:
    """Return the share of the samples [C, n] at full scale, in runs of two or more."""
    full = np.abs(samples) >= CLIPPED_AT
    if not full.any():
        return 0.0
    neighbour = np.zeros_like(full)
    neighbour[:, 1:] |= full[:, :-1]
    neighbour[:, :-1] |= full[:, 1:]
    return float((full & neighbour).mean())


def silent_share(samples: Float32, rate: int) -> float:
    """Return the share of 50 ms frames of [C, n] under -60 dBFS over all channels."""
    n = min(samples.shape[1], round(FRAME_S * rate))
    if n == 0:
        return 1.0
    count = samples.shape[1] // n
    frames = samples[:, : count * n].reshape(samples.shape[0], count, n)
    power = np.einsum("ckn,ckn->k", frames, frames) / (n * samples.shape[0])
    return float((power < 10 ** (SILENT_DBFS / 10)).mean())


def cutoff_hz(mono: Float32, rate: int) -> float:
    """Return the frequency above which mono samples [n] have no energy, Hz; lossy encoding cuts it.

    The level that one frame in ten exceeds is filtered by a running median, which removes single
    tones. Energy is a level above the noise of 16-bit samples and above -90 dB of the loudest band.
    """
    from scipy import fft, signal

    size = 4096
    if len(mono) < size:
        mono = np.pad(mono, (0, size - len(mono)))
    # side lobes at -92 dB: a loud tone is at most eight bins wide
    window = signal.get_window("blackmanharris", size).astype(np.float32)
    frames = mono[: len(mono) // size * size].reshape(-1, size) * window
    spectrum = fft.rfft(frames)
    power = spectrum.real**2 + spectrum.imag**2
    tenth = int(0.9 * (len(power) - 1))
    level = signal.medfilt(np.partition(power, tenth, axis=0)[tenth].astype(np.float64), 21)
    # quantisation to steps of 2^-15 has the variance step^2 / 12; 10 dB above it includes dither
    noise = 10 * (2.0**-30 / 12) * float(np.square(window).sum())
    audible = (level > max(noise, 1e-9 * float(level.max()))).nonzero()[0]
    return min(rate / 2, float((audible[-1] + 1) * rate / size)) if len(audible) else 0.0


def tempo_bpm(mono: Float32, rate: int) -> float:
    """Return the tempo of mono samples [n], 50 to 220 beats a minute; 0 without a beat."""
    bpm, strength, _ = beat(*onset_envelope(mono, rate))
    return bpm if strength > 0.15 else 0.0


def beat(envelope: Float64, frame_rate: float) -> tuple[float, float, Float64]:
    """Find the tempo of an onset envelope [n], 50 to 220 beats a minute.

    Autocorrelation of the onset envelope, weighted by a log-normal prior around 120 (D. Ellis, Beat
    tracking by dynamic programming, 2007, section 3.2). The score of a period is the mean over the
    period and its multiples. Twice the period scores as high, so the prior may choose every other
    beat; if half the period scores as high too, half the period is the beat.

    Returns:
        tempo, its score (at most 1; 0 without onsets or under 4 s), and the autocorrelation by lag.
    """
    from scipy import fft

    if len(envelope) < 4 * frame_rate or envelope.std() < 0.01:
        return 0.0, 0.0, np.zeros(0)
    padded = 2 ** math.ceil(math.log2(2 * len(envelope)))
    spectrum = fft.rfft(envelope, padded)
    lags = np.arange(len(envelope))
    correlation = fft.irfft(np.abs(spectrum) ** 2, padded)[: len(envelope)]
    correlation /= correlation[0] * (1 - lags / len(envelope)).clip(0.1)
    bpm = np.geomspace(*TEMPO_BPM, 600)
    period = 60 * frame_rate / bpm
    score = np.interp(np.arange(1, 5)[:, None] * period, lags, correlation).mean(axis=0)
    best = int(np.argmax(score * np.exp(-0.5 * np.log2(bpm / 120) ** 2)))
    double = int(np.searchsorted(bpm, 2 * bpm[best]))
    if double < len(bpm) and score[double - 3 : double + 4].max() > 0.9 * score[best]:
        best = double - 3 + int(np.argmax(score[double - 3 : double + 4]))
    return float(bpm[best]), float(score[best]), correlation


def hann(size: int) -> Float32:
    """Return the periodic Hann window [size]."""
    return np.hanning(size + 1)[:-1].astype(np.float32)


def onset_envelope(mono: Float32, rate: int) -> tuple[Float64, float]:
    """Return the spectral flux of mono samples [n] and its frames per second."""
    from scipy import fft

    hop = max(1, round(rate / 100))
    size = 2 ** max(4, round(math.log2(rate * 0.025)))
    if len(mono) < 2 * size:
        return np.zeros(0), rate / hop
    frames = np.lib.stride_tricks.sliding_window_view(mono, size)[::hop]
    spectrum = fft.rfft(frames * hann(size))
    power = (spectrum.real**2 + spectrum.imag**2) / size
    edges = np.unique(np.geomspace(1, power.shape[1] - 1, 25).astype(int))
    level = np.log1p(1000 * np.add.reduceat(power, edges, axis=1)).astype(np.float64)
    flux = np.maximum(0.0, np.diff(level, axis=0)).mean(axis=1)
    # smooth over one frame on either side for periods that are not whole numbers of frames
    flux = np.convolve(flux, (0.25, 0.5, 0.25), mode="same")
    return flux - flux.mean(), rate / hop
