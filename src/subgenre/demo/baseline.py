"""What loudness and the mean spectrum alone would reach: the demo must not be that easy."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from subgenre.errors import EvaluationError


def loudness_spectrum_accuracy(
    mean_log_mel: ArrayLike, loudness: ArrayLike, labels: ArrayLike, train_mask: ArrayLike
) -> float:
    """Held-out accuracy of a logistic classifier without rhythm.

    Args:
        mean_log_mel: [N, F], each track's log-mel averaged over the frames of its chunks.
        loudness: [N] LUFS.
        labels: [N] class numbers.
        train_mask: [N], true where a track may be learned from; the rest is held out.

    Standardised on the training tracks; scikit-learn's `LogisticRegression` with its own L2 term.

    Raises:
        EvaluationError: no training track, no held-out track, or a value that is not finite.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    values = np.column_stack([np.asarray(mean_log_mel, np.float64), np.asarray(loudness)])
    label = np.asarray(labels)
    train = np.asarray(train_mask, bool)
    if train.all() or not train.any():
        raise EvaluationError(
            f"{int(train.sum())} of {train.size} tracks are for training: both sides need some"
        )
    if not np.isfinite(values).all():
        raise EvaluationError(
            "loudness or log-mel holds a value that is not finite: preprocess again"
        )
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    classifier.fit(values[train], label[train])
    return float(classifier.score(values[~train], label[~train]))
