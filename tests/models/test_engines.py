"""Engines of a frozen network on the CPU, against torch; on tiny networks with random weights."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from subgenre.audio.features import Statistics
from subgenre.config import PreprocessConfig
from subgenre.core import workspace
from subgenre.core.progress import Silent
from subgenre.errors import BackboneError, ConfigError, MissingExtraError
from subgenre.models import backbones, engines
from subgenre.models.encoder import Encoder
from tests.consoles import RecordingConsole
from tests.models import hub_folders
from tests.toy import make_ast_folder

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
CUT = PreprocessConfig(chunk_s=1.0)
NETWORKS = ("ast", "wav2vec2-stable", "whisper")
LIBRARIES = {"openvino": "openvino", "onnx": "onnxruntime"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folders of tiny networks, each saved once."""
    place, made = tmp_path_factory.mktemp("networks"), {}

    def get(name: str):
        if name not in made:
            path = place / name
            made[name] = (
                make_ast_folder(path)
                if name == "ast"
                else hub_folders.save(hub_folders.CASES[name], path)
            )
        return str(made[name])

    return get


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """A user's cache folder of its own."""
    monkeypatch.setattr(workspace, "user_cache", lambda: tmp_path / "cache")
    return tmp_path / "cache"


def encoder_of(name: str, engine: str = "torch") -> Encoder:
    backbone = backbones.load(name)
    backbone.engine = engine
    generator = torch.Generator().manual_seed(1)
    net = Encoder(backbone, head=(8,), embedding_size=4, generator=generator).eval()
    if backbone.spec.normalise != "none":
        net.set_statistics(Statistics(100, -4.5, 900.0))
    return net


def features_of(net: Encoder, n: int) -> torch.Tensor:
    """Features [n, T, F] of 1 s, as their front end scales them."""
    spec = net.backbone.spec
    noise = torch.randn((n, spec.frames(spec.rate), spec.n_mels), generator=torch.manual_seed(0))
    return noise * 4 - 5 if spec.n_mels == 128 else noise / 3


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("engine", ["openvino", "onnx"])
def test_an_engine_gives_the_vectors_of_torch(folder, monkeypatch, engine, name) -> None:
    pytest.importorskip(LIBRARIES[engine])
    monkeypatch.setattr(engines, "_number_format", lambda engine: "fp32")
    net = encoder_of(folder(name))
    inputs = features_of(net, 3)
    with torch.inference_mode():
        expected = net.pooled(inputs)
        net.backbone.engine = engine
        frozen = engines.Frozen(net, net.pooled)
        found = frozen(inputs)
        assert torch.equal(frozen(inputs[1:]), found[1:])  # whatever the batch
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not torch.equal(found, expected)  # it was not torch that ran


@pytest.mark.parametrize("name", ["ast", "whisper"])  # a tiny network on samples is not bf16's
def test_openvino_computes_in_the_format_of_the_processor(folder, name) -> None:
    pytest.importorskip("openvino")
    net = encoder_of(folder(name), "openvino")
    inputs = features_of(net, 2)
    with torch.inference_mode():
        frozen = engines.Frozen(net, net.pooled)
        expected, found = net.pooled(inputs), frozen(inputs)
        assert frozen(net.backbone.pad(inputs)).shape == found.shape  # another length of chunk
    assert torch.nn.functional.cosine_similarity(found, expected).min() > engines.AGREES
    exact = engines.precision("openvino", "cpu") == "openvino fp32"
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5) == exact


def test_an_engine_runs_the_blocks_below_those_that_learn(folder) -> None:
    pytest.importorskip("openvino")
    net = encoder_of(folder("ast"), "openvino")
    inputs = features_of(net, 2)
    with torch.inference_mode():
        expected = net.prefix(inputs, 1)
        found = engines.Frozen(net, lambda x: net.prefix(x, 1))(inputs)
    assert found.shape == expected.shape
    assert torch.nn.functional.cosine_similarity(found, expected, dim=-1).min() > 0.999


