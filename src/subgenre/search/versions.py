"""Which tracks are versions of one recording: remasters, edits, the same song on two albums.

Only tags decide: artist and title, without words that name an edition. A remix by somebody, a live
take or a cover is another recording.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

from subgenre.library.artists import NOBODY, normal

_EDITION_WORDS = (
    "12 7 album audio clean club digital dirty edit edition explicit extended full hd hq inch "
    "length lossless lyric lyrics main master mix mono official original radio re reedit release "
    "remaster remastered short single stereo the track version video vinyl"
)
_EDITION = frozenset(_EDITION_WORDS.split())
_BRACKET = re.compile(r"[(\[]([^()\[\]]*)[)\]]")
_DASH = re.compile(r"\s[-\u2013]\s([^-\u2013]*)$")
_GUEST = re.compile(r"\s*[(\[]?\b(?:feat|ft|featuring)\b\.?[^()\[\]]*[)\]]?", re.IGNORECASE)
_NUMBER = re.compile(r"^\s*\d{1,3}\s*[-._)]\s*")


def artist_key(artist: str) -> str:
    """Return an artist's name for comparison; \"\" for names such as 'Various Artists'."""
    name = normal(artist)
    return "" if name in NOBODY else name


def recording_key(artist: str, title: str, path: Path) -> tuple[str, str]:
    """Return (artist, song) that all versions of one recording share.

    Without a title tag, the file's name without its track number is the song. Either part may be
    empty: tracks with an empty song are no versions, those with an empty artist only if their
    durations agree too.
    """
    text = title or _NUMBER.sub("", path.stem)
    text = unicodedata.normalize("NFKC", text).casefold()
    text = _GUEST.sub("", text)
    text = _BRACKET.sub(lambda match: "" if _names_edition(match[1]) else match[0], text)
    dash = _DASH.search(text)
    if dash and _names_edition(dash[1]):
        text = text[: dash.start()]
    song = "".join(c for c in text if c.isalnum())
    return artist_key(artist), song


def _names_edition(text: str) -> bool:
    """Whether words name only an edition: 'Remastered 2011', but not 'Somebody Remix'."""
    words = re.findall(r"\w+", text)
    return bool(words) and all(w in _EDITION or re.fullmatch(r"(19|20)\d\d", w) for w in words)
