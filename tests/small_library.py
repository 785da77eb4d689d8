"""A small library of WAV files, preprocessed with or without worker processes."""

from __future__ import annotations

import dataclasses
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from subgenre.audio import reading
from subgenre.audio.features import MUSICNN_SPEC
from subgenre.config import PreprocessConfig
from subgenre.core import parallel
from subgenre.dataset.building import Summary, preprocess
from subgenre.errors import SubgenreError
from subgenre.library.scan import Library
from subgenre.library.sources import Skipped
from subgenre.library.track import Track

CONFIG = PreprocessConfig(chunk_s=4.0, max_chunks=2)
RATE = 16_000


def write_wav(path: Path, length_s: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    t = np.arange(round(length_s * RATE)) / RATE
    samples = 0.4 * np.sin(2 * np.pi * (200 + 90 * seed) * t) + rng.normal(0, 0.05, len(t))
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes((samples * 20_000).astype("<i2").tobytes())


def track_of(path: Path, root: Path, **more: Any) -> Track:
    found = reading.probe(path)
    genre, subgenre, *_ = path.relative_to(root).parts
    labels = {"trash": True} if genre == "trash" else {"genre": genre, "subgenre": subgenre}
    return Track(path=path, **{**labels, **stat_of(path), **dataclasses.asdict(found), **more})


def stat_of(path: Path) -> dict[str, int]:
    return {"size": path.stat().st_size, "mtime_ns": path.stat().st_mtime_ns}


def library_of(root: Path) -> Library:
    everyone = [track_of(path, root) for path in sorted(root.rglob("*.wav"))]
    return Library(
        root=root,
        tracks=tuple(t for t in everyone if not t.trash),
        trash=tuple(t for t in everyone if t.trash),
        read=tuple(everyone),
        labels=frozenset((t.genre, t.subgenre) for t in everyone if not t.trash),
        skipped=(Skipped(root / "techno" / "dark" / "empty.mp3", "is empty"),),
        notes=(),
    )


def make_library(folder: Path) -> Path:
    """Write two subgenres and trash; one track of 3.5 s (padded), one of 1 s (skipped)."""
    lengths = {
        "techno/dark/a.wav": 10.0,
        "techno/dark/b.wav": 3.5,
        "techno/dark/short.wav": 1.0,
        "house/deep/c.wav": 9.0,
        "house/deep/d, e.wav": 12.0,
        "house/deep/f.wav": 8.5,
        "trash/x/g.wav": 9.5,
    }
    for seed, (name, length_s) in enumerate(lengths.items()):
        write_wav(folder / name, length_s, seed)
    return folder


def replace_workers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace workers by a loop in this process; return the names of the files decoded."""
    decoded: list[str] = []

    def map_files(fn: Callable[[Any], Any], items: Any, **_: object) -> Iterator[tuple[int, Any]]:
        for position, item in enumerate(items):
            decoded.append(Path(getattr(item, "path", item)).name)
            try:
                result = fn(item)
            except SubgenreError as problem:
                result = parallel.Failure(str(problem))
            yield position, result

    monkeypatch.setattr(parallel, "map_files", map_files)
    return decoded


def run(root: Path, out: Path, config: PreprocessConfig = CONFIG, **options: Any) -> Summary:
    given = {"workers": 1, "timeout_s": 60.0, **options}
    library = given.pop("library", None) or library_of(root)
    return preprocess(library, out, MUSICNN_SPEC, config, **given)


def same_folders(one: Path, other: Path) -> None:
    """Every table and every chunk equal, and nothing else there."""
    listings = [
        sorted(p.relative_to(f).as_posix() for p in f.rglob("*") if p.is_file())
        for f in (one, other)
    ]
    assert listings[0] == listings[1]
    for name in listings[0]:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