@torch.inference_mode()
def test_torch_runs_the_network_itself(folder) -> None:
    net = encoder_of(folder("ast"))
    inputs = features_of(net, 2)
    assert torch.equal(engines.Frozen(net, net.pooled)(inputs), net.pooled(inputs))


@pytest.mark.parametrize("engine", ["openvino", "onnx"])
def test_an_engine_that_is_not_installed_is_named_with_its_command(
    folder, monkeypatch, engine
) -> None:
    monkeypatch.setitem(sys.modules, LIBRARIES[engine], None)
    net = encoder_of(folder("ast"), engine)
    with pytest.raises(MissingExtraError, match=rf"--engine {engine}.*'subgenre\[{engine}\]'"):
        engines.Frozen(net, net.pooled)(features_of(net, 1))
    with pytest.raises(MissingExtraError, match=rf"'subgenre\[{engine}\]'"):
        engines.select(net.backbone, engine, CUT, device=CPU, console=Silent())


class Strange(torch.autograd.Function):
    """An operation whose values openvino's tracer takes for constants."""

    @staticmethod
    def forward(ctx, x):
        return torch.from_numpy(np.sort(x.numpy(), axis=1))


def test_a_network_that_is_no_constant_is_not_taken_for_one(folder) -> None:
    pytest.importorskip("openvino")
    net = encoder_of(folder("ast"), "openvino")
    with pytest.raises(BackboneError, match=r"openvino .*the network ast .*--engine torch"):
        engines.Frozen(net, lambda x: Strange.apply(net.pooled(x)))(features_of(net, 1))


def test_a_network_that_an_engine_cannot_take_is_refused_in_one_line(folder, monkeypatch) -> None:
    def refuse(part, example):
        raise ValueError("no operation aten::strange\nin a trace\nof many lines")

    net = encoder_of(folder("ast"), "onnx")
    monkeypatch.setattr(engines, "_CONVERTERS", {"onnx": refuse})
    monkeypatch.setattr(engines, "_check_installed", lambda engine: None)
    with pytest.raises(BackboneError, match=r"onnx .*ast .no operation aten::strange.*torch$"):
        engines.Frozen(net, net.pooled)(features_of(net, 1))


def test_an_engine_with_other_values_is_refused(folder, monkeypatch) -> None:
    net = encoder_of(folder("ast"), "onnx")
    wrong = {"onnx": lambda part, example: lambda x: part(x).flip(1)}
    monkeypatch.setattr(engines, "_CONVERTERS", wrong)
    monkeypatch.setattr(engines, "_check_installed", lambda engine: None)
    with pytest.raises(BackboneError, match=r"onnx gives other values than torch .*cosine"):
        engines.Frozen(net, net.pooled)(features_of(net, 1))


def test_auto_takes_the_fastest_engine_and_remembers_it(folder, monkeypatch, cache) -> None:
    pytest.importorskip("openvino")
    backbone, calls = backbones.load(folder("ast")), []

    def measure(*args):
        calls.append(args)
        return {"torch": 2.0, "openvino": 0.5}

    monkeypatch.setattr(engines, "_measure", measure)
    for _ in range(2):
        console = RecordingConsole()
        engines.select(backbone, "auto", CUT, device=CPU, console=console)
        assert backbone.engine == "openvino"
        (line,) = console.messages
        assert "openvino" in line
        assert "4.0 times as fast as torch" in line
        assert engines.precision("openvino", CPU).split()[1] in line  # the number format
    assert len(calls) == 1
    engines.select(backbone, "auto", PreprocessConfig(chunk_s=2.0), device=CPU, console=Silent())
    assert len(calls) == 2  # chunks of another length

    remembered = cache / engines.MEASURED
    assert len(json.loads(remembered.read_text())["seconds"]) == 2
    remembered.write_bytes(remembered.read_bytes().replace(b"0.5", b"0.6"))  # damaged
    engines.select(backbone, "auto", CUT, device=CPU, console=Silent())
    assert len(calls) == 3


