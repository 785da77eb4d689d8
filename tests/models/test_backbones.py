"""Backbones against the original's golden outputs and against the hub's own model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from subgenre.audio.features import AST_SPEC
from subgenre.config import DEFAULT_BACKBONE
from subgenre.errors import BackboneError, ConfigError
from subgenre.models import backbones
from subgenre.models.backbones import ast, musicnn
from tests.toy import make_ast_folder

GOLDEN = Path(__file__).parents[1] / "data" / "musicnn_golden.npz"


@pytest.fixture(scope="module")
def golden() -> dict[str, NDArray[np.float32]]:
    with np.load(GOLDEN) as stored:
        return {name: stored[name] for name in stored}


@pytest.fixture(scope="module")
def net() -> musicnn.Musicnn:
    return musicnn.load()


@torch.inference_mode()
def test_musicnn_equals_the_original(net, golden) -> None:
    tokens = net(torch.from_numpy(golden["log_mel"]).reshape(1, 3 * 187, 96))[0]
    np.testing.assert_allclose(tokens[:, 0::2], golden["max_pool"], atol=5e-4, rtol=0)
    np.testing.assert_allclose(tokens[:, 1::2], golden["mean_pool"], atol=5e-4, rtol=0)
    hidden, tags = _tag_head(tokens)
    np.testing.assert_allclose(hidden[:1], golden["penultimate"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(tags, golden["tags"], atol=1e-5, rtol=0)


def _tag_head(tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the original's layers on the pools: 200 values, then the probabilities of 50 tags."""
    weights = load_file(Path(musicnn.__file__).with_name(musicnn.WEIGHTS))

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        mean, var, gain, bias = (
            weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + musicnn.EPSILON).sqrt() * gain + bias

    x = norm(tokens, "bn_flat") @ weights["dense.weight"].T + weights["dense.bias"]
    hidden = norm(x.relu(), "bn_dense")
    return hidden, (hidden @ weights["out.weight"].T + weights["out.bias"]).sigmoid()


@torch.inference_mode()
def test_musicnn_drops_the_remainder_and_pads_a_short_chunk(net) -> None:
    x = torch.rand(2, 626, 96, generator=torch.Generator().manual_seed(0))
    tokens = net(x)
    assert tokens.shape == (2, 3, 1506)
    assert torch.equal(tokens, net(x[:, :561]))
    torch.testing.assert_close(net.pool(tokens, "mean"), tokens.sum(1) / 3)
    short = net.pad(x[:, :100])
    assert short.shape == (2, 187, 96)
    assert torch.equal(short[:, :100], x[:, :100])
    assert not short[:, 100:].any()
    assert net.pad(x) is x or torch.equal(net.pad(x), x)


def test_musicnn_gives_the_same_in_training_and_keeps_its_statistics(net) -> None:
    x = torch.rand(2, 187, 96, generator=torch.Generator().manual_seed(1))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    calm = net(x)
    live = net.train()(x)
    net.eval()
    assert torch.equal(calm, live)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    live.sum().backward()
    assert all(p.grad is not None for p in net.parameters())  # no weight that nothing trains
    net.zero_grad(set_to_none=True)


def test_musicnn_refuses_options_without_effect(net) -> None:
    x = torch.zeros(1, 187, 96)
    for act, word in [
        (lambda: net(x, keep=0.5), "patchout"),
        (lambda: net(x, layer=0), "both its blocks"),
        (lambda: net.pool(torch.zeros(1, 3, 1506), "cls"), "use mean"),
        (lambda: net.prefix(x, 3), "has 2"),
        (lambda: net.suffix(net.prefix(x, 1), 0), "has 2"),
        (lambda: net.suffix(net.prefix(x, 1), 1, keep=0.5), "patchout"),
        (lambda: net.set_checkpointing(True), "leave it off"),
    ]:
        with pytest.raises(ConfigError, match=word):
            act()


@pytest.mark.parametrize("n_last", [1, 2])
def test_musicnn_in_two_parts_gives_the_same_and_the_same_gradient(net, n_last: int) -> None:
    x = torch.rand(2, 400, 96, generator=torch.Generator().manual_seed(2)) * 3
    middle = [*net.mid.parameters(), *net.bn_mid.parameters()]
    whole = net(x)
    with torch.no_grad():
        hidden = net.prefix(x, n_last)
    parts = net.suffix(hidden, n_last)
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        torch.autograd.grad(parts.square().sum(), middle),
        torch.autograd.grad(whole.square().sum(), middle),
        rtol=1e-4,
        atol=1e-2,
    )
    assert hidden.shape[2] < 561 * 187 / 3  # what can't answer is not kept


