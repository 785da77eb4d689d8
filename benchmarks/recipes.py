"""Which training is worth its time: baselines, the thesis, every loss, `laptop`, by grouped folds.

Backbone musicnn, frozen, its pooled outputs cached. Every row sees the same folds. Scores are of
whole tracks: nearest centroid and P@1 against the fold's training tracks, MAP@R among its test
tracks; 95 % intervals by bootstrap over tracks. `laptop` must have been chosen on inner folds of
training sides, and committed, before these folds are run.

The two classifiers are scored by the class they name (column centroid); for P@1 and MAP@R the LDA's
discriminant space and the logistic regression's class probabilities stand in for vectors.
Seconds are of one fold's training, validation counted in, the backbone pass apart: by the clock,
and of processor time, which other programs on the machine can't lengthen as much.

Three 10-second windows a track, by default spread over it, as the corpus's own baselines have them;
`--chunk-strategy random` is what `preprocess` does by default.

Run: python benchmarks/recipes.py --library WAV [--chunk-strategy spaced] | --features FOLDER
     [--folds 5] [--seeds 3] [--only NAME ...] [--jobs N] [--threads N] [--recipe FILE]
     [--json FILE]
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from scipy.fft import dct
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from subgenre import config, metrics
from subgenre.commands.preprocess import preprocess
from subgenre.config import LossConfig, PreprocessConfig, TrainConfig
from subgenre.dataset import splits, track_vectors
from subgenre.dataset.folder import FeatureFolder
from subgenre.dataset.splits import Split
from subgenre.errors import CollapseError
from subgenre.evaluation.tracks import embed_tracks
from subgenre.metrics.vectors import standardisation, standardised
from subgenre.models import embedding
from subgenre.models.cache import CACHE
from subgenre.training import fit

BACKBONE = "musicnn"
N_MFCC = 20
SHRINKAGE = 0.3
BASELINES = ("mfcc", "frozen", "lda", "lda_windows", "logistic")
LOSSES: dict[str, LossConfig] = {
    **{f"triplet_{mining}": LossConfig("triplet", mining=mining) for mining in config.MININGS},
    **{name: LossConfig(name) for name in config.LOSSES if name != "triplet"},
}
# The thesis last: it takes longer than all others together.
ROWS = (*BASELINES, "laptop", *LOSSES, "thesis")
COLUMNS = {"centroid_accuracy": "centroid", "precision_at_1": "P@1", "map_at_r": "MAP@R"}


@dataclasses.dataclass(frozen=True)
class Fold:
    """What one row gives on one fold.

    Attributes:
        train, test: track vectors. named: the class a classifier names for each test track.
        seconds, cpu_seconds: of training.
    """

    train: np.ndarray
    test: np.ndarray
    seconds: float
    cpu_seconds: float
    named: np.ndarray | None = None


class Corpus:
    """The feature folder, the frozen backbone's output and the folds, loaded once a process."""

    def __init__(self, path: Path, n_folds: int, recipe: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self.folder = FeatureFolder.open(path)
        self.backbone = fit.load_backbone(BACKBONE, self.folder)
        self.n_folds, self.recipe = n_folds, recipe
        everything = np.arange(len(self.folder.track_of))
        cache = self.folder.path / CACHE
        self.pooled = embedding.pooled_vectors(self.backbone, self.folder, everything, cache=cache)
        names = sorted(set(self.folder.genres))
        self.genres = [names.index(genre) for genre in self.folder.genres]
        label = dict(zip(self.folder.track_of, self.folder.label_of, strict=True))
        self.labels = np.array([label[i] for i in range(len(self.folder.tracks))])

    def split(self, seed: int, number: int) -> Split:
        """One fold of the tracks, as this seed cuts them."""
        return splits.folds(self.folder.tracks, self.n_folds, seed=seed)[number]

    def labels_of(self, ids: tuple[str, ...]) -> tuple[np.ndarray, tuple[str, ...]]:
        """Labels and ids of one side, in the order of track vectors."""
        tracks = np.unique(self.folder.track_of[self.folder.rows(ids)])
        return self.labels[tracks], tuple(self.folder.tracks[t].id for t in tracks)

    def windows(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """The pooled vectors [n, D], standardised by the training chunks, and those chunks' rows.

        A column that hardly varies there is left out: the LDA's shrinkage is a share of the mean
        variance, which columns of zeros would lower.
        """
        rows = self.folder.rows(split.train)
        mean, std = standardisation(self.pooled[rows])
        values = standardised(self.pooled, mean, std)
        return values[:, values[rows].any(axis=0)], rows

    def by_track(self, values: np.ndarray, ids: tuple[str, ...]) -> np.ndarray:
        """Mean over each track's chunks, not renormalised: [N, H]."""
        rows = self.folder.rows(ids)
        tracks, place = np.unique(self.folder.track_of[rows], return_inverse=True)
        total = np.zeros((len(tracks), values.shape[1]))
        np.add.at(total, place, values[rows])
        return total / np.bincount(place)[:, None]

    @functools.cached_property
    def mfcc(self) -> np.ndarray:
        """Mean of the first 20 cepstral coefficients of each chunk's log-mel: [n, 20]."""
        means = []
        for row in range(len(self.folder.track_of)):
            music = self.folder.load([row])[0, : int(self.folder.n_frames([row])[0])]
            means.append(dct(music.double().numpy(), norm="ortho")[:, :N_MFCC].mean(0))
        return np.array(means)


CORPUS: Corpus | None = None  # of this process


def start(*arguments: object) -> None:
    global CORPUS
    CORPUS = Corpus(*arguments)  # type: ignore[arg-type]


def frozen(corpus: Corpus, split: Split, values: np.ndarray) -> Fold:
    rows = [corpus.folder.rows(side) for side in (split.train, split.test)]
    train, test = track_vectors.frozen_track_vectors(
        values, corpus.folder.track_of, rows[0], *rows
    )[1:]
    return Fold(train, test, 0.0, 0.0)


def classifier(corpus: Corpus, split: Split, name: str) -> Fold:
    """LDA on tracks or on windows, or logistic regression on tracks."""
    values, rows = corpus.windows(split)
    train, test = (corpus.by_track(values, side) for side in (split.train, split.test))
    x, y = train, corpus.labels_of(split.train)[0]
    began = time.perf_counter(), time.process_time()
    if name == "lda_windows":
        x, y = values[rows], corpus.folder.label_of[rows]
    scaler = StandardScaler().fit(x)
    x, train, test = (scaler.transform(part) for part in (x, train, test))
    if name == "logistic":
        model = LogisticRegression(max_iter=1000).fit(x, y)
        space = model.predict_proba
    else:
        model = LinearDiscriminantAnalysis(solver="eigen", shrinkage=SHRINKAGE).fit(x, y)
        space = model.transform
    took = time.perf_counter() - began[0], time.process_time() - began[1]
    return Fold(space(train), space(test), *took, model.predict(test))


def trained(corpus: Corpus, split: Split, settings: TrainConfig) -> Fold:
    began = time.perf_counter(), time.process_time()
    fitted = fit.fit(corpus.folder, split.train, settings, backbone=corpus.backbone)
    took = time.perf_counter() - began[0], time.process_time() - began[1]
    assert fitted.pooled is not None
    train, test = (
        embed_tracks(
            fitted.encoder,
            corpus.folder,
            corpus.folder.rows(side),
            device=torch.device("cpu"),
            pooled=fitted.pooled,
        )[1]
        for side in (split.train, split.test)
    )
    return Fold(train, test, *took)


def settings_of(name: str, recipe: str, seed: int) -> TrainConfig:
    """The thesis's or the laptop's recipe, or the laptop's with another loss."""
    settings = config.load_recipe("thesis" if name == "thesis" else recipe)
    if name in LOSSES:
        settings = dataclasses.replace(settings, recipe=name, loss=LOSSES[name])
    settings = config.replace(settings, "model", backbone=BACKBONE, tune="head")
    return config.replace(settings, "run", seed=seed, device="cpu")


def measure(job: tuple[str, int, int]) -> tuple[metrics.Measured, float, float] | None:
    """Train one row on one fold and score it; None: its embeddings collapsed."""
    name, seed, number = job
    corpus = CORPUS
    assert corpus is not None
    split = corpus.split(seed, number)
    if name == "mfcc":
        fold = frozen(corpus, split, corpus.mfcc)
    elif name == "frozen":
        fold = frozen(corpus, split, corpus.pooled)
    elif name in BASELINES:
        fold = classifier(corpus, split, name)
    else:
        try:
            fold = trained(corpus, split, settings_of(name, corpus.recipe, seed))
        except CollapseError:
            return None
    labels = corpus.labels_of(split.train)[0]
    test_labels, ids = corpus.labels_of(split.test)
    part = metrics.measure(
        fold.train, labels, fold.test, test_labels, genres=corpus.genres, seed=seed, ids=ids
    )[0]
    if fold.named is not None:
        right = (fold.named == test_labels) * 1.0
        part = dataclasses.replace(part, by_track={**part.by_track, "centroid_accuracy": right})
    return part, fold.seconds, fold.cpu_seconds


def summary(found: list[tuple[metrics.Measured, float, float]]) -> dict[str, object]:
    parts, seconds, cpu = zip(*found, strict=True)
    scores = metrics.combine(parts)
    return {
        **{metric: scores[metric].to_dict() for metric in COLUMNS},
        "seconds": float(np.mean(seconds)),
        "slowest_s": float(np.max(seconds)),
        "cpu_seconds": float(np.mean(cpu)),
        "folds": len(parts),
    }


def line(name: str, row: dict) -> str:
    cells = [f"{row[m]['value']:.3f} [{row[m]['low']:.3f}, {row[m]['high']:.3f}]" for m in COLUMNS]
    return f"| {name} | {' | '.join(cells)} | {row['seconds']:.1f} | {row['cpu_seconds']:.1f} |"


def chance(row: dict) -> str:
    cells = [f"{row[metric]['chance']:.3f}" for metric in COLUMNS]
    return f"| chance | {' | '.join(cells)} | | |"


def checks(rows: dict[str, dict]) -> Iterator[str]:
    """What `laptop` must reach, each as far as its rows were run."""

    def value(name: str, metric: str = "centroid_accuracy") -> float:
        return float(rows[name][metric]["value"])

    def line(what: str, found: float, least: float) -> str:
        return f"{'yes' if found >= least else 'NO '}  {what}: {found:.2f} (at least {least:g})"

    if "laptop" not in rows:
        return
    ours, seconds = value("laptop"), float(rows["laptop"]["seconds"])
    if "frozen" in rows:
        ratio = value("laptop", "map_at_r") / value("frozen", "map_at_r")
        yield line("centroid, points over frozen", 100 * (ours - value("frozen")), 8)
        yield line("MAP@R, times the frozen backbone's", ratio, 1.4)
    for name in ("lda", "lda_windows"):
        if name in rows:
            yield line(f"centroid, points over {name}", 100 * (ours - value(name)), 0)
    if "thesis" in rows:
        yield line("centroid, points over the thesis", 100 * (ours - value("thesis")), 5)
        yield line("training time, thesis / laptop", float(rows["thesis"]["seconds"]) / seconds, 5)
    yield line("seconds left of a minute", 60 - seconds, 0)


def run(jobs: list[tuple[str, int, int]], mapped: Callable, names: list[str]) -> dict[str, dict]:
    """Print each row as soon as its folds are done."""
    rows: dict[str, dict] = {}
    found: dict[str, list] = {name: [] for name in names}
    collapsed = dict.fromkeys(names, 0)
    each = len(jobs) // len(names)
    print(f"| | {' | '.join(COLUMNS.values())} | seconds a fold | processor s |")
    print("|---" * 6 + "|")
    for (name, seed, fold), result in zip(jobs, mapped(measure, jobs), strict=True):
        outcome = "collapsed"
        if result is None:
            collapsed[name] += 1
        else:
            found[name].append(result)
            right = result[0].by_track["centroid_accuracy"].mean()
            outcome = f"centroid {right:.3f}, {result[2]:.1f} s"
        print(f"{name}, seed {seed}, fold {fold}: {outcome}", file=sys.stderr, flush=True)
        if len(found[name]) + collapsed[name] < each:
            continue
        if collapsed[name]:
            print(
                f"| {name} | collapsed in {collapsed[name]} of {each} folds | | | | |", flush=True
            )
        else:
            if not rows:
                print(chance(summary(found[name])))
            rows[name] = summary(found[name])
            print(line(name, rows[name]), flush=True)
    return rows


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--features", type=Path, help=f"made with --backbone {BACKBONE}")
    source.add_argument("--library", type=Path, help="folder genre/subgenre/*")
    parser.add_argument("--chunk-strategy", default="spaced", choices=config.CHUNK_STRATEGIES)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=ROWS, metavar="NAME")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--threads", type=int, default=1, help="of torch, a process")
    parser.add_argument("--recipe", default="laptop", help="what the row `laptop` trains")
    parser.add_argument("--json", type=Path, help="the figures go here too")
    return parser.parse_args()


def benchmark(options: argparse.Namespace, features: Path) -> None:
    names = [name for name in ROWS if name in options.only]
    jobs = [(n, s, f) for n in names for s in range(options.seeds) for f in range(options.folds)]
    setting = (features, options.folds, options.recipe, options.threads)
    start(*setting)  # also fills the cache that the workers read
    if options.jobs == 1:
        rows = run(jobs, map, names)
    else:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(options.jobs, spawn, start, setting) as pool:
            rows = run(jobs, pool.map, names)
    print()
    for line in checks(rows):
        print(line)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


def main() -> int:
    options = arguments()
    if options.features:
        benchmark(options, options.features)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        windows = PreprocessConfig(chunk_strategy=options.chunk_strategy)
        preprocess(options.library, Path(folder) / "features", backbone=BACKBONE, settings=windows)
        benchmark(options, Path(folder) / "features")
    return 0


if __name__ == "__main__":
    sys.exit(main())
