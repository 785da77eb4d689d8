"""Runs of preprocess after one another: reuse, removal, failures, kills; and the journal."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from subgenre.audio.features import MUSICNN_SPEC
from subgenre.core import parallel
from subgenre.dataset import building, journal
from subgenre.dataset.building import estimate
from subgenre.dataset.folder import FeatureFolder
from subgenre.errors import FeatureError
from tests.small_library import CONFIG, library_of, run, same_folders, stat_of, write_wav

pytestmark = pytest.mark.slow


def test_a_second_run_decodes_nothing(root: Path, tmp_path: Path, inline: list[str]) -> None:
    first = run(root, tmp_path / "out")
    shutil.copytree(tmp_path / "out", tmp_path / "before")
    inline.clear()
    again = run(root, tmp_path / "out")
    assert inline == []
    assert (again.n_done, again.n_reused) == (0, first.n_tracks)
    same_folders(tmp_path / "out", tmp_path / "before")


def test_a_renamed_track_is_known(root: Path, tmp_path: Path, inline: list[str]) -> None:
    run(root, tmp_path / "out")
    (root / "house/deep/c.wav").rename(root / "house/deep/other.wav")
    inline.clear()
    run(root, tmp_path / "out")
    assert inline == []
    names = {t.path.name for t in FeatureFolder.open(tmp_path / "out").tracks}
    assert "other.wav" in names
    assert "c.wav" not in names


def test_tracks_come_and_go(root: Path, tmp_path: Path, inline: list[str]) -> None:
    out = tmp_path / "out"
    run(root, out)
    before = {row["file"]: row for row in FeatureFolder.open(out).chunks.to_pylist()}
    strays = [out / "notes.txt", out / "dark" / "mine.pt", out / "dark" / "a-00000000_chunk0.pt"]
    for stray in strays:
        stray.write_text("mine")
    (root / "techno/dark/a.wav").unlink()
    shutil.rmtree(root / "trash")
    write_wav(root / "house/deep/new.wav", 9.0, 50)
    inline.clear()
    summary = run(root, out)
    assert inline == ["new.wav"]
    assert (summary.n_done, summary.n_reused) == (1, 4)
    folder = FeatureFolder.open(out)
    after = {row["file"]: row for row in folder.chunks.to_pylist()}
    kept = {name: row for name, row in before.items() if name in after}
    assert kept == {name: after[name] for name in kept}, "another track's chunks changed"
    there = {p.relative_to(out).as_posix() for p in out.rglob("*.pt")}
    assert there == set(after) | {"dark/mine.pt", "dark/a-00000000_chunk0.pt"}
    assert not (out / "trash").exists()
    assert all(stray.read_text() == "mine" for stray in strays)
    run(root, tmp_path / "fresh")
    for name in ("chunks.parquet", "tracks.parquet", "dataset.json", "skipped.csv"):
        assert (out / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes()


def test_a_missing_chunk_file_is_made_again(root: Path, tmp_path: Path, inline: list[str]) -> None:
    run(root, tmp_path / "out")
    shutil.copytree(tmp_path / "out", tmp_path / "before")
    next((tmp_path / "out" / "dark").glob("a-*.pt")).unlink()
    inline.clear()
    run(root, tmp_path / "out")
    assert inline == ["a.wav"]
    same_folders(tmp_path / "out", tmp_path / "before")


def test_other_settings_need_overwrite(root: Path, tmp_path: Path, inline: list[str]) -> None:
    out = tmp_path / "out"
    run(root, out)
    other = dataclasses.replace(CONFIG, chunk_s=3.0, chunk_strategy="spaced")
    message = r"chunk_s is 4\.0 there, 3\.0 here; chunk_strategy is 'random' there.*--overwrite"
    with pytest.raises(FeatureError, match=message):
        run(root, out, other)
    with pytest.raises(FeatureError, match=message):
        estimate(library_of(root), MUSICNN_SPEC, other, 1, out=out)
    (out / "dark" / "mine.pt").write_text("mine")
    summary = run(root, out, other, overwrite=True)
    assert summary.n_reused == 0
    folder = FeatureFolder.open(out)
    assert folder.config == other
    there = {p.relative_to(out).as_posix() for p in out.rglob("*.pt")}
    assert there == {*folder.chunks["file"].to_pylist(), "dark/mine.pt"}
    assert run(root, out, dataclasses.replace(other, multi="keep")).n_done == 0


@pytest.mark.usefixtures("inline")
def test_a_damaged_folder_can_be_overwritten(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(root, out)
    (out / "dataset.json").write_text("{")
    with pytest.raises(FeatureError, match="can't be read"):
        run(root, out)
    run(root, out, overwrite=True)
    FeatureFolder.open(out)


def test_a_worker_that_dies_loses_one_track(root, tmp_path, monkeypatch) -> None:
    """Such a track is tried again; one that can't be read is not."""
    tried: list[str] = []
    first_run = True

    def map_files(fn: Callable[[Any], Any], items: Any, **_: object) -> Iterator[tuple[int, Any]]:
        for position, job in enumerate(items):
            tried.append(job.path.name)
            outcome = fn(job)
            dies = job.path.name == "c.wav" and first_run
            yield position, parallel.Failure("the reader crashed") if dies else outcome

    monkeypatch.setattr(parallel, "map_files", map_files)
    library = library_of(root)
    data = (root / "house/deep/f.wav").read_bytes()
    (root / "house/deep/f.wav").write_bytes(data[:2000])  # 8.5 s by its header
    library = dataclasses.replace(
        library, tracks=tuple(dataclasses.replace(t, **stat_of(t.path)) for t in library.tracks)
    )
    out = tmp_path / "out"
    summary = run(root, out, library=library)
    reasons = {s.path.name: s.reason for s in summary.skipped}
    assert reasons["c.wav"] == "the reader crashed"
    assert "f.wav" in reasons
    assert not list(out.rglob("c-*.pt"))
    assert not list(out.rglob("f-*.pt"))
    first_run = False
    tried.clear()
    summary = run(root, out, library=library)
    assert tried == ["c.wav"]
    assert summary.n_done == 1
    assert {s.path.name: s.reason for s in summary.skipped}["f.wav"] == reasons["f.wav"]


