"""The model card: the README of a run, with the figures, the data and the limits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from subgenre.core import files
from subgenre.report import chances, summary
from subgenre.report.data import ReportData, figure
from subgenre.report.sections import protocol_words
from subgenre.report.wording import ABSENT, METRICS, interval, md, metric_name, number


def write_card(path: Path, data: ReportData) -> None:
    """Write the model card as Markdown, atomically."""
    files.write_text(path, render_card(data))


def render_card(data: ReportData) -> str:
    """Return the model card as Markdown; it says the same as the report of the same data."""
    parts = [
        f"# {md(data.title)}",
        md(data.made),
        _paragraphs(summary.sentences(data)),
        _backbone(data),
        _figures(data),
        _tracks(data),
        _split(data),
        _limits(data),
        _use(data),
        _made_with(data),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _paragraphs(lines: Sequence[str]) -> str:
    return "\n".join(f"- {md(line)}" for line in lines)


def _backbone(data: ReportData) -> str:
    if data.backbone is None:
        return ""
    b = data.backbone
    known = [f"Backbone: {md(b.name)}."]
    known += [f"Licence of its weights: {md(b.licence)}."] if b.licence else []
    known += [f"From: {md(b.source)}."] if b.source else []
    known.append("What the playlists taught it was learnt from your own tracks.")
    return "## Model\n\n" + " ".join(known)


def _figures(data: ReportData) -> str:
    if not data.ladder:
        return ""
    used = {name for rung in data.ladder for name in rung.figures}
    metrics = [name for name in METRICS if name in used] + sorted(used - set(METRICS))
    head = ["rung", *(md(metric_name(name)) for name in metrics)]
    rows = [
        [f"{md(rung.name)} ({md(rung.what)})" if rung.what else md(rung.name)]
        + [_score(rung.figures.get(name), name) for name in metrics]
        for rung in data.ladder
    ]
    how = protocol_words(data)
    return (
        f"## Figures\n\nOn held-out tracks ({how}); in brackets the 95 % interval, then chance. "
        f"{chances.of_the_ladder(data)}\n\n" + _table(head, rows)
    )


def _score(score: object, metric: str) -> str:
    found = figure(score)
    if found is None:
        return ABSENT
    text = number(found.value, metric)
    if found.has_interval:
        text += f" ({interval(found, metric)})"
    return text if found.chance is None else f"{text}; chance {number(found.chance, metric)}"


def _tracks(data: ReportData) -> str:
    if not data.labels:
        return ""
    counts = data.counts()
    sides = ("train", "test") if any(c["train"] for c in counts.values()) else ("test",)
    rows = [
        [md(genre), md(label), *(str(counts[label][side]) for side in sides)]
        for label, genre in zip(data.labels, data.genres, strict=True)
    ]
    total = (
        f"{data.n_test} tracks, each held out once a repeat; {data.n_train} train at a time."
        if data.folds
        else f"{data.n_train} tracks for training, {data.n_test} held out."
    )
    if data.skipped:
        total += f" {data.skipped} files were skipped: see `skipped.csv` in the feature folder."
    head = ["genre", "subgenre", *(["training", "held out"] if len(sides) > 1 else ["tracks"])]
    return f"## Data\n\n{total}\n\n{_table(head, rows)}"


def _split(data: ReportData) -> str:
    lines = [f"Kept on one side: {data.split_by}."] if data.split_by else []
    lines += data.warnings
    return f"## Split\n\n{_paragraphs(lines)}" if lines else ""


def _limits(data: ReportData) -> str:
    lines = [
        "It knows these subgenres only: every track it is asked about is measured against them.",
        "It hears what differs between the folders, wanted or not: sound, tempo, loudness, a "
        "label's mastering. The report's section on confounders says how far those alone go.",
        "The figures hold for tracks of the same kind as the held-out ones.",
    ]
    if summary.learnt_nothing(data):
        lines.insert(0, "It is no better than guessing: do not place tracks by it.")
    if summary.cannot_tell(data):
        lines.insert(0, "Too few tracks were held out to know whether it is better than guessing.")
    return f"## Limits\n\n{_paragraphs(lines)}"


def _use(data: ReportData) -> str:
    if data.folds:  # a model a fold, none of which is kept
        return ""
    return (
        "## Use\n\n"
        "```\n"
        "subgenre classify NEW_TRACKS/ --run THIS_FOLDER    which playlist, or none of these\n"
        "subgenre similar TRACK -k 10 --run THIS_FOLDER     the most similar tracks\n"
        "subgenre embed NEW_TRACKS/ --run THIS_FOLDER       vectors, as Parquet\n"
        "```"
    )


def _made_with(data: ReportData) -> str:
    lines = [f"{name}: {value}" for name, value in data.versions.items()]
    if data.fingerprint:
        lines.append(f"fingerprint of the data: {data.fingerprint}")
    return f"## Made with\n\n{_paragraphs(lines)}" if lines else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
