"""The explorer under load: no error that is no stated refusal, flat memory, p95 of each route.

    python benchmarks/soak.py [--minutes 30]

Makes a small library and a model of it, serves it with `subgenre explore`, and lets 8 clients ask
for neighbours, playlists and parts of tracks, send good and bad uploads and bodies, and leave in
the middle. Meanwhile tracks are added and removed, and `subgenre index` updates the index.

An error is a broken connection, a status of 500 or more, a refusal without a sentence, a refusal of
a good request (but 429, and 404 or 422 for a track that was just removed), other bytes than the
file's, an update of the index that fails, or a traceback in the server's log. Memory is flat when
its median in the last fifth of the time is at most 10 % over that of the second fifth. Exit code 1:
there are errors, or the memory is not flat.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from subgenre import config
from subgenre.commands.model_folder import ModelFolder
from subgenre.commands.preprocess import preprocess
from subgenre.commands.train import train
from subgenre.config import PreprocessConfig
from subgenre.demo import make_library

CLIENTS, GROWTH = 8, 1.10
SUBGENRE = (sys.executable, "-m", "subgenre")
CHANGE = {"x-subgenre": "1"}


@dataclass
class Tally:
    """What all clients saw: milliseconds by route, and errors."""

    took: dict[str, list[float]] = field(default_factory=lambda: collections.defaultdict(list))
    refusals: int = 0
    updates: int = 0
    errors: list[str] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)

    @property
    def requests(self) -> int:
        """Number of answers."""
        return sum(map(len, self.took.values()))

    @property
    def growth(self) -> float:
        """Median memory of the last fifth of the time over that of the second fifth."""
        fifth = max(1, len(self.memory_mb) // 5)
        return float(np.median(self.memory_mb[-fifth:]) / np.median(self.memory_mb[fifth:][:fifth]))


class Client:
    """One client: asks for one thing after the other, drawn from its seed."""

    def __init__(self, url: str, files: dict[str, Path], tally: Tally, seed: int) -> None:
        self.url, self.tally, self.rng = httpx.URL(url), tally, random.Random(seed)
        self.files, self.ids = files, sorted(files)
        self.line = httpx.Client(base_url=url, timeout=60, headers=CHANGE)

    def ask(self, route: str, method: str, path: str, *, good: bool = True, **more: Any) -> Any:
        """Send a request, and count what is an error."""
        start = time.perf_counter()
        try:
            answer = self.line.request(method, path, **more)
        except httpx.HTTPError as problem:
            self.tally.errors.append(f"{route}: {problem!r}")
            return None
        self.tally.took[route].append(1000 * (time.perf_counter() - start))
        if answer.is_success:
            return answer
        self.tally.refusals += 1
        kind = answer.headers.get("content-type", "")
        detail = answer.json().get("detail", "") if kind == "application/json" else ""
        gone = answer.status_code == 422 and route in ("audio", "peaks")
        gone |= answer.status_code == 404 and "has no track with id" in detail
        expected = answer.status_code == 429 or gone or not good
        if answer.status_code >= 500 or not detail or not expected:
            self.tally.errors.append(f"{route}: {answer.status_code} {answer.text[:200]}")
        return None

    def neighbours(self) -> None:
        """Ask for similar tracks."""
        found = self.ask("similar", "GET", f"/api/tracks/{self.rng.choice(self.ids)}/similar?k=10")
        if found is not None and not found.json()["tracks"]:
            self.tally.errors.append("similar: no track")

    def look(self) -> None:
        """Ask for what the page shows."""
        one = self.rng.choice(self.ids)
        route, path = self.rng.choice(
            [("track", f"/api/tracks/{one}"), ("peaks", f"/api/tracks/{one}/peaks"),
             ("search", "/api/search?q=a"), ("points", "/api/points"), ("page", "/"),
             ("library", "/api/library")]
        )  # fmt: skip
        self.ask(route, "GET", path)

    def part(self) -> None:
        """Ask for a range of a file, and compare its bytes."""
        one = self.rng.choice(self.ids)
        try:
            whole = self.files[one].read_bytes()
        except FileNotFoundError:  # it was removed
            return
        first = self.rng.randrange(len(whole))
        last = min(first + 100_000, len(whole) - 1)
        headers = {"range": f"bytes={first}-{last}"}
        answer = self.ask("audio", "GET", f"/api/tracks/{one}/audio", headers=headers)
        if answer is not None and answer.content != whole[first : last + 1]:
            self.tally.errors.append(f"audio: bytes {first}-{last} of {one} differ")

    def playlist(self) -> None:
        """Make a list and save one."""
        seeds = self.rng.sample(self.ids, 2)
        kind = self.rng.choice(["agreement", "journey"])
        body = {"kind": kind, "seeds": seeds, "k": 8}
        self.ask("playlist", "POST", "/api/playlist", json=body)
        saved = {"name": f"list {self.rng.randrange(5)}", "ids": seeds, "replace": True}
        self.ask("save", "POST", "/api/playlists", json=saved)

    def upload(self) -> None:
        """Place a file of the library."""
        try:
            data = self.files[self.rng.choice(self.ids)].read_bytes()
        except FileNotFoundError:
            return
        self.ask("place", "POST", "/api/place?name=new.wav", content=data)

    def bad_upload(self) -> None:
        """Place what is no music."""
        data = self.rng.choice(
            [b"", b"no music", self.rng.randbytes(50_000), b"ID3" + bytes(50_000),
             b"RIFF\xff\xff\xff\xffWAVEfmt " + bytes(1000), bytes(2**20)]
        )  # fmt: skip
        name = self.rng.choice(["a.mp3", "../../a.wav", "a.exe", "\r\n", "ü" * 90])
        self.ask("bad place", "POST", "/api/place", params={"name": name}, content=data, good=False)

    def bad_body(self) -> None:
        """Send what is no request."""
        path = self.rng.choice(["/api/playlist", "/api/playlists", "/api/order", "/api/nothing"])
        data = self.rng.choice(
            [b"", b"{", b"[" * 5000, b"\xff", b'{"ids": 1}', b"null", bytes(5 * 2**20)]
        )
        headers = {"content-type": "application/json"}
        self.ask("bad body", "POST", path, content=data, headers=headers, good=False)

    def leave(self) -> None:
        """Leave in the middle of a request or of an answer."""
        one = self.rng.choice(self.ids)
        half = self.rng.choice(
            [f"GET /api/tracks/{one}/audio HTTP/1.1\r\nhost: localhost\r\n\r\n",
             "POST /api/place?name=a.mp3 HTTP/1.1\r\nhost: localhost\r\nx-subgenre: 1\r\n"
             "content-length: 100000\r\n\r\nabc",
             "POST /api/order HTTP/1.1\r\nhost: localhost\r\nx-subgenre: 1\r\n"
             "content-length: 100\r\n\r\n{", "GET /api/lib"]
        )  # fmt: skip
        with socket.create_connection((self.url.host, self.url.port), timeout=60) as line:
            line.sendall(half.encode())
            time.sleep(self.rng.choice([0, 0.05]))

    def work(self, until: float) -> None:
        """Do everything once, then what is drawn until the time is over."""
        actions = [self.neighbours, self.look, self.part, self.playlist, self.upload,
                   self.bad_upload, self.bad_body, self.leave]  # fmt: skip
        weights = [6, 6, 6, 3, 1, 3, 3, 2]
        with self.line:
            for action in actions:
                action()
            while time.monotonic() < until:
                self.rng.choices(actions, weights)[0]()


def soak(run: Path, music: Path, minutes: float, clients: int = CLIENTS) -> Tally:
    """Serve a model under load while the index of the folder `music` is updated."""
    tally, folder = Tally(), run.parent
    update(run, music, tally)
    tracks = ModelFolder.open(run).collection(None)
    files = {t.id: t.path.absolute() for t in tracks.tracks(tracks.live)}
    log = folder / "server.log"
    explore = [*SUBGENRE, "explore", "--run", run, "--port", "0", "--json"]
    explore += ["--playlists", folder / "playlists"]
    with (
        log.open("w") as stderr,
        subprocess.Popen(explore, stdout=subprocess.PIPE, stderr=stderr, text=True) as server,
    ):
        try:
            line = server.stdout.readline() if server.stdout else ""
            if not line:
                raise SystemExit(f"the server did not start: {log.read_text()}")
            url = json.loads(line)["address"]
            until = time.monotonic() + 60 * minutes
            workers = [Client(url, files, tally, seed).work for seed in range(clients)]
            threads = [threading.Thread(target=work, args=(until,)) for work in workers]
            threads.append(threading.Thread(target=updates, args=(run, music, tally, until)))
            for thread in threads:
                thread.start()
            watched = psutil.Process(server.pid)
            while any(thread.is_alive() for thread in threads) and server.poll() is None:
                tally.memory_mb.append(watched.memory_info().rss / 2**20)
                time.sleep(0.5)
            for thread in threads:
                thread.join()
        finally:
            server.terminate()  # a background job may ignore Ctrl-C
            if server.wait(30) != 128 + signal.SIGTERM:
                tally.errors.append(f"the server ended with {server.returncode}")
    wrong = [text for text in log.read_text().splitlines() if "Traceback" in text]
    tally.errors += [f"the server's log has {len(wrong)} tracebacks: {log}"] if wrong else []
    return tally


def updates(run: Path, music: Path, tally: Tally, until: float) -> None:
    """Remove a third of the tracks or put them back, update the index, and so on."""
    away = music.with_name("away")
    away.mkdir(exist_ok=True)
    moved = sorted(path.relative_to(music) for path in music.rglob("*.*") if path.is_file())[::3]
    back = False
    while time.monotonic() < until:
        for path in moved:
            here, there = music / path, away / path.name
            (there if back else here).replace(here if back else there)
        back = not back
        update(run, music, tally)


def update(run: Path, music: Path, tally: Tally) -> None:
    """Update the index in a process of its own."""
    done = subprocess.run(
        [*SUBGENRE, "index", music, "--run", run, "--workers", "1", "--quiet"],
        capture_output=True,
        text=True,
    )
    tally.updates += 1
    if done.returncode:
        tally.errors.append(f"index: exit code {done.returncode}: {done.stderr[-300:]}")


def make_model(folder: Path) -> Path:
    """Make the demo's music in two seeds, one to train on and one to index, and train a model."""
    make_library(folder / "WAV", tracks_per_subgenre=5, track_s=12)
    make_library(folder / "music", seed=1, tracks_per_subgenre=3, track_s=12)
    preprocess(
        folder / "WAV",
        folder / "features",
        backbone="musicnn",
        settings=PreprocessConfig(max_chunks=2),
    )
    settings = config.replace(config.load_recipe("laptop"), "model", backbone="musicnn")
    settings = config.replace(settings, "optim", epochs=5)
    run = folder / "fully_trained_models_soak"
    train(folder / "features", settings, out=run, checkpoints=folder / "checkpoints")
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description="the explorer under load")
    parser.add_argument("--minutes", type=float, default=30.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="subgenre-soak-") as place:
        tally = soak(make_model(Path(place)), Path(place) / "music", options.minutes)
    print(f"{options.minutes:g} minutes, {CLIENTS} clients: {tally.requests:,} requests, "
          f"{tally.refusals:,} refused, {tally.updates} updates of the index")  # fmt: skip
    fifth = max(1, len(tally.memory_mb) // 5)
    start, end = np.median(tally.memory_mb[fifth:][:fifth]), np.median(tally.memory_mb[-fifth:])
    print(f"memory  {start:.0f} MB, at the end {end:.0f} MB: ratio {tally.growth:.3f} "
          f"(at most {GROWTH})")  # fmt: skip
    for route, took in sorted(tally.took.items()):
        p50, p95 = np.percentile(took, [50, 95])
        print(f"{route:10} {len(took):8,} requests   p50 {p50:7.1f} ms   p95 {p95:7.1f} ms")
    print(f"errors  {len(tally.errors)} (must be 0)", *tally.errors[:10], sep="\n  ")
    if tally.errors or tally.growth > GROWTH:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
