"""Tempo and key: accuracy on music of known tempo and key, seconds needed, and cost.

    python -P benchmarks/tempo_key.py --recordings ../shared/corpus --mp3 five-minutes.mp3

Peers in the same run: `pip install librosa sonara`; one that is missing is left out. `-P`, because
librosa imports a module named like another benchmark. Tracks of the demo are composed in memory;
their tempo and key are those of the score. A tempo is right within 4 %; "octave" is half or double.
A key is right, a neighbour on the Camelot wheel ("near"), or wrong.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from subgenre.audio import keys, reading, tempo_key
from subgenre.audio.tempo_key import RATE
from subgenre.demo.render import RATE as DEMO_RATE
from subgenre.demo.render import render
from subgenre.demo.score import compose
from subgenre.demo.styles import MAJOR, STYLES
from subgenre.library.sources import audio_files

Samples = NDArray[np.float32]
Measure = Callable[[Samples], tuple[float | None, str | None]]
SECONDS = (5, 10, 15, 20, 30, 60, 90)


def ours(mono: Samples) -> tuple[float | None, str | None]:
    return tempo_key.tempo(mono, RATE), tempo_key.key(mono, RATE)


def sonara(mono: Samples) -> tuple[float | None, str | None]:
    import sonara

    found = sonara.analyze_signal(mono, sr=RATE, features=["bpm", "key"])
    return found["bpm"], keys.parse(found["key"])


def librosa(mono: Samples) -> tuple[float | None, str | None]:
    """Tempo by librosa; key by its chroma with the profiles that we use, as it has no key."""
    import librosa

    bpm = float(librosa.feature.tempo(y=mono, sr=RATE)[0])
    return bpm, tempo_key.best_key(librosa.feature.chroma_cqt(y=mono, sr=RATE).mean(axis=1))


def tempo_verdict(found: float | None, true: float | None) -> str:
    if found is None or true is None:
        return "none"
    octaves = np.log2(found / true)
    if abs(octaves - round(octaves)) > np.log2(1.04) or abs(octaves) > 1.1:
        return "wrong"
    return "octave" if round(octaves) else "right"


def key_verdict(found: str | None, true: str | None) -> str:
    if found is None or true is None:
        return "none"
    return "right" if found == true else "near" if found in keys.neighbours(true) else "wrong"


def clicks(bpm: float, seconds: int = 60) -> Samples:
    track = np.zeros(RATE * (seconds + 1), np.float32)
    burst = np.random.default_rng(0).standard_normal(441) * np.exp(-np.arange(441) / 70)
    for at in np.arange(0.07, seconds, 60 / bpm):
        track[round(at * RATE) : round(at * RATE) + 441] += burst.astype(np.float32)
    return track[: RATE * seconds]


def demo_tracks(each: int, seed: int) -> Iterator[tuple[str, float, str, Samples]]:
    """Style, tempo, key and 180 s of samples; modes with a minor third count as minor."""
    for number, style in enumerate(STYLES):
        for one in range(each):
            rng = np.random.default_rng((seed, number, one))
            score = compose(style, 180.0, rng)
            samples = reading.resample(render(score, style, 180.0, rng), DEMO_RATE, RATE)
            names = keys.MAJOR if score.scale == MAJOR else keys.MINOR
            yield style.name, score.tempo_bpm, names[score.tonic], samples


def middle(samples: Samples, seconds: float) -> Samples:
    start = max(0, (len(samples) - round(seconds * RATE)) // 2)
    return np.ascontiguousarray(samples[start : start + round(seconds * RATE)])


def counts(verdicts: Sequence[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in Counter(sorted(verdicts)).items())


def report_accuracy(peers: dict[str, Measure], each: int, seed: int) -> None:
    truths = [float(bpm) for bpm in range(60, 181, 5)]
    made = list(demo_tracks(each, seed))
    for name, measure in peers.items():
        found = [measure(clicks(bpm))[0] for bpm in truths]
        print(f"{name}: clicks {counts([*map(tempo_verdict, found, truths)])}", end="; ")
        started = time.process_time()
        found_demo = [measure(middle(samples, 60)) for *_, samples in made]
        took = (time.process_time() - started) / len(made)
        _, bpms, names, _ = zip(*made, strict=True)
        tempi, named = zip(*found_demo, strict=True)
        right = [*map(tempo_verdict, tempi, bpms)]
        pairs = zip(tempi, bpms, right, strict=True)
        error = np.median([abs(f - t) for f, t, verdict in pairs if verdict == "right"])
        print(f"demo tempo {counts(right)}, median error {error:.3f} bpm", end="; ")
        print(f"demo key {counts([*map(key_verdict, named, names)])}; {took:.2f} s for a minute")


def report_length(tracks: Sequence[Samples], what: str) -> None:
    """How often two parts of one track that do not overlap have one tempo, and one key."""
    for seconds in SECONDS:
        long = [t for t in tracks if len(t) >= 2 * seconds * RATE]
        if not long:
            continue
        n = seconds * RATE
        pairs = [(ours(t[:n].copy()), ours(t[-n:].copy())) for t in long]
        tempi = [tempo_verdict(a[0], b[0]) for a, b in pairs]
        named = [key_verdict(a[1], b[1]) for a, b in pairs]
        print(f"{what}, two parts of {seconds} s: tempo {counts(tempi)}; key {counts(named)}")


def report_agreement(tracks: Sequence[Samples], peers: dict[str, Measure]) -> None:
    found = {name: [measure(t) for t in tracks] for name, measure in peers.items()}
    for one, other in itertools.combinations(found, 2):
        pairs = list(zip(found[one], found[other], strict=True))
        tempi = counts([tempo_verdict(a[0], b[0]) for a, b in pairs])
        named = counts([key_verdict(a[1], b[1]) for a, b in pairs])
        print(f"{len(tracks)} recordings, {one} and {other}: tempo {tempi}; key {named}")


def report_cost(mp3: Path) -> None:
    duration_s = reading.probe(mp3).duration_s
    started = time.process_time()
    tempo_key.measure_file(mp3, duration_s)
    print(
        f"{mp3.name}, {duration_s:.0f} s: ours {time.process_time() - started:.2f} s of processor"
    )
    if importlib.util.find_spec("sonara"):
        import sonara

        started = time.process_time()
        sonara.analyze_file(str(mp3), features=["bpm", "key"])
        print(f"sonara, the whole file: {time.process_time() - started:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description="accuracy and cost of tempo and key")
    parser.add_argument("--recordings", type=Path)
    parser.add_argument("--count", type=int, default=24, help="recordings, spread over the folder")
    parser.add_argument("--mp3", type=Path, help="a long file, for the cost")
    parser.add_argument("--each", type=int, default=4, help="demo tracks of a style")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    peers: dict[str, Measure] = {"ours": ours}
    peers |= {m.__name__: m for m in (sonara, librosa) if importlib.util.find_spec(m.__name__)}
    ours(clicks(120))  # imports
    report_accuracy(peers, options.each, options.seed)
    report_length([samples for *_, samples in demo_tracks(2, options.seed)], "demo")
    if options.recordings:
        paths = sorted(audio_files([options.recordings]).paths)
        paths = paths[:: max(1, len(paths) // options.count)]
        windows = [reading.read_window(path, 0.0, 600.0) for path in paths]
        tracks = [reading.mono_window(*window, 600.0, RATE) for window in windows]
        report_length(tracks, "recordings")
        report_agreement(tracks, peers)
    if options.mp3:
        report_cost(options.mp3)


if __name__ == "__main__":
    main()
