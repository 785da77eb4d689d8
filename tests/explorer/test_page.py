"""The explorer in a browser, against the real server on loopback."""

from __future__ import annotations

import base64
import dataclasses
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from subgenre.explorer import Library
from subgenre.explorer.state import Explorer
from subgenre.library.formats import read_m3u
from subgenre.search import journeys
from subgenre.search.collection import Collection
from subgenre.search.playlists import similar
from subgenre.search.ranking import Limits
from tests.explorer_library import EACH, EVIL, SUBGENRES, make_library, served, write_tone

pytestmark = pytest.mark.browser

ARTIST = "Artist 0"
# where a track's point lies in the window
PLACE = """(id) => {
  const plot = document.getElementById("plot"), full = plot._fullLayout;
  const box = plot.getBoundingClientRect();
  const points = window.points.ids.indexOf(id);
  return [box.left + full.xaxis._offset + full.xaxis.d2p(window.points.x[points]),
          box.top + full.yaxis._offset + full.yaxis.d2p(window.points.y[points])];
}"""
POINTS = "async () => { window.points = await (await fetch('/api/points')).json(); }"
NAMELESS = """() => [...document.querySelectorAll(
    "button, input, select, canvas, [role=tab], [role=tabpanel], [role=listbox], section")]
  .filter((e) => !e.closest("#plot") && e.closest("[hidden]") === null)
  .filter((e) => e.tagName !== "SECTION" || e.parentElement.tagName === "MAIN")
  .filter((e) => !(e.getAttribute("aria-label") || e.getAttribute("aria-labelledby")
    || e.textContent.trim() || (e.labels && e.labels.length)))
  .map((e) => e.outerHTML.slice(0, 90))"""
WIDE = """() => [...document.querySelectorAll("body *")]
  .filter((e) => !e.closest("#plot, #js-plotly-tester, .unseen, .skip, [hidden]"))
  .map((e) => [e, e.getBoundingClientRect()])
  .filter(([, b]) => b.width && (b.right > innerWidth + 1 || b.left < -1))
  .map(([e]) => e.outerHTML.slice(0, 90))"""
MEASURED = "#along:not([aria-busy]) .track"
# the rings of what is picked, of neighbours and of the current track
RINGS = """() => document.getElementById('plot').data.slice(-4, -1)
  .map((t) => ({ symbol: t.marker.symbol, count: t.x.length }))"""
SILENCE = "() => { const a = document.getElementById('audio'); a.pause(); a.currentTime = 0; }"
HEARD = "document.getElementById('audio').currentTime > 0.2"


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return make_library(tmp_path_factory.mktemp("explored"))


@pytest.fixture(scope="module")
def site(library):
    """The server's address and its application."""
    with served(library) as found:
        yield found


@contextmanager
def opened(browser, url):
    """The page, ready, with what it requests and what it shows as an error."""
    tab = browser.new_page()
    tab.requests, tab.wrong = [], []
    tab.on("request", lambda request: tab.requests.append(request.url))
    tab.on("console", lambda m: tab.wrong.append(m.text) if m.type == "error" else None)
    tab.on("pageerror", lambda problem: tab.wrong.append(str(problem)))
    tab.goto(url)
    ready(tab)
    tab.evaluate(POINTS)
    yield tab
    assert len(tab.requests) > 10
    tab.close()


def check(tab, url):
    """No request leaves loopback, nothing is shown as an error, and no title becomes markup."""
    assert [u for u in tab.requests if not u.startswith((url, "blob:", "data:"))] == []
    assert tab.wrong == []
    assert tab.evaluate("window.broken") is None


@pytest.fixture(scope="module")
def shared(browser, site):
    with opened(browser, site[0]) as tab:
        yield tab


@pytest.fixture
def page(shared, site):
    """One page for all tests that leave the map as it is: with an empty list, at its full width."""
    shared.wrong.clear()
    shared.evaluate(SILENCE)
    shared.emulate_media(color_scheme="light", reduced_motion="no-preference")
    shared.set_viewport_size({"width": 1400, "height": 900})
    shared.click("#tab-list")
    clear = shared.locator("#list button:has-text('Clear')")
    if clear.count():
        clear.click()
    shared.click("#tab-track")
    shared.fill("#query", "")
    shared.wait_for_selector("#found [data-id]", state="detached")
    shared.evaluate("document.activeElement.blur()")
    yield shared
    check(shared, site[0])


