"""The summary claims no more than the figures show."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from subgenre.evaluation.baselines import MODELS
from subgenre.metrics import METRICS, Difference, Score, wilson
from subgenre.report import ReportData, summary
from subgenre.report.card import render_card
from subgenre.report.wording import chance_note, difference_text, signed_text
from subgenre.report.writer import Evaluated
from tests.report.example import full_data, models, points


def counted(right: int, n: int, chance: float) -> Score:
    return Score(right / n, *wilson(right / n, n), chance)


def with_models(
    n_test: int, differences: dict[str, Difference] | None = None, **scores: Score
) -> ReportData:
    models = {name: {"centroid_accuracy": score} for name, score in scores.items()}
    pairs = {
        f"trained_vs_{name}": {"centroid_accuracy": difference}
        for name, difference in (differences or {}).items()
    }
    return ReportData("x", n_test=n_test, models=models, comparisons=pairs)


def test_a_model_at_chance_is_reported_as_useless():
    data = full_data(models=models(trained=0.14))
    assert summary.sentences(data)[0].startswith("The model is no better than chance")
    assert summary.learnt_nothing(data)
    assert "do not use it" in render_card(data)
    better = full_data()
    assert not summary.learnt_nothing(better)
    assert "do not use it" not in render_card(better)
    assert summary.sentences(better)[0].startswith("The model separates your playlists: 83 %")


def test_without_a_score_nothing_is_claimed():
    (sentence,) = summary.sentences(ReportData("x"))
    assert "unknown" in sentence


def test_shuffled_labels_are_reported_as_nothing_learnt():
    # the verdict is right as often as the interval: guessing models, 17 of 20 at least
    rng = np.random.default_rng(5)
    data = [
        with_models(100, trained=counted(rng.binomial(100, 0.12), 100, 0.12)) for _ in range(20)
    ]
    assert sum(map(summary.learnt_nothing, data)) >= 17


def test_the_weight_of_one_track_is_given_where_it_is_large():
    few = summary.sentences(full_data(n_test=20, folds=0, points=points(100)))
    assert any("is worth 5 points" in line for line in few)
    assert any("smallest subgenre has 1 held-out track;" in line for line in few)


@pytest.mark.parametrize(
    ("low", "high", "p", "doubt"),
    [
        *((0.043, 0.174, 0.0017, False), (-0.2, -0.02, 0.03, False)),
        *((-0.01, 0.22, 0.04, True), (0.02, 0.32, 0.065, True)),
    ],
)
def test_only_the_difference_decides_whether_training_helped(low, high, p, doubt):
    gain = (low + high) / 2
    data = with_models(
        138,
        {"frozen": Difference(gain, low, high, p, 138)},
        frozen=Score(0.55, 0.47, 0.63, 0.1),  # the two intervals overlap in each case
        trained=Score(0.55 + gain, 0.47 + gain, 0.63 + gain, 0.1),
    )
    (line,) = [line for line in summary.sentences(data) if "frozen backbone" in line]
    assert ("chance" in line) == doubt
    assert ("more than this model" in line) == (gain < 0)
    assert str(round(100 * abs(gain))) in line


def test_an_end_at_zero_has_no_sign_where_the_difference_is_turned_round() -> None:
    worse = Difference(-0.1, -0.3, 0.0, 1.0, 10)
    assert difference_text(worse) == "10 points (0 to 30, p 1.000) more than"
    assert signed_text(worse, "knn_accuracy") == "-10 points (-30 to 0), p 1.000"


def test_five_tracks_are_too_few_for_a_verdict() -> None:
    data = with_models(5, trained=counted(3, 5, 0.4))
    assert summary.sentences(data)[0].startswith("Too few tracks were held out")
    assert (summary.inconclusive(data), summary.learnt_nothing(data)) == (True, False)
    card = render_card(data)
    assert "do not use it" not in card
    assert "Too few tracks were held out to know" in card


@pytest.mark.parametrize(("right", "n", "chance"), [(0, 10, 0.4), (25, 100, 0.25), (20, 60, 1 / 3)])
def test_a_score_at_chance_is_reported_as_chance(right: int, n: int, chance: float) -> None:
    data = with_models(n, trained=counted(right, n, chance))
    assert summary.sentences(data)[0].startswith("The model is no better than chance")
    assert summary.learnt_nothing(data)


def test_ten_tracks_do_not_show_how_good_the_model_is() -> None:
    data = with_models(
        10,
        {"tempo_loudness": Difference(0.2, -0.1, 0.5, 0.3, 10)},
        tempo_loudness=Score(0.5, 0.2, 0.8, 0.2),
        frozen=Score(0.5, 0.2, 0.8, 0.2),
        trained=Score(0.7, 0.4, 1.0, 0.2),
    )
    first, *rest = summary.sentences(data)
    assert "10 held-out tracks are too few" in first
    (tempo,) = [line for line in rest if "Tempo" in line]
    assert "may be chance" in tempo


def test_a_baseline_that_the_model_does_not_reach_is_named_and_one_far_behind_is_not() -> None:
    data = with_models(
        200,
        {
            "tempo_loudness": Difference(0.35, 0.28, 0.42, 1e-9, 200),
            "mean_log_mel": Difference(-0.25, -0.32, -0.18, 1e-9, 200),
        },
        tempo_loudness=counted(50, 200, 0.1),
        mean_log_mel=counted(170, 200, 0.1),
        trained=counted(120, 200, 0.1),
    )
    lines = " ".join(summary.sentences(data))
    assert re.search(r"mean spectrum alone reaches 85 % .*25 points .* more than this model", lines)
    assert "Tempo" not in lines


def test_chance_over_folds_is_an_average() -> None:
    assert "averaged over the folds" in chance_note(full_data())
    assert "averaged" not in chance_note(full_data(folds=0))


def test_the_table_has_the_names_of_the_report():
    score = {"value": 0.5, "low": 0.4, "high": 0.6, "chance": 0.1}
    models = {name: dict.fromkeys(METRICS, score) for name in MODELS}
    columns, rows = Evaluated(Path("run"), {"models": models}, []).table()
    titles = {name: model.title for name, model in MODELS.items()}
    assert columns == ["metric", *(t for n, t in titles.items() if n != "chance"), titles["chance"]]
    assert [row[0] for row in rows] == [metric.title for metric in METRICS.values()]
