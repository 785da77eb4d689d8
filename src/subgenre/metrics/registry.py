"""The metrics that every model is scored by, and how they are shown to people.

To add a metric by track, write its function `by_track` and register it with a `Metric` here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from subgenre.metrics.vectors import Floats, Ints

ByTrack = Callable[[Floats, Ints, Floats, Ints], Floats]


@dataclass(frozen=True)
class Metric:
    """One metric, from `lowest` to 1, the best value.

    Attributes:
        name: in `metrics.json`. title: in tables and charts. explanation: one sentence.
        is_share: whether it is a share of tracks or triplets, written as a percentage.
        by_track: function of (train [M, D], train_labels [M], test [N, D], test_labels [N]) that
            returns the value of each test track, [N], NaN where it has none; vectors have norm 1.
            None: `evaluation` computes the metric together with others.
    """

    name: str
    title: str
    explanation: str
    is_share: bool = False
    lowest: float = 0.0
    by_track: ByTrack | None = None


_METRICS = (
    Metric(
        "centroid_accuracy",
        "Centroid accuracy",
        "Share of tracks whose nearest subgenre centroid is their own.",
        is_share=True,
    ),
    Metric(
        "knn_accuracy",
        "k-NN accuracy",
        "Share of tracks whose own subgenre is the most frequent among their nearest tracks.",
        is_share=True,
    ),
    Metric(
        "precision_at_1",
        "P@1",
        "Share of tracks whose nearest training track is of their subgenre.",
        is_share=True,
    ),
    Metric(
        "r_precision",
        "R-precision",
        "Share of the same subgenre among the R nearest held-out tracks.",
    ),
    Metric(
        "map_at_r",
        "MAP@R",
        "How high tracks of the same subgenre rank among the R nearest held-out tracks. R is the "
        "number of other held-out tracks of the subgenre; a track without one is left out. 1 is "
        "perfect.",
    ),
    Metric(
        "triplet_accuracy",
        "Triplet accuracy",
        "How often a track is nearer to one of its subgenre than to one of another.",
        is_share=True,
    ),
    Metric("nmi", "NMI", "How well k-means clusters match the subgenres, 0 to 1."),
    Metric("ari", "ARI", "The same, corrected for chance.", lowest=-1.0),
    Metric(
        "silhouette",
        "Silhouette",
        "How compact and separate the subgenres are, -1 to 1.",
        lowest=-1.0,
    ),
)
METRICS = {metric.name: metric for metric in _METRICS}  # in the order of tables
