"""The model and its baselines (`MODELS`), scored on the same held-out tracks by the same metrics.

N tracks have one fixed order; a fold names them by position.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from subgenre import metrics
from subgenre.core.text import counted
from subgenre.errors import EvaluationError
from subgenre.metrics import Difference, Measured, Score
from subgenre.metrics.vectors import Floats, Ints, standardisation, standardised, unit


class Model(NamedTuple):
    """The name and description of a model or baseline."""

    title: str
    description: str


MODELS = {
    "chance": Model("Chance", "guessing"),
    "tempo_loudness": Model("Tempo and loudness", "nothing else of the music"),
    "mean_log_mel": Model("Mean spectrum", "mean and deviation of each band of the log-mel"),
    "frozen": Model("Frozen backbone", "the pretrained backbone before training"),
    "probe": Model("Linear probe", "logistic regression on the frozen backbone"),
    "trained": Model("This model", "trained on your folders"),
}
PROBE_C = 0.01  # inverse penalty on standardised vectors: few tracks, many dimensions
PROBE_STEPS = 300


@dataclass(frozen=True)
class Fold:
    """One split and the vectors of its tracks.

    Attributes:
        train, test: positions of tracks, ascending.
        vectors: model -> [N, D]; only the rows of `train` and `test` are used.
    """

    train: Ints
    test: Ints
    vectors: Mapping[str, NDArray[np.floating]]


@dataclass(frozen=True)
class Scores:
    """Scores by model and metric, and notes on what could not be scored.

    `comparisons`: by `<a>_vs_<b>` and metric, model a minus model b on the same tracks.
    """

    scores: dict[str, dict[str, Score]]
    comparisons: dict[str, dict[str, Difference]]
    notes: tuple[str, ...]


def column_vectors(columns: ArrayLike, train: Ints) -> Floats:
    """Turn a few plain columns [N, K] into unit vectors [N, K + 1] that cosine can compare.

    The columns are standardised by the training tracks, and missing values (NaN) are their mean.
    With a further coordinate of 1, cosine reflects distance and not only direction.
    """
    values = np.asarray(columns, dtype=np.float64)
    seen = values[train]
    known = np.isfinite(seen)
    count = np.maximum(known.sum(axis=0), 1)
    fill = np.where(known, seen, 0.0).sum(axis=0) / count
    whole = np.where(np.isfinite(values), values, fill)
    scaled = standardised(whole, *standardisation(whole[train]))
    return unit(np.hstack([scaled, np.ones((len(scaled), 1))]))


def probe_vectors(
    frozen: ArrayLike, labels: Ints, train: Ints, test: Ints, *, seed: int = 0
) -> Floats:
    """Return class probabilities of the test tracks as vectors [N, C], by logistic regression.

    The vector of a training track is one-hot, (0, .., 1, .., 0), so that the nearest centroid, the
    nearest track and the vote of the neighbours are all the most probable subgenre.

    Args:
        frozen: [N, H], unit norm. labels: [N].

    Raises:
        EvaluationError: vectors that are not finite, or one subgenre in training.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    x, y = np.asarray(frozen, dtype=np.float64), labels
    if not np.isfinite(x[train]).all() or not np.isfinite(x[test]).all():
        raise EvaluationError("frozen vectors hold NaN or infinity: preprocess these tracks again")
    if np.unique(y[train]).size < 2:
        raise EvaluationError("the training tracks are all of one subgenre; 2 or more are needed")
    scale = standardisation(x[train])
    probe = LogisticRegression(C=PROBE_C, max_iter=PROBE_STEPS, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # near enough for a baseline
        probe.fit(standardised(x[train], *scale), y[train])
    rows = np.zeros((len(y), int(y.max()) + 1))
    rows[train, y[train]] = 1.0
    rows[np.ix_(test, probe.classes_)] = probe.predict_proba(standardised(x[test], *scale))
    return rows


def score(
    folds: Sequence[Fold],
    labels: Ints,
    *,
    genres: ArrayLike,
    ids: Sequence[str],
    view: str = "all",
    models: Sequence[str] = tuple(MODELS),
    seed: int = 0,
) -> Scores:
    """Score the model and its baselines over all folds and repeats.

    Args:
        folds: of one protocol; a track that several repeats test counts once (`metrics.combine`).
        labels: [N]. genres: genre number of each subgenre [C]. ids: of the tracks [N].
        view: see `metrics.measure`. models: which to score.

    Raises:
        EvaluationError: the trained model can't be scored on any fold.
    """
    scores: dict[str, dict[str, Score]] = {}
    measured: dict[str, list[Measured]] = {}
    notes: dict[str, None] = {}
    for name in (name for name in models if name in folds[0].vectors):
        parts: list[Measured] = []
        for fold in folds:
            try:
                parts += metrics.measure(
                    fold.vectors[name][fold.train],
                    labels[fold.train],
                    fold.vectors[name][fold.test],
                    labels[fold.test],
                    genres=genres,
                    seed=seed,
                    view=view,
                    ids=[ids[i] for i in fold.test],
                )
            except EvaluationError as problem:
                last = problem
                n_test = counted(len(fold.test), "held-out track")
                notes[f"{MODELS[name].title} is not scored on {n_test}: {problem}."] = None
        if parts:
            scores[name], measured[name] = metrics.combine(parts, seed=seed), parts
            notes |= dict.fromkeys(note for part in parts for note in part.notes)
        elif name == "trained" and view == "all":
            raise last
    comparisons = {
        f"{later}_vs_{earlier}": metrics.compare(measured[later], measured[earlier], seed=seed)
        for earlier, later in (itertools.combinations(measured, 2) if view == "all" else ())
    }
    if view == "all" and "trained" in scores:
        chance = {name: Score(*[one.chance] * 4) for name, one in scores["trained"].items()}
        scores = {"chance": chance, **scores}
    return Scores(scores, comparisons, tuple(notes))


def out_of_fold(folds: Sequence[Fold], labels: Ints, n_labels: int) -> tuple[Ints, Ints]:
    """Predict the subgenre of each held-out track by the nearest training centroid.

    Over repeats the most frequent prediction counts; if two are equally frequent, the earlier one.

    Returns:
        predictions [N], -1 where no fold tests the track; and counts [C, C], true by predicted.
    """
    votes = np.zeros((len(labels), n_labels), dtype=np.int64)
    first = np.full(votes.shape, len(folds))
    for number, fold in enumerate(folds):
        rows = fold.vectors["trained"]
        nearest = metrics.nearest_centroids(rows[fold.train], labels[fold.train], rows[fold.test])
        votes[fold.test, nearest] += 1
        first[fold.test, nearest] = np.minimum(first[fold.test, nearest], number)
    best = (votes - first / (1 + len(folds))).argmax(axis=1)
    predicted = np.where(votes.any(axis=1), best, -1)
    tested = predicted >= 0
    return predicted, metrics.confusion_matrix(labels[tested], predicted[tested], n_labels)


def aligned(folds: Sequence[Fold]) -> Floats:
    """Return the vectors of held-out tracks [N, D], rotated into the space of the first fold.

    Each fold's encoder has its own space. The rotation that best maps the common training tracks
    onto each other (orthogonal Procrustes; Schönemann 1966) changes no cosine inside a fold and
    uses no held-out track. Rows of tracks that no fold tests are NaN.
    """
    base = np.asarray(folds[0].vectors["trained"], dtype=np.float64)
    vectors = np.full(base.shape, np.nan)
    for fold in folds:
        rows = np.asarray(fold.vectors["trained"], dtype=np.float64)
        common = np.intersect1d(folds[0].train, fold.train)
        left, _, right = np.linalg.svd(rows[common].T @ base[common])  # identities if none
        new = fold.test[np.isnan(vectors[fold.test, 0])]  # the first repeat counts
        vectors[new] = rows[new] @ (left @ right)
    return vectors
