"""The report says what the data say, in one file, and nothing in a title can break out of it."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from subgenre.core.text import percent
from subgenre.errors import AudioError, EvaluationError
from subgenre.report import ReportData, html, palette, plots, previews, summary, write_card
from subgenre.report.card import render_card
from subgenre.report.charts import line_chart
from subgenre.report.data import (
    Backbone,
    CurveStep,
    Epoch,
    Figure,
    Pair,
    Point,
    Rung,
    Suggestion,
    Table,
    figure,
)
from subgenre.report.wording import cell, esc, md

GENRES = {
    "ambient": ["adonthell", "colobot", "ufoai_crystan"],
    "casual": ["drascula", "fillets", "hedgewars", "supertuxkart"],
    "dance": ["davegnukem", "nexuiz", "redeclipse"],
    "industrial": ["ufoai_marine", "warzone2100"],
    "metal": ["obsidian_shell", "openarena"],
    "orchestral": ["flare", "wesnoth", "widelands"],
}
LABELS = tuple(label for labels in GENRES.values() for label in labels)
LABEL_GENRES = tuple(genre for genre, labels in GENRES.items() for _ in labels)
EVIL = (
    "</script><script>window.broken=1</script>"
    '<img src=x onerror="window.broken=1"> {{css}} & \u2028'
)


def score(value: float, chance: float, half: float = 0.05) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half, "chance": chance}


def ladder(trained: float = 0.83) -> tuple[Rung, ...]:
    rungs = [
        ("chance", "the largest subgenre, always", 0.12, 0.05),
        ("measures", "tempo and loudness alone", 0.21, 0.09),
        ("log_mel", "mean and deviation of the log-mel", 0.47, 0.21),
        ("frozen", "the backbone as it came", 0.61, 0.28),
        ("probe", "the frozen backbone with a logistic probe", 0.70, 0.33),
        ("trained", "this model", trained, 0.44),
    ]
    return tuple(
        Rung(
            name,
            what,
            {
                "centroid_accuracy": score(accuracy, 0.12),
                "precision_at_1": score(accuracy - 0.03, 0.08),
                "map_at_r": score(ranked, 0.05, 0.03),
                "nmi": {"value": ranked + 0.2, "chance": 0.21},
                "silhouette": ranked - 0.3,
            },
        )
        for name, what, accuracy, ranked in rungs
    )


def points(n: int = 254, wrong: float = 0.2, seed: int = 3) -> tuple[Point, ...]:
    rng = np.random.default_rng(seed)
    centres = {label: rng.normal(0, 6, 2) for label in LABELS}
    found = []
    for i in range(n):
        label = LABELS[i % len(LABELS)]
        x, y = centres[label] + rng.normal(0, 0.9, 2)
        split = "test" if i % 5 == 0 else "train"
        other = LABELS[rng.integers(len(LABELS))]
        predicted = (other if rng.random() < wrong else label) if split == "test" else ""
        found.append(
            Point(
                f"t{i:03d}", float(x), float(y), f"Track number {i} of the long night",
                f"Artist {i % 23}", f"/music/{label}/{i}.mp3", LABEL_GENRES[LABELS.index(label)],
                label, split, predicted, 0.0, round(float(rng.uniform(0.3, 0.99)), 2),
            )
        )  # fmt: skip
    return tuple(found)


def full_data(**changes: Any) -> ReportData:
    shown = points()
    matrix = np.zeros((len(LABELS), len(LABELS)), int)
    for point in shown:
        if point.split == "test":
            matrix[LABELS.index(point.subgenre), LABELS.index(point.predicted)] += 1
    rng = np.random.default_rng(0)
    pairs = tuple(
        Pair(a, b, score(accuracy, 0.5, 0.08), 0.0004 if accuracy > 0.7 else 0.21)
        for i, a in enumerate(LABELS)
        for b in LABELS[i + 1 : i + 5]
        for accuracy in [float(rng.uniform(0.66, 1.0))]
    )
    data = ReportData(
        title="Soundtracks, laptop recipe",
        made="22 November 2026",
        n_train=203,
        n_test=51,
        folds=5,
        repeats=1,
        ladder=ladder(),
        labels=LABELS,
        genres=LABEL_GENRES,
        confusion=tuple(tuple(int(n) for n in row) for row in matrix),
        points=shown,
        map_k=10,
        trustworthiness=0.93,
        knn_agreement=0.41,
        pairs=(*pairs, Pair("flare", "adonthell", note="too few tracks")),
        history=tuple(
            Epoch(i, 0.3 / (i + 1), 0.9**i, 1 - 0.5**i, None if i % 2 else 0.45 - 0.3 / (i + 1))
            for i in range(30)
        ),
        curve=tuple(CurveStep(n, score(1 - 1.6 / n**0.7, 0.12)) for n in (4, 6, 8, 10, 12)),
        curve_words="20 more tracks a subgenre would bring about 6 points (3 to 9).",
        leakage=Table(
            ("Split", "Centroid accuracy", "Gap"),
            (
                ("random chunks", score(0.95, 0.12), "+ 12 points"),
                ("random tracks", score(0.83, 0.12), ""),
                ("artists and albums held out", None, "no tags"),
            ),
            ("Chunks of one track on both sides would have flattered the model by 12 points.",),
        ),
        confounders=Table(
            ("What", "Centroid accuracy"),
            (("tempo", score(0.19, 0.12)), ("loudness", score(0.34, 0.12)), ("year", None)),
            headline="Loudness alone finds home for 34 % (29 to 39).",
        ),
        open_set=Table(("Left out", "AUROC", "FPR at 95 % TPR"), (("flare", 0.81, 0.44),)),
        hubness=Table(
            ("", "Skewness", "Never recommended"),
            (("cosine", 2.1, "14 %"), ("mutual proximity", 0.6, "3 %")),
        ),
        doctor=tuple(
            Suggestion(
                p.id,
                "wrong playlist",
                p.title,
                p.subgenre,
                LABELS[i],
                0.9 - i / 20,
                "out of fold in 3 of 3",
            )
            for i, p in enumerate(shown[:8])
        ),
        settings={"recipe": "laptop", "loss": {"name": "multi_similarity", "margin": 0.3}},
        versions={"subgenre": "0.1.0", "torch": "2.13.0", "numpy": "2.4.6"},
        fingerprint="4f6c0f0a9b1e77d2",
        split_by="track, recording",
        warnings=("No artist tags: tracks of one artist may stand on both sides.",),
        skipped=2,
        backbone=Backbone("musicnn", "ISC", "MSD_musicnn"),
    )
    return dataclasses.replace(data, **changes)


class Page(HTMLParser):
    """Elements of a page, its text, and whether its elements nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img", "input", "br", "path", "circle"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("path", "circle"):
            return
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def rendered(data: ReportData, sound: dict[str, bytes] | None = None) -> str:
    return html.render(data, previews.Previews(sound or {}))


