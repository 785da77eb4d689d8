from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from subgenre import cli, config
from subgenre.commands import tune
from subgenre.dataset import splits
from subgenre.dataset.folder import FeatureFolder
from subgenre.errors import ConfigError, TrainingError
from subgenre.evaluation import cross_validation
from subgenre.training import trainer
from tests.consoles import RecordingConsole
from tests.folders import make_folder

GIVEN = {"model.tune": "head", "model.head": [16], "optim.epochs": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> FeatureFolder:
    return make_folder(tmp_path_factory.mktemp("library") / "features", chunks=1)


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Any]:
    return {"out": tmp_path / "best.toml", "kept": tmp_path / "kept", "folds": 2, "workers": 1}


@pytest.mark.parametrize(
    ("out", "kept", "words"),
    [
        ("afile/x.toml", "k", "afile is no folder"),
        ("afolder", "k", "afolder, a folder; give the name of a file"),
        ("x.toml", "afile", "kept is .*afile is no folder"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_any_training(
    folder: FeatureFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    out: str,
    kept: str,
    words: str,
) -> None:
    monkeypatch.setattr(cross_validation, "train_all", lambda *_, **__: pytest.fail("trained"))
    (tmp_path / "afile").touch()
    (tmp_path / "afolder").mkdir()
    with pytest.raises(ConfigError, match=words):
        tune.tune(folder.path, out=tmp_path / out, kept=tmp_path / kept)


@pytest.mark.slow
def test_the_search_sees_no_test_track_and_writes_the_winner(
    folder: FeatureFolder, places: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[str] = set()
    real = cross_validation.train_all

    def note(jobs: list[cross_validation.Job], **options: Any) -> Any:
        for job in jobs:
            seen.update(job.split.train, job.split.test)
        return real(jobs, **options)

    monkeypatch.setattr(cross_validation, "train_all", note)
    vary = {"optim.lr": [1e-3, 10.0]}  # a rate of ten explodes: it loses, and the search goes on
    tuned = tune.tune(folder.path, ["thesis"], vary, given=GIVEN, **places)
    winner = config.load_recipe(str(places["out"]))
    split = splits.split(folder.tracks, seed=winner.run.seed, test_share=winner.run.test_share)
    assert seen
    assert not seen & set(split.test)
    best = tuned.trials[0].candidate.settings
    assert replace(winner, recipe=best.recipe) == best
    assert winner.recipe not in config.recipe_names()
    assert tuned.trials[-1].failed
    assert json.loads(json.dumps(tuned.to_dict()))["winner"] == tuned.trials[0].candidate.name


@pytest.mark.slow
def test_a_candidate_that_fails_is_recorded_and_the_others_go_on(
    folder: FeatureFolder, places: dict[str, Any]
) -> None:
    console, vary = RecordingConsole(), {"model.pca": [5000, 5]}
    tuned = tune.tune(folder.path, ["thesis"], vary, given=GIVEN, console=console, **places)
    assert [bool(one.failed) for one in tuned.trials] == [False, False, True]
    assert "pca is 5000" in tuned.trials[-1].failed
    columns, rows = tuned.table()
    assert columns[-1] == "why"
    assert [row[-1] for row in rows] == [one.failed for one in tuned.trials]
    assert any(text.startswith("thesis: model.pca=5000: pca is 5000") for text in console.messages)
    with pytest.raises(TrainingError, match="every candidate failed; the first: pca is 5000"):
        tune.tune(
            folder.path, ["thesis"], vary, given={**GIVEN, "model.pca": 5000}, trials=1, **places
        )


@pytest.mark.slow
def test_equal_candidates_are_named(folder: FeatureFolder, places: dict[str, Any]) -> None:
    console, vary = RecordingConsole(), {"run.save_every": [1000]}  # trains the same
    tune.tune(folder.path, ["thesis"], vary, given=GIVEN, console=console, **places)
    (best,) = (text for text in console.messages if text.startswith("best map_at_r: thesis ("))
    assert best.partition(", equal to ")[2].startswith("thesis: run.save_every=1000")


@pytest.mark.slow
def test_too_little_memory_ends_one_candidate_alone(
    folder: FeatureFolder, places: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = trainer.Trainer._step

    def step(self: trainer.Trainer, *args: Any, **options: Any) -> None:
        if self.config.optim.lr == 0.5:
            torch.empty(2**52)
        real(self, *args, **options)

    monkeypatch.setattr(trainer.Trainer, "_step", step)
    tuned = tune.tune(folder.path, ["thesis"], {"optim.lr": [0.5]}, given=GIVEN, **places)
    assert [one.candidate.name for one in tuned.trials] == ["thesis", "thesis: optim.lr=0.5"]
    assert tuned.trials[1].failed.startswith("there is not enough memory")


def test_the_command_joins_the_values_of_an_option(
    folder: FeatureFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []

    def note(*arguments: Any, **options: Any) -> None:
        calls.append((*arguments, options["given"]))
        raise ConfigError("noted")

    monkeypatch.setattr(tune, "tune", note)
    varied = ("--vary", "optim.lr=2e-3", "--vary", "optim.lr=3e-3,2e-3")
    words = ("tune", "--recipe", "laptop", "--recipes", "gpu", "--tune", "full", *varied)
    assert cli.main([*words, "--features", str(folder.path)]) == 2
    ((_, recipes, vary, given),) = calls
    assert recipes == ("laptop", "gpu")
    assert vary == {"optim.lr": [2e-3, 3e-3, 2e-3]}
    assert given == {"model.tune": "full"}
