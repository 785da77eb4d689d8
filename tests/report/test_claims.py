"""The report claims no more than is shown: pairs, few tracks, lopsided intervals, chance."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from subgenre.evaluation.audits.learnability import pairs as judge
from subgenre.metrics import wilson
from subgenre.report import ReportData, chances, html, plots, previews, summary, tables
from subgenre.report.card import render_card
from subgenre.report.data import CurveStep, Figure, Pair, Point, Rung, Table
from tests.report.test_report import LABEL_GENRES, LABELS, Page, full_data, points

BETWEEN = {"value": 0.85, "low": 0.61, "high": 0.94, "chance": 0.5}


def text_of(data: ReportData, anchor: str) -> str:
    """The text of one section of the page."""
    page = html.render(data, previews.Previews({}))
    found = re.search(rf'<section id="{anchor}".*?</section>', page, re.DOTALL)
    return Page(found[0]).text if found else ""


def counted(right: int, n: int, chance: float) -> dict[str, float]:
    low, high = wilson(right / n, n)
    return {"value": right / n, "low": low, "high": high, "chance": chance}


def with_ladder(n_test: int, **scores: Any) -> ReportData:
    rungs = tuple(Rung(name, "", {"centroid_accuracy": s}) for name, s in scores.items())
    return ReportData("x", n_test=n_test, ladder=rungs)


# ---- pairs


def test_the_summary_and_the_table_call_a_pair_by_the_same_word() -> None:
    data = full_data(
        pairs=(
            Pair("colobot", "nexuiz", BETWEEN, 0.085, "unsure"),
            Pair("flare", "nexuiz", 0.65, 0.118),
            Pair("flare", "wesnoth", 0.9, 0.007),
        )
    )
    said = summary.sentences(data)
    assert "flare and nexuiz are not told apart." in said
    assert "Unsure whether they can be told apart: colobot and nexuiz." in said
    assert not [line for line in said if "colobot" in line and "not told apart" in line]
    table = text_of(data, "pairs")
    assert re.search(r"colobot and nexuiz 85 % .{0,40} 0\.085 unsure", table)
    assert re.search(r"flare and nexuiz 65 % 0\.118 not told apart", table)
    assert re.search(r"flare and wesnoth 90 % 0\.007 told apart", table)


def test_many_unsure_pairs_are_counted() -> None:
    unsure = tuple(Pair(f"a{i}", f"b{i}", BETWEEN, 0.1, "unsure") for i in range(7))
    (line,) = [s for s in summary.sentences(full_data(pairs=unsure)) if "Unsure" in s]
    assert line.endswith("a3 and b3 and 3 more pairs.")


def test_a_pair_that_only_the_trained_model_tells_apart_is_unsure_in_the_summary() -> None:
    """Frozen vectors that hold nothing, trained ones that hold all: as it comes from the audit."""
    y = np.repeat([0, 1], 10)
    frozen = np.random.default_rng(0).normal(size=(20, 8))
    trained = np.eye(2)[y] + 0.01
    folds = [(np.flatnonzero(np.arange(20) % 5 != k), np.arange(k, 20, 5)) for k in range(5)]
    (found,) = judge(frozen, y, ("one", "two"), folds, trained=[trained] * 5, permutations=99)
    assert (found.verdict, found.trained is not None) == ("unsure", True)
    data = full_data(pairs=tables.pairs([found]))
    assert not [line for line in summary.sentences(data) if "one and two are not" in line]


def test_the_table_of_pairs_says_why_p_and_accuracy_can_disagree() -> None:
    table = text_of(full_data(), "pairs")
    assert "Accuracy and p answer two questions" in table
    assert "before any training" in table
    assert "Unsure: only one of the two" in table


# ---- few tracks


def test_five_tracks_cannot_show_that_nothing_was_learnt() -> None:
    data = with_ladder(5, trained=counted(3, 5, 0.4))
    first = summary.sentences(data)[0]
    assert first.startswith("Too few tracks were held out to tell learning from guessing: 60 %")
    assert "Nothing was learnt" not in " ".join(summary.sentences(data))
    assert (summary.cannot_tell(data), summary.learnt_nothing(data)) == (True, False)
    card = render_card(data)
    assert "do not place tracks by it" not in card
    assert "Too few tracks were held out to know" in card


def test_a_wide_interval_cannot_show_it_either() -> None:
    wide = {"value": 0.5, "low": 0.2, "high": 0.8, "chance": 0.25}
    assert summary.cannot_tell(with_ladder(40, trained=wide))


@pytest.mark.parametrize(("right", "n", "chance"), [(0, 10, 0.4), (25, 100, 0.25), (20, 60, 1 / 3)])
def test_guessing_is_called_guessing_where_it_is_shown(right: int, n: int, chance: float) -> None:
    data = with_ladder(n, trained=counted(right, n, chance))
    first = summary.sentences(data)[0]
    assert first.startswith("The model does no better than guessing")
    assert first.endswith(f"Nothing was learnt that {n} held-out tracks can show.")
    assert summary.learnt_nothing(data)


def test_ten_tracks_do_not_say_how_well_playlists_are_told_apart() -> None:
    data = with_ladder(
        10,
        tempo_loudness={"value": 0.5, "low": 0.2, "high": 0.8, "chance": 0.2},
        frozen={"value": 0.5, "low": 0.2, "high": 0.8, "chance": 0.2},
        trained={"value": 0.7, "low": 0.4, "high": 1.0, "chance": 0.2},
    )
    first, *rest = summary.sentences(data)
    assert first == (
        "The model does better than guessing, but 10 held-out tracks are too few to say by how "
        "much: 70 % (40 to 100) of held-out tracks find home, 20 % by chance."
    )
    assert (
        "Tempo and loudness alone reach 50 % (20 to 80), as much as the frozen backbone; the "
        "intervals overlap, so it is not certain that the model does better."
    ) in rest


def test_a_baseline_that_the_model_does_not_reach_is_named_and_one_far_behind_is_not() -> None:
    data = with_ladder(
        200,
        tempo_loudness=counted(50, 200, 0.1),
        mean_log_mel=counted(170, 200, 0.1),
        trained=counted(120, 200, 0.1),
    )
    said = summary.sentences(data)
    assert "The mean spectrum alone reaches 85 % (79 to 89), more than this model." in said
    assert not [line for line in said if "Tempo" in line]


# ---- intervals


def test_an_interval_at_the_edge_is_shown_by_its_ends() -> None:
    data = with_ladder(25, frozen=counted(23, 25, 0.12), trained=counted(25, 25, 0.12))
    first, second, *_ = summary.sentences(data)
    assert "100 % (87 to 100) of held-out tracks find home" in first
    assert "92 % (75 to 98)" in second
    page = html.render(data, previews.Previews({}))
    assert "±" not in Page(page).text
    assert "±" not in render_card(data)
    assert '<span class="nb">100 % (87 to 100)</span>' in page
    assert "In brackets: the 95 % interval" in text_of(data, "summary")


# ---- chance


def test_each_chance_says_what_it_is() -> None:
    table = Table(("", "Held-out accuracy"), (("tempo", Figure(0.3, 0.2, 0.4, 1 / 6)),))
    data = full_data(
        ladder=(Rung("trained", "", {"centroid_accuracy": Figure(0.7, 0.6, 0.8, 0.208)}),),
        curve=(CurveStep(4, Figure(0.5, 0.4, 0.6, 1 / 6)),),
        confounders=table,
        views=Table(("Told apart", "Centroid accuracy"), (("within a genre", Figure(0.8)),)),
    )
    assert "as there are fewer choices" in text_of(data, "views")
    assert "the largest subgenre among each fold's held-out tracks" in text_of(data, "ladder")
    for anchor in ("curve", "confounders"):
        told = text_of(data, anchor)
        assert "Chance is 17 % here: the share of the largest subgenre among all tracks" in told
        assert "it is 21 %: that share among each fold's held-out tracks" in told
    assert "among each fold's held-out tracks" in render_card(data)


@pytest.mark.parametrize(("main", "few"), [(0.4, True), (0.3, False)])
def test_why_one_chance_is_above_another_is_said_only_where_it_is(main: float, few: bool) -> None:
    data = with_ladder(20, trained={"value": 0.9, "low": 0.8, "high": 1.0, "chance": main})
    told = chances.beside(data, 0.35)
    assert f"{main:.0%}".replace("%", " %") in told
    assert ("less evenly spread" in told) == few


def test_chances_that_agree_need_no_words() -> None:
    assert "Chance is" not in text_of(full_data(), "curve")
    assert "Chance is" not in text_of(full_data(confounders=None), "leakage")
    one_split = text_of(full_data(folds=0, repeats=0), "ladder")
    assert "largest subgenre among the held-out tracks; for the other" in one_split


# ---- the legend of the map


def legends(monkeypatch: pytest.MonkeyPatch, shown: tuple[Point, ...]) -> list[list[str]]:
    """The words of each legend of the picture."""
    found: list[list[str]] = []

    def keep(figure: Any, _path: Path) -> None:
        found.extend([t.get_text().strip() for t in one.get_texts()] for one in figure.legends)

    monkeypatch.setattr(plots, "_save", keep)
    plots.save_map(Path("map.png"), shown, LABELS, LABEL_GENRES)
    return found


def test_splits_stand_in_a_legend_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    subgenres, sides = legends(monkeypatch, points())
    assert not {"training", "held out", "new"} & set(subgenres)
    assert set(subgenres) == {*LABELS, *LABEL_GENRES}
    assert sides == ["training", "held out"]


def test_one_split_alone_needs_no_legend(monkeypatch: pytest.MonkeyPatch) -> None:
    held = tuple(dataclasses.replace(p, split="test") for p in points())
    (subgenres,) = legends(monkeypatch, held)
    assert set(subgenres) == {*LABELS, *LABEL_GENRES}


def test_a_long_legend_stays_above_the_line_of_the_splits(tmp_path: Path) -> None:
    labels = [f"s{i}" for i in range(28)]
    genres = [f"g{i // 2}" for i in range(28)]
    shown = [
        dataclasses.replace(
            points()[i], subgenre=label, genre=genre, split=("train", "test")[i % 2]
        )
        for i, (label, genre) in enumerate(zip(labels, genres, strict=True))
    ]
    plots.save_map(tmp_path / "map.png", shown, labels, genres)
    with Image.open(tmp_path / "map.png") as picture:
        pixels = np.asarray(picture.convert("L"))
    gap = pixels[int(0.935 * pixels.shape[0]) : int(0.945 * pixels.shape[0])]
    assert (gap == 255).all()