@pytest.fixture
def fresh(browser, site, library):
    """A page and a state of its own."""
    url, app = site
    library.corrections.unlink(missing_ok=True)
    app.state.explorer = Explorer(library)
    with opened(browser, url) as tab:
        yield tab
        check(tab, url)
    library.corrections.unlink(missing_ok=True)
    app.state.explorer = Explorer(library)


def ready(page):
    """Wait for the map; a turn of the wheel requests it at once."""
    page.wait_for_selector("#wait", state="hidden")
    page.dispatch_event("body", "wheel")
    page.wait_for_selector("#plot[data-ready]", timeout=60_000)


def track(library, label, n):
    return library.collection.track(label * EACH + n)


def ids_of(page, where):
    return page.eval_on_selector_all(f"{where} .track", "all => all.map((e) => e.dataset.id)")


def open_found(page, words):
    page.fill("#query", words)
    page.wait_for_selector("#found [data-id]")
    page.keyboard.press("Enter")


def caught(page, held):
    """The one request that is held back, as soon as it is made."""
    for _ in range(300):
        if held:
            break
        page.wait_for_timeout(10)
    assert len(held) == 1
    return held.pop()


def axis_between(page, start, end):
    page.click("#tab-axis")
    page.select_option("#axis [aria-label=From]", label=start)
    page.select_option("#axis [aria-label=To]", label=end)
    page.wait_for_selector(MEASURED)


def test_a_point_shows_its_track_and_a_click_plays_it(page, library):
    evil = track(library, 1, 3)
    x, y = page.evaluate(PLACE, evil.id)
    page.mouse.move(x + 30, y + 3)
    page.mouse.move(x, y, steps=5)
    page.wait_for_selector("#tip:not([hidden])")
    assert EVIL in page.locator("#tip").text_content()  # shown as text
    page.mouse.click(x, y)
    page.wait_for_function(HEARD)
    assert page.locator("#now-title").text_content() == EVIL
    assert page.locator("#track h2").text_content() == EVIL
    page.wait_for_function("document.getElementById('wave-state').textContent === ''")
    drawn = """() => { const c = document.getElementById("peaks"), p = c.getContext("2d");
      const d = p.getImageData(0, 0, c.width, c.height).data;
      return d.filter((v, i) => i % 4 === 3 && v > 0).length / (c.width * c.height); }"""
    assert page.evaluate(drawn) > 0.2
    page.click("#play")
    assert page.evaluate("document.getElementById('audio').paused")
    wave = page.locator("#peaks")
    wave.click(position={"x": 0.75 * wave.bounding_box()["width"], "y": 9})
    page.wait_for_function("Math.abs(document.getElementById('audio').currentTime - 4.5) < 0.3")


def test_search_finds_and_opens_a_track_by_keyboard(page, library):
    page.keyboard.press("/")
    page.keyboard.type("acid 05")  # of a folder and a file name
    page.wait_for_selector("#found [data-id]")
    page.keyboard.press("ArrowDown")
    assert page.locator("#found [aria-selected=true]").count() == 1
    page.keyboard.press("Enter")
    page.wait_for_selector("#track h2")
    assert page.locator("#track h2").text_content() == track(library, 3, 5).title
    page.keyboard.press("2")  # keys are for the page again, not for the field
    page.keyboard.press("l")
    page.wait_for_function("document.getElementById('list-count').textContent === '1'")
    assert page.locator("#tab-list").get_attribute("aria-selected") == "true"
    assert page.input_value("#query") == "acid 05"
    page.fill("#query", "nothing of this name")
    page.wait_for_selector("#found .none")
    page.keyboard.press("Escape")
    page.keyboard.press("1")
    assert page.locator("#found").is_hidden()
    assert page.locator("#tab-track").get_attribute("aria-selected") == "true"
    assert page.input_value("#query") == "nothing of this name"


