"""Cost and quality of similarity beside two peers that need no training: sonara and musly.

Cost: processor seconds a track on 5-minute MP3s (44.1 kHz, stereo, 192 kbit/s, joined from tracks
of the library), start-up apart: the difference between runs over 18 and over 2 other files. Ours is
`subgenre embed` and `subgenre index`, which measures tempo and key too; sonara its
`analyze_file` with the features "embedding", or "bpm" and "key"; musly its method `timbre` on the
whole track, decoded and resampled by PyAV.

Quality: each track of the library in turn asks for the others, nearest first; those of its own
subgenre are right. The trained model is asked with, and for, held-out tracks alone; so are the
others in the second table.

    pip install sonara pymusly    # without one of them, its column is left out
    python benchmarks/analysis.py --library WAV --run MODEL --features FOLDER

FOLDER is of the same library: `subgenre preprocess WAV --backbone musicnn --chunk-strategy spaced`.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import av
import numpy as np
import torch

from latency import PROGRAM, processor_s
from recipes import Corpus, frozen, settings_of, trained
from subgenre.audio import decoder, mp3
from subgenre.dataset.track_vectors import frozen_track_vectors
from subgenre.search import similarity

RATE, BIT_RATE, LENGTH_S = 44_100, 192_000, 300
MUSLY_RATE = 22_050
FEW, MANY = 2, 18  # files of a run; a single one is decoded without a worker
PEERS = {"sonara": "sonara", "musly": "pymusly"}  # name of the module
COSTS = ("embed", "index", "sonara", "sonara tempo and key", "musly")


def music(paths: Iterable[Path], rate: int, layout: str) -> Iterator[av.AudioFrame]:
    """Decode files one after another, at one rate and layout."""
    for path in paths:
        resampler = av.AudioResampler("fltp", layout, rate)
        with decoder.opened(path) as (container, stream):
            for packet in decoder.packets(container, stream):
                for frame in decoder.decode(packet):
                    yield from resampler.resample(frame)


def five_minutes(paths: Iterable[Path], out: Path) -> None:
    """Write the first five minutes of tracks, joined, as one MP3."""

    def frames() -> Iterator[av.AudioFrame]:
        count = 0
        for frame in music(paths, RATE, "stereo"):
            if count >= LENGTH_S * RATE:
                return
            count, frame.pts = count + frame.samples, None
            yield frame

    mp3.write(out, frames(), rate=RATE, layout="stereo", bit_rate=BIT_RATE, compression_level=9)


def analyse(peer: str, paths: Iterable[Path]) -> list:
    """Analyse files by a peer."""
    if peer.startswith("sonara"):
        import sonara

        features = ["embedding"] if peer == "sonara" else ["bpm", "key"]
        return [sonara.analyze_file(str(p), features=features)[features[0]] for p in paths]
    import pymusly

    box = pymusly.MuslyJukebox("timbre", "none")
    found = []
    for path in paths:
        samples = [frame.to_ndarray()[0] for frame in music([path], MUSLY_RATE, "mono")]
        found.append(box.track_from_audiodata(np.concatenate(samples)))
    return found


def distances(peer: str, tracks: list) -> np.ndarray:
    """Return a peer's own distance between all tracks, [N, N]."""
    if peer == "sonara":
        import sonara

        return np.array([[sonara.embedding_distance(a, b) for b in tracks] for a in tracks])
    whole = musly_distances(tracks)
    bad = np.isnan(whole).sum(axis=1) > len(tracks) / 2  # one such track spoils all the others
    good = np.flatnonzero(~bad)
    whole[:] = np.inf
    whole[np.ix_(good, good)] = musly_distances([tracks[row] for row in good])
    return whole


def musly_distances(tracks: list) -> np.ndarray:
    import pymusly

    box = pymusly.MuslyJukebox("timbre", "none")
    box.set_style(tracks)
    pairs = list(zip(box.add_tracks(tracks), tracks, strict=True))
    return np.array([box.compute_similarity(pair, pairs) for pair in pairs])


def ours(vectors: np.ndarray, *, mutual: bool = False) -> np.ndarray:
    """Return minus the cosine, or minus the mutual proximity, between all tracks: [N, N]."""
    x = vectors.astype(np.float64)
    cosine = x @ x.T
    if not mutual:
        return -cosine
    spread = similarity.moments(vectors).spread(x, own=True)
    of = zip(cosine, spread.mean, spread.inverse, strict=True)
    return -np.array([similarity.mutual_proximity(c, (m, i), spread) for c, m, i in of])


