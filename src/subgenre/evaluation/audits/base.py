"""What an audit shows: a section of plain values, which the report draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Rows of text below a header; the first column names the row.

    A cell with an interval reads "83 % (78 to 86)".
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""


@dataclass(frozen=True)
class Bar:
    """One bar: a value from 0 to 1, its text, its 95 % interval and its chance level."""

    label: str
    value: float
    text: str
    low: float | None = None
    high: float | None = None
    chance: float | None = None
    note: str = ""
    strong: bool = False


@dataclass(frozen=True)
class Bars:
    """Values side by side on a scale from 0 to 1."""

    rows: tuple[Bar, ...]
    title: str = ""
    caption: str = ""


@dataclass(frozen=True)
class Lines:
    """A curve: y [n] over x [n], with the interval of each point and a chance level.

    Attributes:
        y: None where a value is unknown.
        top: upper end of the scale, by default the largest value. The scale starts at 0, or below
            where values are negative.
    """

    title: str
    x_title: str
    x: Sequence[float]
    y: Sequence[float | None]
    intervals: Sequence[tuple[float, float]] = ()
    chance: float | None = None
    top: float | None = None


@dataclass(frozen=True)
class Suggestion:
    """A track to look at: its id, under which the report can play it, and cells of text."""

    id: str
    title: str
    note: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Suggestions:
    """Tracks to look at, in rows that can be played; `columns` name the cells."""

    columns: tuple[str, ...]
    rows: tuple[Suggestion, ...]
    caption: str = ""


Block = Table | Bars | Lines | Suggestions


@dataclass(frozen=True)
class Section:
    """One section of the report.

    Attributes:
        name: its anchor. title: in the menu and as heading.
        explanation: what it asks and how to read it.
        finding: what was found, in a sentence or a few.
        headline: a sentence for the summary, "" if the finding is not remarkable.
    """

    name: str
    title: str
    explanation: str
    finding: str
    blocks: tuple[Block, ...]
    headline: str = ""
