from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from subgenre import config
from subgenre.config import LossConfig
from subgenre.errors import CollapseError, NotFiniteError
from subgenre.training import collapse


def test_spread_is_the_mean_pairwise_cosine_distance() -> None:
    vectors = F.normalize(torch.randn(30, 8), dim=1)
    naive = sum(1 - float(vectors[i] @ vectors[j]) for i in range(30) for j in range(30)) / 900
    assert float(collapse.spread(vectors)) == pytest.approx(naive, abs=1e-5)
    assert float(collapse.spread(vectors[:1].repeat(5, 1))) == pytest.approx(0, abs=1e-6)


def test_one_point_for_long_is_a_collapse() -> None:
    look = collapse.CollapseWatch(0.3, patience=5)
    look.update(0.25, 0.8, 0.5)
    for _ in range(4):
        look.update(0.3, 1.0, 1e-6)
    with pytest.raises(CollapseError, match=r"one point .* lower the learning rate"):
        look.update(0.3, 1.0, 1e-6)


def test_a_recovery_starts_the_count_anew() -> None:
    look = collapse.CollapseWatch(0.3, patience=3)
    for spread in (0.5, 1e-9, 1e-9, 0.4, 1e-9, 1e-9):
        look.update(0.3, 1.0, spread)
    assert look.low_steps == 2


def test_little_spread_at_the_start_is_no_collapse() -> None:
    look = collapse.CollapseWatch(0.3, patience=2)
    for _ in range(20):
        look.update(0.2999, 1.0, 2e-4)
    assert look.low_steps == 0


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_the_run(loss: float) -> None:
    with pytest.raises(NotFiniteError, match="lower the learning rate"):
        collapse.CollapseWatch(0.3).update(loss, 1.0, 0.5)


def test_an_output_that_explodes_is_seen_though_the_loss_falls() -> None:
    look = collapse.CollapseWatch(0.3, depth=1, wild_patience=3)
    look.update(0.25, 0.8, 0.5, 0.1)
    look.update(0.20, 0.7, 0.5, 0.1 * 150)
    for _ in range(2):
        look.update(0.1, 0.2, 0.5, 0.1 * 250)
    with pytest.raises(CollapseError, match=r"has exploded .* lower the learning rate"):
        look.update(0.1, 0.2, 0.5, 0.1 * 250)


def test_a_run_too_short_for_the_patience_is_judged_by_its_end() -> None:
    look = collapse.CollapseWatch(0.3)
    look.update(0.25, 0.8, 0.5)
    look.update(0.3, 1.0, 5e-3)
    look.check_end(0.3, 1.0, 5e-3)  # the spread often falls before it grows
    with pytest.raises(CollapseError, match="one point"):
        look.check_end(0.3, 1.0, 1e-9)  # but not to nothing
    look = collapse.CollapseWatch(0.3)
    look.update(0.25, 0.8, 0.5)
    for _ in range(9):
        look.update(0.3, 1.0, 5e-3)
    with pytest.raises(CollapseError, match="one point"):
        look.check_end(0.3, 1.0, 5e-3)
    look = collapse.CollapseWatch(0.3, depth=1)
    look.update(0.25, 0.8, 0.5, 0.1)
    look.update(0.25, 0.8, 0.5, 0.1 * 250)
    with pytest.raises(CollapseError, match="exploded"):
        look.check_end(0.25, 0.8, 0.5, 0.1 * 250)


def test_what_the_watch_remembers_goes_into_a_checkpoint() -> None:
    look = collapse.CollapseWatch(0.3)
    look.update(0.25, 0.8, 0.5, 0.1)
    look.update(0.25, 0.8, 1e-9, 0.1)
    other = collapse.CollapseWatch(0.3)
    vars(other).update(look.state())
    assert other == look


def test_the_scale_is_that_of_the_latest_output_in_training() -> None:
    layer = torch.nn.Linear(3, 2)
    scale = collapse.OutputScale(layer)
    x = torch.randn(5, 3)
    expected = layer(x).square().mean().sqrt()
    layer.eval()(2 * x)
    assert torch.allclose(scale.latest, expected)


def test_weights_that_are_no_numbers_are_refused() -> None:
    collapse.check_finite([torch.ones(3), torch.zeros(2)])
    with pytest.raises(NotFiniteError, match="no longer a number"):
        collapse.check_finite([torch.ones(3), torch.tensor([1.0, math.nan])])


def feed(look: collapse.CollapseWatch, steps: list[tuple[float, float, float]]) -> None:
    for step in steps:
        look.update(*step)