def test_every_section_is_there_and_the_elements_nest():
    page = Page(rendered(full_data()))
    assert page.open == []
    ids = {attrs.get("id") for tag, attrs in page.tags if tag == "section"}
    assert ids == {
        "summary", "ladder", "map", "confusion", "misplaced", "pairs", "curve", "confounders",
        "leakage", "open", "hubness", "doctor", "history", "about",
    }  # fmt: skip
    assert "83 % (78 to 88) of held-out tracks find home, 12 % by chance" in page.text
    assert "too few tracks" in page.text
    assert "2 files were skipped" in page.text


def test_every_heading_anchor_of_the_menu_exists():
    page = Page(rendered(full_data()))
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    links = [attrs["href"] for tag, attrs in page.tags if tag == "a"]
    assert len(ids) == len(set(ids))
    assert {str(link)[1:] for link in links} <= set(ids)


def test_absent_parts_have_no_section():
    page = Page(rendered(ReportData("Nothing yet", warnings=("the features are gone",))))
    assert [attrs["id"] for tag, attrs in page.tags if tag == "section"] == ["summary"]
    assert "There are no figures" in page.text
    assert "the features are gone" in page.text


def test_nothing_in_a_title_breaks_out():
    evil = dataclasses.replace(
        points()[0], title=EVIL, artist=EVIL, path=f"/x/{EVIL}", predicted="flare", split="test"
    )
    labels = (EVIL, *LABELS[1:])
    evil = dataclasses.replace(evil, subgenre=EVIL)
    data = full_data(
        title=EVIL,
        labels=labels,
        points=(evil,),
        doctor=(Suggestion(evil.id, EVIL, EVIL, EVIL, EVIL, 0.5, EVIL),),
        settings={EVIL: EVIL},
        warnings=(EVIL,),
    )
    clean, text = rendered(full_data(), {"t000": b"OggS"}), rendered(data, {evil.id: b"OggS"})
    page = Page(text)
    assert page.open == []
    # as many scripts as a harmless report has, no element and no handler of the title's making
    assert len(page.scripts) == len(Page(clean).scripts)
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    payload = json.loads(next(s for s in page.scripts if s.startswith('{"points"')))
    assert payload["points"][0]["title"] == EVIL
    assert page.text.count("{{css}}") > 3  # shown as it is, not filled in


