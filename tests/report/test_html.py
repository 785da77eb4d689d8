"""Report and card show the data, and nothing in a title can break out of them."""

from __future__ import annotations

import dataclasses
import json
import re
from html import unescape
from pathlib import Path

import pytest

from subgenre.errors import EvaluationError
from subgenre.evaluation.audits.base import Lines, Section, Suggestion, Suggestions, Table
from subgenre.metrics import METRICS, Difference, Score
from subgenre.report import ReportData, html, previews, write_card
from subgenre.report.card import escape, render_card
from subgenre.report.charts import line_chart
from subgenre.report.wording import score_text
from tests.report.example import EVIL, LABELS, Page, full_data, points


def rendered(data: ReportData, audio: dict[str, bytes] | None = None) -> str:
    return html.render(data, previews.Previews(audio or {}))


def test_every_section_is_there_and_the_elements_nest():
    page = Page(rendered(full_data()))
    assert page.open == []
    ids = [attrs.get("id") for tag, attrs in page.tags if tag == "section"]
    audits = ["pairs", "curve", "doctor"]
    assert ids == [
        *("summary", "baselines", "map", "confusion", "mistakes", *audits, "training", "about")
    ]
    assert "83 % (78 to 88) of held-out tracks" in page.text
    assert "2 files skipped" in page.text


def test_no_line_breaks_inside_a_figure_or_an_option():
    difference = {"centroid_accuracy": Difference(-0.1, -0.3, 0.0, 1.0, 50)}
    data = full_data(
        comparisons={"trained_vs_frozen": difference},
        warnings=("The command subgenre evaluate --folds 5 measures pairs (or --set a.b=0).",),
    )
    text = rendered(data)
    whole = {unescape(one) for one in re.findall(r'<span class="nb">([^<]*)</span>', text)}
    assert {"10 points (0 to 30, p 1.000)", "83 % (78 to 88)", "(-30 to 0)", "p 1.000"} <= whole
    assert {"--folds 5", "--set a.b=0"} <= whole
    small = {"centroid_accuracy": Difference(0.2, 0.1, 0.3, 1e-9, 50)}
    text = rendered(full_data(comparisons={"trained_vs_frozen": small}))
    assert '<span class="nb">20 points (10 to 30, p &lt; 0.001)</span>' in text


def test_shares_are_written_as_percentages():
    score = Score(0.5, 0.4, 0.6, 0.3)
    shares = {name for name in METRICS if "%" in score_text(score, name)}
    assert shares == {"precision_at_1", *(name for name in METRICS if "accuracy" in name)}


def test_a_section_of_any_audit_is_drawn():
    near = (("t001", "A like one"), ("t002", "Another"))
    toy = Section(
        "toy", "Toy audit", "What is asked?", "12 % are odd.",
        (
            Table(("Name", "Share"), (("one", "12 % (3 to 20)"), ("two", "none"))),
            Lines("Curve", "x", [1, 2], [0.2, 0.4]),
            Suggestions(("Kind",), (Suggestion("t000", "A track", "why", ("odd",), near),)),
        ),
        headline="A toy finding.",
    )  # fmt: skip
    page = rendered(full_data(sections=(toy,)), {"t000": b"mp3", "t001": b"mp3"})
    section = re.search(r'<section id="toy".*?</section>', page, re.DOTALL)
    assert section is not None
    text = Page(section[0]).text
    for part in ("What is asked?", "12 % are odd.", "one", "12 %", "(3 to 20)", "A track", "odd"):
        assert part in text
    assert re.findall('data-play="(.*?)"', section[0]) == ["t000", "t001"]  # t002 has no preview
    assert "<svg" in section[0]
    assert "A toy finding." in Page(page).text


def test_absent_parts_have_no_section():
    page = Page(rendered(ReportData("Nothing yet", warnings=("the features are gone",))))
    assert [attrs["id"] for tag, attrs in page.tags if tag == "section"] == ["summary"]
    assert "the features are gone" in page.text


def test_nothing_in_a_title_breaks_out():
    evil = dataclasses.replace(
        points()[0], title=EVIL, artist=EVIL, path=f"/x/{EVIL}", predicted="flare", split="test",
        subgenre=EVIL,
    )  # fmt: skip
    suggestion = Suggestion(evil.id, EVIL, EVIL, (EVIL,))
    blocks = (Table((EVIL, EVIL), ((EVIL, EVIL),), EVIL), Suggestions((EVIL,), (suggestion,), EVIL))
    data = full_data(
        title=EVIL,
        labels=(EVIL, *LABELS[1:]),
        points=(evil,),
        sections=(Section("evil", EVIL, EVIL, EVIL, blocks, EVIL),),
        settings={EVIL: EVIL},
        warnings=(EVIL,),
    )
    clean, text = rendered(full_data(), {"t000": b"mp3"}), rendered(data, {evil.id: b"mp3"})
    page = Page(text)
    assert page.open == []
    # as many scripts as a harmless report has, no element and no handler of the title's making
    assert len(page.scripts) == len(Page(clean).scripts)
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    payload = json.loads(next(s for s in page.scripts if s.startswith('{"gl"')))
    assert payload["points"][0]["title"] == EVIL
    assert page.text.count("{{css}}") > 3  # shown as it is, not filled in


