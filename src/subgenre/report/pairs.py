"""The section on pairs: is each nuance learnable, the hardest first."""

from __future__ import annotations

from subgenre.core.text import p_value
from subgenre.report.data import Pair, ReportData, figure
from subgenre.report.sections import paragraph, section, table
from subgenre.report.wording import ABSENT, esc, score_cell

SHOWN_PAIRS = 12
LEAD = (
    "Every pair of subgenres by itself, the hardest first. Told apart: p is at most 0.05 and the "
    "accuracy's interval lies above chance. Unsure: only one of the two. Not told apart: neither."
)
# accuracy and p are taken from different vectors, which no reader can guess
TWO_QUESTIONS = (
    "Accuracy and p answer two questions, so a pair can do well by one and badly by the other. The "
    "accuracy is the trained model's on held-out tracks. p asks whether the backbone hears a "
    "difference before any training: how often shuffled labels do as well with a light probe, "
    "corrected for the number of pairs (Benjamini and Hochberg). With few tracks p is careful: it "
    "misses small differences rather than find some that aren't there."
)


def pairs(data: ReportData) -> str:
    """Return the section as HTML, "" where no pair was judged."""
    rows = [
        f'<th scope="row">{esc(pair.a)} <i>and</i> {esc(pair.b)}</th>'
        + score_cell(figure(pair.accuracy), "centroid_accuracy")
        + f'<td class="num">{ABSENT if pair.q is None else esc(p_value(pair.q))}</td>'
        + f"<td>{esc(pair.verdict)}</td>"
        for pair in sorted(data.pairs, key=_hardness)
    ]
    if not rows:
        return ""
    head = ["Pair", "Accuracy of the model", "p before training, corrected", ""]
    shown = table(head, rows, "Pairs of subgenres", SHOWN_PAIRS)
    body = paragraph(TWO_QUESTIONS) + shown
    return section("pairs", "Is this nuance learnable?", body, LEAD)


def _hardness(pair: Pair) -> tuple[bool, float]:
    found = figure(pair.accuracy)
    return found is None, found.value if found else 0.0
