"""None of my playlists: is a track of an unknown subgenre turned away?

Each subgenre is left out in turn. The others are known: their tracks are scored in folds, by models
that haven't seen them; the left-out subgenre's tracks are scored by the same models. AUROC is the
probability that a known track scores above an unknown one; FPR at 95 % TPR is the share of unknown
tracks that get in when 95 % of the known ones do (Hendrycks and Gimpel 2017; Yang et al. 2022). The
threshold in use is conformal (`subgenre.conformal`); how well it keeps its promise is measured too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from subgenre import config
from subgenre.core.text import percent
from subgenre.dataset.splits import Split
from subgenre.errors import EvaluationError
from subgenre.evaluation import cross_validation
from subgenre.evaluation.audits.base import (
    Audit,
    Context,
    Interval,
    Result,
    Retraining,
    Section,
    Table,
    decimal_text,
    over_folds,
)
from subgenre.evaluation.audits.probe import (
    Floats,
    Fold,
    Ints,
    centroid_scores,
    checked,
    checked_folds,
    mahalanobis,
    standardise,
)
from subgenre.metrics.vectors import unit
from subgenre.search.conformal import threshold

CLASSIFY_SCORE = "centroid"  # the score by which `classify` rejects tracks
BOOTSTRAPS = 300
HALVES = 200  # random halvings to calibrate on one half and test on the other


@dataclass(frozen=True)
class LeftOut(Result):
    """One subgenre as the unknown: how well its tracks are separated from the known ones."""

    subgenre: str
    n_tracks: int
    auroc: Interval
    fpr95: Interval


@dataclass(frozen=True)
class OpenSet(Result):
    """Rejection by one kind of score.

    Attributes: score: one of `SCORES`; rows: one a subgenre; auroc and fpr95: mean over
    subgenres, interval by bootstrap over tracks; alpha: the error rate; known_error: the share
    of known tracks that are rejected at it, at most alpha if it holds; caught: the share of unknown
    tracks that are rejected; chance: AUROC of guessing.
    """

    score: str
    rows: tuple[LeftOut, ...]
    auroc: Interval
    fpr95: Interval
    alpha: float
    known_error: float
    caught: float
    text: str
    chance: float = 0.5


def auroc(known: ArrayLike, unknown: ArrayLike) -> float:
    """Return the probability that a known score is above an unknown one, ties counted half.

    Shapes: [n] and [m]. Source: Mann and Whitney 1947; Fawcett 2006, section 7.
    """
    a, b = np.asarray(known, dtype=np.float64), np.sort(np.asarray(unknown, dtype=np.float64))
    wins = np.searchsorted(b, a, "left") + np.searchsorted(b, a, "right")
    return float(wins.sum() / (2 * a.size * b.size))


def fpr_at_tpr(known: ArrayLike, unknown: ArrayLike, *, tpr: float = 0.95) -> float:
    """Return the share of unknown scores let in when at least a share `tpr` of the known ones is.

    Shapes: [n] and [m].
    """
    a = np.sort(np.asarray(known, dtype=np.float64))[::-1]
    limit = a[int(np.ceil(tpr * a.size - 1e-9)) - 1]
    return float(np.mean(np.asarray(unknown) >= limit))


def centroid_fit(train: Floats, labels: Ints, test: Floats, k: int) -> Floats:
    """Return each test vector's largest cosine to a centroid: [m]. k is not used."""
    del k
    used, compact = np.unique(labels, return_inverse=True)
    return np.asarray(centroid_scores(train, compact, test, used.size).max(axis=1))


def neighbour_fit(train: Floats, labels: Ints, test: Floats, k: int) -> Floats:
    """Return each test vector's mean cosine to its k nearest training vectors: [m]."""
    del labels
    fitted, new = standardise(train, test)
    cosine = unit(new) @ unit(fitted).T
    k = min(k, cosine.shape[1])
    return np.asarray(np.partition(cosine, -k, axis=1)[:, -k:].mean(axis=1))


def gaussian_fit(train: Floats, labels: Ints, test: Floats, k: int) -> Floats:
    """Return minus each test vector's squared Mahalanobis distance to the nearest mean: [m].

    Source: Lee, Lee, Lee and Shin 2018, eq. 2. k is not used.
    """
    del k
    used, compact = np.unique(labels, return_inverse=True)
    return np.asarray(-mahalanobis(train, compact, test, used.size).min(axis=1))