def test_a_path_that_is_no_unicode_is_written(tmp_path):
    odd = dataclasses.replace(points()[0], title="", path="/music/caf\udce9.mp3")
    html.write_report(tmp_path / "report.html", full_data(points=(odd,)), max_mb=0)
    assert "caf?" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_page_allows_nothing_from_outside():
    page = Page(rendered(full_data()))
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv"))
    assert str(policy).startswith("default-src 'none'; script-src 'unsafe-inline'")
    for _, attrs in page.tags:
        assert not str(attrs.get("src", "")).startswith("http")
        assert not str(attrs.get("href", "")).startswith("http")


def test_a_model_that_learnt_nothing_is_called_so():
    data = full_data(ladder=ladder(trained=0.14))
    first = summary.sentences(data)[0]
    assert first.startswith("The model does no better than guessing")
    assert summary.learnt_nothing(data)
    assert "do not place tracks by it" in render_card(data)
    better = full_data()
    assert not summary.learnt_nothing(better)
    assert summary.sentences(better)[0].startswith(
        "Your playlists can be told apart: 83 % (78 to 88) of held-out tracks"
    )


def test_shuffled_labels_are_reported_as_nothing_learnt():
    # the verdict is right as often as the interval: guessing models, 17 tracks in 20 at least
    rng = np.random.default_rng(5)
    told = 0
    for _ in range(20):
        hits = rng.binomial(100, 0.12)
        rung = Rung("trained", "", {"centroid_accuracy": {"value": hits / 100, "chance": 0.12}})
        told += summary.learnt_nothing(ReportData("x", n_test=100, ladder=(rung,)))
    assert told >= 17


def test_summary_names_the_pairs_that_are_not_told_apart():
    data = full_data(pairs=(Pair("flare", "wesnoth", 0.5, 0.4), Pair("flare", "nexuiz", 0.9, 0.01)))
    assert "flare and wesnoth are not told apart." in summary.sentences(data)
    judged = Pair("a", "b", {"value": 0.6, "low": 0.45, "high": 0.75, "chance": 0.5})
    assert judged.told_apart is False
    assert Pair("a", "b", note="too few tracks").told_apart is None


def test_summary_says_how_coarse_few_tracks_are():
    few = full_data(n_test=20, folds=0, points=points(100))
    assert any("one track is 5 points" in line for line in summary.sentences(few))
    assert any("smallest subgenre has 1 held-out track:" in line for line in summary.sentences(few))


def test_summary_compares_with_the_frozen_backbone():
    lines = summary.sentences(full_data())
    assert "The frozen backbone alone reaches 61 % (56 to 66); training added 22 points." in lines
    close = summary.sentences(full_data(ladder=ladder(trained=0.64)))
    assert any("intervals overlap" in line for line in close)


@pytest.mark.parametrize("bad", [math.nan, math.inf, {"value": math.nan}, None])
def test_a_score_that_is_no_number_is_absent_not_zero(bad):
    assert figure(bad) is None
    assert "nan" not in cell(bad)
    rung = Rung("trained", "", {"centroid_accuracy": bad})
    page = Page(rendered(full_data(ladder=(rung,))))
    assert "There are no figures" in page.text
    assert "nan" not in page.text.lower().replace("nuance", "")


def test_figure_reads_numbers_mappings_and_objects():
    whole = Figure(0.5, 0.4, 0.6, 0.1)
    assert figure({"value": 0.5, "low": 0.4, "high": 0.6, "chance": 0.1}) == whole
    assert figure(whole) is whole
    assert figure(0.5) == Figure(0.5)
    with pytest.raises(EvaluationError, match="no 'value'"):
        figure({"low": 1})
    with pytest.raises(EvaluationError, match="must be a number"):
        figure("good")


