"""Engines that run a frozen network on the CPU: torch, OpenVINO or ONNX Runtime.

torch and ONNX Runtime compute in fp32, OpenVINO in bf16 where the processor has instructions for
it. A network is converted for the shape of one chunk, and its first output is compared with
torch's.
"""

from __future__ import annotations

import contextlib
import logging
import platform
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from subgenre.config import PreprocessConfig
from subgenre.core import files, workspace
from subgenre.core.progress import Console
from subgenre.dataset.folder import window_frames
from subgenre.errors import BackboneError, ConfigError, MissingExtraError, SubgenreError
from subgenre.models.backbones import Backbone
from subgenre.models.cache import key
from subgenre.models.encoder import Encoder, backbone_fingerprint

Network = Callable[[Tensor], Tensor]

AGREES = 0.999  # least cosine of an engine's output to torch's
MEASURED = "engines.json"  # in the user's cache folder: seconds a chunk, by engine
_FORMAT_VERSION = 1
_LIBRARIES = {  # torch's exporter to ONNX needs onnxscript
    "torch": ("torch",),
    "openvino": ("openvino",),
    "onnx": ("onnxruntime", "onnxscript"),
}
_REPEATS = 3


class Frozen:
    """A frozen part of an encoder, features [B, T, F] -> [B, ...], run by its backbone's engine.

    An engine gets one chunk at a time, so that the values do not depend on the batch. Only torch
    runs on a GPU.

    Args:
        encoder: in evaluation mode. part: one of its methods, or a function of its parts.
    """

    def __init__(self, encoder: Encoder, part: Network) -> None:
        self._encoder, self._part = encoder, part
        self._converted: dict[torch.Size, Network] = {}  # by the shape of a chunk

    def __call__(self, features: Tensor) -> Tensor:
        """Run the network.

        Raises:
            MissingExtraError: the engine is not installed. BackboneError: see `convert`.
        """
        engine = self._encoder.backbone.engine
        if engine == "torch" or features.device.type != "cpu":
            return self._part(features)
        shape = features.shape[1:]
        if shape not in self._converted:
            backbone = self._encoder.backbone
            self._converted[shape] = convert(engine, backbone, self._part, features[:1])
        return torch.cat([self._converted[shape](chunk[None]) for chunk in features])


def precision(engine: str, device: torch.device | str) -> str:
    """Name what values depend on beside weights and features; empty for torch's."""
    if engine == "torch" or torch.device(device).type != "cpu":
        return ""
    return f"{engine} {_number_format(engine)}"


def select(
    backbone: Backbone,
    engine: str,
    cut: PreprocessConfig,
    *,
    device: torch.device,
    console: Console,
) -> None:
    """Set the engine of a backbone, and report one that may give other values than torch.

    Args:
        engine: of `config.ENGINES`. `auto` is the fastest here, measured once.
        cut: how tracks become chunks.

    Raises:
        ConfigError: the engine is for transformers alone. MissingExtraError: it is not installed.
    """
    backbone.engine = "torch"
    if engine == "torch" or device.type != "cpu":
        return
    if not backbone.transformer:
        if engine != "auto":
            raise ConfigError(
                f"engine is '{engine}', which runs transformers; {backbone.kind} is none: use "
                "--engine torch"
            )
        return
    faster = ""
    if engine != "auto":
        _check_installed(engine)
    else:
        seconds = _measured(backbone, (1, window_frames(backbone.spec, cut), backbone.spec.n_mels))
        engine = min(seconds, key=seconds.__getitem__)
        faster = f", {seconds['torch'] / seconds[engine]:.1f} times as fast as torch here"
    if engine != "torch":
        console.info(f"engine: {engine}, computes in {_number_format(engine)}{faster}")
    backbone.engine = engine


def convert(engine: str, backbone: Backbone, part: Network, chunk: Tensor) -> Network:
    """Convert a part of a network for features of the shape of one chunk [1, T, F].

    Raises:
        MissingExtraError: the engine is not installed.
        BackboneError: it can't take the network, or its output differs from torch's.
    """
    _check_installed(engine)
    example = chunk.clone()
    try:
        with torch.inference_mode(False), torch.no_grad(), quiet():
            # another one than is compared: tracing could take values for constants
            run = _CONVERTERS[engine](_Part(backbone, part), torch.zeros_like(example))
        with torch.inference_mode():
            cosine = float(F.cosine_similarity(part(example).flatten(), run(example).flatten(), 0))
    except (SubgenreError, MemoryError):
        raise
    except Exception as problem:
        reason = next(iter(str(problem).strip().splitlines()), type(problem).__name__)
        raise BackboneError(
            f"{engine} can't run the network {backbone.kind} ({reason:.200}); use --engine torch"
        ) from problem
    if not cosine >= AGREES:
        raise BackboneError(
            f"{engine} gives other values than torch for the network {backbone.kind} (cosine "
            f"{cosine:.4f}, at least {AGREES} is needed); use --engine torch"
        )
    return run


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the converters' warnings of their own parts."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


