"""Scores of an embedding on held-out tracks: pure numpy on (vectors, labels).

Vectors [N, D] are compared by cosine in float64; labels are whole numbers [N]. Each score comes as
one number (`map_at_r`), by track (`average_precisions`), and with its chance level and interval
(`evaluate`). What can't be scored raises `EvaluationError`; no score is ever NaN.
"""

from subgenre.metrics.clusters import ari, contingency, kmeans, nmi, silhouette, silhouettes
from subgenre.metrics.evaluation import VIEWS, evaluate, measure
from subgenre.metrics.intervals import Measured, Score, combine, share_interval, wilson
from subgenre.metrics.registry import METRICS, Metric
from subgenre.metrics.retrieval import (
    average_precisions,
    centroid_accuracy,
    centroids,
    confusion_matrix,
    knn_accuracy,
    knn_labels,
    map_at_r,
    nearest_centroids,
    nearest_labels,
    per_label_accuracy,
    precision_at_1,
    r_precision,
    r_precisions,
    triplet_accuracy,
    triplet_shares,
)

__all__ = [
    "METRICS",
    "VIEWS",
    "Measured",
    "Metric",
    "Score",
    "ari",
    "average_precisions",
    "centroid_accuracy",
    "centroids",
    "combine",
    "confusion_matrix",
    "contingency",
    "evaluate",
    "kmeans",
    "knn_accuracy",
    "knn_labels",
    "map_at_r",
    "measure",
    "nearest_centroids",
    "nearest_labels",
    "nmi",
    "per_label_accuracy",
    "precision_at_1",
    "r_precision",
    "r_precisions",
    "share_interval",
    "silhouette",
    "silhouettes",
    "triplet_accuracy",
    "triplet_shares",
    "wilson",
]
