"""Where the weights of a network of the hub's library come from: a folder, or the hub's cache.

Only SafeTensors and JSON are read; no downloaded code or pickle is run.
"""

from __future__ import annotations

import functools
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from subgenre.config import DEFAULT_BACKBONE
from subgenre.core import files
from subgenre.errors import BackboneError

_MAX_BYTES = 2**22  # of a JSON file
WAYS_ON = "give a folder that save_pretrained wrote, or use --backbone musicnn, which is built in"


def read_config(name: str) -> dict[str, Any]:
    """Read `config.json` of a folder or a hub name.

    Raises:
        BackboneError: it is not available, or no JSON object.
    """
    values = _read_json(folder(name, ["*.json"]) / "config.json", name)
    if values is None:
        raise BackboneError(f"{name} holds no config.json; {WAYS_ON}")
    return values


def read_extractor(name: str) -> dict[str, Any]:
    """Read the settings of the feature extractor of a folder or a hub name; {} if there are none.

    Raises:
        BackboneError: it is not available, or no JSON object.
    """
    there = folder(name, ["*.json"])
    alone = _read_json(there / "preprocessor_config.json", name)
    if alone is not None:
        return alone
    within = (_read_json(there / "processor_config.json", name) or {}).get("feature_extractor")
    return within if isinstance(within, dict) else {}


def make_config(kind: type, values: Mapping[str, Any], name: str) -> Any:
    """Make a configuration of the hub's library from plain values.

    Raises:
        BackboneError: the values make no network.
    """
    from huggingface_hub.errors import StrictDataclassError

    try:
        return kind(**values)
    except (TypeError, ValueError, StrictDataclassError) as problem:
        raise BackboneError(
            f"the network of {name} can't be built: {first_line(problem)}"
        ) from problem


def check_extractor(name: str, expected: Mapping[str, Any]) -> None:
    """Refuse weights that were trained on another front end; what is not recorded is expected.

    Raises:
        BackboneError: the setting of the feature extractor that differs.
    """
    found = read_extractor(name)
    for key, value in expected.items():
        if found.get(key, value) != value:
            raise BackboneError(
                f"{name} was trained on another front end: {key} is {found[key]}, "
                f"{value} is expected; {WAYS_ON}"
            )


def check_no_code(config: Mapping[str, Any], name: str) -> None:
    """Refuse a `config.json` that names code of its own."""
    if "auto_map" in config:
        raise BackboneError(f"{name} brings code of its own (auto_map), never run; {WAYS_ON}")


def load_model(
    name: str, kind: Any, config: Any, *, part: str = "", prefixes: Mapping[str, str] | None = None
) -> Any:
    """Load a model of the hub's library with its weights, in float32 and evaluation mode.

    Args:
        name: a folder or a hub name.
        kind: the class of the model. config: its configuration.
        part: the module whose weights must all be there, by its name in the model; "": the whole.
        prefixes: patterns in the names of the weights, and what stands there in the model.

    Raises:
        BackboneError: it is not available, a tensor is missing or of another shape.
    """
    from safetensors import SafetensorError

    there = folder(name, ["*.json", "model*.safetensors"])
    if not any(there.glob("model*.safetensors")):
        other = " (a pickled pytorch_model.bin is not opened)" if any(there.glob("*.bin")) else ""
        raise BackboneError(f"{name} holds no model.safetensors{other}; {WAYS_ON}")
    try:
        with quiet():
            model, info = kind.from_pretrained(
                str(there),
                config=config,
                use_safetensors=True,
                local_files_only=True,
                dtype=torch.float32,
                output_loading_info=True,
                key_mapping=dict(prefixes) if prefixes else None,
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as problem:
        raise BackboneError(
            f"{name} can't be loaded: {first_line(problem)}; {WAYS_ON}"
        ) from problem
    unset = {*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])}
    fresh = sorted(key for key in unset if key.startswith(part))
    if fresh:
        raise BackboneError(
            f"{name} has no values for {len(fresh)} weights: {', '.join(fresh[:3])}"
            f"{', ...' if len(fresh) > 3 else ''}; {WAYS_ON}"
        )
    return model.eval()


def folder(name: str, patterns: list[str]) -> Path:
    """Return the folder `name`, or the hub's files of that name in the hub's cache.

    Raises:
        BackboneError: neither a folder nor a hub name, or no answer from the hub.
    """
    if Path(name).is_dir():
        return Path(name)
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise BackboneError(f"backbone '{name}' is neither a folder nor a hub name; {WAYS_ON}")
    return _downloaded(name, *patterns)


@functools.lru_cache(maxsize=16)
def _downloaded(name: str, *patterns: str) -> Path:
    """Bring the hub's files of a name into its cache; once in a process, as each call asks it."""
    from huggingface_hub import snapshot_download

    try:
        with quiet():
            return Path(snapshot_download(name, allow_patterns=[*patterns]))
    except failures() as problem:
        raise BackboneError(
            f"the hub gave no backbone '{name}' ({first_line(problem)}); {WAYS_ON}"
        ) from problem


def failures() -> tuple[type[Exception], ...]:
    """Return what the hub's client raises; its HTTP library changed more than once."""
    from huggingface_hub.errors import HfHubHTTPError

    return (OSError, ValueError, *HfHubHTTPError.__bases__)


def is_cached(name: str) -> bool:
    """Check whether the weights are in a folder or the hub's cache, without network access."""
    if Path(name).is_dir():
        return True
    from huggingface_hub import try_to_load_from_cache

    files = ("model.safetensors", "model.safetensors.index.json")
    return any(isinstance(try_to_load_from_cache(name, file), str) for file in files)


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


def first_line(problem: Exception) -> str:
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
