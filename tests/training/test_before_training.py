"""Warnings and refusals before a training starts, and what a run leaves behind."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from subgenre import config
from subgenre.commands import train as stage
from subgenre.core import validation, workspace
from subgenre.dataset.folder import FeatureFolder
from subgenre.errors import CheckpointError, ConfigError, FeatureError
from subgenre.models.cache import CACHE
from subgenre.training import checkpoint, fit, messages, run_state
from subgenre.training.compatibility import missing_material
from tests.consoles import RecordingConsole
from tests.folders import make_folder
from tests.training_runs import ids, recipe

pytestmark = pytest.mark.slow  # each trains or evaluates a model

PK = {"kind": "pk", "subgenres": 0, "tracks": 2, "chunks": 1}
QUADRUPLET = {"name": "quadruplet"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> FeatureFolder:
    return make_folder(tmp_path_factory.mktemp("library") / "features")


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"loss": {"name": "supcon"}}, "compares whole batches"),
        ({"loss": {"mining": "hard"}}, "drawn triplets are not mined"),
        ({"batch": {**PK, "subgenres": 1}}, "a batch of 1 subgenres"),
        ({"model": {"tune": "full"}, "optim": {"epochs": 2, "head_epochs": 2}}, "nothing of the"),
        ({"watch": {"val_share": 0.2, "patience": 2, "every": 5}}, "shorter than from one"),
        ({"augment": {"patchout": 0.5}}, "no transformer"),
        ({"model": {"tune": "last:3"}}, "has 2 blocks to tune"),
        ({"model": {"tune": "lora"}}, "has none"),
        ({"model": {"tune": "last:1", "layer": 0}}, "leave it at -1"),
        ({"model": {"tune": "last:1"}, "run": {"compile": True}}, "no transformer"),
        ({"model": {"fusion": 0.5}}, "fusion is 0.5, but has no effect: there are no principal"),
        ({"model": {"tune": "full", "pca": 4}}, "model.pca is 4, but has no effect"),
        ({"model": {"tune": "full"}, "augment": {"patchout": 0.5}}, "no transformer"),
        ({"model": {"tune": "full"}, "run": {"checkpointing": True}}, "no transformer"),
        ({"optim": {"layer_decay": 0.5}}, "frozen"),
    ],
)
def test_settings_without_effect_or_that_contradict_are_refused_before_the_backbone_runs(
    tmp_path: Path, sections: dict[str, Any], words: str
) -> None:
    fresh = make_folder(tmp_path / "features")
    with pytest.raises(ConfigError, match=words):
        fit.fit(fresh, ids(fresh), recipe(**sections))
    assert not (fresh.path / CACHE).exists()


def test_another_run_is_refused_before_any_work(
    folder: FeatureFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = {"checkpoints": tmp_path / "c"}
    stage.train(folder.path, recipe(optim={"epochs": 1}), out=tmp_path / "m", **place)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("the checkpoint is of another run")

    monkeypatch.setattr(fit, "fit", never)
    other = recipe(optim={"epochs": 1, "lr": 1e-4})
    with pytest.raises(CheckpointError, match=r"optim.lr 0.001 \(now 0.0001\)"):
        stage.train(folder.path, other, out=tmp_path / "n", resume=True, **place)


def test_runs_of_one_second_share_no_checkpoint_and_a_failed_one_leaves_no_folder(
    folder: FeatureFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = iter(["20260101_000000"] * 3 + ["20260101_000001"] * 2)
    monkeypatch.setattr(workspace, "stamp", lambda: next(names))
    place, settings = {"checkpoints": tmp_path / "c"}, recipe(optim={"epochs": 1})
    for out in ("one", "two"):
        stage.train(folder.path, settings, out=tmp_path / out, **place)
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == [
        "20260101_000000",
        "20260101_000001",
    ]
    monkeypatch.setattr(workspace, "stamp", lambda: "20260101_000002")
    with pytest.raises(ConfigError):
        stage.train(folder.path, recipe(loss={"name": "supcon"}), out=tmp_path / "no", **place)
    assert len(list((tmp_path / "c").iterdir())) == 2


def test_a_model_whose_recipe_would_be_refused_today_still_opens(tmp_path: Path) -> None:
    settings = recipe(watch={"val_share": 0.3, "patience": 2, "every": 3})
    settings = config.replace(settings, "optim", epochs=2, head_epochs=2)
    validation.save_toml(tmp_path / "config.toml", settings)
    assert config.load_settings(tmp_path / "config.toml") == settings


@pytest.mark.parametrize("own", [False, True])
def test_ctrl_c_names_this_runs_checkpoint_alone(
    folder: FeatureFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    console = RecordingConsole()

    def stopped(*_: object, checkpoints: Path, **__: object) -> None:
        other = tmp_path / "c" / "20990101_000000"
        other.mkdir()
        (other / checkpoint.NAME).write_bytes(b"another run's")
        if own:
            (checkpoints / checkpoint.NAME).write_bytes(b"this run's")
        raise KeyboardInterrupt

    monkeypatch.setattr(fit, "fit", stopped)
    place = {"checkpoints": tmp_path / "c", "out": tmp_path / "m"}
    with pytest.raises(KeyboardInterrupt):
        stage.train(folder.path, recipe(), **place, console=console)
    assert any("train --resume`" in text for text in console.messages) == own


@pytest.mark.parametrize(
    ("labels", "sections", "warning"),
    [
        ("ab", {"batch": {**PK, "same_genre": 1.0}}, "no genre has two subgenres"),
        ("ab", {"batch": {**PK, "same_genre": 0.0}}, ""),
        ("aab", {"batch": {**PK, "same_genre": 1.0}}, "nothing is learnt of 2: alone"),
        ("aab", {"batch": {**PK, "same_genre": 0.5}}, ""),
        ("ab", {"batch": {**PK, "same_genre": 0, "subgenres": 40}}, "but there are 2 subgenres"),
        ("ab", {"batch": {**PK, "same_genre": 0, "tracks": 99}}, "batch.tracks is 99, but there"),
        ("ab", {"batch": {**PK, "same_genre": 0, "chunks": 99}}, "batch.chunks is 99, but there"),
        ("aabb", {"batch": {**PK, "same_genre": 1}, "loss": QUADRUPLET}, "no fourth chunk"),
        ("aabb", {"batch": {**PK, "same_genre": 0.5}, "loss": QUADRUPLET}, "other genres instead"),
        ("ab", {"batch": {"size": 999}}, "batch.size is 999, but there are 8 chunks"),
        ("ab", {"batch": {"size": 8}}, ""),
    ],
)
def test_a_library_that_lacks_something_gives_a_warning(
    tmp_path: Path, labels: str, sections: dict[str, Any], warning: str
) -> None:
    named = tuple((genre, str(number)) for number, genre in enumerate(labels))
    found = missing_material(
        make_folder(tmp_path / "f", labels=named, tracks=2), recipe(**sections)
    )
    assert warning in found[0] if warning else not found


def test_a_test_run_takes_two_genres_where_there_are_two(tmp_path: Path) -> None:
    """A quadruplet without trash pool needs chunks of another genre."""
    folder = make_folder(tmp_path / "f")  # its first two subgenres are of one genre
    settings = recipe(loss={"name": "quadruplet"})
    run = stage.train(
        folder.path, settings, out=tmp_path / "m", checkpoints=tmp_path / "c", test_run=True
    )
    assert run.run == tmp_path / "m"


@pytest.mark.parametrize(
    ("scores", "val_share", "text"),
    [
        ((None, None), 0.0, "the weights of epoch 2, the last (no validation tracks to choose by)"),
        (
            (0.2, 0.6, 0.5),
            0.2,
            "the weights of epoch 2: validation MAP@R 0.600, stopped early at 3",
        ),
    ],
)
def test_the_epoch_of_the_chosen_weights_is_shown(
    scores: tuple[float | None, ...], val_share: float, text: str
) -> None:
    rows = [run_state.Epoch(n, 0.1, 0.5, 0.5, 1e-3, 1.0, x) for n, x in enumerate(scores, 1)]
    result = run_state.Result(tuple(rows), 2, 3.0, stopped_early=len(rows) > 2)
    settings = recipe(watch={"val_share": val_share})
    assert messages.chosen_weights(result, settings) == text


def test_the_number_of_validation_tracks_is_shown(folder: FeatureFolder) -> None:
    console, n = RecordingConsole(), len(ids(folder))
    settings = recipe(watch={"val_share": 0.25}, optim={"epochs": 1})
    fit.fit(folder, ids(folder), settings, console=console)
    assert (
        f"validation: {round(n * 0.25)} of {n} training tracks choose the epoch" in console.messages
    )


def changed(folder: FeatureFolder, **columns: list[float]) -> FeatureFolder:
    chunks = folder.chunks
    for name, values in columns.items():
        chunks = chunks.set_column(chunks.column_names.index(name), name, pa.array(values))
    return dataclasses.replace(folder, chunks=chunks)


def test_a_silent_library_is_refused_and_silent_tracks_are_counted(folder: FeatureFolder) -> None:
    n = len(folder.track_of)
    with pytest.raises(FeatureError, match="tracks are silent"):
        missing_material(changed(folder, silent_share=[1.0] * n), recipe())
    one = np.where(folder.track_of == 0, 1.0, 0.0).tolist()
    result = missing_material(changed(folder, silent_share=one), recipe())
    assert any(f"silent tracks: 1 of {len(folder.tracks)}" in text for text in result)
    assert not any("silent" in text for text in missing_material(folder, recipe()))


def test_features_that_are_all_the_same_are_refused(folder: FeatureFolder) -> None:
    n = len(folder.track_of)
    with pytest.raises(FeatureError, match=f"all {n} chunks are the same"):
        missing_material(changed(folder, mean=[0.25] * n, m2=[0.0] * n), recipe())