def test_a_file_that_changes_while_it_is_read_is_tried_again(
    root: Path, tmp_path: Path, inline: list[str]
) -> None:
    library = library_of(root)
    write_wav(root / "house/deep/c.wav", 9.0, 77)  # another recording under the scanned id
    out = tmp_path / "out"
    summary = run(root, out, library=library)
    assert {s.path.name: s.reason for s in summary.skipped}["c.wav"].startswith("changed while")
    assert not list(out.rglob("c-*.pt"))
    inline.clear()
    run(root, out)
    assert inline == ["c.wav"]
    run(root, tmp_path / "fresh")
    same_folders(out, tmp_path / "fresh")


KILLED = """
import os, pickle, signal, sys
from pathlib import Path
from subgenre.audio.features import MUSICNN_SPEC
from subgenre.dataset.building import preprocess

def kill(done, total):
    if done == 3:
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    library, out, config = pickle.loads(Path(sys.argv[1]).read_bytes())
    preprocess(library, out, MUSICNN_SPEC, config, workers=2, timeout_s=60, on_progress=kill)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_two_workers_killed_and_resumed_equal_one_worker(root, tmp_path, inline) -> None:
    whole, out = tmp_path / "whole", tmp_path / "killed"
    assert run(root, whole).n_done == 6
    inline.clear()
    script, handed = tmp_path / "kill.py", tmp_path / "handed"
    script.write_text(KILLED)
    handed.write_bytes(pickle.dumps((library_of(root), out, CONFIG)))
    # reading its output to the end waits for its workers too: they hold the other end of the pipe
    killed = subprocess.run([sys.executable, script, handed], check=False, stdout=subprocess.PIPE)
    assert killed.returncode == -signal.SIGKILL
    assert not (out / "dataset.json").exists()
    lines = (out / building.JOURNAL).read_bytes().splitlines()
    assert len(lines) == 4  # header and three tracks
    with (out / building.JOURNAL).open("ab") as file:
        file.write(lines[-1][:50])  # a line torn by the kill
    (out / "dark").mkdir(exist_ok=True)
    (out / "dark" / ".subgenre-tmp-abcdefgh.pt").write_bytes(b"half a chunk")
    summary = run(root, out)
    assert (summary.n_reused, summary.n_done) == (3, 3)
    assert len(inline) == 3
    same_folders(out, whole)


def test_an_interrupted_run_of_other_settings_is_refused(root: Path, tmp_path: Path) -> None:
    settings = building.settings_of(MUSICNN_SPEC, CONFIG)
    with journal.Journal(tmp_path / "out" / building.JOURNAL, settings):
        pass
    with pytest.raises(FeatureError, match="seed is 0 there, 5 here"):
        run(root, tmp_path / "out", dataclasses.replace(CONFIG, seed=5))


@pytest.mark.parametrize("torn", [b"", b'{"a"', b'{"a": 4}', b"\xff\xfe\n", b'{"a": 4\n{"a": 5}\n'])
def test_the_journal_ends_at_a_torn_line(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "journal"
    with journal.Journal(path, {"settings": 1}) as opened:
        opened.append({"a": 1})
        opened.append({"a": 0.1 + 0.2})
    with path.open("ab") as file:
        file.write(torn)
    with journal.Journal(path, {"settings": 2}) as opened:
        opened.append({"a": 3})
    header, entries = journal.read(path)
    assert header["settings"] == 1
    assert entries == [{"a": 1}, {"a": 0.1 + 0.2}, {"a": 3}]


def test_the_journal_ends_at_a_changed_digit(tmp_path: Path) -> None:
    with journal.Journal(tmp_path / "journal", {}) as opened:
        for number in (11, 12, 13):
            opened.append({"a": number})
    data = (tmp_path / "journal").read_bytes()
    (tmp_path / "journal").write_bytes(data.replace(b'"a": 12', b'"a": 92'))
    assert journal.read(tmp_path / "journal")[1] == [{"a": 11}]


def test_a_journal_of_another_version_is_refused(tmp_path: Path) -> None:
    assert journal.read(tmp_path / "none") == ({}, [])
    (tmp_path / "journal").write_text(json.dumps({"format_version": 9}) + "\n")
    with pytest.raises(FeatureError, match="format version 9"):
        journal.read(tmp_path / "journal")


def test_a_journal_names_files_inside_the_folder_only(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with journal.Journal(out / building.JOURNAL, building.settings_of(MUSICNN_SPEC, CONFIG)) as j:
        j.append({"track": "a", "label": "b", "rows": [{"file": "../x.pt"}], "reason": ""})
    with pytest.raises(FeatureError, match="outside its folder"):
        run(root, out)
