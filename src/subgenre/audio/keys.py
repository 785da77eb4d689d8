"""Musical keys: 'Am' for A minor, 'Bb' for B flat major, and their places on the Camelot wheel.

Keys that are neighbours on the wheel differ in one note or none, so that their tracks mix.
"""

from __future__ import annotations

import re

from subgenre.errors import ConfigError

MAJOR = ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
MINOR = ("Cm", "C#m", "Dm", "Ebm", "Em", "Fm", "F#m", "Gm", "G#m", "Am", "Bbm", "Bm")
_TONICS = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
_NAME = re.compile(r"([A-Ga-g])([#b♯♭]?) *(maj|major|m|min|minor)?")
_PLACE = re.compile(r"(0?[1-9]|1[0-2]) *([ABab])")


def camelot(key: str) -> str:
    """Return the place of a key on the Camelot wheel: '8A' for 'Am', '8B' for 'C'."""
    minor = key in MINOR
    tonic = MINOR.index(key) + 3 if minor else MAJOR.index(key)  # of the relative major
    return f"{(7 * tonic + 7) % 12 + 1}{'A' if minor else 'B'}"


_AT = {camelot(key): key for key in (*MAJOR, *MINOR)}


def parse(name: str) -> str:
    """Return a key by its name ('Am', 'A minor', 'Gb') or its place on the wheel ('8A').

    Raises:
        ConfigError: neither.
    """
    if place := _PLACE.fullmatch(name.strip()):
        return _AT[f"{int(place[1])}{place[2].upper()}"]
    found = _NAME.fullmatch(name.strip())
    if found is None:
        raise ConfigError(f"'{name}' is no key; give for example Am, F# or 8A")
    shift = {"": 0, "#": 1, "♯": 1, "b": -1, "♭": -1}[found[2]]
    minor = (found[3] or "").lower() in ("m", "min", "minor")
    return (MINOR if minor else MAJOR)[(_TONICS[found[1].lower()] + shift) % 12]


def neighbours(key: str) -> tuple[str, ...]:
    """Return the key, the next two on the wheel, and its relative major or minor."""
    place = camelot(key)
    number, letter = int(place[:-1]), place[-1]
    steps = [f"{(number - 1 + step) % 12 + 1}{letter}" for step in (0, -1, 1)]
    return tuple(_AT[at] for at in (*steps, f"{number}{'B' if letter == 'A' else 'A'}"))
