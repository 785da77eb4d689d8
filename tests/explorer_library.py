"""A small library to explore: tones on disk, vectors around centres, an encoder of two lines."""

from __future__ import annotations

import dataclasses
import threading
import time
import wave
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from subgenre.audio import reading
from subgenre.core.progress import Console
from subgenre.evaluation.audits.findings import Finding
from subgenre.explorer import Correction, Encoded, Library
from subgenre.explorer.app import create_app
from subgenre.explorer.server import bind, make_server
from subgenre.library.track import Track
from subgenre.search import classifier
from subgenre.search.collection import Collection

RATE, LENGTH_S, EACH, DIM = 8000, 6.0, 8, 12
SUBGENRES = (
    ("Techno", "Dark Techno"),
    ("Techno", "Emotional Techno"),
    ("House", "Deep House"),
    ("House", "Acid, House"),
)
EVIL = '</script><img src=x onerror="window.broken=1"> & "quoted"'
CENTRES = np.eye(DIM)[: len(SUBGENRES)]


def write_tone(path: Path, hertz: float, length_s: float = LENGTH_S) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    t = np.arange(round(length_s * RATE)) / RATE
    swell = np.linspace(0.2, 1.0, len(t))
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes((12_000 * swell * np.sin(2 * np.pi * hertz * t)).astype("<i2").tobytes())


def encode(path: Path) -> Encoded:
    """Encode a tone: its pitch decides which centre it is near."""
    found = reading.probe(path)
    samples, rate, lead = reading.read_window(path, 0.0, 2.0)
    power = np.abs(np.fft.rfft(samples[0, lead:]))
    pitch = float(np.argmax(power)) * rate / (samples.shape[1] - lead)
    label = int(np.clip(round(pitch / 200.0) - 1, 0, len(SUBGENRES) - 1))
    vector = CENTRES[label] + 0.01
    return Encoded(vector, np.stack([vector, vector]), (0.0, 2.0), found.duration_s)


def place(vectors: np.ndarray) -> np.ndarray:
    """A map of two axes that shows the four centres apart."""
    return np.asarray(vectors, float)[:, :4] @ np.array([[-3, 2], [3, 2], [-3, -2], [3, -2.0]])


def make_tracks(root: Path) -> list[Track]:
    made = []
    for label, (genre, subgenre) in enumerate(SUBGENRES):
        for n in range(EACH):
            path = root / genre / subgenre / f"{n:02d} tone ü, {label}.wav"
            write_tone(path, 200.0 * (label + 1) + 9 * n)
            found = reading.probe(path)
            title = EVIL if (label, n) == (1, 3) else f"Tone {label}-{n}"
            tags = {"artist": f"Artist {n % 3}", "title": title, "bpm": 120.0 + n}
            tags |= {"tempo_bpm": 60.0 + n / 2, "key": ("Am", "Em", "F#", None)[n % 4]}
            track = Track(found.id, path, genre, subgenre, **tags, duration_s=found.duration_s)
            made.append(track)
    return made


def make_library(folder: Path, **more: Any) -> Library:
    tracks = make_tracks(folder / "WAV")
    rng = np.random.default_rng(3)
    number = np.repeat(np.arange(len(SUBGENRES)), EACH)
    vectors = CENTRES[number] + 0.12 * rng.normal(size=(len(tracks), DIM))
    collection = Collection.of(tracks, vectors)
    unit = collection.vectors(collection.live)
    labels = [(t.genre, t.subgenre) for t in tracks]
    wrong = tracks[2]
    why = "by its sound Deep House 93%, Dark Techno 5%"
    fit = "wrong playlist", wrong.subgenre, "Deep House", 0.93, why
    values: dict[str, Any] = {
        "collection": collection,
        "coordinates": place(unit),
        "place": place,
        "playlists": folder / "playlists",
        "corrections": folder / "corrections.json",
        "cache": folder / "cache",
        "root": folder / "WAV",
        "title": "Small library",
        "note": "32 tones of four kinds.",
        "classifier": classifier.fit(unit, labels),
        "trained": frozenset(t.id for t in tracks[::2]),
        "findings": (Finding(wrong.id, str(wrong.path), *fit, 0.31, (tracks[3].id, "gone")),),
        "chunk_starts": {t.id: (0.0, 3.0) for t in tracks},
        "chunk_s": 2.0,
        "encode": encode,
    }
    library = Library(**values | more)

    def refit(corrections: Mapping[str, Correction], console: Console) -> Library:
        """Move each corrected track to its new centre; all others keep their vectors."""
        with console.progress("training") as bar:
            bar(3, 4)
        moved = unit.copy()
        relabelled = list(tracks)
        for i, track in enumerate(tracks):
            one = corrections.get(track.id)
            if one is not None and one.subgenre:
                moved[i] = CENTRES[SUBGENRES.index((one.genre, one.subgenre))] + 0.02
                relabelled[i] = dataclasses.replace(track, genre=one.genre, subgenre=one.subgenre)
        again = Collection.of(relabelled, moved)
        return dataclasses.replace(
            library, collection=again, coordinates=place(again.vectors(again.live)), refit=refit
        )

    return library if "refit" in more else dataclasses.replace(library, refit=refit)


@contextmanager
def served(library: Library, token: str = "") -> Iterator[tuple[str, Any]]:
    """Serve a library on loopback from a thread; yields the address and the application."""
    app = create_app(library, token=token)
    socket = bind("127.0.0.1", 0)
    server = make_server(app)
    thread = threading.Thread(target=lambda: server.run(sockets=[socket]), daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{socket.getsockname()[1]}", app
    finally:
        server.should_exit = True
        thread.join(10)
        socket.close()
