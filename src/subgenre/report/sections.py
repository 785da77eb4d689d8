"""The sections of the HTML report: functions of the data, "" where there is nothing to show."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from subgenre.report import chances, summary
from subgenre.report.charts import Bar, bars, line_chart
from subgenre.report.data import Point, ReportData, Table, by_genre, figure
from subgenre.report.wording import (
    METRICS,
    cell,
    esc,
    glued,
    metric_name,
    metric_of,
    named_cells,
    score_cell,
)

SHOWN_ROWS = 25
BARS = ("centroid_accuracy", "map_at_r")


def section(anchor: str, heading: str, body: str, lead: str = "") -> str:
    """A section with its heading, both text; nothing where the body is empty."""
    if not body:
        return ""
    words = f'<p class="lead">{esc(lead)}</p>' if lead else ""
    return (
        f'<section id="{anchor}" aria-labelledby="{anchor}-h">'
        f'<h2 id="{anchor}-h">{esc(heading)}</h2>{words}{body}</section>'
    )


def table(head: Sequence[str], rows: Sequence[str], label: str, more: int = SHOWN_ROWS) -> str:
    """A table that scrolls in its own box; rows beyond `more` are folded away.

    `rows` are the cells of each row as HTML; `head` and `label` are text.
    """
    if not rows:
        return ""
    first = _table(head, rows[:more], label)
    if len(rows) <= more:
        return first
    rest = _table(head, rows[more:], f"{label}, continued")
    return f"{first}<details><summary>{len(rows) - more} more</summary>{rest}</details>"


def _table(head: Sequence[str], rows: Sequence[str], label: str) -> str:
    titles = "".join(f'<th scope="col">{esc(name)}</th>' for name in head)
    body = "".join(f"<tr>{named_cells(row, head)}</tr>" for row in rows)
    return (
        f'<div class="scroll" role="region" aria-label="{esc(label)}" tabindex="0"><table>'
        f"<thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def paragraph(text: str) -> str:
    """A small line of text below a chart or table; nothing where it is empty."""
    return f'<p class="note">{esc(text)}</p>' if text else ""


def summary_section(data: ReportData) -> str:
    """The verdict, what follows from the figures, and the warnings."""
    verdict, *rest = summary.sentences(data)
    tone = "none" if summary.learnt_nothing(data) or summary.cannot_tell(data) else "some"
    lines = "".join(f"<li>{glued(line)}</li>" for line in rest)
    notes = [*data.warnings]
    if data.skipped:
        files = "file was" if data.skipped == 1 else "files were"
        notes.append(f"{data.skipped} {files} skipped; skipped.csv in the feature folder says why.")
    warned = "".join(f"<li>{esc(line)}</li>" for line in notes)
    return (
        f'<section id="summary" aria-labelledby="summary-h"><h2 id="summary-h">Summary</h2>'
        f'<p class="verdict {tone}">{glued(verdict)}</p>'
        + (f'<ul class="findings">{lines}</ul>' if lines else "")
        + _bracket_words(data)
        + (
            f'<div class="notice" role="note"><b>Please note</b><ul>{warned}</ul></div>'
            if warned
            else ""
        )
        + "</section>"
    )


def _bracket_words(data: ReportData) -> str:
    found = summary.main_figure(data)
    if found is None or not found.has_interval:
        return ""
    return '<p class="note">In brackets: the 95 % interval over tracks.</p>'


def ladder(data: ReportData) -> str:
    """Baselines and the model: bars for the two main metrics, a table for all."""
    if not data.ladder:
        return ""
    charts = "".join(_ladder_bars(data, metric) for metric in BARS)
    used = {name for rung in data.ladder for name in rung.figures}
    metrics = [name for name in METRICS if name in used] + sorted(used - set(METRICS))
    rows = [
        f'<th scope="row">{esc(metric_name(rung.name))}<small>{esc(rung.what)}</small></th>'
        + "".join(score_cell(figure(rung.figures.get(name)), name) for name in metrics)
        for rung in data.ladder
    ]
    figures = table(["", *map(metric_name, metrics)], rows, "All figures of the ladder")
    return section(
        "ladder",
        "What training added",
        f'<div class="columns">{charts}</div><h3>All figures</h3>{figures}',
        "Each rung on held-out tracks. The bar is the value, the band its 95 % interval over "
        f"tracks, the dotted tick what chance gives. {chances.of_the_ladder(data)}",
    )


def _ladder_bars(data: ReportData, metric: str) -> str:
    found = [Bar(metric_name(r.name), r.what, figure(r.figures.get(metric)), r.name == data.main)
             for r in data.ladder]  # fmt: skip
    if all(bar.found is None for bar in found):
        return ""
    _, what, _ = METRICS[metric]
    return f"<div><h3>{metric_name(metric)}</h3><p class=note>{what}</p>{bars(found, metric)}</div>"


def confusion(data: ReportData) -> str:
    """The matrix as a table: counts, shaded by their share of the row, parted by genre."""
    if not data.confusion:
        return ""
    order = by_genre(data.genres)
    data = replace(
        data,
        labels=tuple(data.labels[i] for i in order),
        genres=tuple(data.genres[i] for i in order),
        confusion=tuple(tuple(data.confusion[i][j] for j in order) for i in order),
    )
    edges = {i for i in range(1, len(data.genres)) if data.genres[i] != data.genres[i - 1]}
    names = "".join(
        f'<th scope="col" class="turned{_edge(i, edges)}" title="{esc(label)}">'
        f"<span>{esc(label)}</span></th>"
        for i, label in enumerate(data.labels)
    )
    rows = "".join(_confusion_row(data, row, edges) for row in range(len(data.labels)))
    body = (
        '<div class="scroll" role="region" aria-label="Confusion matrix" tabindex="0">'
        f'<table class="confusion" style="--n:{len(data.labels)}"><thead><tr>'
        f'<th scope="col" class="corner">belongs to ↓ taken for →</th>{names}</tr>'
        f"</thead><tbody>{rows}</tbody></table></div>"
    )
    lead = (
        "Held-out tracks: each row is a subgenre, each column what the model took its tracks for."
    )
    return section("confusion", "Who is taken for whom", body, lead)


def _edge(i: int, edges: Collection[int]) -> str:
    return " edge" if i in edges or i == 0 else ""


def _confusion_row(data: ReportData, row: int, edges: Collection[int]) -> str:
    counts = data.confusion[row]
    total = max(1, sum(counts))
    cells = []
    for column, count in enumerate(counts):
        kind = "right" if column == row else "wrong"
        share = 0 if not count else max(8, round(100 * count / total))
        dark = " dark" if share > 55 else ""
        told = f"{count} of {total}: {data.labels[row]} taken for {data.labels[column]}"
        title = f' title="{esc(told)}"' if count else ""
        cells.append(
            f'<td class="{kind}{dark}{_edge(column, edges)}" style="--s:{share}%"{title}>'
            f"{count or ''}</td>"
        )
    name = f'<th scope="row"><span>{esc(data.labels[row])}</span></th>'
    genre = ""
    if row in edges or row == 0:
        words = esc(data.genres[row])
        genre = f'<tr class="genre"><th colspan="{len(counts) + 1}">{words}</th></tr>'
    return f"{genre}<tr>{name}{''.join(cells)}</tr>"


def misplaced(data: ReportData, playable: Collection[str]) -> str:
    """The held-out tracks that the model took for another subgenre, to be heard."""
    wrong = data.confusions()
    sure = any(point.sure is not None for point in wrong)
    rows = [
        f"<td>{play_button(p.id, name_of(p), playable)}</td>"
        f'<th scope="row">{esc(name_of(p))}<small>{esc(p.artist)}</small></th>'
        f"<td>{esc(p.subgenre)}</td><td>{esc(p.predicted)}</td>"
        + (cell(p.sure, "centroid_accuracy") if sure else "")
        for p in wrong
    ]
    head = ["", "Track", "Belongs to", "Taken for", *(["How sure"] if sure else [])]
    lead = "Held-out tracks in the wrong place. Listen: is it the model's mistake, or the label's?"
    return section("misplaced", "Confusions to play", table(head, rows, "Confusions to play"), lead)


def learning_curve(data: ReportData) -> str:
    """The score over the number of training tracks, and what more of them would bring."""
    steps = [(step.tracks, figure(step.score)) for step in data.curve]
    known = [(x, found) for x, found in steps if found is not None]
    if not known:
        return section("curve", "Learning curve", f"<p>{esc(data.curve_words)}</p>"
                       if data.curve_words else "")  # fmt: skip
    chart = line_chart(
        "Centroid accuracy",
        [x for x, _ in known],
        [found.value for _, found in known],
        x_name="training tracks a subgenre",
        band=[None if f.low is None or f.high is None else (f.low, f.high) for _, f in known],
        chance=known[-1][1].chance,
        top=1.0,
    )
    note = paragraph(chances.beside(data, known[-1][1].chance))
    body = f'<div class="charts">{chart}</div>{note}'
    return section("curve", "Learning curve", body, data.curve_words)


def history(data: ReportData) -> str:
    """How training went: loss, active share, spread of the embeddings, validation MAP@R."""
    epochs = [float(epoch.epoch) for epoch in data.history]
    if not epochs:
        return ""
    drawn: list[tuple[str, Callable[[Any], float | None], float | None]] = [
        ("Loss", lambda e: e.loss, None),
        ("Share of active triplets", lambda e: e.active, 1.0),
        ("Spread of the embeddings", lambda e: e.spread, None),
        ("Validation MAP@R", lambda e: e.val_map_at_r, None),
    ]
    charts = []
    for title, read, top in drawn:
        scores = [figure(read(epoch)) for epoch in data.history]
        values = [None if score is None else score.value for score in scores]
        charts.append(line_chart(title, epochs, values, x_name="epoch", top=top))
    lead = "The mean over all trainings, a training a fold." if data.folds else ""
    shown = f'<div class="charts">{"".join(charts)}</div>'
    return section("history", "How training went", shown, lead)


def words_and_table(anchor: str, heading: str, found: Table | None, note: str = "") -> str:
    """A section of sentences, one table and a small note below it."""
    if found is None:
        return ""
    words = "".join(f"<p>{esc(line)}</p>" for line in found.words)
    metrics = [metric_of(heading) for heading in found.columns]
    rows = ["".join(cell(v, metrics[i]) for i, v in enumerate(row)) for row in found.rows]
    body = words + table(found.columns, rows, heading) + paragraph(note)
    return section(anchor, heading, body)


def doctor(data: ReportData, playable: Collection[str]) -> str:
    """Tracks to look at again, playable."""
    if data.doctor is None:
        return ""
    rows = [
        f"<td>{play_button(s.id, s.title, playable)}</td>"
        f'<th scope="row">{esc(s.title)}<small>{esc(s.note)}</small></th><td>{esc(s.kind)}</td>'
        f"<td>{esc(s.subgenre)}</td><td>{esc(s.fits)}</td>{cell(s.sure, 'centroid_accuracy')}"
        for s in data.doctor
    ]
    head = ["", "Track", "What", "Lies in", "Fits", "How sure"]
    body = table(head, rows, "Suggestions of the doctor") or "<p>Nothing to suggest.</p>"
    return section("doctor", "Doctor", body, "Tracks to look at again. Nothing was changed.")


def about(data: ReportData) -> str:
    """Settings, versions, the data's fingerprint: what it takes to make these figures again."""
    facts: dict[str, Any] = {}
    if data.n_train or data.n_test:
        facts["tracks"] = (
            f"{data.n_test}, each held out once a repeat; {data.n_train} train at a time"
            if data.folds
            else f"{data.n_train} for training, {data.n_test} held out"
        )
    if data.folds:
        facts["protocol"] = protocol_words(data)
    if data.split_by:
        facts["kept on one side"] = data.split_by
    if data.backbone is not None:
        b = data.backbone
        facts["backbone"] = ", ".join(text for text in (b.name, b.licence, b.source) if text)
    if data.fingerprint:
        facts["fingerprint of the data"] = data.fingerprint
    body = _facts(facts)
    for heading, values in (("Settings", flat(data.settings)), ("Versions", data.versions)):
        if values:
            body += f"<details><summary>{heading}</summary>{_facts(values)}</details>"
    return section("about", "How these figures were made", body)


def protocol_words(data: ReportData) -> str:
    """`5 folds, 3 repeats`, or `one split`."""
    if not data.folds:
        return "one split"
    return f"{data.folds} folds" + (f", {data.repeats} repeats" if data.repeats > 1 else "")


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level: `loss.margin`."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def _facts(values: Mapping[str, Any]) -> str:
    rows = "".join(f"<dt>{esc(k)}</dt><dd>{esc(v)}</dd>" for k, v in values.items())
    return f'<dl class="facts">{rows}</dl>' if rows else ""


def name_of(point: Point) -> str:
    """A track's title, or its file's name."""
    return point.title or PurePath(point.path).stem or point.id


def play_button(track: str, name: str, playable: Collection[str]) -> str:
    """A button that plays a preview; nothing where there is none."""
    if track not in playable:
        return ""
    return (
        f'<button type="button" class="play" data-play="{esc(track)}" '
        f'aria-label="Play 10 seconds of {esc(name)}"></button>'
    )
