from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from subgenre import watch
from subgenre.errors import CollapseError, NotFiniteError


def test_spread_is_the_mean_pairwise_cosine_distance() -> None:
    vectors = F.normalize(torch.randn(30, 8), dim=1)
    naive = sum(1 - float(vectors[i] @ vectors[j]) for i in range(30) for j in range(30)) / 900
    assert watch.spread(vectors) == pytest.approx(naive, abs=1e-5)
    assert watch.spread(vectors[:1].repeat(5, 1)) == pytest.approx(0, abs=1e-6)


def test_one_point_for_long_is_a_collapse() -> None:
    look = watch.CollapseWatch(0.3, patience=5)
    look.update(0.25, 0.8, 0.5)
    for _ in range(4):
        look.update(0.3, 1.0, 1e-6)
    with pytest.raises(CollapseError, match=r"one point .* lower the learning rate"):
        look.update(0.3, 1.0, 1e-6)


def test_a_recovery_starts_the_count_anew() -> None:
    look = watch.CollapseWatch(0.3, patience=3)
    for spread in (0.5, 1e-9, 1e-9, 0.4, 1e-9, 1e-9):
        look.update(0.3, 1.0, spread)
    assert look.low_steps == 2


def test_little_spread_at_the_start_is_no_collapse() -> None:
    look = watch.CollapseWatch(0.3, patience=2)
    for _ in range(20):
        look.update(0.2999, 1.0, 2e-4)
    assert look.low_steps == 0


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_the_run(loss: float) -> None:
    with pytest.raises(NotFiniteError, match="lower the learning rate"):
        watch.CollapseWatch(0.3).update(loss, 1.0, 0.5)
