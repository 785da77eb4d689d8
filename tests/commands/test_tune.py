from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from subgenre import config
from subgenre.commands import tune
from subgenre.config import TrainConfig
from subgenre.dataset import splits
from subgenre.dataset.folder import FeatureFolder
from subgenre.errors import ConfigError, FeatureError, TrainingError
from subgenre.evaluation import cross_validation as trainings
from subgenre.training import recipes, search_space
from subgenre.training.search_space import Candidate
from tests.ears import Ear
from tests.folders import make_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> FeatureFolder:
    return make_folder(tmp_path_factory.mktemp("library") / "features", chunks=1)


def base(**optim: Any) -> TrainConfig:
    settings = config.load_recipe("thesis")
    settings = config.replace(settings, "model", backbone="musicnn", tune="head", head=(16,))
    return config.replace(settings, "optim", epochs=1, **optim)


def test_the_recipes_stand_first_and_no_candidate_twice() -> None:
    found = search_space.propose([base(lr=1e-3)], {"optim.lr": [1e-3, 1e-2]}, trials=9)
    assert [one.settings.optim.lr for one in found] == [1e-3, 1e-2]
    usual = search_space.propose([base(), config.load_recipe("gpu")], {}, trials=100)
    assert [one.name for one in usual[:2]] == ["thesis", "gpu"]
    assert len({str(one.settings) for one in usual}) == len(usual) == 2 + 2 + 8


def test_more_candidates_than_trials_are_drawn_by_the_seed() -> None:
    vary = {"optim.lr": [i * 1e-3 for i in range(2, 30)]}
    found = search_space.propose([base()], vary, trials=5, seed=1)
    assert len(found) == 5
    assert found == search_space.propose([base()], vary, trials=5, seed=1)
    assert found != search_space.propose([base()], vary, trials=5, seed=2)


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'lr'"):
        search_space.propose([base()], {"optim.lrr": [1.0]}, trials=5)
    with pytest.raises(ConfigError, match=r"section\.key"):
        search_space.propose([base()], {"lr": [1.0]}, trials=5)


@pytest.mark.parametrize("trials", [0, -3])
def test_no_trials_are_refused(trials: int) -> None:
    with pytest.raises(ConfigError, match=f"trials is {trials}; give 1 or more"):
        search_space.propose([base()], {}, trials=trials)


@pytest.mark.parametrize(
    ("out", "kept", "said"),
    [
        ("afile/x.toml", "k", "afile is no folder"),
        ("afolder", "k", "afolder, a folder; give the name of a file"),
        ("x.toml", "afile", "kept is .*afile is no folder"),
    ],
)
def test_an_output_that_can_not_be_written_is_refused_before_any_training(
    folder: FeatureFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    out: str,
    kept: str,
    said: str,
) -> None:
    monkeypatch.setattr(trainings, "train_all", lambda *_, **__: pytest.fail("it was trained"))
    (tmp_path / "afile").touch()
    (tmp_path / "afolder").mkdir()
    with pytest.raises(ConfigError, match=said):
        tune.tune(folder.path, [Candidate("one", base())], out=tmp_path / out, kept=tmp_path / kept)


def test_the_search_sees_no_test_track_and_writes_the_winner(
    folder: FeatureFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[trainings.Job] = []
    real = trainings.train_all

    def note(jobs: list[trainings.Job], **options: Any) -> Any:
        seen.extend(jobs)
        return real(jobs, **options)

    monkeypatch.setattr(trainings, "train_all", note)
    tried = search_space.propose([base()], {"optim.lr": [1e-3, 10.0]}, trials=5)
    tuned = tune.tune(
        folder.path, tried, folds=2, out=tmp_path / "best.toml", kept=tmp_path / "k", workers=1
    )
    hidden = set(splits.split(folder.tracks).test)
    for job in seen:
        assert not hidden & {*job.split.train, *job.split.test}
    winner = config.load_recipe(str(tmp_path / "best.toml"))
    best = tuned.tried[0].candidate.settings
    assert replace(winner, recipe=best.recipe) == best
    assert winner.recipe not in config.recipe_names()
    assert tuned.tried[-1].failed  # a rate of ten explodes: it loses, and the search goes on
    assert json.loads(json.dumps(tuned.to_dict()))["winner"] == tuned.tried[0].candidate.name
    with pytest.raises(TrainingError, match="every candidate failed"):
        tune.tune(
            folder.path, tried[2:], folds=2, out=tmp_path / "b.toml", kept=tmp_path, workers=1
        )


def test_level_candidates_are_told(folder: FeatureFolder, tmp_path: Path) -> None:
    ear, out = Ear(), tmp_path / "best.toml"
    tried = search_space.propose([base()], {"run.save_every": [1000]}, trials=5)  # trains the same
    tune.tune(folder.path, tried, folds=2, out=out, kept=tmp_path / "k", workers=1, console=ear)
    (told,) = (text for text in ear.told if text.startswith("best map_at_r: thesis ("))
    assert told.partition(", level with ")[2].startswith("thesis: run.save_every=1000")


@pytest.mark.parametrize(("cuda", "recipe"), [(True, "laptop"), (False, "laptop")])
def test_features_of_the_small_backbone_need_no_gpu(
    folder: FeatureFolder, monkeypatch: pytest.MonkeyPatch, cuda: bool, recipe: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    found = recipes.choose(folder.path)
    assert (found.recipe, found.backbone) == (recipe, "musicnn")
    assert "recipe laptop" in found.why


def test_features_of_the_transformer_take_the_recipe_of_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dataset.json").write_text(
        '{"format_version": 1, "spec": {"front_end": "ast"}}', encoding="utf-8"
    )
    for cuda, recipe in ((True, "gpu"), (False, "laptop")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        found = recipes.choose(tmp_path)
        assert (found.recipe, found.backbone) == (recipe, None)
    assert recipes.choose(tmp_path, device="cpu").recipe == "laptop"
    with pytest.raises(FeatureError, match="there are no features in"):
        recipes.choose(tmp_path / "nowhere")
