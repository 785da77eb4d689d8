"""Trained models side by side: a list of them, and two compared on the same held-out tracks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from subgenre import metrics
from subgenre.commands.model_folder import ModelFolder
from subgenre.core import workspace
from subgenre.core.progress import Console, Silent
from subgenre.core.text import counted, p_value
from subgenre.errors import EvaluationError, RunError, SubgenreError
from subgenre.metrics import Difference, Measured, Score

MAIN = "centroid_accuracy"
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
        """Return plain values for JSON."""
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
    """Two models on the `n_tracks` tracks that neither has learnt from.

    Attributes:
        first, second: scores of each on these tracks, by metric.
        differences: second minus first, by metric.
        first_only, second_only: tracks that only the one assigns to their subgenre.
        scores: each run's own figures on its own held-out tracks.
    """

    a: Path
    b: Path
    n_tracks: int
    first: Mapping[str, Score]
    second: Mapping[str, Score]
    differences: Mapping[str, Difference]
    first_only: int
    second_only: int
    scores: tuple[Mapping[str, Any], Mapping[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; the first figures are of centroid accuracy."""
        main = self.differences[MAIN]
        return {
            "a": str(self.a),
            "b": str(self.b),
            "n_tracks": self.n_tracks,
            "first": self.first[MAIN].value,
            "second": self.second[MAIN].value,
            "difference": main.difference,
            "low": main.low,
            "high": main.high,
            "p": main.p,
            "first_only": self.first_only,
            "second_only": self.second_only,
            "differences": {name: vars(one) for name, one in self.differences.items()},
            "scores": list(self.scores),
        }

    @property
    def unevaluated(self) -> tuple[Path, ...]:
        """The runs without figures of their own."""
        runs = zip((self.a, self.b), self.scores, strict=True)
        return tuple(dict.fromkeys(path for path, scores in runs if not scores))

    @property
    def verdict(self) -> str:
        """State in a sentence what the interval of the difference shows."""
        main = self.differences[MAIN]
        if not main.clear:
            return (
                f"{counted(self.n_tracks, 'track')} show no difference between the two models "
                f"(p {p_value(main.p)})"
            )
        better, worse = (self.b, self.a) if main.low > 0 else (self.a, self.b)
        return (
            f"{better.name} assigns more tracks to the right subgenre than {worse.name} "
            f"(p {p_value(main.p)})"
        )


def compare(a: Path, b: Path, *, seed: int = 0) -> Compared:
    """Compare two models on the tracks held out of both, paired by track (`metrics.compare`).

    Raises:
        RunError: a run without vectors. EvaluationError: the tracks held out of both are of fewer
            than two subgenres.
    """
    opened = (ModelFolder.open(a), ModelFolder.open(b))
    truth = [_truth(run) for run in opened]
    common = [i for i in truth[0] if truth[1].get(i) == truth[0][i]]
    if len({truth[0][i] for i in common}) < 2:
        raise EvaluationError(
            f"{counted(len(common), 'track')} of fewer than two subgenres are held out of both {a} "
            f"and {b}; train both with the same library, seed and test share (`subgenre runs` "
            "shows the figures of each on its own)"
        )
    first, second = (_measure(run, common, seed) for run in opened)
    right = [one[0].by_track[MAIN] for one in (first, second)]
    return Compared(
        a,
        b,
        len(common),
        metrics.combine(first, seed=seed),
        metrics.combine(second, seed=seed),
        metrics.compare(second, first, seed=seed),
        int((right[0] > right[1]).sum()),
        int((right[1] > right[0]).sum()),
        (opened[0].scores, opened[1].scores),
    )


def _truth(run: ModelFolder) -> dict[str, Label]:
    """Label of each held-out track by its id."""
    stored = run.embeddings
    rows = zip(stored.ids, stored.genres, stored.subgenres, stored.splits, strict=True)
    return {i: (genre, subgenre) for i, genre, subgenre, side in rows if side == "test"}


def _measure(run: ModelFolder, ids: list[str], seed: int) -> list[Measured]:
    """Score some held-out tracks of a run beside its training tracks."""
    stored = run.embeddings
    labels = list(zip(stored.genres, stored.subgenres, strict=True))
    number = {label: i for i, label in enumerate(sorted(set(labels)))}
    y = np.array([number[label] for label in labels])
    train = stored.rows("train")
    row = {stored.ids[i]: i for i in stored.rows("test")}
    test = [row[track_id] for track_id in ids]
    genres = np.zeros(len(number), dtype=np.int64)  # all subgenres are compared
    return metrics.measure(
        stored.vectors[train], y[train], stored.vectors[test], y[test],
        genres=genres, seed=seed, ids=ids,
    )  # fmt: skip
