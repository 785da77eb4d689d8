"""The leakage audit measures planted leaks and artist effects; the search finds planted copies."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from subgenre.evaluation.audits import duplicates as dup
from subgenre.evaluation.audits import leakage
from subgenre.evaluation.audits.base import plain
from subgenre.evaluation.audits.probe import bootstrap, grouped_folds, interval
from subgenre.library.track import Track
from subgenre.metrics.vectors import unit
from tests.conftest import need
from tests.evaluation.audit_context import context


def track(id: str, path: Path, *, subgenre: str = "s", artist: str = "", duration_s=40.0) -> Track:
    return Track(id, path, "g", subgenre, artist=artist, duration_s=duration_s)


def library(n_labels: int, n_tracks: int, n_chunks: int, *, artists: int = 0, seed: int = 0):
    """Vectors that depend strongly on artist and track, and weakly on the subgenre."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(n_labels), n_tracks)
    of = np.repeat(np.arange(labels.size), n_chunks)
    x = 0.5 * generator.normal(size=(n_labels, 20))[labels]
    x += generator.normal(size=(labels.size, 20))
    names = [""] * labels.size
    if artists:
        artist = labels * artists + np.tile(np.arange(n_tracks) % artists, n_labels)
        x += 2 * generator.normal(size=(n_labels * artists, 20))[artist]
        names = [f"artist {a}" for a in artist]
    chunks = x[of] + 0.3 * generator.normal(size=(of.size, 20))
    tracks = [
        track(f"{i:032x}", Path(f"/m/{i}.mp3"), subgenre=f"s{labels[i]}", artist=names[i])
        for i in range(labels.size)
    ]
    return chunks, of, labels, tracks


def leakage_of(chunks, of, labels, tracks, **given):
    means = np.zeros((labels.size, 1))
    return leakage.run(
        context(means, labels, chunks=chunks, chunk_track=of, tracks=tracks, **given)
    )


def measured(*arrays, **given):
    result = leakage_of(*arrays, **given)
    return {c.kind: c for c in result.comparisons}, result.notes


def test_random_chunks_score_too_high() -> None:
    rows, _ = measured(*library(4, 15, 3))
    row = rows["chunk"]
    assert row.knn_gap.low > 0.05
    assert row.knn_gap.value == pytest.approx(row.knn_loose.value - row.knn_strict.value)
    assert row.knn_strict.chance == 0.25


def test_the_artist_gap_is_measured_only_where_tags_allow() -> None:
    chunks, of, labels, tracks = library(4, 16, 2, artists=4)
    rows, notes = measured(chunks, of, labels, tracks)
    assert rows["artist"].n_groups == 16
    assert rows["artist"].knn_gap.low > 0.2
    assert "No album gap: no album tag that tracks share." in notes
    bare = [
        track(t.id, t.path, artist=name)
        for t, name in zip(tracks, ["Various Artists", ""] * 32, strict=True)
    ]
    rows, notes = measured(chunks, of, labels, bare)
    assert "artist" not in rows
    assert any("No artist gap" in note for note in notes)


def test_without_an_artist_effect_the_gap_holds_zero() -> None:
    chunks, of, labels, tracks = library(3, 16, 2)
    tagged = [track(t.id, t.path, artist=f"{t.subgenre} {i % 5}") for i, t in enumerate(tracks)]
    gap = measured(chunks, of, labels, tagged)[0]["artist"].knn_gap
    assert gap.low <= 0 <= gap.high


def test_the_interval_of_a_gap_is_not_that_of_a_share() -> None:
    """Two splits that place every track alike differ by nothing, and by chance either way."""
    labels, of = np.repeat([0, 1, 2], 8), np.repeat(np.arange(24), 2)
    chunks = np.eye(3)[labels[of]] + 0.01 * np.random.default_rng(0).normal(size=(48, 3))
    tracks = [track(f"{i:032x}", Path(f"{i}.mp3"), artist=f"{i // 2}") for i in range(24)]
    row = measured(chunks, of, labels, tracks)[0]["artist"]
    gap = row.centroid_gap
    assert (gap.value, gap.low, gap.high) == (0, 0, 0)
    assert (row.centroid_strict.value, row.centroid_strict.high) == (1, 1)
    assert row.centroid_strict.low < 0.9  # of the share itself, few artists prove little
    both = interval(*bootstrap([1, -1, 1, -1, 0, 0, 0, 0, 0, 0]))
    assert both.value == 0
    assert both.low == pytest.approx(-both.high, abs=0.15)
    assert both.high > 0.2