@pytest.fixture(scope="module")
def ast_folder(tmp_path_factory) -> Path:
    return make_ast_folder(tmp_path_factory.mktemp("toy") / "ast")


@pytest.fixture(scope="module")
def toy(ast_folder) -> ast.Ast:
    return ast.load(str(ast_folder))


def hub_model(folder: Path):
    from transformers import ASTModel

    with ast.hub.quiet():
        return ASTModel.from_pretrained(folder).eval()


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.slow
@torch.inference_mode()
def test_ast_equals_the_hubs_model_on_ten_seconds(toy, ast_folder) -> None:
    x = noise(2, 998, 128) * 4 - 5
    ours = toy((toy.pad(x) + 4.2677) / (2 * 4.569))
    padded = torch.nn.ZeroPad2d((0, 0, 0, 1024 - 998))(x)  # the hub's extractor: pad, normalise
    theirs = hub_model(ast_folder)((padded + 4.2677) / (2 * 4.569))
    torch.testing.assert_close(ours, theirs.last_hidden_state, atol=1e-4, rtol=0)
    torch.testing.assert_close(toy.pool(ours, "cls"), theirs.pooler_output, atol=1e-4, rtol=0)
    torch.testing.assert_close(toy.pool(ours), theirs.last_hidden_state.mean(1))


def test_ast_pads_only_what_is_nearly_full(toy) -> None:
    lengths = [toy.pad(torch.ones(1, T, 128)).shape[1] for T in (3, 500, 921, 922, 1024, 1300)]
    assert lengths == [16, 500, 921, 1024, 1024, 1300]


