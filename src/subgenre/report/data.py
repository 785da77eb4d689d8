"""The values that a report shows. Every part is optional; an absent part has no section."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from subgenre.evaluation.audits.base import Section
from subgenre.metrics import METRICS, Difference, Score
from subgenre.report.maps import Map

SPLITS = {"train": "training", "test": "held out"}
"""The splits of a point, and their names in map and legend."""


@dataclass(frozen=True)
class Point:
    """One track: its place on the map, its subgenre and the model's prediction.

    Attributes:
        subgenre, predicted: names out of `ReportData.labels`; `predicted` is "" for a track
            without a prediction.
        split: a key of `SPLITS`.
        start_s: where in the file its preview begins.
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

    @property
    def misplaced(self) -> bool:
        """Whether the model assigned this held-out track to another subgenre."""
        return self.split == "test" and self.predicted not in ("", self.subgenre)


@dataclass(frozen=True)
class Backbone:
    """The backbone of the model: its name, the licence of its weights, their source."""

    name: str
    licence: str = ""
    source: str = ""


@dataclass(frozen=True)
class ReportData:
    """All that a report can show.

    Attributes:
        models: scores by name of `baselines.MODELS` and by metric.
        comparisons: differences by `<a>_vs_<b>` and by metric.
        n_train, n_test: tracks. folds, repeats: 0 for a single split.
        labels, genres: subgenres in the order of `confusion`, and the genre of each.
        confusion: [true, predicted] counts of held-out tracks.
        sections: what the audits found.
        history: an epoch a row, with `epoch`, `loss`, `active`, `spread` and `val_map_at_r`.
        split_by: "track, artist, album, recording".
        warnings: of the split, and of what could not be computed. skipped: files left out.
    """

    title: str
    made: str = ""
    n_train: int = 0
    n_test: int = 0
    folds: int = 0
    repeats: int = 0
    models: Mapping[str, Mapping[str, Score]] = field(default_factory=dict)
    comparisons: Mapping[str, Mapping[str, Difference]] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    genres: tuple[str, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()
    points: tuple[Point, ...] = ()
    map: Map | None = None
    sections: tuple[Section, ...] = ()
    history: tuple[Mapping[str, Any], ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    fingerprint: str = ""
    split_by: str = ""
    warnings: tuple[str, ...] = ()
    skipped: int = 0
    backbone: Backbone | None = None

    def score(self, model: str, metric: str) -> Score | None:
        """Return a model's score, None where there is none."""
        return self.models.get(model, {}).get(metric)

    def difference(self, model: str, other: str, metric: str) -> Difference | None:
        """Return model minus other on the same tracks, None where they were not compared."""
        return self.comparisons.get(f"{model}_vs_{other}", {}).get(metric)

    def metrics(self) -> list[str]:
        """The metrics that any model is scored by, in the order of `METRICS`."""
        return [name for name in METRICS if any(name in scores for scores in self.models.values())]

    def counts(self) -> dict[str, dict[str, int]]:
        """Numbers of tracks on the map, by subgenre and split."""
        counts = {label: dict.fromkeys(SPLITS, 0) for label in self.labels}
        for point in self.points:
            counts[point.subgenre][point.split] += 1
        return counts

    def mistakes(self) -> list[Point]:
        """Held-out tracks that the model assigned to another subgenre."""
        wrong = [point for point in self.points if point.misplaced]
        return sorted(wrong, key=lambda p: (p.subgenre, p.predicted, p.id))


def by_genre(genres: Sequence[str]) -> list[int]:
    """Positions of the labels with those of one genre together, genres by their names."""
    return sorted(range(len(genres)), key=genres.__getitem__)
