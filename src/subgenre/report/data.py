"""What a report shows: plain values, every part optional; a part that is absent has no section."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from subgenre.errors import EvaluationError

SPLITS = ("train", "test", "new")
TOLD_APART_Q = 0.05
UNSURE = "unsure"  # of a pair: one test speaks for a difference, the other doesn't


@dataclass(frozen=True)
class Figure:
    """A value with its 95 % interval and its chance level; None where there is none."""

    value: float
    low: float | None = None
    high: float | None = None
    chance: float | None = None

    @property
    def has_interval(self) -> bool:
        """Whether both ends of the interval are known."""
        return self.low is not None and self.high is not None


def figure(score: Any) -> Figure | None:
    """Read a figure from a number, from `{value, low?, high?, chance?}` or from such an object.

    Values that are no finite number become None: a score that could not be computed is absent,
    never zero.

    Raises:
        EvaluationError: a mapping without `value`, or something that holds no number.
    """
    if score is None or isinstance(score, Figure):
        return score if score is None or math.isfinite(score.value) else None
    if isinstance(score, Mapping):
        if "value" not in score:
            raise EvaluationError(f"a score holds no 'value': {dict(score)!r}")
        parts = {name: score.get(name) for name in ("value", "low", "high", "chance")}
    elif hasattr(score, "value"):
        parts = {name: getattr(score, name, None) for name in ("value", "low", "high", "chance")}
    else:
        parts = {"value": score}
    numbers = {name: _finite(value) for name, value in parts.items()}
    value = numbers.pop("value")
    return None if value is None else Figure(value, **numbers)


def _finite(value: Any) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise EvaluationError(f"a score is {value!r}; it must be a number") from None
    return number if math.isfinite(number) else None


@dataclass(frozen=True)
class Rung:
    """One rung of the ladder of baselines.

    Attributes:
        name: as in `metrics.json`: `chance`, `frozen`, `probe`, `trained`, ...
        what: what it is, in a few words.
        figures: by the metric's name; anything that `figure` reads.
    """

    name: str
    what: str
    figures: Mapping[str, Any]


@dataclass(frozen=True)
class Point:
    """One track: where it lies on the map, what it is and what the model takes it for.

    Attributes:
        x, y: on the map. subgenre, predicted: names out of `ReportData.labels`; `predicted` is ""
            where nothing was predicted, and may be "none of these".
        split: one of `SPLITS`.
        start_s: where in the file its preview begins.
        sure: probability of `predicted`, if known.
    """

    id: str
    x: float
    y: float
    title: str
    artist: str
    path: str
    genre: str
    subgenre: str
    split: str
    predicted: str = ""
    start_s: float = 0.0
    sure: float | None = None

    @property
    def misplaced(self) -> bool:
        """Whether a held-out track was taken for another subgenre."""
        return self.split == "test" and self.predicted not in ("", self.subgenre)


@dataclass(frozen=True)
class Epoch:
    """One epoch of training; None where a figure was not taken."""

    epoch: int
    loss: float
    active: float | None = None
    spread: float | None = None
    val_map_at_r: float | None = None


@dataclass(frozen=True)
class CurveStep:
    """A step of the learning curve: the score with so many training tracks a subgenre."""

    tracks: float
    score: Any


@dataclass(frozen=True)
class Pair:
    """Whether two subgenres can be told apart: held-out accuracy, and the p-value after
    Benjamini-Hochberg over the pairs (`q`); `note` says why there is no answer ("unsure",
    "too few tracks")."""

    a: str
    b: str
    accuracy: Any = None
    q: float | None = None
    note: str = ""

    @property
    def told_apart(self) -> bool | None:
        """None where a note says why not, or there is no figure to judge by."""
        if self.note:
            return None
        if self.q is not None and math.isfinite(self.q):
            return self.q <= TOLD_APART_Q
        found = figure(self.accuracy)
        if found is None or found.low is None:
            return None
        return found.low > (0.5 if found.chance is None else found.chance)

    @property
    def verdict(self) -> str:
        """The one word for this pair, in the table and in the summary."""
        if self.note:
            return self.note
        return {True: "told apart", False: "not told apart", None: "no figure"}[self.told_apart]


@dataclass(frozen=True)
class Table:
    """A table with a few sentences above it: leakage, confounders, open set, hubness.

    Attributes:
        columns: their headings; under a metric's own ("Centroid accuracy"), figures are written
            in its manner. rows: cells, each text, a number, None, or what `figure` reads.
        words: sentences above the table. headline: one for the summary, if it must be known there.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    words: tuple[str, ...] = ()
    headline: str = ""


