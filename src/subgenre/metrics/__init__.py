"""Scores of an embedding on held-out tracks: pure numpy on (vectors, labels).

Vectors [N, D] are compared by cosine in float64; labels are whole numbers [N]. `measure` scores one
split, `combine` gives each score its chance level and its interval. What can't be scored raises
`EvaluationError`; no score is ever NaN.
"""

from subgenre.metrics.evaluation import VIEWS, measure
from subgenre.metrics.intervals import (
    Difference,
    Measured,
    Score,
    combine,
    compare,
    paired_p,
    share_interval,
    wilson,
)
from subgenre.metrics.registry import METRICS, Metric
from subgenre.metrics.retrieval import (
    confusion_matrix,
    knn_labels,
    map_at_r,
    nearest_centroids,
    nearest_labels,
)

__all__ = [
    "METRICS",
    "VIEWS",
    "Difference",
    "Measured",
    "Metric",
    "Score",
    "combine",
    "compare",
    "confusion_matrix",
    "knn_labels",
    "map_at_r",
    "measure",
    "nearest_centroids",
    "nearest_labels",
    "paired_p",
    "share_interval",
    "wilson",
]
