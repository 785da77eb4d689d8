"""The registry of audits. To add one, write its file and add its `AUDIT` to the list below."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from subgenre.errors import EvaluationError
from subgenre.evaluation.audits import (
    calibration,
    confounders,
    genre_levels,
    growth,
    hubness,
    leakage,
    learnability,
    mislabels,
    open_set,
)
from subgenre.evaluation.audits.base import Audit, Context, Section

AUDITS: list[Audit] = [
    genre_levels.AUDIT,
    learnability.AUDIT,
    leakage.AUDIT,
    growth.AUDIT,
    confounders.AUDIT,
    calibration.AUDIT,
    open_set.AUDIT,
    open_set.RETRAINED,
    mislabels.AUDIT,
    hubness.AUDIT,
]
"""In the order of the report's sections."""


@dataclass(frozen=True)
class Audited:
    """Results by the name of the audit, sections of the report, and why an audit has no result."""

    results: dict[str, Any]
    sections: tuple[Section, ...]
    notes: tuple[str, ...]


def run_all(context: Context) -> Audited:
    """Run every audit that applies; a note explains where the tracks do not allow one."""
    applicable = [audit for audit in AUDITS if audit.applies(context)]
    results, sections, notes = {}, [], []
    with context.console.progress("audits") as bar:
        for number, audit in enumerate(applicable):
            bar(number, len(applicable))
            try:
                results[audit.name] = audit.run(context)
            except EvaluationError as problem:
                notes.append(f"The audit {audit.name.replace('_', ' ')} is left out: {problem}.")
            else:
                sections.append(audit.section(results[audit.name], context))
        bar(len(applicable), len(applicable))
    return Audited(results, tuple(sections), tuple(notes))
