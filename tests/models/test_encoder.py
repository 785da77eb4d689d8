"""The encoder: its arithmetic by hand, and a folder that rebuilds it."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.decomposition import PCA

from subgenre.audio.features import Statistics
from subgenre.core import files
from subgenre.errors import ConfigError, RunError
from subgenre.models import backbones, encoder
from subgenre.models.backbones import Backbone
from subgenre.models.encoder import Encoder
from subgenre.models.heads import Dropout
from tests.toy import make_ast_folder


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Backbone:
    return backbones.load(str(make_ast_folder(tmp_path_factory.mktemp("toy") / "ast")))


def make(backbone: Backbone, seed: int = 0, **options) -> Encoder:
    generator = torch.Generator().manual_seed(seed)
    return Encoder(backbone, **options, generator=generator).eval()


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 4 - 5


@torch.inference_mode()
def test_the_thesis_head_on_normalised_features(toy) -> None:
    net = make(toy)
    net.set_statistics(Statistics(100, -4.5, 100 * 3.0**2))
    x = noise(2, 998, 128)
    padded = torch.cat([x, torch.zeros(2, 26, 128)], dim=1)
    pooled = toy((padded + 4.5) / 6.0).mean(dim=1)
    torch.testing.assert_close(net.pooled(x), pooled, atol=1e-5, rtol=1e-5)
    sizes = [tuple(p.shape) for p in net.head.parameters()]
    assert sizes == [(768, 32), (768,), (512, 768), (512,), (128, 512), (128,)]
    w = [p.numpy() for p in net.head.parameters()]
    hidden = np.maximum(pooled.numpy() @ w[0].T + w[1], 0)
    out = np.maximum(hidden @ w[2].T + w[3], 0) @ w[4].T + w[5]
    expected = out / np.linalg.norm(out, axis=1, keepdims=True)
    np.testing.assert_allclose(net(x), expected, atol=1e-5)
    np.testing.assert_allclose(net(x).norm(dim=1), 1.0, atol=1e-6)


def six_axes() -> tuple[torch.Tensor, np.ndarray]:
    """Pooled vectors [40, 32] that span six axes, and their principal components [40, 6]."""
    generator = torch.Generator().manual_seed(4)
    pooled = torch.randn(40, 6, generator=generator) @ torch.randn(6, 32, generator=generator) + 3
    scaled = ((pooled - pooled.mean(0)) / pooled.std(0, correction=0)).double().numpy()
    return pooled, PCA(6, svd_solver="full").fit_transform(scaled)


@torch.inference_mode()
def test_fusion_joins_the_principal_components_to_the_heads_output(toy, tmp_path) -> None:
    pooled, component = six_axes()
    plain = make(toy, head=(16,), embedding_size=5, pca=6)
    joined = make(toy, head=(16,), embedding_size=5, pca=6, fusion=0.5)
    for net in (plain, joined):
        encoder.standardise(net, pooled.numpy(), np.arange(40))
    component /= np.linalg.norm(component, axis=1, keepdims=True)
    alone = plain.project(pooled).double().numpy()
    found = joined.project(pooled).double().numpy()
    assert (plain.size, joined.size, found.shape) == (5, 11, (40, 11))
    expected = (alone @ alone.T + 0.5**2 * component @ component.T) / (1 + 0.5**2)
    np.testing.assert_allclose(found @ found.T, expected, atol=1e-5)
    np.testing.assert_allclose(joined.train().project(pooled).numpy(), alone, atol=1e-6)
    encoder.save(joined.eval(), tmp_path)
    assert torch.equal(encoder.load(tmp_path).project(pooled).double(), torch.from_numpy(found))


def test_statistics_and_axes_need_less_memory_than_the_chunks(toy) -> None:
    pooled = np.random.default_rng(0).normal(size=(100_000, 32)).astype(np.float32)
    net, rows = make(toy, head=(), embedding_size=5, pca=8), np.arange(50, 100_000)
    tracemalloc.start()
    encoder.standardise(net, pooled, rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < pooled.nbytes / 2
    np.testing.assert_allclose(net.pooled_mean, pooled[rows].mean(0, dtype=float), atol=1e-5)
    np.testing.assert_allclose(net.pooled_std, pooled[rows].std(0, dtype=float), atol=1e-5)


@torch.inference_mode()
def test_half_white_axes_are_those_of_scikit_learn(toy, tmp_path) -> None:
    pooled, expected = six_axes()
    net = make(toy, head=(), embedding_size=5, pca=8)
    encoder.standardise(net, pooled.numpy(), np.arange(40))
    expected /= np.sqrt(expected.std(axis=0))
    expected /= np.sqrt((expected**2).mean())
    found = ((pooled - net.pooled_mean) / net.pooled_std @ net.axes).numpy()
    np.testing.assert_allclose(np.abs(found[:, :6]), np.abs(expected), atol=1e-4)
    assert not found[:, 6:].any()  # the chunks span six axes
    assert net.head[0].weight.shape == (5, 8)
    encoder.save(net, tmp_path)
    assert torch.equal(encoder.load(tmp_path).project(pooled), net.project(pooled))
    with pytest.raises(ConfigError, match="pca is"):
        make(toy, pca=33)


@torch.inference_mode()
def test_musicnn_takes_its_features_as_they_are() -> None:
    net = make(backbones.load("musicnn"), embedding_size=16)
    net.set_statistics(Statistics(10, 1.0, 40.0))
    x = noise(1, 400, 96).abs()
    assert torch.equal(net.inputs(x), x)
    assert net.inputs(x[:, :90]).shape == (1, 187, 96)
    assert net.pooled(x).shape == (1, 1506)
    assert net(x).shape == (1, 16)


@pytest.mark.parametrize("pca", [0, 6])
@torch.inference_mode()
def test_standardisation(toy, pca: int) -> None:
    net = make(toy, head=(), embedding_size=4, pca=pca)
    pooled, constant = noise(5, 32), [0, 3, 31]
    mean, std = pooled.mean(0), pooled.std(0)
    std[constant] = 0.0
    net.set_pooled_statistics(mean, std)
    z = (pooled - mean) / std
    z[:, constant] = 0.0  # a column without deviation holds no information
    if pca:
        net.set_axes(noise(32, pca))
        z = z @ net.axes
    (linear,) = net.head
    out = linear(z)
    torch.testing.assert_close(net.project(pooled), out / out.norm(dim=1, keepdim=True))
    again = pooled.clone()
    again[:, constant] += 100.0
    assert torch.equal(net.project(again), net.project(pooled))


def test_dropout_stands_before_each_linear_and_only_in_training(toy) -> None:
    net = make(toy, dropout=0.5)
    kinds = [type(part).__name__ for part in net.head]
    assert kinds == ["Dropout", "Linear", "ReLU", "Dropout", "Linear", "ReLU", "Dropout", "Linear"]
    pooled = noise(3, 32)
    assert torch.equal(net.project(pooled), net.project(pooled))
    net.train()
    assert not torch.equal(net.project(pooled), net.project(pooled))


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    drop, x = Dropout(0.3), torch.full((400, 500), 2.0, requires_grad=True)
    found = drop(x)
    assert torch.unique(found.detach()).tolist() == pytest.approx([0.0, 2 / 0.7])
    assert (found == 0).float().mean().item() == pytest.approx(0.3, abs=0.005)
    assert found.mean().item() == pytest.approx(2.0, abs=0.02)
    found.sum().backward()
    assert torch.equal(x.grad == 0, found == 0)
    assert drop.eval()(x) is x


@torch.inference_mode()
def test_cached_activations_give_the_same_embedding(toy) -> None:
    net = make(toy, pooling="cls")
    x = noise(2, 200, 128)
    for n_last in (1, 2):
        hidden = net.prefix(x, n_last)
        torch.testing.assert_close(net.project(net.pooled_from(hidden, n_last)), net(x))


def test_options_without_effect_are_refused(toy) -> None:
    small = backbones.load("musicnn")
    for backbone, options, word in [
        (small, {"pooling": "cls"}, "use mean"),
        (small, {"layer": 0}, "both its blocks"),
        (toy, {"layer": 2}, "2 blocks"),
        (toy, {"pooling": "max"}, "pooling is 'max'"),
    ]:
        with pytest.raises(ConfigError, match=word):
            Encoder(backbone, **options)
    with pytest.raises(ConfigError, match="silence"):
        make(toy).set_statistics(Statistics(10, -15.9, 0.0))


@pytest.mark.parametrize("kind", ["ast", "musicnn"])
@torch.inference_mode()
def test_the_folder_alone_rebuilds_it(toy, tmp_path, kind) -> None:
    if kind == "ast":
        net = make(toy, layer=0, dropout=0.1, head=(16,), embedding_size=8)
        x = noise(2, 998, 128)
    else:
        net = make(backbones.load("musicnn"))
        x = noise(2, 200, 96)
    net.set_statistics(Statistics(100, -4.5, 900.0))
    shape = net.pooled_mean.shape
    net.set_pooled_statistics(noise(*shape), noise(*shape, seed=1).abs())
    encoder.save(net, tmp_path / "run")
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        *("encoder.json", "model.safetensors")
    ]
    again = encoder.load(tmp_path / "run")
    assert not again.training
    assert torch.equal(again(x), net(x))
    assert again.structure == net.structure
    assert encoder.fingerprint(again) == encoder.fingerprint(net)
    assert again.backbone.licence == net.backbone.licence


def test_a_folder_of_an_earlier_version_is_read_if_it_used_no_removed_part(toy, tmp_path) -> None:
    encoder.save(make(toy), tmp_path)
    assert {"skip": False, "members": 1}.items() <= structure_of(tmp_path).items()
    edit_json(tmp_path / "encoder.json", structure={**structure_of(tmp_path), "members": 4})
    with pytest.raises(RunError, match="members = 4 no longer exists"):
        encoder.load(tmp_path)


def structure_of(run: Path) -> dict:
    return json.loads((run / "encoder.json").read_text())["structure"]


@torch.inference_mode()
def test_fingerprints_differ_between_models(toy) -> None:
    net = make(toy)
    first = encoder.fingerprint(net)
    assert first == encoder.fingerprint(make(toy))
    assert first != encoder.fingerprint(make(toy, seed=1))
    assert first != encoder.fingerprint(make(toy, pooling="cls"))
    base = encoder.backbone_fingerprint(toy)
    moved = backbones.build("ast", {**toy.config_dict(), "source": "elsewhere"})
    moved.load_state_dict(toy.state_dict())
    assert encoder.backbone_fingerprint(moved) == base
    moved.model.layernorm.bias[0] += 1e-6
    assert encoder.backbone_fingerprint(moved) != base
    heads = backbones.build("ast", {**toy.config_dict(), "num_attention_heads": 4})
    heads.load_state_dict(toy.state_dict())  # same tensors, another network
    assert encoder.backbone_fingerprint(heads) != base


@pytest.fixture
def saved(toy, tmp_path) -> Path:
    encoder.save(make(toy), tmp_path / "run")
    return tmp_path / "run"


def edit_json(path: Path, **values) -> None:
    files.write_json(path, {**json.loads(path.read_text()), **values})


def json_with(**values) -> Callable[[Path], None]:
    return lambda run: edit_json(run / "encoder.json", **values)


def sizes(**values) -> Callable[[Path], None]:
    """Change sizes, of the structure or of the backbone."""

    def damage(run: Path) -> None:
        described = json.loads((run / "encoder.json").read_text())
        for name, value in values.items():
            part = described["structure"]
            (part if name in part else described["backbone"]["config"])[name] = value
        edit_json(run / "encoder.json", **described)

    return damage


def tensors_with(edit) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        tensors = load_file(run / "model.safetensors")
        edit(tensors)
        save_file(tensors, run / "model.safetensors")

    return damage


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda run: (run / "encoder.json").unlink(), r"encoder\.json does not exist"),
        (lambda run: (run / "model.safetensors").unlink(), r"model\.safetensors does not exist"),
        (json_with(format_version=7), "format version 7"),
        (json_with(backbone={}), "describes no encoder"),
        (json_with(backbone={"kind": "vgg", "config": {}}), "'vgg'"),
        (json_with(structure={"lair": 3}), "unknown key 'lair'"),
        (lambda run: (run / "model.safetensors").write_bytes(b"x" * 99), "damaged"),
        (tensors_with(lambda t: t.pop("head.0.weight")), r"has no tensor head\.0\.weight"),
        (
            tensors_with(lambda t: t.update({"head.0.bias": torch.zeros(3)})),
            r"head\.0\.bias has shape \[3\], \[768\] is expected",
        ),
        (tensors_with(lambda t: t.update(stray=torch.zeros(1))), "unknown tensor stray"),
        (tensors_with(lambda t: t["mean"].add_(1)), "not of one model"),
        (sizes(head=[10**12]), r"head\.0\.weight has shape .* \[1000000000000, 32\] is expected"),
        (sizes(head=[10**30]), "describes no encoder"),
        (sizes(head=[8] * 100_000), "describes no encoder: 100000 layers"),
        (sizes(embedding_size=-5), "describes no encoder"),
        (sizes(pca=10**9), "describes no encoder"),
        (sizes(hidden_size=2**40), "is expected|describes no encoder"),
        (sizes(num_hidden_layers=10**9), "describes no encoder: 1000000000 layers"),
        (sizes(num_hidden_layers="many"), "describes no encoder"),
        (sizes(max_length=2**60), "is expected|describes no encoder"),
        (json_with(backbone={"kind": "ast", "config": 5}), "describes no encoder"),
        (json_with(structure=[]), "describes no encoder"),
    ],
)
def test_a_damaged_folder_is_refused(saved, damage, word) -> None:
    damage(saved)
    with pytest.raises(RunError, match=word):
        encoder.load(saved)
