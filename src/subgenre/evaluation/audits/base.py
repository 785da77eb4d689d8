"""What every audit shares: its context, its result, and the section of the report that shows it.

A section holds plain values, which the report draws.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from subgenre.core.progress import Console, Silent
from subgenre.core.text import percent_interval
from subgenre.metrics import Score

if TYPE_CHECKING:
    from subgenre.config import TrainConfig
    from subgenre.dataset.folder import FeatureFolder
    from subgenre.evaluation.audits.duplicates import Duplicates
    from subgenre.evaluation.baselines import Fold
    from subgenre.library.track import Track

ABSENT = "–"  # noqa: RUF001  an en dash is what an empty cell shows


@dataclass(frozen=True)
class Result:
    """Base of the audits' results."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, numbers and strings; a value that is not finite becomes None."""
        return {f.name: plain(getattr(self, f.name)) for f in dataclasses.fields(self)}


@dataclass(frozen=True)
class Interval(Result):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


def plain(value: Any) -> Any:
    """Return a value as JSON has it: dataclasses as dicts, arrays as lists, NaN as None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


@dataclass(frozen=True)
class Table:
    """Rows of text below a header; the first column names the row.

    A cell with an interval reads "83 % (78 to 86)".
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""


@dataclass(frozen=True)
class Bar:
    """One bar: a value from 0 to 1, its text, its 95 % interval and its chance level."""

    label: str
    value: float
    text: str
    low: float | None = None
    high: float | None = None
    chance: float | None = None
    note: str = ""
    strong: bool = False


@dataclass(frozen=True)
class Bars:
    """Values side by side on a scale from 0 to 1."""

    rows: tuple[Bar, ...]
    title: str = ""
    caption: str = ""


@dataclass(frozen=True)
class Lines:
    """A curve: y [n] over x [n], with the interval of each point and a chance level.

    Attributes:
        y: None where a value is unknown.
        top: upper end of the scale, by default the largest value. The scale starts at 0, or below
            where values are negative.
    """

    title: str
    x_title: str
    x: Sequence[float]
    y: Sequence[float | None]
    intervals: Sequence[tuple[float, float]] = ()
    chance: float | None = None
    top: float | None = None


@dataclass(frozen=True)
class Suggestion:
    """A track to look at: its id, under which the report can play it, and cells of text."""

    id: str
    title: str
    note: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Suggestions:
    """Tracks to look at, in rows that can be played; `columns` name the cells."""

    columns: tuple[str, ...]
    rows: tuple[Suggestion, ...]
    caption: str = ""


Block = Table | Bars | Lines | Suggestions


@dataclass(frozen=True)
class Section:
    """One section of the report.

    Attributes:
        name: its anchor. title: in the menu and as heading.
        explanation: what it asks and how to read it.
        finding: what was found, in a sentence or a few.
        headline: a sentence for the summary, "" if the finding is not remarkable.
    """

    name: str
    title: str
    explanation: str
    finding: str
    blocks: tuple[Block, ...]
    headline: str = ""


@dataclass(frozen=True)
class Retraining:
    """What an audit needs to train models of its own; it keeps their vectors below `out`."""

    features: FeatureFolder
    settings: TrainConfig
    out: Path
    workers: int | None = None


@dataclass(frozen=True)
class Context:
    """What an audit works on: N tracks of C subgenres, and the models that are evaluated.

    Attributes:
        tracks: [N]. labels: subgenre number of each track [N].
        names: of the subgenres [C]. genres: genre number of each subgenre [C].
        columns: measures and tags of the tracks, each [N]; NaN or "" where unknown.
        frozen: vectors of the tracks by the backbone before training [N, H].
        chunks: the same of single chunks [n, H]. chunk_track: position of each chunk's track [n].
        folds: positions of training and test tracks, and the vectors of each model.
        vectors: of the trained models [N, D]; rows of NaN for tracks that are not evaluated.
        copies: pairs of tracks that are one recording.
        n_folds, repeats: 0 for a single split.
        retraining: given where audits may train models of their own.
    """

    tracks: Sequence[Track]
    labels: NDArray[np.int64]
    names: Sequence[str]
    genres: NDArray[np.int64]
    columns: Mapping[str, NDArray[np.generic]]
    frozen: NDArray[np.float64]
    chunks: NDArray[np.float64]
    chunk_track: NDArray[np.int64]
    folds: Sequence[Fold]
    vectors: NDArray[np.floating]
    copies: Duplicates
    n_folds: int = 0
    repeats: int = 0
    seed: int = 0
    retraining: Retraining | None = None
    console: Console = dataclasses.field(default_factory=Silent)

    @property
    def positions(self) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Positions of the training and test tracks of each fold."""
        return [(fold.train, fold.test) for fold in self.folds]


def over_folds(context: Context) -> bool:
    """Whether every track is held out once: for audits that a single split can't serve."""
    return context.n_folds > 0


@dataclass(frozen=True)
class Audit:
    """An audit: `run` gives its result, `section` shows it in the report.

    Attributes:
        name: of the result in `metrics.json`.
        run: raises EvaluationError where the tracks do not allow the audit.
        applies: whether the audit runs on a context.
    """

    name: str
    run: Callable[[Context], Any]
    section: Callable[[Any, Context], Section]
    applies: Callable[[Context], bool] = lambda _: True


def share_text(score: Score | None) -> str:
    """Write a share with its interval: "83 % (78 to 86)"."""
    return ABSENT if score is None else percent_interval(score.value, score.low, score.high)


def decimal_text(score: Score | Interval | None) -> str:
    """Write a figure with its interval: "0.831 (0.78 to 0.86)"."""
    return ABSENT if score is None else f"{score.value:.3f} ({score.low:.2f} to {score.high:.2f})"
