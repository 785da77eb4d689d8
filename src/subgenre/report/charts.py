"""Small charts as HTML and SVG: bars with their interval and chance, and lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from subgenre.report.data import Figure
from subgenre.report.wording import ABSENT, esc, interval, number

WIDTH, HEIGHT = 340, 190
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 34


@dataclass(frozen=True)
class Bar:
    """One bar: a name, what it is, its figure, and whether it is the one to look at."""

    name: str
    what: str
    found: Figure | None
    strong: bool = False


def bars(rows: Sequence[Bar], metric: str) -> str:
    """Bars on a scale from 0 to 1: the value, a band for the interval, a tick for chance."""
    return f'<div class="bars">{"".join(_bar(row, metric) for row in rows)}</div>'


def _bar(row: Bar, metric: str) -> str:
    found = row.found
    value = ABSENT if found is None else number(found.value, metric)
    beside = "" if found is None else interval(found, metric)
    return (
        f'<div class="bar-row{" strong" if row.strong else ""}">'
        f'<div class="bar-name">{esc(row.name)}<small>{esc(row.what)}</small></div>'
        f'<div class="bar" aria-hidden="true">{"" if found is None else _marks(found)}</div>'
        f'<div class="bar-value"><b>{esc(value)}</b><small>{esc(beside)}</small></div></div>'
    )


def _marks(found: Figure) -> str:
    parts = [f'<i class="fill" style="width:{_share(found.value)}%"></i>']
    if found.low is not None and found.high is not None:
        left, right = _share(found.low), _share(found.high)
        parts.append(
            f'<i class="range" style="left:{left}%;width:{max(0.4, right - left):.2f}%"></i>'
        )
    if found.chance is not None:
        parts.append(f'<i class="chance" style="left:{_share(found.chance)}%"></i>')
    return "".join(parts)


def _share(value: float) -> float:
    return round(100 * min(1.0, max(0.0, value)), 2)


def line_chart(
    title: str,
    x: Sequence[float],
    y: Sequence[float | None],
    *,
    x_name: str,
    band: Sequence[tuple[float, float] | None] = (),
    chance: float | None = None,
    top: float | None = None,
) -> str:
    """A line over x, with a band for intervals and a dashed line for chance; gaps where y is None.

    The scale starts at 0, or below where values are negative; `top` fixes its upper end.
    """
    known = [(a, b) for a, b in zip(x, y, strict=True) if b is not None]
    if not known:
        return ""
    ends = [v for pair in band if pair is not None for v in pair]
    values = [b for _, b in known] + ends + ([] if chance is None else [chance])
    low, high = min(0.0, *values), max(values) if top is None else top
    high = high if high > low else low + 1.0
    plot = _Scale(min(a for a, _ in known), max(a for a, _ in known), low, high)
    shapes = [_grid(plot), _band(plot, x, band)]
    if chance is not None:
        level = plot.y(chance)
        shapes.append(f'<path class="guess" d="M{LEFT} {level}H{WIDTH - RIGHT}"/>')
    path = " ".join(f"{'L' if i else 'M'}{plot.x(a)} {plot.y(b)}" for i, (a, b) in enumerate(known))
    shapes.append(f'<path class="line" d="{path}"/>')
    if len(known) <= 12:
        shapes += [f'<circle cx="{plot.x(a)}" cy="{plot.y(b)}" r="3.2"/>' for a, b in known]
    shapes.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 4}" text-anchor="middle">'
        f"{esc(x_name)}</text>"
    )
    told = f"{title}: from {known[0][1]:.3g} to {known[-1][1]:.3g}"
    return (
        f'<figure class="chart"><figcaption>{esc(title)}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{esc(told)}">'
        f"{''.join(shapes)}</svg></figure>"
    )


@dataclass(frozen=True)
class _Scale:
    x0: float
    x1: float
    y0: float
    y1: float

    def x(self, value: float) -> float:
        span = (self.x1 - self.x0) or 1.0
        return round(LEFT + (value - self.x0) / span * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        share = (min(max(value, self.y0), self.y1) - self.y0) / (self.y1 - self.y0)
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)


def _grid(plot: _Scale) -> str:
    lines = []
    for value in (plot.y0, (plot.y0 + plot.y1) / 2, plot.y1):
        level = plot.y(value)
        lines.append(
            f'<path class="grid" d="M{LEFT} {level}H{WIDTH - RIGHT}"/>'
            f'<text x="{LEFT - 6}" y="{level + 4}" text-anchor="end">{value:.3g}</text>'
        )
    for value, anchor in ((plot.x0, "start"), (plot.x1, "end")):
        lines.append(
            f'<text x="{plot.x(value)}" y="{HEIGHT - 18}" text-anchor="{anchor}">'
            f"{round(value, 1):g}</text>"
        )
    return "".join(lines)


def _band(plot: _Scale, x: Sequence[float], band: Sequence[tuple[float, float] | None]) -> str:
    known = [(a, pair) for a, pair in zip(x, band, strict=False) if pair is not None]
    if len(known) < 2:
        return ""
    upper = [f"{plot.x(a)},{plot.y(high)}" for a, (_, high) in known]
    lower = [f"{plot.x(a)},{plot.y(low)}" for a, (low, _) in reversed(known)]
    return f'<polygon class="band" points="{" ".join(upper + lower)}"/>'
