"""Fonts for names in any script: matplotlib's own, and installed ones for the other letters."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager

from matplotlib import rc_context
from matplotlib.font_manager import fontManager
from matplotlib.ft2font import FT2Font

OWN = "DejaVu Sans"
_BOXES = "Last Resort"  # has a box for every letter


def chosen(names: Iterable[str]) -> tuple[list[str], str]:
    """Return fonts that together draw the letters of `names`, and the letters that none has."""
    missing = {letter for name in names for letter in name if letter.isprintable()} - {" "}
    fonts = [OWN]
    for font in sorted(fontManager.ttflist, key=lambda font: (font.name != OWN, font.name)):
        if not missing:
            break
        if font.name.startswith(_BOXES):
            continue
        face = FT2Font(font.fname)
        found = {letter for letter in missing if face.scalable and face.get_char_index(ord(letter))}
        if found:
            fonts.append(font.name)
            missing -= found
    return list(dict.fromkeys(fonts)), "".join(sorted(missing))


def for_names(names: Iterable[str]) -> AbstractContextManager[None]:
    """Draw text in the fonts of `chosen`."""
    return rc_context({"font.family": chosen(names)[0]})


def note(names: Iterable[str]) -> str:
    """Return a line about letters that no installed font has, or ""."""
    missing = chosen(names)[1]
    return missing and (
        f"map.png and confusion.png show boxes for {missing[:8]}{'…' * (len(missing) > 8)}: no "
        "font for this script is installed; install one, such as Noto, and evaluate again"
    )
