"""A backbone of one's own, with a front end of its own, goes through the whole job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from subgenre import cli
from subgenre.audio import features
from subgenre.audio.features import FeatureSpec, FrontEnd
from subgenre.errors import BackboneError, ConfigError
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


def feature_spec(_name: str) -> FeatureSpec:
    return SPEC


def is_available(_name: str) -> bool:
    return True


def build(_config: dict[str, Any]) -> Backbone:
    return Toy().eval()


def load(_name: str) -> Backbone:
    torch.manual_seed(0)
    return build({})


@pytest.mark.slow
def test_a_backbone_of_ones_own_through_the_whole_job(tmp_path, monkeypatch, capsys) -> None:
    kind = registry.BackboneKind(__name__, transformer=False, name="toy")
    monkeypatch.setitem(registry.KINDS, "toy", kind)
    for number, label in enumerate(("slow/low", "slow/high", "fast/low")):
        for i in range(5):
            path = tmp_path / "WAV" / label / f"track {i}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            samples = audio_files.music(4.0, seed=10 * number + i)
            audio_files.write(path, samples / (1 + number))
    monkeypatch.chdir(tmp_path)
    words = ["preprocess", "--backbone", "toy", "--chunk-s", "1", "--workers", "1", "--quiet"]
    assert cli.main(words) == 0
    recipe = ["--recipe", "thesis", "--tune", "head", "--epochs", "3"]
    assert cli.main(["train", *recipe, "--quiet", "--json"]) == 0
    run = Path(json.loads(capsys.readouterr().out.splitlines()[-1])["run"])
    assert cli.main(["evaluate", "--quick", "--quiet"]) == 0
    assert json.loads((run / "metrics.json").read_text())["models"]["trained"]
    assert encoder.load(run).backbone.kind == "toy"


def test_unknown_kinds_and_model_types_are_refused(tmp_path) -> None:
    with pytest.raises(BackboneError, match="no backbone of kind 'vgg'"):
        backbones.build("vgg", {})
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    with pytest.raises(BackboneError, match=r"type 'bert'; known: .*audio-spectrogram"):
        backbones.load(str(tmp_path))
