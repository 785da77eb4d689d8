"""Training on a toy transformer: cached blocks, adapters, head first, options without effect."""

from __future__ import annotations

import copy
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from subgenre import config
from subgenre.audio.features import AST_SPEC
from subgenre.commands import train
from subgenre.commands.model_folder import ModelFolder
from subgenre.config import AugmentConfig, TrainConfig
from subgenre.dataset.folder import FeatureFolder
from subgenre.errors import ConfigError, MissingExtraError, TrainingError
from subgenre.models import cache, embedding, encoder, engines
from subgenre.models.backbones import Backbone
from subgenre.models.encoder import Encoder
from subgenre.training import fit, inputs, messages, trainer
from subgenre.training.run_state import Estimate
from tests.consoles import RecordingConsole
from tests.folders import make_folder
from tests.toy import make_ast_folder

pytestmark = pytest.mark.slow  # each trains or evaluates a model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> FeatureFolder:
    path = tmp_path_factory.mktemp("library") / "features"
    return make_folder(path, tracks=3, chunks=1, trash=2, spec=AST_SPEC, chunk_s=0.5)


@pytest.fixture(scope="module")
def name(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_ast_folder(tmp_path_factory.mktemp("ast") / "toy"))


@pytest.fixture
def backbone(name: str, folder: FeatureFolder) -> Backbone:
    return fit.load_backbone(name, folder)


def recipe(name: str, **sections: dict[str, Any]) -> TrainConfig:
    base = config.load_recipe("thesis")
    base = config.replace(base, "model", backbone=name, head=(16,), embedding_size=8)
    base = config.replace(base, "optim", epochs=1, lr=1e-2)
    base = config.replace(base, "run", precision="fp32", device="cpu")
    for section, values in sections.items():
        base = config.replace(base, section, **values)
    return base


@pytest.fixture
def whole(folder: FeatureFolder, backbone: Backbone, name: str) -> Encoder:
    return fit.new_encoder(backbone, recipe(name).model, folder, np.arange(4), 0)


def ids(folder: FeatureFolder) -> tuple[str, ...]:
    return tuple(track.id for track in folder.tracks)


def moved(before: Backbone, after: Backbone) -> set[str]:
    one, two = before.state_dict(), after.state_dict()
    assert one.keys() == two.keys()
    return {key for key in one if not torch.equal(one[key], two[key])}