SCORES: Mapping[str, Callable[[Floats, Ints, Floats, int], Floats]] = {
    "centroid": centroid_fit,
    "neighbours": neighbour_fit,
    "gaussian": gaussian_fit,
}


def open_set(
    vectors: ArrayLike | Mapping[int, ArrayLike],
    labels: ArrayLike,
    names: Sequence[str],
    folds: Sequence[Fold] | Mapping[int, Sequence[Fold]],
    *,
    score: str = "centroid",
    alpha: float = 0.1,
    k: int = 5,
    seed: int = 0,
) -> OpenSet:
    """Leave each subgenre out in turn and measure how well its tracks are turned away.

    Shapes: vectors [N, D], or for each left-out class number the [N, D] of a model trained without
    it; labels [N]; names [C]; folds of positions, or those of each left-out class number. A
    model that was trained with the left-out subgenre flatters itself: pass frozen vectors, or the
    mapping.

    Raises: EvaluationError for vectors that are not finite, an unknown score, or fewer than three
    subgenres (with one left out, two must remain).
    """
    if score not in SCORES:
        raise EvaluationError(f"score is {score!r}: choose one of {', '.join(SCORES)}")
    table = dict(vectors) if isinstance(vectors, Mapping) else None
    first = next(iter(table.values())) if table else vectors
    _, y = checked(first, labels)  # type: ignore[arg-type]
    shared = None if isinstance(folds, Mapping) else checked_folds(folds, len(y))
    classes = [int(c) for c in np.unique(y) if table is None or int(c) in table]
    if np.unique(y).size < 3 or not classes:
        raise EvaluationError("two subgenres only: leaving one out leaves nothing to tell apart")
    generator = np.random.default_rng(seed)
    pairs = []
    for c in classes:
        x, _ = checked(table[c] if table else first, labels)  # type: ignore[arg-type]
        parts = checked_folds(folds[c], len(y)) if isinstance(folds, Mapping) else shared
        pairs.append(_scores(x, y, c, parts or [], SCORES[score], k))
    return _summary(score, alpha, [names[c] for c in classes], pairs, generator)


def _scores(
    x: Floats,
    y: Ints,
    left_out: int,
    folds: Sequence[Fold],
    fit: Callable[[Floats, Ints, Floats, int], Floats],
    k: int,
) -> tuple[Floats, Floats]:
    """Scores of known tracks by models that haven't seen them, and of the left-out tracks."""
    total, times = np.zeros(len(y)), np.zeros(len(y))
    for train, test in folds:
        known = train[y[train] != left_out]
        total[test] += fit(x[known], y[known], x[test], k)
        times[test] += 1
    mean = np.divide(total, times, out=np.zeros(len(y)), where=times > 0)
    return mean[(y != left_out) & (times > 0)], mean[(y == left_out) & (times > 0)]


def _summary(
    score: str,
    alpha: float,
    names: Sequence[str],
    pairs: Sequence[tuple[Floats, Floats]],
    generator: np.random.Generator,
) -> OpenSet:
    draws = np.empty((BOOTSTRAPS, len(pairs), 2))
    values = np.array([(auroc(a, b), fpr_at_tpr(a, b)) for a, b in pairs])
    for i, (known, unknown) in enumerate(pairs):
        for d in range(BOOTSTRAPS):
            a = generator.choice(known, known.size)
            b = generator.choice(unknown, unknown.size)
            draws[d, i] = auroc(a, b), fpr_at_tpr(a, b)
    rows = tuple(
        LeftOut(name, pairs[i][1].size, *(_interval(values[i, j], draws[:, i, j]) for j in (0, 1)))
        for i, name in enumerate(names)
    )
    area, fpr = (_interval(values[:, j].mean(), draws[:, :, j].mean(axis=1)) for j in (0, 1))
    error, caught = _kept_promise(pairs, alpha, generator)
    text = (
        f"{percent(caught)} of the unknown tracks are rejected, and {percent(error)} of the known "
        f"ones, of which at most {percent(alpha)} should be."
    )
    return OpenSet(score, rows, area, fpr, alpha, error, caught, text)


def _interval(value: float, draws: Floats) -> Interval:
    low, high = np.percentile(draws, [2.5, 97.5])
    return Interval(float(value), float(low), float(high))


