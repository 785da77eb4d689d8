"""Time and memory of each command against the number of tracks.

    python benchmarks/scaling.py --features FOLDER [--tracks 1000 10000 100000] [--json FILE]

Tracks are made from the real chunks of FOLDER, a feature folder for musicnn: each has the pooled
output of one chunk plus noise, the labels of that chunk, an artist with ten tracks, and one chunk.
Its audio and its chunk file are empty files, so all that follows from audio counts as done before:
the features, the pooled output, tempo and key. What remains is what each command does with tables,
vectors and the index, and every command runs as a user runs it:

    preprocess   a scan of files that it knows, and new tables
    train        the head of the recipe laptop on the cached output, 2 epochs
    embed        vectors of the held-out tracks
    index        a first index, with the model's own vectors
    similar      one list, with opening the index
    map          the map of all tracks, written with their vectors (`export --parquet`)
    explore      the explorer, until the page has all points
    doctor       all findings; copies are searched by vectors, as the audio is away

Seconds and processor seconds (other programs change the first more than the second), and the
largest memory of the process with its children, sampled every 50 ms: `own` can't be taken back,
`peak` counts mapped files too, which the system drops when memory is short. The exponent p between
two sizes is that of processor seconds ~ tracks ** p. With --searches, one query on one thread by
the index, by faiss and by LanceDB where those are installed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import json
import math
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa

SUBGENRE = (sys.executable, "-m", "subgenre")
STAGES = ("preprocess", "train", "embed", "index", "similar", "map", "explore", "doctor")
NOISE = 0.3  # of the deviation of each value
TRACKS_OF_ARTIST = 10
GB = 2**30
BLOCK, K, QUERIES = 16_384, 10, 20


@dataclass(frozen=True)
class Cost:
    """What one command took: seconds, seconds of the processors, and memory in GB."""

    seconds: float
    cpu_s: float
    own_gb: float
    peak_gb: float
    note: str = ""


class Memory(threading.Thread):
    """Samples the memory of a process and its children until `stop`."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.process, self.ended = psutil.Process(pid), threading.Event()
        self.own = self.peak = 0

    def run(self) -> None:
        """Sample until the end."""
        while not self.ended.wait(0.05):
            with contextlib.suppress(psutil.Error):
                own = peak = 0
                for process in (self.process, *self.process.children(recursive=True)):
                    memory = process.memory_info()
                    own, peak = own + memory.rss - memory.shared, peak + memory.rss
                self.own, self.peak = max(self.own, own), max(self.peak, peak)

    def stop(self) -> None:
        """End the sampling."""
        self.ended.set()
        self.join()


def processor_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measured(command: list[str], folder: Path, *, served: bool = False) -> Cost:
    """Run a command in a folder; one that serves the explorer is asked for its points and ended."""
    began, cpu_s, note = time.perf_counter(), processor_s(), ""
    with (folder / "log.txt").open("a") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        memory = Memory(process.pid)
        memory.start()
        if served:
            note = points(process, int(command[-1]))
            process.terminate()
        process.wait()
    seconds = time.perf_counter() - began
    memory.stop()
    if process.returncode and not served:
        note = f"exit code {process.returncode}: {(folder / 'log.txt').read_text()[-200:]!r}"
    return Cost(seconds, processor_s() - cpu_s, memory.own / GB, memory.peak / GB, note)


def points(process: subprocess.Popen[bytes], port: int) -> str:
    """Wait for the explorer, and read what the page reads."""
    import httpx

    with httpx.Client(base_url=f"http://127.0.0.1:{port}/api", timeout=600) as page:
        while True:
            try:
                page.get("/library").raise_for_status()
                break
            except httpx.HTTPError:
                if process.poll() is not None:
                    return "the explorer did not start"
                time.sleep(0.1)
        began = time.perf_counter()
        with page.stream("GET", "/points") as answer:
            size = sum(len(part) for part in answer.iter_raw())
        return f"{size / 1e6:.1f} MB of points in {time.perf_counter() - began:.2f} s"


