"""None of my playlists: are tracks of an unknown subgenre rejected?

Each subgenre is left out in turn, and models that haven't seen them score its tracks and the held-
out tracks of the other, known subgenres. AUROC is the probability that a known track scores above
an unknown one; FPR at 95 % TPR is the share of unknown tracks that are accepted if 95 % of the
known ones are (Hendrycks and Gimpel 2017; Yang et al. 2022). The error rate of the conformal
threshold in use (`search.conformal`) is measured too.
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
    Retraining,
    Section,
    Table,
    decimal_text,
)
from subgenre.evaluation.audits.probe import (
    Fold,
    centroid_scores,
    checked,
    interval,
    standardise,
)
from subgenre.metrics.vectors import Floats, Ints, unit
from subgenre.search.conformal import threshold
from subgenre.search.gaussians import Gaussians

CLASSIFY_SCORE = "gaussian"  # the score by which `classify` rejects tracks
NEIGHBOURS = 5
ALPHA = 0.1  # error rate of the threshold
BOOTSTRAPS = 300
HALVES = 200  # random halvings to calibrate on one half and test on the other


@dataclass(frozen=True)
class LeftOut:
    """One subgenre as the unknown: how well its tracks are separated from the known ones."""

    subgenre: str
    n_tracks: int
    auroc: Interval
    fpr95: Interval


@dataclass(frozen=True)
class OpenSet:
    """Rejection by one kind of score.

    Attributes:
        score: one of `SCORES`. rows: one for each left-out subgenre.
        auroc, fpr95: means over the subgenres, with intervals by bootstrap over tracks.
        known_error, caught: shares of known and unknown tracks that are rejected at `alpha`.
        none_right: share of the rejected tracks that are unknown, where half of all tracks are.
        chance: AUROC of guessing.
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
    none_right: float | None = None


def auroc(known: ArrayLike, unknown: ArrayLike) -> float:
    """Return the probability that a known score is above an unknown one, ties counted half.

    Shapes: [n] and [m]. Source: Mann and Whitney 1947; Fawcett 2006, section 7.
    """
    a, b = np.asarray(known, dtype=np.float64), np.sort(np.asarray(unknown, dtype=np.float64))
    wins = np.searchsorted(b, a, "left") + np.searchsorted(b, a, "right")
    return float(wins.sum() / (2 * a.size * b.size))


def fpr_at_tpr(known: ArrayLike, unknown: ArrayLike, *, tpr: float = 0.95) -> float:
    """Return the share of unknown scores accepted if at least a share `tpr` of the known ones is.

    Shapes: [n] and [m].
    """
    a = np.sort(np.asarray(known, dtype=np.float64))[::-1]
    limit = a[int(np.ceil(tpr * a.size - 1e-9)) - 1]
    return float(np.mean(np.asarray(unknown) >= limit))


def centroid_fit(train: Floats, labels: Ints, test: Floats) -> Floats:
    """Return each test vector's largest cosine to a centroid: [m]."""
    used, compact = np.unique(labels, return_inverse=True)
    return np.asarray(centroid_scores(train, compact, test, used.size).max(axis=1))


def neighbour_fit(train: Floats, _: Ints, test: Floats) -> Floats:
    """Return each test vector's mean cosine to its nearest training vectors: [m]."""
    fitted, new = standardise(train, test)
    cosine = unit(new) @ unit(fitted).T
    k = min(NEIGHBOURS, cosine.shape[1])
    return np.asarray(np.partition(cosine, -k, axis=1)[:, -k:].mean(axis=1))


def gaussian_fit(train: Floats, labels: Ints, test: Floats) -> Floats:
    """Return minus each test vector's squared Mahalanobis distance to the nearest mean: [m].

    Source: Lee, Lee, Lee and Shin 2018, eq. 2.
    """
    compact = np.unique(labels, return_inverse=True)[1]
    return Gaussians.fit(train, compact).nearness(test)


SCORES: Mapping[str, Callable[[Floats, Ints, Floats], Floats]] = {
    "centroid": centroid_fit,
    "neighbours": neighbour_fit,
    "gaussian": gaussian_fit,
}


def open_set(
    models: Mapping[int, tuple[ArrayLike, Sequence[Fold]]],
    labels: Ints,
    names: Sequence[str],
    *,
    score: str = CLASSIFY_SCORE,
    seed: int = 0,
) -> OpenSet:
    """Leave each subgenre out in turn and measure how well its tracks are rejected.

    Shapes: models: for each left-out class number the vectors [N, D] of a model that was not
    trained on it, and folds of positions; labels [N]; names [C].

    Raises: EvaluationError for vectors that are not finite, or fewer than three subgenres (with one
    left out, two must remain).
    """
    if np.unique(labels).size < 3 or not models:
        raise EvaluationError("two subgenres only: leaving one out leaves nothing to separate")
    generator = np.random.default_rng(seed)
    pairs = []  # scores of known tracks, and of unknown ones
    for left_out, (vectors, folds) in models.items():
        x, y = checked(vectors, labels)
        total, times = np.zeros(len(y)), np.zeros(len(y))
        for train, test in folds:
            known = train[y[train] != left_out]
            total[test] += SCORES[score](x[known], y[known], x[test])
            times[test] += 1
        mean = total / np.maximum(times, 1)
        tested, known_ones = times > 0, y != left_out
        pairs.append((mean[tested & known_ones], mean[tested & ~known_ones]))
    values = np.array([(auroc(*pair), fpr_at_tpr(*pair)) for pair in pairs])
    draws = np.empty((BOOTSTRAPS, len(pairs), 2))
    for i, (known, unknown) in enumerate(pairs):
        for d in range(BOOTSTRAPS):
            a, b = generator.choice(known, known.size), generator.choice(unknown, unknown.size)
            draws[d, i] = auroc(a, b), fpr_at_tpr(a, b)
    rows = []
    for i, c in enumerate(models):
        area, fpr = (interval(values[i, j], draws[:, i, j]) for j in (0, 1))
        rows.append(LeftOut(names[c], pairs[i][1].size, area, fpr))
    area, fpr = (interval(values[:, j].mean(), draws[:, :, j].mean(axis=1)) for j in (0, 1))
    error, caught = _rejected(pairs, generator)
    text = (
        f"{percent(caught)} of the unknown tracks are rejected, and {percent(error)} of the known "
        f"ones, of which at most {percent(ALPHA)} should be."
    )
    right = caught / (caught + error) if caught + error else None
    return OpenSet(score, tuple(rows), area, fpr, ALPHA, error, caught, text, none_right=right)


