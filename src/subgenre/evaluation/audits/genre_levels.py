"""Genre levels: the scores within each genre and between the genres.

A model may separate genres and not the subgenres of one genre, or the other way round.
"""

from __future__ import annotations

from collections.abc import Mapping

from subgenre.core.text import percent
from subgenre.evaluation import baselines
from subgenre.evaluation.audits.base import (
    ABSENT,
    Audit,
    Context,
    Section,
    Table,
    decimal_text,
    share_text,
)
from subgenre.metrics import Score

LEVELS = {"within": "subgenres of one genre", "across": "genres"}
SCORED = ("frozen", "probe", "trained")

Scores = Mapping[str, Mapping[str, Score]]


def run(context: Context) -> dict[str, Scores]:
    """Score the models on each level: level -> model -> metric -> score."""
    return {
        level: baselines.score(
            context.folds,
            context.labels,
            genres=context.genres,
            ids=[track.id for track in context.tracks],
            view=level,
            models=SCORED,
            seed=context.seed,
        ).scores
        for level in LEVELS
    }


def _chance(score: Score | None) -> str:
    return ABSENT if score is None else percent(score.chance)


def section(scores: Mapping[str, Scores], _: Context) -> Section:
    """Show a row for each level and model."""
    rows = tuple(
        (
            LEVELS[level],
            baselines.MODELS[model].title,
            share_text(by_metric.get("centroid_accuracy")),
            _chance(by_metric.get("centroid_accuracy")),
            share_text(by_metric.get("knn_accuracy")),
            decimal_text(by_metric.get("map_at_r")),
        )
        for level, models in scores.items()
        for model, by_metric in models.items()
    )
    columns = ("Separates", "Model", "Centroid accuracy", "Chance", "k-NN accuracy", "MAP@R")
    return Section(
        "views",
        "Within and between genres",
        "Can the model separate the subgenres of one genre, and can it separate the genres? There "
        "are fewer choices than in the other sections, so chance is higher. It is that of the "
        "centroid accuracy: the share of the largest class among the held-out tracks of a split, "
        "averaged over the splits.",
        "",
        (Table(columns, rows, "Within and between genres"),),
    )


AUDIT = Audit("views", run, section)
