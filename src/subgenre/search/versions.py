"""Which tracks are versions of one recording: remasters, edits, the same song on two albums.

By tags alone: artist and title, without what names an edition of the same recording. A remix by
someone, a live take or a cover is another recording and stays.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

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
NOBODY = frozenset({"", "unknown", "unknown artist", "various artists", "various", "va"})


def artist_key(artist: str) -> str:
    """Fold an artist's name for comparison; empty for names that stand for nobody."""
    folded = " ".join(unicodedata.normalize("NFKC", artist).casefold().split())
    return "" if folded in NOBODY else folded


def recording_key(artist: str, title: str, path: Path) -> tuple[str, str]:
    """Return (artist, song) that all versions of one recording share.

    Without a title tag the file's name serves, its track number left out. Either part may be
    empty: an empty song binds nothing, and an empty artist only where the durations agree too.
    """
    text = title or _NUMBER.sub("", path.stem)
    text = unicodedata.normalize("NFKC", text).casefold()
    text = _GUEST.sub("", text)
    text = _BRACKET.sub(lambda found: "" if _names_edition(found[1]) else found[0], text)
    dash = _DASH.search(text)
    if dash and _names_edition(dash[1]):
        text = text[: dash.start()]
    song = "".join(c for c in text if c.isalnum())
    return artist_key(artist), song


def _names_edition(text: str) -> bool:
    """Say whether words name an edition and nobody: 'Remastered 2011', but not 'Somebody Remix'."""
    words = re.findall(r"\w+", text)
    return bool(words) and all(w in _EDITION or re.fullmatch(r"(19|20)\d\d", w) for w in words)
