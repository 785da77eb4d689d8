"""A file's own tags as plain text: foreign text, cleaned before anything sees it."""

from __future__ import annotations

import re
import struct
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from tinytag import TinyTag, TinyTagException

MAX_TEXT = 500  # characters
_BPM = (20.0, 400.0)
_JOINERS = "\u200c\u200d"  # invisible, but some scripts and pictures are spelt with them
# what the parser lets through when a tag is cut off or lies about its lengths
_PROBLEMS = (
    TinyTagException,
    OSError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    RecursionError,
    struct.error,
)


@dataclass(frozen=True)
class Tags:
    """Tags of one file, empty or 0 where there are none; `label` is the record label."""

    artist: str = ""
    album: str = ""
    title: str = ""
    label: str = ""
    year: int = 0
    bpm: float = 0.0


def read_tags(path: Path) -> Tags:
    """Read the tags of a regular audio file; damaged ones count as none."""
    try:
        found = TinyTag.get(str(path), duration=False)
        other = found.other
        return Tags(
            artist=clean(found.artist),
            album=clean(found.album),
            title=clean(found.title),
            label=clean(_first(other, "publisher", "label", "organization")),
            year=_year(clean(found.year)),
            bpm=_bpm(clean(_first(other, "bpm"))),
        )
    except _PROBLEMS:
        return Tags()


def clean(text: object, limit: int = MAX_TEXT) -> str:
    """Return text on one line without control characters, composed (NFC), at most `limit` long."""
    composed = unicodedata.normalize("NFC", str(text or "")[: 4 * limit])
    return " ".join("".join(map(_clean_character, composed)).split())[:limit].strip()


def _clean_character(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Cs":  # a byte of a file name that is no UTF-8
        return "\ufffd"
    if category == "Cc":
        return " "
    if category == "Cf" and character not in _JOINERS:  # marks that turn the line's direction
        return ""
    return character


def _first(other: dict[str, list[str]], *names: str) -> str:
    return next((str(other[name][0]) for name in names if other.get(name)), "")


def _year(text: str) -> int:
    found = re.search(r"(?<!\d)(1[89]|2\d)\d\d(?!\d)", text)
    return int(found[0]) if found else 0


def _bpm(text: str) -> float:
    found = re.match(r"\d{1,4}([.,]\d{1,6})?", text)
    bpm = float(found[0].replace(",", ".")) if found else 0.0
    return bpm if _BPM[0] <= bpm <= _BPM[1] else 0.0