def test_a_model_keeps_the_engine_that_auto_chose(
    folder: FeatureFolder, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_measured", lambda *_: {"torch": 2.0, "onnx": 1.0})
    monkeypatch.setattr(engines, "_CONVERTERS", {"onnx": lambda part, _example: part})
    monkeypatch.setattr(engines, "_check_installed", lambda _engine: None)
    console, settings = RecordingConsole(), recipe(name, model={"tune": "head"})
    settings = config.replace(settings, "run", engine="auto")
    run = tmp_path / "run"
    train.train(folder.path, settings, out=run, checkpoints=tmp_path / "c", console=console)
    assert any("engine: onnx" in line for line in console.messages)
    kept = ModelFolder.open(run)
    assert kept.settings.run.engine == "onnx"
    assert kept.encoder.backbone.engine == "onnx"
    other = ModelFolder.open(run, engine="torch")
    assert other.encoder.backbone.engine == "torch"


def test_the_last_blocks_learn_on_what_the_others_made(
    folder: FeatureFolder, backbone: Backbone, name: str
) -> None:
    fitted = fit.fit(folder, ids(folder), recipe(name, model={"tune": "last:1"}), backbone=backbone)
    names = moved(backbone, fitted.encoder.backbone)
    assert names
    assert all(".layers.1." in n or n.startswith("model.layernorm") for n in names)


def test_cached_activations_give_the_vectors_of_the_whole_network(
    folder: FeatureFolder, whole: Encoder, tmp_path: Path
) -> None:
    rows, cpu = np.arange(len(folder.track_of)), torch.device("cpu")
    held = embedding.frozen_activations(whole, folder, 1, cache=tmp_path)
    source = inputs.ActivationSource(rows, held, 1, AugmentConfig())
    live = inputs.FeatureSource(folder, rows, AugmentConfig())
    found, expected = (
        inputs.encode_rows(one, whole.eval(), rows[3:8], device=cpu) for one in (source, live)
    )
    assert np.allclose(found, expected, atol=3e-3)
    again = embedding.frozen_activations(whole, folder, 1, cache=tmp_path)
    assert np.array_equal(held, again)
    assert not again.flags.writeable


@pytest.mark.parametrize("save_every_s", [-1.0, 1000.0])
def test_an_unfinished_cache_is_continued(
    folder: FeatureFolder,
    whole: Encoder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    save_every_s: float,
) -> None:
    monkeypatch.setattr(cache, "SAVE_EVERY_S", save_every_s)

    steps: list[int] = []

    def note(done: int, _total: int) -> None:
        steps.append(done)
        if steps.count(6) == 1 and done == 6:
            raise KeyboardInterrupt

    cached = {"cache": tmp_path / "a", "batch_size": 2, "on_progress": note}
    with pytest.raises(KeyboardInterrupt):
        embedding.frozen_activations(whole, folder, 1, **cached)
    embedding.frozen_activations(whole, folder, 1, **cached)
    assert steps[steps.index(6) :][:3] == [6, 6, 8]
    fresh = embedding.frozen_activations(whole, folder, 1, cache=tmp_path / "b")
    resumed = embedding.frozen_activations(whole, folder, 1, cache=tmp_path / "a")
    assert np.array_equal(fresh, resumed)


def test_a_second_run_waits_for_the_one_that_fills_the_cache(
    folder: FeatureFolder, whole: Encoder, tmp_path: Path
) -> None:
    steps: list[int] = []
    found: list[np.ndarray] = []
    other = copy.deepcopy(whole)

    def again() -> None:
        note = lambda done, _: steps.append(done)  # noqa: E731
        found.append(
            embedding.frozen_activations(other, folder, 1, cache=tmp_path, on_progress=note)
        )

    second = threading.Thread(target=again)

    def start(done: int, _total: int) -> None:
        if done == 2:
            second.start()
            second.join(timeout=0.5)
            assert second.is_alive()

    first = embedding.frozen_activations(
        whole, folder, 1, cache=tmp_path, batch_size=2, on_progress=start
    )
    second.join()
    assert steps == [len(first)]  # nothing was left to compute
    assert np.array_equal(first, found[0])
    assert np.abs(first).sum(axis=(1, 2)).all()


def test_a_cache_of_another_shape_is_made_anew(
    folder: FeatureFolder, whole: Encoder, tmp_path: Path
) -> None:
    expected = np.array(embedding.frozen_activations(whole, folder, 1, cache=tmp_path))
    (path,) = (p for p in tmp_path.glob("*.npy") if ".done" not in p.name)
    path.unlink()
    np.save(path, expected[:, 1:])
    assert np.array_equal(embedding.frozen_activations(whole, folder, 1, cache=tmp_path), expected)


def test_activations_that_the_disk_cannot_hold_are_refused(
    folder: FeatureFolder, whole: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "_SPARE", 2**60)
    with pytest.raises(ConfigError, match="GB are free"):
        embedding.frozen_activations(whole, folder, 1, cache=tmp_path)


def test_adapters_learn_and_leave_no_trace(
    folder: FeatureFolder, backbone: Backbone, name: str, tmp_path: Path
) -> None:
    settings = recipe(name, model={"tune": "lora", "lora_rank": 2})
    fitted = fit.fit(folder, ids(folder), settings, backbone=backbone)
    names = moved(backbone, fitted.encoder.backbone)
    assert names
    assert all(n.endswith("_proj.weight") for n in names)
    encoder.save(fitted.encoder, tmp_path)
    again = encoder.load(tmp_path)
    features = folder.load([0, 1])
    with torch.inference_mode():
        assert torch.allclose(again(features), fitted.encoder(features), atol=1e-6)


def test_adapters_without_peft_name_the_extra(
    folder: FeatureFolder, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match=r"subgenre\[lora\]"):
        fit.fit(folder, ids(folder), recipe(name, model={"tune": "lora"}))


def test_the_head_learns_first_and_no_gradient_reaches_the_backbone(
    folder: FeatureFolder, backbone: Backbone, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, bool]] = []  # of each step: may the backbone learn, has it moved
    real = trainer.Trainer._loss

    def note(self: trainer.Trainer, vectors: torch.Tensor, batch: torch.Tensor) -> Any:
        learns = any(p.requires_grad for p in self.backbone_weights)
        seen.append((learns, bool(moved(backbone, self.encoder.backbone))))
        return real(self, vectors, batch)

    monkeypatch.setattr(trainer.Trainer, "_loss", note)
    settings = recipe(name, optim={"epochs": 2, "head_epochs": 1})
    fitted = fit.fit(folder, ids(folder), settings, backbone=backbone)
    half = len(seen) // 2
    assert half > 0
    assert len(seen) == 2 * half
    assert seen[:half] == [(False, False)] * half
    assert seen[half] == (True, False)  # unmoved until its own first step
    assert all(learns for learns, _ in seen[half:])
    assert moved(backbone, fitted.encoder.backbone)


