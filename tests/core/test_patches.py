"""A patch restores a file byte for byte, and is small where little changed."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subgenre.core import patches


def restored(new: bytes, patch: patches.Patch) -> bytes:
    out = io.BytesIO()
    patches.restore(new, json.loads(json.dumps(patch)), out)
    return out.getvalue()


pieces = st.lists(
    st.one_of(st.binary(max_size=200), st.integers(0, 3).map(lambda n: bytes([n]) * 300)),
    max_size=8,
)


@given(st.lists(st.binary(min_size=60, max_size=400), min_size=1, max_size=5), pieces, st.randoms())
def test_any_content_is_restored(
    shared: list[bytes], own: list[bytes], draw: random.Random
) -> None:
    old, new = [*shared, *own], [*shared, *reversed(own), b"x"]
    draw.shuffle(new)
    patch = patches.difference(b"".join(old), b"".join(new))
    assert restored(b"".join(new), patch) == b"".join(old)


def test_a_patch_is_small_where_tags_moved_and_silence_repeats(tmp_path: Path) -> None:
    draw = random.Random(0)
    audio = draw.randbytes(1_500_000) + bytes(1_500_000) + draw.randbytes(10_000)
    cover = draw.randbytes(300_000)
    old = b"head" + cover + b"title" * 20 + bytes(2000) + audio
    new = b"head" + b"title" * 20 + b"genre" * 9 + cover + bytes(1700) + audio + b"tail"
    for name, content in (("old", old), ("new", new)):
        (tmp_path / name).write_bytes(content)
    with patches.mapped(tmp_path / "old") as before, patches.mapped(tmp_path / "new") as after:
        patch = patches.difference(before, after)
        assert restored(after, patch) == old
    assert len(json.dumps(patch)) < 1000


@pytest.mark.parametrize(
    "part",
    [
        *(3, None, {}, "a", "\u00e9" * 4),
        *([-1, 2], [0, -1], [0, 10**18], [10**30, 1], [0.0, 1], ["0", "1"], [0, 1, 2]),
    ],
)
def test_what_is_no_patch_is_refused(part: Any) -> None:
    with pytest.raises(ValueError, match=r"no part of the file|base64|ASCII"):
        restored(b"new content", [part])


def test_a_patch_does_not_fill_the_disk() -> None:
    class Count(io.RawIOBase):
        size = 0

        def write(self, data: Any) -> int:
            self.size += len(data)
            return len(data)

    out: Any = Count()
    with pytest.raises(ValueError, match="more than"):
        patches.restore(bytes(2**20), [[0, 2**20]] * 1000, out)
    assert out.size < 2**29
