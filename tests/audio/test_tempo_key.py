"""Tempo against click tracks, key against cadences, the wheel against the circle of fifths."""

import numpy as np
import pytest

from subgenre.audio import keys, tempo_key
from subgenre.audio.tempo_key import RATE, measure_file
from subgenre.errors import ConfigError
from tests import audio_files as files

WHEEL = {  # as printed by DJ tools
    "1A": "G#m", "2A": "Ebm", "3A": "Bbm", "4A": "Fm", "5A": "Cm", "6A": "Gm", "7A": "Dm",
    "8A": "Am", "9A": "Em", "10A": "Bm", "11A": "F#m", "12A": "C#m",
    "1B": "B", "2B": "F#", "3B": "Db", "4B": "Ab", "5B": "Eb", "6B": "Bb", "7B": "F",
    "8B": "C", "9B": "G", "10B": "D", "11B": "A", "12B": "E",
}  # fmt: skip


def clicks(bpm, seconds=60):
    """A 20 ms burst of noise on each beat."""
    noise = np.random.default_rng(0)
    track = np.zeros(RATE * (seconds + 1), np.float32)
    for at in np.arange(0.07, seconds, 60 / bpm):
        start = round(at * RATE)
        track[start : start + 441] += noise.standard_normal(441) * np.exp(-np.arange(441) / 70)
    return track[: RATE * seconds]


def cadence(tonic, minor, tuning_hz=440.0):
    """Play I IV V I, in minor i iv V i, with six harmonics a note, for 4 s."""
    third = 3 if minor else 4
    t = np.arange(RATE) / RATE
    chords = []
    for root, own_third in ((0, third), (5, third), (7, 4), (0, third)):
        pitches = [60 + tonic + root + note - 12 for note in (-12, 0, own_third, 7)]
        hz = [tuning_hz * 2 ** ((pitch - 69) / 12) for pitch in pitches]
        parts = [np.sin(2 * np.pi * f * n * t) / n for f in hz for n in range(1, 7)]
        chords.append(np.sum(parts, axis=0))
    return np.concatenate(chords).astype(np.float32) / 20


@pytest.mark.parametrize("bpm", [60, 77, 90, 101.5, 120, 128, 133.33, 145, 160, 174, 180])
def test_tempo_of_a_minute_of_clicks_is_right_within_a_twentieth(bpm):
    assert tempo_key.tempo(clicks(bpm), RATE) == pytest.approx(bpm, abs=0.05)


def test_key_of_a_cadence_in_each_key_and_in_other_tunings():
    for tonic in range(12):
        for minor, names in ((False, keys.MAJOR), (True, keys.MINOR)):
            tuning_hz = (432.0, 440.0, 446.0)[tonic % 3]
            assert tempo_key.key(cadence(tonic, minor, tuning_hz), RATE) == names[tonic]


@pytest.mark.parametrize("seconds", [0, 0.1, 20])
def test_silence_and_noise_have_neither_tempo_nor_key(seconds):
    n = round(seconds * RATE)
    noise = np.random.default_rng(0).standard_normal(n).astype(np.float32)
    for samples in (np.zeros(n, np.float32), np.full(n, 0.4, np.float32), 0.1 * noise):
        assert tempo_key.tempo(samples, RATE) is None
        assert tempo_key.key(samples, RATE) is None


def test_the_middle_of_a_file_is_measured(tmp_path):
    middle = clicks(140) + np.tile(cadence(9, True), 15)[: 60 * RATE]
    other = clicks(100, 30) + np.tile(cadence(3, False), 8)[: 30 * RATE]
    path = files.write(tmp_path / "a.flac", np.concatenate([other, middle, other])[None], rate=RATE)
    tempo, key = measure_file(path, 120.0)
    assert tempo == pytest.approx(140, abs=0.05)
    assert key == "Am"


def test_camelot_places_are_those_of_dj_tools():
    assert {keys.camelot(key): key for key in (*keys.MAJOR, *keys.MINOR)} == WHEEL


def test_a_key_has_many_names():
    names = {"8A": "Am", "08a": "Am", "a minor": "Am", "Amin": "Am", "Gb": "F#", "C♯ maj": "Db"}
    names |= {"B": "B", "b": "B", "Abm": "G#m", "Cb": "B", "12b": "E"}
    assert {name: keys.parse(name) for name in names} == names
    for wrong in ("", "13A", "0A", "H", "8C", "A dorian", "Amm"):
        with pytest.raises(ConfigError, match="is no key"):
            keys.parse(wrong)


def test_neighbours_share_all_notes_but_one_or_all():
    steps = {False: (0, 2, 4, 5, 7, 9, 11), True: (0, 2, 3, 5, 7, 8, 10)}
    notes = {
        name: {(tonic + step) % 12 for step in steps[minor]}
        for minor, names in ((False, keys.MAJOR), (True, keys.MINOR))
        for tonic, name in enumerate(names)
    }
    for name in notes:
        modes = {o for o in notes if (o in keys.MINOR) == (name in keys.MINOR)}
        close = {o for o in modes if len(notes[o] & notes[name]) >= 6}
        relative = {o for o in notes if notes[o] == notes[name]}
        assert set(keys.neighbours(name)) == close | relative