def cubic(grid: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Cubic convolution (Keys 1981, a = -0.75) of columns [T, H] onto n columns."""
    a, T = -0.75, len(grid)
    out = np.zeros((n, grid.shape[1]))
    for i in range(n):
        at = (i + 0.5) * T / n - 0.5
        for j in range(int(np.floor(at)) - 1, int(np.floor(at)) + 3):
            d = abs(at - j)
            near = (a + 2) * d**3 - (a + 3) * d**2 + 1
            far = a * (d**3 - 5 * d**2 + 8 * d - 4)
            out[i] += (near if d <= 1 else far) * grid[min(max(j, 0), T - 1)]
    return out


@torch.inference_mode()
@pytest.mark.parametrize("T", [16, 498, 1500])
def test_ast_takes_the_matching_positions(toy, T, tmp_path) -> None:
    """A hub model of that very length, its positions laid out by hand, gives the same."""
    rows, trained, columns = 12, 101, (T - 16) // 10 + 1
    at = "model.embeddings.position_embeddings"
    weights = toy.state_dict()
    grid = weights[at][0, 2:].double().numpy().reshape(rows, trained, -1)
    expected = [cubic(row, columns) if columns > trained else row[:columns] for row in grid]
    weights = {name.removeprefix("model."): value for name, value in weights.items()}
    weights["embeddings.position_embeddings"] = torch.cat(
        [
            weights["embeddings.position_embeddings"][:, :2],
            torch.tensor(np.concatenate(expected))[None],
        ],
        dim=1,
    ).float()
    config = {**toy.config_dict(), "max_length": T}
    other = ast.build(config).model
    other.load_state_dict(weights, strict=True)
    x = noise(1, T, 128)
    torch.testing.assert_close(toy(x), other(x).last_hidden_state, atol=1e-4, rtol=0)


@torch.inference_mode()
def test_ast_layers(ast_folder, toy) -> None:
    x = noise(1, 500, 128)
    deep = ast.build({**toy.config_dict(), "num_hidden_layers": 3})
    fill = torch.Generator().manual_seed(5)
    for value in deep.parameters():
        value.normal_(0.0, 0.3, generator=fill)
    streams = []
    hooks = [
        block.register_forward_hook(lambda *a: streams.append(a[2])) for block in deep.model.layers
    ]
    deep(x)
    for hook in hooks:
        hook.remove()

    def plain(h: torch.Tensor) -> torch.Tensor:
        return (h - h.mean(-1, keepdim=True)) / h.var(-1, unbiased=False, keepdim=True).sqrt()

    expected = [plain(streams[0]), plain(streams[1]), deep.model.layernorm(streams[2])]
    for layer in (0, 1, 2):
        torch.testing.assert_close(deep(x, layer=layer), expected[layer], atol=1e-4, rtol=1e-4)
        assert torch.equal(deep(x, layer=layer), deep(x, layer=layer - 3))
    for layer in (3, -4):
        with pytest.raises(ConfigError, match="3 blocks"):
            deep.check_layer(layer)


def test_ast_parameters_by_depth(toy) -> None:
    everything = [id(p) for part in toy.parameters_by_depth() for p in part]
    assert sorted(everything) == sorted(id(p) for p in toy.parameters())
    assert len(toy.parameters_by_depth()) == toy.n_blocks + 2


def test_ast_patchout_keeps_the_class_tokens(ast_folder) -> None:
    net = ast.load(str(ast_folder)).train()
    x = noise(3, 200, 128)
    n_patches = 12 * 19
    embedded = net.prefix(x, 2)
    thin = net.suffix(embedded, 0, keep=0.25, generator=torch.Generator().manual_seed(3))
    full = net.suffix(embedded, 0)
    assert thin.shape == (3, 2 + n_patches // 4, 32)
    # each kept token is one of the full set, the same one in every chunk, in its old order
    places = [(full - thin[:, i : i + 1]).abs().amax(dim=(0, 2)).argmin().item() for i in range(59)]
    assert torch.equal(thin, full[:, places])
    assert places[:2] == [0, 1]
    assert places == sorted(set(places))
    again = net.suffix(embedded, 0, keep=0.25, generator=torch.Generator().manual_seed(3))
    other = net.suffix(embedded, 0, keep=0.25, generator=torch.Generator().manual_seed(4))
    assert torch.equal(thin, again)
    assert not torch.equal(thin, other)
    net.eval()
    assert net(x, keep=0.25).shape[1] == 2 + n_patches
    with pytest.raises(ConfigError, match="keep is 0"):
        net(x, keep=0.0)


def test_ast_prefix_and_suffix_make_the_whole(toy) -> None:
    x = noise(2, 300, 128)
    whole = toy(x)
    for n_last in (0, 1, 2):
        torch.testing.assert_close(toy.suffix(toy.prefix(x, n_last), n_last), whole)
    torch.testing.assert_close(toy.suffix(toy.prefix(x, 1), 1, 0), toy(x, layer=0))
    with pytest.raises(ConfigError, match="below the last 0 of 2"):
        toy.suffix(toy.prefix(x, 0), 0, 0)
    with pytest.raises(ConfigError, match="last 3 blocks"):
        toy.prefix(x, 3)


def test_ast_checkpointing_gives_the_same_gradients(ast_folder) -> None:
    x, gradients = noise(1, 100, 128), []
    for on in (False, True):
        net = ast.load(str(ast_folder)).train()
        net.set_checkpointing(on)
        net(x).square().sum().backward()
        gradients.append([p.grad for p in net.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_ast_loads_what_the_hub_saves(ast_folder, toy, tmp_path) -> None:
    model = hub_model(ast_folder)
    for name, value in model.state_dict().items():
        assert torch.equal(toy.model.state_dict()[name], value)
    assert any(
        name.startswith("classifier") for name in load_file(ast_folder / "model.safetensors")
    )
    model.save_pretrained(tmp_path)  # an ASTModel this time
    again = ast.load(str(tmp_path))
    assert all(torch.equal(v, toy.state_dict()[k]) for k, v in again.state_dict().items())
    assert (toy.hidden_size, toy.n_blocks, toy.spec.n_mels) == (32, 2, 128)
    rebuilt = backbones.build("ast", json.loads(json.dumps(toy.config_dict())))
    rebuilt.load_state_dict(toy.state_dict(), strict=True)
    assert torch.equal(rebuilt(noise(1, 64, 128)), toy(noise(1, 64, 128)))


def test_ast_refuses_a_damaged_or_pickled_checkpoint(tmp_path) -> None:
    folder = make_ast_folder(tmp_path / "ast")
    tensors = load_file(folder / "model.safetensors")
    lost = next(name for name in tensors if name.endswith("1.layernorm_before.weight"))
    del tensors[lost]
    path = folder / "model.safetensors"
    for damage, word in (
        (
            lambda: save_file(tensors, path, {"format": "pt"}),
            r"no values for 1 weights.*layernorm_before.weight",
        ),
        (lambda: save_file({**tensors, lost: torch.ones(7)}, path, {"format": "pt"}), "musicnn"),
        (lambda: path.write_bytes(b"no tensors at all"), "musicnn"),
        (lambda: path.rename(folder / "pytorch_model.bin"), r"no model\.safetensors \(a pickled"),
    ):
        damage()
        with pytest.raises(BackboneError, match=word):
            ast.load(str(folder))


@pytest.mark.parametrize(
    ("file", "values", "word"),
    [
        ("preprocessor_config.json", {"sampling_rate": 44100}, "sampling_rate is 44100"),
        ("preprocessor_config.json", {"num_mel_bins": 96}, "num_mel_bins is 96"),
        ("preprocessor_config.json", {"feature_extractor_type": "Other"}, "front end"),
        ("config.json", {"model_type": "wav2vec2"}, "'wav2vec2', not an AST"),
        ("config.json", {"hidden_size": "many"}, "can't be built"),
        ("config.json", {"num_attention_heads": 3}, "heads"),
    ],
)
def test_ast_refuses_other_settings(tmp_path, file, values, word) -> None:
    folder = make_ast_folder(tmp_path / "ast")
    path = folder / file
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**known, **values}))
    for act in (ast.load, ast.feature_spec):
        with pytest.raises(BackboneError, match=word):
            act(str(folder))


def test_a_folder_with_code_is_refused_and_its_code_is_not_run(tmp_path) -> None:
    folder = make_ast_folder(tmp_path / "ast")
    ran = tmp_path / "ran"
    (folder / "modeling.py").write_text(f"open({str(ran)!r}, 'w')\nfrom transformers import *")
    known = json.loads((folder / "config.json").read_text())
    code = {"auto_map": {"AutoConfig": "modeling.ASTConfig", "AutoModel": "modeling.ASTModel"}}
    (folder / "config.json").write_text(json.dumps({**known, **code}))
    for act in (ast.load, ast.feature_spec):
        with pytest.raises(BackboneError, match="brings code of its own") as caught:
            act(str(folder))
        assert "\n" not in str(caught.value)
    assert not ran.exists()


def test_feature_specs_by_name(tmp_path) -> None:
    assert backbones.feature_spec(DEFAULT_BACKBONE) == AST_SPEC  # no file, no network
    folder = make_ast_folder(tmp_path / "ast", num_mel_bins=64)
    assert backbones.feature_spec(str(folder)).n_mels == 64
    assert backbones.load(str(folder)).spec.n_mels == 64


def test_an_unreachable_hub_is_an_error_with_both_alternatives(monkeypatch, tmp_path) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BackboneError, match=r"'nobody/no-such-ast'.*folder.*--backbone musicnn"):
        backbones.load("nobody/no-such-ast")
    for name in (str(tmp_path / "gone"), "musicn"):
        with pytest.raises(BackboneError, match=r"neither a folder nor a hub name.*musicnn"):
            backbones.load(name)


def test_cached_weights_are_found_without_network(monkeypatch, tmp_path) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    assert backbones.is_available("musicnn")
    assert backbones.is_available(str(tmp_path))
    assert not backbones.is_available("some/ast")
    place = tmp_path / "cache" / "models--some--ast"
    for name, text in (
        ("refs/main", "abc"),
        ("snapshots/abc/config.json", "{}"),
        ("snapshots/abc/model.safetensors", ""),
    ):
        assert not backbones.is_available("some/ast")
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    assert backbones.is_available("some/ast")
    assert not backbones.is_available("other/ast")


def test_preprocess_warns_of_weights_that_training_will_lack(monkeypatch, tmp_path, capsys) -> None:
    import huggingface_hub.constants

    from subgenre import cli
    from tests.small_library import replace_workers, write_wav

    replace_workers(monkeypatch)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    for name in ("techno/dark/a.wav", "techno/emotional/b.wav"):
        write_wav(tmp_path / "WAV" / name, 5.0, len(name))
    words = ["preprocess", str(tmp_path / "WAV"), "--chunk-s", "4", "--max-chunks", "1", "--quiet"]
    warning = f"the weights of {DEFAULT_BACKBONE} are not in this"
    assert cli.main([*words, "--out", str(tmp_path / "ast")]) == 0
    assert warning in capsys.readouterr().err
    assert cli.main([*words, "--backbone", "musicnn", "--out", str(tmp_path / "musicnn")]) == 0
    assert "the weights of" not in capsys.readouterr().err


def test_loading_leaves_the_hubs_logging_as_it_was(ast_folder, capfd) -> None:
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    ast.load(str(ast_folder))
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    assert capfd.readouterr() == ("", "")
