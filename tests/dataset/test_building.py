"""A library to a feature folder: what is in it, what is skipped, what it will take."""

from __future__ import annotations

import csv
import dataclasses
import math
import shutil
import wave
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from subgenre.audio import measures, reading
from subgenre.audio.features import AST_SPEC, MUSICNN_SPEC, log_mel
from subgenre.config import PreprocessConfig
from subgenre.dataset import building, chunking
from subgenre.dataset import folder as store
from subgenre.dataset.building import estimate, known_tracks, preprocess
from subgenre.dataset.folder import FeatureFolder
from subgenre.errors import FeatureError
from subgenre.evaluation.audits.mislabels import broken
from subgenre.evaluation.tracks import EvaluationTracks
from subgenre.library import scan as library
from subgenre.library.scan import Library
from tests.small_library import CONFIG, RATE, library_of, run, track_of

T = 251


@pytest.mark.usefixtures("inline")
def test_a_library_becomes_a_folder(root: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    summary = run(root, tmp_path / "out", on_progress=lambda *at: seen.append(at))
    assert seen == [(n, 6) for n in range(7)]
    assert (summary.n_tracks, summary.n_done, summary.n_reused) == (6, 6, 0)
    folder = FeatureFolder.open(tmp_path / "out")
    assert folder.labels == ("dark", "deep")
    assert folder.genres == ("techno", "house")
    names = sorted(t.path.name for t in folder.tracks)
    assert names == ["a.wav", "b.wav", "c.wav", "d, e.wav", "f.wav"]
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
    values = np.concatenate([c[:f].numpy().ravel() for c, f in zip(features, frames, strict=True)])
    found = folder.statistics(range(n))
    assert found.count == values.size
    assert found.mean == pytest.approx(values.astype(np.float64).mean(), rel=1e-5)
    assert found.std == pytest.approx(values.astype(np.float64).std(), rel=1e-5)
    assert set(measures.COLUMNS) <= set(folder.chunks.column_names)
    peaks = folder.chunks["peak"].to_numpy()
    assert ((peaks > 0.2) & (peaks < 0.6)).all()


def test_a_scanned_library_becomes_a_folder(root: Path, tmp_path: Path, inline: list[str]) -> None:
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
        expected = log_mel(torch.from_numpy(window)[None], MUSICNN_SPEC)[0]
        values = stored["input_values"][: row["n_frames"]].float()
        torch.testing.assert_close(values, expected, rtol=0, atol=4e-3)


@pytest.mark.usefixtures("inline")
def test_a_file_whose_channels_cancel_is_flagged(root: Path, tmp_path: Path) -> None:
    left = (8000 * np.sin(np.arange(10 * RATE) * 0.2)).astype("<i2")
    with wave.open(str(root / "house/deep/c.wav"), "wb") as file:
        file.setparams((2, 2, RATE, 0, "NONE", ""))
        file.writeframes(np.stack([left, -left], axis=1).tobytes())
    run(root, tmp_path / "out")
    tracks = EvaluationTracks(FeatureFolder.open(tmp_path / "out"))
    (found,) = broken(tracks.folder.tracks, tracks.columns)
    assert (Path(found.path).name, found.kind, found.confidence) == ("c.wav", "out of phase", 1.0)


@pytest.mark.usefixtures("inline")
def test_skipped_files_are_listed(root: Path, tmp_path: Path) -> None:
    summary = run(root, tmp_path / "out")
    with (tmp_path / "out" / "skipped.csv").open(newline="", encoding="utf-8") as file:
        listed = list(csv.DictReader(file))
    assert listed == [
        {"path": "techno/dark/empty.mp3", "reason": "is empty"},
        {"path": "techno/dark/short.wav", "reason": "is 1.0 s long; at least 3 s are needed"},
    ]
    assert [s.reason for s in summary.skipped] == [entry["reason"] for entry in listed]
    (root / "techno/dark/short.wav").unlink()
    run(root, tmp_path / "out", library=dataclasses.replace(library_of(root), skipped=()))
    assert (tmp_path / "out" / "skipped.csv").read_text() == "path,reason\n"


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
    assert "only 1.0 s of 4.0 s" in outcome.reason
    assert not list(tmp_path.rglob("short-*.pt"))


def test_one_recording_counts_once_a_subgenre(root, tmp_path, inline) -> None:
    shutil.copy(root / "house/deep/c.wav", root / "house/deep/z.wav")
    shutil.copy(root / "house/deep/c.wav", root / "techno/dark/z.wav")
    summary = run(root, tmp_path / "out")
    (reason,) = [s.reason for s in summary.skipped if s.path == root / "house/deep/z.wav"]
    assert reason == "is the same recording as house/deep/c.wav"
    folder = FeatureFolder.open(tmp_path / "out")
    twice = next(t.id for t in folder.tracks if t.path.name == "z.wav")
    labels = [folder.labels[n] for n in folder.label_of[folder.rows([twice])]]
    assert labels == ["dark", "dark", "deep", "deep"]


@pytest.mark.usefixtures("inline")
def test_no_usable_track_is_an_error(root: Path, tmp_path: Path) -> None:
    library = library_of(root)
    short = tuple(t for t in library.tracks if t.path.name == "short.wav")
    library = dataclasses.replace(library, tracks=short, trash=())
    with pytest.raises(FeatureError, match="no track is usable"):
        run(root, tmp_path / "out", library=library)
    assert "at least 3 s" in (tmp_path / "out" / "skipped.csv").read_text()


def test_a_full_disk_is_refused_before_the_work(root, tmp_path, inline, monkeypatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(building.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(FeatureError, match="free some space"):
        run(root, tmp_path / "out")
    assert inline == []


@pytest.mark.usefixtures("inline")
def test_the_estimate_is_of_what_is_left(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    library = library_of(root)
    work = estimate(library, MUSICNN_SPEC, CONFIG, 2, out=out)
    assert (work.n_tracks, work.n_chunks) == (6, 11)
    assert work.seconds > 0
    run(root, out)
    written = sum(path.stat().st_size for path in out.rglob("*.pt"))
    assert work.bytes == pytest.approx(written, rel=0.05)
    left = estimate(library, MUSICNN_SPEC, CONFIG, 2, out=out)
    assert (left.n_tracks, left.n_chunks, left.bytes, left.seconds) == (0, 0, 0, 0.0)


@pytest.mark.corpus
@pytest.mark.usefixtures("inline")
def test_real_recordings(corpus: Path, tmp_path: Path) -> None:
    paths = sorted(p for p in corpus.glob("*/*/*") if p.is_file())[::40]
    tracks = tuple(track_of(path, corpus) for path in paths)
    labels = frozenset((track.genre, track.subgenre) for track in tracks)
    library = Library(corpus, tracks, trash=(), read=tracks, labels=labels, skipped=(), notes=())
    config = PreprocessConfig(max_chunks=1)
    preprocess(library, tmp_path, AST_SPEC, config, workers=1, timeout_s=60)
    folder = FeatureFolder.open(tmp_path)
    assert len(folder.tracks) == len(paths)
    assert tuple(folder.load(range(len(paths))).shape) == (len(paths), 998, 128)
    assert folder.n_frames(range(len(paths))).tolist() == [998] * len(paths)
    written = pq.read_table(tmp_path / "chunks.parquet")
    assert written.num_rows == len(paths)
    assert store.read_dataset(tmp_path)["counts"]["chunks"] == len(paths)


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize(
    ("spoil", "value"),
    [("log_mel", math.nan), ("log_mel", math.inf), ("log_mel", 6e4), ("measure", math.nan)],
)
def test_a_file_with_values_of_no_music_is_listed_and_counts_nowhere(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: str, value: float
) -> None:
    """The values of one file go wrong after its samples were found to be right."""
    bad = root / "house/deep/c.wav"
    everyone = library_of(root)
    without = [track for track in everyone.tracks if track.path != bad]
    others = dataclasses.replace(everyone, tracks=tuple(without))
    run(root, tmp_path / "expected", library=others)
    real_read, real_mel, real_measure = reading.read_window, chunking.log_mel, measures.measure
    now: list[Path] = []

    def read(path, *window, **options):
        now[:] = [path]
        return real_read(path, *window, **options)

    def mel(samples, spec):
        values = real_mel(samples, spec)
        if now == [bad] and spoil == "log_mel":
            values[0, 3, 7] = value
        return values

    def measure(samples, rate):
        spoilt = {"tempo_bpm": value} if now == [bad] and spoil == "measure" else {}
        return real_measure(samples, rate) | spoilt

    monkeypatch.setattr(reading, "read_window", read)
    monkeypatch.setattr(chunking, "log_mel", mel)
    monkeypatch.setattr(measures, "measure", measure)
    summary = run(root, tmp_path / "out")
    assert bad in [skipped.path for skipped in summary.skipped]
    for table in (store.CHUNKS, store.TRACKS):
        assert pq.read_table(tmp_path / "out" / table) == pq.read_table(
            tmp_path / "expected" / table
        )
