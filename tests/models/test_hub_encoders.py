"""Every network of the hub's library against the library's own forward pass."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from subgenre import cli
from subgenre.audio.features import FeatureSpec, log_mel
from subgenre.core import text, workspace
from subgenre.dataset.folder import FeatureFolder
from subgenre.errors import BackboneError, ConfigError, FeatureError
from subgenre.models import backbones, encoder, lora
from subgenre.models.backbones import hub_encoders
from subgenre.models.backbones.base import Backbone
from subgenre.training import optim
from tests.models.hub_folders import CASES, Case, save, theirs
from tests.small_library import replace_workers, write_wav

LENGTH_S = 0.6
STACKS = [name for name in CASES if name not in ("encodec", "dac")]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("hub")
    return {name: save(case, root / name) for name, case in CASES.items()}


def sound(case: Case) -> np.ndarray:
    """Two chunks of noise under a slow beat, [2, n]."""
    n = round(LENGTH_S * case.rate)
    noise = np.random.default_rng(0).normal(0.01, 0.1, (2, n))
    return (noise * (1 + np.sin(np.arange(n) / 900))).astype(np.float32)


_known: dict[FeatureSpec, torch.Tensor] = {}  # that of CLAP takes a while


def features(case: Case, network: Backbone) -> torch.Tensor:
    if network.spec not in _known:
        _known[network.spec] = log_mel(torch.from_numpy(sound(case)), network.spec)
    return network.pad(_known[network.spec].clone())


@pytest.mark.parametrize("name", CASES)
@torch.inference_mode()
def test_samples_to_tokens_as_the_library_makes_them(folders, name: str) -> None:
    case = CASES[name]
    network = backbones.load(str(folders[name]))
    assert network.kind == case.kind
    assert network.spec.rate == case.rate
    assert backbones.feature_spec(str(folders[name])) == network.spec
    x = features(case, network)
    streams, last = theirs(case, folders[name], sound(case))
    tokens = network(x)
    if case.kind == "clap":  # theirs are pooled
        tokens = network.pool(tokens)[:, None]
    torch.testing.assert_close(tokens, last, atol=1e-4, rtol=0)
    for layer, stream in enumerate(streams[1:-1]):
        expected = F.layer_norm(stream, stream.shape[-1:]) if case.pre_norm else stream
        torch.testing.assert_close(network(x, layer=layer), expected, atol=1e-4, rtol=0)
    assert len(streams) in (0, network.n_blocks + 1)


@pytest.mark.parametrize("name", CASES)
@torch.inference_mode()
def test_one_pass_gives_each_layer(folders, name: str) -> None:
    network = backbones.load(str(folders[name]))
    x = features(CASES[name], network)
    found = network.layers(x)
    for layer, tokens in zip(range(-len(found), 0), found, strict=True):
        torch.testing.assert_close(tokens, network(x, layer=layer), atol=1e-5, rtol=0)
    with pytest.raises(ConfigError):
        network.check_layer(-len(found) - 1)


@pytest.mark.parametrize("name", CASES)
@torch.inference_mode()
def test_parts_and_a_rebuilt_network_give_the_same(folders, name: str) -> None:
    network = backbones.load(str(folders[name]))
    x = features(CASES[name], network)
    whole = network(x)
    for n_last in range(1, network.n_blocks + 1):
        torch.testing.assert_close(network.suffix(network.prefix(x, n_last), n_last), whole)
    config = json.loads(json.dumps(network.config_dict()))
    again = backbones.build(network.kind, config)
    again.load_state_dict(network.state_dict(), strict=True)
    assert again.config_dict() == network.config_dict()
    assert torch.equal(again(x), whole)


@pytest.mark.parametrize("name", STACKS)
def test_blocks_learn_apart(folders, name: str) -> None:
    """The gradients of the last block are those of the whole; lower ones get none."""
    network = backbones.load(str(folders[name])).train()
    x = features(CASES[name], network)
    everything = [id(p) for part in network.parameters_by_depth() for p in part]
    assert sorted(everything) == sorted(id(p) for p in network.parameters())
    assert len(network.parameters_by_depth()) == network.n_blocks + 2
    optim.freeze(network, "last:1")
    learning = [p for p in network.parameters() if p.requires_grad]
    frozen = len(list(network.parameters())) - len(learning)
    assert 0 < len(learning) < frozen
    gradients = []
    for checkpointing in (False, True):
        network.set_checkpointing(checkpointing)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)  # dropout
            hidden = network.prefix(x, 1).detach()
            torch.manual_seed(4)
            out = network.suffix(hidden, 1).square().sum()
        gradients.append(torch.autograd.grad(out, learning))
    torch.testing.assert_close(*gradients)
    assert all(gradient.any() for gradient in gradients[0] if gradient.ndim > 1)


@pytest.mark.parametrize("name", CASES)
def test_every_weight_learns(folders, name: str) -> None:
    network = backbones.load(str(folders[name])).train()
    optim.freeze(network, "full")
    network(features(CASES[name], network)).square().sum().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", STACKS)
def test_adapters_move_the_tokens_and_merge(folders, name: str) -> None:
    network = backbones.load(str(folders[name]))
    x = features(CASES[name], network)
    with torch.inference_mode():
        before = network(x)
    lora.add(network, rank=2, seed=0)
    optim.freeze(network, "lora")
    learning = [p for p in network.parameters() if p.requires_grad]
    assert len(learning) % network.n_blocks == 0
    network(x).square().mean().backward()
    up = [p for n, p in network.named_parameters() if "lora_B" in n]
    assert all(p.grad is not None and p.grad.any() for p in up)
    with torch.inference_mode():
        torch.testing.assert_close(network(x), before)
        for p in up:
            p.normal_(0, 0.5, generator=torch.Generator().manual_seed(1))
        adapted = network(x)
        assert (adapted - before).abs().max() > 1e-3
        lora.merge(network)
        torch.testing.assert_close(network(x), adapted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["wav2vec2", "wavlm", "whisper"])
def test_patchout_keeps_tokens_with_their_positions(folders, name: str) -> None:
    """Dropping no more than the others' attention: one block's own tokens stay in order."""
    network = backbones.load(str(folders[name])).train()
    hidden = network.prefix(features(CASES[name], network), network.n_blocks)
    draw = torch.Generator().manual_seed
    with torch.random.fork_rng(devices=[]):
        thin = network.suffix(hidden, network.n_blocks, keep=0.5, generator=draw(1))
    assert thin.shape[1] == round(hidden.shape[1] / 2)
    network.eval()
    assert network.suffix(hidden, network.n_blocks, keep=0.5).shape == hidden.shape


def test_batch_statistics_stay_as_they_were(folders) -> None:
    network = backbones.load(str(folders["hubert-batch-norm"])).train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    network(features(CASES["hubert-batch-norm"], network))
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())


def test_clap_has_the_layers_of_its_last_stage(folders) -> None:
    network = backbones.load(str(folders["clap"]))
    x = features(CASES["clap"], network)
    assert network.n_blocks == 4
    assert network(x, layer=-2).shape == network(x).shape
    for act, word in (
        (lambda: network.check_layer(1), "choose -2 to -1"),
        (lambda: network.check_pooling("cls"), "use mean"),
        (lambda: network.train()(x, keep=0.5), "needs all"),
    ):
        with pytest.raises(ConfigError, match=word):
            act()


def test_mert_is_huberts_network_and_its_code_is_not_run(folders, tmp_path: Path) -> None:
    ran, path = tmp_path / "ran", tmp_path / "mert"
    path.mkdir()
    for file in folders["hubert"].iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    (path / "modeling_MERT.py").write_text(f"open({str(ran)!r}, 'w')")
    known = json.loads((path / "config.json").read_text())
    code = {"auto_map": {"AutoModel": "modeling_MERT.MERTModel"}, "model_type": "mert_model"}
    mert = {"feature_extractor_cqt": False, "deepnorm": False, "attention_relax": -1.0}
    (path / "config.json").write_text(json.dumps({**known, **code, **mert}))
    network, same = backbones.load(str(path)), backbones.load(str(folders["hubert"]))
    x = features(CASES["hubert"], network)
    assert torch.equal(network(x), same(x))
    assert not ran.exists()
    (path / "config.json").write_text(json.dumps({**known, **code, "feature_extractor_cqt": True}))
    with pytest.raises(BackboneError, match="feature_extractor_cqt = True"):
        backbones.load(str(path))


@pytest.mark.parametrize(
    ("name", "file", "values", "word"),
    [
        ("wav2vec2", "config.json", {"adapter_attn_dim": 16}, "adapter_attn_dim = 16"),
        ("wav2vec2", "config.json", {"auto_map": {}}, "brings code of its own"),
        ("wav2vec2", "config.json", {"hidden_size": "many"}, "can't be built"),
        ("wav2vec2", "config.json", {"num_hidden_layers": 10**9}, "at most 256"),
        ("encodec", "config.json", {"num_lstm_layers": 10**9}, "at most 256"),
        ("whisper", "config.json", {"max_source_positions": 750}, "max_source_positions = 750"),
        ("wav2vec2", "config.json", {"hidden_size": 24}, "can't be loaded|no values for"),
        ("wav2vec2", "preprocessor_config.json", {"sampling_rate": "high"}, "no sample rate"),
        ("wav2vec2", "preprocessor_config.json", None, r"no preprocessor_config\.json"),
        ("hubert", "preprocessor_config.json", {"feature_extractor_type": "Own"}, "front end"),
        ("whisper", "preprocessor_config.json", {"n_fft": 512}, "n_fft is 512"),
        ("clap", "preprocessor_config.json", {"frequency_min": 0}, "frequency_min is 0"),
        ("encodec", "config.json", {"audio_channels": 2}, "audio_channels = 2"),
        ("dac", "preprocessor_config.json", {"sampling_rate": 24_000}, "sampling_rate is 24000"),
    ],
)
def test_other_settings_are_refused(folders, tmp_path, name, file, values, word) -> None:
    for one in folders[name].iterdir():
        (tmp_path / one.name).write_bytes(one.read_bytes())
    known = json.loads((tmp_path / file).read_text())
    (tmp_path / file).unlink()
    if values is not None:
        (tmp_path / file).write_text(json.dumps({**known, **values}))
    with pytest.raises(BackboneError, match=word) as caught:
        backbones.load(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "most_s"), [("whisper", 30), ("clap", 10)])
def test_a_chunk_longer_than_the_window_is_refused(folders, name: str, most_s: int) -> None:
    spec = backbones.feature_spec(str(folders[name]))
    assert spec.frames(most_s * spec.rate) == spec.frames(most_s * spec.rate - 1)
    with pytest.raises(FeatureError, match=f"--chunk-s {most_s} or less"):
        spec.frames(most_s * spec.rate + 1)


@pytest.mark.parametrize("name", ["whisper", "encodec"])
@torch.inference_mode()
def test_a_short_chunk_is_padded_with_silence(folders, name: str) -> None:
    """Stored beside chunks of twice its length, it is as silence after its end."""
    short = sound(CASES[name])[:1]
    network = backbones.load(str(folders[name]))
    alone = log_mel(torch.from_numpy(short), network.spec)
    stored = network.spec.pad(alone, network.spec.frames(2 * short.shape[1]))
    _, last = theirs(CASES[name], folders[name], np.pad(short, ((0, 0), (0, short.shape[1]))))
    torch.testing.assert_close(network(network.pad(stored)), last, atol=1e-4, rtol=0)


def test_every_kind_is_covered() -> None:
    assert {case.kind for case in CASES.values()} == set(hub_encoders.ARCHITECTURES)


@pytest.mark.slow  # a training
def test_a_waveform_network_through_the_whole_job(folders, tmp_path, monkeypatch, capsys) -> None:
    replace_workers(monkeypatch)
    for label in ("slow/low", "slow/high"):
        for i in range(4):
            write_wav(tmp_path / "WAV" / label / f"{i}.wav", 4.0, seed=10 * len(label) + i)
    monkeypatch.chdir(tmp_path)
    words = ["--backbone", str(folders["hubert"]), "--chunk-s", "1", "--max-chunks", "2"]
    assert cli.main(["preprocess", *words]) == 0
    stored = FeatureFolder.open(tmp_path / workspace.FEATURES)
    size = sum(path.stat().st_size for path in stored.path.glob("*/*.pt"))
    announced = capsys.readouterr().err
    assert stored.load([0]).shape == (1, 16_000, 1)
    assert stored.statistics(range(16)).std == pytest.approx(1, abs=1e-3)
    assert f"{text.size(size)} in" in announced
    for tune in ("last:1", "head"):
        words = ["--recipe", "thesis", "--tune", tune, "--epochs", "1", "--out", tune]
        assert cli.main(["train", *words]) == 0
        assert "licence of its weights: see the folder" in capsys.readouterr().err
        assert encoder.load(Path(tune)).backbone.kind == "hubert"
    assert cli.main(["evaluate", "--run", "head", "--quick", "--quiet"]) == 0
    models = json.loads(Path("head/metrics.json").read_text())["models"]
    assert models["trained"]
    assert "mean_log_mel" not in models
