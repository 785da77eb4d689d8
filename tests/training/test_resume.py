"""A run that was stopped and goes on ends as if it had not been."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from subgenre.dataset.folder import FeatureFolder
from subgenre.training import checkpoint, fit, trainer
from tests.folders import make_folder
from tests.training_runs import ids, recipe, same

pytestmark = pytest.mark.slow  # each trains or evaluates a model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> FeatureFolder:
    return make_folder(tmp_path_factory.mktemp("library") / "features", trash=2)


@pytest.mark.parametrize("stop_after", [1, 17])
@pytest.mark.parametrize(
    "sections",
    [
        {"model": {"dropout": 0.2}},
        {
            "batch": {"kind": "pk", "subgenres": 0, "tracks": 2, "chunks": 1, "accumulate": 2},
            "loss": {"name": "proxy_anchor"},
            "watch": {"val_share": 0.25},
            "optim": {"epochs": 12},
        },
    ],
    ids=["triplets", "pk with proxies and validation"],
)
def test_an_interruption_changes_nothing(
    folder: FeatureFolder, tmp_path: Path, stop_after: int, sections: dict[str, Any]
) -> None:
    settings = recipe(**sections)
    whole = fit.fit(folder, ids(folder), settings)
    requested = iter(range(10_000))
    with pytest.raises(trainer.Interrupted, match="--resume"):
        fit.fit(
            folder,
            ids(folder),
            settings,
            checkpoints=tmp_path / "run",
            fingerprint={"a": "b"},
            stop_requested=lambda: next(requested) >= stop_after - 1,
        )
    (saved,) = checkpoint.of_run(tmp_path, {"a": "b"}) or (None,)
    resumed = fit.fit(folder, ids(folder), settings, resume=saved, fingerprint={"a": "b"})
    assert same(whole, resumed)
    rows = [
        [dataclasses.replace(row, seconds=0.0) for row in run.result.history]
        for run in (whole, resumed)
    ]
    assert rows[0] == rows[1]


def test_a_run_that_stopped_early_is_at_its_end_when_it_is_resumed(
    folder: FeatureFolder, tmp_path: Path
) -> None:
    settings = recipe(
        batch={"kind": "pk", "subgenres": 0, "tracks": 2, "chunks": 1},
        loss={"name": "supcon"},
        watch={"val_share": 0.25, "patience": 2},
        optim={"epochs": 200, "lr": 3e-2},
    )
    run: dict[str, Any] = {"checkpoints": tmp_path / "run", "fingerprint": {}}
    whole = fit.fit(folder, ids(folder), settings, **run)
    assert whole.result.stopped_early
    (saved,) = checkpoint.of_run(tmp_path, {})
    resumed = fit.fit(folder, ids(folder), settings, resume=saved, **run)
    assert resumed.result.stopped_early
    assert resumed.result.history == whole.result.history
    assert resumed.result.best_epoch == whole.result.best_epoch
    assert same(whole, resumed)
