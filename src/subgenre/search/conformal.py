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
    calibration = _sorted(calibration_scores)
    below = np.searchsorted(calibration, _finite(scores, "scores"), side="right")
    return np.asarray((1 + below) / (calibration.size + 1), dtype=np.float64)


def threshold(calibration_scores: ArrayLike, alpha: float) -> float:
    """Return the lowest score to accept, so that at most a share `alpha` is rejected wrongly.

    Scores >= threshold have a p-value above alpha. The expected error lies in
    (alpha - 1 / (n + 1), alpha] for scores without ties. With fewer than 1 / alpha - 1 calibration
    scores nothing can be rejected at that rate; the result is -inf.

    Shapes: `calibration_scores` [n]. Raises: EvaluationError as `p_values`, or for alpha outside
    (0, 1). Source: Papadopoulos et al. 2002; Vovk, Gammerman and Shafer 2005, ch. 2.
    """
    if not 0 < alpha < 1:
        raise EvaluationError(f"alpha is {alpha}; give an error rate between 0 and 1, such as 0.1")
    calibration = _sorted(calibration_scores)
    rank = math.floor(alpha * (calibration.size + 1) + ROUNDING)
    return float(calibration[rank - 1]) if rank else -math.inf


def _sorted(scores: ArrayLike) -> NDArray[np.float64]:
    calibration = np.sort(_finite(scores, "calibration scores"))
    if not calibration.size:
        raise EvaluationError("no calibration scores; hold out some tracks to calibrate on")
    return calibration


def _finite(scores: ArrayLike, name: str) -> NDArray[np.float64]:
    array = np.asarray(scores, dtype=np.float64)
    bad = int((~np.isfinite(array)).sum())
    if bad:
        raise EvaluationError(f"{name} have {bad} values that are not finite")
    return array
