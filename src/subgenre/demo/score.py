"""From a style to a score: which note sounds when, bar by bar, with breaks and fills."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from subgenre.demo.styles import STEPS, Style

_LEVELS = {"x": 1.0, "o": 0.65, "-": 0.35}


@dataclass(frozen=True)
class Hit:
    """A drum struck at `start_s` with a level of 0 to 1."""

    drum: str
    start_s: float
    level: float


@dataclass(frozen=True)
class Note:
    """A note of a melodic part: MIDI pitch, seconds, level, and how far its filter is opened."""

    part: str
    pitch: int
    start_s: float
    length_s: float
    level: float
    sweep: float


@dataclass(frozen=True)
class Score:
    """What is played in one track; `tonic` is the pitch class of the key, 0 for C."""

    tempo_bpm: float
    tonic: int
    scale: tuple[int, ...]
    hits: tuple[Hit, ...]
    notes: tuple[Note, ...]


def _resting(style: Style, bars: int, rng: np.random.Generator) -> list[frozenset[str]]:
    """Which voices are silent in each bar: some at the start, the style's own in a short break."""
    voices = [*style.drums, *style.parts]
    resting: list[frozenset[str]] = [frozenset()] * bars
    late = frozenset(rng.choice(voices, 1).tolist())
    opening = 1 if bars < 16 else 2
    for bar in range(opening):
        resting[bar] = late
    length = max(1, bars // 12)
    start = int(rng.integers(bars // 3, max(bars // 3 + 1, 2 * bars // 3)))
    for bar in range(start, min(bars, start + length)):
        resting[bar] = frozenset(style.rests)
    return resting


def _hits(
    style: Style,
    step_s: float,
    swing: float,
    resting: list[frozenset[str]],
    rng: np.random.Generator,
) -> list[Hit]:
    chosen = {drum: str(rng.choice(patterns)) for drum, patterns in style.drums.items()}
    hits = []
    for bar, silent in enumerate(resting):
        fill = style.fills and bar % 8 == 7
        for drum, pattern in chosen.items():
            if drum in silent:
                continue
            for step in range(STEPS):
                mark = pattern[(bar * STEPS + step) % len(pattern)]
                if fill and drum in ("snare", "clap", "perc") and step >= 12:
                    mark = "o"
                if mark in _LEVELS:
                    start_s = (bar * STEPS + step + swing * (step % 2)) * step_s
                    hits.append(Hit(drum, start_s, _LEVELS[mark] * rng.uniform(0.85, 1.0)))
    return hits


def _line(pattern: str, bar: int) -> list[tuple[int, int, int]]:
    """The notes of one bar as (step, steps held, degree)."""
    line = []
    for step in range(STEPS):
        at = (bar * STEPS + step) % len(pattern)
        if pattern[at] in "._":
            continue
        held = 1
        while step + held < STEPS and pattern[(at + held) % len(pattern)] == "_":
            held += 1
        line.append((step, held, int(pattern[at], 36)))
    return line


def _notes(
    style: Style,
    step_s: float,
    swing: float,
    resting: list[frozenset[str]],
    rng: np.random.Generator,
) -> tuple[list[Note], int, tuple[int, ...]]:
    """Draw the notes, their key and their scale."""
    key = int(rng.integers(0, 12))
    scale = style.scales[rng.integers(len(style.scales))]
    progression = style.progressions[rng.integers(len(style.progressions))]
    sweep_bars = rng.uniform(4, 10)
    phase = rng.uniform(0, 2 * np.pi)

    def pitch(degree: int, octave: int) -> int:
        # keys are folded around the octave so that a key never moves a part out of its register
        return 12 * (octave + 1 + degree // 7) + scale[degree % 7] + (key if key < 7 else key - 12)

    notes = []
    for name, part in style.parts.items():
        pattern = str(rng.choice(part.patterns))
        for bar, silent in enumerate(resting):
            if name in silent:
                continue
            root = progression[(bar // style.bars_a_chord) % len(progression)]
            sweep = part.sweep * (1 + np.sin(2 * np.pi * bar / sweep_bars + phase))
            for step, held, degree in _line(pattern, bar):
                start_s = (bar * STEPS + step + swing * (step % 2)) * step_s
                for third in range(part.size):
                    notes.append(
                        Note(
                            name,
                            pitch(root % 7 + degree + 2 * third, part.octave),
                            start_s,
                            held * step_s * part.gate,
                            float(rng.uniform(0.8, 1.0)),
                            float(sweep),
                        )
                    )
    return notes, key, scale


def compose(style: Style, length_s: float, rng: np.random.Generator) -> Score:
    """Compose a track of `style`, `length_s` seconds long."""
    tempo_bpm = float(rng.uniform(*style.tempo))
    step_s = 60 / tempo_bpm / 4
    swing = float(rng.uniform(*style.swing))
    bars = int(np.ceil(length_s / (step_s * STEPS)))
    resting = _resting(style, bars, rng)
    hits = _hits(style, step_s, swing, resting, rng)
    notes, tonic, scale = _notes(style, step_s, swing, resting, rng)
    return Score(
        tempo_bpm,
        tonic,
        scale,
        tuple(hit for hit in hits if hit.start_s < length_s),
        tuple(note for note in notes if note.start_s < length_s),
    )
