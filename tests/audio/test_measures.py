"""Each measure against signals of known loudness, clipping, silence, band and tempo."""

from __future__ import annotations

import numpy as np
import pytest

from subgenre.audio.measures import COLUMNS, clipped_share, measure

RATE = 44_100
RNG_SEED = 7


def noise(seconds: float, rate: int = RATE, channels: int = 1) -> np.ndarray:
    rng = np.random.default_rng(RNG_SEED)
    return (0.1 * rng.standard_normal((channels, round(seconds * rate)))).astype(np.float32)


def sine(frequency_hz: float, seconds: float, rate: int = RATE) -> np.ndarray:
    t = np.arange(round(seconds * rate)) / rate
    return np.sin(2 * np.pi * frequency_hz * t).astype(np.float32)[None]


def low_passed(cutoff_hz: float, rate: int = RATE) -> np.ndarray:
    spectrum = np.fft.rfft(noise(10, rate)[0])
    spectrum[np.fft.rfftfreq(10 * rate, 1 / rate) > cutoff_hz] = 0
    return np.fft.irfft(spectrum).astype(np.float32)[None]


def test_every_column_is_a_finite_number():
    for samples in (noise(10), noise(10, channels=2), noise(0.2), noise(10, channels=6)):
        found = measure(samples, RATE)
        assert tuple(found) == COLUMNS
        assert all(type(value) is float and np.isfinite(value) for value in found.values())


@pytest.mark.parametrize("length", [0, 1, 100, 5000, 441_000])
def test_silence_of_any_length(length):
    assert measure(np.zeros((2, length), np.float32), RATE) == {
        "loudness_lufs": -70.0,
        "peak": 0.0,
        "clipped_share": 0.0,
        "silent_share": 1.0,
        "cutoff_hz": 0.0,
        "tempo_bpm": 0.0,
        "cancelled_share": 0.0,
    }


@pytest.mark.parametrize(
    ("level", "channels", "seconds", "rate", "lufs", "tolerance"),
    [
        # ITU-R BS.1770-4: a 997 Hz sine at 0 dBFS in one channel reads -3.01 LKFS
        (1.0, 1, 10, RATE, -3.01, 0.05),
        (0.1, 1, 10, RATE, -23.01, 0.05),
        (1.0, 2, 10, RATE, 0.0, 0.05),
        # the standard's filter is warped where half the rate is near
        *((1.0, 1, 5, rate, -3.01, 0.25) for rate in (8_000, 22_050, 48_000, 96_000)),
        (1.0, 1, 0.2, RATE, -3.0, 0.3),  # less than a gating block
        (1e-5, 1, 5, RATE, -70.0, 0.0),  # under the gate
    ],
)
def test_loudness_of_a_sine(level, channels, seconds, rate, lufs, tolerance):
    samples = level * np.repeat(sine(997, seconds, rate), channels, axis=0)
    assert measure(samples, rate)["loudness_lufs"] == pytest.approx(lufs, abs=tolerance)


def test_peak_counts_both_signs():
    samples = 0.5 * noise(1)
    samples[0, 100] = -0.75
    assert measure(samples, RATE)["peak"] == 0.75


@pytest.mark.parametrize(
    ("right", "share"), [(-1.0, 1.0), (-0.9, 1.0), (-0.5, 0.0), (0.0, 0.0), (1.0, 0.0)]
)
def test_channels_cancel_where_one_is_nearly_the_inverse_of_the_other(right, share):
    left = noise(1)
    assert measure(np.vstack([left, right * left]), RATE)["cancelled_share"] == share


def test_clipped_share_counts_runs_only():
    samples = np.zeros((2, 1000), np.float32)
    samples[0, 10] = 1.0  # alone: a peak that just fits
    samples[0, 20:25] = 1.0
    samples[1, 30:32] = -1.0
    samples[1, 999] = 1.0
    assert clipped_share(samples) == pytest.approx(7 / 2000)