class Noisy:
    """The pooled output [n, H] of n tracks, made from real rows when it is read."""

    def __init__(self, real: np.ndarray, count: int) -> None:
        self.real, self.count = real, count
        self.spread = (NOISE * real.std(0)).astype(np.float32)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        draw = np.random.default_rng([1, int(rows[0])])
        noise = draw.standard_normal((len(rows), self.real.shape[1]), dtype=np.float32)
        return np.maximum(self.real[rows % len(self.real)] + noise * self.spread, 0.0)


def make(source: Path, folder: Path, count: int) -> None:
    """Make a library, its features and their pooled output in `folder`."""
    from subgenre.core import files, tables
    from subgenre.dataset import folder as features
    from subgenre.dataset.folder import FeatureFolder
    from subgenre.models import backbones, embedding
    from subgenre.models.cache import CACHE

    given, musicnn = FeatureFolder.open(source), backbones.load("musicnn")
    rows = np.arange(len(given.track_of))
    real = np.array(embedding.pooled_vectors(musicnn, given, rows, cache=source / CACHE))
    made, library = folder / "features", folder / "WAV"
    label = given.label_of[np.arange(count) % len(rows)]
    names = [given.labels[i] for i in label]
    pairs = [(given.genres[i], given.labels[i]) for i in label]
    for genre, name in set(pairs):
        (library / genre / name).mkdir(parents=True, exist_ok=True)
        (made / name).mkdir(parents=True, exist_ok=True)
    ids = [hashlib.md5(str(i).encode()).hexdigest() for i in range(count)]
    audio = [f"{g}/{s}/{i}.mp3" for i, (g, s) in enumerate(pairs)]
    chunk = [features.chunk_file(s, Path(f"{i}.mp3"), ids[i], 0) for i, (_, s) in enumerate(pairs)]
    for path in audio:
        (library / path).touch()
        os.utime(library / path, ns=(10**18, 10**18))
    for path in chunk:
        (made / path).touch()
    repeated = given.chunks.take(np.arange(count) % len(rows))
    columns = {name: repeated[name] for name in features.CHUNK_SCHEMA.names}
    columns |= {"file": chunk, "track": ids, "label": names, "index": [0] * count}
    order = sorted(range(count), key=lambda i: (names[i], ids[i]))  # as preprocess sorts them
    chunks = pa.table(columns, features.CHUNK_SCHEMA).take(order)
    artists = [
        f"artist {i // (TRACKS_OF_ARTIST * len(rows))} of {i % len(rows)}" for i in range(count)
    ]
    titles = [f"title {i}" for i in range(count)]
    duration_s = np.random.default_rng(2).gamma(16, 15, count)
    fields = {
        **{"path": audio, "id": ids, "artist": artists, "title": titles, "subgenre": names},
        **{"genre": [genre for genre, _ in pairs], "duration_s": duration_s},
        "mtime_ns": [10**18] * count,
    }
    empty = {"string": "", "int64": 0, "double": 0.0, "bool": False}
    tracks = pa.table(
        {f.name: fields.get(f.name, [empty[str(f.type)]] * count) for f in features.TRACK_SCHEMA},
        features.TRACK_SCHEMA,
    ).take(order)
    dataset = features.read_dataset(source)
    dataset |= {
        "root": files.portable(library, made),
        "checksums": {
            features.CHUNKS: tables.write(made / features.CHUNKS, chunks),
            features.TRACKS: tables.write(made / features.TRACKS, tracks),
        },
        "failures": [],
    }
    files.write_json(made / features.DATASET, dataset)
    embedding.pooled_vectors(
        musicnn,
        FeatureFolder.open(made),
        np.arange(count),
        cache=made / CACHE,
        batch_size=4096,
        known=Noisy(real, count),  # type: ignore[arg-type]
    )


