"""The report in a browser: it opens without a network, fits the screen, and can be heard."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from subgenre.audio import mp3
from subgenre.report import html, previews
from tests.report.example import EVIL, full_data

pytestmark = pytest.mark.browser

# elements of the page that stick out of the window, unless they lie in a box that scrolls, which
# none needs to on a wide screen
STICKING_OUT = """() => {
  const wide = document.documentElement.clientWidth;
  const found = document.documentElement.scrollWidth > wide ? ["the page itself"] : [];
  for (const e of document.querySelectorAll("main *, header *")) {
    if (e.closest(".scroll") && !e.classList.contains("scroll") || e.closest("#plot")) continue;
    const box = e.getBoundingClientRect();
    const cut = wide >= 1400 && e.matches(".scroll") && e.scrollWidth > e.clientWidth + 1;
    const out = cut || box.right > wide + 1 || box.left < -1;
    if (box.width && out) found.push(e.tagName + " " + e.className);
  }
  return found;
}"""
# blocks of text whose boxes cross one another
OVERLAPPING = """() => {
  const blocks = [...document.querySelectorAll(
    "h1, h2, h3, p, li, th, td, dt, dd, .bar-name, .bar-value, .bar, .group button, .plot, "
    + ".player, nav a, label"
  )].filter((e) => !e.closest("#plot") && !e.closest("details:not([open]) > :not(summary)"));
  const boxes = blocks.map((e) => [e, e.getBoundingClientRect()])
    .filter(([, b]) => b.width && b.height);
  const found = [];
  for (const [a, p] of boxes) for (const [b, q] of boxes) {
    if (a === b || a.contains(b) || b.contains(a)) continue;
    const scrolled = (e) => e.closest(".scroll");
    if (scrolled(a) !== scrolled(b)) continue;
    if (a.closest(".confusion")) continue; // its row names stay while it scrolls
    const x = Math.min(p.right, q.right) - Math.max(p.left, q.left);
    const y = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
    if (x > 2 && y > 2) found.push(`${a.className || a.tagName}: ${a.textContent.slice(0, 30)} / `
      + `${b.className || b.tagName}: ${b.textContent.slice(0, 30)}`);
  }
  return found;
}"""
SECTIONS = ("baselines", "mistakes", "training", "doctor")
# choose a point without a preview; returns its title
SILENT = """() => {
  const { points } = JSON.parse(document.getElementById("data").textContent);
  const point = points.find((p) => !p.playable);
  document.getElementById("plot").emit("plotly_click", { points: [{ customdata: point.id }] });
  return point.title;
}"""


def tone(hertz: float, rate: int = 44_100) -> bytes:
    t = np.arange(10 * rate) / rate
    return previews.encode((0.3 * np.sin(2 * np.pi * hertz * t)).astype(np.float32), rate)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = full_data()
    evil = dataclasses.replace(data.points[5], title=EVIL, artist=EVIL, x=30.0, y=30.0)
    data = dataclasses.replace(data, points=(*data.points[:5], evil, *data.points[6:]))
    order, rates = html.preview_order(data)[:12], mp3.RATES
    sound = {
        p.id: tone(200.0 + 40 * i, rates[i % len(rates)]) for i, p in enumerate([evil, *order])
    }
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(html.render(data, previews.Previews(sound, 242)), encoding="utf-8")
    return path


@contextmanager
def loaded(browser: Any, report: Path, width: int = 1400) -> Iterator[Any]:
    """A page with the report; no request may leave the file, nothing may go wrong in it."""
    page = browser.new_page()
    page.set_viewport_size({"width": width, "height": 900})
    asked: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda m: wrong.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda problem: wrong.append(str(problem)))
    page.goto(report.as_uri())
    page.wait_for_selector("#plot[data-ready]", timeout=60_000)
    yield page
    assert not [url for url in asked if not url.startswith(("file:", "blob:", "data:"))]
    assert wrong == []
    assert page.evaluate("window.broken") is None
    page.close()


@pytest.fixture(scope="module")
def shared(browser: Any, report: Path) -> Iterator[Any]:
    with loaded(browser, report) as page:
        yield page


@pytest.fixture
def opened(shared: Any) -> Any:
    """One page for all tests that need no new one: it is silent and shows every point."""
    shared.evaluate(SILENT)
    shared.click("#all")
    for split in shared.locator("[data-split]").all():
        split.check()
    return shared


def folded(page: Any) -> list[bool]:
    """Of each section: are its secondary figures folded?"""
    sections = [page.locator(f"#{name} details.figures") for name in SECTIONS]
    assert all(figures.count() for figures in sections)
    return [not figures.and_(page.locator("[open]")).count() for figures in sections]


def test_nothing_is_cut_and_nothing_overlaps(browser: Any, report: Path) -> None:
    with loaded(browser, report) as page:
        assert not any(folded(page))
        for width, scheme in ((1400, "light"), (400, "dark"), (760, "light")):
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size({"width": width, "height": 900})
            page.wait_for_function(
                "document.querySelector('#plot .main-svg').clientWidth < innerWidth"
            )
            assert page.evaluate(STICKING_OUT) == []
            assert page.evaluate(OVERLAPPING) == []


def test_a_narrow_screen_starts_with_the_secondary_figures_folded(
    browser: Any, report: Path
) -> None:
    with loaded(browser, report, width=400) as page:
        assert all(folded(page))


def test_every_preview_plays_and_its_time_advances(opened: Any) -> None:
    tracks = opened.evaluate(
        "[...document.querySelectorAll('[data-preview]')].map(e => e.dataset.preview)"
    )
    opened.evaluate("for (const d of document.querySelectorAll('#map details')) d.open = true")
    for track in tracks:
        button = opened.locator(f'#map [data-play="{track}"]')
        button.click()
        opened.wait_for_function("document.getElementById('audio').currentTime > 0.15")
        assert opened.evaluate("document.getElementById('audio').duration") == pytest.approx(
            10, abs=0.3
        )
        assert button.get_attribute("aria-pressed") == "true"
        button.click()
        assert opened.evaluate("document.getElementById('audio').paused")


def test_a_point_without_a_preview_says_so(opened: Any) -> None:
    title = opened.evaluate(SILENT)
    assert opened.locator("#now-title").text_content() == title
    assert "no preview" in opened.locator("#now-by").text_content()
    assert opened.evaluate("document.getElementById('audio').src") == ""


def test_a_point_of_the_map_shows_its_track_and_plays(opened: Any) -> None:
    opened.locator("#none").click()
    opened.locator('[data-label="5"]').click()
    opened.locator("[data-split=train]").click()
    place = opened.evaluate(
        """(id) => {
      const plot = document.getElementById("plot");
      plot.scrollIntoView({block: "center", behavior: "instant"});
      for (const trace of plot.data.filter((t) => t.visible)) {
        const i = trace.customdata.indexOf(id);
        if (i < 0) continue;
        const box = plot.getBoundingClientRect(), l = plot._fullLayout;
        return [box.left + l.xaxis._offset + l.xaxis.d2p(trace.x[i]),
                box.top + l.yaxis._offset + l.yaxis.d2p(trace.y[i])];
      }
    }""",
        "t005",
    )
    opened.mouse.move(place[0] + 40, place[1])
    opened.mouse.move(place[0], place[1], steps=4)
    opened.wait_for_selector("#plot .hoverlayer .hovertext", state="attached")
    text = opened.locator("#plot .hoverlayer").text_content()
    assert "</script><script>window.broken" in text  # shown as text
    opened.mouse.click(*place)
    opened.wait_for_function("document.getElementById('audio').currentTime > 0.1")


def test_the_player_works_by_keyboard(opened: Any) -> None:
    opened.locator("#mistakes [data-play]").first.focus()
    opened.keyboard.press("Enter")
    opened.wait_for_function("document.getElementById('audio').currentTime > 0.1")
    opened.keyboard.press("Space")
    assert opened.evaluate("document.getElementById('audio').paused")


def test_a_cell_of_the_confusion_matrix_plays_one_of_its_mistakes(opened: Any) -> None:
    opened.locator(".confusion .wrong [data-play]").first.click()
    opened.wait_for_function("document.getElementById('audio').currentTime > 0.1")
    opened.locator(".confusion .wrong [data-play]").first.click()
    assert opened.evaluate("document.getElementById('audio').paused")


def test_the_legend_hides_and_shows_points(opened: Any) -> None:
    shown = "document.querySelectorAll('#plot .scatterlayer .trace .point').length"
    whole = opened.evaluate(shown)
    assert whole == 254
    opened.locator("[data-label]").first.click()
    assert opened.evaluate(shown) == whole - 15
    opened.locator("#none").click()
    assert opened.evaluate(shown) == 0
    opened.locator("#all").click()
    opened.locator("[data-split=train]").click()
    assert opened.evaluate(shown) == 51


def test_every_control_and_picture_has_a_name(opened: Any) -> None:
    nameless = opened.evaluate(
        """() => [...document.querySelectorAll(
        "button, audio, svg[role=img], [role=region], input")]
      .filter((e) => !e.closest("#plot"))
      .filter((e) => !(e.getAttribute("aria-label") || e.textContent.trim() || e.closest("label")))
      .map((e) => e.outerHTML.slice(0, 90))"""
    )
    assert nameless == []
    levels = opened.evaluate("[...document.querySelectorAll('h1,h2,h3')].map(e => +e.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