def test_a_path_that_is_no_unicode_is_written(tmp_path):
    odd = dataclasses.replace(points()[0], title="caf\udce9")
    html.write_report(tmp_path / "report.html", full_data(points=(odd,)), max_mb=0)
    assert "caf?" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_page_allows_nothing_from_outside():
    page = Page(rendered(full_data()))
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv"))
    assert str(policy).startswith("default-src 'none'; script-src 'unsafe-inline'")
    for _, attrs in page.tags:
        assert not str(attrs.get("src", "")).startswith("http")
        assert not str(attrs.get("href", "")).startswith("http")


def test_a_negative_size_is_refused():
    with pytest.raises(EvaluationError, match="max_mb is -1"):
        html.write_report(Path("x"), full_data(), max_mb=-1)


def test_the_confusion_matrix_is_grouped_by_genre():
    data = full_data(
        labels=("a", "b", "c"),
        genres=("x", "y", "x"),
        confusion=((5, 1, 2), (0, 7, 0), (3, 0, 9)),
        points=(),
    )
    page = rendered(data)
    cells = re.findall(
        r'<td class="(?:right|wrong)[^>]*>(\d*)</td>', page[page.index('class="confusion"') :]
    )
    assert cells == ["5", "2", "1", "3", "9", "", "", "", "7"]
    assert "2 of 8: a predicted as c" in page


def test_previews_go_to_mistakes_then_suggestions_then_held_out():
    data = full_data()
    order = [point.id for point in html.preview_order(data)]
    wrong = [point.id for point in data.mistakes()]
    suggested = [p.id for p in data.points[:8] if p.id not in wrong]
    assert order[: len(wrong)] == wrong
    assert order[len(wrong) : len(wrong) + len(suggested)] == suggested
    rest = order[len(wrong) + len(suggested) :]
    splits = [data.points[int(i[1:])].split == "train" for i in rest]
    assert splits == sorted(splits)
    assert sorted(order) == sorted(point.id for point in data.points)


def test_previews_lie_in_the_file_once():
    data = full_data()
    audio = {p.id: p.id.encode() for p in data.points[:9]}
    page = Page(rendered(data, audio))
    held = [attrs["data-preview"] for _, attrs in page.tags if "data-preview" in attrs]
    assert held == list(audio)
    buttons = [attrs for tag, attrs in page.tags if tag == "button" and "data-play" in attrs]
    assert all(str(attrs["aria-label"]).startswith("Play 10 seconds of Track") for attrs in buttons)
    assert {attrs["data-play"] for attrs in buttons} == set(audio)


def test_lines_have_gaps_where_there_is_no_value():
    chart = line_chart(Lines("Loss", "epoch", [0, 1, 2], [1.0, None, 0.5]))
    assert chart is not None
    (left, top), (right, middle) = chart.line
    assert (left, right) == (chart.left, chart.right)
    assert top < middle
    assert line_chart(Lines("Loss", "epoch", [0], [None])) is None


def test_a_score_keeps_the_ends_of_a_lopsided_interval():
    assert score_text(Score(1.0, 0.87, 1.0, 0.1), "centroid_accuracy") == "100 % (87 to 100)"
    assert score_text(Score(-2e-6, -2e-6, -2e-6, 0.0), "ari") == "0.000"


def test_the_card_agrees_with_the_data(tmp_path):
    data = full_data(folds=0)
    write_card(tmp_path / "README.md", data)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert card.startswith("# Soundtracks, laptop recipe\n")
    assert "| casual | hedgewars | 12 | 3 |" in card
    assert "Licence of its weights: ISC" in card
    assert "No artist tags" in card
    for line in card.splitlines():
        if line.startswith("|"):
            assert line.count("|") in (5, 7), line


def test_the_card_of_folds_names_no_command_that_needs_a_model() -> None:
    assert "--run THIS_FOLDER" in render_card(full_data(folds=0))
    assert "--run THIS_FOLDER" not in render_card(full_data(folds=5))


def test_names_cannot_break_the_card():
    assert escape("a|b\n# c") == "a\\|b \\# c"
    card = render_card(full_data(title="a|b\n# c", warnings=("![x](y)",)))
    assert card.startswith("# a\\|b \\# c\n")
    assert "- \\!\\[x\\](y)\n" in card
