"""A report with every part, and a reader of its HTML."""

from __future__ import annotations

import dataclasses
from html.parser import HTMLParser
from typing import Any

import numpy as np

from subgenre.evaluation.audits import base
from subgenre.evaluation.audits.base import Section, Suggestion, Suggestions, Table
from subgenre.metrics import Score
from subgenre.report.data import Backbone, Point, ReportData
from subgenre.report.maps import Map

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


def score(value: float, chance: float, half: float = 0.05) -> Score:
    return Score(value, value - half, value + half, chance)


def models(trained: float = 0.83) -> dict[str, dict[str, Score]]:
    rows = [
        ("tempo_loudness", 0.21, 0.09),
        ("mean_log_mel", 0.47, 0.21),
        ("frozen", 0.61, 0.28),
        ("probe", 0.70, 0.33),
        ("trained", trained, 0.44),
    ]
    chance = {"centroid_accuracy": Score(*4 * [0.12]), "map_at_r": Score(*4 * [0.05])}
    return {"chance": chance} | {
        name: {
            "centroid_accuracy": score(accuracy, 0.12),
            "precision_at_1": score(accuracy - 0.03, 0.08),
            "map_at_r": score(ranked, 0.05, 0.03),
            "nmi": score(ranked + 0.2, 0.21),
            "silhouette": score(ranked - 0.3, -0.4),
        }
        for name, accuracy, ranked in rows
    }


def points(n: int = 254, wrong: float = 0.2, seed: int = 3) -> tuple[Point, ...]:
    rng = np.random.default_rng(seed)
    centres = {label: rng.normal(0, 6, 2) for label in LABELS}
    made = []
    for i in range(n):
        label = LABELS[i % len(LABELS)]
        x, y = centres[label] + rng.normal(0, 0.9, 2)
        split = "test" if i % 5 == 0 else "train"
        other = LABELS[rng.integers(len(LABELS))]
        predicted = (other if rng.random() < wrong else label) if split == "test" else ""
        names = f"Track number {i} of the long night", f"Artist {i % 23}", f"/music/{label}/{i}.mp3"
        genre = LABEL_GENRES[LABELS.index(label)]
        made.append(Point(f"t{i:03d}", float(x), float(y), *names, genre, label, split, predicted))
    return tuple(made)


def sections(shown: tuple[Point, ...]) -> tuple[Section, ...]:
    """A section for each kind of block, as no audit in particular makes them."""
    n = (4, 6, 8, 10, 12)
    grown = [1 - 1.6 / k**0.7 for k in n]
    suggested = tuple(
        Suggestion(p.id, p.title, "3 of 3 models", ("wrong playlist", LABELS[i], f"{90 - i} %"))
        for i, p in enumerate(shown[:8])
    )
    rows = tuple(
        (f"{a} and {b}", "85 % (78 to 91)", "0.012", "separate")
        for i, a in enumerate(LABELS)
        for b in LABELS[i + 1 : i + 5]
    )
    pairs = Table(("Pair", "Accuracy", "p", "Verdict"), rows, "Pairs")
    curve = base.Lines("Accuracy", "tracks", n, grown, [(g - 0.1, g + 0.1) for g in grown], 0.12)
    bar = base.Bar("tempo", 0.19, "19 % (14 to 24)", 0.14, 0.24, 0.12)
    doctor = Suggestions(("Problem", "Fits", "Confidence"), suggested, "Tracks to check")
    return (
        Section("pairs", "Pairs", "Are they separate?", "", (pairs,), "Not separate: flare."),
        Section("curve", "Curve", "More?", "Yes.", (curve, base.Bars((bar,), "Tempo", "alone"))),
        Section("doctor", "Tracks to check", "Which tracks are misplaced?", "", (doctor,)),
    )


def full_data(**changes: Any) -> ReportData:
    shown = points()
    matrix = np.zeros((len(LABELS), len(LABELS)), int)
    for point in shown:
        if point.split == "test":
            matrix[LABELS.index(point.subgenre), LABELS.index(point.predicted)] += 1
    data = ReportData(
        title="Soundtracks, laptop recipe",
        made="22 November 2026",
        n_train=203,
        n_test=51,
        folds=5,
        repeats=1,
        models=models(),
        labels=LABELS,
        genres=LABEL_GENRES,
        confusion=tuple(tuple(int(n) for n in row) for row in matrix),
        points=shown,
        map=Map(np.zeros((0, 2)), "UMAP", 0.93, 0.41, 10, np.zeros((0, 2))),
        sections=sections(shown),
        history=tuple(
            {"epoch": i, "loss": 0.3 / (i + 1), "active": 0.9**i, "spread": 1 - 0.5**i}
            | {"val_map_at_r": None if i % 2 else 0.45 - 0.3 / (i + 1)}
            for i in range(30)
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
