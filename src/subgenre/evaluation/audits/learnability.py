"""Is this nuance learnable? For each pair of subgenres.

A pair: how many held-out tracks the trained encoder places right, and whether a difference exists
at all, by a permutation test. That test uses frozen vectors and a light probe inside the folds:
permuting labels after supervised training would prove nothing, as the vectors have seen the labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import false_discovery_control, rankdata

from subgenre.core.text import counted, p_value
from subgenre.errors import EvaluationError
from subgenre.evaluation.audits.base import (
    ABSENT,
    Audit,
    Context,
    Result,
    Section,
    Table,
    over_folds,
    share_text,
)
from subgenre.evaluation.audits.probe import Floats, Fold, Ints, checked, checked_folds, ridge_hat
from subgenre.metrics import Score, wilson
from subgenre.metrics.vectors import unit

NAMED_PAIRS = 4  # of a verdict, in the summary
TOO_FEW = 8  # tracks a side, below which a pair is not judged
FEW_GROUPS = 4  # artists a side: with 3 against 3 there are 20 arrangements, and p can't be small
LEVEL = 0.05  # of the false discovery rate over the pairs

APART, UNSURE, ALIKE = "told apart", "unsure", "not told apart"
FEW_TRACKS, FEW_ARTISTS = "too few tracks", "too few artists"


@dataclass(frozen=True)
class Pair(Result):
    """Two subgenres: positions a and b in the names, and whether they can be told apart.

    Attributes: n_a, n_b: tracks; trained: balanced accuracy of the trained encoder on held-out
    tracks, None where it wasn't given; order: share of held-out pairs of tracks, one of each, that
    a probe on frozen vectors ranks right (AUC), None where it could not be judged; p_value by
    permutation; q_value after Benjamini and Hochberg (1995) over the pairs; verdict: "told apart"
    where q is at most 0.05 and the interval of trained lies above chance, "unsure" where only one
    of them holds, "not told apart" where neither does; "too few tracks" or "too few artists".
    q speaks of the frozen vectors and trained of the encoder's, so that they may well disagree.
    """

    a: str
    b: str
    n_a: int
    n_b: int
    trained: Score | None
    order: float | None
    p_value: float | None
    q_value: float | None
    verdict: str


def pairs(
    frozen: ArrayLike,
    labels: ArrayLike,
    names: Sequence[str],
    folds: Sequence[Fold],
    *,
    trained: Sequence[ArrayLike] | None = None,
    groups: ArrayLike | None = None,
    permutations: int = 499,
    seed: int = 0,
) -> tuple[Pair, ...]:
    """Judge each pair of subgenres.

    Shapes: frozen [N, D]; labels [N]; names [C]; folds of positions, grouped as the split was;
    trained: for each fold the vectors [N, E] of the encoder that was trained on its training side;
    groups [N]: tracks of one group (artist) get their label together when labels are permuted, as
    they are not independent.

    The p-value is (1 + permutations that reach the true order) / (1 + permutations) (Phipson and
    Smyth 2010). It errs upwards: folds are stratified by the true labels, and permuted ones, which
    are not spread as evenly over them, scatter more (8 tracks a side: p is at most 0.05 for about
    3 of 100 pairs without a difference).

    Raises: EvaluationError for vectors that are not finite, one subgenre, folds that leak, or
    another number of trained vectors than folds.
    """
    x, y = checked(frozen, labels)
    parts = checked_folds(folds, len(y))
    models = None if trained is None else [checked(v, y)[0] for v in trained]
    if models is not None and len(models) != len(parts):
        raise EvaluationError(f"{len(models)} trained models for {len(parts)} folds: one a fold")
    unit_of = np.arange(len(y)) if groups is None else np.unique(groups, return_inverse=True)[1]
    generator = np.random.default_rng(seed)
    found = []
    for a, b in combinations(np.unique(y).tolist(), 2):
        score = None if models is None else trained_accuracy(models, y, parts, a, b)
        counts = int(np.sum(y == a)), int(np.sum(y == b))
        units = min(np.unique(unit_of[y == c]).size for c in (a, b))
        few = FEW_TRACKS if min(counts) < TOO_FEW else FEW_ARTISTS if units < FEW_GROUPS else ""
        order, p = None, None
        if not few:
            order, p = _permuted(x, y, parts, (a, b), unit_of, permutations, generator)
        found.append(Pair(names[a], names[b], *counts, score, order, p, None, few))
    return _with_q_values(found)


def trained_accuracy(
    models: Sequence[Floats], labels: Ints, folds: Sequence[Fold], a: int, b: int
) -> Score | None:
    """Return the balanced accuracy between subgenres a and b, held out, by the nearer centroid.

    Shapes: models: [N, E] a fold; labels [N]. Chance is 0.5. The 95 % interval joins the Wilson
    intervals of the two recalls by square-and-add (Newcombe 1998; Zou and Donner 2008); the number
    of tracks counts, not of repeats. None where no fold tests both or trains on both.
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
    folds: Sequence[Fold],
    pair: tuple[int, int],
    unit_of: Ints,
    permutations: int,
    generator: np.random.Generator,
) -> tuple[float | None, float | None]:
    """AUC of a ridge probe over the folds, pooled by pairs of tracks, and its p-value."""
    members = np.flatnonzero(np.isin(y, pair))
    place = np.full(len(y), -1)
    place[members] = np.arange(members.size)
    is_b = _shuffles(y[members] == pair[1], unit_of[members], permutations, generator)  # [n, 1 + P]
    wins, pairs_seen = np.zeros(1 + permutations), np.zeros(1 + permutations)
    for train, test in folds:
        fit, judged = (side[place[side] >= 0] for side in (train, test))
        if fit.size < 2 or judged.size < 2:
            continue
        target = _balanced(is_b[place[fit]])
        scores = ridge_hat(x[fit], x[judged]) @ target  # [m, 1 + P]
        truth = is_b[place[judged]]
        n_b = truth.sum(axis=0)
        rank_sum = np.where(truth, rankdata(scores, axis=0), 0.0).sum(axis=0)
        wins += rank_sum - n_b * (n_b + 1) / 2
        pairs_seen += n_b * (judged.size - n_b)
    order = np.divide(wins, pairs_seen, out=np.full(1 + permutations, 0.5), where=pairs_seen > 0)
    if pairs_seen[0] == 0:
        return None, None
    reached = int(np.sum(order[1:] >= order[0] - 1e-12))
    return float(order[0]), (1 + reached) / (1 + permutations)