def test_a_subgenre_by_one_artist_is_left_out_and_named() -> None:
    chunks, of, labels, tracks = library(3, 12, 2, artists=3)
    solo = [t if t.subgenre != "s1" else track(t.id, t.path, artist="one") for t in tracks]
    rows, notes = measured(chunks, of, labels, solo, names=["x", "House", "z"])
    assert rows["artist"].n_tracks == 24
    assert "The artist gap leaves out House: only one artist." in notes


def test_a_planted_leak_is_measured_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every recording of a subgenre twice, under another name and in another encoding."""
    monkeypatch.setattr(leakage, "NEIGHBOURS", 1)
    chunks, of, labels, tracks = library(4, 8, 2, seed=3)
    noise = np.random.default_rng(9).normal(size=chunks.shape)
    chunks = np.concatenate([chunks, chunks + 0.01 * noise])
    of, labels = np.concatenate([of, of + 32]), np.concatenate([labels, labels])
    tracks = tracks + [track("c" + t.id[1:], Path(f"/copy/{i}.ogg")) for i, t in enumerate(tracks)]
    means = np.stack([chunks[of == i].mean(axis=0) for i in range(64)])
    found = dup.find(tracks, means)
    assert [(p.a, p.b) for p in found.pairs] == [(i, i + 32) for i in range(32)]
    folds = grouped_folds(labels, np.arange(64), 4, seed=0)
    result = leakage_of(chunks, of, labels, tracks, copies=found, folds=folds)
    rows = {c.kind: c for c in result.comparisons}
    assert rows["recording"].knn_gap.low > 0.05
    assert len(result.straddling) > 10
    pair = result.straddling[0]
    assert any("32.ogg" in n or f"{pair.a}.mp3" in n for n in result.notes)
    json.dumps(plain(result), allow_nan=False)
    safe = grouped_folds(labels, found.recording_of(64), 4, seed=0)
    assert leakage.straddlers(found, safe) == ()


def test_a_subgenre_with_one_track_is_left_out() -> None:
    chunks, of, labels, tracks = library(3, 6, 2)
    keep = of < 13
    rows, notes = measured(chunks[keep], of[keep], labels[:13], tracks[:13])
    assert rows["chunk"].n_tracks == 12
    assert "The chunk gap leaves out c: only one track." in notes


# ---- copies


def music(generator: np.random.Generator, seconds: float) -> np.ndarray:
    """Chords of drawn notes, at 11025 Hz."""
    t = np.arange(int(11025 * 0.4)) / 11025
    bars = []
    for _ in range(int(seconds / 0.4)):
        notes = 220 * 2 ** (generator.integers(0, 30, 3) / 12)
        bars.append(sum(np.sin(2 * np.pi * f * t) for f in notes) * np.exp(-3 * t))
    return np.concatenate(bars) / 4


def naive_bit_errors(a: np.ndarray, b: np.ndarray, shift: int) -> float:
    pairs = [(int(a[i]), int(b[i + shift])) for i in range(a.size) if 0 <= i + shift < b.size]
    return sum((x ^ y).bit_count() for x, y in pairs) / (32 * len(pairs))


def test_bit_errors_at_the_best_offset_equal_a_loop() -> None:
    generator = np.random.default_rng(0)
    whole = generator.integers(0, 2**32, 300, dtype=np.uint32)
    a, b = whole[:250].copy(), whole[17:].copy()
    b[::5] ^= np.uint32(0b1011)
    share, overlap = dup.bit_errors(a, b)
    assert overlap == 233
    assert share == pytest.approx(naive_bit_errors(a, b, -17), abs=1e-12)
    other = generator.integers(0, 2**32, 250, dtype=np.uint32)
    assert dup.bit_errors(a, other) == (1.0, 0)


def test_fingerprints_join_encodings_and_nothing_else(tmp_path: Path) -> None:
    program = shutil.which("fpcalc") or ""
    need(bool(program), "fpcalc (chromaprint) is not installed")
    soundfile = pytest.importorskip("soundfile")
    generator = np.random.default_rng(5)
    tracks = []
    for i in range(4):
        samples = music(generator, 20)
        for ending in ("wav", "ogg") if i < 2 else ("wav",):
            path = tmp_path / f"-{i}.{ending}"
            soundfile.write(path, samples * (0.5 if ending == "ogg" else 1), 11025)
            tracks.append(track(f"{i}{ending}", path))
    tracks.append(track("text", tmp_path / "text.mp3"))
    tracks[-1].path.write_text("no audio")
    soundfile.write(tmp_path / "a.wav", np.zeros(11025 * 20), 11025)
    soundfile.write(tmp_path / "b.wav", np.zeros(11025 * 30), 11025)
    tracks += [track(n, tmp_path / f"{n}.wav") for n in ("a", "b")]  # silence equals silence
    prints = dup.fingerprints(program, tracks)
    assert "text" not in prints
    found = dup.find(tracks, np.eye(9), prints)
    assert found.method == "fingerprint"
    assert [(p.a, p.b) for p in found.pairs] == [(0, 1), (2, 3)]
    assert "1 tracks could not be fingerprinted" in found.text
    assert all(p.confidence > 0.7 for p in found.pairs)


def test_features_find_copies_and_no_tracks_that_are_only_similar() -> None:
    generator = np.random.default_rng(1)
    x = generator.normal(size=(60, 40))
    x[1] = x[0] + 0.01 * generator.normal(size=40)
    x[2] = x[0] + 0.01 * generator.normal(size=40)  # three copies
    x[3] = x[4] + 0.8 * generator.normal(size=40)  # akin, not the same
    x[5] = x[6] + 0.01 * generator.normal(size=40)  # the same sound, another length
    tracks = [track(str(i), Path(f"{i}"), duration_s=30.0 if i == 5 else 40.0) for i in range(60)]
    found = dup.find(tracks, x)
    assert found.method == "features"
    assert [(p.a, p.b) for p in found.pairs] == [(0, 1), (0, 2), (1, 2)]
    assert "fpcalc would find more" in found.text
    assert not dup.find(tracks[10:], x[10:]).pairs


def test_equal_packets_are_copies() -> None:
    tracks = [track(i, Path(f"{n}")) for n, i in enumerate("abcab")]
    found = dup.find(tracks, np.eye(5))
    assert [(p.a, p.b, p.method) for p in found.pairs] == [(0, 3, "packets"), (1, 4, "packets")]
    np.testing.assert_array_equal(found.recording_of(5), [0, 1, 2, 0, 1])


def test_copies_by_features_are_those_of_all_pairs_in_little_memory():
    rng = np.random.default_rng(0)
    vectors, duration = rng.normal(size=(3000, 6)), rng.uniform(100, 110, 3000)
    vectors[2000:2200] = vectors[:200] + rng.normal(0, 1e-4, (200, 6))
    duration[2000:2100] = duration[:100] * rng.uniform(0.985, 1.015, 100)
    tracks = [Track(str(i), Path(f"{i}.mp3"), duration_s=s) for i, s in enumerate(duration)]
    tracemalloc.start()
    found = {(pair.a, pair.b) for pair in dup.find(tracks, vectors).pairs}
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3000**2 * 8 / 2
    near = unit(StandardScaler().fit_transform(vectors))
    distance = 1 - near @ near.T + 9 * np.eye(3000)
    limit = dup.NEAR * np.median(np.sort(distance[rng.permutation(3000)[:1500]], axis=1)[:, 2])
    longer = np.maximum.outer(duration, duration)
    alike = np.abs(np.subtract.outer(duration, duration)) <= dup.SAME_DURATION * longer
    sure = np.triu(alike & (distance <= 0.9 * limit), 1)
    possible = np.triu(alike & (distance <= 1.1 * limit), 1)
    assert len(found) > 60
    assert set(map(tuple, np.argwhere(sure).tolist())) <= found
    assert found <= set(map(tuple, np.argwhere(possible).tolist()))