def test_the_keyboard_walks_from_neighbour_to_neighbour(page, library):
    page.focus("#plot")
    played = []
    for _ in range(3):
        before = page.locator("#now-title").text_content()
        page.keyboard.press("ArrowRight")
        page.wait_for_function(
            "before => document.getElementById('now-title').textContent !== before", arg=before
        )
        page.wait_for_selector("#track .tracks")
        played.append(page.locator("#now-title").text_content())
    assert len(set(played)) == 3
    page.keyboard.press("ArrowLeft")
    page.wait_for_function(
        "was => document.getElementById('now-title').textContent === was", arg=played[1]
    )
    page.wait_for_function(HEARD)
    page.keyboard.press("Space")
    assert page.evaluate("document.getElementById('audio').paused")
    page.keyboard.press("l")
    page.keyboard.press("2")
    assert page.locator("#list .track").count() == 1


def test_lasso_order_and_save_give_a_playlist_of_exactly_those(page, library):
    expected = {track(library, 2, n).id for n in range(EACH)}
    places = [page.evaluate(PLACE, one) for one in sorted(expected)]
    left, right = min(x for x, _ in places) - 15, max(x for x, _ in places) + 15
    top, bottom = min(y for _, y in places) - 15, max(y for _, y in places) + 15
    page.click("#lasso")
    page.mouse.move(left, top)
    page.mouse.down()
    for corner in ((right, top), (right, bottom), (left, bottom), (left, top)):
        page.mouse.move(*corner, steps=6)
    page.mouse.up()
    page.wait_for_selector("#list .track")
    order = ids_of(page, "#list")
    assert set(order) == expected
    assert len(order) == EACH
    first, second = (page.locator("#list .track").nth(i) for i in (0, 1))
    second.locator(".up").focus()
    page.keyboard.press("Enter")
    order[0], order[1] = order[1], order[0]
    assert ids_of(page, "#list") == order
    page.locator("#list .track").nth(4).drag_to(first)
    order.insert(0, order.pop(4))
    assert ids_of(page, "#list") == order
    page.fill("#list-name", "../Late: night, ü")
    page.click("#list form button.main")
    page.wait_for_selector("#list form a")
    files = list(library.playlists.iterdir())
    assert len(files) == 1
    assert files[0].parent == library.playlists
    paths = {library.collection.track(r).id: library.collection.track(r).path for r in range(32)}
    lines = [e for e in files[0].read_text("utf-8").splitlines() if e and e[0] != "#"]
    assert all(line.startswith("../WAV/") for line in lines)
    assert [p.resolve() for p in read_m3u(files[0])] == [paths[i].resolve() for i in order]
    with page.expect_download() as download:
        page.click("#list form a")
    assert Path(download.value.path()).read_bytes() == files[0].read_bytes()


def test_the_list_survives_a_reload(fresh, library):
    for n in (4, 1):
        fresh.fill("#query", track(library, 2, n).title)
        fresh.wait_for_selector(f"#found [data-id='{track(library, 2, n).id}']")
        fresh.keyboard.press("Enter")
        fresh.wait_for_function(
            "n => document.querySelector('#track h2')?.textContent.endsWith(n)", arg=f"-{n}"
        )
        fresh.click("#track button:has-text('Add to the list')")
    listed = [track(library, 2, 4).id, track(library, 2, 1).id]
    assert ids_of(fresh, "#list") == listed
    gone = """() => { for (const [k, v] of Object.entries(sessionStorage))
      sessionStorage.setItem(k, JSON.stringify([...JSON.parse(v), "gone", 7])); }"""
    fresh.evaluate(gone)
    fresh.reload()
    ready(fresh)
    assert fresh.locator("#list-count").text_content() == "2"
    assert ids_of(fresh, "#list") == listed
    fresh.click("#tab-list")
    fresh.click("#list button:has-text('Clear')")
    fresh.reload()
    ready(fresh)
    assert fresh.locator("#list-count").text_content() == "0"


def test_a_playlist_is_overwritten_only_on_request(page, library):
    library.playlists.mkdir(exist_ok=True)
    (library.playlists / "Twice.m3u8").write_text("#EXTM3U")
    open_found(page, "tone 2-2")
    page.click("#track button:has-text('Add to the list')")
    page.click("#tab-list")
    page.fill("#list-name", "Twice")
    page.click("#list form button.main")
    shown = page.wait_for_selector("#toasts .bad").text_content()
    assert shown.startswith("“Twice” exists. ")
    assert shown.lower().count("replace") == 1
    page.click("#list form button:has-text('Replace')")
    page.wait_for_selector("#list form a")
    assert len(read_m3u(library.playlists / "Twice.m3u8")) == 1
    (library.playlists / "Twice.m3u8").unlink()
    assert len(page.wrong) == 1  # the browser itself reports the refusal
    page.wrong.clear()