def prepare_index(folder: Path) -> None:
    """Store that tempo and key of all tracks are measured."""
    from subgenre.commands.model_folder import ModelFolder
    from subgenre.search import storage

    model = ModelFolder.open(folder / "model")
    storage.create(model.index_path, model.dim, model.fingerprint)
    ids = [row["id"] for row in model.feature_rows("tracks.parquet", "id")]
    storage.set_measured(model.index_path, dict.fromkeys(ids, (None, None)))


def commands(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield each stage and its command; what a command needs is there when it is yielded."""
    yield "preprocess", ["preprocess", "WAV", "--out", "features", "--backbone", "musicnn"]
    epochs = ["--recipe", "laptop", "--set", "optim.epochs=2"]
    yield "train", ["train", "--features", "features", "--out", "model", *epochs]
    yield "embed", ["embed", "--run", "model", "--out", "held_out.parquet"]
    child("prepare", folder)
    yield "index", ["index", "WAV", "--run", "model"]
    yield "similar", ["similar", hashlib.md5(b"0").hexdigest(), "--run", "model"]
    yield "map", ["export", "model", "--parquet", "--out", "exported"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    yield "explore", ["explore", "--run", "model", "--port", str(port)]
    shutil.rmtree(folder / "WAV")  # else each file is fingerprinted
    yield "doctor", ["doctor", "--run", "model", "--out", "doctor.csv"]


def child(what: str, folder: Path, *more: str) -> None:
    """Do a part of the preparation in a process of its own."""
    subprocess.run([sys.executable, __file__, "--child", what, str(folder), *more], check=True)


def searches(source: Path, count: int, work: Path) -> None:
    """Print milliseconds of a query, recall and seconds to build, of each engine."""
    from subgenre.dataset.folder import FeatureFolder
    from subgenre.metrics.vectors import unit
    from subgenre.models import backbones, embedding
    from subgenre.models.cache import CACHE
    from subgenre.search import similarity

    given = FeatureFolder.open(source)
    rows = np.arange(len(given.track_of))
    backbone = backbones.load("musicnn")
    real = np.array(embedding.pooled_vectors(backbone, given, rows, cache=source / CACHE))
    noisy, centre = Noisy(real, count), real.mean(0)
    x = np.memmap(work / "vectors.f32", np.float32, "w+", shape=(count, real.shape[1]))
    for start in range(0, count, BLOCK):
        block = noisy[np.arange(start, min(start + BLOCK, count))]
        x[start : start + BLOCK] = unit((block - centre) / np.maximum(real.std(0), 1e-3))
    asked = np.array(x[np.random.default_rng(0).choice(count, QUERIES, replace=False)])
    print(f"\n{count:,} x {x.shape[1]}, k = {K}, one thread, median of {QUERIES} queries")
    exact = timed("the index", 0.0, lambda q: similarity.top_k(x, q[None], K)[0][0], asked)
    with contextlib.suppress(ImportError):
        import faiss

        faiss.omp_set_num_threads(1)
        for key in ("Flat", "IVF256,SQ8"):
            began = time.perf_counter()
            index = faiss.index_factory(x.shape[1], key, faiss.METRIC_INNER_PRODUCT)
            index.train(np.array(x[:: max(1, count // 20_000)]))
            for start in range(0, count, BLOCK):
                index.add(np.array(x[start : start + BLOCK]))
            if key != "Flat":
                index.nprobe = 16
            built = time.perf_counter() - began
            timed(
                f"faiss {key}", built, lambda q, i=index: i.search(q[None], K)[1][0], asked, exact
            )
    with contextlib.suppress(ImportError):
        import lancedb

        began = time.perf_counter()
        kind = pa.list_(pa.float32(), x.shape[1])
        schema = pa.schema([("row", pa.int64()), ("vector", kind)])

        def batches() -> Iterator[pa.RecordBatch]:
            for start in range(0, count, BLOCK):
                block = np.array(x[start : start + BLOCK])
                flat = pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), x.shape[1])
                numbers = pa.array(np.arange(start, start + len(block)))
                yield pa.RecordBatch.from_arrays([numbers, flat], schema=schema)

        table = lancedb.connect(str(work / "lance")).create_table("t", batches(), schema=schema)
        built = time.perf_counter() - began

        def search(query: np.ndarray) -> list[int]:
            found = table.search(query).distance_type("cosine").limit(K).to_arrow()
            return list(found["row"].to_pylist())

        timed("LanceDB, no index", built, search, asked, exact)


def faiss_rows(index: Any, query: np.ndarray) -> np.ndarray:
    """Return the rows that a faiss index finds for one query."""
    return index.search(query[None], K)[1][0]


def timed(
    name: str,
    built: float,
    search: Any,
    asked: np.ndarray,
    exact: list[set[int]] | None = None,
) -> list[set[int]]:
    """Print the median milliseconds of a search after a first one, and its recall; its answers."""
    search(asked[0])
    took, found = [], []
    for query in asked:
        began = time.perf_counter()
        answer = search(query)
        took.append(1000 * (time.perf_counter() - began))
        found.append({int(row) for row in answer})
    hits = sum(len(a & b) for a, b in zip(found, exact or found, strict=True))
    figures = f"{np.median(took):9.1f} ms   recall {hits / (K * len(asked)):.3f}"
    print(f"{name:22}{figures}   built in {built:.0f} s", flush=True)
    return found


def run(source: Path, count: int, stages: list[str], work: Path) -> dict[str, Cost]:
    """Make a library of `count` tracks and run each stage on it."""
    costs: dict[str, Cost] = {}
    began = time.perf_counter()
    child("make", work, str(source.absolute()), str(count))
    print(f"\n{count:,} tracks, made in {time.perf_counter() - began:.0f} s", flush=True)
    print(f"{'':12}{'s':>9}{'cpu s':>9}{'own GB':>8}{'peak GB':>9}", flush=True)
    for name, arguments in commands(work):
        if name in stages:
            cost = measured([*SUBGENRE, *arguments], work, served=name == "explore")
            costs[name] = cost
            row = f"{name:12}{cost.seconds:9.1f}{cost.cpu_s:9.1f}{cost.own_gb:8.2f}"
            print(f"{row}{cost.peak_gb:9.2f}  {cost.note}", flush=True)
    return costs


def exponents(costs: dict[int, dict[str, Cost]]) -> None:
    """Print the exponent of each stage between neighbouring sizes."""
    sizes = sorted(costs)
    print(f"\n{'exponent':12}" + "".join(f"{f'to {b:,}':>14}" for b in sizes[1:]))
    for name in STAGES:
        row = ""
        for a, b in itertools.pairwise(sizes):
            pair = [costs[n].get(name) for n in (a, b)]
            if None in pair or any(p.note.startswith("exit") for p in pair):  # type: ignore[union-attr]
                row += f"{'-':>14}"
            else:
                ratio = pair[1].cpu_s / pair[0].cpu_s  # type: ignore[union-attr]
                row += f"{math.log(ratio) / math.log(b / a):14.2f}"
        print(f"{name:12}{row}")


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        what, folder, *more = sys.argv[2:]
        if what == "make":
            make(Path(more[0]), Path(folder), int(more[1]))
        else:
            prepare_index(Path(folder))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--tracks", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--stages", nargs="*", choices=STAGES, default=list(STAGES))
    parser.add_argument("--searches", action="store_true")
    parser.add_argument("--work", type=Path, help="keep what is made in this folder")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    costs: dict[int, dict[str, Cost]] = {}
    for count in options.tracks:
        place = options.work or Path(tempfile.mkdtemp(prefix="scaling-"))
        work = place / str(count)
        work.mkdir(parents=True)
        try:
            if options.stages:
                costs[count] = run(options.features, count, options.stages, work)
            if options.searches:
                searches(options.features, count, work)
        finally:
            if not options.work:
                shutil.rmtree(place)
    exponents(costs)
    if options.json:
        plain = {n: {name: vars(cost) for name, cost in c.items()} for n, c in costs.items()}
        options.json.write_text(json.dumps(plain, indent=1))


if __name__ == "__main__":
    main()