def test_contradictions_are_refused():
    with pytest.raises(EvaluationError, match="1 labels but 0 genres"):
        ReportData("x", labels=("a",))
    with pytest.raises(EvaluationError, match="not 1 by 1"):
        ReportData("x", labels=("a",), genres=("g",), confusion=((1, 2),))
    with pytest.raises(EvaluationError, match="split is 'val'"):
        ReportData("x", points=(dataclasses.replace(points()[0], split="val"),))
    with pytest.raises(EvaluationError, match="max_mb is -1"):
        html.write_report(Path("x"), full_data(), max_mb=-1)


def test_every_subgenre_looks_different():
    labels = [f"s{i}" for i in range(64)]
    genres = [f"g{i // 8}" for i in range(64)]
    assert len(set(palette.styles(labels, genres).values())) == 64
    looks = palette.styles(LABELS, LABEL_GENRES)
    assert len(set(looks.values())) == len(LABELS)
    for genre, names in GENRES.items():
        assert len({looks[name].colour for name in names}) == len(names), genre
        assert len({looks[name].shape for name in names}) == 1, genre


def test_a_subgenre_looks_the_same_in_whatever_order_they_come():
    turned = palette.styles(LABELS[::-1], LABEL_GENRES[::-1])
    assert turned == palette.styles(LABELS, LABEL_GENRES)


def test_more_subgenres_than_looks_still_draw():
    labels = [f"s{i}" for i in range(200)]
    assert len(palette.styles(labels, ["g"] * 200)) == 200


def test_the_confusion_matrix_is_grouped_by_genre():
    data = full_data(
        labels=("a", "b", "c"),
        genres=("x", "y", "x"),
        confusion=((5, 1, 2), (0, 7, 0), (3, 0, 9)),
        points=(),
        doctor=None,
    )
    page = rendered(data)
    cells = re.findall(r'--s:\d+%"[^>]*>(\d*)</td>', page[page.index('class="confusion"') :])
    assert cells == ["5", "2", "1", "3", "9", "", "", "", "7"]
    assert "2 of 8: a taken for c" in page


def test_previews_go_to_confusions_then_doctor_then_held_out():
    data = full_data()
    order = [point.id for point in html.listening_order(data)]
    wrong = [point.id for point in data.confusions()]
    doctors = [s.id for s in data.doctor or () if s.id not in wrong]
    assert order[: len(wrong)] == wrong
    assert order[len(wrong) : len(wrong) + len(doctors)] == doctors
    rest = order[len(wrong) + len(doctors) :]
    splits = [data.points[int(i[1:])].split == "train" for i in rest]
    assert splits == sorted(splits)
    assert sorted(order) == sorted(point.id for point in data.points)


def test_previews_stop_at_the_size_limit():
    wanted = [previews.Wanted(f"t{i}", f"{i}.mp3") for i in range(40)] * 2
    made = previews.collect(wanted, max_mb=0.1, make=lambda _p, _s: bytes(10_000))
    assert list(made.audio) == [f"t{i}" for i in range(7)]  # 7 x 13.3 kB of base64
    assert (made.left_out, made.unreadable) == (33, ())


def test_a_file_that_cannot_be_read_costs_its_own_preview_only():
    def make(path: Path, _start: float) -> bytes:
        if path.name == "1.mp3":
            raise AudioError("no audio in it")
        return b"x"

    wanted = [previews.Wanted(f"t{i}", f"{i}.mp3") for i in range(3)]
    made = previews.collect(wanted, max_mb=1, make=make)
    assert list(made.audio) == ["t0", "t2"]
    assert (made.left_out, made.unreadable) == (0, ("1.mp3",))


@pytest.mark.parametrize("rate", [44_100, 22_050, 11_025])
def test_a_preview_holds_the_tone_that_was_asked_for(tmp_path, rate):
    soundfile = pytest.importorskip("soundfile")
    t = np.arange(20 * rate) / rate
    tone = np.where(t < 8, np.sin(2 * np.pi * 440 * t), np.sin(2 * np.pi * 1000 * t)) * 0.5
    soundfile.write(tmp_path / "a.wav", np.stack([tone, tone], 1), rate)
    sound = previews.preview(tmp_path / "a.wav", 9.0)
    with av.open(io.BytesIO(sound)) as opened:
        stream = opened.streams.audio[0]
        assert (stream.codec_context.name, stream.channels) == ("mp3float", 1)
        frames = [frame.to_ndarray() for frame in opened.decode(stream)]
        out_rate = stream.rate
    samples = np.concatenate(frames, axis=1)[0]
    assert len(samples) / out_rate == pytest.approx(10, abs=0.1)
    assert len(sound) == pytest.approx(80_000, rel=0.03)  # 64 kbit/s
    spectrum = np.abs(np.fft.rfft(samples))
    assert np.argmax(spectrum) * out_rate / len(samples) == pytest.approx(1000, abs=1)


