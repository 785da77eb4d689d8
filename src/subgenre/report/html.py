"""One HTML file that holds the whole report: no network, no file beside it."""

from __future__ import annotations

import base64
import re
from collections.abc import Collection, Mapping
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from subgenre.core import files
from subgenre.core.progress import Progress
from subgenre.core.text import counted, percent
from subgenre.errors import EvaluationError
from subgenre.evaluation.audits.base import Bar, Bars, Lines, Suggestions, Table
from subgenre.evaluation.baselines import MODELS
from subgenre.metrics import METRICS
from subgenre.report import summary
from subgenre.report.charts import line_chart
from subgenre.report.data import SPLITS, Point, ReportData, by_genre
from subgenre.report.palette import styles
from subgenre.report.previews import Previews, collect
from subgenre.report.wording import chance_note, score_text, signed_text, split_note

MAX_MB = 3.0  # with plotly the file is under 8 MB
WEBGL_POINTS = 4000  # a map with more is drawn with WebGL, not SVG
LISTED_TRACKS = 3000
CHARTED_METRICS = ("centroid_accuracy", "map_at_r")
_NUMBER = r"[-+]?\d[\d.]*"
_P = r"\bp (?:&lt; )?\d[\d.]*"
_INTERVAL = rf"\({_NUMBER} to {_NUMBER}(?:, {_P})?\)"
_OPTION = r"(?<![\w-])--[a-z][a-z-]*(?: \d+| [\w.]+=[\w.]+)?"
_UNBROKEN = re.compile(rf"{_NUMBER} (?:%|points?)(?: {_INTERVAL})?|{_INTERVAL}|{_P}|{_OPTION}")
TITLES = {
    "summary": "Summary",
    "baselines": "The model beside its baselines",
    "map": "Map",
    "confusion": "Confusion matrix",
    "mistakes": "Mistakes to listen to",
    "training": "Training",
    "about": "Data and settings",
}
TRAINING_CHARTS = {
    "loss": "Loss",
    "active": "Share of active triplets",
    "spread": "Spread of the embeddings",
    "val_map_at_r": "Validation MAP@R",
}


def write_report(
    path: Path, data: ReportData, *, max_mb: float = MAX_MB, on_progress: Progress | None = None
) -> None:
    """Write the report with at most `max_mb` megabytes of audio, 0: none; see `collect`.

    Raises:
        EvaluationError: `max_mb` is negative.
    """
    if not max_mb >= 0:
        raise EvaluationError(f"max_mb is {max_mb}; give 0 or more megabytes")
    points = preview_order(data) if max_mb else []
    files.write_text(path, render(data, collect(points, max_mb=max_mb, on_progress=on_progress)))


def preview_order(data: ReportData) -> list[Point]:
    """Return the tracks in the order in which they get a preview.

    Mistakes come first, then the tracks that an audit suggests, the other held-out tracks, and
    the training tracks last.
    """
    by_id = {point.id: point for point in data.points}
    suggested = [
        by_id[track]
        for section in data.sections
        for block in section.blocks
        if isinstance(block, Suggestions)
        for row in block.rows
        for track in (row.id, *(near for near, _ in row.nearest))
        if track in by_id
    ]
    held_out = [point for point in data.points if point.split == "test"]
    order = [*data.mistakes(), *suggested, *held_out, *data.points]
    return list({point.id: point for point in order}.values())


