"""Wording that report and card share: metrics, scores, chance, the split."""

from __future__ import annotations

from subgenre.core.text import counted, p_value, percent, percent_interval, signed
from subgenre.metrics import METRICS, Difference, Score
from subgenre.report.data import ReportData

ABSENT = "–"  # noqa: RUF001  an en dash is what an empty cell shows


def score_text(score: Score | None, metric: str) -> str:
    """Write a score with its interval: '83 % (78 to 86)', '0.443 (0.41 to 0.47)'."""
    if score is None:
        return ABSENT
    exact = score.low == score.high
    if METRICS[metric].is_share:
        if exact:
            return percent(score.value)
        return percent_interval(score.value, score.low, score.high)
    text = f"{score.value:z.3f}"  # z: no "-0.000"
    return text if exact else f"{text} ({score.low:z.2f} to {score.high:z.2f})"


def difference_text(difference: Difference) -> str:
    """Write how far a baseline lies from a model, of a share: '11 points less than (4 to 17)'."""
    points, low, high = (
        100 * value for value in (difference.difference, difference.low, difference.high)
    )
    if abs(points) < 0.5:
        return "as much as"
    if points < 0:
        points, low, high = -points, -high, -low
    interval = f"({low:z.0f} to {high:z.0f}, p {p_value(difference.p)})"
    less = "less" if difference.difference > 0 else "more"
    return f"{counted(round(points), 'point')} {interval} {less} than"


def signed_text(difference: Difference | None, metric: str) -> str:
    """Write a difference with its interval and p: '+11 points (+4 to +17), p 0.002'."""
    if difference is None:
        return ABSENT
    scale, digits = (100, 0) if METRICS[metric].is_share else (1, 3)
    value, low, high = (
        signed(scale * number, digits)
        for number in (difference.difference, difference.low, difference.high)
    )
    unit = " points" if METRICS[metric].is_share else ""
    return f"{value}{unit} ({low} to {high}), p {p_value(difference.p)}"


def chance_note(data: ReportData) -> str:
    """Explain the chance level of the scores."""
    averaged = " of a fold, averaged over the folds" if data.folds else ""
    return (
        "Chance for centroid and k-NN accuracy is the share of the largest subgenre among the "
        f"held-out tracks{averaged}; for the other figures it is the score of shuffled labels."
    )


def split_note(data: ReportData) -> str:
    """Say how many tracks were held out: of folds, of one split."""
    if not data.folds:
        return f"One split: {counted(data.n_train, 'training track')}, {data.n_test} held out."
    repeats = f", {data.repeats} repeats" if data.repeats > 1 else ""
    return (
        f"{data.folds} folds{repeats}: each of {counted(data.n_test, 'track')} is held out once"
        f"{' a repeat' if repeats else ''}; {data.n_train} train at a time."
    )
