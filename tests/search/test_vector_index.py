"""The index: exact against a naive loop, safe against a kill, clear about the wrong model."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from subgenre.errors import ConfigError, IndexStoreError, PlaylistError
from subgenre.library.track import Track
from subgenre.search import storage
from subgenre.search.collection import Collection
from subgenre.search.playlists import similar
from subgenre.search.ranking import Limits
from subgenre.search.track_rows import Filter
from subgenre.search.vector_index import Index, Plan
from subgenre.search.versions import recording_key
from tests.search.test_similarity import unit_vectors


def Song(track_id, path, genre="Techno", duration_s=200.0, **values):  # noqa: N802 - a track
    return Track(track_id, path, genre, duration_s=duration_s, **values)


def songs(count, first=0, **values):
    return [
        Song(f"id{i:06d}", Path(f"/music/f{i % 3}/song number {i}.mp3"), **values)
        for i in range(first, first + count)
    ]


@pytest.fixture
def index(tmp_path):
    return Index.create(tmp_path / "index", dim=8, fingerprint="model-a")


# collection and search --------------------------------------------------------------------------


def library():
    return [
        Song(
            f"id{i}",
            Path(f"/music/{'ab'[i % 2]}/deep/{i}.mp3"),
            genre=["Techno", "House"][i % 2],
            subgenre=["Dark Techno", "Deep House", "Acid"][i % 3],
            artist=f"Artist {i % 7}",
            title=f"Title {i}",
            bpm=0.0 if i % 5 == 0 else 100.0 + i,
            duration_s=100.0 + i,
            tempo_bpm=(None, (100.0 + i) / 2, 170.0)[i % 3],
            key=(None, "Am", "Em", "C", "F#")[i % 5],
        )
        for i in range(60)
    ]


@pytest.mark.parametrize(
    ("chosen", "passes"),
    [
        (Filter(genre=("techno",)), lambda s: s.genre == "Techno"),
        (Filter(subgenre=("Acid", "deep house")), lambda s: s.subgenre != "Dark Techno"),
        (Filter(artist=("artist 3",)), lambda s: s.artist == "Artist 3"),
        (Filter(folder=("/music/a",)), lambda s: s.path.is_relative_to("/music/a")),
        (Filter(folder=("/mus",)), lambda s: False),
        (Filter(duration_s=(110, 120)), lambda s: 110 <= s.duration_s <= 120),
        (Filter(bpm=(0, 130)), lambda s: s.tempo is not None and s.tempo <= 130),
        (Filter(key=("8A", "E minor")), lambda s: s.key in ("Am", "Em")),
        (Filter(in_key=("Am",)), lambda s: s.key in ("Am", "Em", "C")),
        (Filter(key=("C",), in_key=("8A",)), lambda s: s.key == "C"),
        (Filter(exclude=("id3", "id4", "nobody")), lambda s: s.id not in ("id3", "id4")),
        (
            Filter(genre=("House",), bpm=(120, 150)),
            lambda s: s.genre == "House" and 120 <= (s.tempo or 0) <= 150,
        ),
    ],
)
def test_filters(chosen, passes):
    made = library()
    tracks = Collection.of(made, unit_vectors(60, 8))
    assert tracks.allowed(chosen).tolist() == [passes(s) for s in made]
    found = similar(tracks, [unit_vectors(1, 8, 3)[0]], Limits(k=100), chosen)
    assert {h.track.id for h in found} == {s.id for s in made if passes(s)}


def test_search_by_cosine_equals_a_naive_loop():
    x, q = unit_vectors(60, 8), unit_vectors(1, 8, 3)[0]
    found = similar(Collection.of(library(), x), [q * 7], Limits(k=12), mutual=False)
    assert [h.row for h in found] == np.argsort(-(x @ q))[:12].tolist()
    assert [h.cosine for h in found] == pytest.approx(np.sort(x @ q)[::-1][:12].tolist(), abs=1e-6)


def test_limits_on_artists_and_minutes():
    tracks = Collection.of(library(), unit_vectors(60, 8))
    q = unit_vectors(1, 8, 3)[0]
    one = [h.track.artist for h in similar(tracks, [q], Limits(k=50, per_artist=1))]
    assert sorted(one) == [f"Artist {i}" for i in range(7)]
    timed = similar(tracks, [q], Limits(k=None, minutes=20))
    seconds = [h.track.duration_s for h in timed]
    assert sum(seconds) >= 1200 > sum(seconds[:-1])


def test_a_tag_with_several_artists_counts_for_each():
    tags = ["Ann", "Ann; Bob", "Bob feat. Cid", "Anna", "Various Artists", "VA"]
    made = [Song(str(i), Path(f"/{i}.mp3"), artist=tag) for i, tag in enumerate(tags)]
    tracks = Collection.of(made, unit_vectors(6, 8))
    for name, rows in {"ann": [0, 1], "Bob": [1, 2], "cid": [2], "Ann; Bob": [1]}.items():
        assert np.flatnonzero(tracks.allowed(Filter(artist=(name,)))).tolist() == rows, name
    found = similar(tracks, [unit_vectors(1, 8, 3)[0]], Limits(k=6, per_artist=1))
    kept = [h.row for h in found]
    assert {3, 4, 5} < set(kept)
    assert not {0, 1} <= set(kept)
    assert not {1, 2} <= set(kept)


def test_versions_are_collapsed_and_the_seed_left_out():
    made = [
        *songs(3),
        Song("a", Path("/a.mp3"), artist="X", title="Run"),
        Song("b", Path("/b.mp3"), artist="x", title="Run (Extended Mix)"),
        Song("c", Path("/c.mp3"), artist="X", title="Run - 2011 Remastered"),
        Song("d", Path("/d.mp3"), artist="X", title="Run (Somebody Remix)"),
        Song("e", Path("/e.mp3"), artist="Y", title="Run"),
        Song("f", Path("/copy.mp3"), duration_s=77.2),
        Song("g", Path("/other.mp3"), duration_s=77.0),
    ]
    x = unit_vectors(10, 8)
    x[9] = x[8]
    tracks = Collection.of(made, x)

    def ids(seed):
        return {h.track.id for h in similar(tracks, [seed], Limits(k=10))}

    rest = {"id000000", "id000001", "id000002", "d", "e"}
    assert ids("a") - {"f", "g"} == rest
    assert len(ids("a") & {"f", "g"}) == 1
    everything = similar(tracks, [x[3]], Limits(k=10, versions=True))
    assert len(everything) == 10


@pytest.mark.parametrize(
    ("title", "same"),
    [
        ("Run (Original Mix)", True),
        ("run [2011 Remaster]", True),
        ("Run feat. Somebody", True),
        ("Run (Radio Edit) [feat. Z]", True),
        ("Run (Dub Mix by Z)", False),
        ("Run (Live)", False),
        ("Running", False),
    ],
)
def test_recording_key(title, same):
    key = recording_key("X", "Run", Path("x"))
    assert (recording_key("X", title, Path("x")) == key) == same


def test_names_of_tracks_and_labels():
    tracks = Collection.of(library(), unit_vectors(60, 8))
    bare = Collection.of(songs(3), unit_vectors(3, 8))
    assert tracks.row("id7") == tracks.row("/music/b/deep/7.mp3") == tracks.row("title 7") == 7
    assert tracks.label("techno/acid") == ("Techno", "Acid")
    for find, message in (
        (lambda: tracks.row("Titel 77"), "did you mean 'Artist 0 - Title 7'"),
        (lambda: tracks.label("acid"), r"several genres.*House/Acid or Techno/Acid"),
        (lambda: tracks.allowed(Filter(subgenre=("Drak Techno",))), "mean 'Dark Techno'"),
        (lambda: tracks.allowed(Filter(artist=("Artst 3",))), "mean 'Artist 3'"),
        (lambda: bare.allowed(Filter(bpm=(90, 99))), "known tempo; measure it: subgenre index"),
        (lambda: bare.allowed(Filter(in_key=("8A",))), "known key; measure it: subgenre index"),
    ):
        with pytest.raises(IndexStoreError, match=message):
            find()


@pytest.mark.parametrize("bad", [np.zeros(8), np.full(8, np.nan), np.ones(9), np.ones((1, 8))])
def test_bad_queries(bad):
    tracks = Collection.of(library(), unit_vectors(60, 8))
    with pytest.raises(PlaylistError, match=r"zero or not finite|index have 8 values"):
        similar(tracks, [bad], Limits())


# the index on disk ------------------------------------------------------------------------------


def contents(index):
    c = index.collection
    ids = [t.id for t in c.tracks(c.live)]
    return dict(zip(ids, map(tuple, c.vectors(c.live).tolist()), strict=True))


def test_upsert_delete_and_reopen_equal_a_dict(index):
    generator = np.random.default_rng(0)
    expected, files = {}, set()
    for step in range(25):
        made = [songs(1, int(i))[0] for i in generator.choice(60, 5, replace=False)]
        x = unit_vectors(5, 8, seed=step)
        index.upsert(made, x * generator.uniform(0.5, 3))
        expected |= {s.id: tuple(v) for s, v in zip(made, x.tolist(), strict=True)}
        lost = [f"id{i:06d}" for i in generator.choice(60, 4, replace=False)]
        assert index.delete(lost) == len({i for i in lost if i in expected})
        expected = {i: v for i, v in expected.items() if i not in lost}
        files |= {p.name for p in index.path.glob("vectors-*")}
        for there in (index, Index.open(index.path, dim=8, fingerprint="model-a")):
            found = contents(there)
            assert there.count == len(expected)
            assert found.keys() == expected.keys()
            for i, vector in expected.items():
                np.testing.assert_allclose(found[i], vector, atol=1e-6)
    assert len(files) > 1  # it was copied without its holes
    assert len(list(index.path.glob("vectors-*"))) == 1
    size = next(index.path.glob("vectors-*")).stat().st_size
    assert size <= 2 * len(expected) * 8 * 4


def test_search_is_the_same_with_holes_and_with_the_cached_proximity(index):
    x = unit_vectors(200, 8)
    index.upsert(songs(150), x[:150])
    index.keep_proximity()
    index.upsert(songs(50, 150), x[150:])
    index.delete(["id000003"])
    index.keep_proximity()
    alive = np.delete(np.arange(200), 3)
    fresh = Collection.of([songs(1, int(i))[0] for i in alive], x[alive])
    for mutual in (True, False):
        expected = [h.track.id for h in similar(fresh, [x[7]], Limits(k=20), mutual=mutual)]
        for there in (index, Index.open(index.path)):
            hits = similar(there.collection, [x[7]], Limits(k=20), mutual=mutual)
            assert [h.track.id for h in hits] == expected


@pytest.mark.parametrize("damage", [lambda b: b[:1500], lambda b: b[:900] + b"x" + b[901:]])
def test_a_damaged_cache_of_proximity_is_made_again(index, damage):
    index.upsert(songs(40), unit_vectors(40, 8))
    index.keep_proximity()
    expected, _ = Index.open(index.path).collection.proximity
    cache = index.path / storage.PROXIMITY
    cache.write_bytes(damage(cache.read_bytes()))
    found, _ = Index.open(index.path).collection.proximity
    np.testing.assert_allclose(found.mean, expected.mean)


@pytest.mark.parametrize("measured", [(120.0, "Xx"), ("abc", "Am")])
def test_a_damaged_table_of_tempo_and_key_is_one_clear_error(index, measured):
    index.upsert(songs(1), unit_vectors(1, 8))
    with contextlib.closing(sqlite3.connect(index.path / storage.DATABASE)) as db, db:
        db.execute("INSERT INTO measures VALUES ('id000000', ?, ?)", measured)
    with pytest.raises(IndexStoreError, match=r"can't be used .*'measures' differs"):
        Index.open(index.path)
    without_checksums(index.path)
    with pytest.raises(IndexStoreError, match=r"can't be used .*the tempo"):
        Index.open(index.path)


@pytest.mark.parametrize("limits", [(1, 2, 3), (float("nan"), 1), (3, 2), "ab", 5, ("a", "b")])
def test_limits_that_are_no_pair_of_numbers_are_refused(limits):
    with pytest.raises(ConfigError, match="the lowest and the highest number"):
        Filter(bpm=limits)


@pytest.mark.parametrize("name", ["genre", "folder", "in_key", "exclude"])
def test_a_string_in_place_of_several_names_is_refused(name):
    with pytest.raises(ConfigError, match=f"{name} is '/music'; give a tuple"):
        Filter(**{name: "/music"})


def test_many_small_additions_renew_the_cached_proximity(index):
    """Each addition is under a tenth of the index; together they are most of it."""
    x = unit_vectors(400, 8)
    index.upsert(songs(100), x[:100])
    index.keep_proximity()
    for first in range(100, 400, 5):
        index.upsert(songs(5, first), x[first : first + 5])
        index.keep_proximity()
    moments, _ = Index.open(index.path).collection.proximity
    assert moments.count >= 400 / 1.1


def test_emptied_index(index):
    index.upsert(songs(3), unit_vectors(3, 8))
    index.delete([s.id for s in songs(3)])
    again = Index.open(index.path)
    assert again.count == 0
    assert similar(again.collection, [np.ones(8)], Limits(k=5)) == []
    again.upsert(songs(2), unit_vectors(2, 8))
    assert contents(Index.open(index.path)) == contents(again)


def test_another_model_is_refused_by_name(index):
    with pytest.raises(IndexStoreError, match=r"model-a.*8.*model-b"):
        Index.open(index.path, fingerprint="model-b")
    with pytest.raises(IndexStoreError, match=r"8 values by model model-a.*128 values by model-b"):
        Index.open(index.path, dim=128, fingerprint="model-b")
    with pytest.raises(IndexStoreError, match="vectors of 9 values"):
        index.upsert(songs(1), np.ones((1, 9)))
    with pytest.raises(IndexStoreError, match="zero or not finite"):
        index.upsert(songs(1), np.full((1, 8), np.inf))
    with pytest.raises(IndexStoreError, match="already"):
        Index.create(index.path, dim=8, fingerprint="model-a")


def test_missing_damaged_and_earlier_index(index, tmp_path):
    with pytest.raises(IndexStoreError, match="holds no index"):
        Index.open(tmp_path / "nowhere")
    index.upsert(songs(30), unit_vectors(30, 8))
    path = next(index.path.glob("vectors-*"))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(IndexStoreError, match="can't be used"):
        Index.open(index.path)
    (index.path / storage.DATABASE).write_bytes(b"no database" * 1000)
    with pytest.raises(IndexStoreError, match="can't be used"):
        Index.open(index.path)
    (index.path / storage.DATABASE).unlink()
    (index.path / "index.json").write_text("{}")
    with pytest.raises(IndexStoreError, match=r"earlier format.*subgenre index"):
        Index.open(index.path)


def _write_forever(path, acknowledged):
    index = Index.open(path)
    step = 0
    while True:
        index.upsert(songs(3, 3 * step), unit_vectors(3, 8, seed=step))
        if step % 5 == 4:  # most places become holes, so that the file is copied too
            index.delete([s.id for s in songs(3 * step, 0)])
        acknowledged.value = step + 1
        step += 1


@pytest.mark.parametrize("moment_s", [0.0, 0.002, 0.005, 0.011])
def test_killed_writer_loses_nothing(index, moment_s):
    context = multiprocessing.get_context("fork")
    done = context.Value("i", 0)
    writer = context.Process(target=_write_forever, args=(index.path, done))
    writer.start()
    deadline = time.monotonic() + 30
    while done.value < 12 and time.monotonic() < deadline:
        time.sleep(0.003)
    time.sleep(moment_s)
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    steps = done.value
    assert steps >= 12
    found = contents(Index.open(index.path))
    for step in range(steps - steps % 5 - 1, steps):  # after the last deletion
        for song, vector in zip(songs(3, 3 * step), unit_vectors(3, 8, seed=step), strict=True):
            if (steps + 1) % 5:  # the deletion of the step under way may have been committed
                np.testing.assert_allclose(found[song.id], vector, atol=1e-6)
    later = Index.open(index.path)
    later.upsert(songs(1, 10**5), unit_vectors(1, 8))
    assert later.count == len(found) + 1
    assert contents(Index.open(index.path)) == contents(later)


def test_a_change_that_fails_half_way_changes_nothing(index, monkeypatch):
    index.upsert(songs(50), unit_vectors(50, 8))
    before = contents(index)

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(storage, "_set", fail)
    with pytest.raises(OSError, match="disk full"):
        index.upsert(songs(9, 45), unit_vectors(9, 8, seed=3))
    with pytest.raises(OSError, match="disk full"):
        index.delete([s.id for s in songs(40)])
    monkeypatch.undo()
    assert contents(Index.open(index.path)) == before == contents(index)
    index.upsert(songs(1, 70), unit_vectors(1, 8, seed=4))
    assert {i: v for i, v in contents(Index.open(index.path)).items() if i in before} == before


def test_a_writer_sees_what_another_has_written(index):
    other = Index.open(index.path)
    index.upsert(songs(4), unit_vectors(4, 8))
    other.upsert(songs(2, 4), unit_vectors(2, 8, 1))
    index.upsert(songs(2, 6), unit_vectors(2, 8, 2))
    assert other.count == 6
    assert index.count == 8
    assert contents(index) == contents(Index.open(index.path))


def test_threads_read_while_another_writes(index):
    index.upsert(songs(200), unit_vectors(200, 8))
    stop = threading.Event()

    def read():
        while not stop.is_set():
            found = similar(index.collection, [np.ones(8)], Limits(k=10))
            assert len({h.track.id for h in found}) == 10

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read) for _ in range(3)]
        for step in range(12):
            index.upsert(songs(20, 20 * step), unit_vectors(20, 8, seed=step))
            index.delete([s.id for s in songs(5, 10 * step)])
        stop.set()
    assert [reader.result() for reader in readers] == [None] * 3


def _read_until(path, stop, problems):
    while not stop.is_set():
        found = contents(Index.open(path))
        if any(abs(sum(value * value for value in vector) - 1) > 1e-5 for vector in found.values()):
            problems.value += 1


def test_a_reader_beside_a_writer(index):
    context = multiprocessing.get_context("fork")
    stop, problems = context.Event(), context.Value("i", 0)
    index.upsert(songs(20), unit_vectors(20, 8))
    reader = context.Process(target=_read_until, args=(index.path, stop, problems))
    reader.start()
    for step in range(30):
        index.upsert(songs(20, 20 * step), unit_vectors(20, 8, seed=step))
        index.delete([s.id for s in songs(15, 20 * step)])
    stop.set()
    reader.join(30)
    assert reader.exitcode == 0
    assert problems.value == 0


def test_plan_new_updated_gone(index):
    held = songs(6)
    index.upsert(held, unit_vectors(6, 8))
    library_now = [
        held[0],
        replace(held[1], path=Path("/music/moved.mp3")),
        replace(held[2], title="Now tagged", bpm=128.3),
        replace(held[3], id="other-audio"),
        Song("brand-new", Path("/music/new.mp3")),
        replace(held[0], path=Path("/music/a second copy.mp3")),
    ]
    plan = index.plan(library_now)
    assert [t.id for t in plan.new] == ["other-audio", "brand-new"]
    assert [t.id for t in plan.updated] == [held[1].id, held[2].id]
    assert plan.gone == tuple(s.id for s in held[3:])
    vectors = contents(index)
    index.update(plan.updated)
    index.upsert(plan.new, unit_vectors(2, 8, 1))
    index.delete(plan.gone)
    after = index.plan(library_now)
    assert after == Plan((), (), ())
    assert contents(index)[held[1].id] == vectors[held[1].id]
    assert index.get(held[2].id).title == "Now tagged"


def test_relink_by_ids(index, tmp_path, monkeypatch):
    old = tmp_path / "old"
    made = []
    for i in range(5):
        path = old / f"s{i % 2}" / f"{i}.mp3"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"audio{i}")
        made.append(Song(f"audio{i}", path, size=6))
    index.upsert(made, unit_vectors(5, 8))
    shutil.move(old, tmp_path / "new")
    (tmp_path / "new" / "s0" / "0.mp3").rename(tmp_path / "new" / "renamed.mp3")
    (tmp_path / "new" / "s1" / "1.mp3").unlink()
    (tmp_path / "new" / "s1" / "stranger.mp3").write_text("nobody!")
    monkeypatch.setattr(
        "subgenre.audio.reading.probe", lambda path: SimpleNamespace(id=path.read_text())
    )
    done = index.relink(tmp_path / "new")
    assert set(done.found) == {"audio0", "audio2", "audio3", "audio4"}
    assert done.missing == ("audio1",)
    again = Index.open(index.path)
    assert again.get("audio0").path == tmp_path / "new" / "renamed.mp3"
    assert all(again.get(i).path.is_file() for i in done.found)
    with pytest.raises(IndexStoreError, match="not a folder"):
        index.relink(tmp_path / "nowhere")


def test_the_measured_tempo_has_the_octave_of_the_tag():
    tempi = {(174.0, 87.0): 87.0, (87.1, 174.0): 174.2, (126.0, 128.0): 126.0, (90.0, 120.0): 90.0}
    tempi |= {(None, 128.0): 128.0, (126.0, 0.0): 126.0, (None, 0.0): None}
    for (measured, tag), expected in tempi.items():
        assert Song("id", Path("a.mp3"), tempo_bpm=measured, bpm=tag).tempo == expected


def test_tempo_and_key_stay_with_the_recording(index):
    index.upsert(songs(4), unit_vectors(4, 8))
    index.set_measured({"id000000": (126.5, "Am"), "id000001": (None, None)})
    index.update([replace(index.get("id000000"), title="Now tagged", path=Path("/new/place.mp3"))])
    index.upsert(songs(1, first=9), unit_vectors(1, 8, 5))
    for held in (index, Index.open(index.path)):
        found = held.collection.tracks(held.collection.live)
        assert [(t.tempo_bpm, t.key) for t in found] == [(126.5, "Am"), *[(None, None)] * 4]
        assert set(held.collection.measured) == {"id000000", "id000001"}
    index.delete(["id000000"])
    assert set(index.collection.measured) == {"id000001"}


def without_checksums(path, *tables):
    """Make the index one of an earlier version, without these tables."""
    with contextlib.closing(sqlite3.connect(path / storage.DATABASE)) as db, db:
        db.execute("ALTER TABLE tracks DROP COLUMN crc")
        db.execute("DELETE FROM meta WHERE name IN ('seal', 'copies', 'measures')")
        db.execute("UPDATE meta SET value = 2 WHERE name = 'format_version'")
        for name in tables:
            db.execute(f"DROP TABLE {name}")


def test_an_index_of_an_earlier_version_is_read_and_gets_what_it_lacks(index):
    index.upsert(songs(2), unit_vectors(2, 8))
    without_checksums(index.path, "copies", "measures")
    old = Index.open(index.path)
    assert contents(old) == contents(index)
    assert [old.get(f"id00000{i}").tempo_bpm for i in range(2)] == [None, None]
    old.set_measured({"id000001": (99.5, None)})
    assert Index.open(index.path).get("id000001").tempo_bpm == 99.5
    assert contents(Index.open(index.path)) == contents(index)
    vectors = next(index.path.glob("vectors-*"))
    vectors.write_bytes(bytes(vectors.stat().st_size))
    with pytest.raises(IndexStoreError, match="the checksums of 2 tracks differ"):
        Index.open(index.path)


def everything(path):
    c = Index.open(path).collection
    vectors = map(tuple, c.vectors(c.live).tolist())
    tracks = {t.id: (t, v) for t, v in zip(c.tracks(c.live), vectors, strict=True)}
    return tracks, c.copies


@pytest.fixture
def full(index):
    """An index with copies, tempo and key, a hole, and a cached proximity."""
    index.upsert(songs(30, artist="Æther"), unit_vectors(30, 8))
    index.set_copies({"id000002": ["/music/a.mp3", "/music/b.mp3"], "id000004": ["/x.mp3"]})
    index.set_measured({f"id{i:06d}": (120.5 + i, "Am") for i in range(20)})
    index.delete(["id000007"])
    index.keep_proximity()
    return index.path


def test_a_flipped_bit_of_an_index_is_noticed_or_changes_nothing(full):
    expected = everything(full)
    rng, refused = np.random.default_rng(0), 0
    for name in (storage.DATABASE, "vectors-1.f32", storage.PROXIMITY):
        data = (full / name).read_bytes()
        for at in rng.integers(len(data), size=80):
            damaged = bytearray(data)
            damaged[at] ^= 1 << rng.integers(8)
            (full / name).write_bytes(damaged)
            try:
                assert everything(full) == expected
            except IndexStoreError:
                refused += 1
        (full / name).write_bytes(data)
    assert refused > 80


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM tracks WHERE place = 3",
        "DELETE FROM copies",
        "DELETE FROM measures WHERE rowid = 2",
        "DROP TABLE copies",
        "UPDATE tracks SET title = 'x' WHERE place = 3",
        "UPDATE tracks SET place = place + 1 WHERE place = 29",
        "UPDATE tracks SET place = 7 WHERE place = 8",
        "UPDATE meta SET value = value - 1 WHERE name = 'places'",
        "UPDATE meta SET value = 'model-b' WHERE name = 'fingerprint'",
        "DELETE FROM meta WHERE name = 'seal'",
        "DELETE FROM meta WHERE name = 'dim'",
    ],
)
def test_rows_of_another_state_are_noticed(full, statement):
    with contextlib.closing(sqlite3.connect(full / storage.DATABASE)) as db, db:
        db.execute(statement)
    with pytest.raises(IndexStoreError, match="can't be used"):
        Index.open(full)


def test_files_of_another_index_are_noticed(full, tmp_path):
    other = Index.create(tmp_path / "other", dim=8, fingerprint="model-a")
    other.upsert(songs(30), unit_vectors(30, 8, seed=1))
    other.keep_proximity()
    expected = everything(full), Index.open(full).collection.proximity[0].mean
    shutil.copy(other.path / storage.PROXIMITY, full)  # a cache: it is made again
    assert everything(full) == expected[0]
    np.testing.assert_allclose(Index.open(full).collection.proximity[0].mean, expected[1])
    vectors = (full / "vectors-1.f32").read_bytes()
    shutil.copy(other.path / "vectors-1.f32", full)
    with pytest.raises(IndexStoreError, match="the checksums of 29 tracks differ"):
        Index.open(full)
    (full / "vectors-1.f32").write_bytes(vectors)
    (full / storage.DATABASE).unlink()
    assert storage.exists(full)  # the tracks of the training do not take its place
    with pytest.raises(IndexStoreError, match=r"index\.sqlite is missing"):
        Index.open(full)


def test_an_index_moves_with_its_library(tmp_path):
    work = tmp_path / "here"
    index = Index.create(work / "fully_trained_models_1" / "index", dim=8, fingerprint="m")
    inside, outside = work / "WAV" / "a.mp3", tmp_path / "music" / "b.mp3"
    tracks = [Song("id1", inside), Song("id2", outside)]
    index.upsert(tracks, unit_vectors(2, 8))
    index.set_copies({"id1": [str(work / "copy.mp3")], "id2": [str(outside)]})
    index.update(tracks)
    work.rename(tmp_path / "there")
    moved = Index.open(tmp_path / "there" / "fully_trained_models_1" / "index").collection
    assert moved.tracks(moved.live)[0].path == tmp_path / "there" / "WAV" / "a.mp3"
    assert moved.tracks(moved.live)[1].path == outside
    assert moved.copies == {"id1": (str(tmp_path / "there" / "copy.mp3"),), "id2": (str(outside),)}
