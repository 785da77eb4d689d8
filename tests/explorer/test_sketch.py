"""The explorer's first map, on a canvas: it answers before plotly is there, in the same places."""

from __future__ import annotations

import numpy as np
import pytest

from tests.explorer.test_page import PLACE, POINTS
from tests.explorer_library import make_library, served

pytestmark = pytest.mark.browser

# the first pixel of the first map that a point covers, in the window
INKED = """() => {
  const canvas = document.getElementById("sketch"), box = canvas.getBoundingClientRect();
  const { data, width } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const at = data.findIndex((value, i) => i % 4 === 3 && value > 150) >> 2;
  return at < 0 ? null : [box.left + at % width, box.top + Math.floor(at / width)];
}"""


@pytest.mark.parametrize("pixels", [False, True], ids=["dots", "squares"])
def test_the_first_map_answers_until_plotly_takes_over_in_the_same_places(
    browser, tmp_path, pixels
):
    library = make_library(tmp_path)
    with served(library) as (url, _):
        page = browser.new_page()
        if pixels:  # the marks of a large library
            page.route("**/map.js", lambda route: route.fulfill(**_of_many(route.fetch())))
        held = []
        page.route("**/plotly.js", lambda route: held.append(route))
        page.goto(url, wait_until="commit")
        page.wait_for_selector("#sketch", state="visible")
        x, y = page.evaluate(INKED)
        page.mouse.move(x, y)
        assert page.locator("#tip").is_visible()
        page.mouse.click(x, y)
        page.wait_for_selector("#track h2")
        title = page.locator("#track h2").text_content()
        page.click("#none")
        assert page.evaluate(INKED) is None
        page.click("#all")
        x, y = page.evaluate(INKED)  # the player has taken room: the map lies elsewhere
        page.mouse.click(x, y)
        assert page.locator("#track h2").text_content() == title
        for _ in range(100):  # it is requested when the page has been left alone for a moment
            if held:
                break
            page.wait_for_timeout(100)
        assert held
        assert not page.locator("#plot[data-ready]").count()
        for route in held:
            route.continue_()
        page.wait_for_selector("#plot[data-ready]", timeout=60_000)
        assert not page.locator("#sketch").is_visible()
        page.evaluate(POINTS)
        tracks = library.collection.tracks(library.collection.live)
        places = [page.evaluate(PLACE, t.id) for t in tracks if t.title == title]
        assert min(np.hypot(left - x, top - y) for left, top in places) < 6
        page.close()


def _of_many(answer):
    """The page's module with the marks that 30,000 points get."""
    text = answer.text()
    assert text.count(">= 30000") == 1
    return {"response": answer, "body": text.replace(">= 30000", ">= 1")}
