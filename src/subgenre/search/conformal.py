"""Split conformal prediction: a threshold that keeps a chosen error rate.

A higher score is a better fit. Calibration scores come from tracks that belong and that the model
was not fitted on. If a new track is exchangeable with them, its rank among them is uniform, however
good the model is, and so the share of belonging tracks that are rejected is at most alpha (Vovk,
Gammerman and Shafer 2005, ch. 2; Papadopoulos et al. 2002).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from subgenre.errors import EvaluationError

# alpha * (n + 1) is an integer up to rounding for the usual alphas: .29 * 100 must count as 29.
ROUNDING = 1e-9


def p_values(calibration_scores: ArrayLike, scores: ArrayLike) -> NDArray[np.float64]:
    """Return the p-value of each score: (1 + number of calibration scores not higher) / (n + 1).

    Shapes: `calibration_scores` [n], `scores` [m] -> [m], in (0, 1]. Ties count for the new score.
    Accepting p > alpha rejects at most a share alpha of what belongs.

    Raises: EvaluationError: no calibration scores, or a value that is not finite.
    Source: Vovk, Gammerman and Shafer 2005, section 2.2, for conformity scores.
    """
    calibration = np.sort(_finite(calibration_scores, "calibration scores"))
    new = _finite(scores, "scores")
    if not calibration.size:
        raise EvaluationError("no calibration scores; hold out some tracks to calibrate on")
    below = np.searchsorted(calibration, new, side="right")
    return np.asarray((1 + below) / (calibration.size + 1), dtype=np.float64)


def threshold(calibration_scores: ArrayLike, alpha: float) -> float:
    """Return the lowest score to accept, so that at most a share `alpha` is rejected wrongly.

    Scores >= threshold have a p-value above alpha and are accepted. The
    expected error lies in (alpha - 1 / (n + 1), alpha] for scores without ties. With fewer than
    1 / alpha - 1 calibration scores nothing can be rejected at that rate; the result is -inf.

    Shapes: `calibration_scores` [n]. Raises: EvaluationError for alpha outside (0, 1), no
    calibration scores, or a value that is not finite. Source: Papadopoulos et al. 2002; Vovk,
    Gammerman and Shafer 2005, ch. 2.
    """
    if not 0 < alpha < 1:
        raise EvaluationError(f"alpha is {alpha}; give an error rate between 0 and 1, such as 0.1")
    calibration = np.sort(_finite(calibration_scores, "calibration scores"))
    if not calibration.size:
        raise EvaluationError("no calibration scores; hold out some tracks to calibrate on")
    rank = math.floor(alpha * (calibration.size + 1) + ROUNDING)
    return float(calibration[rank - 1]) if rank else -math.inf


def _finite(values: ArrayLike, name: str) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise EvaluationError(f"{name} have shape {array.shape}; give one value for each track")
    if not np.isfinite(array).all():
        raise EvaluationError(
            f"{name} have {int((~np.isfinite(array)).sum())} values that are not finite"
        )
    return array
