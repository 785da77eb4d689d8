"""Split conformal prediction keeps its error rate; thresholds and p-values agree."""

from __future__ import annotations

import math

import numpy as np
import pytest

from subgenre.errors import EvaluationError
from subgenre.search.conformal import p_values, threshold


def test_p_values_count_by_hand() -> None:
    calibration = [0.1, 0.4, 0.4, 0.9]
    expected = [sum(c <= s for c in calibration) + 1 for s in (0.0, 0.4, 0.5, 2.0)]
    np.testing.assert_allclose(p_values(calibration, [0.0, 0.4, 0.5, 2.0]), np.array(expected) / 5)


@pytest.mark.parametrize("n", [19, 50, 101])
@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.29])
def test_threshold_accepts_exactly_where_the_p_value_is_above_alpha(n: int, alpha: float) -> None:
    generator = np.random.default_rng(n)
    calibration, new = generator.normal(size=n), generator.normal(size=2000)
    accepted = new >= threshold(calibration, alpha)
    np.testing.assert_array_equal(accepted, p_values(calibration, new) > alpha)


@pytest.mark.parametrize(("n", "alpha"), [(30, 0.1), (99, 0.05), (57, 0.2)])
def test_the_error_rate_is_kept_over_1000_draws(n: int, alpha: float) -> None:
    generator = np.random.default_rng(7)
    errors = np.empty(1000)
    for draw in range(1000):  # a skewed law: exchangeability is enough
        scores = generator.exponential(size=n + 200) ** 2
        errors[draw] = np.mean(scores[n:] < threshold(scores[:n], alpha))
    noise = 3 * errors.std(ddof=1) / math.sqrt(1000)
    assert errors.mean() <= alpha + noise
    assert errors.mean() >= alpha - 1 / (n + 1) - noise


def test_too_few_calibration_scores_reject_nothing() -> None:
    assert threshold([0.5] * 8, 0.1) == -math.inf
    assert threshold([0.5] * 9, 0.1) == 0.5


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, math.nan])
def test_an_alpha_outside_0_to_1_is_refused(alpha: float) -> None:
    with pytest.raises(EvaluationError, match="alpha is"):
        threshold([0.1, 0.2], alpha)


def test_no_scores_and_nan_are_refused() -> None:
    with pytest.raises(EvaluationError, match="no calibration scores"):
        threshold([], 0.1)
    with pytest.raises(EvaluationError, match="no calibration scores"):
        p_values([], [0.1])
    with pytest.raises(EvaluationError, match="1 values that are not finite"):
        p_values([0.1, math.nan], [0.1])
    with pytest.raises(EvaluationError, match="scores have"):
        p_values([0.1], [math.inf])