def test_auto_measures_each_engine_that_can_run_the_network(folder, monkeypatch) -> None:
    backbone = backbones.load(folder("ast"))

    def refuse(part, example):
        raise ValueError("no such operation")

    monkeypatch.setattr(
        engines, "_CONVERTERS", {"openvino": refuse, "onnx": lambda part, example: part}
    )
    library = SimpleNamespace(__version__="1")  # as of onnxruntime-gpu, which has another name
    monkeypatch.setattr(engines, "import_module", lambda name: library)
    seconds = engines._measured(backbone, (1, 100, 128))
    assert seconds.keys() == {"torch", "onnx"}
    assert min(seconds.values()) > 0


@pytest.mark.parametrize(
    "seconds",
    [
        *(None, [], "x", {"NAME": None}, {"NAME": []}, {"NAME": {"onnx": 1.0}}),
        *({"NAME": {"torch": 1.0, "gone": 0.1}}, {"NAME": {"torch": "fast"}}),
        {"NAME": {"torch": 0.0, "onnx": 0.0}},
    ],
)
def test_what_is_no_measurement_is_measured_anew(folder, monkeypatch, cache, seconds) -> None:
    backbone, shape = backbones.load(folder("ast")), (1, 100, 128)
    monkeypatch.setattr(engines, "_measure", lambda *_: {"torch": 2.0})
    assert engines._measured(backbone, shape) == {"torch": 2.0}
    remembered = cache / engines.MEASURED
    (name,) = json.loads(remembered.read_text())["seconds"]
    text = json.dumps({"format_version": 1, "seconds": seconds}).replace("NAME", name)
    for damaged in (text, '{"format_version": 1}'):
        remembered.write_text(damaged)
        assert engines._measured(backbone, shape) == {"torch": 2.0}


def test_a_user_without_a_home_folder_is_told(monkeypatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(workspace.sys, "platform", "darwin")

    def none() -> None:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(workspace.Path, "home", none)
    with pytest.raises(ConfigError, match="no home folder; set the variable HOME"):
        workspace.user_cache()


def test_engines_are_for_transformers_on_a_cpu(folder) -> None:
    plain = backbones.load("musicnn")
    with pytest.raises(ConfigError, match="musicnn is none: use --engine torch"):
        engines.select(plain, "openvino", CUT, device=CPU, console=Silent())
    engines.select(plain, "auto", CUT, device=CPU, console=Silent())
    assert plain.engine == "torch"
    backbone = backbones.load(folder("ast"))
    engines.select(backbone, "openvino", CUT, device=torch.device("cuda"), console=Silent())
    assert backbone.engine == "torch"


def test_only_other_values_than_torch_have_a_precision() -> None:
    pytest.importorskip("openvino")
    assert engines.precision("torch", "cpu") == ""
    assert engines.precision("onnx", "cpu") == "onnx fp32"
    assert engines.precision("openvino", "cpu") in ("openvino bf16", "openvino fp32")
    assert engines.precision("openvino", "cuda") == ""


@pytest.mark.skipif(sys.platform == "win32", reason="a signal ends the process there")
def test_a_signal_after_another_thread_has_dropped_a_converted_network():
    """OpenVINO's stack for signals was that thread's to remove: the signal ended the process."""
    pytest.importorskip("openvino")
    code = (
        "import signal, threading, torch\n"
        "from subgenre.models import engines\n"
        "signal.signal(signal.SIGINT, lambda *_: print('handled'))\n"
        "with torch.no_grad():\n"
        "    networks = [engines._to_openvino(torch.nn.Linear(8, 8), torch.zeros(1, 8))]\n"
        "dropping = threading.Thread(target=networks.clear)\n"
        "dropping.start()\n"
        "dropping.join()\n"
        "signal.raise_signal(signal.SIGINT)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr
