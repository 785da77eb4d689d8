"""Confounders: can something other than the music predict the subgenre?

If tempo, loudness, the cut-off of an encoder or the year predicts the playlist, a model may have
learnt that instead of the music (Sturm 2014, "horses"). A small additive classifier gets each
column alone, and all together; its held-out accuracy is compared with chance by a permutation test.
And each subgenre is compared with the rest, column by column, to find one odd playlist among many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import false_discovery_control, mannwhitneyu

from subgenre.core.text import p_value, percent, two_digits
from subgenre.errors import EvaluationError
from subgenre.evaluation.audits.base import Audit, Context, Section, Table, over_folds, share_text
from subgenre.evaluation.audits.probe import Fold, grouped_folds, share
from subgenre.library.track import Track
from subgenre.metrics import Score
from subgenre.metrics.vectors import Floats, Ints, one_hot

Column = NDArray[np.generic]

FOLDS = 5
KNOTS = 8  # of the piecewise linear function of a numeric column
BLOCK = 50  # permutations held at a time
RIDGE = 1.0  # one track's weight pulls each knot towards the mean
LEVEL = 0.02  # of the false discovery rate, up to which a column or subgenre is named
LEAST_PEAK = 1e-5  # of full scale, -100 dB: that of digital silence too
STANDS_OUT = 0.9  # AUC of one subgenre against the rest, above which it is named

TOGETHER = "all together"
PHRASES = {  # name, more of it, less of it, unit
    "loudness_lufs": ("loudness", "louder", "quieter", "dB"),
    "peak_db": ("peak level", "higher in peak level", "lower in peak level", "dB"),
    "clipped_share": ("clipping", "more clipped", "less clipped", "of the samples"),
    "silent_share": ("silence", "more silent", "less silent", "of the time"),
    "cutoff_hz": ("spectral cut-off", "brighter at the top", "duller at the top", "Hz"),
    "tempo_bpm": ("tempo", "faster", "slower", "bpm"),
    "cancelled_share": (
        "cancelling channels",
        "more out of phase",
        "less out of phase",
        "of the time",
    ),
    "bpm": ("the bpm tag", "faster by its tags", "slower by its tags", "bpm"),
    "duration_s": ("duration", "longer", "shorter", "s"),
    "bit_rate": ("bit rate", "higher in bit rate", "lower in bit rate", "bit/s"),
    "rate": ("sample rate", "higher in sample rate", "lower in sample rate", "Hz"),
    "channels": ("channels", "wider", "narrower", "channels"),
    "year": ("year", "newer", "older", "years"),
    "container": ("file type", "", "", ""),
    "artist": ("artist", "", "", ""),
    "label": ("record label", "", "", ""),
    TOGETHER: (TOGETHER, "", "", ""),
}


@dataclass(frozen=True)
class Standout:
    """One subgenre that a column separates from the rest.

    Attributes:
        auc: probability that one of its tracks is above one of the rest, 0..1.
        difference: of the medians, in the column's unit. q_value: over columns and subgenres.
    """

    column: str
    subgenre: str
    auc: float
    difference: float
    q_value: float
    text: str


@dataclass(frozen=True)
class Confounder:
    """How well one column predicts the subgenre.

    Attributes:
        column: its name, or "all together". accuracy: on held-out tracks.
        known_share: of tracks that have a value. p_value: by permutation.
        q_value: over the columns (Benjamini and Hochberg). named: it is above chance.
    """

    column: str
    accuracy: Score
    known_share: float
    p_value: float
    q_value: float
    named: bool
    text: str


@dataclass(frozen=True)
class Confounders:
    """All columns, the most accurate first; the subgenres that stand out; lines in plain words."""

    columns: tuple[Confounder, ...]
    together: Confounder
    standouts: tuple[Standout, ...]
    notes: tuple[str, ...]


def track_columns(
    tracks: Sequence[Track], chunks: Mapping[str, ArrayLike], track_of: Ints
) -> dict[str, Column]:
    """Return the columns that could predict a label: [N] numbers, or text for tags.

    `chunks` holds measured columns [n], `track_of` [n] the position of each chunk's track; a track
    gets the mean of its chunks, its peak in dB. An empty tag, a year of 0 and a tempo of 0 are
    missing: NaN, or "".
    """
    columns: dict[str, Column] = {}
    for name, values in chunks.items():
        column = np.asarray(values, dtype=np.float64)
        known = np.isfinite(column) & ((column > 0) | (name != "tempo_bpm"))
        total = np.bincount(track_of[known], column[known], minlength=len(tracks))
        count = np.bincount(track_of[known], minlength=len(tracks))
        columns[name] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    if "peak" in columns:
        columns["peak_db"] = 20 * np.log10(np.maximum(columns.pop("peak"), LEAST_PEAK))
    for name in ("duration_s", "bit_rate", "rate", "channels", "year", "bpm"):
        column = np.array([float(getattr(t, name)) for t in tracks])
        columns[name] = np.where(column > 0, column, np.nan)
    for name in ("container", "artist", "label"):
        columns[name] = np.array([str(getattr(t, name)).strip().casefold() for t in tracks])
    return columns


def run(context: Context, *, permutations: int = 999) -> Confounders:
    """Measure how well each column alone, and all together, predict the subgenre.

    The folds are drawn by track: folds that hold artists out would hide how well the artist does.

    Raises: EvaluationError where no column varies.
    """
    columns, labels, names = context.columns, context.labels, context.names
    folds = grouped_folds(labels, np.arange(len(labels)), FOLDS, seed=context.seed)
    generator = np.random.default_rng(context.seed)
    shuffled = np.stack([labels, *(generator.permutation(labels) for _ in range(permutations))])
    varying = {name: column for name, column in columns.items() if np.unique(column).size > 1}
    if not varying:
        raise EvaluationError("no column varies: there is nothing that could confound")

    def judge(chosen: Sequence[Column]) -> tuple[Score, float]:
        return _judge(chosen, shuffled, folds, len(names), context.chance)

    judged = [judge([column]) for column in varying.values()]
    q_values = false_discovery_control([p for _, p in judged])
    found = [
        _confounder(name, *one, float(q), float(_known(varying[name]).mean()))
        for name, one, q in zip(varying, judged, q_values, strict=True)
    ]
    found.sort(key=lambda c: -c.accuracy.value)
    accuracy, p = judge(list(varying.values()))
    outstanding = standouts(varying, labels, names)
    notes = [*(c.text for c in found if c.named), *(s.text for s in outstanding)]
    if len(varying) < len(columns):
        dropped = ", ".join(PHRASES[name][0] for name in columns if name not in varying)
        notes.append(f"Empty or the same for all tracks: {dropped}.")
    together = _confounder(TOGETHER, accuracy, p, p, 1.0)
    return Confounders(tuple(found), together, tuple(outstanding), tuple(notes))


def standouts(columns: Mapping[str, Column], labels: Ints, names: Sequence[str]) -> list[Standout]:
    """Return the subgenres that one numeric column separates from the rest, clearest first.

    By the rank-sum test of Mann and Whitney; the false discovery rate is controlled over all
    columns and subgenres (Benjamini and Hochberg).
    """
    cases, p_values = [], []
    for column, values in columns.items():
        if values.dtype.kind == "U":
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
    found = []
    for (column, name, auc, gap), q in zip(cases, false_discovery_control(p_values), strict=True):
        clear = max(auc, 1 - auc)
        if q > LEVEL or clear < STANDS_OUT:
            continue
        word, more, less, unit = PHRASES[column]
        is_share = unit.startswith("of ")
        size = f"{two_digits(100 * abs(gap))} %" if is_share else two_digits(abs(gap))
        amount = f" by {size} {unit}" if gap else ""
        text = (
            f"{name} is {more if auc > 0.5 else less} than the rest{amount}; {word} alone "
            f"separates {percent(clear)} of its pairs with other tracks."
        )
        found.append(Standout(column, name, auc, gap, float(q), text))
    return sorted(found, key=lambda s: -abs(s.auc - 0.5))


def _judge(
    columns: Sequence[Column],
    shuffled: Ints,
    folds: Sequence[Fold],
    n_classes: int,
    chance: float,
) -> tuple[Score, float]:
    """Return the held-out accuracy with the true labels (row 0), and its permutation p-value."""
    right = np.zeros(shuffled.shape)
    for train, test in folds:
        design = np.hstack([_basis(column, train) for column in columns])
        fitted = design[train] - design[train].mean(axis=0)
        new = design[test] - design[train].mean(axis=0)
        inverse = fitted.T @ fitted + RIDGE * np.eye(fitted.shape[1])
        weights = new @ np.linalg.solve(inverse, fitted.T) + 1 / len(train)  # [m, n]
        for start in range(0, len(shuffled), BLOCK):
            y = shuffled[start : start + BLOCK]
            scores = weights @ one_hot(y[:, train], n_classes)  # [R, m, C]
            right[start : start + BLOCK, test] = scores.argmax(axis=2) == y[:, test]
    accuracy = right.mean(axis=1)
    p = float((1 + np.sum(accuracy[1:] >= accuracy[0])) / len(shuffled))
    return share(right[0], chance=chance), p


def _basis(column: Column, train: Ints) -> Floats:
    """Return a column as [N, K]: categories or hat functions, and whether it is missing."""
    known = _known(column)
    missing = (~known).astype(np.float64)[:, None]
    if column.dtype.kind == "U":
        values = np.unique(column[train][known[train]])
        return np.hstack([(column[:, None] == values).astype(np.float64), missing])
    x = np.where(known, column, 0).astype(np.float64)
    seen = x[train][known[train]]
    knots = np.unique(np.quantile(seen, np.linspace(0, 1, KNOTS))) if seen.size else np.zeros(1)
    hats = np.stack([np.interp(x, knots, row) for row in np.eye(knots.size)], axis=1)
    return np.hstack([hats * known[:, None], missing])


def _known(column: Column) -> NDArray[np.bool_]:
    return np.asarray(column != "" if column.dtype.kind == "U" else ~np.isnan(column))


def _confounder(name: str, accuracy: Score, p: float, q: float, known: float) -> Confounder:
    named = q <= LEVEL and accuracy.low > accuracy.chance
    word = PHRASES[name][0]
    text = (
        f"{word[:1].upper()}{word[1:]} alone gives the subgenre of {percent(accuracy.value)} of "
        f"held-out tracks; chance is {percent(accuracy.chance)}."
    )
    return Confounder(name, accuracy, known, p, q, named, text)


def section(found: Confounders, _: Context) -> Section:
    """Show how well each property alone predicts a playlist."""
    rows = tuple(
        (
            PHRASES[c.column][0],
            share_text(c.accuracy),
            percent(c.known_share),
            p_value(c.q_value),
            "yes" if c.named else "not clearly",
        )
        for c in (found.together, *found.columns)
    )
    columns = ("Property", "Held-out accuracy", "Known for", "p, corrected", "Above chance")
    tables = [Table(columns, rows, "Confounders")]
    if found.standouts:
        lines = tuple((s.subgenre, PHRASES[s.column][0], s.text) for s in found.standouts)
        tables.append(Table(("Subgenre", "Property", "Difference"), lines, "Subgenres that differ"))
    # the tables hold the others
    in_tables = [s.text for s in found.standouts[1:]] + [c.text for c in found.columns]
    named = [c.text for c in found.columns if c.named]
    remarkable = [one.text for one in found.standouts] + named
    return Section(
        "confounders",
        "Confounders",
        "How many held-out tracks does one property assign to the right subgenre? "
        "The model may have learnt a property that is clearly above chance instead of the music: "
        f"p is at most {LEVEL}, and the whole interval lies above chance "
        f"({percent(found.together.accuracy.chance)}, as for the model).",
        " ".join(note for note in found.notes if note not in in_tables),
        tuple(tables),
        remarkable[0] if remarkable else "",
    )


AUDIT = Audit("confounders", run, section, applies=over_folds)