def test_a_dropped_file_is_placed_with_its_neighbours(fresh, library, tmp_path):
    write_tone(tmp_path / "new one.wav", 815.0, 4.0)
    transfer = fresh.evaluate_handle(
        """async (text) => { const d = new DataTransfer();
        const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
        d.items.add(new File([bytes], "new one.wav", {type: "audio/wav"})); return d; }""",
        base64.b64encode((tmp_path / "new one.wav").read_bytes()).decode(),
    )
    fresh.dispatch_event("body", "dragenter", {"dataTransfer": transfer})
    fresh.wait_for_selector("#drop:not([hidden])")
    fresh.dispatch_event("body", "drop", {"dataTransfer": transfer})
    fresh.wait_for_function("document.querySelector('#track h2')?.textContent === 'new one.wav'")
    near = ids_of(fresh, "#track")
    assert set(near[:5]) <= {track(library, 3, n).id for n in range(EACH)}
    assert "Acid, House" in fresh.locator("#track .bars li").first.text_content()
    star = "document.getElementById('plot').data.at(-1)"
    placed = fresh.evaluate(f"[{star}.x[0], {star}.y[0]]")
    assert placed == pytest.approx([3, -2], abs=0.2)
    fresh.wait_for_function(HEARD)
    (tmp_path / "text.mp3").write_text("no sound at all")
    fresh.set_input_files("#file", tmp_path / "text.mp3")
    fresh.wait_for_selector("#toasts .bad")
    assert "text.mp3' can't be placed" in fresh.locator("#toasts").text_content()
    assert not list((library.cache / "uploads").iterdir())  # nothing is kept
    assert len(fresh.wrong) == 1  # the browser itself reports the refusal
    fresh.wrong.clear()


def test_a_correction_and_a_refit_move_the_map(fresh, site, library):
    release = threading.Event()

    def held(corrections, console):
        with console.progress("training") as bar:
            bar(3, 4)
            release.wait(30)
        return library.refit(corrections, console)

    site[1].state.explorer = Explorer(dataclasses.replace(library, refit=held))
    moved = track(library, 0, 2)
    open_found(fresh, moved.title)
    fresh.wait_for_selector("#move-to")
    assert "Deep House" in fresh.locator("#track .doctor").text_content()
    fresh.drag_and_drop(
        "#track .head", "#labels button:has-text('Deep House')", source_position={"x": 8, "y": 8}
    )
    fresh.wait_for_selector("#corrections:not([hidden])")
    word = "Deep House (corrected)"
    fresh.wait_for_function(
        "w => document.querySelector('#track .head').textContent.includes(w)", arg=word
    )
    assert word in fresh.locator("#now-by").text_content()
    counts = "all => all.map((e) => e.textContent)"
    now = {"Dark Techno": EACH - 1, "Deep House": EACH + 1}
    for name, count in now.items():
        own = fresh.eval_on_selector_all(f"#labels button:has-text('{name}') small", counts)
        assert own == [str(count)]
    assert "1 correction" in fresh.locator("#correction-count").text_content()
    assert "Deep House" in library.corrections.read_text()
    fresh.wait_for_selector("#track .correction button:has-text('Undo')")
    before = fresh.evaluate(PLACE, moved.id)
    fresh.click("#refit")
    fresh.wait_for_selector("#refit-progress[value]:not([hidden])")
    assert fresh.locator("#refit-progress").evaluate("bar => bar.position") == 3 / 4
    release.set()
    fresh.wait_for_selector("body[data-revision='2']", timeout=30_000)
    fresh.evaluate(POINTS)
    after = fresh.evaluate(PLACE, moved.id)
    assert abs(after[1] - before[1]) > 100  # from the upper half to the lower one
    own = fresh.locator("#labels button:has-text('Deep House') small")
    assert own.text_content() == str(EACH + 1)
    assert word in fresh.locator("#track .head").text_content()
    assert fresh.locator("#refit").is_disabled()  # nothing is pending
    fresh.click("#track .correction button:has-text('Undo')")
    fresh.wait_for_selector("#refit.main:enabled")  # the map still shows what was taken back
    assert moved.path.exists()


