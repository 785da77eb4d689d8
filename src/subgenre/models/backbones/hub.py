"""Where an AST's weights come from: a folder, or the hub's files of that name in its cache.

Only SafeTensors and JSON are read; no downloaded code or pickle is run.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from subgenre.audio.features import AST_SPEC
from subgenre.config import DEFAULT_BACKBONE
from subgenre.core import files
from subgenre.errors import BackboneError

MODEL_TYPE = "audio-spectrogram-transformer"
STRUCTURE = (  # what the saved model keeps of the hub's configuration
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "layer_norm_eps",
    "patch_size",
    "qkv_bias",
    "frequency_stride",
    "time_stride",
    "max_length",
    "num_mel_bins",
)
_MAX_BYTES = 2**22  # of a JSON file
WAYS_ON = "give a folder that save_pretrained wrote, or use --backbone musicnn, which is built in"


def read_config(name: str) -> Any:
    """Read the hub's `ASTConfig` of a folder or a hub name, and check its front end.

    Raises:
        BackboneError: it is not available, is no AST, or was trained on another front end.
    """
    return _read_config(_folder(name, ["*.json"]), name)


def load_model(name: str) -> Any:
    """Load the hub's `ASTModel` with its weights, in float32 and evaluation mode.

    Takes the backbone of an `ASTForAudioClassification`, or an `ASTModel`.

    Raises:
        BackboneError: it is not available, a tensor is missing or of another shape, or it has
            another front end.
    """
    from safetensors import SafetensorError

    folder = _folder(name, ["*.json", "model*.safetensors"])
    config = _read_config(folder, name)
    if not any(folder.glob("model*.safetensors")):
        other = " (a pickled pytorch_model.bin is not opened)" if any(folder.glob("*.bin")) else ""
        raise BackboneError(f"{name} holds no model.safetensors{other}; {WAYS_ON}")
    from transformers import ASTModel

    try:
        with quiet():
            model, info = ASTModel.from_pretrained(
                str(folder),
                config=config,
                use_safetensors=True,
                local_files_only=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as problem:
        raise BackboneError(f"{name} can't be loaded: {_line(problem)}; {WAYS_ON}") from problem
    fresh = sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])})
    if fresh:
        raise BackboneError(
            f"{name} has no values for {len(fresh)} weights: {', '.join(fresh[:3])}"
            f"{', ...' if len(fresh) > 3 else ''}; {WAYS_ON}"
        )
    return model.eval()


def _folder(name: str, patterns: list[str]) -> Path:
    """Return the folder `name`, or the hub's files of that name in the hub's cache."""
    if Path(name).is_dir():
        return Path(name)
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise BackboneError(f"backbone '{name}' is neither a folder nor a hub name; {WAYS_ON}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    # the hub's client changed its HTTP library more than once: take that library's error from it
    failures: tuple[type[Exception], ...] = (OSError, ValueError, *HfHubHTTPError.__bases__)

    try:
        with quiet():
            return Path(snapshot_download(name, allow_patterns=patterns))
    except failures as problem:
        raise BackboneError(
            f"the hub gave no backbone '{name}' ({_line(problem)}); {WAYS_ON}"
        ) from problem


def is_cached(name: str) -> bool:
    """Check whether the weights are in a folder or the hub's cache, without network access."""
    if Path(name).is_dir():
        return True
    from huggingface_hub import try_to_load_from_cache

    files = ("model.safetensors", "model.safetensors.index.json")
    return any(isinstance(try_to_load_from_cache(name, file), str) for file in files)


def _read_config(folder: Path, name: str) -> Any:
    """Read `config.json` and return the hub's `ASTConfig` of it."""
    values = _read_json(folder / "config.json", name)
    if values is None:
        raise BackboneError(f"{name} holds no config.json; {WAYS_ON}")
    if values.get("model_type") != MODEL_TYPE:
        raise BackboneError(
            f"{name} is of type {values.get('model_type')!r}, not an AST ({MODEL_TYPE}); {WAYS_ON}"
        )
    if "auto_map" in values:
        raise BackboneError(f"{name} brings code of its own (auto_map), never run; {WAYS_ON}")
    config = make_config({key: values[key] for key in STRUCTURE if key in values}, name)
    _check_front_end(folder, name, config)
    return config


def make_config(values: dict[str, Any], name: str) -> Any:
    """Make the hub's `ASTConfig` from plain values.

    Raises:
        BackboneError: the values make no network.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import ASTConfig

    try:
        config = ASTConfig(**values)
    except (TypeError, ValueError, StrictDataclassError) as problem:
        raise BackboneError(f"the AST of {name} can't be built: {_line(problem)}") from problem
    if not isinstance(config.patch_size, int) or config.patch_size > config.max_length:
        raise BackboneError(f"the AST of {name} has patches of {config.patch_size}; 16 is usual")
    if config.hidden_size % config.num_attention_heads:
        raise BackboneError(
            f"the AST of {name} shares {config.hidden_size} values among "
            f"{config.num_attention_heads} heads, which is no whole number; correct its config.json"
        )
    return config


def _check_front_end(folder: Path, name: str, config: Any) -> None:
    """Refuse weights that were trained on another log-mel than `AST_SPEC`."""
    values = _read_json(folder / "preprocessor_config.json", name) or {}
    for key, expected in (
        ("feature_extractor_type", "ASTFeatureExtractor"),
        ("sampling_rate", AST_SPEC.rate),
        ("num_mel_bins", config.num_mel_bins),
    ):
        if values.get(key, expected) != expected:
            raise BackboneError(
                f"{name} was trained on another front end: {key} is {values[key]}, "
                f"{expected} is expected; {WAYS_ON}"
            )


def _read_json(path: Path, name: str) -> dict[str, Any] | None:
    if not path.exists():
        return None
    values = files.read_plain(path, json.loads, error=BackboneError, max_bytes=_MAX_BYTES)
    if not isinstance(values, dict):
        raise BackboneError(f"{path.name} of {name} holds no JSON object")
    return values


def licence(name: str) -> str:
    """Return the licence of the weights, or where to find it."""
    if name == DEFAULT_BACKBONE:
        return "BSD-3-Clause"
    return "see the folder" if Path(name).is_dir() else f"see the hub's page of {name}"


def _line(problem: Exception) -> str:
    """First line of a message, without its full stop."""
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0].rstrip(".")


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the hub's libraries for a while, and leave their logging as it was."""
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    level, hub_level = logging.get_verbosity(), hub_logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.ERROR)
    hub_logging.set_verbosity(logging.ERROR)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        hub_logging.set_verbosity(hub_level)
        if bars:
            logging.enable_progress_bar()