def _kept_promise(
    pairs: Sequence[tuple[Floats, Floats]], alpha: float, generator: np.random.Generator
) -> tuple[float, float]:
    """Shares of known and unknown tracks turned away, calibrated on random halves of the known."""
    error, caught = [], []
    for known, unknown in pairs:
        for _ in range(max(HALVES // len(pairs), 5)):
            order = generator.permutation(known)
            half = len(order) // 2
            limit = threshold(order[:half], alpha)
            error.append(np.mean(order[half:] < limit))
            caught.append(np.mean(unknown < limit))
    return float(np.mean(error)), float(np.mean(caught))


def run(context: Context) -> dict[str, OpenSet]:
    """Measure the rejection by the frozen vectors, with each score."""
    return {
        score: open_set(
            context.frozen,
            context.labels,
            context.names,
            context.positions,
            score=score,
            seed=context.seed,
        )
        for score in SCORES
    }


def section(found: Mapping[str, OpenSet], _: Context) -> Section:
    """Show a row a score."""
    rows = tuple(
        (
            name,
            decimal_text(one.auroc),
            decimal_text(one.fpr95),
            percent(one.known_error),
            percent(one.caught),
        )
        for name, one in found.items()
    )
    best = max(found.values(), key=lambda one: one.auroc.value)
    worst = min(best.rows, key=lambda row: row.auroc.value)
    return Section(
        "open_set",
        "Unknown subgenres",
        "Are tracks of a subgenre that the model does not know rejected as 'none of my playlists'? "
        "Each subgenre is left out in turn. AUROC: how often a known track fits better than an "
        "unknown one; chance is 0.5. FPR at 95 % TPR: share of unknown tracks that are accepted if "
        "95 % of the known ones are.",
        f"{best.text} Hardest to reject: {worst.subgenre} (AUROC {worst.auroc.value:.2f}).",
        (
            Table(
                ("Score", "AUROC", "FPR at 95 % TPR", "Known rejected", "Unknown rejected"),
                rows,
                "Unknown subgenres",
            ),
        ),
    )


def run_retrained(context: Context) -> dict[str, OpenSet]:
    """Leave each subgenre out of the training of the first fold, with and without trash samples.

    The known tracks are the fold's test tracks. All tracks of the left-out subgenre are unknown.
    """
    training = context.retraining
    assert training is not None  # noqa: S101  see `RETRAINED.applies`
    settings = training.settings
    recipes = {"trained without it": settings}
    if training.features.trash:
        quadruplet = config.replace(settings, "loss", name="quadruplet")
        recipes["trained without it, with trash"] = config.replace(
            quadruplet, "batch", kind="triplet"
        )
        if settings.loss.name != "triplet" or settings.batch.kind != "triplet":
            triplet = config.replace(settings, "loss", name="triplet")
            recipes["trained without it, triplets"] = config.replace(
                triplet, "batch", kind="triplet"
            )
    return {
        name: _retrained(context, replace(training, settings=recipe, out=training.out / str(i)))
        for i, (name, recipe) in enumerate(recipes.items())
    }


def _retrained(context: Context, training: Retraining) -> OpenSet:
    """Train a model without each subgenre, and measure the rejection of its tracks."""
    ids = np.array([track.id for track in context.tracks])
    fold, labels, settings = context.folds[0], context.labels, training.settings
    jobs, positions = {}, {}
    for c, name in enumerate(context.names):
        train = fold.train[labels[fold.train] != c]
        test = np.union1d(fold.test, np.flatnonzero(labels == c))
        if np.unique(labels[train]).size < 2 or not np.any(labels[test] != c):
            continue
        split = Split(
            tuple(sorted(ids[train].tolist())),
            tuple(sorted(ids[test].tolist())),
            settings.run.seed,
            ("track", "recording"),
        )
        positions[c] = [(train, test)]
        jobs[c] = cross_validation.job(
            f"without {name}", training.features, settings, split, training.out / f"{c}.npz"
        )
    results = cross_validation.train_all(
        list(jobs.values()), workers=training.workers, console=context.console
    )
    vectors = {c: result.vectors for c, result in zip(jobs, results, strict=True)}
    return open_set(vectors, labels, context.names, positions, score=CLASSIFY_SCORE)


def section_retrained(found: Mapping[str, OpenSet], context: Context) -> Section:
    """Show a row a recipe."""
    shown = replace(
        section(found, context), name="open_set_trained", title="Unknown subgenres, trained"
    )
    if context.retraining and context.retraining.features.trash:
        return shown
    return replace(shown, finding=f"{shown.finding} There is no trash folder to train with.")


AUDIT = Audit("open_set", run, section, applies=over_folds)
RETRAINED = Audit(
    "open_set_trained",
    run_retrained,
    section_retrained,
    applies=lambda context: context.retraining is not None,
)
