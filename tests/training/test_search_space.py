"""What a search over recipes tries: no split of its own, nothing that can't act, no twins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from subgenre import cli, config
from subgenre.commands import tune
from subgenre.config import TrainConfig
from subgenre.dataset import splits
from subgenre.dataset.folder import FeatureFolder
from subgenre.errors import ConfigError, TrainingError
from subgenre.evaluation import cross_validation as trainings
from subgenre.training import recipes as choice
from subgenre.training import search_space, trainer
from subgenre.training.search_space import Candidate
from tests.ears import Ear
from tests.folders import make_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> FeatureFolder:
    return make_folder(tmp_path_factory.mktemp("library") / "features", chunks=1)


@pytest.fixture
def tried(
    folder: FeatureFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[Candidate]:
    """Run commands in a folder of its own; what would be tried is noted, and not trained."""
    found: list[Candidate] = []

    def note(_: Path, wanted: list[Candidate], **__: Any) -> None:
        found.extend(wanted)
        raise ConfigError("noted")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tune, "tune", note)
    Path("f").symlink_to(folder.path)
    return found


def run(*words: str) -> int:
    return cli.main(["tune", "--features", "f", *words])


def base(**optim: Any) -> TrainConfig:
    settings = config.load_recipe("thesis")
    settings = config.replace(settings, "model", backbone="musicnn", tune="head", head=(16,))
    return config.replace(settings, "optim", epochs=1, **optim)


@pytest.mark.parametrize(
    ("name", "values"),
    [("run.seed", [1, 2]), ("run.test_share", [0.2, 0.3]), ("run.strict_groups", [True])],
)
def test_what_draws_the_test_tracks_is_not_searched_over(name: str, values: list[Any]) -> None:
    with pytest.raises(ConfigError, match=f"--vary {name} would try .* --set {name}=VALUE"):
        search_space.propose([base()], {name: values}, trials=9)


def test_all_recipes_are_given_the_split_of_the_first() -> None:
    other = config.replace(base(lr=1e-3), "run", seed=5, test_share=0.3, strict_groups=True)
    first, ear = config.replace(base(), "run", seed=3), Ear()
    found = search_space.propose([first, other], {"optim.lr": [0.1]}, trials=9, console=ear)
    drawn = {(o.settings.run.seed, o.settings.run.test_share) for o in found}
    assert drawn == {(3, 0.2)}
    assert not any(one.settings.run.strict_groups for one in found)
    assert "takes run.seed 3, run.test_share 0.2, run.strict_groups False" in ear.told[0]


def test_the_winner_is_tested_on_tracks_that_the_search_has_not_seen(
    folder: FeatureFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[str] = set()
    real = trainings.train_all

    def note(jobs: list[trainings.Job], **options: Any) -> Any:
        for job in jobs:
            seen.update(job.split.train, job.split.test)
            assert job.settings.run.seed == 0
        return real(jobs, **options)

    monkeypatch.setattr(trainings, "train_all", note)
    bad = Candidate("bad", base(lr=10.0))  # explodes: the other wins
    other = Candidate("other", config.replace(base(), "run", seed=4, test_share=0.4))
    out, ear = tmp_path / "won.toml", Ear()
    tune.tune(
        folder.path, [bad, other], folds=2, out=out, kept=tmp_path / "k", workers=1, console=ear
    )
    won = config.load_recipe(str(out)).run
    assert (won.seed, won.test_share) == (0, 0.2)
    split = splits.split(folder.tracks, seed=won.seed, test_share=won.test_share)
    assert not seen & set(split.test)
    assert any("run.seed 0" in told for told in ear.told)


def test_each_recipe_keeps_the_backbone_that_it_names(tried: list[Candidate]) -> None:
    for name, backbone in (("b", "one"), ("b2", "two"), ("c", "three")):
        Path(f"{name}.toml").write_text(f'[model]\nbackbone = "{backbone}"\n', encoding="utf-8")
    Path("open.toml").write_text('[model]\ntune = "head"\n', encoding="utf-8")
    more = ("--recipes", "b.toml", "--recipes", "c.toml")
    packaged = ("--recipes", "laptop", "--recipes", "open.toml")
    run("--recipe", "b2.toml", *more, *packaged, "--trials", "5")
    names = ["two", "one", "three", "musicnn", "musicnn"]
    assert [one.settings.model.backbone for one in tried] == names
    tried.clear()
    run(*more, "--trials", "3", "--set", "run.device=cpu")
    assert [one.settings.model.backbone for one in tried] == ["musicnn", "one", "three"]
    tried.clear()
    run("--recipe", "b2.toml", *more, "--trials", "5", "--backbone", "four")
    assert {one.settings.model.backbone for one in tried} == {"four"}


def test_what_a_packaged_recipe_sets_and_can_not_act_after_a_change_is_laid_to_rest(
    tried: list[Candidate], capsys: pytest.CaptureFixture[str]
) -> None:
    run("--recipe", "laptop", "--vary", "model.tune=head,full")
    plain, full = (one.settings for one in tried)
    assert plain.model.pca == 200
    assert (full.model.tune, full.model.pca, full.augment.vector_noise) == ("full", 0, 0.0)
    assert "left out of recipe laptop, as they can't act with tune full" in capsys.readouterr().err
    tried.clear()
    run("--recipe", "gpu", "--tune", "head", "--vary", "model.tune=head,full")
    own = config.load_recipe("gpu")
    assert tried[0].settings.augment.time_mask == 0
    assert tried[1].settings.augment.time_mask == own.augment.time_mask  # awake again
    assert tried[1].settings.optim.head_epochs == own.optim.head_epochs


def test_few_epochs_leave_one_for_the_backbone(
    tried: list[Candidate], capsys: pytest.CaptureFixture[str]
) -> None:
    run("--recipe", "gpu", "--vary", "optim.epochs=2,20")
    assert [one.settings.optim.head_epochs for one in tried] == [3, 1]
    assert "learns first for 1 epochs instead of 3" in capsys.readouterr().err
    tried.clear()
    run("--recipe", "gpu", "--tune", "last:1", "--epochs", "2", "--vary", "optim.epochs=20")
    assert [one.settings.optim.head_epochs for one in tried] == [1, 3]
    told = capsys.readouterr().err
    assert "as there are 2 in all" in told
    assert "as there are 20 in all" not in told


def test_a_candidate_that_can_not_be_trained_is_listed_and_the_others_go_on(
    folder: FeatureFolder, tmp_path: Path
) -> None:
    wanted = search_space.propose(
        [base()], {"model.pca": [5000, 5]}, trials=9, features=folder.path
    )
    out, ear = tmp_path / "best.toml", Ear()
    places: dict[str, Any] = {"out": out, "kept": tmp_path / "k", "workers": 1, "console": ear}
    tuned = tune.tune(folder.path, wanted, folds=2, **places)
    assert [bool(one.failed) for one in tuned.tried] == [False, False, True]
    assert "pca is 5000" in tuned.tried[-1].failed
    columns, rows = tuned.table()
    assert columns[-1] == "why"
    assert [row[-1] for row in rows] == [one.failed for one in tuned.tried]
    assert any(told.startswith("thesis: model.pca=5000: pca is 5000") for told in ear.told)
    other = Candidate("other", config.replace(base(), "model", backbone="nowhere/at all"))
    with pytest.raises(TrainingError, match="every candidate failed; the first: pca is 5000"):
        tune.tune(folder.path, [wanted[1], other], folds=2, **places)
    assert any(told.startswith("other: ") for told in ear.told)


def test_values_of_an_option_that_is_given_again_are_joined(tried: list[Candidate]) -> None:
    run("--recipe", "laptop", "--vary", "optim.lr=2e-3", "--vary", "optim.lr=3e-3,2e-3")
    assert [one.settings.optim.lr for one in tried] == [1e-3, 2e-3, 3e-3]


def test_more_recipes_than_trials_are_refused(
    tried: list[Candidate], capsys: pytest.CaptureFixture[str]
) -> None:
    recipes = ("--recipe", "thesis", "--recipes", "laptop", "--recipes", "gpu")
    assert run(*recipes, "--trials", "2") == 2
    assert "trials is 2, but 3 recipes are to be tried" in capsys.readouterr().err
    run(*recipes, "--trials", "3")
    assert len(tried) == 3
    tried.clear()
    run("--recipe", "laptop", "--recipes", "laptop", "--trials", "1")
    assert len(tried) == 1
    assert "recipes that are the same but for their name are tried once" in capsys.readouterr().err


def test_an_option_that_a_loss_does_not_read_makes_no_twin(
    tried: list[Candidate], capsys: pytest.CaptureFixture[str]
) -> None:
    varied = ("--vary", "loss.name=multi_similarity,triplet", "--vary", "loss.margin=0.1,0.2")
    run("--recipe", "laptop", *varied)
    assert [one.name.removeprefix("laptop") for one in tried] == [
        "",
        ": loss.name=multi_similarity",
        ": loss.name=triplet, loss.margin=0.1",
        ": loss.name=triplet, loss.margin=0.2",
    ]
    said = "--vary loss.margin is left out where it can't act: loss multi_similarity reads alpha"
    assert said in capsys.readouterr().err


def test_an_option_that_can_not_act_beside_another_makes_no_twin(
    folder: FeatureFolder,
) -> None:
    own = config.replace(base(), "model", pca=9)
    own = TrainConfig(**{**vars(own), "recipe": "own"})
    vary = {"model.tune": ["head", "full"], "model.pca": [5, 9], "model.fusion": [0.5]}
    found = search_space.propose([own], vary, trials=99, features=folder.path)
    assert [one.name for one in found] == [
        "own",
        "own: model.tune=head, model.pca=5, model.fusion=0.5",
        "own: model.tune=head, model.pca=9, model.fusion=0.5",
        "own: model.tune=full",
    ]
    assert (found[3].settings.model.pca, found[3].settings.model.fusion) == (0, 0.0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("loss.margin=0.1,0.2", "loss.margin can't act: loss supcon reads temperature"),
        ("augment.patchout=0.1", "augment.patchout can't act: no token passes the head"),
    ],
)
def test_an_option_that_can_act_nowhere_is_refused(
    tried: list[Candidate], capsys: pytest.CaptureFixture[str], words: str, said: str
) -> None:
    assert run("--recipe", "laptop", "--vary", words) == 2
    assert f"--vary {said}" in capsys.readouterr().err
    assert not tried


def test_an_option_for_all_that_one_recipe_does_not_read_is_refused_by_its_name(
    tried: list[Candidate], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--recipe", "thesis", "--recipes", "laptop", "--margin", "0.1") == 2
    assert "recipe laptop: loss.margin can't act" in capsys.readouterr().err
    assert not tried


def test_what_can_not_be_trained_takes_no_trial_and_is_told(folder: FeatureFolder) -> None:
    ear = Ear()
    vary = {"batch.kind": ["triplet", "pk"], "loss.name": ["supcon", "triplet"]}
    found = search_space.propose([base()], vary, trials=9, features=folder.path, console=ear)
    kinds = {(one.settings.batch.kind, one.settings.loss.name) for one in found}
    assert kinds == {("triplet", "triplet"), ("pk", "supcon"), ("pk", "triplet")}
    assert any("is left out: loss 'supcon' compares whole batches" in told for told in ear.told)


@pytest.mark.parametrize(
    ("vary", "said"),
    [
        ({"model.tune": ["last:1", "last:9"]}, "tune is 'last:9', but musicnn has 2 blocks"),
        ({"model.tune": ["last:1", "lora"]}, "tune 'lora' puts adapters on attention"),
        ({"model.tune": ["last:1"], "model.pooling": ["cls", "mean"]}, "pooling"),
        ({"model.tune": ["last:1", "head"], "optim.backbone_lr": [1e-5]}, ""),
    ],
)
def test_what_the_built_in_backbone_can_not_do_takes_no_trial(
    folder: FeatureFolder, vary: dict[str, Any], said: str
) -> None:
    ear = Ear()
    found = search_space.propose([base()], vary, trials=9, features=folder.path, console=ear)
    assert [one.settings.model.tune for one in found] == ["head", "last:1"]
    assert {one.settings.model.pooling for one in found} == {"mean"}
    left_out = [told for told in ear.told if ": " in told and " is left out: " in told]
    assert len(left_out) == bool(said)
    assert said in "".join(left_out)


def test_a_bases_own_epochs_of_the_head_stay_where_nobody_shortened_them(
    folder: FeatureFolder,
) -> None:
    own = config.replace(config.load_recipe("gpu"), "model", backbone="musicnn", tune="last:1")
    for first in (8, 0):
        changed = config.replace(own, "optim", head_epochs=first)
        vary = {"optim.epochs": [30]}
        found = search_space.propose([changed], vary, trials=9, features=folder.path)
        assert [one.settings.optim.head_epochs for one in found] == [first, first]


def test_an_own_recipe_that_a_change_would_leave_with_an_idle_option_takes_no_trial(
    folder: FeatureFolder,
) -> None:
    own = config.replace(base(backbone_lr=1e-5), "model", tune="last:1")
    own = TrainConfig(**{**vars(own), "recipe": "own.toml"})
    ear, vary = Ear(), {"model.tune": ["head"], "optim.lr": [0.1]}
    vary["model.tune"].append("full")
    found = search_space.propose([own], vary, trials=9, features=folder.path, console=ear)
    assert [one.settings.model.tune for one in found] == ["last:1", "full"]
    assert any("is left out: optim.backbone_lr is 1e-05, but can't act" in t for t in ear.told)


def test_recipes_in_files_of_one_name_are_told_apart(tried: list[Candidate]) -> None:
    for name, rate in (("one", 0.1), ("two", 0.2)):
        Path(name).mkdir()
        Path(name, "config.toml").write_text(f"[optim]\nlr = {rate}\n", encoding="utf-8")
    run("--recipe", "one/config.toml", "--recipes", "two/config.toml", "--recipes", "laptop")
    names = [one.name for one in tried[:3]]
    assert names == ["one/config.toml", "two/config.toml", "laptop"]
    assert [one.settings.optim.lr for one in tried[:2]] == [0.1, 0.2]


def test_too_little_memory_ends_one_candidate_alone(
    folder: FeatureFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = trainer.Trainer._step

    def step(self: trainer.Trainer, *args: Any, **options: Any) -> None:
        if self.config.optim.lr == 0.5:
            torch.empty(2**52)
        real(self, *args, **options)

    monkeypatch.setattr(trainer.Trainer, "_step", step)
    wanted = [Candidate("large", base(lr=0.5)), Candidate("small", base(lr=1e-3))]
    places: dict[str, Any] = {"out": tmp_path / "o.toml", "kept": tmp_path / "k", "workers": 1}
    tuned = tune.tune(folder.path, wanted, folds=2, **places)
    assert [one.candidate.name for one in tuned.tried] == ["small", "large"]
    assert tuned.tried[1].failed.startswith("there is not enough memory")


def test_what_was_given_by_hand_is_not_shortened(tried: list[Candidate]) -> None:
    by_hand = ("--recipe", "gpu", "--set", "optim.head_epochs=3")
    assert run(*by_hand, "--tune", "full", "--vary", "optim.epochs=2,20") == 2
    assert not tried  # refused, as `train --epochs 2` refuses it


def test_a_misspelt_section_is_told_as_such(tried: list[Candidate], capsys: Any) -> None:
    assert run("--vary", "optm.lr=1") == 2
    assert "no section 'optm' (did you mean 'optim'?)" in capsys.readouterr().err
    assert not tried


def test_a_recipe_that_names_no_backbone_takes_the_first_ones() -> None:
    first = config.replace(TrainConfig(), "model", backbone="my/ast")
    gpu = config.load_recipe("gpu")
    assert choice.beside(first, gpu, "gpu").model.backbone == "my/ast"
    small = config.replace(TrainConfig(), "model", backbone="musicnn")
    assert choice.beside(small, gpu, "gpu") == gpu


def test_a_recipe_that_names_its_backbone_keeps_it(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text('[model]\nbackbone = "another/ast"\n', encoding="utf-8")
    first = config.replace(TrainConfig(), "model", backbone="my/ast")
    settings = config.load_recipe(str(own))
    assert choice.beside(first, settings, str(own)) == settings
