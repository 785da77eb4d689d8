"""Training that goes wrong is told, and saves no model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from subgenre import config
from subgenre.commands import train as stage
from subgenre.dataset.folder import FeatureFolder
from subgenre.errors import CollapseError, NotFiniteError
from subgenre.training import checkpoint, fit, trainer
from tests.folders import make_folder
from tests.training_runs import ids, recipe, same


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> FeatureFolder:
    return make_folder(tmp_path_factory.mktemp("library") / "features", trash=2)


def test_a_learning_rate_of_ten_ends_with_the_error(folder: FeatureFolder, tmp_path: Path) -> None:
    """Whatever the batches and the loss, and however few the steps: no model is saved."""
    pk = {"kind": "pk", "subgenres": 0, "tracks": 4, "chunks": 2}
    for sections in (
        {},
        {"batch": pk},
        {"batch": pk, "loss": {"name": "supcon"}},
    ):
        settings = recipe(optim={"lr": 10.0, "epochs": 2}, **sections)
        with pytest.raises((CollapseError, NotFiniteError), match="lower the learning rate"):
            stage.train(folder.path, settings, out=tmp_path / "m", checkpoints=tmp_path / "c")
        assert not (tmp_path / "m").exists()


def test_a_loss_that_is_no_number_keeps_the_last_good_checkpoint(
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
    """A step looks at what it found; the end is judged by what it left, however often resumed."""
    small = make_folder(tmp_path / "features", tracks=4)
    settings = recipe(**ONE_STEP[kind], run={"save_every": 1}, optim={"lr": 10.0, "epochs": 1})
    saved = tmp_path / "run" / checkpoint.NAME
    run: dict[str, Any] = {"checkpoints": saved.parent, "fingerprint": {}}
    for resume in (None, saved):
        with pytest.raises(CollapseError, match=r"exploded.* lower the learning rate"):
            fit.fit(small, ids(small), settings, resume=resume, **run)
        kept = checkpoint.load(saved, {})
        assert (kept["done"], kept["epoch"]) == (1, 0)  # the epoch was not closed


def test_the_check_last_weights_changes_nothing(
    folder: FeatureFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = recipe(
        model={"dropout": 0.2}, augment={"vector_noise": 0.1}, watch={"val_share": 0.25}
    )
    looks: list[int] = []
    real = trainer.Trainer._check_last_weights

    def look(self: trainer.Trainer) -> None:
        before = {name: p.clone() for name, p in self.modules.state_dict().items()}
        steps = self.state.done, list(self.state.sums)
        real(self)
        looks.append(self.state.done)
        after = self.modules.state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert (self.state.done, self.state.sums) == steps
        assert all(p.grad is None for p in self.modules.parameters())

    monkeypatch.setattr(trainer.Trainer, "_check_last_weights", look)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    looked = fit.fit(folder, ids(folder), settings)
    assert torch.equal(torch.rand(3), expected)
    assert len(looks) == 1
    unwatched = config.replace(settings, "watch", collapse=False)
    assert same(looked, fit.fit(folder, ids(folder), unwatched))
    assert len(looks) == 1
