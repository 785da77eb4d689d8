"""What "chance" is in each part of a report: several levels have a right to that word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from subgenre.core.text import percent
from subgenre.report.data import ReportData, Table, figure
from subgenre.report.summary import METRIC
from subgenre.report.wording import ACCURACY


def of_the_ladder(data: ReportData) -> str:
    """Say what chance is for the figures of the ladder."""
    averaged = ", the mean over the folds" if data.folds else ""
    return (
        "Chance: for centroid and k-NN accuracy the share of the largest subgenre among "
        f"{_side(data)}{averaged}; for the other figures what shuffled labels give."
    )


def beside(data: ReportData, chance: float | None) -> str:
    """Say why a part's chance is another than the ladder's; "" where they look the same."""
    main = data.score(data.main, METRIC)
    if chance is None or main is None or main.chance is None:
        return ""
    here, there = percent(chance), percent(main.chance)
    if here == there:
        return ""
    few = ", which are few and so less evenly spread" if main.chance > chance else ""
    return (
        f"Chance is {here} here: the share of the largest subgenre among all tracks. Under "
        f'"What training added" it is {there}: that share among {_side(data)}{few}.'
    )


def of_the_views(data: ReportData) -> str:
    """Say what chance is where genres, or the subgenres of one genre, are the only choices."""
    return (
        "Chance differs from the other sections, as there are fewer choices: for the accuracies it "
        "is the share of the largest subgenre of a genre, or of the largest genre, among "
        f"{_side(data)}."
    )


def of_a_table(found: Table | None) -> float | None:
    """Return the chance of a table's held-out accuracies, None where it holds none."""
    if found is None:
        return None
    places = [i for i, heading in enumerate(found.columns) if heading == ACCURACY]
    scores = (figure(row[i]) for row in found.rows for i in places if _has_chance(row[i]))
    return next((score.chance for score in scores if score is not None), None)


def _side(data: ReportData) -> str:
    return "each fold's held-out tracks" if data.folds else "the held-out tracks"


def _has_chance(value: Any) -> bool:
    return hasattr(value, "chance") or (isinstance(value, Mapping) and "chance" in value)
