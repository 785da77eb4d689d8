"""Patches: a file that was changed in few places, described by what it became.

A patch is a list in the order of the old bytes: `[start, length]` is a part of the new file, a text
is bytes that the new file lacks, in base64. JSON keeps it as it is.
"""

from __future__ import annotations

import mmap
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

Patch = list[list[int] | str]
Content = bytes | mmap.mmap

_BLOCK = 64  # bytes that are looked for
_NEAR = 2**20  # bytes after and before the last match, where the next one is looked for
_STEP = 2**20  # bytes that are compared at once
_MORE = 2**28  # bytes by which a file may shrink: the largest tag of ID3


@contextmanager
def mapped(path: Path) -> Iterator[mmap.mmap]:
    """Map a file that is not empty, and that nobody else shortens, which would end us (SIGBUS)."""
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        yield content


def difference(old: Content, new: Content) -> Patch:
    """Return the patch that makes the old content from the new one."""
    patch: Patch = []
    at = own = there = 0  # in `old`: read up to, described up to; in `new`: end of the last match
    while at < len(old):
        block = old[at : at + _BLOCK]
        found = new.find(block, there, there + _NEAR)
        if found < 0:
            found = new.find(block, max(0, there - _NEAR), there + _BLOCK)
        if found < 0:
            at += len(block)
            continue
        if own < at:
            patch.append(b64encode(old[own:at]).decode())
        length = _equal(old, at, new, found)
        patch.append([found, length])
        at = own = at + length
        there = found + length
    if own < at:
        patch.append(b64encode(old[own:at]).decode())
    return patch


def restore(new: Content, patch: Sequence[list[int] | str], out: IO[bytes]) -> None:
    """Write the old content.

    Raises:
        ValueError: it is no patch of this content, or makes far more than that.
    """
    left = len(new) + _MORE
    for part in patch:
        match part:
            case str():
                out.write(b64decode(part, validate=True))
            case [int(start), int(length)] if 0 <= start <= start + length <= len(new):
                left -= length
                if left < 0:
                    raise ValueError(f"it makes more than {len(new) + _MORE} bytes")
                for at in range(start, start + length, _STEP):
                    out.write(new[at : min(at + _STEP, start + length)])
            case _:
                raise ValueError(f"it has {part!r:.80}, which is no part of the file")


def _equal(old: Content, at: int, new: Content, found: int) -> int:
    """Return how many bytes are equal from two places on."""
    longest = min(len(old) - at, len(new) - found)
    for done in range(0, longest, _STEP):
        count = min(_STEP, longest - done)
        before = np.frombuffer(old[at + done : at + done + count], np.uint8)
        after = np.frombuffer(new[found + done : found + done + count], np.uint8)
        if (differs := before != after).any():
            return done + int(differs.argmax())
    return longest