def test_the_mark_wrong_can_be_undone(fresh, library):
    open_found(fresh, track(library, 1, 1).title)
    fresh.click("#wrong")
    undo = fresh.locator("#track .correction button:has-text('Undo')")
    undo.wait_for()
    assert '"wrong": true' in library.corrections.read_text()
    assert "Emotional Techno (marked wrong)" in fresh.locator("#track .head").text_content()
    own = fresh.locator("#labels button:has-text('Emotional Techno') small")
    assert own.text_content() == str(EACH - 1)
    fresh.click("#track button:has-text('Add to the list')")
    assert "marked wrong" in fresh.locator("#list .track").text_content()
    crossed = fresh.locator("#labels button:has-text('marked wrong')")
    assert crossed.locator("small").text_content() == "1"
    undo.click()
    fresh.wait_for_selector("#wrong")
    assert '"wrong"' not in library.corrections.read_text()
    assert own.text_content() == str(EACH)
    assert crossed.count() == 0
    fresh.click("#tab-list")
    fresh.focus("#list .track .name")
    fresh.keyboard.press("w")
    fresh.wait_for_selector("#list .track:has-text('marked wrong')")
    assert fresh.evaluate("document.activeElement.className") == "name"


def test_the_axis_lists_the_tracks_nearest_to_its_point(page, library):
    axis_between(page, "Dark Techno", "Deep House")
    tracks = library.collection
    point = journeys.axis(tracks, "Dark Techno:Deep House").point(0.5)
    hits = sorted(similar(tracks, [point], Limits(12)), key=lambda hit: -hit.cosine)
    assert ids_of(page, "#along") == [hit.track.id for hit in hits]
    shown = page.locator("#along .num").all_text_contents()
    assert [float(one) for one in shown] == pytest.approx([hit.cosine for hit in hits], abs=0.0051)
    two = {track(library, label, n).id for label in (0, 2) for n in range(EACH)}
    assert set(ids_of(page, "#along")) <= two
    page.click("#along button:has-text('Add these 12')")
    page.click("#tab-list")
    assert ids_of(page, "#list") == [hit.track.id for hit in hits]


def test_the_axis_shows_the_last_position_of_the_slider(fresh, library):
    axis_between(fresh, "Dark Techno", "Deep House")
    held = []
    fresh.route("**/axis/near*", lambda route: held.append(route))
    fresh.focus("#slider")
    for key in ("Home", "ArrowRight", "ArrowRight", "End"):
        fresh.keyboard.press(key)
    assert fresh.locator("#where").text_content().startswith("120 of 100")  # it waits for no answer
    caught(fresh, held).continue_()
    caught(fresh, held).continue_()
    fresh.wait_for_selector(MEASURED)
    assert not held  # two of five positions were requested
    tracks = library.collection
    point = journeys.axis(tracks, "Dark Techno:Deep House").point(1.2)
    assert set(ids_of(fresh, "#along")) == {
        hit.track.id for hit in similar(tracks, [point], Limits(12))
    }


def test_a_late_answer_of_the_axis_keeps_the_rings_of_another_tab(fresh, library):
    open_found(fresh, "tone 2-2")
    fresh.click("#track button:has-text('Add to the list')")
    held = []
    fresh.route("**/axis/near*", lambda route: held.append(route))
    fresh.click("#tab-axis")
    request = caught(fresh, held)
    fresh.click("#tab-list")
    request.continue_()
    fresh.wait_for_selector("#along:not([aria-busy])", state="attached")
    assert fresh.evaluate(RINGS)[0]["count"] == 1


def test_the_axis_is_reloaded_after_a_refit(fresh, library):
    axis_between(fresh, "Dark Techno", "Deep House")
    fresh.locator("#along .name").nth(0).focus()
    fresh.keyboard.press("Enter")
    fresh.wait_for_function(HEARD)
    fresh.keyboard.press("w")
    fresh.wait_for_selector("#refit.main:enabled")
    fresh.click("#refit")
    fresh.wait_for_selector("body[data-revision='2']", timeout=30_000)
    fresh.wait_for_selector(MEASURED)
    assert len(ids_of(fresh, "#along")) == 12


