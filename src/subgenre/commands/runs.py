"""Trained models side by side: a list of them, and two compared on the same held-out tracks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subgenre import metrics
from subgenre.commands.model_folder import ModelFolder
from subgenre.core import workspace
from subgenre.core.progress import Console, Silent
from subgenre.errors import EvaluationError, RunError, SubgenreError

REPLICATES = 10_000
Label = tuple[str, str]


@dataclass(frozen=True)
class RunRow:
    """One trained model in the list; `scores` is empty until it is evaluated.

    Attributes:
        test_run: trained on a few tracks, to see that it runs.
    """

    path: Path
    backbone: str
    tune: str
    loss: str
    seed: int
    train_s: float
    n_train: int | None
    n_test: int | None
    scores: Mapping[str, Mapping[str, float | None]]
    test_run: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Give plain values for JSON."""
        return {**vars(self), "path": str(self.path), "scores": dict(self.scores)}


def runs(root: Path = Path(), *, console: Console | None = None) -> list[RunRow]:
    """List the model folders in a folder, oldest first, and their figures; warn of damaged ones.

    Raises:
        RunError: there is none.
    """
    rows = []
    for path in workspace.runs(root):
        try:
            rows.append(_row(ModelFolder.open(path)))
        except SubgenreError as problem:
            (console or Silent()).warn(f"{path}: {problem}")
    if not rows:
        raise RunError(
            f"no {workspace.RUN_PREFIX}... folder in {root.absolute()}; run `subgenre train`"
        )
    return rows


def _row(run: ModelFolder) -> RunRow:
    settings = run.settings
    return RunRow(
        run.path,
        settings.model.backbone,
        settings.model.tune,
        settings.loss.name,
        settings.run.seed,
        float(run.data.get("train_s", 0.0)),
        run.figures.get("n_train"),
        run.figures.get("n_test"),
        run.scores,
        test_run=run.is_test_run,
    )


@dataclass(frozen=True)
class Compared:
    """Two models on the tracks that neither has learnt from.

    Attributes:
        n_tracks: held out of both. first, second: centroid accuracy on them.
        difference: second - first; low, high: its 95 % interval.
        first_only, second_only: tracks that only the one placed rightly.
        scores: each run's own figures on its own held-out tracks.
    """

    a: Path
    b: Path
    n_tracks: int
    first: float
    second: float
    difference: float
    low: float
    high: float
    first_only: int
    second_only: int
    scores: tuple[Mapping[str, Any], Mapping[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """Give plain values for JSON."""
        return {**vars(self), "a": str(self.a), "b": str(self.b), "scores": list(self.scores)}

    @property
    def unevaluated(self) -> tuple[Path, ...]:
        """The runs without figures of their own."""
        runs = zip((self.a, self.b), self.scores, strict=True)
        return tuple(dict.fromkeys(path for path, scores in runs if not scores))

    @property
    def verdict(self) -> str:
        """Say in a sentence what the interval allows to say."""
        if self.low > 0 or self.high < 0:
            better, worse = (self.b, self.a) if self.low > 0 else (self.a, self.b)
            return f"{better.name} places more tracks rightly than {worse.name}"
        return f"{self.n_tracks} tracks don't tell the two apart"


def compare(a: Path, b: Path, *, seed: int = 0) -> Compared:
    """Compare two models by the centroid accuracy on tracks held out of both, paired by track.

    The interval is a percentile bootstrap over tracks (Efron and Tibshirani, "An introduction to
    the bootstrap", 1993, chapter 13): both models are scored on the same resampled tracks.

    Raises:
        RunError: a run without vectors. EvaluationError: no track is held out of both.
    """
    opened = (ModelFolder.open(a), ModelFolder.open(b))
    truth = [_truth(run) for run in opened]
    common = [i for i in truth[0] if truth[1].get(i) == truth[0][i]]
    if not common:
        raise EvaluationError(
            f"{a} and {b} have no held-out tracks in common; train both with the same library, "
            "seed and test share"
        )
    right = [_right(run, common) for run in opened]
    difference = right[1].astype(int) - right[0].astype(int)
    low, high = paired_interval(difference, seed=seed)
    return Compared(
        a,
        b,
        len(common),
        float(right[0].mean()),
        float(right[1].mean()),
        float(difference.mean()),
        low,
        high,
        int((difference < 0).sum()),
        int((difference > 0).sum()),
        (opened[0].scores, opened[1].scores),
    )


def paired_interval(difference: NDArray[np.integer], *, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of the mean of paired differences [n], each -1, 0 or 1.

    Resampling n of three values is one multinomial draw of their counts.
    """
    n = len(difference)
    shares = np.array([(difference == value).mean() for value in (-1, 0, 1)])
    counts = np.random.default_rng(seed).multinomial(n, shares, size=REPLICATES)
    low, high = np.percentile((counts[:, 2] - counts[:, 0]) / n, [2.5, 97.5])
    return float(low), float(high)


def _truth(run: ModelFolder) -> dict[str, Label]:
    """Label of each held-out track by its id."""
    stored = run.embeddings
    rows = zip(stored.ids, stored.genres, stored.subgenres, stored.splits, strict=True)
    return {i: (genre, subgenre) for i, genre, subgenre, side in rows if side == "test"}


def _right(run: ModelFolder, ids: list[str]) -> NDArray[np.bool_]:
    """Whether the nearest centroid of the run's training tracks is each track's own: [n]."""
    stored = run.embeddings
    labels = list(zip(stored.genres, stored.subgenres, strict=True))
    number = {label: i for i, label in enumerate(sorted(set(labels)))}
    y = np.array([number[label] for label in labels])
    train = [i for i, side in enumerate(stored.splits) if side == "train"]
    row = {track_id: i for i, track_id in enumerate(stored.ids) if stored.splits[i] == "test"}
    test = [row[track_id] for track_id in ids]
    found = metrics.nearest_centroids(stored.vectors[train], y[train], stored.vectors[test])
    return np.asarray(found == y[test])