def render(data: ReportData, previews: Previews) -> str:
    """Return the report as HTML."""
    environment = _environment()
    playable = previews.audio.keys()
    context = {
        "data": data,
        "playable": playable,
        "menu": _menu(data),
        **_summary(data),
        "metrics": [(METRICS[m].title, METRICS[m].explanation) for m in data.metrics()],
        "baselines": _baselines(data),
        "chance_note": chance_note(data),
        **_map(data, previews),
        "confusion": _confusion(data, playable),
        "mistakes": [_track_row(point) for point in data.mistakes()],
        "training": _training(data),
        "facts": _facts(data),
        "settings": _flat(data.settings),
        "previews": {i: base64.b64encode(mp3).decode("ascii") for i, mp3 in previews.audio.items()},
        "css": _source("report.css"),
        "js": _source("report.js"),
        "plotly": _plotly(),
    }
    page = environment.get_template("report.html").render(context)
    return page.encode("utf-8", "replace").decode()  # a file name may hold bytes that are no UTF-8


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("subgenre.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "counted": counted,
        "layout": line_chart,
        "percent": percent,
        "position": _position,
        "unbroken": _unbroken,
    }
    environment.tests |= {
        "table": lambda block: isinstance(block, Table),
        "bars": lambda block: isinstance(block, Bars),
        "lines": lambda block: isinstance(block, Lines),
        "suggestions": lambda block: isinstance(block, Suggestions),
        "number_text": lambda text: re.match(r"[-+<]?\s?\d|–$", text) is not None,  # noqa: RUF001
    }
    return environment


def _position(value: float) -> float:
    """Place of a value on a bar from 0 to 1, in per cent."""
    return round(100 * min(1.0, max(0.0, value)), 2)


def _unbroken(text: str) -> Markup:
    """Keep a figure with its unit, an interval, and an option with its number on one line."""
    return Markup(_UNBROKEN.sub(r'<span class="nb">\g<0></span>', str(escape(text))))  # noqa: S704


def _source(name: str) -> Markup:
    """Read a file of the templates as it is."""
    folder = resources.files("subgenre.report") / "templates"
    return Markup((folder / name).read_text(encoding="utf-8"))  # noqa: S704


def _plotly() -> Markup:
    from plotly.offline import get_plotlyjs

    return Markup(re.sub(r"</(script)", r"<\\/\1", get_plotlyjs(), flags=re.IGNORECASE))  # noqa: S704


def _menu(data: ReportData) -> dict[str, str]:
    """Name and title of each section that has something to show, in their order."""
    present = {
        "summary": True,
        "baselines": data.models,
        "map": data.map,
        "confusion": data.confusion,
        "mistakes": data.mistakes(),
        **{section.name: section for section in data.sections},
        "training": data.history,
        "about": _facts(data) or data.settings or data.versions,
    }
    titles = TITLES | {section.name: section.title for section in data.sections}
    return {name: titles[name] for name, content in present.items() if content}


def _summary(data: ReportData) -> dict[str, Any]:
    warnings = list(data.warnings)
    if data.skipped:
        skipped = counted(data.skipped, "file")
        warnings.append(f"{skipped} skipped; skipped.csv in the feature folder lists the reasons.")
    return {
        "sentences": summary.sentences(data),
        "doubtful": summary.learnt_nothing(data) or summary.inconclusive(data),
        "warnings": warnings,
    }


def _baselines(data: ReportData) -> list[Bars | Table]:
    """Bars for the two main metrics, a table of the differences, and a table of all figures."""
    metrics = data.metrics()
    table = Table(
        ("Model", *(METRICS[m].title for m in metrics)),
        tuple(
            (MODELS[name].title, *(score_text(scores.get(m), m) for m in metrics))
            for name, scores in data.models.items()
        ),
        "All figures",
    )
    others = [name for name in data.models if f"{summary.MODEL}_vs_{name}" in data.comparisons]
    differences = Table(
        ("This model minus", *(METRICS[m].title for m in CHARTED_METRICS)),
        tuple(
            (
                MODELS[name].title,
                *(signed_text(data.difference(summary.MODEL, name, m), m) for m in CHARTED_METRICS),
            )
            for name in others
        ),
        "Differences on the same held-out tracks",
    )
    charts = [_bars(data, m) for m in CHARTED_METRICS if m in metrics]
    return [*charts, *([differences] if others else []), table]


def _bars(data: ReportData, metric: str) -> Bars:
    rows = [
        Bar(
            MODELS[name].title,
            scores[metric].value,
            score_text(scores[metric], metric),
            scores[metric].low,
            scores[metric].high,
            scores[metric].chance,
            note=MODELS[name].description,
            strong=name == summary.MODEL,
        )
        for name, scores in data.models.items()
        if metric in scores
    ]
    return Bars(tuple(rows), METRICS[metric].title, METRICS[metric].explanation)


