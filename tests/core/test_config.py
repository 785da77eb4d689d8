from __future__ import annotations

import dataclasses
import math
import re
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from subgenre import config
from subgenre.config import PreprocessConfig, TrainConfig
from subgenre.core import validation
from subgenre.errors import ConfigError


def test_thesis_is_the_original_set_up() -> None:
    file = resources.files("subgenre").joinpath("recipes", "thesis.toml")
    assert tomllib.loads(file.read_text(encoding="utf-8")) == {
        "model": {"tune": "full", "layer": -1, "pooling": "mean"}
        | {"head": [768, 512], "embedding_size": 128},
        "batch": {"kind": "triplet", "size": 2},
        "loss": {"name": "triplet", "margin": 0.3, "negative_margin": 0.2}
        | {"trash_margin": 0.5, "trash_weight": 1.0},
        "optim": {"epochs": 30, "lr": 1e-4},
    }
    recipe, chunks = config.load_recipe("thesis"), config.PreprocessConfig()  # the rest: defaults
    assert recipe.model.backbone == "MIT/ast-finetuned-audioset-10-10-0.4593"
    assert (recipe.model.dropout, recipe.batch.accumulate, recipe.watch.val_share) == (0.0, 1, 0)
    assert (recipe.optim.schedule, recipe.optim.warmup) == ("constant", 0)
    assert set(vars(recipe.augment).values()) == {0}
    assert (chunks.chunk_s, chunks.max_chunks) == (10.0, 3)
    assert (chunks.chunk_strategy, chunks.min_track_s) == ("random", 3.0)


def test_every_recipe_loads() -> None:
    assert "thesis" in config.recipe_names()
    for name in config.recipe_names():
        assert config.load_recipe(name).recipe == name


def test_a_configuration_survives_its_file(tmp_path: Path) -> None:
    settings = config.replace(TrainConfig(), "model", head=(64,), layer=3)
    validation.save_toml(tmp_path / "a.toml", settings)
    assert validation.from_dict(TrainConfig, validation.load_toml(tmp_path / "a.toml")) == settings
    named = dataclasses.replace(settings, recipe="a.toml")  # whatever the file calls itself
    assert config.load_recipe(str(tmp_path / "a.toml")) == named


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[optim]\nepoch = 3", "unknown key 'epoch' .did you mean 'epochs'"),
        ("[optimm]\nlr = 1.0", "unknown key 'optimm' .did you mean 'optim'"),
        ("[optim]\nlr = 'fast'", "lr is 'fast'; it must be a number"),
        ("[optim]\nepochs = 2.5", "epochs is 2.5; it must be a whole number"),
        ("[optim]\nepochs = true", "epochs is True; it must be a whole number"),
        ("[optim]\nlr = nan", "must lie between"),
        ("optim = 3", "optim must be a table"),
        ("[model]\ntune = 'last:0'", "choose head, last:N"),
        ("[model]\nhead = 3", "it must be a list"),
        ("[loss]\nname = 'tripplet'", "did you mean 'triplet'"),
        ("[batch]\ntracks = 1", "only positive"),
        ("[optim\n", "can't be read"),
    ],
)
def test_a_bad_recipe_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "r.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        config.load_recipe(str(path))


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        *((name, "3", advice) for name, (_, advice) in config.REMOVED.items()),
        *((name, f"'{value}'", text) for (name, value), text in config.REMOVED_VALUES.items()),
    ],
)
def test_a_removed_option_is_refused_with_what_to_do(tmp_path, name, value, advice) -> None:
    (tmp_path / "r.toml").write_text(f"{name} = {value}")
    for read in (lambda path: config.load_recipe(str(path)), config.load_settings):
        with pytest.raises(ConfigError, match=re.escape(name)) as raised:
            read(tmp_path / "r.toml")
        assert str(raised.value).endswith(advice)


