"""Similar tracks of a library: how many share the subgenre, and how even the lists are.

    python benchmarks/similar.py --run fully_trained_models_... --library WAV

Builds an index of the library by the run, asks `similar` for held-out tracks, with mutual
proximity and by plain cosine. The share from the same subgenre is shown with its chance level (what
lists drawn at random would have), the k-occurrence (how often each track stands in the lists of
all tracks) by its skewness: 0 is even, hubs make it large.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from subgenre.commands import index
from subgenre.commands.model_folder import ModelFolder
from subgenre.search import playlists
from subgenre.search.collection import Collection
from subgenre.search.ranking import Limits
from subgenre.search.similarity import k_occurrence, skewness

K = 10


def main() -> None:
    parser = argparse.ArgumentParser(description="share of the nearest from the same subgenre")
    parser.add_argument("--run", type=Path, default=None)
    parser.add_argument("--library", type=Path, default=Path("WAV"))
    parser.add_argument("--tracks", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    run = ModelFolder.open(options.run)
    with tempfile.TemporaryDirectory() as place:
        started = time.perf_counter()
        done = index.index(options.library, run, path=Path(place) / "index")
        took = time.perf_counter() - started
        print(f"index: {done.n_tracks} tracks in {took:.1f} s, {done.embedded} of them embedded")
        tracks = run.open_index(done.path).collection
        seeds = chosen(run, tracks, options.tracks, options.seed)
        print(f"{len(seeds)} tracks, {K} nearest each; chance {chance(tracks, seeds):.3f}")
        for mutual in (True, False):
            report(tracks, seeds, mutual=mutual)


def chosen(run: ModelFolder, tracks: Collection, count: int, seed: int) -> list[str]:
    """Draw held-out tracks with a label; where there are too few, others make up the number."""
    ids = tracks.rows["id"].tolist()
    labelled = [ids[row] for row in np.flatnonzero(tracks.labelled)]
    held = set(run.test_ids)
    order = np.random.default_rng(seed).permutation(len(labelled))
    drawn = [labelled[i] for i in order]
    return sorted(drawn, key=lambda track_id: track_id not in held)[:count]


def chance(tracks: Collection, seeds: list[str]) -> float:
    """Expected share of the same subgenre in lists drawn at random."""
    shares = []
    for track_id in seeds:
        track = tracks.track(tracks.row_of_id(track_id))
        same = len(tracks.members(f"{track.genre}/{track.subgenre}")) - 1
        shares.append(same / (len(tracks) - 1))
    return float(np.mean(shares))


def report(tracks: Collection, seeds: list[str], *, mutual: bool) -> None:
    """Print share, interval over tracks and k-occurrence skewness of one ranking."""
    limits = Limits(K)
    shares = []
    for track_id in seeds:
        own = tracks.track(tracks.row_of_id(track_id))
        hits = playlists.similar(tracks, [track_id], limits, mutual=mutual)
        same = [(h.track.genre, h.track.subgenre) == (own.genre, own.subgenre) for h in hits]
        shares.append(float(np.mean(same)))
    rng = np.random.default_rng(0)
    means = rng.choice(shares, (10_000, len(shares))).mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    nearest = []
    for row in tracks.live:
        hits = playlists.similar(tracks, [tracks.track(int(row)).id], limits, mutual=mutual)
        nearest += [hit.row for hit in hits]
    counts = k_occurrence(np.array(nearest)[:, None], len(tracks.alive))[tracks.live]
    name = "mutual proximity" if mutual else "plain cosine"
    print(
        f"{name}: {np.mean(shares):.3f} [{low:.3f}, {high:.3f}] from the same subgenre; "
        f"k-occurrence skewness {skewness(counts):.2f}, most {counts.max()} lists, "
        f"{np.mean(counts == 0):.1%} of tracks in none"
    )


if __name__ == "__main__":
    main()
