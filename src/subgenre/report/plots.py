"""The map and the confusion matrix as pictures (PNG), drawn without a display."""

from __future__ import annotations

import warnings
from itertools import groupby
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from subgenre.core import files
from subgenre.report.data import SPLITS, ReportData, by_genre
from subgenre.report.palette import Style, styles

DPI = 150
INK, GREY = "#22252b", "#5a606b"
NAME_LENGTH = 34  # characters of a name in the legend
LONG_LEGEND = 28  # subgenres; more take two columns
# size of a marker in square points, opacity, width of its outline, by split
_LOOK = {"train": (26.0, 0.38, 0.0), "test": (52.0, 1.0, 0.7)}


def save_map(path: Path, data: ReportData) -> None:
    """Draw the map: colour and shape by subgenre, training tracks faint, held-out ones strong."""
    figure = Figure(figsize=(11.0, 6.6), facecolor="white")
    looks = styles(data.labels, data.genres)
    # the legend is as wide as its longest name
    names = (plain(name, NAME_LENGTH) for name in (*data.labels, *data.genres))
    longest = max(map(len, names), default=0)
    right = 0.69 if len(data.labels) > LONG_LEGEND else 0.93 - min(0.24, 0.0085 * longest)
    axes = figure.add_axes((0.02, 0.07, right - 0.03, 0.90))
    for split, (size, opacity, outline) in _LOOK.items():
        for label, style in looks.items():
            points = [p for p in data.points if (p.split, p.subgenre) == (split, label)]
            axes.scatter(
                [point.x for point in points],
                [point.y for point in points],
                s=size,
                c=style.colour,
                marker=style.marker,
                alpha=opacity,
                linewidths=outline,
                edgecolors=INK if outline else "none",
            )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_aspect("equal", adjustable="datalim")
    axes.spines[:].set_color("#c9ccd3")
    _legend(figure, looks, data, right)
    _split_legend(figure, {point.split for point in data.points})
    if data.map is not None:
        figure.text(0.02, 0.02, data.map.note, fontsize=9, color=GREY)
    _save(figure, path)


def save_confusion(path: Path, data: ReportData) -> None:
    """Draw the confusion matrix [true, predicted]: counts, shaded by their share of the row.

    Lines separate the genres. The picture grows with the number of subgenres.
    """
    order = by_genre(data.genres)
    labels, genres = [data.labels[i] for i in order], [data.genres[i] for i in order]
    counts = np.array(data.confusion, dtype=np.float64)[np.ix_(order, order)]
    side = max(4.5, 0.42 * len(labels) + 3.0)
    figure = Figure(figsize=(side, side), facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(counts > 0):
        ink = "white" if share[row, column] > 0.55 else INK
        text = f"{counts[row, column]:.0f}"
        axes.text(column, row, text, ha="center", va="center", fontsize=9, color=ink)
    names = [plain(label, 28) for label in labels]
    axes.set_xticks(range(len(labels)), names, rotation=90, fontsize=9)
    axes.set_yticks(range(len(labels)), names, fontsize=9)
    for edge in [i for i in range(1, len(genres)) if genres[i] != genres[i - 1]]:
        axes.axhline(edge - 0.5, color="#9aa0ab", linewidth=0.9)
        axes.axvline(edge - 0.5, color="#9aa0ab", linewidth=0.9)
    axes.set_xlabel("predicted", fontsize=10, color=INK)
    axes.set_ylabel("true subgenre", fontsize=10, color=INK)
    axes.tick_params(length=0)
    _save(figure, path)


def plain(text: str, limit: int) -> str:
    """Return one line of at most `limit` characters, cut in its middle; `$` starts no formula."""
    line = " ".join(text.encode("utf-8", "replace").decode().split())
    if len(line) > limit:
        half = (limit - 1) // 2
        line = f"{line[: limit - 1 - half]}…{line[-half:]}"
    return line.replace("$", r"\$")


def _legend(figure: Figure, looks: dict[str, Style], data: ReportData, right: float) -> None:
    """List the subgenres below their genres, right of the map."""
    genre_of = dict(zip(data.labels, data.genres, strict=True))
    handles: list[Line2D] = []
    names: list[str] = []
    for genre, labels in groupby(looks, key=genre_of.__getitem__):
        handles.append(_handle("none", "none", 0))
        names.append(" " + plain(genre, NAME_LENGTH))  # matplotlib drops names that start with "_"
        for label in labels:
            handles.append(_handle(looks[label].marker, looks[label].colour, 7))
            names.append(" " + plain(label, NAME_LENGTH))
    rows = max(1, len(names))
    columns = 1 if len(looks) <= LONG_LEGEND else 2
    legend = figure.legend(
        handles,
        names,
        loc="center left",
        bbox_to_anchor=(right, 0.52),  # above the legend of the splits
        frameon=False,
        ncols=columns,
        fontsize=max(4.0, min(9.5, 9.5 * 29 * columns / rows, 9.5 / columns**0.5)),
        handletextpad=0.2,
        labelspacing=0.35,
    )
    for handle, text in zip(handles, legend.get_texts(), strict=True):
        if handle.get_marker() == "none":
            text.set_color(GREY)
            text.set_fontweight("bold")


def _split_legend(figure: Figure, splits: set[str]) -> None:
    """Explain the looks of training and held-out tracks, if both are on the map."""
    present = [split for split in _LOOK if split in splits]
    if len(present) < 2:
        return
    looks = [_LOOK[split] for split in present]
    figure.legend(
        [_handle("o", "#6b7280", size**0.5, opacity, line) for size, opacity, line in looks],
        [SPLITS[split] for split in present],
        loc="lower right",
        bbox_to_anchor=(0.985, 0.0),
        frameon=False,
        ncols=len(present),
        fontsize=9,
        handletextpad=0.2,
        columnspacing=1.2,
    )


def _handle(
    marker: str, colour: str, size: float, opacity: float = 1.0, outline: float = 0.5
) -> Line2D:
    return Line2D(
        [], [], linestyle="none", marker=marker, color=colour, markersize=size,
        alpha=opacity, markeredgewidth=outline, markeredgecolor=INK if outline else "none",
    )  # fmt: skip


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    with files.atomic_path(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # no font for a script
        figure.savefig(temporary, dpi=DPI, format="png", metadata={"Software": None})
