"""The model card: the README of a model folder, with figures, data and limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from subgenre.core import files
from subgenre.evaluation.baselines import MODELS
from subgenre.metrics import METRICS
from subgenre.report import summary
from subgenre.report.data import ReportData
from subgenre.report.wording import chance_note, score_text, split_note


def write_card(path: Path, data: ReportData) -> None:
    """Write the model card as Markdown; it says the same as the report of the same data."""
    files.write_text(path, render_card(data))


def render_card(data: ReportData) -> str:
    """Return the model card as Markdown."""
    environment = Environment(
        loader=PackageLoader("subgenre.report"),
        autoescape=False,  # noqa: S701  not HTML; `finalize` escapes every value for Markdown
        finalize=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"title": lambda metric: METRICS[metric].title, "score_text": score_text}
    return environment.get_template("card.md").render(
        data=data,
        models=MODELS,
        sentences=summary.sentences(data),
        metrics=data.metrics(),
        chance_note=chance_note(data),
        split_note=split_note(data),
        labels=list(zip(data.genres, data.labels, strict=True)),
        counts=data.counts(),
        learnt_nothing=summary.learnt_nothing(data),
        inconclusive=summary.inconclusive(data),
    )


def escape(value: Any) -> str:
    """Write a value on one line of Markdown, with nothing in it read as markup."""
    line = " ".join(str(value).encode("utf-8", "replace").decode().split())
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>#|!~$" else c for c in line)
