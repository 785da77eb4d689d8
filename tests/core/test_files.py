from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subgenre.core import files, validation
from subgenre.errors import ConfigError, RunError


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "old")

    def fail() -> None:
        with files.atomic_path(path) as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


WRITER = """
import sys
from pathlib import Path
from subgenre.core import files
with files.atomic_path(Path(sys.argv[1])) as temporary:
    temporary.write_text(sys.argv[1])
    print(temporary, flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def writer(path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    command = [sys.executable, "-c", WRITER, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:  # type: ignore[call-overload]
        yield process, Path(process.stdout.readline().strip())


def test_what_a_killed_writer_left_goes_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    with writer(tmp_path / "a") as (killed, left), writer(tmp_path / "b") as (living, kept):
        killed.kill()
        killed.wait()
        assert left.exists()
        files.write_text(mine, "new")
        assert set(tmp_path.iterdir()) == {mine, kept}
        living.communicate("")
    assert (tmp_path / "b").read_text() == str(tmp_path / "b")
    assert set(tmp_path.iterdir()) == {mine, tmp_path / "b"}


def test_a_new_file_that_is_taken_for_one_that_was_left_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = tempfile.NamedTemporaryFile
    made = []

    def removed(**options: Any) -> Any:
        made.append(make(**options))
        if len(made) == 1:
            files.remove_unfinished(tmp_path)
            assert not Path(made[0].name).exists()
        return made[-1]

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", removed)
    files.write_text(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "new"
    assert len(made) == 2


def test_a_lock_lets_one_in_at_a_time_and_leaves_no_file(tmp_path: Path) -> None:
    lock, inside, most = tmp_path / "new" / ".lock", [0], [0]

    def work(_: int) -> None:
        with files.locked(lock):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.002)
            inside[0] -= 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(12)))
    assert most == [1]
    assert not list(lock.parent.iterdir())


def test_a_written_file_is_readable_by_others_as_usual(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("x")
    files.write_text(tmp_path / "deep" / "atomic", "x")
    modes = [stat.S_IMODE(p.stat().st_mode) for p in (plain, tmp_path / "deep" / "atomic")]
    assert modes[0] == modes[1]


def test_json_refuses_nan_and_checks_the_version(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(path, {"x": float("nan")})
    assert not path.exists()
    files.write_json(path, {"format_version": 2, "name": "Æther\n"})
    with pytest.raises(RunError, match="format version 2; this program reads 1"):
        files.read_json(path, version=1, error=RunError)
    assert files.read_json(path, version=2, error=RunError)["name"] == "Æther\n"


@pytest.mark.parametrize("text", ["", "[1]", "{", json.dumps({"a": 1})])
def test_damaged_json_is_one_clear_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(RunError, match=r"a\.json"):
        files.read_json(path, version=1, error=RunError)


def test_each_flipped_bit_of_a_json_file_is_an_error_or_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    value = {"format_version": 1, "score": 0.5, "names": ["a b", "Æ"]}
    files.write_json(path, value)
    data = path.read_bytes()
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with contextlib.suppress(RunError):
            assert files.read_json(path, version=1, error=RunError) == value
    path.write_text(json.dumps(value))  # a person's
    assert files.read_json(path, version=1, error=RunError) == value


@given(st.text(max_size=300))
def test_a_safe_name_stays_in_its_folder(text: str) -> None:
    name = files.safe_name(text)
    assert not set(name) & set('/\\:*?"<>|\0\n\r')
    assert 1 <= len(name) <= 81
    assert len(name.encode()) <= 201
    assert not name.startswith(".")
    assert not name.endswith((".", " "))


@pytest.mark.parametrize(
    ("text", "name"),
    [("Dark Techno", "Dark Techno"), ("../../etc", "_.._etc"), ("CON", "_CON"), ("音楽", "音楽")],
)
def test_safe_names(text: str, name: str) -> None:
    assert files.safe_name(text) == name


def test_a_flipped_bit_of_json_is_noticed_or_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    value = {"format_version": 1, "x": 0.1 + 0.2, "names": ["Æther", "a\nb"], "deep": {"7": None}}
    files.write_json(path, value)
    assert files.read_json(path, version=1, error=RunError) == value
    data, refused = path.read_bytes(), 0
    for bit in range(0, 8 * len(data), 3):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            found = files.read_json(path, version=1, error=RunError)
            assert {name: found[name] for name in value} == value
        except RunError:
            refused += 1
    assert refused > 2 * len(data)  # the others are blanks and the key of the checksum
    path.write_text(json.dumps(value))  # as a person or an earlier version writes it
    assert files.read_json(path, version=1, error=RunError) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a":' * 100_000, "nested more than 32 levels"),
        ('{"a":' * 40 + "1" + "}" * 40, "nested more than 32 levels"),
        ('{"a": NaN}', "NaN is no JSON number"),
        ('{"a": 1' + "0" * 5000 + "}", "can't be read"),
    ],
)
def test_deep_and_odd_json_is_one_clear_error(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(RunError, match=message):
        files.read_json(tmp_path / "a.json", version=1, error=RunError)


def test_a_huge_file_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with path.open("wb") as file:
        file.truncate(2**40)  # a hole: it takes no room
    with pytest.raises(RunError, match="larger than 65536 KiB"):
        files.read_json(path, version=1, error=RunError)
    with pytest.raises(ConfigError, match="larger than 64 KiB"):
        validation.load_toml(path)


def test_a_deep_recipe_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    for text in ("a = " + "[" * 50_000, "a" + ".a" * 30_000 + " = 1", "['a'" + " . 'a'" * 9_000):
        path.write_text(text)
        with pytest.raises(ConfigError, match=r"a\.toml can't be read: it is nested"):
            validation.load_toml(path)


@pytest.mark.parametrize(
    ("path", "folder", "text"),
    [
        ("/home/ann/WAV", "/home/ann/features", "../WAV"),
        ("/home/ann/features", "/home/ann/features", "."),
        ("/music/WAV", "/home/ann/features", "/music/WAV"),
        (os.fsdecode(b"/home/ann/\xff"), "/home/ann/features", "bytes:../%FF"),
    ],
)
def test_a_path_is_relative_where_both_lie_in_one_folder(path: str, folder: str, text: str) -> None:
    assert files.portable(Path(path), Path(folder)) == text
    assert files.located(text, Path(folder)) == Path(path)
    assert files.located(path, Path(folder)) == Path(path)  # as earlier versions wrote it
