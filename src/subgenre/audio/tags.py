"""Read the tags of a file as cleaned plain text."""

from __future__ import annotations

import re
import struct
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from tinytag import TinyTag, TinyTagException

MAX_TEXT = 500  # characters
_MAX_APE_BYTES = 2**20
_BPM = (20.0, 400.0)
_JOINERS = "\u200c\u200d"  # invisible, but part of some scripts and emoji
# what a parser raises for truncated tags and wrong lengths
PROBLEMS = (
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
    """Tags of one file; a missing tag is empty or 0. `label` is the record label."""

    artist: str = ""
    album: str = ""
    title: str = ""
    label: str = ""
    year: int = 0
    bpm: float = 0.0


def read_tags(path: Path) -> Tags:
    """Read the tags of a regular audio file; damaged tags are empty. Artists are joined by "; "."""
    values = _read_ape(path)
    try:
        tags = TinyTag.get(str(path), duration=False)
        own = {name: [value] for name, value in vars(tags).items() if isinstance(value, str)}
        for name, more in tags.other.items():
            own[name] = [*own.get(name, []), *map(str, more)]
        values |= {name: found for name, found in own.items() if any(found)}
    except PROBLEMS:
        pass
    artists = [clean(name) for value in values.get("artist", []) for name in value.split("\0")]
    return Tags(
        artist="; ".join(dict.fromkeys(filter(None, artists)))[:MAX_TEXT],
        album=clean(_first(values, "album")),
        title=clean(_first(values, "title")),
        label=clean(_first(values, "publisher", "label", "organization")),
        year=_year(clean(_first(values, "year"))),
        bpm=_bpm(clean(_first(values, "bpm"))),
    )


def _read_ape(path: Path) -> dict[str, list[str]]:
    """Read an APEv2 tag at the end of a file, which may stand before an ID3v1 tag."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _MAX_APE_BYTES))
            data = file.read()
        foot = data.rfind(b"APETAGEX", -32 - 128)
        size, count = struct.unpack_from("<II", data, foot + 12)
        at, end, values = foot + 32 - size, foot, {}
        for _ in range(count if foot >= 0 and at >= 0 else 0):
            length, flags = struct.unpack_from("<II", data, at)
            key, _, rest = data[at + 8 : end].partition(b"\0")
            if not flags & 6:  # text, neither binary nor a link
                values[key.decode("ascii").lower()] = rest[:length].decode("utf-8").split("\0")
            at += 8 + len(key) + 1 + length
    except PROBLEMS:
        return {}
    return values


def clean(text: object, limit: int = MAX_TEXT) -> str:
    """Return text on one line without control characters, composed (NFC), at most `limit` long."""
    composed = unicodedata.normalize("NFC", str(text or "")[: 4 * limit])
    return " ".join("".join(map(_clean_character, composed)).split())[:limit].strip()


def _clean_character(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Cs":  # a byte of a file name that is not UTF-8
        return "\ufffd"
    if category == "Cc":
        return " "
    if category == "Cf" and character not in _JOINERS:  # marks that change the text direction
        return ""
    return character


def _first(other: dict[str, list[str]], *names: str) -> str:
    return next((str(other[name][0]) for name in names if other.get(name)), "")


def _year(text: str) -> int:
    match = re.search(r"(?<!\d)(1[89]|2\d)\d\d(?!\d)", text)
    return int(match[0]) if match else 0


def _bpm(text: str) -> float:
    match = re.match(r"\d{1,4}([.,]\d{1,6})?", text)
    bpm = float(match[0].replace(",", ".")) if match else 0.0
    return bpm if _BPM[0] <= bpm <= _BPM[1] else 0.0