def scores(distance: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return P@1, P@10 and AP@R of each query that has another of its label: [n, 3]."""
    found = []
    for query, row in enumerate(distance):
        order = np.argsort(np.delete(row, query), kind="stable")
        right = (np.delete(labels, query) == labels[query])[order]
        n_right = int(right.sum())
        if n_right:
            precision = right.cumsum() / np.arange(1, len(right) + 1)
            at_r = float((precision * right)[:n_right].sum() / n_right)
            found.append((right[0], right[:10].mean(), at_r))
    return np.array(found, dtype=float)


def cost(library: Path, run: Path, rounds: int) -> None:
    """Print the processor seconds a track of each."""
    tracks = sorted(p for p in library.rglob("*") if p.suffix in (".mp3", ".ogg", ".m4a", ".wav"))
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        for number in range(FEW + MANY):
            folder = place / ("few" if number < FEW else "many")
            folder.mkdir(exist_ok=True)
            start = number * len(tracks) // (FEW + MANY)
            five_minutes(itertools.cycle(tracks[start:] + tracks[:start]), folder / f"{number}.mp3")

        base = place / "base"
        shutil.copytree(run, base, ignore=shutil.ignore_patterns("index", ".vectors"))
        indexed = (*PROGRAM, "index", str(library), "--run", str(base))  # once, for all runs
        subprocess.run(indexed, check=True, capture_output=True)

        def seconds(name: str, folder: Path) -> float:
            words = [sys.executable, __file__, "--analyse", name, *map(str, folder.iterdir())]
            if name in ("embed", "index"):
                model = place / "model"  # a new one, which has embedded none of the files
                shutil.rmtree(model, ignore_errors=True)
                shutil.copytree(base, model)
                out = ("--out", str(model / "e.parquet")) if name == "embed" else ()
                words = [*PROGRAM, name, str(folder), "--run", str(model), *out]
            return processor_s(lambda: subprocess.run(words, check=True, capture_output=True))

        print("| processor seconds a track of 5 minutes | |\n|---|---|")
        for name in COSTS:
            module = PEERS.get(name.split()[0])
            if module and not importlib.util.find_spec(module):
                continue
            few, many = (
                min(seconds(name, folder) for _ in range(rounds))
                for folder in (place / "few", place / "many")
            )
            print(f"| {name} | {(many - few) / (MANY - FEW):.2f} |", flush=True)


def quality(features: Path) -> None:
    """Print how well each ranks the whole library, and the held-out sides of 5 folds."""
    corpus = Corpus(features, 5, "laptop", 1)
    paths = [track.path for track in corpus.folder.tracks]
    every = np.arange(len(corpus.folder.track_of))
    vectors = frozen_track_vectors(corpus.pooled, corpus.folder.track_of, every)[0]
    whole = {"frozen": ours(vectors), "frozen, mutual proximity": ours(vectors, mutual=True)}
    peers = {n: analyse(n, paths) for n in PEERS if importlib.util.find_spec(PEERS[n])}
    whole |= {name: distances(name, found) for name, found in peers.items()}
    table(f"{len(paths)} tracks", {n: scores(d, corpus.labels) for n, d in whole.items()})
    rows: dict[str, list[np.ndarray]] = {}
    row_of = {track.id: row for row, track in enumerate(corpus.folder.tracks)}
    for number in range(5):
        split = corpus.split(0, number)
        labels, ids = corpus.labels_of(split.test)
        at = [row_of[track_id] for track_id in ids]
        held = {
            "trained": ours(trained(corpus, split, settings_of("laptop", "laptop", 0)).test),
            "frozen": ours(frozen(corpus, split, corpus.pooled).test),
        }
        held |= {n: distances(n, [found[row] for row in at]) for n, found in peers.items()}
        for name, distance in held.items():
            rows.setdefault(name, []).append(scores(distance, labels))
    table("held-out sides of 5 folds", {n: np.concatenate(each) for n, each in rows.items()})


def table(title: str, rows: dict[str, np.ndarray]) -> None:
    print(f"\n| {title} | P@1 | P@10 | MAP@R |\n|---|---|---|---|")
    for name, values in rows.items():
        wide = 1.96 * values.std(axis=0) / len(values) ** 0.5
        cells = [f"{v:.3f} ± {w:.3f}" for v, w in zip(values.mean(axis=0), wide, strict=True)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--library", type=Path, help="of audio, for the cost")
    parser.add_argument("--run", type=Path, help="a model folder, for the cost")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--features", type=Path, help="a feature folder, for the quality")
    parser.add_argument("--analyse", nargs="+", metavar="WORD", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    if chosen.analyse:
        analyse(chosen.analyse[0], map(Path, chosen.analyse[1:]))
        return
    if chosen.library and chosen.run:
        cost(chosen.library, chosen.run, chosen.rounds)
    if chosen.features:
        quality(chosen.features)


if __name__ == "__main__":
    main()