def test_a_preview_beyond_the_end_is_refused(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(tmp_path / "a.wav", np.zeros(16_000), 16_000)
    with pytest.raises(AudioError):
        previews.preview(tmp_path / "a.wav", 5.0)


def test_previews_lie_in_the_file_once(tmp_path):
    data = full_data()
    sound = previews.Previews({p.id: b"OggS" + p.id.encode() for p in data.points[:9]}, 4, ("x",))
    html.write_report(tmp_path / "report.html", data, previews=sound)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    held = [attrs for _, attrs in page.tags if "data-preview" in attrs]
    assert [a["data-preview"] for a in held] == list(sound.audio)
    assert {a["data-mime"] for a in held} == {"audio/ogg"}
    buttons = [attrs for tag, attrs in page.tags if tag == "button" and "data-play" in attrs]
    assert all(str(attrs["aria-label"]).startswith("Play 10 seconds of Track") for attrs in buttons)
    assert {attrs["data-play"] for attrs in buttons} == set(sound.audio)
    assert "9 previews of 10 s are in this file. 4 more did not fit" in page.text


def test_plots_are_pictures_with_every_subgenre_in_its_colour(tmp_path):
    plots.save_map(tmp_path / "map.png", points(), LABELS, LABEL_GENRES, "trustworthiness 0.93")
    with Image.open(tmp_path / "map.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
        assert picture.size == (1650, 990)
    seen = {"#%02X%02X%02X" % tuple(p) for p in np.unique(pixels, axis=0)}  # noqa: UP031
    looks = palette.styles(LABELS, LABEL_GENRES)
    assert {style.colour for style in looks.values()} <= seen
    again = tmp_path / "again.png"
    plots.save_map(again, points(), LABELS, LABEL_GENRES, "trustworthiness 0.93")
    assert again.read_bytes() == (tmp_path / "map.png").read_bytes()


@pytest.mark.parametrize(
    "name", ["$x_1$ \\frac", "_hidden", "静かな夜", "a" * 300, "a\nb", "caf\udce9"]
)
def test_plots_take_any_name(tmp_path, name):
    point = dataclasses.replace(points()[0], subgenre=name, genre=name)
    plots.save_map(tmp_path / "map.png", [point], [name], [name])
    plots.save_confusion(tmp_path / "confusion.png", [[3]], [name], [name])
    assert (tmp_path / "map.png").stat().st_size > 5_000


def test_lines_have_gaps_where_there_is_no_value():
    chart = line_chart("Loss", [0, 1, 2], [1.0, None, 0.5], x_name="epoch")
    path = re.search(r'class="line" d="([^"]+)"', chart)
    assert path is not None
    assert path[1].count("M") + path[1].count("L") == 2
    assert line_chart("Loss", [0], [None], x_name="epoch") == ""


def test_the_card_says_what_the_report_says(tmp_path):
    data = full_data()
    write_card(tmp_path / "README.md", data)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert card.startswith("# Soundtracks, laptop recipe\n")
    assert "83 % (78 to 88 %); chance 12 %" in card
    assert "| casual | hedgewars | 12 | 3 |" in card
    assert "Licence of its weights: ISC" in card
    assert "No artist tags" in card
    for line in card.splitlines():
        if line.startswith("|"):
            assert line.count("|") in (5, 7), line


def test_the_card_of_folds_names_no_command_that_wants_a_model() -> None:
    card = render_card(full_data(folds=0))
    assert "subgenre classify" in card
    assert "--run THIS_FOLDER" in card
    assert "--run THIS_FOLDER" not in render_card(full_data(folds=5))


@pytest.mark.parametrize(
    ("share", "told"), [(15 / 81, "19 %"), (0.0949, "9.5 %"), (0.0951, "9.5 %"), (0.5, "50 %")]
)
def test_a_share_is_rounded_once(share: float, told: str) -> None:
    assert percent(share) == told


def test_names_cannot_break_the_card_or_the_page():
    assert md("a|b\n# c") == "a\\|b \\# c"
    assert esc("<b>'\"&") == "&lt;b&gt;&#x27;&quot;&amp;"
