from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subgenre.core import files
from subgenre.errors import RunError


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
