from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from subgenre import checks, config
from subgenre.config import TrainConfig
from subgenre.errors import ConfigError


def test_thesis_is_the_original_set_up() -> None:
    recipe = config.load_recipe("thesis")
    assert recipe.batch.kind == "triplet"
    assert recipe.batch.size == 2
    assert recipe.optim.lr == 1e-4
    assert recipe.optim.epochs == 30
    assert recipe.loss.name == "triplet"
    assert recipe.loss.margin == 0.3
    assert (recipe.loss.negative_margin, recipe.loss.trash_margin) == (0.2, 0.5)
    assert recipe.loss.trash_weight == 1.0
    assert recipe.model.tune == "full"
    assert recipe.model.head == (768, 512)
    assert recipe.model.embedding_size == 128
    assert recipe.model.backbone == "MIT/ast-finetuned-audioset-10-10-0.4593"
    assert recipe.augment == config.AugmentConfig()
    assert recipe.watch.val_share == 0
    assert (recipe.optim.schedule, recipe.optim.warmup) == ("constant", 0)


def test_preprocessing_defaults_are_the_specified_ones() -> None:
    settings = config.PreprocessConfig()
    assert (settings.chunk_s, settings.max_chunks) == (10.0, 3)
    assert (settings.chunk_strategy, settings.min_track_s) == ("random", 3.0)


def test_every_recipe_loads() -> None:
    assert "thesis" in config.recipe_names()
    for name in config.recipe_names():
        assert config.load_recipe(name).recipe == name


def test_a_configuration_survives_its_file(tmp_path: Path) -> None:
    settings = config.replace(TrainConfig(), "model", head=(64,), layer="weighted")
    checks.save_toml(tmp_path / "a.toml", settings)
    assert checks.from_dict(TrainConfig, checks.load_toml(tmp_path / "a.toml")) == settings
    assert config.load_recipe(str(tmp_path / "a.toml")) == settings


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[optim]\nepoch = 3", "unknown key 'epoch' .did you mean 'epochs'"),
        ("[optimm]\nlr = 1.0", "unknown key 'optimm' .did you mean 'optim'"),
        ("[optim]\nlr = 'fast'", "lr is 'fast'; float is wanted"),
        ("[optim]\nepochs = 2.5", "epochs is 2.5; int is wanted"),
        ("[optim]\nepochs = true", "epochs is True; int is wanted"),
        ("[optim]\nlr = nan", "must lie between"),
        ("optim = 3", "optim must be a table"),
        ("[model]\ntune = 'last:0'", "choose head, last:N"),
        ("[model]\nhead = 3", "a list is wanted"),
        ("[loss]\nname = 'tripplet'", "did you mean 'triplet'"),
        ("[batch]\ntracks = 1", "only positive"),
        ("[optim\n", "can't be read as TOML"),
    ],
)
def test_a_bad_recipe_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "r.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        config.load_recipe(str(path))


def test_a_missing_recipe_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'thesis'"):
        config.load_recipe("thesys")
    with pytest.raises(ConfigError, match="does not exist"):
        config.load_recipe("nowhere.toml")


def test_whole_numbers_serve_as_floats() -> None:
    settings = checks.from_dict(config.OptimConfig, {"lr": 1})
    assert isinstance(settings.lr, float)


@pytest.mark.parametrize("section", [f.name for f in dataclasses.fields(TrainConfig)][1:])
def test_sections_are_frozen(section: str) -> None:
    part = getattr(TrainConfig(), section)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(part, dataclasses.fields(part)[0].name, None)
