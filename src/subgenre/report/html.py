"""One HTML file that holds the whole report: no network, no file beside it."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Collection
from importlib import resources
from pathlib import Path
from typing import Any

from subgenre.core import files
from subgenre.core.text import percent
from subgenre.errors import EvaluationError
from subgenre.report import chances, sections
from subgenre.report.data import Point, ReportData, by_genre, drawable
from subgenre.report.pairs import pairs
from subgenre.report.palette import Style, styles
from subgenre.report.previews import Previews, Wanted, collect
from subgenre.report.wording import esc

MAX_MB = 15.0
SVG_POINTS = 4000  # beyond it the map is drawn with WebGL
LISTED_TRACKS = 3000
_MIME = (("audio/ogg", b"OggS"), ("audio/mpeg", b""))


def write_report(
    path: Path, data: ReportData, *, max_mb: float = MAX_MB, previews: Previews | None = None
) -> Previews:
    """Write the report and return the previews in it, which say how many were left out.

    `max_mb` bounds the sound in the file, in megabytes; 0: none. Confusions get their previews
    first, then the doctor's tracks, the other held-out and new ones, the training tracks last.
    With `previews` given, none are made.

    Raises:
        EvaluationError: `max_mb` is negative.
    """
    if not max_mb >= 0:
        raise EvaluationError(f"max_mb is {max_mb}; give 0 or more megabytes")
    if previews is None:
        wanted = listening_order(data) if max_mb else []
        previews = collect((Wanted(p.id, p.path, p.start_s) for p in wanted), max_mb=max_mb)
    files.write_text(path, render(data, previews))
    return previews


def listening_order(data: ReportData) -> list[Point]:
    """Tracks in the order in which they get a preview, each once."""
    by_id = {point.id: point for point in data.points}
    doctors = [by_id[s.id] for s in data.doctor or () if s.id in by_id]
    held_out = [point for point in data.points if point.split != "train"]
    order = [*data.confusions(), *doctors, *held_out, *data.points]
    return list({point.id: point for point in order}.values())


def render(data: ReportData, previews: Previews) -> str:
    """Return the report as HTML."""
    parts = _sections(data, previews)
    links = "".join(f'<a href="#{anchor}">{esc(name)}</a>' for anchor, name, body in parts if body)
    shown = _map_payload(data, previews.audio)
    return _filled(
        _package_text("report.html"),
        {
            "title": esc(data.title),
            "made": esc(data.made),
            "css": _package_text("report.css"),
            "nav": links,
            "main": "".join(body for _, _, body in parts),
            "player": _player(previews.audio),
            "data": embedded_json(shown),
            "previews": "".join(_preview(i, sound) for i, sound in previews.audio.items()),
            "plotly": _plotly() if shown["points"] else "",
            "js": _package_text("report.js"),
        },
    )


def embedded_json(value: Any) -> str:
    """JSON that can stand inside a script element: nothing in it can end the element."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _sections(data: ReportData, previews: Previews) -> list[tuple[str, str, str]]:
    heard = previews.audio.keys()
    table = sections.words_and_table
    return [
        ("summary", "Summary", sections.summary_section(data)),
        ("ladder", "Ladder", sections.ladder(data)),
        ("map", "Map", _map(data, previews)),
        ("confusion", "Confusions", sections.confusion(data)),
        ("views", "Levels", table(
            "views", "Within a genre, and across", data.views, chances.of_the_views(data))),
        ("misplaced", "Listen", sections.misplaced(data, heard)),
        ("pairs", "Pairs", pairs(data)),
        ("curve", "Learning curve", sections.learning_curve(data)),
        ("confounders", "Confounders", table(
            "confounders", "What else tells them apart", data.confounders,
            chances.beside(data, chances.of_a_table(data.confounders)))),
        ("leakage", "Leakage", table("leakage", "Leakage", data.leakage)),
        ("open", "None of these", table("open", "None of my playlists", data.open_set)),
        ("hubness", "Hubs", table("hubness", "Hubs", data.hubness)),
        ("doctor", "Doctor", sections.doctor(data, heard)),
        ("history", "Training", sections.history(data)),
        ("about", "About", sections.about(data)),
    ]  # fmt: skip


def _map(data: ReportData, previews: Previews) -> str:
    drawn = drawable(data.points)
    if not drawn:
        return ""
    lead = (
        f"Each mark is a track: colour and shape say the subgenre. {_map_quality(data)} "
        "Distances across the whole map mean little; look at who lies beside whom."
    )
    lost = len(data.points) - len(drawn)
    notes = [
        f"{len(previews.audio)} previews of 10 s are in this file." if previews.audio else "",
        f"{previews.left_out} more did not fit into its size limit." if previews.left_out else "",
        f"{len(previews.unreadable)} files could not be read." if previews.unreadable else "",
        f"{lost} tracks have no place on the map." if lost else "",
    ]
    note = " ".join(text for text in notes if text)
    body = (
        f'<div class="map"><div class="plot"><div id="plot" role="img" aria-label="Map of '
        f'{len(drawn)} tracks; the table below lists them"></div></div>{_legend(data)}</div>'
        f'<p class="note">{esc(note)}</p>{_track_list(data, previews.audio)}'
    )
    return sections.section("map", "Map", body, lead)


