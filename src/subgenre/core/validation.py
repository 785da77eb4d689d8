"""Checks of values, and dataclasses from and to TOML; an error names the nearest known choice."""

from __future__ import annotations

import dataclasses
import difflib
import re
import tempfile
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import tomli_w

from subgenre.core import files
from subgenre.errors import ConfigError

T = TypeVar("T")
_TYPES: dict[type, str] = {int: "a whole number", float: "a number", bool: "true or false"}
_TYPES |= {str: "text", dict: "a table", list: "a list"}
_MAX_BYTES = 2**16  # of a TOML file
# more parts of a key than any table of ours has; `tomllib` takes the square of their number
_DEEP_KEY = re.compile(r"""(?<![\w-])(?:(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*){16}""")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a value that is not among `choices`; the error names the nearest."""
    if value not in choices:
        raise ConfigError(f"{name} is '{value}'{nearest(value, choices)}; choose {either(choices)}")


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Refuse a number outside [low, high], NaN included."""
    if not low <= value <= high:
        raise ConfigError(f"{name} is {value}; it must lie between {low:g} and {high:g}")


def check_ranges(config: object, **ranges: tuple[float, float]) -> None:
    """Refuse a field of `config` outside its [low, high], as `check_range` does."""
    for name, (low, high) in ranges.items():
        check_range(name, getattr(config, name), low, high)


def check_output(option: str, path: Path, *, folder: bool = False) -> None:
    """Refuse a path that can't be written, before the work whose result goes there; leave nothing.

    Args:
        option: the option that gives the path, for the message.
        path: of the file, or with `folder` of the folder, that will be written.

    Raises:
        ConfigError: something else has its name, or the folder that it goes into can't be used.
    """
    if path.is_dir() and not folder:
        raise ConfigError(f"{option} is {path}, a folder; give the name of a file")
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ConfigError(f"{option} is {path}, which is no file; choose another name")
    inside = [path, *path.parents] if folder else list(path.parents)
    above = next((place for place in inside if place.exists()), Path())
    if not above.is_dir():
        raise ConfigError(f"{option} is {path}, but {above} is no folder; choose another place")
    try:  # access rights alone do not show a full disk or a share that refuses root
        tempfile.TemporaryFile(dir=above).close()
    except OSError as problem:
        raise ConfigError(
            f"{option} is {path}, but nothing can be written into {above} ({problem.strerror}); "
            "choose another place"
        ) from problem


def check_tune(tune: str) -> int:
    """Return how many last blocks `tune` names (`last:N`), 0 for the other choices.

    Raises:
        ConfigError: neither `head`, `last:N`, `lora` nor `full`.
    """
    if tune in ("head", "lora", "full"):
        return 0
    kind, _, count = tune.partition(":")
    if kind == "last" and count.isdecimal() and int(count) > 0:
        return int(count)
    raise ConfigError(f"tune is '{tune}'; choose head, last:N (N = 1, 2, ...), lora or full")


def from_dict(kind: type[T], values: Mapping[str, Any], where: str = "configuration") -> T:
    """Build the dataclass `kind` from plain values, sections nested.

    Raises:
        ConfigError: an unknown key (the nearest known one is named), or a value of another type.
    """
    hints = typing.get_type_hints(kind)
    known = {f.name: hints[f.name] for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    built: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise ConfigError(
                f"{where}: unknown key '{key}'{nearest(key, tuple(known))}; "
                f"known: {', '.join(known)}"
            )
        built[key] = _convert(known[key], value, f"{where}: {key}")
    return kind(**built)


def to_dict(config: Any) -> dict[str, Any]:
    """Turn a configuration into plain values for TOML and JSON."""
    return {f.name: _plain(getattr(config, f.name)) for f in dataclasses.fields(config)}


def load_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        ConfigError: missing, no TOML, larger than 64 KiB, or nested too deeply.
    """
    read: dict[str, Any] = files.read_plain(
        path, _parse_toml, error=ConfigError, max_bytes=_MAX_BYTES
    )
    return read


def _parse_toml(text: str) -> dict[str, Any]:
    if _DEEP_KEY.search(text):
        raise RecursionError
    return tomllib.loads(text)


def to_toml(config: Any) -> str:
    """Return a configuration as TOML."""
    return tomli_w.dumps(to_dict(config))


def save_toml(path: Path, config: Any) -> None:
    """Write a configuration as TOML, atomically."""
    files.write_text(path, to_toml(config))


def check_kinds(values: Mapping[str, Any], where: str, **kinds: Any) -> None:
    """Refuse a value of another type than `kinds` gives for its key; a missing one is none.

    Raises:
        ConfigError: the key, the value and the type.
    """
    for name, kind in kinds.items():
        if name in values:
            _convert(kind, values[name], f"{where}: {name}")


def _convert(hint: Any, value: Any, where: str) -> Any:
    """Check one value against its type hint; whole numbers serve as floats."""
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} must be a table")
        return from_dict(typing.cast(type, hint), value, where)
    origin = typing.get_origin(hint)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where} is {value!r:.80}; it must be a list")
        return tuple(_convert(typing.get_args(hint)[0], item, where) for item in value)
    kinds = typing.get_args(hint) if origin in (types.UnionType, typing.Union) else (hint,)
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if any(type(value) is kind for kind in kinds):
        return value
    expected = " or ".join(_TYPES[kind] for kind in kinds if kind in _TYPES)
    raise ConfigError(f"{where} is {value!r:.80}; it must be {expected}")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    return list(value) if isinstance(value, tuple) else value


def nearest(value: str, choices: tuple[str, ...]) -> str:
    """Suggest the choice that is nearest to a misspelt value, or return ""."""
    near = difflib.get_close_matches(value, choices, n=1, cutoff=0.5)
    return f" (did you mean '{near[0]}'?)" if near else ""


def either(choices: tuple[str, ...]) -> str:
    """Join choices for a sentence."""
    return f"{', '.join(choices[:-1])} or {choices[-1]}" if len(choices) > 1 else choices[0]


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """List the values of `here` that are others `there`, those of a table by their own names."""
    found = []
    for name, value in here.items():
        other = there.get(name)
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            found.append(differences(other, value))
        elif other != value:
            found.append(f"{name} is {other!r} there, {value!r} here")
    return "; ".join(filter(None, found))
