"""Checkpoints: what a run needs to continue as if it had not stopped."""

from __future__ import annotations

import hashlib
import io
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
_NAMED = 4  # differences that an error names


def digest(value: Any) -> str:
    """Hash plain values by their sorted JSON."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def save(folder: Path, state: Mapping[str, Any], fingerprint: Mapping[str, str]) -> Path:
    """Write tensors and plain values to the folder of a run, atomically.

    `fingerprint` must be the same to resume: `section.option` and its value as text, or a name
    (`data`, `split`) and a hash.
    """
    path, buffer = folder / NAME, io.BytesIO()
    whole = {"format_version": FORMAT_VERSION, "fingerprint": dict(fingerprint), **state}
    torch.save(whole, buffer)  # its own writer turns a full disk into an error of another kind
    files.write_bytes(path, buffer.getbuffer())
    return path


def load(path: Path, fingerprint: Mapping[str, str]) -> dict[str, Any]:
    """Read a checkpoint of exactly this run.

    Raises:
        CheckpointError: damaged, of another format, or of another run, with what differs.
    """
    state = _read(path)
    saved = state["fingerprint"]
    differences = []
    for key in dict.fromkeys([*fingerprint, *saved]):
        then, now = saved.get(key), fingerprint.get(key)
        if then != now:
            shown = then and now and (key == "recipe" or "." in key)
            differences.append(f"{key} {then} (now {now})" if shown else f"another {key}")
    if differences:
        more = ["more"] if len(differences) > _NAMED else []
        raise CheckpointError(
            f"{path} belongs to a run with {' and '.join([*differences[:_NAMED], *more])}; give "
            "the options of that run with --resume, or start anew without it"
        )
    return state


def _read(path: Path, *, mapped: bool = False) -> dict[str, Any]:
    """Read a checkpoint of any run; `mapped` leaves its tensors on disk until they are used."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except (OSError, RuntimeError, EOFError, ValueError, UnpicklingError) as problem:
        raise CheckpointError(f"{path} can't be read: {problem}") from problem
    if not isinstance(state, dict) or state.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} is not a checkpoint of format {FORMAT_VERSION}; start anew without --resume"
        )
    return dict(state)


def steps_done(path: Path) -> int:
    """Return the number of steps that the run of a checkpoint had done."""
    return int(_read(path, mapped=True)["done"])


def of_run(
    root: Path,
    fingerprint: Mapping[str, str],
    *,
    on_damaged: Callable[[str], None] = lambda _: None,
    finished: Callable[[Path], bool] = lambda _: False,
) -> list[Path]:
    """List the checkpoints of exactly this run in `root` or its folders, the newest first.

    Args:
        on_damaged: receives a message on each that can't be read, if another can.
        finished: returns whether the run of a checkpoint has its model.

    Raises:
        CheckpointError: none is of this run, and there is one of an unfinished run: the options may
            be mistaken. The error names what differs from the newest.
    """
    folders = sorted(root.glob(f"*/{NAME}"), key=lambda path: path.parent.name, reverse=True)
    paths = [*root.glob(NAME), *folders]
    matching, damaged = [], []
    for path in paths:
        try:
            if _read(path, mapped=True)["fingerprint"] == dict(fingerprint):
                matching.append(path)
        except CheckpointError as problem:
            damaged.append(str(problem))
    unfinished = next((path for path in paths if not finished(path)), None)
    if unfinished and not matching:
        load(unfinished, fingerprint)
    for reason in damaged:
        on_damaged(f"skipped: {reason}")
    return matching
