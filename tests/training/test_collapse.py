"""A training that collapses ends with an error and saves no model."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from subgenre import config
from subgenre.commands import train as stage
from subgenre.dataset.folder import FeatureFolder
from subgenre.errors import CollapseError, NotFiniteError
from subgenre.training import checkpoint, collapse, fit, trainer
from tests.folders import make_folder
from tests.training_runs import ids, recipe, same

pytestmark = pytest.mark.slow  # each trains or evaluates a model


def test_spread_is_the_mean_pairwise_cosine_distance() -> None:
    vectors = F.normalize(torch.randn(30, 8), dim=1)
    naive = sum(1 - float(vectors[i] @ vectors[j]) for i in range(30) for j in range(30)) / 900
    assert float(collapse.spread(vectors)) == pytest.approx(naive, abs=1e-5)
    assert float(collapse.spread(vectors[:1].repeat(5, 1))) == pytest.approx(0, abs=1e-6)


def test_one_point_for_long_is_a_collapse() -> None:
    watch = collapse.CollapseWatch(0.3, patience=5)
    for spread in (0.5, 1e-6, 1e-6, 0.4, *[1e-6] * 4):  # a recovery starts the count anew
        watch.update(0.3, 1.0, spread)
    assert watch.low_steps == 4
    with pytest.raises(CollapseError, match=r"one point .* lower the learning rate"):
        watch.update(0.3, 1.0, 1e-6)


def test_little_spread_at_the_start_is_no_collapse() -> None:
    watch = collapse.CollapseWatch(0.3, patience=2)
    for _ in range(20):
        watch.update(0.2999, 1.0, 2e-4)
    assert watch.low_steps == 0


def test_a_loss_or_a_weight_that_is_not_finite_stops_the_run() -> None:
    for loss in (math.nan, math.inf):
        with pytest.raises(NotFiniteError, match="lower the learning rate"):
            collapse.CollapseWatch(0.3).update(loss, 1.0, 0.5)
    collapse.check_finite([torch.ones(3), torch.zeros(2)])
    with pytest.raises(NotFiniteError, match="no longer finite"):
        collapse.check_finite([torch.ones(3), torch.tensor([1.0, math.nan])])


def test_an_output_that_explodes_is_seen_though_the_loss_falls() -> None:
    watch = collapse.CollapseWatch(0.3, depth=1, wild_patience=3)
    watch.update(0.25, 0.8, 0.5, 0.1)
    watch.update(0.20, 0.7, 0.5, 0.1 * 150)
    for _ in range(2):
        watch.update(0.1, 0.2, 0.5, 0.1 * 250)
    with pytest.raises(CollapseError, match=r"has exploded .* lower the learning rate"):
        watch.update(0.1, 0.2, 0.5, 0.1 * 250)


def test_a_short_run_is_judged_by_its_end() -> None:
    watch = collapse.CollapseWatch(0.3)
    watch.update(0.25, 0.8, 0.5)
    watch.update(0.3, 1.0, 5e-3)
    watch.check_end(0.3, 1.0, 5e-3)  # the spread often falls before it grows
    with pytest.raises(CollapseError, match="one point"):
        watch.check_end(0.3, 1.0, 1e-9)  # but not to nothing
    watch = collapse.CollapseWatch(0.3)
    watch.update(0.25, 0.8, 0.5)
    for _ in range(9):
        watch.update(0.3, 1.0, 5e-3)
    with pytest.raises(CollapseError, match="one point"):
        watch.check_end(0.3, 1.0, 5e-3)
    watch = collapse.CollapseWatch(0.3, depth=1)
    watch.update(0.25, 0.8, 0.5, 0.1)
    with pytest.raises(CollapseError, match="exploded"):
        watch.check_end(0.25, 0.8, 0.5, 0.1 * 250)
    with pytest.raises(NotFiniteError, match="spread of the embeddings is nan"):
        watch.check_end(0.25, 0.8, math.nan, 0.1)


def test_the_state_of_the_watch_can_be_restored() -> None:
    watch = collapse.CollapseWatch(0.3)
    watch.update(0.25, 0.8, 0.5, 0.1)
    watch.update(0.25, 0.8, 1e-9, 0.1)
    other = collapse.CollapseWatch(0.3)
    vars(other).update(watch.state())
    assert other == watch


def test_the_scale_is_that_of_the_latest_output_in_training() -> None:
    layer = torch.nn.Linear(3, 2)
    scale = collapse.OutputScale(layer)
    x = torch.randn(5, 3)
    expected = layer(x).square().mean().sqrt()
    layer.eval()(2 * x)
    assert torch.allclose(scale.latest, expected)


def feed(watch: collapse.CollapseWatch, steps: list[tuple[float, float, float]]) -> None:
    for step in steps:
        watch.update(*step)


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
    watch = collapse.CollapseWatch(0.3)
    watch.update(0.25, 0.8, 0.5, 0.1)
    feed(watch, [(0.3, 1.0, 0.0101)] * 900)
    assert watch.low_steps == 0  # not one point: the spread alone shows no collapse
    with pytest.raises(CollapseError, match=r"stays at the margin .* lower the learning rate"):
        feed(watch, [(0.3, 1.0, 0.0101)] * 200)


def test_single_steps_may_be_off_the_margin_by_chance() -> None:
    steps = noisy(1000, apart=0.0)
    assert {active for _, active, _ in steps} == {1.0}
    assert max(abs(loss - 0.3) for loss, _, _ in steps) > 0.01
    watch = collapse.CollapseWatch(0.3)
    watch.update(0.25, 0.8, 0.5)
    with pytest.raises(CollapseError, match="stays at the margin"):
        feed(watch, steps)


@pytest.mark.parametrize("apart", [0.3, 0.6])
def test_a_loss_near_the_margin_that_learns_is_no_collapse(apart: float) -> None:
    """All triplets are active and the spread is down, but positives are nearer than negatives."""
    steps = noisy(5000, apart=apart)
    loss, active, spread = (sum(column) / len(steps) for column in zip(*steps, strict=True))
    assert 0.25 < loss < 0.3
    assert active > 0.99
    assert spread < 0.08
    watch = collapse.CollapseWatch(0.3)
    watch.update(0.25, 0.8, 1.0)
    feed(watch, steps)
    watch.check_end(*steps[-1])


def test_a_loss_at_the_margin_is_no_collapse_while_the_spread_holds() -> None:
    watch = collapse.CollapseWatch(0.3)
    feed(watch, noisy(3000, apart=0.0))  # a slow start: nothing learnt yet, nothing lost
    assert watch.rest_steps == 0
    watch = collapse.CollapseWatch(None)
    watch.update(0.25, 1.0, 0.5)
    feed(watch, [(0.3, 1.0, 0.02)] * 3000)  # no margin to rest at
    assert watch.rest_steps == watch.low_steps == 0


@pytest.mark.parametrize(
    ("loss", "mining", "offered"),
    [
        ("triplet", "hard", True),
        ("triplet", "none", False),
        ("supcon", "none", False),
        ("arcface", "none", False),
    ],
)
def test_other_mining_is_offered_where_hard_triplets_are_mined(
    loss: str, mining: str, offered: bool
) -> None:
    recipe = config.load_recipe("laptop")
    watch = collapse.watch_for(config.replace(recipe, "loss", name=loss, mining=mining))
    assert watch.margin == (0.3 if loss == "triplet" else None)
    watch.update(0.3, 1.0, 0.5)
    with pytest.raises(CollapseError, match="one point") as raised:
        watch.check_end(0.3, 1.0, 1e-9)
    assert ("'semihard'" in str(raised.value)) == offered


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> FeatureFolder:
    return make_folder(tmp_path_factory.mktemp("library") / "features", trash=2)


def test_a_loss_that_is_not_finite_keeps_the_last_good_checkpoint(
    folder: FeatureFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = trainer.Trainer._loss, iter(range(10_000))

    def poisoned(self: trainer.Trainer, *arguments: Any) -> Any:
        result = real(self, *arguments)
        bad = next(calls) >= 40
        return dataclasses.replace(result, value=result.value * (float("nan") if bad else 1.0))

    monkeypatch.setattr(trainer.Trainer, "_loss", poisoned)
    with pytest.raises(NotFiniteError, match="last good checkpoint"):
        fit.fit(folder, ids(folder), recipe(), checkpoints=tmp_path / "run", fingerprint={})
    (saved,) = checkpoint.of_run(tmp_path, {})
    kept = checkpoint.load(saved, {})
    assert kept["epoch"] == 1
    assert all(bool(torch.isfinite(w).all()) for w in kept["weights"].values())


PK = {"kind": "pk", "subgenres": 0, "tracks": 4, "chunks": 2, "same_genre": 0.0}

ONE_STEP = {
    "drawn": {"batch": {"size": 1000}},
    "pk": {"batch": PK},
    "supcon": {"batch": PK, "loss": {"name": "supcon"}},
}


@pytest.mark.parametrize("kind", list(ONE_STEP))
def test_one_step_at_a_learning_rate_of_ten_is_seen(kind: str, tmp_path: Path) -> None:
    """The end is judged by the last weights, however often it is resumed."""
    small = make_folder(tmp_path / "features", tracks=4)
    settings = recipe(**ONE_STEP[kind], run={"save_every": 1}, optim={"lr": 10.0, "epochs": 1})
    saved = tmp_path / "run" / checkpoint.NAME
    run: dict[str, Any] = {"checkpoints": saved.parent, "fingerprint": {}}
    with pytest.raises(CollapseError, match="lower the learning rate"):  # whatever its length
        stage.train(small.path, settings, out=tmp_path / "m", checkpoints=tmp_path / "c")
    assert not (tmp_path / "m").exists()
    for resume in (None, saved):
        with pytest.raises(CollapseError, match=r"exploded.* lower the learning rate"):
            fit.fit(small, ids(small), settings, resume=resume, **run)
        kept = checkpoint.load(saved, {})
        assert (kept["done"], kept["epoch"]) == (1, 0)  # the epoch was not closed


def test_the_check_of_the_last_weights_changes_nothing(folder: FeatureFolder) -> None:
    settings = recipe(
        model={"dropout": 0.2}, augment={"vector_noise": 0.1}, watch={"val_share": 0.25}
    )
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    watched = fit.fit(folder, ids(folder), settings)
    assert torch.equal(torch.rand(3), expected)  # the caller's generator
    unwatched = config.replace(settings, "watch", collapse=False)
    assert same(watched, fit.fit(folder, ids(folder), unwatched))
