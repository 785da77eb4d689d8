"""The array cache: rows are computed once, damage counts as absent."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from subgenre.core.shards import Shard
from subgenre.models import cache
from subgenre.models.cache import ArrayCache

VALUES = np.random.default_rng(0).normal(size=(6, 3, 2)).astype(np.float32)
ALL = np.arange(6)


class Compute:
    """Returns rows of VALUES and remembers which."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def __call__(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        self.rows.extend(rows.tolist())
        return VALUES[rows]


def fill(folder: Path, rows: NDArray[np.int64] = ALL, key: str = "k") -> list[int]:
    """Fill rows and check them; return those that were computed."""
    compute = Compute()
    found = ArrayCache(folder, key, VALUES.shape, np.float32).fill(rows, compute, batch_size=4)
    np.testing.assert_array_equal(found[rows], VALUES[rows])
    assert not found.flags.writeable
    return compute.rows


def test_the_key_depends_on_every_part() -> None:
    base = cache.key(a=1, b=[1.0, 2.0])
    assert base == cache.key(b=[1.0, 2.0], a=1)
    assert base != cache.key(a=1, b=[1.0, 2.5])


def test_only_missing_rows_are_computed(tmp_path: Path) -> None:
    assert fill(tmp_path, np.array([], np.int64)) == []
    assert fill(tmp_path, np.array([1, 4])) == [1, 4]
    assert fill(tmp_path) == [0, 2, 3, 5]
    assert fill(tmp_path, key="other") == ALL.tolist()
    assert fill(tmp_path) == []


@pytest.mark.parametrize(
    ("damage", "computed"),
    [("cut", 6), ("gone", 6), ("type", 6), ("flip", 1), ("list cut", 6), ("list flip", 1)],
)
def test_damaged_rows_are_computed_again(tmp_path: Path, damage: str, computed: int) -> None:
    fill(tmp_path)
    path = tmp_path / ("k.done.npy" if damage.startswith("list") else "k.npy")
    data = bytearray(path.read_bytes())
    path.unlink()  # maps of the old file stay whole
    if damage.endswith("flip"):
        data[-3] ^= 1
    elif damage.endswith("cut"):
        del data[-5:]
    if damage == "type":
        np.save(path, VALUES.astype(np.float64))
    elif damage != "gone":
        path.write_bytes(data)
    assert len(fill(tmp_path)) == computed
    assert fill(tmp_path) == []


def test_an_interrupted_fill_keeps_its_rows(tmp_path: Path) -> None:
    def stop(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        if rows[0] == 4:
            raise KeyboardInterrupt
        return VALUES[rows]

    with pytest.raises(KeyboardInterrupt):
        ArrayCache(tmp_path, "k", VALUES.shape, np.float32).fill(ALL, stop, batch_size=2)
    assert fill(tmp_path) == [4, 5]


def test_a_killed_process_loses_only_what_it_had_not_saved(tmp_path: Path) -> None:
    code = """if True:
        import os, sys
        from pathlib import Path
        import numpy as np
        from subgenre.models import cache

        cache.SAVE_EVERY_S = -1.0
        values = np.load(sys.argv[2])

        def compute(rows):
            if rows[0] == 4:
                os._exit(9)
            return values[rows]

        store = cache.ArrayCache(Path(sys.argv[1]), "k", values.shape, np.float32)
        store.fill(np.arange(len(values)), compute, batch_size=2)
    """
    np.save(tmp_path / "values.npy", VALUES)
    arguments = [sys.executable, "-c", code, str(tmp_path), str(tmp_path / "values.npy")]
    assert subprocess.run(arguments).returncode == 9
    assert fill(tmp_path) == [4, 5]


def share(folder: Path, shard: str) -> list[int]:
    """Fill the share of a shard; return the rows that were computed."""
    compute, array = Compute(), ArrayCache(folder, "k", VALUES.shape, np.float32)
    array.fill(ALL, compute, batch_size=2, shard=Shard.parse(shard))
    return compute.rows


def test_shares_are_whole_batches_and_are_joined(tmp_path: Path) -> None:
    assert [share(tmp_path, f"{n}/2") for n in (2, 1)] == [[2, 3, 4, 5], [0, 1]]
    assert share(tmp_path, "2/2") == []
    assert fill(tmp_path) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["k.done.npy", "k.npy"]
    fill(tmp_path / "alone")
    for path in tmp_path.glob("k.*"):
        assert path.read_bytes() == (tmp_path / "alone" / path.name).read_bytes()
    assert [share(tmp_path, f"{n}/7") for n in (1, 7)] == [[], []]


def test_what_other_shards_or_an_earlier_run_lack_is_computed(tmp_path: Path) -> None:
    fill(tmp_path, np.array([1]))
    assert share(tmp_path, "1/3") == [0, 2]
    assert share(tmp_path, "2/2") == [3, 4, 5]  # by another number of processes
    path = tmp_path / "k.2-of-2.npy"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1  # in the last row
    path.write_bytes(data)
    assert fill(tmp_path, np.array([0, 1, 3, 5])) == [5]
    assert fill(tmp_path) == [2, 4]


def test_no_shard_computes_without_room(tmp_path: Path) -> None:
    def refuse(size: int) -> None:
        assert size == 2 * VALUES.nbytes
        raise ValueError("no room")

    array = ArrayCache(tmp_path, "k", VALUES.shape, np.float32)
    with pytest.raises(ValueError, match="no room"):
        array.fill(ALL, Compute(), batch_size=2, shard=Shard(1, 2), check_room=refuse)
    assert not list(tmp_path.iterdir())


def npy(header: str) -> bytes:
    text = header.encode() + b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def described(shape: str) -> bytes:
    return npy(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}")


@pytest.mark.filterwarnings("ignore:Reading:UserWarning")
@pytest.mark.parametrize("name", ["k.npy", "k.done.npy"])
def test_a_file_that_is_no_array_is_computed_again(tmp_path: Path, name: str) -> None:
    values = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    cache = ArrayCache(tmp_path, "k", values.shape, np.float32)
    cache.fill(np.arange(6), values.__getitem__, batch_size=2)
    whole = (tmp_path / name).read_bytes()
    hostile = [b"", b"\x93NUMPY", b"PK\x03\x04" + bytes(50), npy("(" * 3000), npy("-" * 5000)]
    hostile += [described(f"({'9' * 30}, 4)"), described("(100000000000,)"), described("(-6, 4)")]
    hostile += [whole[:at] for at in range(0, len(whole), 9)]
    hostile += [whole[:at] + b"(" + whole[at + 1 :] for at in range(0, len(whole), 5)]
    for data in hostile:
        (tmp_path / name).write_bytes(data)
        found = cache.fill(np.arange(6), values.__getitem__, batch_size=3)
        np.testing.assert_array_equal(found, values)