def test_clipped_share_of_a_clipped_sine():
    # |2 sin| >= 1 for two thirds of each period
    clipped = np.clip(2 * sine(100, 5), -1, 1)
    assert measure(clipped, RATE)["clipped_share"] == pytest.approx(2 / 3, abs=0.01)


def test_silent_share_is_the_share_of_quiet_frames():
    samples = noise(10, channels=2)
    samples[:, : 3 * RATE] *= 1e-3  # -80 dBFS
    assert measure(samples, RATE)["silent_share"] == pytest.approx(0.3, abs=0.01)


def test_silent_share_does_not_take_opposite_channels_for_silence():
    samples = np.concatenate([noise(2), -noise(2)])
    assert measure(samples, RATE)["silent_share"] == 0.0


@pytest.mark.parametrize("cutoff_hz", [5_000, 11_000, 16_000, 19_000])
@pytest.mark.parametrize("bits", [16, 32])
def test_cutoff_of_low_passed_noise(cutoff_hz, bits):
    samples = low_passed(cutoff_hz)
    if bits == 16:
        samples = (np.round(samples * 2**15) / 2**15).astype(np.float32)
    assert measure(samples, RATE)["cutoff_hz"] == pytest.approx(cutoff_hz, abs=250)


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_cutoff_of_full_band_noise_is_half_the_rate(rate):
    assert measure(noise(5, rate), rate)["cutoff_hz"] == pytest.approx(rate / 2, abs=150)


def test_cutoff_survives_a_whine_and_a_click_above_it():
    samples = low_passed(11_000) + 0.01 * sine(15_625, 10)
    samples[0, 100_000] += 0.5
    assert measure(samples, RATE)["cutoff_hz"] == pytest.approx(11_000, abs=250)


def place(sound: np.ndarray, times_s: np.ndarray, seconds: float) -> np.ndarray:
    track = np.zeros(round((seconds + 1) * RATE))
    for at in np.round(times_s * RATE).astype(int):
        track[at : at + len(sound)] += sound
    return track[: round(seconds * RATE)]


def decaying(sound: np.ndarray, per_s: float) -> np.ndarray:
    return sound * np.exp(-per_s * np.arange(len(sound)) / RATE)


@pytest.mark.parametrize("bpm", [70, 77, 90, 101.5, 120, 128, 133, 145, 160, 174, 180])
def test_tempo_of_clicks(bpm):
    click = decaying(noise(0.02)[0] * 5, 300)
    track = place(click, np.arange(0.07, 9.9, 60 / bpm), 10)
    found = measure(track.astype(np.float32)[None], RATE)["tempo_bpm"]
    assert found == pytest.approx(bpm, rel=0.02)


@pytest.mark.parametrize("bpm", [115, 124, 128, 140, 150])
@pytest.mark.parametrize("rate_of_hats", [2, 4])
def test_tempo_of_a_drum_pattern(bpm, rate_of_hats):
    beat = 60 / bpm
    sweep = np.arange(round(0.2 * RATE)) / RATE
    kick = decaying(np.sin(2 * np.pi * (50 * sweep - 5 * np.exp(-30 * sweep))), 15)
    snare = decaying(4 * noise(0.15)[0], 25)
    hat = decaying(2 * np.diff(noise(0.05)[0], prepend=0), 60)
    track = (
        0.9 * place(kick, np.arange(0, 10, beat), 10)
        + place(snare, np.arange(beat, 10, 2 * beat), 10)
        + place(hat, np.arange(0, 10, beat / rate_of_hats), 10)
        + 0.1 * sine(220, 10)[0]
    )
    samples = np.tanh(np.stack([track, 0.8 * track])).astype(np.float32)
    assert measure(samples, RATE)["tempo_bpm"] == pytest.approx(bpm, rel=0.02)


def test_no_beat_has_no_tempo():
    swell = 1 + 0.5 * np.sin(2 * np.pi * 0.3 * np.arange(10 * RATE) / RATE)
    for samples in (noise(10), 0.5 * sine(440, 10), (0.5 * sine(440, 10) * swell)):
        assert measure(samples.astype(np.float32), RATE)["tempo_bpm"] == 0.0
