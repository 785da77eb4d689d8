"""Names and formats of the metrics, and text made safe for HTML and Markdown."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Any

from subgenre.core.text import percent
from subgenre.report.data import Figure, figure

_CELL = re.compile(r"<t[hd](?=[ >])")
# name in metrics.json -> heading, explanation, shown as a percentage
METRICS: dict[str, tuple[str, str, bool]] = {
    "centroid_accuracy": ("Centroid accuracy", "nearest subgenre centroid is the right one", True),
    "knn_accuracy": ("k-NN accuracy", "majority of the nearest training tracks is right", True),
    "precision_at_1": ("P@1", "the nearest training track is of the same subgenre", True),
    "map_at_r": ("MAP@R", "own subgenre ranked first among the held-out tracks", False),
    "r_precision": ("R-precision", "share of own subgenre among the R nearest", False),
    "triplet_accuracy": ("Triplet accuracy", "positive nearer than negative", True),
    "nmi": ("NMI", "k-means clusters against subgenres", False),
    "ari": ("ARI", "k-means clusters against subgenres, adjusted", False),
    "silhouette": ("Silhouette", "how compact the subgenres are, -1 to 1", False),
}
ACCURACY = "Held-out accuracy"  # of anything: written as centroid accuracy is
ABSENT = "–"  # noqa: RUF001  an en dash is what an empty cell shows


def esc(text: Any) -> str:
    """Text for HTML, also inside a quoted attribute; what is no Unicode is replaced."""
    return html.escape(str(text).encode("utf-8", "replace").decode(), quote=True)


def md(text: Any) -> str:
    """Text for one line of Markdown: nothing in it is read as markup, link or table cell."""
    line = " ".join(str(text).encode("utf-8", "replace").decode().split())
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>#|!~$" else c for c in line)


def metric_name(metric: str) -> str:
    """Heading of a metric; an unknown one keeps its own name."""
    return METRICS[metric][0] if metric in METRICS else metric.replace("_", " ")


def number(value: float, metric: str = "") -> str:
    """A value in the metric's manner: a percentage, or three digits after the point."""
    if metric in METRICS:
        return percent(value) if METRICS[metric][2] else f"{round(value, 3) + 0.0:.3f}"
    return f"{value:.3g}" if abs(value) < 1e6 else f"{value:.0f}"


def interval(found: Figure, metric: str = "") -> str:
    """`79 to 87 %`, empty where there is no interval."""
    if found.low is None or found.high is None:
        return ""
    if metric in METRICS and METRICS[metric][2]:
        return f"{100 * found.low:.0f} to {100 * found.high:.0f} %"
    return f"{number(found.low, metric)} to {number(found.high, metric)}"


def glued(text: str) -> str:
    """Text for HTML in which a number, its unit and its interval stay on one line."""
    return re.sub(r"(\d[\d.]* %(?: \(\d+ to \d+\))?)", r'<span class="nb">\1</span>', esc(text))


def metric_of(heading: str) -> str:
    """The metric that a column's heading names, "" where it names none."""
    if heading == ACCURACY:
        return "centroid_accuracy"
    return next((name for name, (head, *_) in METRICS.items() if heading in (name, head)), "")


def cell(value: Any, metric: str = "") -> str:
    """One cell of a table as HTML: text, a number, or a figure with interval and chance."""
    if value is None:
        return f'<td class="num">{ABSENT}</td>'
    if isinstance(value, str):
        return f"<td>{esc(value)}</td>"
    if isinstance(value, bool | int):
        return f'<td class="num">{esc(value)}</td>'
    found = figure(value)
    if found is None:
        return f'<td class="num">{ABSENT}</td>'
    return score_cell(found, metric)


def score_cell(found: Figure | None, metric: str = "") -> str:
    """A figure as a cell: the value, and small below it interval and chance."""
    if found is None:
        return f'<td class="num">{ABSENT}</td>'
    small = [interval(found, metric)] if found.has_interval else []
    if found.chance is not None:
        small.append(f"chance {number(found.chance, metric)}")
    below = "".join(f"<small>{esc(line)}</small>" for line in small)
    return f'<td class="num"><b>{esc(number(found.value, metric))}</b>{below}</td>'


def named_cells(row: str, head: Sequence[str]) -> str:
    """Give each cell of a row, HTML, the name of its column: a narrow screen shows it beside it."""
    names = iter(head)
    return _CELL.sub(lambda cell: f'{cell[0]} data-name="{esc(next(names, ""))}"', row)
