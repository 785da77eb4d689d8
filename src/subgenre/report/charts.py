"""The geometry of a small line chart, which the template draws as SVG."""

from __future__ import annotations

from dataclasses import dataclass

from subgenre.evaluation.audits.base import Lines

WIDTH, HEIGHT = 340, 190
LEFT, RIGHT, TOP, BOTTOM = 46, 328, 12, 156  # of the area between the axes
MOST_DOTS = 12  # a line of more values shows no dots


@dataclass(frozen=True)
class LineChart:
    """A chart in pixels, y downwards.

    Attributes:
        x_labels, y_labels: (position, text). line: places of the known values.
        band: SVG points of the area between the intervals' ends, "" without them.
        chance: height of the chance level.
    """

    title: str
    x_title: str
    description: str
    x_labels: tuple[tuple[float, str], ...]
    y_labels: tuple[tuple[float, str], ...]
    line: tuple[tuple[float, float], ...]
    band: str
    chance: float | None
    dots: bool
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = RIGHT


def line_chart(lines: Lines) -> LineChart | None:
    """Lay out a curve; None where no value is known."""
    known = [(x, y) for x, y in zip(lines.x, lines.y, strict=True) if y is not None]
    if not known:
        return None
    values = [y for _, y in known] + [end for pair in lines.intervals for end in pair]
    values += [] if lines.chance is None else [lines.chance]
    low, high = min(0.0, *values), max(values) if lines.top is None else lines.top
    high = high if high > low else low + 1.0
    first, last = known[0][0], known[-1][0]

    def right(x: float) -> float:
        return round(LEFT + (x - first) / ((last - first) or 1.0) * (RIGHT - LEFT), 1)

    def down(y: float) -> float:
        share = (min(max(y, low), high) - low) / (high - low)
        return round(BOTTOM - share * (BOTTOM - TOP), 1)

    ends = list(zip(lines.x, lines.intervals, strict=False))
    upper = [f"{right(x)},{down(end)}" for x, (_, end) in ends]
    lower = [f"{right(x)},{down(end)}" for x, (end, _) in reversed(ends)]
    return LineChart(
        title=lines.title,
        x_title=lines.x_title,
        description=f"{lines.title}: from {known[0][1]:.3g} to {known[-1][1]:.3g}",
        x_labels=tuple((right(x), f"{round(x, 1):g}") for x in (first, last)),
        y_labels=tuple((down(y), f"{y:.3g}") for y in (low, (low + high) / 2, high)),
        line=tuple((right(x), down(y)) for x, y in known),
        band=" ".join(upper + lower),
        chance=None if lines.chance is None else down(lines.chance),
        dots=len(known) <= MOST_DOTS,
    )