class _Part(nn.Module):
    """A part of a network as a module of its own, as converters take it."""

    def __init__(self, backbone: Backbone, part: Network) -> None:
        super().__init__()
        self.backbone, self.part = backbone, part

    def forward(self, features: Tensor) -> Tensor:
        return self.part(features)


def _to_openvino(part: nn.Module, example: Tensor) -> Network:
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    # what `openvino.convert_model` does, which reports each call to its maker
    decoder = TorchScriptPythonDecoder(
        part, example_input=(example,), trace_kwargs={"check_trace": False}
    )
    front_end = FrontEndManager().load_by_framework("pytorch")
    model = front_end.convert(front_end.load(decoder))
    model.reshape(list(example.shape))
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": {"bf16": "bf16", "fp32": "f32"}[_number_format("openvino")],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    compiled = _openvino().compile_model(model, "CPU", options)
    return lambda features: torch.from_numpy(compiled(features.numpy())[0])


@cache
def _openvino() -> Any:
    """Return OpenVINO, which stays as long as this process.

    Its CPU plugin gives the thread that loads it a stack for signals, and takes that stack away in
    the thread that drops it: in another one, the next signal ends the process.
    """
    _check_installed("openvino")
    from openvino import Core

    return Core()


def _to_onnx(part: nn.Module, example: Tensor) -> Network:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory(prefix="subgenre-", ignore_cleanup_errors=True) as place:
        path = Path(place) / "part.onnx"  # a message in memory holds 2 GB at most
        program: Any = torch.onnx.export(
            part, (example,), input_names=["features"], dynamo=True, verbose=False
        )
        program.save(path)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda features: torch.from_numpy(session.run(None, {"features": features.numpy()})[0])


_CONVERTERS = {"openvino": _to_openvino, "onnx": _to_onnx}


def _number_format(engine: str) -> str:
    if engine != "openvino":
        return "fp32"
    native = "BF16" in _openvino().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "bf16" if native else "fp32"


def _measured(backbone: Backbone, shape: tuple[int, ...]) -> dict[str, float]:
    """Return the seconds a chunk of each engine that can run the network here, remembered."""
    installed = [engine for engine in _LIBRARIES if _is_installed(engine)]
    # of the module: its distribution may have another name, as onnxruntime-gpu has
    versions = {engine: import_module(_LIBRARIES[engine][0]).__version__ for engine in installed}
    name = key(
        backbone=backbone_fingerprint(backbone),
        versions=versions,
        computer=[platform.node(), platform.machine(), platform.processor()],
        threads=torch.get_num_threads(),
        shape=shape,
    )
    path = workspace.user_cache() / MEASURED
    known: dict[str, dict[str, float]] = {}
    with contextlib.suppress(SubgenreError):  # a damaged file is written anew
        found = files.read_json(path, version=_FORMAT_VERSION, error=ConfigError).get("seconds")
        if isinstance(found, dict):
            known = {name: seconds for name, seconds in found.items() if _are_seconds(seconds)}
    if name not in known:
        known[name] = _measure(backbone, shape, installed)
        with contextlib.suppress(OSError):  # no place to remember it
            path.parent.mkdir(parents=True, exist_ok=True)
            stored = {"format_version": _FORMAT_VERSION, "seconds": known}
            files.write_json(path, files.with_checksum(stored))
    return known[name]


def _are_seconds(value: Any) -> bool:
    """Check what a file gives as the seconds of each engine."""
    return (
        isinstance(value, dict)
        and "torch" in value
        and value.keys() <= _LIBRARIES.keys()
        and all(isinstance(seconds, float) and seconds > 0 for seconds in value.values())
    )


def _measure(backbone: Backbone, shape: tuple[int, ...], engines: list[str]) -> dict[str, float]:
    """Time a chunk by each engine, in turns; one that can't run the network is left out."""
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    chunk = backbone.pad(noise / 2)  # the deviation of normalised features
    runs: dict[str, Network] = {}
    for engine in engines:
        with contextlib.suppress(BackboneError):
            runs[engine] = (
                backbone if engine == "torch" else convert(engine, backbone, backbone, chunk)
            )
    seconds: dict[str, list[float]] = {engine: [] for engine in runs}
    with torch.inference_mode():
        for _ in range(_REPEATS):
            for engine, run in runs.items():
                start = time.perf_counter()
                run(chunk)
                seconds[engine].append(time.perf_counter() - start)
    return {engine: min(taken) for engine, taken in seconds.items()}


def _is_installed(engine: str) -> bool:
    try:
        _check_installed(engine)
    except MissingExtraError:
        return False
    return True


def _check_installed(engine: str) -> None:
    try:
        for library in _LIBRARIES[engine]:
            import_module(library)
    except ImportError as problem:
        raise MissingExtraError(f"--engine {engine}", engine) from problem