@dataclass(frozen=True)
class Suggestion:
    """One line of the doctor: a track, what is the matter, the playlist it fits and how surely.

    `id` names the track among `ReportData.points`; one that is not there can't be played.
    """

    id: str
    kind: str
    title: str
    subgenre: str = ""
    fits: str = ""
    sure: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Backbone:
    """The backbone of the model, for the card and the footer."""

    name: str
    licence: str = ""
    source: str = ""


@dataclass(frozen=True)
class ReportData:
    """All that a report can show; leave out what there is not.

    Attributes:
        main, baseline: names of the rungs that the summary speaks of.
        n_train, n_test: tracks. folds, repeats: 0 for a single split.
        labels, genres: subgenres in the order of `confusion` and the genre of each.
        confusion: [true, predicted] numbers of held-out tracks.
        map_method: "UMAP" or "PCA". map_k: neighbours of the two figures of the map.
        curve_words: what more tracks would bring. split_by: "track, artist, album, recording".
        warnings: of the split and of whatever could not be computed. skipped: files left out.
    """

    title: str
    made: str = ""
    main: str = "trained"
    baseline: str = "frozen"
    n_train: int = 0
    n_test: int = 0
    folds: int = 0
    repeats: int = 0
    ladder: tuple[Rung, ...] = ()
    labels: tuple[str, ...] = ()
    genres: tuple[str, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()
    points: tuple[Point, ...] = ()
    map_method: str = "UMAP"
    map_k: int = 0
    trustworthiness: float | None = None
    knn_agreement: float | None = None
    pairs: tuple[Pair, ...] = ()
    history: tuple[Epoch, ...] = ()
    curve: tuple[CurveStep, ...] = ()
    curve_words: str = ""
    views: Table | None = None
    leakage: Table | None = None
    confounders: Table | None = None
    open_set: Table | None = None
    hubness: Table | None = None
    doctor: tuple[Suggestion, ...] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    fingerprint: str = ""
    split_by: str = ""
    warnings: tuple[str, ...] = ()
    skipped: int = 0
    backbone: Backbone | None = None

    def __post_init__(self) -> None:
        """Refuse parts that contradict one another."""
        n = len(self.labels)
        if len(self.genres) != n:
            raise EvaluationError(f"{n} labels but {len(self.genres)} genres in the report")
        if len(self.confusion) and {len(self.confusion), *map(len, self.confusion)} != {n}:
            raise EvaluationError(f"the confusion matrix of {n} labels is not {n} by {n}")
        for point in self.points:
            if point.split not in SPLITS:
                raise EvaluationError(f"split is '{point.split}'; choose train, test or new")

    def rung(self, name: str) -> Rung | None:
        """Return the rung of that name, None where there is none."""
        return next((rung for rung in self.ladder if rung.name == name), None)

    def score(self, name: str, metric: str) -> Figure | None:
        """Return a rung's figure, None where there is none."""
        rung = self.rung(name)
        return None if rung is None else figure(rung.figures.get(metric))

    def counts(self) -> dict[str, dict[str, int]]:
        """Numbers of tracks on the map, by subgenre and split."""
        found = {label: dict.fromkeys(SPLITS, 0) for label in self.labels}
        for point in self.points:
            found.setdefault(point.subgenre, dict.fromkeys(SPLITS, 0))[point.split] += 1
        return found

    def confusions(self) -> list[Point]:
        """Held-out tracks taken for another subgenre, the surest mistakes first."""
        wrong = [point for point in self.points if point.misplaced]
        return sorted(wrong, key=lambda p: (-(p.sure or 0.0), p.subgenre, p.predicted, p.id))


def drawable(points: Iterable[Point]) -> list[Point]:
    """Return the points whose coordinates are finite numbers."""
    return [point for point in points if math.isfinite(point.x) and math.isfinite(point.y)]


def by_genre(genres: Sequence[str]) -> list[int]:
    """Positions of the labels with those of one genre together, genres by their names."""
    return sorted(range(len(genres)), key=genres.__getitem__)