def test_a_model_of_an_earlier_version_with_the_former_defaults_is_read(tmp_path: Path) -> None:
    plain = validation.to_dict(config.load_recipe("laptop"))
    for name, (default, _) in config.REMOVED.items():
        section, _, key = name.partition(".")
        if section != "preprocess":
            plain[section][key] = default
    (tmp_path / "config.toml").write_text(tomli_w.dumps(plain))
    assert config.load_settings(tmp_path / "config.toml") == config.load_recipe("laptop")


def test_a_feature_folder_of_an_earlier_version_is_read_if_it_used_no_removed_option() -> None:
    plain = PreprocessConfig(chunk_s=3.0).to_dict()
    assert PreprocessConfig.from_dict(plain) == PreprocessConfig(chunk_s=3.0)
    with pytest.raises(ConfigError, match=r"store_s = 12\.0 no longer exists; run `subgenre pre"):
        PreprocessConfig.from_dict({**plain, "store_s": 12.0})


def test_a_missing_recipe_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'thesis'"):
        config.load_recipe("thesys")
    with pytest.raises(ConfigError, match="does not exist"):
        config.load_recipe("nowhere.toml")


SECTIONS = (
    config.PreprocessConfig,
    *(type(getattr(TrainConfig(), f.name)) for f in (dataclasses.fields(TrainConfig)[1:])),
)
NUMBERS = [
    (section, field.name)
    for section in SECTIONS
    for field in dataclasses.fields(section)
    if type(field.default) in (int, float) and field.name != "layer"  # the backbone knows its own
]


@pytest.mark.parametrize(("section", "name"), NUMBERS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -100_000, 10**12])
def test_a_number_out_of_range_is_refused(section: Any, name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} is {value}"):
        section(**{name: value})


@pytest.mark.parametrize(
    "option",
    [
        *("optim.clip_norm = -1.0", "optim.weight_decay = -0.01", "loss.negative_margin = -0.1"),
        *("loss.trash_margin = -0.1", "loss.trash_weight = -1.0", "loss.alpha = 0.0"),
        *("loss.beta = 0.0", "loss.scale = 0.0", "loss.base = nan", "loss.angular_margin = -1.0"),
        *("run.save_every = -1", "run.seed = -1", "watch.every = 0", "watch.patience = -1"),
    ],
)
def test_a_recipe_with_a_number_out_of_range_is_refused(tmp_path: Path, option: str) -> None:
    name, _, value = option.partition(".")[2].partition(" = ")
    (tmp_path / "r.toml").write_text(option)
    with pytest.raises(ConfigError, match=f"^{name} is {value}; it must lie between"):
        config.load_recipe(str(tmp_path / "r.toml"))


def test_zero_is_accepted_where_it_disables_an_option() -> None:
    zeros = {
        config.OptimConfig: ("clip_norm", "weight_decay", "backbone_lr"),
        config.RunConfig: ("save_every", "seed"),
        config.WatchConfig: ("patience", "val_share"),
        config.LossConfig: ("trash_weight", "angular_margin", "base"),
    }
    for kind, names in zeros.items():
        made = kind(**dict.fromkeys(names, 0))
        assert [getattr(made, name) for name in names] == [0] * len(names)


def test_a_check_of_an_output_leaves_no_file(tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("kept")
    for name, folder in (("file", False), ("new/deep/file", False), ("", True), ("new", True)):
        validation.check_output("out", tmp_path / name, folder=folder)
    for name, folder, message in (
        ("", False, "a folder; give the name of a file"),
        ("file/deep/x.toml", False, "file is no folder; choose another place"),
        ("file", True, "file is no folder; choose another place"),
    ):
        with pytest.raises(ConfigError, match=message):
            validation.check_output("out", tmp_path / name, folder=folder)

    def refused(dir: Path) -> None:
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr(validation.tempfile, "TemporaryFile", refused)
    with pytest.raises(ConfigError, match=r"nothing can be written into .* \(Permission denied\)"):
        validation.check_output("out", tmp_path / "x.toml")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
