"""The pictures: every subgenre looks different, and any name can be drawn."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from matplotlib import font_manager
from PIL import Image

from subgenre.report import fonts, palette, plots
from subgenre.report.data import ReportData
from tests.report.example import GENRES, LABEL_GENRES, LABELS, full_data, points


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


@pytest.mark.slow
def test_plots_are_pictures_with_every_subgenre_in_its_colour(tmp_path):
    plots.save_map(tmp_path / "map.png", full_data())
    with Image.open(tmp_path / "map.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
        assert picture.size == (1650, 990)
    seen = {"#%02X%02X%02X" % tuple(p) for p in np.unique(pixels, axis=0)}  # noqa: UP031
    looks = palette.styles(LABELS, LABEL_GENRES)
    assert {style.colour for style in looks.values()} <= seen
    again = tmp_path / "again.png"
    plots.save_map(again, full_data())
    assert again.read_bytes() == (tmp_path / "map.png").read_bytes()


@pytest.mark.parametrize(
    "name", ["$x_1$ \\frac", "_hidden", "静かな夜", "a" * 300, "a\nb", "caf\udce9"]
)
def test_plots_take_any_name(tmp_path, name):
    point = dataclasses.replace(points()[0], subgenre=name, genre=name)
    data = ReportData("x", labels=(name,), genres=(name,), points=(point,), confusion=((3,),))
    plots.save_map(tmp_path / "map.png", data)
    plots.save_confusion(tmp_path / "confusion.png", data)
    assert (tmp_path / "map.png").stat().st_size > 5_000


def test_letters_outside_matplotlibs_own_font_are_drawn_by_an_installed_one(tmp_path, monkeypatch):
    """Ⓐ and Ⓑ are in STIX alone: without it both are the same box."""
    everything, pictures = font_manager.fontManager.ttflist, []
    for others in ((), ("STIXGeneral",)):
        names = ("DejaVu Sans", "Last Resort High-Efficiency", *others)
        installed = [font for font in everything if font.name in names]
        monkeypatch.setattr(font_manager.fontManager, "ttflist", installed)
        for name in "ⒶⒷ":
            data = ReportData("x", labels=(name,), genres=(name,), confusion=((3,),))
            with fonts.for_names([name]):
                plots.save_confusion(tmp_path / "c.png", data)
            pictures.append((tmp_path / "c.png").read_bytes())
        assert ("boxes for Ⓑ" in fonts.note(["Dub Ⓑ", "Łódź"])) == (not others)
    assert pictures[0] == pictures[1]
    assert len(set(pictures)) == 3


def test_a_long_legend_stays_above_the_line_of_the_splits(tmp_path: Path) -> None:
    labels = tuple(f"s{i}" for i in range(28))
    genres = tuple(f"g{i // 2}" for i in range(28))
    shown = tuple(
        dataclasses.replace(point, subgenre=label, genre=genre, split=split)
        for point, label, genre, split in zip(
            points(28), labels, genres, 14 * ("train", "test"), strict=True
        )
    )
    data = ReportData("x", labels=labels, genres=genres, points=shown)
    plots.save_map(tmp_path / "map.png", data)
    with Image.open(tmp_path / "map.png") as picture:
        pixels = np.asarray(picture.convert("L"))
    gap = pixels[int(0.935 * pixels.shape[0]) : int(0.945 * pixels.shape[0])]
    assert (gap == 255).all()