def _map(data: ReportData, previews: Previews) -> dict[str, Any]:
    """The map's data for the script, its legend, and the list of its tracks."""
    look = styles(data.labels, data.genres)
    number = {label: i for i, label in enumerate(data.labels)}
    playable = previews.audio.keys()
    payload = {
        "points": [
            {
                "id": p.id,
                "x": round(p.x, 4),
                "y": round(p.y, 4),
                "title": p.title,
                "artist": p.artist,
                "label": number[p.subgenre],
                "split": p.split,
                "predicted": p.predicted,
                "playable": p.id in playable,
            }
            for p in data.points
        ],
        "labels": [
            {"name": label, "colour": look[label].colour, "symbol": look[label].symbol}
            for label in data.labels
        ],
        "tracks": {p.id: [p.title, p.artist, p.subgenre] for p in data.points},
        "gl": len(data.points) > WEBGL_POINTS,
    }
    counts = data.counts()
    labels = [
        {
            "number": i,
            "name": data.labels[i],
            "genre": data.genres[i],
            "style": look[data.labels[i]],
            "n_tracks": sum(counts[data.labels[i]].values()),
        }
        for i in by_genre(data.genres)
    ]
    listed = [p for p in data.points if p.id in playable or not playable]
    listed.sort(key=lambda p: (p.genre, p.subgenre, p.title))
    return {
        "payload": payload,
        "legend": [
            {"genre": genre, "labels": list(group)}
            for genre, group in groupby(labels, key=lambda label: label["genre"])
        ],
        "splits": {s: name for s, name in SPLITS.items() if any(p.split == s for p in data.points)},
        "unreadable": len(previews.unreadable),
        "left_out": previews.left_out,
        "listed": [_track_row(point) for point in listed[:LISTED_TRACKS]],
    }


def _track_row(point: Point) -> dict[str, Any]:
    """A row of the macro `tracks`."""
    cells = [point.subgenre, point.predicted]
    return {
        "id": point.id,
        "title": point.title,
        "note": point.artist,
        "cells": cells,
        "nearest": (),
    }


def _confusion(data: ReportData, playable: Collection[str]) -> list[dict[str, Any]]:
    """Rows of the matrix, grouped by genre; `share` is a cell's share of its row, in per cent."""
    if not data.confusion:
        return []
    example = {(p.subgenre, p.predicted): p for p in data.mistakes() if p.id in playable}
    order = by_genre(data.genres)
    first = {next(group) for _, group in groupby(order, key=data.genres.__getitem__)}
    rows = []
    for i in order:
        total = sum(data.confusion[i])
        cells = [
            {
                "label": data.labels[j],
                "first": j in first,
                "count": data.confusion[i][j],
                "example": example.get((data.labels[i], data.labels[j])),
                "share": round(100 * data.confusion[i][j] / max(1, total)),
            }
            for j in order
        ]
        row = {"label": data.labels[i], "genre": data.genres[i], "first": i in first}
        rows.append(row | {"total": total, "cells": cells})
    return rows


def _training(data: ReportData) -> list[Lines]:
    epochs = [float(row["epoch"]) for row in data.history]
    values = {name: [row[name] for row in data.history] for name in TRAINING_CHARTS}
    return [
        Lines(name, "epoch", epochs, values[key], top=1.0 if key == "active" else None)
        for key, name in TRAINING_CHARTS.items()
        if any(value is not None for value in values[key])
    ]


def _facts(data: ReportData) -> dict[str, str]:
    """What it takes to compute these figures again."""
    facts = {
        "evaluation": split_note(data) if data.n_test else "",
        "kept on one side of a split (recording: files of the same audio data)": data.split_by,
        "fingerprint of the data": data.fingerprint,
    }
    if data.backbone is not None:
        parts = (data.backbone.name, data.backbone.source, data.backbone.licence)
        facts["backbone"] = ", ".join(part for part in dict.fromkeys(parts) if part)
    return {name: value for name, value in facts.items() if value}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings on one level: `loss.margin`."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