def _map_quality(data: ReportData) -> str:
    method = (
        f"Drawn by {data.map_method}: there are too few tracks for UMAP."
        if data.map_method != "UMAP"
        else "Drawn by UMAP: each track by an encoder that had not heard it, the encoders' spaces "
        "turned onto one another."
        if data.folds
        else "Drawn by UMAP, fitted on the training tracks; held-out tracks lie beside their "
        "neighbours."
    )
    if data.trustworthiness is None or data.knn_agreement is None:
        return method
    return (
        f"{method} Trustworthiness {data.trustworthiness:.2f} (1 is perfect); "
        f"{percent(data.knn_agreement)} of a track's {data.map_k} nearest are its nearest here too."
    )


def _legend(data: ReportData) -> str:
    known = styles(data.labels, data.genres)
    counts = data.counts()
    groups: dict[str, list[str]] = {}
    for i in by_genre(data.genres):
        label = data.labels[i]
        button = (
            f'<button type="button" aria-pressed="true" data-label="{i}">{_icon(known[label])}'
            f"<span>{esc(label)}</span><small>{sum(counts[label].values())}</small></button>"
        )
        groups.setdefault(data.genres[i], []).append(button)
    listed = "".join(
        f'<div class="group"><h3>{esc(genre)}</h3>{"".join(buttons)}</div>'
        for genre, buttons in groups.items()
    )
    words = {"train": "training", "test": "held out", "new": "new"}
    present = [split for split in words if any(p.split == split for p in data.points)]
    boxes = "".join(
        f'<label><input type="checkbox" checked data-split="{split}">'
        f'<i class="mark {split}"></i>{words[split]}</label>'
        for split in present
    )
    return (
        f'<div class="legend" aria-label="Legend"><div class="choices">{boxes}'
        '<button type="button" id="all">show all</button>'
        f'<button type="button" id="none">hide all</button></div>{listed}</div>'
    )


def _icon(style: Style) -> str:
    return (
        f'<svg viewBox="0 0 16 16" aria-hidden="true"><path d="{style.outline}" '
        f'fill="{style.colour}"/></svg>'
    )


def _track_list(data: ReportData, heard: Collection[str]) -> str:
    shown = [p for p in data.points if p.id in heard] if heard else list(data.points)
    rows = [
        f"<td>{sections.play_button(p.id, sections.name_of(p), heard)}</td>"
        f'<th scope="row">{esc(sections.name_of(p))}<small>{esc(p.artist)}</small></th>'
        f"<td>{esc(p.subgenre)}</td><td>{esc(p.predicted)}</td>"
        for p in sorted(shown, key=lambda p: (p.genre, p.subgenre, sections.name_of(p)))
    ][:LISTED_TRACKS]
    head = ("", "Track", "Subgenre", "Taken for")
    body = sections.table(head, rows, "Tracks of the map", LISTED_TRACKS)
    what = "previews" if heard else "tracks"
    return f"<details><summary>The {len(rows)} {what} as a table</summary>{body}</details>"


def _map_payload(data: ReportData, heard: Collection[str]) -> dict[str, Any]:
    known = styles(data.labels, data.genres)
    number = {label: i for i, label in enumerate(data.labels)}
    points = [
        {
            "id": p.id,
            "x": round(p.x, 4),
            "y": round(p.y, 4),
            "title": sections.name_of(p),
            "artist": p.artist,
            "label": number[p.subgenre],
            "split": p.split,
            "predicted": p.predicted,
            "heard": p.id in heard,
        }
        for p in drawable(data.points)
        if p.subgenre in number
    ]
    looks = [
        {
            "name": label,
            "genre": genre,
            "colour": known[label].colour,
            "symbol": known[label].symbol,
        }
        for label, genre in zip(data.labels, data.genres, strict=True)
    ]
    tracks = {p.id: [sections.name_of(p), p.artist, p.subgenre] for p in data.points}
    return {"points": points, "labels": looks, "tracks": tracks, "gl": len(points) > SVG_POINTS}


def _player(heard: Collection[str]) -> str:
    if not heard:
        return ""
    return (
        '<div class="player" id="player" role="region" aria-label="Player">'
        '<div class="now"><b id="now-title"></b><small id="now-by"></small></div>'
        '<audio id="audio" controls preload="metadata" aria-label="Preview of a track"></audio>'
        "</div>"
    )


def _preview(track: str, sound: bytes) -> str:
    mime = next(name for name, start in _MIME if sound.startswith(start))
    text = base64.b64encode(sound).decode("ascii")
    return (
        f'<script type="text/plain" data-preview="{esc(track)}" data-mime="{mime}">{text}</script>'
    )


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    source: str = get_plotlyjs()
    return re.sub(r"</(script)", r"<\\/\1", source, flags=re.IGNORECASE)


def _package_text(name: str) -> str:
    return resources.files("subgenre.report").joinpath(name).read_text(encoding="utf-8")


def _filled(template: str, values: dict[str, str]) -> str:
    # one pass: what a value holds is never read as a place to fill
    page = re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], template)
    return page.encode("utf-8", "replace").decode()
