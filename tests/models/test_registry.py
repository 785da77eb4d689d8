"""A backbone of one's own, with a front end of its own, goes through the whole job."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from subgenre import cli
from subgenre.audio import features
from subgenre.audio.features import FeatureSpec, FrontEnd
from subgenre.errors import BackboneError, ConfigError, RunError
from subgenre.models import backbones, encoder
from subgenre.models.backbones import registry
from subgenre.models.backbones.base import Backbone
from tests import audio_files

BANDS = 8


def frames(n_samples: int, spec: FeatureSpec) -> int:
    return n_samples // spec.hop


def log_mel(samples: Tensor, spec: FeatureSpec) -> Tensor:
    """Log power in 8 bands of equal width of each frame."""
    cut = samples.unfold(1, spec.hop, spec.hop)
    power = torch.fft.rfft(cut).abs().square()[..., : spec.hop // 2]
    return (power.unflatten(-1, (spec.n_mels, -1)).mean(-1) + 1e-6).log()


def gain(values: Tensor, nepers: Tensor) -> Tensor:
    return values + nepers


FRONT_END = FrontEnd("toy", frames, log_mel, gain)
features.register(FRONT_END)
SPEC = FeatureSpec("toy", rate=8_000, n_mels=BANDS, hop=512, normalise="half")


class Toy(Backbone):
    """One linear layer over each frame."""

    kind, spec, hidden_size, n_blocks, transformer = "toy", SPEC, 6, 1, False
    licence, source = "CC0", "toy"

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(BANDS, self.hidden_size)

    def forward(self, x: Tensor, *, layer: int = -1, **_: Any) -> Tensor:
        return self.suffix(self.prefix(x, 1), 1, layer)

    def prefix(self, x: Tensor, n_last: int) -> Tensor:
        return x

    def suffix(self, hidden: Tensor, n_last: int, layer: int = -1, **_: Any) -> Tensor:
        return torch.relu(self.layer(hidden))

    def pad(self, x: Tensor) -> Tensor:
        return x

    def config_dict(self) -> dict[str, Any]:
        return {}

    def check_layer(self, layer: int) -> None:
        if layer not in (-1, 0):
            raise ConfigError("the toy has one layer")

    def set_checkpointing(self, on: bool) -> None:
        pass

    def parameters_by_depth(self) -> list[list[nn.Parameter]]:
        return [[], list(self.layer.parameters()), []]


def make() -> Backbone:
    torch.manual_seed(0)
    return Toy()


NAME = f"{__name__}:make"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run a command as a process of its own does: what others imported is not known."""
    kinds = dict(registry.KINDS)

    def main(*words: str) -> int:
        monkeypatch.setattr(registry, "KINDS", dict(kinds))
        return cli.main(words)

    return main


@pytest.mark.slow
def test_a_backbone_of_ones_own_through_the_whole_job(tmp_path, monkeypatch, capsys, run) -> None:
    for number, label in enumerate(("slow/low", "slow/high", "fast/low")):
        for i in range(5):
            path = tmp_path / "WAV" / label / f"track {i}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            samples = audio_files.music(4.0, seed=10 * number + i)
            audio_files.write(path, samples / (1 + number))
    monkeypatch.chdir(tmp_path)
    words = ("preprocess", "--backbone", NAME, "--chunk-s", "1", "--workers", "1", "--quiet")
    assert run(*words) == 0
    recipe = ["--recipe", "thesis", "--tune", "head", "--epochs", "3", "--out", "model"]
    for words in (["train", *recipe], ["evaluate", "--run", "model", "--quick"]):
        assert run(*words, "--quiet") == 2
        assert f"--trust {NAME}" in capsys.readouterr().err
        named = "--backbone" if words[0] == "train" else "--trust"
        assert run(*words, "--quiet", named, NAME) == 0
    assert json.loads(Path("model/metrics.json").read_text())["models"]["trained"]
    capsys.readouterr()
    assert run("embed", str(path), "--run", "model") == 2
    assert f"--trust {NAME}" in capsys.readouterr().err
    assert run("embed", str(path), "--run", "model", "--trust", NAME) == 0


OWN = """
from pathlib import Path
from tests.models.test_registry import Toy, make

Path({ran!r}).touch()


class Sized(Toy):
    def __init__(self, hidden_size=6):
        self.hidden_size = hidden_size
        super().__init__()

    def config_dict(self):
        return {{"hidden_size": self.hidden_size}}


def pretrained(**config):
    return Sized(**(config or {{"hidden_size": 3}}))
"""


