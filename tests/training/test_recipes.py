"""Which recipe a run takes, and which of its options have an effect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from subgenre import config, losses
from subgenre.core import files
from subgenre.errors import ConfigError, FeatureError
from subgenre.models import backbones
from subgenre.training import compatibility, fit
from subgenre.training.recipes import settings_for
from tests.consoles import RecordingConsole
from tests.folders import make_folder
from tests.models.hub_folders import CASES, save
from tests.toy import make_ast_folder


def features(path: Path, front_end: str) -> Path:
    dataset = {"format_version": 1, "spec": {"front_end": front_end}}
    path.mkdir()
    (path / "dataset.json").write_text(json.dumps(dataset), encoding="utf-8")
    return path


@pytest.fixture(params=["musicnn", "ast"])
def front_end(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("recipe", [None, *config.recipe_names()])
@pytest.mark.parametrize("tune", [None, "head", "last:1", "last:2", "full"])
def test_every_packaged_recipe_is_adapted_to_what_learns(
    tmp_path: Path, front_end: str, recipe: str | None, tune: str | None
) -> None:
    folder, console = features(tmp_path / "f", front_end), RecordingConsole()
    given = {"run.device": "cpu"} | ({"model.tune": tune} if tune else {})
    settings = settings_for(folder, given, recipe=recipe, console=console)
    transformer = front_end == "ast"
    assert (settings.model.backbone == "musicnn") == (not transformer)
    assert settings.model.tune == (tune or settings.model.tune)
    traits = backbones.traits(settings.model.backbone)
    assert traits.transformer == traits.drops_tokens == transformer
    assert not compatibility.without_effect(settings, traits=traits)
    planned = config.load_recipe(recipe or settings.recipe)
    if planned.model.tune == settings.model.tune:
        for name in compatibility.without_effect(planned, traits=traits):
            assert name in " ".join(console.messages)


@pytest.mark.parametrize("cuda", [True, False])
def test_the_recipe_follows_the_features_and_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, front_end: str, cuda: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    folder = features(tmp_path / "f", front_end)
    chosen = settings_for(folder, {}).recipe
    assert chosen == ("gpu" if cuda and front_end == "ast" else "laptop")
    assert settings_for(folder, {"run.device": "cpu"}).recipe == "laptop"
    assert settings_for(folder, {"model.tune": "full"}).recipe == "gpu"
    with pytest.raises(FeatureError, match="holds no features"):
        settings_for(tmp_path / "nowhere", {})


@pytest.mark.parametrize(
    ("recipe", "given", "words"),
    [
        (None, {"loss.margin": 0.9}, "loss.margin has no effect: loss supcon reads temperature"),
        (None, {"batch.size": 4}, "batch.size has no effect"),
        (None, {"loss.mining": "hard"}, "loss.mining has no effect"),
        ("thesis", {"loss.mining": "hard"}, "drawn triplets are not mined"),
        (None, {"watch.patience": 3}, "watch.val_share"),
        (None, {"model.lora_rank": 3}, "adapters"),
        ("gpu", {"augment.patchout": 0.2}, "no transformer"),
        ("gpu", {"augment.vector_noise": 0.2}, "only tune head"),
    ],
)
def test_a_given_option_without_effect_is_refused(
    tmp_path: Path, recipe: str | None, given: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        settings_for(
            features(tmp_path / "f", "musicnn"), {**given, "run.device": "cpu"}, recipe=recipe
        )


def test_a_users_recipe_that_names_no_backbone_takes_that_of_the_features(
    tmp_path: Path, front_end: str
) -> None:
    own, console = tmp_path / "own.toml", RecordingConsole()
    own.write_text('[model]\ntune = "head"\n', encoding="utf-8")
    folder = features(tmp_path / "f", front_end)
    settings = settings_for(folder, {}, recipe=str(own), console=console)
    assert (settings.model.backbone == "musicnn") == (front_end == "musicnn")
    assert ("the features are made for" in "".join(console.messages)) == (front_end != "ast")


def test_packaged_recipes_take_the_backbone_that_the_features_record(tmp_path: Path) -> None:
    folder, console = features(tmp_path / "f", "ast"), RecordingConsole()
    dataset = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    mine, other = (str(make_ast_folder(tmp_path / name)) for name in ("mine", "other"))
    files.write_json(folder / "dataset.json", {**dataset, "backbone": mine})
    for recipe in config.recipe_names():
        settings = settings_for(folder, {"run.device": "cpu"}, recipe=recipe, console=console)
        assert settings.model.backbone == mine
        assert mine in console.messages[0]
    given = settings_for(folder, {"model.backbone": other}, recipe="thesis")
    assert given.model.backbone == other


@pytest.mark.parametrize(
    ("case", "disabled"),
    [
        ("clap", {"augment.patchout"}),
        ("hubert", {"augment.freq_mask", "augment.gain_db"}),
        ("encodec", {"augment.patchout", "augment.freq_mask"}),
    ],
)
def test_options_without_effect_on_a_network_are_disabled(
    tmp_path: Path, case: str, disabled: set[str]
) -> None:
    name = str(save(CASES[case], tmp_path / case))
    folder, planned = features(tmp_path / "f", "samples"), config.load_recipe("gpu")
    given = {"model.backbone": name, "run.device": "cpu"}
    settings = settings_for(folder, given, recipe="gpu")
    options = {f"augment.{key}" for key in ("patchout", "time_mask", "freq_mask", "gain_db")}
    changed = {key for key in options if config.value(settings, key) != config.value(planned, key)}
    assert changed == disabled
    for key in disabled:
        wanted = {**given, key: config.value(planned, key)}
        with pytest.raises(ConfigError, match=f"{key} .* has no effect"):
            settings_for(folder, wanted, recipe="gpu")


def test_a_backbone_that_the_features_do_not_fit_is_an_error_that_names_both(
    tmp_path: Path,
) -> None:
    folder = make_folder(tmp_path / "features", tracks=2)
    with pytest.raises(FeatureError, match=r"made for musicnn, not for MIT/ast-finetuned"):
        fit.load_backbone(config.DEFAULT_BACKBONE, folder)


def test_few_epochs_leave_one_for_the_backbone(tmp_path: Path) -> None:
    folder = features(tmp_path / "f", "ast")
    for epochs, first in ((1, 0), (2, 1), (3, 2), (4, 3)):
        console = RecordingConsole()
        settings = settings_for(folder, {"optim.epochs": epochs}, recipe="gpu", console=console)
        assert settings.optim.head_epochs == first
        assert any("the head alone learns" in text for text in console.messages) == (first < 3)
    given = {"optim.epochs": 2, "optim.head_epochs": 3}
    with pytest.raises(ConfigError, match="head_epochs is 3"):
        settings_for(folder, given, recipe="gpu")


def test_a_file_is_not_adapted_even_with_the_name_of_a_packaged_recipe(tmp_path: Path) -> None:
    folder, own = features(tmp_path / "f", "ast"), tmp_path / "gpu.toml"
    text = '[model]\ntune = "full"\n[optim]\nepochs = 4\nhead_epochs = 1\n'
    own.write_text(text, encoding="utf-8")
    console = RecordingConsole()
    assert settings_for(folder, {"optim.epochs": 1}, recipe=str(own), console=console)
    assert "for 0 epochs first instead of 1" in console.messages[-1]
    own.write_text(text + "[augment]\nvector_noise = 0.3\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"augment.vector_noise is 0.3, but has no effect"):
        settings_for(folder, {}, recipe=str(own))


@pytest.mark.parametrize("reverse", [False, True])
def test_options_are_checked_together_in_any_order(tmp_path: Path, reverse: bool) -> None:
    given = {"optim.head_epochs": 25, "optim.epochs": 26}
    given = dict(reversed(given.items())) if reverse else given
    settings = settings_for(features(tmp_path / "f", "ast"), given, recipe="gpu")
    assert (settings.optim.head_epochs, settings.optim.epochs) == (25, 26)


OTHERS = {"margin": 0.9, "mining": "hard", "base": 0.1, "temperature": 0.5}


@pytest.mark.parametrize("name", config.LOSSES)
def test_the_options_that_a_loss_reads_change_its_value_and_the_others_do_not(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(24, 8, generator=generator), dim=1)
    track = torch.arange(24) // 2
    label = track % 4 - 1  # -1: trash

    def value(**changed: Any) -> float:
        loss = losses.build(
            config.LossConfig(name, **changed),
            n_labels=3,
            embedding_size=8,
            label_genre=torch.tensor([0, 0, 1]),
            seed=0,
        )
        return float(loss(vectors, label, track, track).value.detach())

    unread = compatibility.unread(
        config.TrainConfig(batch=config.BatchConfig("pk"), loss=config.LossConfig(name))
    )
    plain = value()
    for key, old in vars(config.LossConfig()).items():
        if key != "name":
            moved = value(**{key: OTHERS.get(key, 2 * old if old else 0.2)}) != plain
            assert moved == (f"loss.{key}" not in unread), key
