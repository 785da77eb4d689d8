"""A library to a feature folder: content, resuming, reuse, removal, failures; and its journal."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from subgenre import audio, chunking, journal, library, measures, parallel, planning, store
from subgenre.config import PreprocessConfig
from subgenre.errors import FeatureError, SubgenreError
from subgenre.features import MUSICNN_SPEC, log_mel
from subgenre.library import Library, Skipped, Track
from subgenre.preprocess import Summary, estimate, known_tracks, preprocess
from subgenre.store import FeatureFolder

CONFIG = PreprocessConfig(chunk_s=4.0, max_chunks=2)
RATE = 16_000
T = 251


def write_wav(path: Path, length_s: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    t = np.arange(round(length_s * RATE)) / RATE
    samples = 0.4 * np.sin(2 * np.pi * (200 + 90 * seed) * t) + rng.normal(0, 0.05, len(t))
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes((samples * 20_000).astype("<i2").tobytes())


def track_of(path: Path, root: Path, **more: Any) -> Track:
    found = audio.probe(path)
    parts = path.relative_to(root).parts
    trash = parts[0] == "trash"
    values: dict[str, Any] = {
        "genre": "" if trash else parts[0],
        "subgenre": "" if trash else parts[1],
        "trash": trash,
        "size": path.stat().st_size,
        "mtime_ns": path.stat().st_mtime_ns,
        **dataclasses.asdict(found),
        **more,
    }
    return Track(path=path, **values)


def library_of(root: Path) -> Library:
    everyone = [track_of(path, root) for path in sorted(root.rglob("*.wav"))]
    return Library(
        root=root,
        tracks=tuple(t for t in everyone if not t.trash),
        trash=tuple(t for t in everyone if t.trash),
        skipped=(Skipped(root / "techno" / "dark" / "empty.mp3", "is empty"),),
        notes=(),
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two subgenres of three tracks, one of trash; one of 3.5 s (padded), one of 1 s (skipped)."""
    lengths = {
        "techno/dark/a.wav": 10.0,
        "techno/dark/b.wav": 3.5,
        "techno/dark/short.wav": 1.0,
        "house/deep/c.wav": 9.0,
        "house/deep/d, e.wav": 12.0,
        "house/deep/f.wav": 8.5,
        "trash/x/g.wav": 9.5,
    }
    for seed, (name, length_s) in enumerate(lengths.items()):
        write_wav(tmp_path / "WAV" / name, length_s, seed)
    return tmp_path / "WAV"


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Workers replaced by a loop in this process; returns the names of the files decoded."""
    decoded: list[str] = []

    def map_files(fn: Callable[[Any], Any], items: Any, **_: object) -> Iterator[tuple[int, Any]]:
        for position, item in enumerate(items):
            decoded.append(Path(getattr(item, "path", item)).name)
            try:
                result = fn(item)
            except SubgenreError as problem:
                result = parallel.Failure(str(problem))
            yield position, result

    monkeypatch.setattr(parallel, "map_files", map_files)
    return decoded


def run(root: Path, out: Path, config: PreprocessConfig = CONFIG, **options: Any) -> Summary:
    given = {"workers": 1, "timeout_s": 60.0, **options}
    library = given.pop("library", None) or library_of(root)
    return preprocess(library, out, MUSICNN_SPEC, config, **given)


def same_folders(one: Path, other: Path) -> None:
    """Every table and every chunk equal, and nothing else there."""
    listings = [
        sorted(p.relative_to(f).as_posix() for p in f.rglob("*") if p.is_file())
        for f in (one, other)
    ]
    assert listings[0] == listings[1]
    for name in listings[0]:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


@pytest.mark.usefixtures("inline")
def test_a_library_becomes_a_folder(root: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    summary = run(root, tmp_path / "out", on_progress=lambda *at: seen.append(at))
    assert seen == [(n, 6) for n in range(7)]
    assert (summary.n_tracks, summary.n_done, summary.n_reused) == (6, 6, 0)
    folder = FeatureFolder.open(tmp_path / "out")
    assert folder.labels == ("dark", "deep")
    assert folder.genres == ("techno", "house")
    assert sorted(t.path.name for t in folder.tracks) == [
        *("a.wav", "b.wav", "c.wav", "d, e.wav", "f.wav")
    ]
    assert [t.path for t in folder.trash] == [root / "trash/x/g.wav"]
    n = folder.chunks.num_rows
    assert n == summary.n_chunks == 11
    features = folder.load(range(n))
    assert tuple(features.shape) == (n, T, 96)
    frames = folder.n_frames(range(n))
    by_name = {t.id: t.path.name for t in folder.tracks}
    short = [
        i for i, row in enumerate(folder.chunks.to_pylist()) if by_name.get(row["track"]) == "b.wav"
    ]
    assert frames[short].tolist() == [MUSICNN_SPEC.frames(round(3.5 * RATE))]
    assert not features[short[0], frames[short[0]] :].any()
    assert (np.delete(frames, short) == T).all()
    heard = np.concatenate([c[:f].numpy().ravel() for c, f in zip(features, frames, strict=True)])
    found = folder.statistics(range(n))
    assert found.count == heard.size
    assert found.mean == pytest.approx(heard.astype(np.float64).mean(), rel=1e-5)
    assert found.std == pytest.approx(heard.astype(np.float64).std(), rel=1e-5)
    assert set(measures.COLUMNS) <= set(folder.chunks.column_names)
    peaks = folder.chunks["peak"].to_numpy()
    assert ((peaks > 0.2) & (peaks < 0.6)).all()


def test_a_scanned_library_serves(root: Path, tmp_path: Path, inline: list[str]) -> None:
    (root / "house/deep/broken.mp3").write_text("no music")
    found = library.scan(root)
    inline.clear()
    summary = run(root, tmp_path / "out", library=found)
    assert sorted(inline) == ["a.wav", "b.wav", "c.wav", "d, e.wav", "f.wav", "g.wav"]
    assert {s.path.name for s in summary.skipped} == {"broken.mp3", "short.wav"}
    folder = FeatureFolder.open(tmp_path / "out")
    key = {t.id: t for t in (*found.tracks, *found.trash)}
    for track in (*folder.tracks, *folder.trash):
        assert track == key[track.id]
    moved = root.rename(tmp_path / "moved")
    inline.clear()
    again = library.scan(moved, known=known_tracks(tmp_path / "out", moved))
    assert inline == ["broken.mp3", "short.wav"], "only what has no chunks is read again"
    assert run(moved, tmp_path / "out", library=again).n_done == 0
    assert known_tracks(tmp_path / "nowhere", moved) == {}


@pytest.mark.usefixtures("inline")
def test_a_chunk_is_the_log_mel_of_its_window(root: Path, tmp_path: Path) -> None:
    run(root, tmp_path / "out")
    folder = FeatureFolder.open(tmp_path / "out")
    for row in folder.chunks.to_pylist():
        stored = torch.load(tmp_path / "out" / row["file"], weights_only=True)
        assert (stored["start_s"], stored["track"]) == (row["start_s"], row["track"])
        path = next(t.path for t in (*folder.tracks, *folder.trash) if t.id == row["track"])
        with wave.open(str(path), "rb") as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32_768
        first = round(row["start_s"] * RATE)
        window = samples[first : first + 4 * RATE].astype(np.float32)
        wanted = log_mel(torch.from_numpy(window)[None], MUSICNN_SPEC)[0]
        heard = stored["input_values"][: row["n_frames"]].float()
        torch.testing.assert_close(heard, wanted, rtol=0, atol=4e-3)


@pytest.mark.usefixtures("inline")
def test_skipped_files_are_listed(root: Path, tmp_path: Path) -> None:
    summary = run(root, tmp_path / "out")
    with (tmp_path / "out" / "skipped.csv").open(newline="", encoding="utf-8") as file:
        listed = list(csv.DictReader(file))
    assert listed == [
        {"path": "techno/dark/empty.mp3", "reason": "is empty"},
        {
            "path": "techno/dark/short.wav",
            "reason": "is 1.0 s long; at least 3 s are needed",
        },
    ]
    assert [s.reason for s in summary.skipped] == [entry["reason"] for entry in listed]


@pytest.mark.usefixtures("inline")
def test_the_list_of_skipped_files_may_be_empty(root: Path, tmp_path: Path) -> None:
    (root / "techno/dark/short.wav").unlink()
    run(root, tmp_path / "out", library=dataclasses.replace(library_of(root), skipped=()))
    assert (tmp_path / "out" / "skipped.csv").read_text() == "path,reason\n"


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
    told = r"chunk_s is 4\.0 there, 3\.0 here; chunk_strategy is 'random' there.*--overwrite"
    with pytest.raises(FeatureError, match=told):
        run(root, out, other)
    with pytest.raises(FeatureError, match=told):
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


def test_a_worker_that_dies_costs_one_track(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    (root / "house/deep/f.wav").write_bytes(data[:2000])  # 8.5 s when it was scanned
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


@pytest.mark.usefixtures("inline")
def test_a_window_that_ends_early_is_left_out(root: Path, tmp_path: Path) -> None:
    path = root / "techno/dark/a.wav"  # 10 s
    config = dataclasses.replace(CONFIG, chunk_strategy="spaced")
    job = chunking.Job("a" * 32, path, "dark", 12.0, tmp_path, MUSICNN_SPEC, config)
    outcome = chunking.make_chunks(job)
    assert [row["start_s"] for row in outcome.rows] == [0.0]
    config = dataclasses.replace(CONFIG, chunk_s=12.0)
    alone = chunking.make_chunks(dataclasses.replace(job, config=config))
    assert [row["n_frames"] for row in alone.rows] == [1 + 10 * RATE // 256]
    path = root / "techno/dark/short.wav"  # 1 s
    outcome = chunking.make_chunks(dataclasses.replace(job, path=path, duration_s=4.0))
    assert outcome.rows == ()
    assert "only 1.0 s can be decoded of the 4.0 s" in outcome.reason
    assert not list(tmp_path.rglob("short-*.pt"))


def test_one_recording_counts_once_a_subgenre(
    root: Path, tmp_path: Path, inline: list[str]
) -> None:
    shutil.copy(root / "house/deep/c.wav", root / "house/deep/z.wav")
    shutil.copy(root / "house/deep/c.wav", root / "techno/dark/z.wav")
    summary = run(root, tmp_path / "out")
    assert {s.path.relative_to(root).as_posix(): s.reason for s in summary.skipped}[
        "house/deep/z.wav"
    ] == "is the same recording as house/deep/c.wav"
    folder = FeatureFolder.open(tmp_path / "out")
    twice = next(t.id for t in folder.tracks if t.path.name == "z.wav")
    assert [folder.labels[n] for n in folder.label_of[folder.rows([twice])]] == [
        *("dark", "dark", "deep", "deep")
    ]


@pytest.mark.usefixtures("inline")
def test_no_usable_track_is_an_error(root: Path, tmp_path: Path) -> None:
    library = library_of(root)
    short = tuple(t for t in library.tracks if t.path.name == "short.wav")
    library = dataclasses.replace(library, tracks=short, trash=())
    with pytest.raises(FeatureError, match="not one track can be used"):
        run(root, tmp_path / "out", library=library)
    assert "at least 3 s" in (tmp_path / "out" / "skipped.csv").read_text()


def test_a_full_disk_is_told_before_the_work(
    root: Path, tmp_path: Path, inline: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(planning.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(FeatureError, match="make room"):
        run(root, tmp_path / "out")
    assert inline == []


@pytest.mark.usefixtures("inline")
def test_the_estimate_is_of_what_is_left(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    library = library_of(root)
    told = estimate(library, MUSICNN_SPEC, CONFIG, 2, out=out)
    assert (told.n_tracks, told.n_chunks) == (6, 11)
    assert told.seconds > 0
    run(root, out)
    written = sum(path.stat().st_size for path in out.rglob("*.pt"))
    assert told.bytes == pytest.approx(written, rel=0.05)
    left = estimate(library, MUSICNN_SPEC, CONFIG, 2, out=out)
    assert (left.n_tracks, left.n_chunks, left.bytes, left.seconds) == (0, 0, 0, 0.0)


KILLED = """
import os, pickle, signal, sys
from pathlib import Path
from subgenre.features import MUSICNN_SPEC
from subgenre.preprocess import preprocess

