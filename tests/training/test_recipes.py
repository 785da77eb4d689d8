"""Which recipe a command takes, and what of it is left out because it can't act."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from subgenre import config, losses
from subgenre.cli.options import Recipe
from subgenre.errors import ConfigError
from subgenre.training import compatibility


class Ear:
    def __init__(self) -> None:
        self.told: list[str] = []

    def info(self, text: str) -> None:
        self.told.append(text)


def features(path: Path, front_end: str) -> Path:
    told = {
        "format_version": 1,
        "spec": {"front_end": front_end},
        "config": {"chunk_s": 10.0},
    }
    path.mkdir()
    (path / "dataset.json").write_text(json.dumps(told), encoding="utf-8")
    return path


@pytest.fixture(params=["musicnn", "ast"])
def front_end(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("recipe", [None, *config.recipe_names()])
@pytest.mark.parametrize("tune", [None, "head", "last:1", "last:2", "full"])
def test_every_recipe_of_the_package_suits_every_choice_of_what_learns(
    tmp_path: Path, front_end: str, recipe: str | None, tune: str | None
) -> None:
    folder = features(tmp_path / "f", front_end)
    terminal: Any = Ear()
    settings = Recipe(recipe=recipe, tune=tune, device="cpu").suited(folder, terminal)
    small = front_end == "musicnn"
    assert (settings.model.backbone == "musicnn") == small
    assert settings.model.tune == (tune or settings.model.tune)
    left = list(compatibility.asleep(settings, transformer=not small))
    assert left == []
    planned = config.load_recipe(recipe or settings.recipe)
    changed = [o.name for o in compatibility.asleep(planned, transformer=not small)]
    if planned.model.tune == settings.model.tune:
        assert all(name in " ".join(terminal.told) for name in changed)


def test_more_than_the_head_takes_the_recipe_that_is_made_for_it(tmp_path: Path) -> None:
    folder = features(tmp_path / "f", "musicnn")
    terminal: Any = Ear()
    assert Recipe(tune="full", device="cpu").suited(folder, terminal).recipe == "gpu"
    assert "tune full" in terminal.told[0]
    by_set = Recipe(set=("model.tune=full",), device="cpu").suited(folder, terminal)
    assert by_set.recipe == "gpu"
    assert Recipe(device="cpu").suited(folder, terminal).recipe == "laptop"


def test_what_is_asked_for_is_never_left_out(tmp_path: Path) -> None:
    folder = features(tmp_path / "f", "musicnn")
    terminal: Any = Ear()
    asked = Recipe(recipe="gpu", set=("augment.patchout=0.2",), device="cpu")
    assert asked.suited(folder, terminal).augment.patchout == 0.2  # an error once training starts
    own = tmp_path / "own.toml"
    own.write_text('[model]\nbackbone = "musicnn"\n[augment]\npatchout = 0.3\n', encoding="utf-8")
    assert Recipe(recipe=str(own)).suited(folder, terminal).augment.patchout == 0.3


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"margin": 0.9}, "loss.margin can't act: loss supcon reads temperature"),
        ({"batch_size": 4}, "batch.size can't act"),
        ({"set": ("loss.mining=hard",)}, "loss.mining can't act"),
        ({"recipe": "thesis", "set": ("loss.mining=hard",)}, "drawn triplets are not searched"),
        ({"set": ("watch.patience=3",)}, "watch.val_share"),
        ({"set": ("model.lora_rank=3",)}, "of adapters"),
    ],
)
def test_an_option_that_nothing_reads_is_refused_where_it_is_asked_for(
    tmp_path: Path, given: dict[str, Any], words: str
) -> None:
    folder = features(tmp_path / "f", "musicnn")
    terminal: Any = Ear()
    with pytest.raises(ConfigError, match=words):
        Recipe(**given, device="cpu").suited(folder, terminal)


def test_a_recipe_of_ones_own_that_names_no_backbone_takes_that_of_the_features(
    tmp_path: Path, front_end: str
) -> None:
    own = tmp_path / "own.toml"
    own.write_text('[model]\ntune = "head"\n', encoding="utf-8")
    terminal: Any = Ear()
    found = Recipe(recipe=str(own)).suited(features(tmp_path / "f", front_end), terminal)
    assert (found.model.backbone == "musicnn") == (front_end == "musicnn")
    assert ("for which the features are made" in "".join(terminal.told)) == (front_end != "ast")


def test_few_epochs_leave_one_for_the_backbone_and_say_so(tmp_path: Path) -> None:
    folder = features(tmp_path / "f", "ast")
    for epochs, first in ((1, 0), (2, 1), (3, 2), (4, 3)):
        terminal: Any = Ear()
        settings = Recipe(recipe="gpu", epochs=epochs).suited(folder, terminal)
        assert settings.optim.head_epochs == first
        assert any("head alone learns first" in told for told in terminal.told) == (first < 3)


def test_a_file_is_no_recipe_of_the_package_whatever_its_name(tmp_path: Path) -> None:
    folder = features(tmp_path / "f", "ast")
    own = tmp_path / "gpu.toml"
    text = '[model]\ntune = "full"\n[optim]\nepochs = 4\nhead_epochs = 1\n'
    own.write_text(text + "[augment]\nvector_noise = 0.3\n", encoding="utf-8")
    terminal: Any = Ear()
    settings = Recipe(recipe=str(own)).suited(folder, terminal)
    assert settings.augment.vector_noise == 0.3  # an error once training starts
    assert not [told for told in terminal.told if "left out" in told or "instead of" in told]
    settings = Recipe(recipe=str(own), epochs=1).suited(folder, terminal)
    assert settings.optim.head_epochs == 0
    assert "for 0 epochs instead of 1" in terminal.told[-1]


@pytest.mark.parametrize("turned", [False, True])
def test_options_are_checked_together_in_any_order(turned: bool) -> None:
    pairs = ("model.pca=3", "model.embedding_size=126")
    epochs = ("optim.head_epochs=25", "optim.epochs=26")
    given = pairs + epochs
    found = Recipe(recipe="gpu", set=given[::-1] if turned else given).settings("gpu")
    assert (found.model.pca, found.model.embedding_size) == (3, 126)
    assert (found.optim.head_epochs, found.optim.epochs) == (25, 26)


OTHERS = {"margin": 0.9, "mining": "hard", "base": 0.1, "temperature": 0.5}


@pytest.mark.parametrize("name", config.LOSSES)
def test_what_a_loss_is_said_to_read_changes_its_value_and_nothing_else_does(name: str) -> None:
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
