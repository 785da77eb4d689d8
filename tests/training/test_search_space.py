"""The candidates of `tune`: one split, no candidate twice, failures listed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from subgenre import config
from subgenre.errors import ConfigError
from subgenre.training import search_space
from subgenre.training.search_space import Candidate
from tests.consoles import RecordingConsole
from tests.training.test_recipes import features


@pytest.fixture
def musicnn(tmp_path: Path) -> Path:
    return features(tmp_path / "musicnn", "musicnn")


@pytest.fixture
def ast(tmp_path: Path) -> Path:
    return features(tmp_path / "ast", "ast")


def propose(folder: Path, *names: str | None, vary: Any = (), **options: Any) -> list[Candidate]:
    defaults = {"given": {}, "trials": 99, "console": RecordingConsole()}
    return search_space.candidates(folder, names or ("laptop",), dict(vary), **defaults | options)


def write(path: Path, text: str) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_recipes_come_first_and_no_candidate_twice(musicnn: Path) -> None:
    tried = propose(musicnn, vary={"optim.lr": [1e-3, 1e-2]})
    assert [one.name for one in tried] == ["laptop", "laptop: optim.lr=0.01"]
    tried = propose(musicnn, "thesis", "laptop", "laptop")
    assert [one.name for one in tried[:2]] == ["thesis", "laptop"]
    assert len({str(one.settings) for one in tried}) == len(tried) == 2 + 2 + 8


def test_too_many_changes_are_drawn_with_the_seed(musicnn: Path) -> None:
    vary = {"optim.lr": [i * 1e-3 for i in range(2, 30)]}
    tried = propose(musicnn, vary=vary, trials=5, given={"run.seed": 1})
    assert len(tried) == 5
    assert tried == propose(musicnn, vary=vary, trials=5, given={"run.seed": 1})
    other = propose(musicnn, vary=vary, trials=5, given={"run.seed": 2})
    assert [one.name for one in tried] != [one.name for one in other]


@pytest.mark.parametrize(
    ("vary", "words"),
    [
        ({"optim.lrr": [1.0]}, "did you mean 'lr'"),
        ({"optm.lr": [1.0]}, "did you mean 'optim'"),
        ({"lr": [1.0]}, r"section\.key"),
        ({"loss.margin": [0.1, 0.2]}, "loss.margin has no effect: loss supcon reads temperature"),
        ({"augment.patchout": [0.1]}, "augment.patchout is 0.1, but has no effect"),
        ({"run.seed": [1, 2]}, "--vary run.seed would try .* --set run.seed=VALUE"),
        ({"run.test_share": [0.2, 0.3]}, "--vary run.test_share would try"),
        ({"run.strict_groups": [True]}, "--vary run.strict_groups would try"),
    ],
)
def test_options_that_cannot_be_varied_are_refused(
    musicnn: Path, vary: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        propose(musicnn, vary=vary)


def test_there_are_trials_for_all_recipes(musicnn: Path) -> None:
    with pytest.raises(ConfigError, match="trials is 0; give 1 or more"):
        propose(musicnn, trials=0)
    with pytest.raises(ConfigError, match="trials is 2, but there are 3 recipes"):
        propose(musicnn, "thesis", "laptop", "gpu", trials=2)
    assert len(propose(musicnn, "thesis", "laptop", "gpu", trials=3)) == 3


def test_all_recipes_have_the_split_of_the_first(musicnn: Path, tmp_path: Path) -> None:
    text = "[optim]\nlr = 0.5\n[run]\nseed = 5\ntest_share = 0.3\nstrict_groups = true\n"
    other, console = write(tmp_path / "other.toml", text), RecordingConsole()
    options = {"given": {"model.tune": "head"}, "console": console}
    tried = propose(musicnn, "thesis", other, vary={"optim.lr": [0.1]}, **options)
    assert len(tried) == 3  # the changed ones are equal
    for one in tried:
        run = one.settings.run
        assert (run.seed, run.test_share, run.strict_groups) == (0, 0.2, False)
    words = "takes run.seed 0, run.test_share 0.2, run.strict_groups False from the first recipe"
    assert any(words in text for text in console.messages)


def test_each_recipe_keeps_its_backbone_or_takes_the_first_ones(ast: Path, tmp_path: Path) -> None:
    one = write(tmp_path / "one.toml", '[model]\nbackbone = "musicnn"\ntune = "head"\n')
    text = f'[model]\nbackbone = "{config.DEFAULT_BACKBONE}"\ntune = "head"\n'
    two = write(tmp_path / "two.toml", text)
    open_ = write(tmp_path / "open.toml", '[model]\ntune = "head"\n[optim]\nlr = 0.5\n')
    tried = propose(ast, one, two, "laptop", open_, trials=4)
    names = [each.settings.model.backbone for each in tried]
    assert names == ["musicnn", config.DEFAULT_BACKBONE, "musicnn", "musicnn"]
    tried = propose(ast, two, "laptop", trials=2, given={"model.backbone": "musicnn"})
    assert {each.settings.model.backbone for each in tried} == {"musicnn"}


def test_a_packaged_recipe_is_adapted_to_each_change(ast: Path) -> None:
    console, vary = RecordingConsole(), {"model.tune": ["head", "full"]}
    plain, full = (one.settings for one in propose(ast, vary=vary, console=console))
    assert plain.model.pca == 200
    assert (full.model.tune, full.model.pca, full.augment.vector_noise) == ("full", 0, 0.0)
    assert any(
        "disabled in recipe laptop, without effect with tune full" in t for t in console.messages
    )
    head, full = (
        one.settings for one in propose(ast, "gpu", vary=vary, given={"model.tune": "head"})
    )
    gpu = config.load_recipe("gpu")
    assert (head.augment.time_mask, full.augment.time_mask) == (0, gpu.augment.time_mask)
    assert full.optim.head_epochs == gpu.optim.head_epochs
    few = propose(ast, "gpu", vary={"optim.epochs": [2, 20]})
    assert [one.settings.optim.head_epochs for one in few] == [3, 1]


def test_an_option_that_a_loss_does_not_read_is_left_out(musicnn: Path) -> None:
    vary = {"loss.name": ["multi_similarity", "triplet"], "loss.margin": [0.1, 0.2]}
    tried = propose(musicnn, vary=vary)
    assert [one.name.removeprefix("laptop") for one in tried] == [
        "",
        ": loss.name=multi_similarity",
        ": loss.name=triplet, loss.margin=0.1",
        ": loss.name=triplet, loss.margin=0.2",
    ]


def test_changes_that_contradict_each_other_are_listed_as_failed(musicnn: Path) -> None:
    vary = {"batch.kind": ["triplet", "pk"], "loss.name": ["supcon", "triplet"]}
    tried = propose(musicnn, vary=vary)
    assert [bool(one.failed) for one in tried] == [False, False, False, True]
    assert tried[-1].name == "laptop: batch.kind=triplet, loss.name=supcon"
    assert "compares whole batches" in tried[-1].failed


def test_an_option_without_effect_in_one_recipe_names_it(musicnn: Path) -> None:
    with pytest.raises(ConfigError, match=r"recipe laptop: loss\.margin has no effect"):
        propose(musicnn, "thesis", "laptop", given={"loss.margin": 0.1})


def test_recipes_in_files_of_one_name_have_different_names(ast: Path, tmp_path: Path) -> None:
    names = [
        write(tmp_path / name / "config.toml", f"[optim]\nlr = {rate}\n")
        for name, rate in (("one", 0.1), ("two", 0.2))
    ]
    tried = propose(ast, *names, trials=2)
    assert [one.name for one in tried] == names
    assert [one.settings.optim.lr for one in tried] == [0.1, 0.2]