def test_a_map_that_can_t_be_refitted_says_what_to_do(browser, library):
    with served(dataclasses.replace(library, refit=None)) as (url, app):
        app.state.explorer.correct(track(library, 0, 1).id, "Deep House", False)
        opened = browser.new_page()
        opened.goto(url)
        opened.wait_for_selector("#corrections:not([hidden])")
        assert opened.locator("#refit").is_hidden()
        assert "subgenre preprocess" in opened.locator("#refit-note").text_content()
        opened.close()
    library.corrections.unlink()


def test_tracks_that_leave_the_index_leave_the_map(browser, library):
    less = Collection.of(
        library.collection.tracks(range(20)), library.collection.vectors(range(20))
    )
    after = dataclasses.replace(library, collection=less, coordinates=library.coordinates[:20])
    answers: list[Library | None] = []
    watched = dataclasses.replace(library, reread=lambda: answers.pop() if answers else None)
    with served(watched) as (url, _):
        opened = browser.new_page()
        opened.goto(url)
        opened.wait_for_selector("body[data-state=ready]")
        answers.append(after)
        opened.fill("#query", "tone")
        opened.wait_for_selector("body[data-revision='2']", timeout=30_000)
        assert "20 tracks" in opened.locator("#count").text_content()
        opened.close()


def test_the_legend_hides_a_subgenre(page):
    visible = """document.getElementById('plot').data
      .filter(t => t.type === 'scattergl' && t.visible).length"""
    assert page.evaluate(visible) == len(SUBGENRES)
    page.locator("[data-label='0']").click()
    assert page.evaluate(visible) == len(SUBGENRES) - 1
    page.click("#none")
    assert page.evaluate(visible) == 0
    page.click("#all")
    assert page.evaluate(visible) == len(SUBGENRES)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_screen_cuts_nothing_and_all_has_a_name(page, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 400, "height": 800})
    open_found(page, "tone 0")
    page.wait_for_selector("#track .tracks")
    for tab in ("list", "axis", "track"):
        page.click(f"#tab-{tab}")
        page.wait_for_function("document.documentElement.scrollWidth <= 400")
        assert page.evaluate(WIDE) == []
        assert page.evaluate(NAMELESS) == []


def test_a_narrow_screen_shows_the_track_that_was_chosen(page):
    page.emulate_media(reduced_motion="reduce")
    page.set_viewport_size({"width": 400, "height": 800})
    seen = """() => { const box = document.querySelector("#track h2").getBoundingClientRect();
      return box.top >= 0 && box.bottom < innerHeight / 2; }"""
    open_found(page, "tone 0")
    page.wait_for_selector("#track h2")
    page.wait_for_function(seen)
    page.evaluate("scrollTo(0, 0)")
    page.focus("#plot")
    was = page.locator("#track h2").text_content()
    page.keyboard.press("ArrowRight")
    page.wait_for_function(
        "was => !['', was].includes(document.querySelector('#track h2')?.textContent ?? '')",
        arg=was,
    )
    assert page.evaluate("scrollY") == 0  # a walk by keys keeps the map in sight


def test_an_empty_library_says_what_to_do(browser, library):
    none = Collection.of([], np.zeros((0, 12)))
    bare = dataclasses.replace(library, collection=none, coordinates=np.zeros((0, 2)))
    with served(bare) as (url, _):
        opened = browser.new_page()
        opened.goto(url)
        opened.wait_for_selector("body[data-state=empty]")
        assert "subgenre index" in opened.locator("#wait-text").text_content()
        opened.close()


def test_a_failing_server_is_shown_and_can_be_retried(browser, library):
    with served(library) as (url, _):
        opened = browser.new_page()
        opened.route("**/api/library", lambda route: route.abort())
        opened.goto(url)
        opened.wait_for_selector("body[data-state=error]")
        opened.unroute("**/api/library")
        opened.click("#again")
        opened.wait_for_selector("#plot[data-ready]")
        assert opened.locator("#again").is_hidden()
        opened.close()
