"""The explorer with 100,000 synthetic tracks: time to an interactive page, and similar requests.

1,000 requests for 10 similar tracks from 8 clients, against a bare FastAPI route that does the same
matrix product, in turns on two servers of the same process settings. Prints the 95th percentiles,
their ratio, the memory of the servers and, where Debian's chromium is installed, the seconds from
opening the page until a click on its map shows the track, until it answers a search, and until
plotly has taken the map over (then it can be moved, zoomed, lassoed).

Run: python benchmarks/serve.py [--tracks N] [--requests N]
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

DIM, K, LABELS, CLIENTS = 128, 10, 40, 8
CHROMIUM = "/usr/bin/chromium"


def vectors(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors around a centre a subgenre, and the number of it."""
    generator = np.random.default_rng(1)
    number = generator.integers(0, LABELS, count)
    x = generator.standard_normal((LABELS, DIM), dtype=np.float32)[number]
    x += generator.standard_normal(x.shape, dtype=np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True), number


def explorer_app(count: int, folder: Path) -> Any:
    """The real application over synthetic tracks without files."""
    from subgenre.explorer import Library
    from subgenre.explorer.app import create_app
    from subgenre.library.track import Track
    from subgenre.search.collection import Collection

    x, number = vectors(count)
    tracks = [
        Track(
            f"{i:032x}",
            folder / f"{i}.mp3",
            f"Genre {n % 6}",
            f"Subgenre {n}",
            f"Artist {i % 9973}",
            title=f"Title {i} of the library",
            duration_s=180.0 + i % 240,
        )
        for i, n in enumerate(number.tolist())
    ]
    around = np.random.default_rng(2).normal(0, 10, (LABELS, 2))
    coordinates = around[number] + np.random.default_rng(3).normal(0, 1, (count, 2))
    return create_app(
        Library(
            collection=Collection.of(tracks, x),
            coordinates=coordinates,
            place=lambda v: np.zeros((len(v), 2)),
            playlists=folder / "playlists",
            corrections=folder / "corrections.json",
            cache=folder / "cache",
            root=folder,
        )
    )


def bare_app(count: int, _folder: Path) -> Any:
    """One route: the cosines of one row to all, and the K highest."""
    from fastapi import FastAPI

    x, _ = vectors(count)
    app = FastAPI()

    @app.get("/api/tracks/{track_id}/similar")
    def similar(track_id: str) -> dict[str, list[float]]:
        cosines = x @ x[int(track_id, 16)]
        best = np.argpartition(-cosines, K)[:K]
        best = best[np.argsort(-cosines[best])]
        return {"rows": best.tolist(), "cosines": cosines[best].tolist()}

    return app


def run(make: Any, count: int, folder: Path, pipe: Any) -> None:
    """Serve in a process of its own and tell the address and the seconds it took to start."""
    from subgenre.explorer.server import bind, make_server

    before = time.perf_counter()
    app, socket = make(count, folder), bind("127.0.0.1", 0)
    pipe.send((socket.getsockname()[1], time.perf_counter() - before))
    make_server(app).run(sockets=[socket])


def load(port: int, count: int, requests: int) -> list[float]:
    """Milliseconds of `requests` requests from `CLIENTS` clients, each on one connection."""
    ids = np.random.default_rng(4).integers(0, count, requests)
    took: list[list[float]] = [[] for _ in range(CLIENTS)]

    def client(which: int) -> None:
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        for i in ids[which::CLIENTS]:
            start = time.perf_counter()
            line.request("GET", f"/api/tracks/{int(i):032x}/similar")
            answer = line.getresponse()
            body = answer.read()
            took[which].append(1000 * (time.perf_counter() - start))
            assert answer.status == 200, body

    threads = [threading.Thread(target=client, args=(i,)) for i in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [t for one in took for t in one]


# a pixel of the first map that a point covers, in the page's coordinates
POINT = """() => {
  const canvas = document.querySelector("#sketch"), box = canvas.getBoundingClientRect();
  const { data, width } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  for (let i = Math.floor(data.length / 8) * 4; i < data.length; i += 4)
    if (data[i + 3] > 100) {
      const at = [(i / 4) % width, Math.floor(i / 4 / width)].map((v) => v / devicePixelRatio);
      return { x: box.left + at[0], y: box.top + at[1] };
    }
}"""


def page_seconds(port: int) -> dict[str, float] | None:
    """Seconds until a click on the map, and a search, are answered and plotly's map is there.

    None: there is no browser.
    """
    if shutil.which(CHROMIUM) is None:
        return None
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        start = time.perf_counter()
        page.goto(f"http://127.0.0.1:{port}/", wait_until="commit")
        page.wait_for_selector("#sketch", state="visible", timeout=120_000)
        point = page.evaluate(POINT)
        page.mouse.click(point["x"], point["y"])
        page.wait_for_selector("#track h2", timeout=60_000)
        clicked = time.perf_counter() - start
        page.fill("#query", "title 777")
        page.wait_for_selector("#found [data-id]", timeout=60_000)
        searched = time.perf_counter() - start
        page.wait_for_selector("#plot[data-ready]", timeout=120_000)
        drawn = time.perf_counter() - start
        browser.close()
    return {"click_s": clicked, "search_s": searched, "map_s": drawn}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tracks", type=int, default=100_000)
    parser.add_argument("--requests", type=int, default=1000)
    options = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    folder = Path(tempfile.mkdtemp(prefix="subgenre-serve-"))
    servers, ports, starts = [], [], []
    for make in (explorer_app, bare_app):
        here, there = spawn.Pipe()
        server = spawn.Process(target=run, args=(make, options.tracks, folder, there), daemon=True)
        server.start()
        port, start = here.recv()
        servers.append(server)
        ports.append(port)
        starts.append(start)
    figures: dict[str, Any] = {"tracks": options.tracks, "start_s": starts[0]}
    page = page_seconds(ports[0])
    figures |= page or {}
    took: list[list[float]] = [[], []]
    for port in ports:
        load(port, options.tracks, 40)
    for turn in range(4):  # in turns, so that a busy machine slows both
        for i in (0, 1) if turn % 2 else (1, 0):
            took[i] += load(ports[i], options.tracks, options.requests // 4)
    p95 = [float(np.percentile(t, 95)) for t in took]
    memory = [psutil.Process(server.pid).memory_info().rss / 2**20 for server in servers]
    figures |= {
        "explorer_p95_ms": p95[0],
        "bare_p95_ms": p95[1],
        "ratio": p95[0] / p95[1],
        "explorer_mb": memory[0],
        "bare_mb": memory[1],
    }
    for server in servers:
        server.terminate()
    shutil.rmtree(folder, ignore_errors=True)
    print(f"{options.tracks:,} x {DIM}, {options.requests} requests from {CLIENTS} clients")
    print(f"explorer  p95 {p95[0]:8.1f} ms   median {np.median(took[0]):8.1f} ms   "
          f"{memory[0]:6.0f} MB   made in {starts[0]:.1f} s")  # fmt: skip
    print(f"bare      p95 {p95[1]:8.1f} ms   median {np.median(took[1]):8.1f} ms   "
          f"{memory[1]:6.0f} MB")  # fmt: skip
    print(f"ratio         {figures['ratio']:8.2f}      (at most 3)")
    if page:
        print(
            f"page          {page['click_s']:8.2f} s    until a click is answered (under 3), "
            f"a search after {page['search_s']:.2f} s, plotly's map after {page['map_s']:.2f} s"
        )
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