@pytest.fixture
def own_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of one module; returns a file that is there once it has been imported."""
    ran = tmp_path / "ran"
    (tmp_path / "own_net.py").write_text(OWN.format(ran=str(ran)), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "KINDS", dict(registry.KINDS))
    yield ran
    sys.modules.pop("own_net", None)


def saved_model(folder: Path, name: str) -> Path:
    folder.mkdir()
    encoder.save(encoder.Encoder(backbones.load(name), head=(), embedding_size=2), folder)
    return folder


def test_a_model_folder_runs_no_code_unless_the_user_names_it(own_package, tmp_path) -> None:
    name = "own_net:pretrained"
    backbones.import_factory(name)
    folder = saved_model(tmp_path / "model", name)
    del registry.KINDS[name], sys.modules["own_net"]
    own_package.unlink()
    with pytest.raises(RunError, match=f"--trust {name}") as caught:
        encoder.load(folder)
    assert "\n" not in str(caught.value)
    with pytest.raises(BackboneError, match=f"--trust {name}"):
        backbones.feature_spec(name)
    assert not own_package.exists()
    backbones.import_factory(name)
    network = encoder.load(folder).backbone
    assert own_package.exists()
    assert (network.kind, network.hidden_size) == (name, 3)


def test_an_installed_package_names_its_backbones(own_package, tmp_path) -> None:
    place = tmp_path / "own_net-1.0.dist-info"
    place.mkdir()
    (place / "METADATA").write_text("Metadata-Version: 2.1\nName: own-net\nVersion: 1.0\n")
    (place / "entry_points.txt").write_text("[subgenre.backbones]\nown-net = own_net:pretrained\n")
    assert backbones.feature_spec("own-net") == SPEC
    folder = saved_model(tmp_path / "model", "own-net")
    registry.KINDS.pop("own-net")
    assert encoder.load(folder).backbone.kind == "own-net"
    registry.KINDS.pop("own-net")
    (place / "entry_points.txt").unlink()
    with pytest.raises(RunError, match=r"kind 'own-net'.*install the package"):
        encoder.load(folder)


def test_what_is_no_backbone_is_refused_with_the_way_out(own_package) -> None:
    def use(name: str) -> None:
        backbones.import_factory(name)
        backbones.feature_spec(name)

    for name, word in (
        ("gone_net:make", "can't be imported.*PYTHONPATH"),
        ("own_net:gone", "can't be imported.*gone"),
        ("own_net:Path", "gives a .*Path"),
    ):
        with pytest.raises(BackboneError, match=word):
            use(name)


@pytest.mark.parametrize(
    ("code", "word"),
    [
        ("x = = 3", "SyntaxError"),
        ("raise RuntimeError('boom')", "RuntimeError: boom"),
        ("import sys; sys.exit(0)", "SystemExit"),
        ("def make(): raise ValueError('no weights\\nhere')", "ValueError: no weights"),
        ("def make(needed): pass", "TypeError: .*needed"),
        ("make = 3", "TypeError"),
        ("from tests.models.test_registry import Toy\nclass make(Toy): spec = 3", "the spec 3"),
        (
            "from tests.models.test_registry import Toy\ndef make(): net = Toy(); net.spec = None;"
            " return net",
            "the spec None",
        ),
        (
            "from subgenre.models.backbones.base import Backbone\nclass Bare(Backbone): pass\n"
            "Bare.__abstractmethods__ = frozenset()\nmake = Bare",
            "no spec",
        ),
    ],
)
def test_code_that_fails_is_named_in_one_line(own_package, tmp_path, capsys, code, word) -> None:
    (tmp_path / "own_net.py").write_text(code, encoding="utf-8")
    out = tmp_path / "features"
    words = ("preprocess", str(tmp_path), "--out", str(out), "--backbone", "own_net:make")
    assert cli.main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(f"own_net:make .*{word}", line)


def test_a_model_whose_backbone_takes_other_features_now_is_refused(own_package, tmp_path) -> None:
    name = "own_net:pretrained"
    backbones.import_factory(name)
    folder = saved_model(tmp_path / "model", name)
    network = sys.modules["own_net"].Sized
    network.spec = dataclasses.replace(SPEC, hop=256)
    with pytest.raises(RunError, match="hop is 512 there, 256 here"):
        encoder.load(folder)


def test_unknown_kinds_and_model_types_are_refused(tmp_path) -> None:
    with pytest.raises(BackboneError, match="no backbone of kind 'vgg'"):
        backbones.build("vgg", {})
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    with pytest.raises(BackboneError, match=r"type 'bert'; known: .*audio-spectrogram"):
        backbones.load(str(tmp_path))
