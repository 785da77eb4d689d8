"""Confounders: can something other than the music predict the subgenre?

If tempo, loudness, the cut-off of an encoder or the year alone names the playlist, a model may have
learnt that instead of the music (Sturm 2014, "horses"). Each column alone, and all together, is
given to a small additive classifier inside the same folds; its accuracy stands beside chance, an
interval over tracks and a permutation p-value. And each subgenre is compared with the rest, column
by column, so that one odd playlist among many is named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import false_discovery_control, mannwhitneyu

from subgenre.core.text import p_value, percent
from subgenre.errors import EvaluationError
from subgenre.evaluation.audits.base import (
    Audit,
    Context,
    Result,
    Section,
    Table,
    over_folds,
    share_text,
)
from subgenre.evaluation.audits.probe import (
    Floats,
    Fold,
    Ints,
    checked_folds,
    grouped_folds,
    one_hot,
    share,
)
from subgenre.metrics import Score

if TYPE_CHECKING:
    from subgenre.library.track import Track

FOLDS = 5
KNOTS = 8  # of the piecewise linear function of a numeric column
BLOCK = 50  # permutations held at a time
RIDGE = 1.0  # one track's weight pulls each knot towards the mean
LEVEL = 0.02  # of the false discovery rate, up to which a column or subgenre is named
STANDS_OUT = 0.9  # AUC of one subgenre against the rest, above which it is named

PHRASES = {
    "loudness_lufs": ("loudness", "louder", "quieter", "dB"),
    "peak": ("peak level", "higher in peak level", "lower in peak level", ""),
    "clipped_share": ("clipping", "more clipped", "less clipped", ""),
    "silent_share": ("silence", "more silent", "less silent", ""),
    "cutoff_hz": ("spectral cut-off", "brighter at the top", "duller at the top", "Hz"),
    "tempo_bpm": ("tempo", "faster", "slower", "bpm"),
    "bpm": ("the bpm tag", "faster by its tags", "slower by its tags", "bpm"),
    "duration_s": ("duration", "longer", "shorter", "s"),
    "bit_rate": ("bit rate", "higher in bit rate", "lower in bit rate", "bit/s"),
    "rate": ("sample rate", "higher in sample rate", "lower in sample rate", "Hz"),
    "channels": ("channels", "wider", "narrower", "channels"),
    "year": ("year", "newer", "older", "years"),
    "container": ("file type", "", "", ""),
    "artist": ("artist", "", "", ""),
    "label": ("record label", "", "", ""),
}


@dataclass(frozen=True)
class Standout(Result):
    """One subgenre that a column separates from the rest.

    Attributes: auc: probability that one of its tracks is above one of the rest, 0..1; difference
    of the medians in the column's unit; q_value over all columns and subgenres.
    """

    column: str
    subgenre: str
    auc: float
    difference: float
    q_value: float
    text: str


@dataclass(frozen=True)
class Confounder(Result):
    """How well one column predicts the subgenre.

    Attributes: column: its name, or "all together"; accuracy on held-out tracks; known_share: of
    tracks that have a value; p_value by permutation; q_value over the columns (Benjamini and
    Hochberg); named: it is significantly better than chance.
    """

    column: str
    accuracy: Score
    known_share: float
    p_value: float
    q_value: float
    named: bool
    text: str


@dataclass(frozen=True)
class Confounders(Result):
    """All columns, the most telling first; the subgenres that stand out; lines in plain words."""

    columns: tuple[Confounder, ...]
    together: Confounder
    standouts: tuple[Standout, ...]
    notes: tuple[str, ...]


def track_columns(
    tracks: Sequence[Track],
    chunks: Mapping[str, ArrayLike] | None = None,
    track_of: ArrayLike = (),
) -> dict[str, NDArray[np.generic]]:
    """Return the columns that could give a label away: [N] numbers, or text for tags.

    `chunks` holds measured columns [n], `track_of` [n] the position of each chunk's track; a track
    gets the mean of its chunks. What a tag leaves empty, a year of 0 and a tempo of 0 are missing:
    NaN, or "".
    """
    of = np.asarray(track_of, dtype=np.int64)
    columns: dict[str, NDArray[np.generic]] = {}
    for name, values in (chunks or {}).items():
        column = np.asarray(values, dtype=np.float64)
        if name == "tempo_bpm":
            column = np.where(column > 0, column, np.nan)
        known = np.isfinite(column)
        total = np.bincount(of[known], column[known], minlength=len(tracks))
        count = np.bincount(of[known], minlength=len(tracks))
        columns[name] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    for name in ("duration_s", "bit_rate", "rate", "channels", "year", "bpm"):
        column = np.array([float(getattr(t, name)) for t in tracks])
        columns[name] = np.where(column > 0, column, np.nan)
    for name in ("container", "artist", "label"):
        columns[name] = np.array([str(getattr(t, name)).strip().casefold() for t in tracks])
    return columns


def confounders(
    columns: Mapping[str, NDArray[np.generic]],
    labels: ArrayLike,
    names: Sequence[str],
    folds: Sequence[Fold],
    *,
    permutations: int = 999,
    seed: int = 0,
) -> Confounders:
    """Measure how well each column alone, and all together, predict the subgenre.

    Shapes: columns of [N] numbers (NaN: missing) or text ("": missing); labels [N]; names [C];
    folds of positions. Folds that hold artists out can't show what the artist alone says:
    for tags, pass folds by track.

    Raises: EvaluationError where a column has another length, or there is one subgenre only.
    """
    y = np.asarray(labels, dtype=np.int64)
    if np.unique(y).size < 2:
        raise EvaluationError("there is one subgenre only: nothing to tell apart")
    parts, generator = checked_folds(folds, y.size), np.random.default_rng(seed)
    shuffled = np.stack([y, *(generator.permutation(y) for _ in range(permutations))])
    designs = {}
    for name, values in columns.items():
        if values.shape != y.shape:
            raise EvaluationError(f"column {name} has shape {values.shape} for {y.size} tracks")
        if _known(values).any() and np.unique(values[_known(values)]).size + _gaps(values) > 1:
            designs[name] = values
    dropped = [_word(n) for n in columns if n not in designs]
    notes = [f"Empty or the same for all tracks: {', '.join(dropped)}."] if dropped else []
    if not designs:
        raise EvaluationError("no column varies: there is nothing that could confound")
    rows = [_judge([v], shuffled, parts, len(names)) for v in designs.values()]
    together = _judge(list(designs.values()), shuffled, parts, len(names))
    q = false_discovery_control([p for _, p in rows])
    known = [float(_known(v).mean()) for v in designs.values()]
    found = [_confounder(n, *rows[i], float(q[i]), known[i]) for i, n in enumerate(designs)]
    found.sort(key=lambda c: -c.accuracy.value)
    whole = _confounder("all together", *together, together[1], 1.0)
    outstanding = standouts(designs, y, names)
    notes = [*(c.text for c in found if c.named), *(s.text for s in outstanding), *notes]
    return Confounders(tuple(found), whole, tuple(outstanding), tuple(notes))


def standouts(
    columns: Mapping[str, NDArray[np.generic]], labels: Ints, names: Sequence[str]
) -> list[Standout]:
    """Return the subgenres that one numeric column separates from the rest, clearest first.

    By the rank-sum test of Mann and Whitney, false discoveries held by Benjamini and Hochberg over
    all columns and subgenres. Shapes: columns of [N], labels [N], names [C].
    """
    cases, p_values = [], []
    for column, values in columns.items():
        if values.dtype.kind not in "fiu":
            continue
        x, known = values.astype(np.float64), _known(values)
        for c in np.unique(labels):
            own, rest = x[known & (labels == c)], x[known & (labels != c)]
            if min(own.size, rest.size) < 3 or np.ptp(np.concatenate([own, rest])) == 0:
                continue
            test = mannwhitneyu(own, rest, method="asymptotic")
            auc = float(test.statistic) / (own.size * rest.size)
            cases.append((column, names[c], auc, float(np.median(own) - np.median(rest))))
            p_values.append(float(test.pvalue))
    if not cases:
        return []
    q = false_discovery_control(p_values)
    rows = [
        Standout(column, name, auc, gap, float(q[i]), _outstanding(column, name, auc, gap))
        for i, (column, name, auc, gap) in enumerate(cases)
        if q[i] <= LEVEL and max(auc, 1 - auc) >= STANDS_OUT
    ]
    return sorted(rows, key=lambda s: -abs(s.auc - 0.5))


def _judge(
    columns: Sequence[NDArray[np.generic]], shuffled: Ints, folds: Sequence[Fold], n_classes: int
) -> tuple[Score, float]:
    """Held-out accuracy with the true labels (row 0 of `shuffled`), and its permutation p-value."""
    n_tracks = shuffled.shape[1]
    right, times = np.zeros(shuffled.shape), np.zeros(n_tracks)
    for train, test in folds:
        design = np.hstack([_basis(column, train) for column in columns])
        fitted = design[train] - design[train].mean(axis=0)
        new = design[test] - design[train].mean(axis=0)
        inverse = fitted.T @ fitted + RIDGE * np.eye(fitted.shape[1])
        weights = new @ np.linalg.solve(inverse, fitted.T) + 1 / len(train)  # [m, n]
        for start in range(0, len(shuffled), BLOCK):
            y = shuffled[start : start + BLOCK]
            scores = weights @ one_hot(y[:, train], n_classes)  # [R, m, C]
            right[start : start + BLOCK, test] += scores.argmax(axis=2) == y[:, test]
        times[test] += 1
    seen = times > 0
    accuracy = (right[:, seen] / times[seen]).mean(axis=1)
    p = float((1 + np.sum(accuracy[1:] >= accuracy[0])) / shuffled.shape[0])
    largest = float(np.bincount(shuffled[0][seen]).max() / seen.sum())
    return share(right[0, seen] / times[seen], chance=largest), p


def _basis(column: NDArray[np.generic], train: Ints) -> Floats:
    """A column as [N, K] for an additive model: hat functions or categories, and "is missing"."""
    known = _known(column)
    missing = (~known).astype(np.float64)[:, None]
    if column.dtype.kind not in "fiu":
        values = np.unique(column[train][known[train]])
        return np.hstack([(column[:, None] == values[None, :]).astype(np.float64), missing])
    x = np.where(known, column, 0).astype(np.float64)
    seen = x[train][known[train]]
    knots = np.unique(np.quantile(seen, np.linspace(0, 1, KNOTS))) if seen.size else np.zeros(1)
    eye = np.eye(knots.size)
    hats = np.stack([np.interp(x, knots, row) for row in eye], axis=1)
    return np.hstack([hats * known[:, None], missing])


def _known(column: NDArray[np.generic]) -> NDArray[np.bool_]:
    if column.dtype.kind in "fiu":
        return np.isfinite(column.astype(np.float64))
    return np.asarray(column != "")


def _gaps(column: NDArray[np.generic]) -> bool:
    return not bool(_known(column).all())


def _word(column: str) -> str:
    return PHRASES.get(column, (column,))[0]


def _confounder(name: str, accuracy: Score, p: float, q: float, known: float) -> Confounder:
    named = q <= LEVEL and accuracy.low > accuracy.chance
    word = _word(name)
    text = (
        f"{word[:1].upper()}{word[1:]} alone gives the subgenre of {percent(accuracy.value)} of "
        f"held-out tracks; chance is {percent(accuracy.chance)}."
    )
    return Confounder(name, accuracy, known, p, q, named, text)


def _outstanding(column: str, name: str, auc: float, gap: float) -> str:
    default = (column, f"higher in {column}", f"lower in {column}", "")
    _, more, less, unit = PHRASES.get(column, default)
    amount = f" by {abs(gap):.3g} {unit}".rstrip() if gap else ""
    return (
        f"{name} is {more if auc > 0.5 else less} than the rest{amount}; {_word(column)} alone "
        f"separates {percent(max(auc, 1 - auc))} of its pairs with other tracks."
    )


def run(context: Context) -> Confounders:
    """Measure the confounders in folds by track: folds by artist hide what the artist reveals."""
    by_track = np.arange(len(context.labels))
    folds = grouped_folds(context.labels, by_track, FOLDS, seed=context.seed)
    return confounders(context.columns, context.labels, context.names, folds, seed=context.seed)


def section(found: Confounders, _: Context) -> Section:
    """Show how well each property alone gives a playlist away."""
    rows = tuple(
        (
            _word(c.column),
            share_text(c.accuracy),
            percent(c.known_share),
            p_value(c.q_value),
            "yes" if c.named else "",
        )
        for c in (found.together, *found.columns)
    )
    named = [c.text for c in found.columns if c.named]
    remarkable = [one.text for one in found.standouts] + named
    return Section(
        "confounders",
        "Confounders",
        "How many held-out tracks does one property assign to the right subgenre? "
        "The model may have learnt a property that is clearly above chance instead of the music.",
        " ".join(note for note in found.notes if note not in named),  # the table holds these
        (
            Table(
                ("Property", "Held-out accuracy", "Known for", "p, corrected", "Above chance"),
                rows,
                "Confounders",
            ),
        ),
        remarkable[0] if remarkable else "",
    )


AUDIT = Audit("confounders", run, section, applies=over_folds)