def _shuffles(
    is_b: np.ndarray, unit_of: Ints, permutations: int, generator: np.random.Generator
) -> np.ndarray:
    """The true labels and their permutations as columns: [n, 1 + P]. A unit moves as a whole."""
    units, of = np.unique(np.stack([unit_of, is_b]), axis=1, return_inverse=True)
    labels = units[1].astype(bool)
    columns = [labels, *(generator.permutation(labels) for _ in range(permutations))]
    return np.stack(columns, axis=1)[of.ravel()]


def _balanced(is_b: np.ndarray) -> Floats:
    """Targets of mean 0 in which both sides weigh the same: [n, P]; zeros if a side is empty."""
    n_b = is_b.sum(axis=0)
    n_a = len(is_b) - n_b
    both = (n_a > 0) & (n_b > 0)
    return np.asarray(np.where(is_b, 1 / np.maximum(n_b, 1), -1 / np.maximum(n_a, 1)) * both)


def _with_q_values(found: Sequence[Pair]) -> tuple[Pair, ...]:
    judged = [i for i, pair in enumerate(found) if pair.p_value is not None]
    q = false_discovery_control([found[i].p_value for i in judged]) if judged else []
    by_row = dict(zip(judged, q, strict=True))
    result = []
    for i, pair in enumerate(found):
        value = float(by_row[i]) if i in by_row else None
        result.append(replace(pair, q_value=value, verdict=pair.verdict or _verdict(pair, value)))
    return tuple(result)


def _verdict(pair: Pair, q: float | None) -> str:
    if q is None:
        return FEW_TRACKS
    if q <= LEVEL and (pair.trained is None or pair.trained.low > 0.5):
        return APART
    hint = q <= LEVEL or (pair.trained is not None and pair.trained.low > 0.5)
    return UNSURE if hint else ALIKE


def run(context: Context) -> tuple[Pair, ...]:
    """Judge each pair by the frozen vectors and by the trained model of each fold."""
    return pairs(
        context.frozen,
        context.labels,
        context.names,
        context.positions,
        trained=[fold.vectors["trained"] for fold in context.folds],
        seed=context.seed,
    )


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
        "Can the two subgenres of a pair be told apart? Accuracy is the trained model's on its "
        "held-out tracks. p tests the backbone before training: how often a light probe does as "
        "well with shuffled labels, corrected for the number of pairs (Benjamini and Hochberg). "
        "Told apart: p is at most 0.05 and the accuracy's interval lies above chance. Unsure: only "
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
    missed = [f"{p.a} and {p.b}" for p in judged if p.verdict == "not told apart"]
    unsure = [f"{p.a} and {p.b}" for p in judged if p.verdict == "unsure"]
    if len(judged) > 1 and all(p.verdict == "told apart" for p in judged):
        return f"Each of the {len(judged)} pairs of subgenres can be told apart."
    parts = [f"Not told apart: {_first(missed)}."] if missed else []
    parts += [f"Unsure whether they can be told apart: {_first(unsure)}."] if unsure else []
    return " ".join(parts)


def _first(pairs: Sequence[str]) -> str:
    more = len(pairs) - NAMED_PAIRS
    return "; ".join(pairs[:NAMED_PAIRS]) + (f"; {counted(more, 'more pair')}" if more > 0 else "")


AUDIT = Audit("pairs", run, section, applies=over_folds)
