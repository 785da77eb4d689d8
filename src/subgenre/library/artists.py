"""The artists that a tag names: one, or several as in "A; B" and "A feat. B"."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

NOBODY = frozenset(
    {"", "unknown", "unknown artist", "various artists", "various", "none"}
    | {"va", "v.a.", "v. a.", "v/a", "n/a"}
)
"""Placeholder names of artists and albums, without regard to case and spaces."""
_BETWEEN = re.compile(
    r"[\0;|]|(?: |[(\[] ?)(?:(?:feat|ft|featuring|vs|versus|pres|presents)(?:[.:] ?| )|w/ ?)"
    r"|[(\[] ?with |^(?:feat|featuring)(?:[.:] ?| )"
)
# what may separate two artists, or be part of a name
_UNSURE = re.compile(
    r"((?: ?[/\\&+,\u00d7\u00b7\u2022\u3001\u30fb])+ ?(?:and )?| (?:x|and|with|f\.) )"
)
_REMARK = re.compile(r"[(\[][^()\[\]]*$")
_BRACKETS = " ()[]<>"
_THE = re.compile("^the |, the$")


def normal(text: str) -> str:
    """Return a name for comparison: without regard to case, spaces and forms of characters."""
    composed = unicodedata.normalize("NFKC", text).casefold()
    return " ".join("".join(c for c in composed if unicodedata.category(c) != "Cf").split())


def listed(tag: str) -> list[str]:
    """Return the names in a tag for comparison, without brackets around them or at their end."""
    return [name for name in map(_without_remarks, _BETWEEN.split(normal(tag))) if name]


class Artists:
    """Who the artists in the tags of a library are, where "&", "," or "and" may be part of a name.

    Of names like "AC/DC" and "Earth, Wind & Fire" one that stands whole on another track is one
    artist, unless each part is an artist by itself. "The" before a name has no effect.

    Args:
        tags: (recording, tag) of each track.
    """

    def __init__(self, tags: Iterable[tuple[str, str]]) -> None:
        names = {(recording, _plain(name)) for recording, tag in tags for name in listed(tag)}
        self._tracks_of = Counter(name for _, name in names)

    def of(self, tag: str) -> Iterator[str]:
        """Yield the artists in a tag, and each name as a whole: tracks that share it stay bound."""
        for name in map(_plain, listed(tag)):
            if name in NOBODY:
                continue
            parts = _UNSURE.split(name)  # names, with what separates them in between
            yield _together(parts)
            n = len(parts)
            ones = [
                (start, end)
                for start in range(0, n, 2)
                for end in range(start + 1, n + 1, 2)
                if self._is_one(parts[start:end], name)
            ]
            ones += [(i, i + 1) for i in range(0, n, 2) if not any(s <= i < e for s, e in ones)]
            yield from (_together(parts[start:end]) for start, end in ones)

    def _is_one(self, parts: Sequence[str], name: str) -> bool:
        """Whether adjoining parts of `name` are one artist."""
        whole = _plain("".join(parts))
        elsewhere = self._tracks_of[whole] > (whole == name)
        return elsewhere and not all(self._tracks_of[_plain(part)] for part in parts[::2])


def _without_remarks(name: str) -> str:
    name = name.strip(_BRACKETS)
    while remark := _REMARK.search(name):
        name = name[: remark.start()].strip(_BRACKETS)
    return name


def _plain(name: str) -> str:
    """Return a name without "the", unless too little is left."""
    name = name.strip(_BRACKETS)
    plain = _THE.sub("", name)
    return name if plain in NOBODY else plain


def _together(parts: Sequence[str]) -> str:
    """Return one text for the same artists in any order, however they are separated."""
    return " & ".join(sorted({_plain(part) for part in parts[::2]}))