def kill(done, total):
    if done == 3:
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    library, out, config = pickle.loads(Path(sys.argv[1]).read_bytes())
    preprocess(library, out, MUSICNN_SPEC, config, workers=4, timeout_s=60, on_progress=kill)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_four_workers_killed_and_resumed_give_what_one_gives(
    root: Path, tmp_path: Path, inline: list[str]
) -> None:
    import pickle

    whole, out = tmp_path / "whole", tmp_path / "killed"
    assert run(root, whole).n_done == 6
    inline.clear()
    script, handed = tmp_path / "kill.py", tmp_path / "handed"
    script.write_text(KILLED)
    handed.write_bytes(pickle.dumps((library_of(root), out, CONFIG)))
    killed = subprocess.run([sys.executable, script, handed], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (out / "dataset.json").exists()
    lines = (out / planning.JOURNAL).read_bytes().splitlines()
    assert len(lines) == 4  # header and three tracks
    with (out / planning.JOURNAL).open("ab") as file:
        file.write(lines[-1][:50])  # a line torn by the kill
    (out / "dark").mkdir(exist_ok=True)
    (out / "dark" / ".tmp-abcdefgh.pt").write_bytes(b"half a chunk")
    summary = run(root, out)
    assert (summary.n_reused, summary.n_done) == (3, 3)
    assert len(inline) == 3
    same_folders(out, whole)


def test_an_interrupted_run_of_other_settings_is_refused(root: Path, tmp_path: Path) -> None:
    settings = planning.settings_of(MUSICNN_SPEC, CONFIG)
    with journal.Journal(tmp_path / "out" / planning.JOURNAL, settings):
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


def test_a_journal_of_another_version_is_refused(tmp_path: Path) -> None:
    assert journal.read(tmp_path / "none") == ({}, [])
    (tmp_path / "journal").write_text(json.dumps({"format_version": 9}) + "\n")
    with pytest.raises(FeatureError, match="format version 9"):
        journal.read(tmp_path / "journal")


def test_a_journal_names_files_inside_the_folder_only(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with journal.Journal(out / planning.JOURNAL, planning.settings_of(MUSICNN_SPEC, CONFIG)) as j:
        j.append({"track": "a", "label": "b", "rows": [{"file": "../x.pt"}], "reason": ""})
    with pytest.raises(FeatureError, match="outside its folder"):
        run(root, out)


@pytest.mark.corpus
@pytest.mark.usefixtures("inline")
def test_real_recordings(corpus: Path, tmp_path: Path) -> None:
    from subgenre.features import AST_SPEC

    paths = sorted(p for p in corpus.glob("*/*/*") if p.is_file())[::40]
    tracks = tuple(track_of(path, corpus) for path in paths)
    library = Library(root=corpus, tracks=tracks, trash=(), skipped=(), notes=())
    config = PreprocessConfig(max_chunks=1)
    preprocess(library, tmp_path, AST_SPEC, config, workers=1, timeout_s=60)
    folder = FeatureFolder.open(tmp_path)
    assert len(folder.tracks) == len(paths)
    assert tuple(folder.load(range(len(paths))).shape) == (len(paths), 998, 128)
    assert folder.n_frames(range(len(paths))).tolist() == [998] * len(paths)
    written = pq.read_table(tmp_path / "chunks.parquet")
    assert written.num_rows == len(paths)
    assert store.read_dataset(tmp_path)["counts"]["chunks"] == len(paths)
