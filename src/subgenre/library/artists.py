"""The artists that a tag names: one, or several as in "A; B" and "A feat. B"."""

from __future__ import annotations

import re
import unicodedata

NOBODY = frozenset({"", "unknown", "unknown artist", "various artists", "various", "va"})
"""Placeholder names of artists and albums, without regard to case and spaces."""
_BETWEEN = re.compile(
    r"\0|;|\s(?:feat|ft|vs)\.?\s|\s[(\[](?:feat|ft)\.?\s|\s(?:featuring|versus)\s"
)


def normal(text: str) -> str:
    """Return a name for comparison: without regard to case, spaces and forms of characters."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def listed(tag: str) -> list[str]:
    """Return the names in a tag for comparison, without brackets around a name."""
    return [name.strip(" ()[]<>") for name in _BETWEEN.split(normal(tag))]
