"""What every audit shares: its context, and the section of the report that shows its result."""

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
from subgenre.core.text import percent_interval, signed
from subgenre.metrics import Score
from subgenre.metrics.vectors import Floats, Ints

if TYPE_CHECKING:
    from subgenre.config import TrainConfig
    from subgenre.dataset.folder import FeatureFolder
    from subgenre.evaluation.audits.duplicates import Duplicates
    from subgenre.evaluation.baselines import Fold
    from subgenre.library.track import Track

ABSENT = "–"  # noqa: RUF001  an en dash is what an empty cell shows


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


def plain(value: Any) -> Any:
    """Return a result as JSON can hold it: arrays as lists, a number that is not finite as None."""
    if dataclasses.is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@dataclass(frozen=True)
class Table:
    """Rows of text below a header; the first column names the row."""

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
    """A track to check: its id, by which the report can play it, and cells of text.

    Attributes:
        nearest: ids and names of similar tracks, to be played beside it.
    """

    id: str
    title: str
    note: str
    cells: tuple[str, ...]
    nearest: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Suggestions:
    """Tracks to check, in rows that can be played; `columns` name the cells."""

    columns: tuple[str, ...]
    rows: tuple[Suggestion, ...]
    caption: str = ""


Block = Table | Bars | Lines | Suggestions


@dataclass(frozen=True)
class Section:
    """One section of the report.

    Attributes:
        name: its anchor. title: in the menu and as heading.
        explanation: its question and how to read the answer.
        finding: the answer in words. headline: for the summary, "" if nothing is remarkable.
    """

    name: str
    title: str
    explanation: str
    finding: str
    blocks: tuple[Block, ...]
    headline: str = ""


@dataclass(frozen=True)
class Retraining:
    """What an audit needs to train its own models; it keeps their vectors below `out`."""

    features: FeatureFolder
    settings: TrainConfig
    out: Path
    workers: int | None = None


@dataclass(frozen=True)
class Context:
    """The input of an audit: N tracks of C subgenres, and the evaluated models.

    Attributes:
        tracks: [N]. labels: subgenre number of each track [N].
        names: of the subgenres [C]. genres: genre number of each subgenre [C].
        groups: number of what the splits keep on one side: artist and album, or recording [N].
        columns: measures and tags of the tracks, each [N]; NaN or "" where unknown.
        frozen: vectors of the tracks by the backbone before training [N, H].
        chunks: the same of single chunks [n, H]. chunk_track: position of each chunk's track [n].
        folds: positions of training and test tracks, and the vectors of each model.
        vectors: of the trained models [N, D]; rows of NaN for tracks that are not evaluated.
        copies: pairs of tracks that are one recording.
        chance: of the accuracy of `trained` over the folds, as `metrics.json` has it.
        n_folds, repeats: 0 for a single split.
        retraining: None where audits may not train their own models.
    """

    tracks: Sequence[Track]
    labels: Ints
    names: Sequence[str]
    genres: Ints
    groups: Ints
    columns: Mapping[str, NDArray[np.generic]]
    frozen: Floats
    chunks: Floats
    chunk_track: Ints
    folds: Sequence[Fold]
    vectors: NDArray[np.floating]
    copies: Duplicates
    chance: float
    n_folds: int = 0
    repeats: int = 0
    seed: int = 0
    retraining: Retraining | None = None
    console: Console = dataclasses.field(default_factory=Silent)

    @property
    def positions(self) -> list[tuple[Ints, Ints]]:
        """Positions of the training and test tracks of each fold."""
        return [(fold.train, fold.test) for fold in self.folds]


def over_folds(context: Context) -> bool:
    """Whether every track is held out once, which some audits need."""
    return context.n_folds > 0


@dataclass(frozen=True)
class Audit:
    """An audit: `run` gives its result, `section` shows it in the report.

    Attributes:
        name: of the result in `metrics.json`.
        run: raises EvaluationError where the tracks do not allow the audit.
        applies: whether to run the audit.
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
    return (
        ABSENT if score is None else f"{score.value:z.3f} ({score.low:z.2f} to {score.high:z.2f})"
    )


def points_text(gap: Interval) -> str:
    """Write a difference of shares with its interval: "+5 points (+1 to +8)"."""
    value, low, high = (signed(100 * share) for share in (gap.value, gap.low, gap.high))
    return f"{value} points ({low} to {high})"
