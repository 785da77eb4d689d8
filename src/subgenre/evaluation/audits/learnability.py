"""Pairs of subgenres: which of them can be distinguished?

For each pair: how many held-out tracks the trained encoder places right, and a permutation test of
whether a difference exists at all. That test uses frozen vectors and a light probe inside the
folds: vectors that were trained with the labels would make any labels look right. Labels are
shuffled by artist and album where the folds hold those together: tracks of one artist sound alike,
and shuffled one by one they would make two subgenres without a difference look different.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import false_discovery_control, rankdata

from subgenre.core.text import counted, p_value
from subgenre.evaluation.audits.base import (
    ABSENT,
    Audit,
    Context,
    Section,
    Table,
    over_folds,
    share_text,
)
from subgenre.evaluation.audits.probe import Fold, checked, ridge_hat
from subgenre.metrics import Score, wilson
from subgenre.metrics.vectors import Floats, Ints, unit

NAMED_PAIRS = 4  # of a verdict, in the summary
TOO_FEW = 8  # tracks a side, below which a pair is not judged
FEWEST_GROUPS = 4  # artists a side, below which hardly any order of them is rarer than `LEVEL`
LEVEL = 0.05  # of the false discovery rate over the pairs

APART, UNSURE, ALIKE = "separated", "unsure", "not separated"
FEW_TRACKS, FEW_ARTISTS = "too few tracks", "too few artists"


@dataclass(frozen=True)
class Pair:
    """Two subgenres, and whether they can be distinguished.

    Attributes:
        n_a, n_b: tracks. trained: balanced accuracy of the trained encoder on held-out tracks.
        order: AUC of a probe on frozen vectors, None where the pair was not judged.
        p_value: of `order`, by permutation. q_value: after Benjamini and Hochberg (1995).
        verdict: "separated" where q is at most 0.05 and the interval of `trained` is above chance,
            "unsure" where one of them holds, "not separated", "too few tracks" or "too few
            artists".
    """

    a: str
    b: str
    n_a: int
    n_b: int
    trained: Score | None
    order: float | None
    p_value: float | None
    q_value: float | None = None
    verdict: str = FEW_TRACKS


def run(context: Context, *, permutations: int = 499) -> tuple[Pair, ...]:
    """Judge each pair of subgenres by the frozen vectors and by the trained model of each fold.

    The p-value is (1 + permutations that reach the true order) / (1 + permutations) (Phipson and
    Smyth 2010). It errs upwards: folds are stratified by the true labels, and permuted ones, which
    are not spread as evenly over them, scatter more (8 tracks a side: p is at most 0.05 for about
    3 of 100 pairs without a difference).

    Raises: EvaluationError for vectors that are not finite.
    """
    x, y = checked(context.frozen, context.labels)
    models = [checked(fold.vectors["trained"], y)[0] for fold in context.folds]
    folds, names = context.positions, context.names
    generator = np.random.default_rng(context.seed)
    found = []
    for a, b in combinations(np.unique(y).tolist(), 2):
        counts = int(np.sum(y == a)), int(np.sum(y == b))
        score, order, p = trained_accuracy(models, y, folds, a, b), None, None
        few = _too_few(context, (a, b))
        if not few:
            order, p = _permuted(x, y, context.groups, folds, (a, b), permutations, generator)
        verdict = few or FEW_TRACKS
        found.append(Pair(names[a], names[b], *counts, score, order, p, verdict=verdict))
    judged = [i for i, pair in enumerate(found) if pair.p_value is not None]
    q_values = false_discovery_control([found[i].p_value for i in judged]) if judged else []
    for i, q in zip(judged, q_values, strict=True):
        score = found[i].trained
        signs = [q <= LEVEL] if score is None else [q <= LEVEL, score.low > 0.5]
        verdict = APART if all(signs) else UNSURE if any(signs) else ALIKE
        found[i] = replace(found[i], q_value=float(q), verdict=verdict)
    return tuple(found)


def _too_few(context: Context, pair: tuple[int, int]) -> str:
    """Return what a pair has too few of to be judged, or ""."""
    sides = [context.groups[context.labels == c] for c in pair]
    if min(side.size for side in sides) < TOO_FEW:
        return FEW_TRACKS
    return FEW_ARTISTS if min(np.unique(side).size for side in sides) < FEWEST_GROUPS else ""


def trained_accuracy(
    models: Sequence[Floats], labels: Ints, folds: Sequence[Fold], a: int, b: int
) -> Score | None:
    """Return the balanced accuracy between subgenres a and b, held out, by the nearer centroid.

    Shapes: models: [N, E] a fold; labels [N]. Chance is 0.5. The 95 % interval joins the Wilson
    intervals of the two recalls by square-and-add (Newcombe 1998; Zou and Donner 2008). Each track
    counts once over all repeats. None where no fold tests both or trains on both.
    """
    right, times = np.zeros(len(labels)), np.zeros(len(labels))
    for x, (train, test) in zip(models, folds, strict=True):
        sides = [train[labels[train] == c] for c in (a, b)]
        judged = test[np.isin(labels[test], (a, b))]
        if not (sides[0].size and sides[1].size and judged.size):
            continue
        near = unit(x)
        centroids = unit(np.stack([near[side].mean(axis=0) for side in sides]))
        cosine = near[judged] @ centroids.T
        own = (labels[judged] == b).astype(np.int64)
        rows = np.arange(judged.size)
        lead = cosine[rows, own] - cosine[rows, 1 - own]
        right[judged] += np.where(lead == 0, 0.5, lead > 0)
        times[judged] += 1
    share, reach = [], []
    for c in (a, b):
        seen = (labels == c) & (times > 0)
        if not seen.any():
            return None
        share.append(float(np.mean(right[seen] / times[seen])))
        low, high = wilson(share[-1], int(seen.sum()))
        reach.append((share[-1] - low, high - share[-1]))
    value = sum(share) / 2
    below, above = (math.hypot(*(r[side] for r in reach)) / 2 for side in (0, 1))
    return Score(value=value, low=max(value - below, 0.0), high=min(value + above, 1.0), chance=0.5)


def _permuted(
    x: Floats,
    y: Ints,
    groups: Ints,
    folds: Sequence[Fold],
    pair: tuple[int, int],
    permutations: int,
    generator: np.random.Generator,
) -> tuple[float | None, float | None]:
    """Return the AUC of a ridge probe, pooled over the folds, and its p-value."""
    of_pair = np.isin(y, pair)
    true = y[of_pair] == pair[1]
    is_b = np.zeros((len(y), 1 + permutations), dtype=np.bool_)
    is_b[of_pair, 0] = true
    is_b[of_pair, 1:] = shuffled(true, groups[of_pair], permutations, generator)
    wins, pairs_seen = np.zeros(1 + permutations), np.zeros(1 + permutations)
    for train, test in folds:
        fit, judged = (side[of_pair[side]] for side in (train, test))
        if fit.size < 2 or judged.size < 2:
            continue
        scores = ridge_hat(x[fit], x[judged]) @ _balanced(is_b[fit])  # [m, 1 + P]
        truth = is_b[judged]
        n_b = truth.sum(axis=0)
        rank_sum = np.where(truth, rankdata(scores, axis=0), 0.0).sum(axis=0)
        wins += rank_sum - n_b * (n_b + 1) / 2
        pairs_seen += n_b * (judged.size - n_b)
    if pairs_seen[0] == 0:
        return None, None
    order = np.divide(wins, pairs_seen, out=np.full(1 + permutations, 0.5), where=pairs_seen > 0)
    reached = int(np.sum(order[1:] >= order[0] - 1e-12))
    return float(order[0]), (1 + reached) / (1 + permutations)


def shuffled(
    labels: NDArray[np.bool_], groups: Ints, count: int, generator: np.random.Generator
) -> NDArray[np.bool_]:
    """Return labels [N] shuffled `count` times, [N, count], as the groups [N] allow.

    Groups of one label keep their tracks together and exchange their labels; in a group of both
    labels the tracks exchange theirs (whole-block and within-block exchangeability, Winkler et al.
    2015). Groups of one track each make it a plain permutation.
    """
    of = np.unique(groups, return_inverse=True)[1]
    share = np.bincount(of, labels) / np.bincount(of)
    is_pure = (share == 0) | (share == 1)
    ordered, pure = np.argsort(of, kind="stable"), is_pure[of]
    result = np.empty((len(labels), count), dtype=np.bool_)
    for column in result.T:
        column[ordered] = labels[np.lexsort((generator.random(len(of)), of))]
        share[is_pure] = generator.permutation(share[is_pure])
        column[pure] = share[of[pure]] == 1
    return result


def _balanced(is_b: NDArray[np.bool_]) -> Floats:
    """Return targets of mean 0 and equal weight of both sides, [n, P]; 0 if a side is empty."""
    n_b = is_b.sum(axis=0)
    n_a = len(is_b) - n_b
    both = (n_a > 0) & (n_b > 0)
    return np.asarray(np.where(is_b, 1 / np.maximum(n_b, 1), -1 / np.maximum(n_a, 1)) * both)


def section(judged: Sequence[Pair], _: Context) -> Section:
    """Show the pairs, the hardest first."""
    hardest = sorted(judged, key=lambda p: 2.0 if p.trained is None else p.trained.value)
    rows = tuple(
        (
            f"{p.a} and {p.b}",
            share_text(p.trained),
            ABSENT if p.q_value is None else p_value(p.q_value),
            p.verdict,
        )
        for p in hardest
    )
    return Section(
        "pairs",
        "Pairs of subgenres",
        "Can the two subgenres of a pair be separated? Accuracy is the trained model's on its "
        "held-out tracks. p tests the backbone before training: how often a light probe does as "
        "well with labels shuffled by artist and album (by track where these can't be kept on one "
        "side), corrected for the number of pairs (Benjamini and Hochberg). "
        "Separated: p is at most 0.05 and the accuracy's interval lies above chance. Unsure: only "
        "one of the two holds.",
        "",
        (
            Table(
                ("Pair", "Accuracy of the model", "p before training", "Verdict"),
                rows,
                "Pairs of subgenres",
            ),
        ),
        _headline(judged),
    )


def _headline(judged: Sequence[Pair]) -> str:
    if len(judged) > 1 and all(p.verdict == APART for p in judged):
        return f"Each of the {len(judged)} pairs of subgenres are separated."
    texts = {ALIKE: "Not separated", UNSURE: "Unsure whether they can be separated"}
    parts = []
    for verdict, text in texts.items():
        names = [f"{p.a} and {p.b}" for p in judged if p.verdict == verdict]
        if len(names) > NAMED_PAIRS:
            names[NAMED_PAIRS:] = [counted(len(names) - NAMED_PAIRS, "more pair")]
        parts += [f"{text}: {'; '.join(names)}."] if names else []
    return " ".join(parts)


AUDIT = Audit("pairs", run, section, applies=over_folds)
