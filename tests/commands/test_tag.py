"""`subgenre tag`: a dry run changes nothing, --apply writes what it showed, --undo restores."""

from __future__ import annotations

import builtins
import json
import os
import shutil
from base64 import b64encode
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tinytag import TinyTag

from subgenre.audio import reading
from subgenre.commands import tag
from subgenre.core import files
from subgenre.dataset.journal import Journal
from subgenre.library import retagging, tag_fields
from subgenre.library.scan import stamp
from tests import audio_files
from tests.commands.conftest import Call
from tests.runs import sounding_run
from tests.small_disk import largest_file
from tests.small_library import replace_workers, write_wav

pytestmark = pytest.mark.slow

GENRE = ("--write", "subgenre=GENRE")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and a folder `new` of three files that it can place."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        replace_workers(patch)
        sounding_run(folder)
    for number, name in enumerate(("a.wav", "sub/b.wav")):
        write_wav(folder / "new" / name, 5.0, 10 * number + 7)
    audio_files.write(folder / "new" / "c.flac", audio_files.music(5.0, 16_000), 16_000)
    return folder


@pytest.fixture
def home(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to change, with its workers in this process; the work folder is there."""
    replace_workers(monkeypatch)
    shutil.copytree(made, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture
def call(call: Call) -> Call:
    """Run `subgenre tag` so."""
    return partial(call, "tag")


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def genres(folder: Path) -> dict[str, list[str]]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.name: TinyTag.get(path).as_dict().get("genre", []) for path in files}


def test_dry_run_then_apply_then_undo(home: Path, call: Call) -> None:
    before = contents(home / "new")
    ids = {path: reading.probe(path).id for path in before}
    code, shown, err = call("new", *GENRE)
    assert code == 0
    assert "--apply" in err
    assert contents(home / "new") == before
    assert shown["backup"] is None
    assert not list(home.glob("*/tags_*"))
    code, written, err = call("new", *GENRE, "--apply")
    assert code == 0
    assert written["files"] == shown["files"]
    assert f"subgenre tag --undo {written['backup']}" in err
    assert genres(home / "new") == {
        Path(file["path"]).name: change["new"]
        for file in written["files"]
        for change in file["changes"]
    }
    assert {tuple(change["new"]) for file in shown["files"] for change in file["changes"]} <= {
        ("dark",),
        ("emotional",),
    }
    assert {path: reading.probe(path).id for path in before} == ids
    code, again, _ = call("new", *GENRE, "--apply")
    assert (code, again["files"], len(again["kept"])) == (0, [], 3)
    code, undone, _ = call("--undo", written["backup"])
    assert (code, len(undone["restored"])) == (0, 3)
    assert contents(home / "new") == before
    code, undone, _ = call("--undo", written["backup"])
    assert (code, undone["restored"], len(undone["unchanged"])) == (0, [], 3)


def test_files_of_no_subgenre_stay(home: Path, call: Call) -> None:
    other = home / "new" / "c.flac"
    before = other.read_bytes()
    code, result, err = call(other, *GENRE, "--apply", "--alpha", "0.99")
    assert (code, result["files"], result["backup"]) == (0, [], None)
    assert result["none_of_these"] == [str(other)]
    assert "c.flac stays as it is: none of these" in err
    assert other.read_bytes() == before


def test_undo_says_which_file_was_changed_since(home: Path, call: Call) -> None:
    code, written, _ = call("new", *GENRE, "--apply")
    mine = home / "new" / "a.wav"
    mine.write_bytes(mine.read_bytes() + b"mine")
    changed = mine.read_bytes()
    code, undone, err = call("--undo", written["backup"])
    assert (code, len(undone["restored"])) == (1, 2)
    assert [line for line in err.splitlines() if "a.wav" in line and "was changed" in line]
    assert mine.read_bytes() == changed


def test_a_damaged_backup_is_named(home: Path, call: Call) -> None:
    _, written, _ = call("new", *GENRE, "--apply")
    backup = Path(written["backup"])
    lines = backup.read_bytes().split(b"\n")
    lines[2] = lines[2].replace(b'"id"', b'"it"')
    backup.write_bytes(b"\n".join(lines))
    code, undone, err = call("--undo", backup)
    assert (code, len(undone["restored"])) == (1, 1)
    assert "line 3 is damaged" in err
    code, _, err = call("--undo", home / "new" / "a.wav")
    assert code == 2
    assert "no backup of tags" in err


def test_links_stay_links_and_one_file_is_written_once(home: Path, call: Call) -> None:
    link = home / "new" / "link.flac"
    link.symlink_to("c.flac")
    code, result, _ = call("new", *GENRE, "--apply")
    assert (code, len(result["files"])) == (0, 3)
    assert link.is_symlink()
    assert len(set(genres(home / "new")["link.flac"])) == 1


def test_files_that_can_not_be_written_are_listed(home: Path, call: Call) -> None:
    (home / "new" / "a.wav").chmod(0o444)
    audio_files.write(home / "new" / "d.wma", audio_files.music(5.0))
    for extra in ((), ("--apply",)):
        code, result, err = call("new", *GENRE, *extra)
        assert code == 1
        reasons = {Path(s["path"]).name: s["reason"] for s in result["skipped"]}
        assert reasons["a.wav"] == "is read-only"
        assert "no tags are written into .wma" in reasons["d.wma"]
        assert len(result["files"]) == 2
        assert "skipped" in err


def test_a_full_disk_ends_in_one_line_and_what_was_written_can_be_undone(
    home: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(home / "new")
    call("new", *GENRE)  # embeds
    real, done = retagging.change, []

    def change(path: Path, *given: Any, **named: Any) -> None:
        if not done:
            done.append(path)
            return real(path, *given, **named)
        with largest_file(20_000):
            return real(path, *given, **named)

    monkeypatch.setattr(retagging, "change", change)
    code, result, err = call("new", *GENRE, "--apply", "--quiet")
    assert (code, result) == (2, None)
    assert len(err.strip().splitlines()) == 1
    assert [p for p, data in contents(home / "new").items() if data != before[p]] == done
    (backup,) = home.glob("*/tags_*")
    assert call("--undo", backup)[0] == 0
    assert contents(home / "new") == before


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["new"], "no field is named; give for example --write subgenre=GENRE"),
        (["new", "--write", "GENRE"], "--write is GENRE; give for example --write subgenre=GENRE"),
        (["new", "--write", "subgenre=TITLE"], "TITLE"),
        (["new", *GENRE, "--mode", "add"], "append"),
        (["new", "--undo", "x.jsonl"], "--undo takes the files from the backup"),
    ],
)
def test_bad_options_are_refused_with_a_way_out(
    home: Path, call: Call, words: list[str], reason: str
) -> None:
    code, _, err = call(*words)
    assert code == 2
    assert reason in err


def test_a_missing_library_is_named_with_its_licence(
    home: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any) -> Any:
        if name.startswith("mutagen"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    code, _, err = call("new", *GENRE)
    assert code == 2
    assert "GPL-2.0-or-later" in err
    assert "pip install 'subgenre[tag]'" in err


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    """A backup of two files, `new/a.flac` and `new/b.flac`; what they were is in `old`."""
    book = tmp_path / "model" / "tags_1.jsonl"
    (tmp_path / "new").mkdir()
    with Journal(book, {"kind": tag.KIND}) as journal:
        for seed, name in enumerate(("a.flac", "b.flac")):
            path = audio_files.write(tmp_path / "new" / name, audio_files.music(1.0, seed=seed))
            (tmp_path / "old").mkdir(exist_ok=True)
            shutil.copy2(path, tmp_path / "old")
            retagging.change(
                path,
                tag_fields.plan(path, "dark", ["GENRE"], "overwrite"),
                track_id=reading.probe(path).id,
                seen=stamp(path),
                record=lambda entry, name=name: journal.append(  # type: ignore[misc]
                    {"path": f"../new/{name}", **entry}
                ),
            )
    return book


def as_before(backup: Path) -> list[str]:
    """Return the names of the files that are as before the change."""
    home = backup.parent.parent
    old = {path: path.read_bytes() for path in sorted((home / "old").iterdir())}
    found = [home / "new" / path.name for path in old]
    pairs = zip(found, old.values(), strict=True)
    return [path.name for path, data in pairs if path.is_file() and path.read_bytes() == data]


def replace_line(backup: Path, number: int, line: bytes) -> None:
    lines = backup.read_bytes().splitlines(keepends=True)
    lines[number - 1] = line
    backup.write_bytes(b"".join(lines))


def edit_line(backup: Path, number: int, **values: Any) -> None:
    """Write a line anew, with a right checksum."""
    entry = {**json.loads(backup.read_bytes().splitlines()[number - 1]), **values}
    kept = {key: value for key, value in entry.items() if value is not None}
    replace_line(backup, number, json.dumps(files.with_checksum(kept)).encode() + b"\n")


def skipped_once(err: str, reason: str) -> bool:
    lines = [line for line in err.splitlines() if "skipped" in line]
    return len(lines) == 1 and reason in lines[0] and "Traceback" not in err


def test_undo_writes_into_the_audio_of_its_line_only(backup: Path, call: Call) -> None:
    script, evil = backup.with_name("profile"), b"rm -r music"
    script.write_bytes(b"known content")
    values = {"path": script.name, "new": files.checksum(b"known content")}
    patch = {"old": files.checksum(evil), "patch": [b64encode(evil).decode()]}
    edit_line(backup, 2, **values, **patch)
    code, undone, err = call("--undo", backup)
    assert (code, len(undone["restored"])) == (1, 1)
    assert skipped_once(err, "profile")
    assert script.read_bytes() == b"known content"


def test_undo_refuses_a_line_without_a_checksum(backup: Path, call: Call) -> None:
    entry = json.loads(backup.read_bytes().splitlines()[1])
    del entry[files.CHECKSUM]
    replace_line(backup, 2, json.dumps(entry).encode() + b"\n")
    code, _, err = call("--undo", backup)
    assert code == 1
    assert skipped_once(err, "line 2 is damaged")
    assert as_before(backup) == []


@pytest.mark.parametrize("kind", ["empty", "pipe", "folder", "gone"])
def test_one_bad_file_does_not_stop_the_undo(backup: Path, call: Call, kind: str) -> None:
    path = backup.parent.parent / "new" / "a.flac"
    path.unlink()
    if kind == "empty":
        path.touch()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    code, _, err = call("--undo", backup)
    assert code == 1
    assert skipped_once(err, "a.flac")
    assert as_before(backup) == ["b.flac"]


@pytest.mark.parametrize(
    "values",
    [
        *({name: None} for name in ("path", "id", "mtime_ns", "old", "new", "patch")),
        *({"path": path} for path in (3, "", "a\0b", "\ud800", "a" * 5000)),
        *({"mtime_ns": value} for value in ("x", 10**40, 0.5)),
        *({"patch": patch} for patch in (3, [3], [[0, 10**18]], [[-5, 5]], [["0", "5"]], ["a"])),
        {"old": "x"},
    ],
    ids=str,
)
def test_a_line_of_another_shape_is_named_and_changes_nothing(
    backup: Path, call: Call, values: dict[str, Any]
) -> None:
    edit_line(backup, 2, **values)
    before = (backup.parent.parent / "new" / "a.flac").read_bytes()
    code, _, err = call("--undo", backup)
    assert code == 1
    assert skipped_once(err, "")
    assert as_before(backup) == ["b.flac"]
    assert (backup.parent.parent / "new" / "a.flac").read_bytes() == before


@pytest.mark.parametrize(("line", "kept"), [(3, ["a.flac"]), (2, [])])
def test_a_cut_backup_is_named(backup: Path, call: Call, line: int, kept: list[str]) -> None:
    lines = backup.read_bytes().splitlines(keepends=True)
    backup.write_bytes(b"".join(lines[: line - 1]) + lines[line - 1][:-30])
    code, _, err = call("--undo", backup)
    assert code == 1
    assert skipped_once(err, f"line {line} is incomplete: ../new/{'ab'[line - 2]}.flac")
    assert as_before(backup) == kept


def test_undo_keeps_a_link(backup: Path, call: Call) -> None:
    path = backup.parent.parent / "new" / "a.flac"
    target = path.rename(path.with_name("moved.flac"))
    path.symlink_to(target.name)
    assert call("--undo", backup)[0] == 0
    assert path.is_symlink()
    assert as_before(backup) == ["a.flac", "b.flac"]


def test_undo_of_a_missing_backup_says_so(tmp_path: Path, call: Call) -> None:
    code, _, err = call("--undo", tmp_path / "none.jsonl")
    assert code == 2
    assert "none.jsonl does not exist" in err


def test_two_commands_at_once_have_two_backups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tags_1.jsonl").touch()
    monkeypatch.setattr(Path, "exists", lambda _: False)  # made by another command meanwhile
    assert tag._new_backup(tmp_path) == tmp_path / "tags_2.jsonl"
