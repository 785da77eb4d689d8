"""Exact search over 1 million x 128, k = 10, single queries on one thread: ours against faiss.

Both scan the same vectors in the same run, in turns, without mutual proximity; faiss is its flat
index by inner product (`pip install faiss-cpu`). Prints milliseconds a query, the ratio and the
recall. Run: python benchmarks/search.py [--tracks N] [--queries Q]
"""

# ruff: noqa: E402 - the number of threads must be set before numpy is loaded
from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import json
import time

import numpy as np

from subgenre.search import similarity

DIM, K = 128, 10


def vectors(count: int, seed: int) -> np.ndarray:
    """Unit vectors around 500 centres, as an embedding's are; made block by block."""
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((500, DIM), dtype=np.float32)
    x = np.empty((count, DIM), dtype=np.float32)
    for start in range(0, count, 65_536):
        block = x[start : start + 65_536]
        block[:] = generator.standard_normal(block.shape, dtype=np.float32)
        block += centres[generator.integers(0, 500, len(block))]
        block /= np.linalg.norm(block, axis=1, keepdims=True)
    return x


def timed(searches: list, queries: np.ndarray) -> tuple[list[list[float]], list[list]]:
    """Milliseconds and answers of each search, query by query in turns."""
    took: list[list[float]] = [[] for _ in searches]
    found: list[list] = [[] for _ in searches]
    for i, query in enumerate(queries):
        for j in range(len(searches)) if i % 2 else reversed(range(len(searches))):
            start = time.perf_counter()
            answer = searches[j](query[None])
            took[j].append(1000 * (time.perf_counter() - start))
            found[j].append(answer)
    return took, found


def recall(x: np.ndarray, queries: np.ndarray, found: list) -> float:
    """Share of answers at least as near as the exact K-th, by float64 up to rounding of float32."""
    hits = 0
    for query, rows in zip(queries, found, strict=True):
        exact = x @ query
        near = np.argpartition(-exact, 200)[:200]
        cosine = x[near].astype(np.float64) @ query.astype(np.float64)
        worst = np.sort(cosine)[-K]
        answer = x[rows].astype(np.float64) @ query.astype(np.float64)
        hits += int((answer >= worst - 1e-6).sum()) if len(set(rows)) == K else 0
    return hits / (K * len(queries))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tracks", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=60)
    options = parser.parse_args()
    x, queries = vectors(options.tracks, 1), vectors(options.queries, 2)
    searches = [lambda q: similarity.top_k(x, q, K)[0][0]]
    try:
        import faiss

        faiss.omp_set_num_threads(1)
        flat = faiss.IndexFlatIP(DIM)
        flat.add(x)
        searches.append(lambda q: flat.search(q, K)[1][0])
    except ImportError:
        print("faiss is not installed (pip install faiss-cpu): ours alone")
    timed(searches, queries[:5])
    took, found = timed(searches, queries)
    ours = float(np.median(took[0]))
    figures = {"tracks": len(x), "ours_ms": ours, "recall": recall(x, queries, found[0])}
    print(f"{len(x):,} x {DIM}, k = {K}, one thread, {len(queries)} queries each, median")
    print(f"ours  {ours:7.2f} ms   recall {figures['recall']:.4f}")
    if len(took) > 1:
        theirs = float(np.median(took[1]))
        figures |= {"faiss_ms": theirs, "ratio": ours / theirs}
        print(f"faiss {theirs:7.2f} ms   recall {recall(x, queries, found[1]):.4f}")
        print(f"ratio {ours / theirs:7.2f}   (at most 1.3)")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
