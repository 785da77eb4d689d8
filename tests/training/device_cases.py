"""Everything that computes on a GPU, on a stand-in device that refuses to mix with the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from subgenre import config
from subgenre.audio.features import AST_SPEC, MUSICNN_SPEC, log_mel
from subgenre.commands import embed, evaluate, refit, train
from subgenre.commands.model_folder import ModelFolder
from subgenre.core import hardware
from subgenre.dataset.folder import FeatureFolder
from subgenre.models import backbones, embedding, encoder
from subgenre.models.encoder import Encoder
from subgenre.report import maps
from subgenre.training import fit
from tests.folders import make_folder
from tests.stand_in_device import NAME, stand_in_device
from tests.toy import make_ast_folder
from tests.training_runs import ids, recipe, weights

PK = {"kind": "pk", "subgenres": 0, "tracks": 4, "chunks": 2}
SMALL = {**PK, "tracks": 2, "chunks": 1}
ONE = {"epochs": 1}


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    def without_count(step: Callable[[], None], *_others: Any) -> tuple[int, int]:
        step()  # its tensors have no storage to count
        return 0, 0

    monkeypatch.setattr(hardware, "step_memory", without_count)
    with stand_in_device() as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> FeatureFolder:
    return make_folder(tmp_path_factory.mktemp("library") / "features", trash=2)


@pytest.fixture(scope="module")
def ast(tmp_path_factory: pytest.TempPathFactory) -> tuple[FeatureFolder, str]:
    """Features for a small AST, and the folder that holds its weights."""
    root = tmp_path_factory.mktemp("ast")
    features = make_folder(
        root / "features", tracks=3, chunks=1, trash=2, spec=AST_SPEC, chunk_s=0.5
    )
    return features, str(make_ast_folder(root / "toy"))


def test_the_device_computes_and_refuses_to_mix(device) -> None:
    here = torch.arange(6.0).reshape(2, 3).to(device)
    np.testing.assert_array_equal((here * 2 + 1).cpu().numpy(), [[1, 3, 5], [7, 9, 11]])
    weight = torch.nn.Parameter(torch.ones(3, 2).to(device))
    (here @ weight).sum().backward()
    np.testing.assert_array_equal(weight.grad.cpu().numpy(), [[3, 3], [5, 5], [7, 7]])
    for wrong in (
        lambda: here + torch.ones(3),
        lambda: here - torch.ones(2, 1),
        lambda: here.numpy(),
        lambda: torch.rand(3, device=device, generator=torch.Generator()),
        lambda: torch.zeros(2).double().to(device),
    ):
        with pytest.raises((RuntimeError, TypeError), match=r"device|generator|NumPy|float64"):
            wrong()


@pytest.mark.parametrize("loss", config.LOSSES)
def test_each_loss(folder, device, loss) -> None:
    settings = recipe(batch=PK, loss={"name": loss, "margin": 0.3}, optim={"epochs": 2})
    there = fit.fit(folder, ids(folder), settings, device=device)
    here = fit.fit(folder, ids(folder), settings, device=torch.device("cpu"))
    expected = [row.loss for row in here.result.history]
    np.testing.assert_allclose([row.loss for row in there.result.history], expected, rtol=1e-4)


VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "drawn quadruplets": {"loss": {"name": "quadruplet"}, "optim": ONE},
    "full": {"model": {"tune": "full"}, "batch": SMALL, "optim": ONE},
    "last:1": {"model": {"tune": "last:1"}, "batch": SMALL, "optim": ONE},
    "noise and dropout": {
        "model": {"dropout": 0.1},
        "augment": {"vector_noise": 0.1},
        "batch": PK,
        "optim": ONE,
    },
    "pca, fusion, centre": {
        "model": {"pca": 8, "fusion": 4.0, "centre": True},
        "batch": PK,
        "optim": ONE,
    },
    "validation": {"batch": PK, "optim": {"epochs": 2}, "watch": {"val_share": 0.3, "patience": 1}},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_each_way_to_train(folder, device, name) -> None:
    fitted = fit.fit(folder, ids(folder)[::2], recipe(**VARIANTS[name]), device=device)
    assert all(np.isfinite(row.loss) for row in fitted.result.history)


@pytest.mark.parametrize("name", ["laptop", "thesis"])
def test_recipes_on_the_built_in_backbone(folder, device, name) -> None:
    settings = config.replace(config.load_recipe(name), "optim", epochs=2)
    settings = config.replace(settings, "model", backbone="musicnn", tune="head")
    settings = config.replace(settings, "watch", val_share=0.0, patience=0)
    fitted = fit.fit(folder, ids(folder), settings, device=device)
    assert {value.device.type for value in fitted.encoder.state_dict().values()} == {NAME}


@pytest.mark.parametrize(
    ("tune", "pooling"), [("full", "mean"), ("last:1", "cls"), ("lora", "mean"), ("head", "cls")]
)
def test_recipe_gpu_on_a_transformer(ast, device, tune, pooling) -> None:
    if tune == "lora":
        pytest.importorskip("peft")
    features, name = ast
    sections: dict[str, dict[str, Any]] = {
        "model": {
            "backbone": name,
            "head": (16,),
            "embedding_size": 8,
            "tune": tune,
            "pooling": pooling,
        },
        "optim": {"epochs": 2, "head_epochs": 0 if tune == "head" else 1, "layer_decay": 1.0},
        "watch": {"val_share": 0.0, "patience": 0},
        "run": {"precision": "fp32"},
    }
    if tune in ("head", "last:1"):  # they train on cached outputs of the frozen part
        sections["augment"] = dict.fromkeys(("patchout", "time_mask", "freq_mask", "gain_db"), 0.0)
    if tune == "head":
        sections["optim"]["backbone_lr"] = 0.0
    settings = config.load_recipe("gpu")
    for section, values in sections.items():
        settings = config.replace(settings, section, **values)
    fitted = fit.fit(features, ids(features), settings, device=device)
    assert all(np.isfinite(row.loss) for row in fitted.result.history)


def test_a_checkpoint_continues_on_the_device(folder, device, tmp_path: Path) -> None:
    def train(epochs: int, **more: Any) -> fit.Fitted:
        settings = recipe(batch=PK, optim={"epochs": epochs, "schedule": "constant"})
        return fit.fit(
            folder,
            ids(folder),
            settings,
            device=device,
            checkpoints=tmp_path,
            fingerprint={},
            **more,
        )

    whole = train(3)
    for left in tmp_path.iterdir():
        left.rename(tmp_path.parent / f"{tmp_path.name}-{left.name}")
    train(2)
    resumed = train(3, resume=max(tmp_path.iterdir()))
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(resumed)[name].cpu(), value.cpu(), msg=name)


def test_an_encoder_embeds_and_is_saved_from_the_device(folder, device, tmp_path: Path) -> None:
    model = {"pca": 8, "fusion": 4.0, "centre": True}
    settings = recipe(batch=PK, optim=ONE, model=model)
    fitted = fit.fit(folder, ids(folder), settings, device=device)
    rows = folder.rows(ids(folder))
    projected = embedding.project_vectors(fitted.encoder, fitted.pooled[rows], device=device)
    there = embedding.chunk_vectors(fitted.encoder, folder, rows, device=device)
    np.testing.assert_allclose(projected, there, atol=1e-4)
    name = encoder.fingerprint(fitted.encoder)
    encoder.save(fitted.encoder, tmp_path)
    loaded = encoder.load(tmp_path)
    assert encoder.fingerprint(loaded) == name
    here = embedding.chunk_vectors(loaded, folder, rows, device="cpu")
    np.testing.assert_allclose(here, there, atol=1e-4)


@pytest.mark.parametrize("spec", [AST_SPEC, MUSICNN_SPEC], ids=lambda spec: spec.front_end)
def test_features_are_computed_on_the_device(device, spec) -> None:
    samples = torch.rand(2, 8_000, generator=torch.Generator().manual_seed(0)) - 0.5
    expected = log_mel(samples, spec)
    torch.testing.assert_close(log_mel(samples.to(device), spec).cpu(), expected)


def test_each_backbone_runs_and_returns(ast, folder, device, tmp_path: Path) -> None:
    for features, name in ((folder, "musicnn"), ast):
        net = Encoder(backbones.load(name), head=(8,), embedding_size=4)
        net.set_statistics(features.statistics(np.arange(len(features.track_of))))
        rows = np.arange(4)
        expected = embedding.chunk_vectors(net, features, rows)
        found = embedding.chunk_vectors(net, features, rows, device=device)
        np.testing.assert_allclose(found, expected, atol=1e-4)
        pooled = embedding.pooled_vectors(net, features, rows, cache=tmp_path, device=device)
        assert np.isfinite(pooled).all()


def test_the_commands_from_training_to_refit(folder, device, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hardware, "pick_device", lambda _name: device)
    monkeypatch.setattr(maps, "PCA_BELOW", 1000)  # UMAP uses no device, and takes seconds
    settings = config.replace(config.load_recipe("laptop"), "model", backbone="musicnn")
    settings = config.replace(settings, "optim", epochs=2)
    run = train.train(
        folder.path, settings, out=tmp_path / "model", checkpoints=tmp_path / "checkpoints"
    ).run
    found = evaluate.evaluate(run, max_mb=0, quick=True).metrics
    assert found["models"]["trained"]["centroid_accuracy"]["value"] > 0.3
    assert embed.embed((), run, tmp_path / "vectors.parquet").n_tracks == found["n_test"]
    opened = ModelFolder.open(run)
    moved = {opened.tracks[0].id: (folder.genres[2], folder.labels[2])}
    again = refit.refit(opened, moved)
    assert again.embeddings.vectors.shape == opened.embeddings.vectors.shape
    over_folds = evaluate.evaluate(
        features=folder.path, settings=settings, folds=2, out=tmp_path / "folds", max_mb=0,
        quick=True, workers=1,
    )  # fmt: skip
    assert over_folds.metrics["folds"] == 2