def noisy(n: int, *, apart: float, size: float = 0.2) -> list[tuple[float, float, float]]:
    """Loss, active share and spread of n steps of 2 triplets near one point, labels `apart`."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.zeros(n, 2, 3, 16)
    vectors[..., 0] = 1.0
    vectors[..., 1:] += size * torch.randn(n, 2, 3, 15, generator=generator) / 15**0.5
    vectors[:, :, :2, 1] += size * apart
    vectors[:, :, 2, 1] -= size * apart
    vectors = F.normalize(vectors, dim=-1)
    anchor, positive, negative = vectors.unbind(2)
    hinge = ((anchor * negative).sum(-1) - (anchor * positive).sum(-1) + 0.3).relu()
    mean = vectors.flatten(1, 2).mean(1)
    spread = 1 - mean.square().sum(-1)
    active = (hinge > 0).float().mean(1)
    columns = (hinge.mean(1), active, spread)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def test_a_loss_that_rests_at_the_margin_while_the_spread_is_down_is_a_collapse() -> None:
    look = collapse.CollapseWatch(0.3)
    look.update(0.25, 0.8, 0.5, 0.1)
    feed(look, [(0.3, 1.0, 0.0101)] * 900)
    assert look.low_steps == 0  # not one point: the spread alone would never tell
    with pytest.raises(CollapseError, match=r"rests at the margin .* lower the learning rate"):
        feed(look, [(0.3, 1.0, 0.0101)] * 200)


def test_single_steps_may_be_off_the_margin_by_chance() -> None:
    steps = noisy(1000, apart=0.0)
    assert {active for _, active, _ in steps} == {1.0}
    assert max(abs(loss - 0.3) for loss, _, _ in steps) > 0.01
    look = collapse.CollapseWatch(0.3)
    look.update(0.25, 0.8, 0.5)
    with pytest.raises(CollapseError, match="rests at the margin"):
        feed(look, steps)


@pytest.mark.parametrize("apart", [0.3, 0.6])
def test_a_loss_near_the_margin_that_learns_is_no_collapse(apart: float) -> None:
    """All triplets are active and the spread is down, but positives are nearer than negatives."""
    steps = noisy(5000, apart=apart)
    loss, active, spread = (sum(column) / len(steps) for column in zip(*steps, strict=True))
    assert 0.25 < loss < 0.3
    assert active > 0.99
    assert spread < 0.08
    look = collapse.CollapseWatch(0.3)
    look.update(0.25, 0.8, 1.0)
    feed(look, steps)
    look.check_end(*steps[-1])


def test_a_loss_at_the_margin_is_no_collapse_while_the_spread_holds() -> None:
    look = collapse.CollapseWatch(0.3)
    feed(look, noisy(3000, apart=0.0))  # a slow start: nothing learnt yet, nothing lost
    assert look.rest_steps == 0
    look = collapse.CollapseWatch(None)
    look.update(0.25, 1.0, 0.5)
    feed(look, [(0.3, 1.0, 0.02)] * 3000)  # no margin to rest at
    assert look.rest_steps == look.low_steps == 0


@pytest.mark.parametrize(
    ("sections", "rests"),
    [
        ({}, 0.3),
        ({"name": "supcon"}, None),
    ],
)
def test_the_loss_of_one_point(sections: dict[str, Any], rests: float | None) -> None:
    assert collapse.loss_of_one_point(LossConfig(**sections)) == rests


def test_the_end_is_judged_by_what_the_last_step_left() -> None:
    look = collapse.CollapseWatch(0.3, depth=1)
    look.update(0.25, 0.8, 0.5, 0.1)
    with pytest.raises(CollapseError, match="exploded"):
        look.check_end(0.25, 0.8, 0.5, 0.1 * 250)
    with pytest.raises(NotFiniteError, match="spread of the embeddings is nan"):
        look.check_end(0.25, 0.8, math.nan, 0.1)


@pytest.mark.parametrize(
    ("loss", "mining", "offered"),
    [
        ("triplet", "hard", True),
        ("triplet", "none", False),
        ("supcon", "none", False),
        ("arcface", "none", False),
    ],
)
def test_other_mining_is_offered_where_it_acts(loss: str, mining: str, offered: bool) -> None:
    recipe = config.load_recipe("laptop")
    look = collapse.watch_for(config.replace(recipe, "loss", name=loss, mining=mining))
    look.update(0.3, 1.0, 0.5)
    with pytest.raises(CollapseError, match="one point") as raised:
        look.check_end(0.3, 1.0, 1e-9)
    assert ("'semihard'" in str(raised.value)) == offered
