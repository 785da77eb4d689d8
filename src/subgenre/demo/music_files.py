"""The demo's files: names, tags and containers drawn from the seed, written in parallel."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from subgenre.core.files import atomic_path, read_json, write_json
from subgenre.core.parallel import Failure, map_files, worker_count
from subgenre.demo.instruments import RATE, Samples
from subgenre.demo.render import render
from subgenre.demo.score import compose
from subgenre.demo.styles import STYLES
from subgenre.errors import SubgenreError

MARKER = ".demo.json"
FORMAT_VERSION = 1
_TIMEOUT_S = 300.0
_BIT_RATES = (80_000, 96_000, 112_000)
_FIRST = (
    "Amber", "Brass", "Cobalt", "Delta", "Ember", "Fennel", "Granite", "Hollow", "Indigo",
    "Juniper", "Kelp", "Lantern", "Marble", "Nickel", "Ochre", "Paper", "Quartz", "Rook",
    "Saffron", "Tidal",
)  # fmt: skip
_SECOND = (
    "Arcade", "Basin", "Circuit", "District", "Engine", "Ferry", "Garden", "Harbour", "Island",
    "Junction", "Kiosk", "Ladder", "Meadow", "Narrows", "Orchard", "Pier", "Quarry", "Ridge",
    "Station", "Tower",
)  # fmt: skip


@dataclass(frozen=True)
class _Plan:
    """One track to be made: which style, from which numbers, under which name."""

    style: int
    entropy: tuple[int, ...]
    path: Path
    length_s: float
    bit_rate: int
    tags: tuple[tuple[str, str], ...]


def _names(rng: np.random.Generator, count: int) -> list[str]:
    """Different two-word names."""
    drawn = rng.choice(len(_FIRST) * len(_SECOND), count, replace=False)
    return [f"{_FIRST[i // len(_SECOND)]} {_SECOND[i % len(_SECOND)]}" for i in drawn.tolist()]


def _artists(rng: np.random.Generator, names: list[str], count: int) -> list[str]:
    """An artist for some six tracks in ten, one to three tracks each; "" for the others."""
    tagged: list[str] = []
    for name in names:
        tagged += [name] * int(rng.integers(1, 4))
    tagged = tagged[: round(0.6 * count)]
    order = rng.permutation(count)
    return [tagged[i] if i < len(tagged) else "" for i in order.tolist()]


def _plan(root: Path, seed: int, per_subgenre: int, track_s: float) -> list[_Plan]:
    rng = np.random.default_rng([seed, len(STYLES), per_subgenre])
    per_style = math.ceil(0.6 * per_subgenre)
    artists = _names(rng, len(STYLES) * per_style) if len(STYLES) * per_style <= 400 else []
    plans = []
    for style_number, style in enumerate(STYLES):
        folder = root / style.genre / style.name
        mine = artists[style_number * per_style : (style_number + 1) * per_style]
        artist = _artists(rng, mine, per_subgenre)
        titles = [f"{rng.choice(_FIRST)} {rng.choice(_SECOND)}" for _ in range(per_subgenre)]
        # half mp3, half wav in every subgenre, so that the container says nothing
        suffix = rng.permutation([".mp3", ".wav"] * math.ceil(per_subgenre / 2)).tolist()
        for number in range(per_subgenre):
            tags = [("title", titles[number])]
            if artist[number]:
                tags.append(("artist", artist[number]))
            plans.append(
                _Plan(
                    style_number,
                    (seed, style_number, number),
                    folder / f"{number + 1:02d} {titles[number]}{suffix[number]}",
                    track_s + float(rng.uniform(0, 3)),
                    int(rng.choice(_BIT_RATES)),
                    tuple(tags),
                )
            )
    return plans


def _write_audio(path: Path, samples: Samples, bit_rate: int, tags: dict[str, str]) -> None:
    """Write [n] samples at `RATE` as 16-bit wav or mp3, by the suffix, with tags."""
    is_mp3 = path.suffix == ".mp3"
    # bitexact: the same bytes from the same samples, no encoder's date or name
    with av.open(str(path), "w", format="mp3" if is_mp3 else "wav",
                 options={"fflags": "+bitexact"}) as container:  # fmt: skip
        stream = container.add_stream("libmp3lame" if is_mp3 else "pcm_s16le", rate=RATE)
        stream.layout = "mono"
        if is_mp3:
            stream.bit_rate = bit_rate
            stream.options = {"compression_level": "9"}
        container.metadata.update(tags)
        whole = np.round(samples * 32767).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(whole, format="s16", layout="mono")
        frame.sample_rate = RATE
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


def _make_track(plan: _Plan) -> None:
    rng = np.random.default_rng(plan.entropy)
    style = STYLES[plan.style]
    samples = render(compose(style, plan.length_s, rng), style, plan.length_s, rng)
    with atomic_path(plan.path) as temporary:
        _write_audio(temporary, samples, plan.bit_rate, dict(plan.tags))


def _claim(root: Path, settings: dict[str, object]) -> None:
    """Mark an empty folder as the demo's own, or check that it is."""
    marker = root / MARKER
    if marker.exists():
        found = read_json(marker, version=FORMAT_VERSION, error=SubgenreError)
        if found != settings:
            raise SubgenreError(
                f"{root} holds a demo made with other settings ({found} instead of {settings}): "
                "name another folder, or remove this one"
            )
        return
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise SubgenreError(f"{root} is not empty and not made by the demo: name another folder")
    root.mkdir(parents=True, exist_ok=True)
    write_json(marker, settings)


def make_library(
    root: Path,
    *,
    seed: int = 0,
    tracks_per_subgenre: int = 14,
    track_s: float = 42.0,
    workers: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Make the demo's library in `root`, or finish the one that an earlier call began there.

    Each track lasts `track_s` to `track_s + 3` seconds. What a track sounds like depends on the
    seed, its style and its number alone: not on `workers`, nor on what was there before.
    `on_progress(done, all)` is called after each file. Returns the paths, in order.

    Raises:
        SubgenreError: `root` holds something else, a number makes no sense, or a file can't be
            written.
    """
    if seed < 0 or tracks_per_subgenre < 1 or not 3 <= track_s <= 3600:
        raise SubgenreError(
            f"no demo with seed {seed} and {tracks_per_subgenre} tracks of {track_s} s a subgenre: "
            "the seed starts at 0, tracks at 1, seconds lie between 3 and 3600"
        )
    root = Path(root)
    settings: dict[str, object] = {
        "format_version": FORMAT_VERSION,
        "seed": seed,
        "tracks_per_subgenre": tracks_per_subgenre,
        "track_s": track_s,
    }
    _claim(root, settings)
    plans = _plan(root, seed, tracks_per_subgenre, track_s)
    missing = [plan for plan in plans if not plan.path.exists()]
    report = on_progress or (lambda _done, _all: None)
    done = len(plans) - len(missing)
    report(done, len(plans))
    made = map_files(_make_track, missing, workers=worker_count(workers), timeout_s=_TIMEOUT_S)
    for position, result in made:
        if isinstance(result, Failure):
            raise SubgenreError(f"{missing[position].path} can't be made: {result.reason}")
        done += 1
        report(done, len(plans))
    return [plan.path for plan in plans]
