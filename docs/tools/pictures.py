"""Take the pictures of the tutorial: python docs/tools/pictures.py DEMO_FOLDER.

It needs the folder of `subgenre demo`, playwright and Debian's chromium.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

CHROMIUM = "/usr/bin/chromium"
IMAGES = Path(__file__).parents[1] / "images"
TRACK = "Tidal Basin"  # the one of the tutorial


def save(name: str, png: bytes) -> None:
    """Write a screenshot as WebP."""
    Image.open(io.BytesIO(png)).save(IMAGES / f"{name}.webp", quality=80, method=6)


def take_report(page: Page, run: Path) -> None:
    """Take the summary and the map of the report."""
    page.goto((run / "report.html").absolute().as_uri())
    page.wait_for_selector("#map .main-svg, #map canvas")
    page.wait_for_timeout(1000)  # the map is drawn in steps
    for section in ("summary", "map"):
        save(f"report-{section}", page.locator(f"#{section}").screenshot())


def take_explorer(page: Page, run: Path) -> None:
    """Take the explorer with one track selected."""
    command = [sys.executable, "-m", "subgenre", "explore", "--run", str(run), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr
        lines = (re.search(r"http://\S+", line) for line in server.stderr)
        page.goto(next(found[0] for found in lines if found))
        page.wait_for_selector("body[data-state=ready]", timeout=60_000)
        page.get_by_role("combobox").fill(TRACK)
        page.get_by_role("option").first.click()
        page.wait_for_timeout(2000)  # the waveform and the map's move to the track
        save("explorer", page.screenshot())
        server.terminate()


if __name__ == "__main__":
    run = max(Path(sys.argv[1]).glob("fully_trained_models_*"))
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        take_report(page, run)
        take_explorer(page, run)
        browser.close()
