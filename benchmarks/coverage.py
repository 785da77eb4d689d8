"""How often a 95 % interval of a metric holds the true value, on made libraries.

A library has subgenres as clouds of unit vectors around random centres. The true value of a metric
is its mean over many draws of the test tracks; each of the `--libraries` libraries is judged by
one draw. Methods:

    queries    percentile bootstrap over the tracks' own values
    influence  percentile bootstrap over jackknife influences, a track being query and neighbour
    t          value +- Student's t times the standard error of the tracks' own values
    strata     influence, drawn within each subgenre, whose number of tracks a split fixes
    t strata   the same by Student's t
    used       what `metrics.combine` gives

    python benchmarks/coverage.py --libraries 500 --tracks 10 40 200
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy import stats

from subgenre import metrics
from subgenre.metrics import evaluation, retrieval
from subgenre.metrics.clusters import OF_CLUSTERS, contingency, cosine_distances, kmeans
from subgenre.metrics.intervals import share_interval
from subgenre.metrics.vectors import Floats, Ints, unit

SUBGENRES, SIZE, TRAIN = 5, 16, 30  # training tracks a subgenre
WORLDS, TRUTH = 10, 400  # sets of centres, and draws for the true value of each


def draw(rng: np.random.Generator, centres: Floats, labels: Ints) -> Floats:
    """Return unit vectors of tracks around the centres of their subgenres."""
    return unit(centres[labels] + rng.normal(size=(len(labels), SIZE)))


def test_labels(rng: np.random.Generator, n: int) -> Ints:
    """Return the subgenres of n test tracks, each with at least two."""
    even = np.repeat(np.arange(SUBGENRES), 2)
    return np.sort(np.concatenate([even, rng.integers(0, SUBGENRES, n - len(even))]))


def values(train: Floats, train_labels: Ints, test: Floats, labels: Ints) -> dict[str, Floats]:
    """Return the value of each test track by metric; of a clustering, one value."""
    near = retrieval.nearest_labels(train, train_labels, test, retrieval.DEFAULT_K)
    nearest = retrieval.nearest_centroids(train, train_labels, test)
    clusters = kmeans(test, len(np.unique(labels)), 0)
    table = contingency(clusters, labels)
    order, ranks = retrieval.own_order(test), retrieval.similarity_ranks(test)
    return {
        "centroid_accuracy": (nearest == labels) * 1.0,
        "knn_accuracy": (retrieval.knn_labels(near) == labels) * 1.0,
        "precision_at_1": (near[:, 0] == labels) * 1.0,
        "r_precision": retrieval.r_precisions(order, labels[None])[0],
        "map_at_r": retrieval.average_precisions(order, labels[None])[0],
        "triplet_accuracy": retrieval.triplet_shares(ranks, labels[None])[0],
        "silhouette": evaluation.silhouettes(cosine_distances(test), labels[None])[0],
        **{name: np.array([score(table)]) for name, score in OF_CLUSTERS.items()},
    }


def by_subgenre(value: float, influence: Floats, labels: Ints, rng: np.random.Generator) -> tuple:
    """Draw as many tracks of each subgenre as there are, from influences around their mean."""
    n, replicates = len(labels), np.full(1000, value)
    for label in np.unique(labels):
        inside = influence[labels == label]
        m = len(inside)
        centred = (inside - inside.mean()) * (m / max(m - 1, 1)) ** 0.5
        replicates += rng.multinomial(m, np.full(m, 1 / m), 1000) @ centred / n
    return share_interval(value, replicates, n)


def t_by_subgenre(value: float, influence: Floats, labels: Ints) -> tuple:
    """Return value +- Student's t times the standard error of influences within subgenres."""
    n, variance, freedom = len(labels), 0.0, 0
    for label in np.unique(labels):
        inside = influence[labels == label]
        m = len(inside)
        if m > 1:
            variance += m * inside.var(ddof=1) / n**2
            freedom += m - 1
    half = stats.t.ppf(0.975, freedom) * variance**0.5
    return value - half, value + half


def intervals(
    own: Floats, influence: Floats | None, labels: Ints, rng: np.random.Generator
) -> dict[str, tuple]:
    """Return the interval of each method from the values of the tracks and their influences."""
    labels = labels[~np.isnan(own)]
    own = own[~np.isnan(own)]
    n, value = len(own), float(own.mean())
    drawn = rng.multinomial(n, np.full(n, 1 / n), 1000) / n
    half = stats.t.ppf(0.975, n - 1) * own.std(ddof=1) / n**0.5
    found = {"queries": share_interval(value, drawn @ own, n), "t": (value - half, value + half)}
    if influence is not None and len(influence) == n:
        found["influence"] = share_interval(value, value + drawn @ influence, n)
    used = own - value if influence is None or len(influence) != n else influence
    found["strata"] = by_subgenre(value, used, labels, rng)
    found["t strata"] = t_by_subgenre(value, used, labels)
    return found


def main() -> None:
    """Print the share of intervals that hold the true value, and their mean width."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--libraries", type=int, default=500)
    parser.add_argument("--tracks", type=int, nargs="+", default=[10, 40, 200])
    parser.add_argument("--spread", type=float, default=0.55, help="of the centres")
    chosen = parser.parse_args()
    for n in chosen.tracks:
        held: dict[tuple[str, str], list[bool]] = {}
        width: dict[tuple[str, str], list[float]] = {}
        truths: dict[str, list[float]] = {}
        for world in range(WORLDS):
            rng = np.random.default_rng([world, n])
            centres = chosen.spread * rng.normal(size=(SUBGENRES, SIZE))
            train_labels = np.repeat(np.arange(SUBGENRES), TRAIN)
            train, labels = draw(rng, centres, train_labels), test_labels(rng, n)
            draws = [
                values(train, train_labels, draw(rng, centres, labels), labels)
                for _ in range(TRUTH)
            ]
            true = {name: np.mean([np.nanmean(d[name]) for d in draws]) for name in draws[0]}
            for name, value in true.items():
                truths.setdefault(name, []).append(float(value))
            for _ in range(chosen.libraries // WORLDS):
                test = draw(rng, centres, labels)
                own = values(train, train_labels, test, labels)
                among = evaluation._Among(test, kmeans(test, SUBGENRES, 0))
                influence = among.influence(labels)
                parts = metrics.measure(
                    train, train_labels, test, labels, genres=np.zeros(SUBGENRES, int)
                )
                scores = metrics.combine(parts)
                for name, value in true.items():
                    found = {"used": (scores[name].low, scores[name].high)}
                    if name not in OF_CLUSTERS:
                        found |= intervals(own[name], influence.get(name), labels, rng)
                    for method, (low, high) in found.items():
                        held.setdefault((name, method), []).append(low <= value <= high)
                        width.setdefault((name, method), []).append(high - low)
        print(f"\n{n} test tracks, {chosen.libraries} libraries: coverage (mean width)")
        for name in truths:
            cells = [
                f"{method} {np.mean(held[name, method]):.3f} ({np.mean(width[name, method]):.2f})"
                for method in ("used", "queries", "influence", "t", "strata", "t strata")
                if (name, method) in held
            ]
            print(f"  {name:18} true {np.mean(truths[name]):.3f}  {'   '.join(cells)}")


if __name__ == "__main__":
    main()