def _rejected(
    pairs: Sequence[tuple[Floats, Floats]], generator: np.random.Generator
) -> tuple[float, float]:
    """Return the shares of known and unknown tracks rejected by thresholds from half the known."""
    error, caught = [], []
    for known, unknown in pairs:
        for _ in range(max(HALVES // len(pairs), 5)):
            order = generator.permutation(known)
            half = len(order) // 2
            limit = threshold(order[:half], ALPHA)
            error.append(np.mean(order[half:] < limit))
            caught.append(np.mean(unknown < limit))
    return float(np.mean(error)), float(np.mean(caught))


def run(context: Context) -> dict[str, OpenSet]:
    """Measure the rejection by the frozen vectors, with each score."""
    tested = np.concatenate([test for _, test in context.positions])
    classes = np.unique(context.labels[tested]).tolist()  # without test tracks: can't be judged
    if len(classes) < 2:
        raise EvaluationError("the test tracks are of one subgenre: no other one can be left out")
    models = dict.fromkeys(classes, (context.frozen, context.positions))
    return {
        score: open_set(models, context.labels, context.names, score=score, seed=context.seed)
        for score in SCORES
    }


def section(found: Mapping[str, OpenSet], _: Context) -> Section:
    """Show a row for each score."""
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
    columns = ("Score", "AUROC", "FPR at 95 % TPR", "Known rejected", "Unknown rejected")
    used = next(one for one in found.values() if one.score == CLASSIFY_SCORE)
    worst = min(used.rows, key=lambda row: row.auroc.value)
    return Section(
        "open_set",
        "Unknown subgenres",
        "Are tracks of a subgenre that the model does not know rejected as 'none of my playlists'? "
        "Each subgenre is left out in turn. AUROC: how often a known track fits better than an "
        "unknown one; chance is 0.5. FPR at 95 % TPR: if the threshold accepts 95 % of the known "
        "tracks, the share of unknown tracks that it accepts too; the lower, the better.",
        f"By the score that classify uses ({CLASSIFY_SCORE}): {used.text} Hardest to reject: "
        f"{worst.subgenre} (AUROC {worst.auroc.value:.2f}).",
        (Table(columns, rows, "Unknown subgenres"),),
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
        triplets = config.replace(settings, "batch", kind="triplet")
        quadruplet = config.replace(triplets, "loss", name="quadruplet")
        recipes["trained without it, with trash"] = quadruplet
        reference = config.replace(triplets, "loss", name="triplet")
        if reference != settings:
            recipes["trained without it, triplets"] = reference
    return {
        name: _retrained(context, replace(training, settings=recipe, out=training.out / str(i)))
        for i, (name, recipe) in enumerate(recipes.items())
    }


def _retrained(context: Context, training: Retraining) -> OpenSet:
    """Train a model without each subgenre, and measure the rejection of its tracks."""
    ids = np.array([track.id for track in context.tracks])
    fold, labels, settings = context.folds[0], context.labels, training.settings
    jobs, folds = {}, {}
    for c, name in enumerate(context.names):
        train = fold.train[labels[fold.train] != c]
        test = np.union1d(fold.test, np.flatnonzero(labels == c))
        if np.unique(labels[train]).size < 2 or not np.any(labels[test] != c):
            continue
        sides = [tuple(sorted(ids[side].tolist())) for side in (train, test)]
        split = Split(sides[0], sides[1], settings.run.seed, ("track", "recording"))
        folds[c] = [(train, test)]
        jobs[c] = cross_validation.job(
            f"without {name}", training.features, settings, split, training.out / f"{c}.npz"
        )
    results = cross_validation.train_all(
        list(jobs.values()), workers=training.workers, console=context.console
    )
    models = {c: (one.vectors, folds[c]) for c, one in zip(jobs, results, strict=True)}
    return open_set(models, labels, context.names)


def section_retrained(found: Mapping[str, OpenSet], context: Context) -> Section:
    """Show a row for each recipe."""
    shown = replace(
        section(found, context), name="open_set_trained", title="Unknown subgenres, trained"
    )
    if context.retraining and context.retraining.features.trash:
        return shown
    return replace(shown, finding=f"{shown.finding} There is no trash folder to train with.")


AUDIT = Audit("open_set", run, section)
RETRAINED = Audit(
    "open_set_trained",
    run_retrained,
    section_retrained,
    applies=lambda context: context.retraining is not None,
)
