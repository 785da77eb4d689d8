"""Colours and shapes of the subgenres: the same on the map, in the legend and in the plots.

Colours are those of Okabe and Ito, "Color Universal Design" (2008), which people with the common
kinds of colour blindness can tell apart. Subgenres of one genre differ in colour, genres in shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#8C8C8C")

# name of the shape in plotly, in matplotlib, and its outline in a box of 16 by 16
SHAPES = (
    ("circle", "o", "M8 2.5a5.5 5.5 0 1 0 .01 0Z"),
    ("square", "s", "M3 3h10v10H3Z"),
    ("triangle-up", "^", "M8 2 14.5 13.5h-13Z"),
    ("diamond", "D", "M8 1.2 14.8 8 8 14.8 1.2 8Z"),
    ("cross", "P", "M5.8 1.5h4.4v4.3h4.3v4.4h-4.3v4.3H5.8v-4.3H1.5V5.8h4.3Z"),
    ("star", "*", "M8 .8 10.2 6h5.4l-4.3 3.5 1.6 5.5L8 11.8 3.1 15l1.6-5.5L.4 6h5.4Z"),
    ("triangle-down", "v", "M8 14 1.5 2.5h13Z"),
    ("x", "X", "M4.4 1.3 8 4.9l3.6-3.6 3.1 3.1L11.1 8l3.6 3.6-3.1 3.1L8 11.1l-3.6 3.6-3.1-3.1L4.9 8"
     " 1.3 4.4Z"),
)  # fmt: skip


@dataclass(frozen=True)
class Style:
    """How one subgenre is drawn; `shape` is a position in `SHAPES`."""

    colour: str
    shape: int

    @property
    def symbol(self) -> str:
        """Name of the shape in plotly."""
        return SHAPES[self.shape][0]

    @property
    def marker(self) -> str:
        """Name of the shape in matplotlib."""
        return SHAPES[self.shape][1]

    @property
    def outline(self) -> str:
        """SVG path of the shape in a box of 16 by 16."""
        return SHAPES[self.shape][2]


def styles(labels: Sequence[str], genres: Sequence[str]) -> dict[str, Style]:
    """Give each subgenre a colour and a shape: one shape a genre, one colour a subgenre.

    The result does not depend on the order of `labels`. Up to 64 subgenres all look different, if
    no genre has more than 8.
    """
    order = sorted(set(genres))
    position = dict.fromkeys(order, 0)  # of the next subgenre within its genre
    chosen: dict[str, Style] = {}
    for label, genre in sorted(zip(labels, genres, strict=True), key=lambda x: (x[1], x[0])):
        chosen[label] = _first_free(order.index(genre), position[genre], set(chosen.values()))
        position[genre] += 1
    return chosen


def _first_free(genre: int, position: int, used: set[Style]) -> Style:
    # each genre starts at another colour, so that neighbouring genres differ in colour too
    n = len(COLOURS)
    for shift in range(len(SHAPES)):
        shape = (genre + position // n + shift) % len(SHAPES)
        style = Style(COLOURS[(3 * genre + position) % n], shape)
        if style not in used:
            return style
    return style