def test_checkpointing_changes_no_result(folder: FeatureFolder, name: str) -> None:
    plain = fit.fit(folder, ids(folder), recipe(name)).encoder.state_dict()
    lean = recipe(name, run={"checkpointing": True})
    found = fit.fit(folder, ids(folder), lean).encoder.state_dict()
    assert all(torch.allclose(plain[key], found[key], atol=1e-6) for key in plain)


def test_every_augmentation_acts_on_features(folder: FeatureFolder, name: str) -> None:
    plain = fit.fit(folder, ids(folder), recipe(name)).result.history[0].loss
    for option in ("time_mask", "freq_mask", "gain_db", "patchout"):
        settings = recipe(name, augment={option: 0.5})
        assert fit.fit(folder, ids(folder), settings).result.history[0].loss != plain, option


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"model": {"tune": "head"}, "augment": {"patchout": 0.4}}, r"augment\.patchout"),
        ({"model": {"tune": "head"}, "augment": {"time_mask": 0.4}}, r"augment\.time_mask"),
        ({"model": {"tune": "last:1"}, "augment": {"gain_db": 3.0}}, r"augment\.gain_db"),
        ({"augment": {"vector_noise": 0.4}}, r"augment\.vector_noise"),
        ({"model": {"tune": "head"}, "optim": {"head_epochs": 1}}, r"optim\.head_epochs"),
        ({"model": {"tune": "head"}, "optim": {"backbone_lr": 0.5}}, r"optim\.backbone_lr"),
        ({"model": {"tune": "head"}, "run": {"compile": True}}, r"run\.compile"),
        ({"model": {"tune": "head"}, "run": {"checkpointing": True}}, r"run\.checkpointing"),
        ({"model": {"tune": "last:1"}, "optim": {"layer_decay": 0.5}}, r"optim\.layer_decay"),
        ({"model": {"layer": 2}}, "has 2 blocks"),
        ({"model": {"tune": "last:1", "layer": 0}}, "lies below"),
    ],
)
def test_an_option_without_effect_is_refused_before_any_work(
    folder: FeatureFolder, name: str, sections: dict[str, dict[str, Any]], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        fit.fit(folder, ids(folder), recipe(name, **sections))


@pytest.mark.parametrize(("n_blocks", "faster"), [(12, "last:2"), (2, "last:1")])
def test_hours_on_a_cpu_name_what_is_faster(
    name: str, backbone: Backbone, n_blocks: int, faster: str
) -> None:
    def warnings(seconds: float) -> list[str]:
        console, cpu = RecordingConsole(), torch.device("cpu")
        estimate = Estimate(seconds, 2**30, 10, "fp32")
        messages.report_estimate(estimate, console, recipe(name), cpu, backbone)
        return console.messages[1:]

    backbone.n_blocks = n_blocks
    assert not warnings(1800)
    (warning,) = warnings(3 * 3600)
    assert f"--tune {faster}" in warning
    assert "--tune head" in warning


def test_a_compiled_network_trains_as_before(
    folder: FeatureFolder, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[Any] = []
    monkeypatch.setattr(torch, "compile", lambda call: compiled.append(call) or call)
    settings = recipe(name, run={"compile": True})
    loss = fit.fit(folder, ids(folder), settings).result.history[-1].loss
    assert len(compiled) == 2  # each block
    assert loss == fit.fit(folder, ids(folder), recipe(name)).result.history[-1].loss


def test_a_compiler_that_fails_is_named(
    folder: FeatureFolder, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no C++ compiler\nlong trace")

    monkeypatch.setattr(torch, "compile", lambda _call: fail)
    with pytest.raises(TrainingError, match=r"no C\+\+ compiler\); train with .*compile=false"):
        fit.fit(folder, ids(folder), recipe(name, run={"compile": True}))
