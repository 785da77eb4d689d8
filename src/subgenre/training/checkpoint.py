"""Checkpoints: everything that a run needs to go on as if it had not stopped.

No state of a random generator is kept: every draw of the trainer is a pure function of the seed
and the step (`train`), so that model, optimizer and position suffice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError  # the error alone
from typing import Any

import torch

from subgenre.core import files
from subgenre.errors import CheckpointError

FORMAT_VERSION = 2
NAME = "checkpoint.pt"
_TOLD = 4  # differences that an error names


def digest(value: Any) -> str:
    """Hash plain values by their sorted JSON."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def save(folder: Path, state: Mapping[str, Any], fingerprint: Mapping[str, str]) -> Path:
    """Write a checkpoint, atomically.

    Args:
        folder: of this run alone.
        state: tensors and plain values.
        fingerprint: what must be the same for the run to go on: `section.option` and its value as
            text, or a name (`data`, `split`) and a hash.
    """
    path = folder / NAME
    with files.atomic_path(path) as temporary:
        torch.save(
            {"format_version": FORMAT_VERSION, "fingerprint": dict(fingerprint), **state}, temporary
        )
    return path


def load(path: Path, fingerprint: Mapping[str, str]) -> dict[str, Any]:
    """Read a checkpoint of exactly this run.

    Raises:
        CheckpointError: damaged, of another format, or of a run with other options, data or
            split: the first few that differ are named.
    """
    state = _opened(path)
    found = state["fingerprint"]
    keys = dict.fromkeys([*fingerprint, *found])
    changed = [_change(key, found.get(key), fingerprint.get(key)) for key in keys]
    if told := [text for text in changed if text]:
        more = ["more"] if len(told) > _TOLD else []
        raise CheckpointError(
            f"{path} belongs to a run with {' and '.join([*told[:_TOLD], *more])}; give the "
            "options of that run beside --resume, or start anew without it"
        )
    return state


def _opened(path: Path, *, mapped: bool = False) -> dict[str, Any]:
    """Read a checkpoint of any run; `mapped`, its tensors stay on disk until they are touched."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except (OSError, RuntimeError, EOFError, ValueError, UnpicklingError) as problem:
        raise CheckpointError(f"{path} can't be read: {problem}") from problem
    if not isinstance(state, dict) or state.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} is no checkpoint of format {FORMAT_VERSION}; start anew without --resume"
        )
    return dict(state)


def steps_done(path: Path) -> int:
    """Tell how many steps a checkpoint's run had done.

    Raises:
        CheckpointError: it can't be read.
    """
    return int(_opened(path, mapped=True)["done"])


def _change(key: str, then: str | None, now: str | None) -> str:
    """Tell what differs: an option's two values, or a name alone; "" where nothing does."""
    if then == now:
        return ""
    told = key == "recipe" or "." in key
    return f"{key} {then} (now {now})" if told and then and now else f"another {key}"


def of_run(
    root: Path,
    fingerprint: Mapping[str, str],
    *,
    on_damaged: Callable[[str], None] = lambda _: None,
    finished: Callable[[Path], bool] = lambda _: False,
) -> list[Path]:
    """List the checkpoints of exactly this run under `root`, or in it, the newest first.

    Args:
        on_damaged: hears of each that can't be read, where another fits.
        finished: tells of a checkpoint whether its run has ended: there is nothing to go on with,
            so that another run's is no sign of mistaken options.

    Raises:
        CheckpointError: none is of this run, and some are of runs that have not finished; it tells
            of the newest of those.
    """
    found = sorted(root.glob(f"*/{NAME}"), key=lambda path: path.parent.name, reverse=True)
    found = [*root.glob(NAME), *found]
    fit, damaged = [], []
    for path in found:
        try:
            if _opened(path, mapped=True)["fingerprint"] == dict(fingerprint):
                fit.append(path)
        except CheckpointError as problem:
            damaged.append(str(problem))
    begun = next((path for path in found if not finished(path)), None)
    if begun and not fit:
        load(begun, fingerprint)
    for reason in damaged:
        on_damaged(f"passed over: {reason}")
    return fit
