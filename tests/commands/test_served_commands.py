"""The commands on an index in PostgreSQL answer as on one in a folder; nothing is lost."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import subgenre
from subgenre.commands import explore
from subgenre.commands import index as indexing
from subgenre.commands.model_folder import ModelFolder
from subgenre.errors import ConfigError, IndexStoreError, MissingExtraError
from subgenre.search import address, served
from subgenre.search.track_rows import Filter
from subgenre.search.vector_index import Index
from tests.commands.conftest import Call
from tests.runs import sounding_run, vector_run
from tests.search.test_similarity import unit_vectors
from tests.search.test_vector_index import Song, songs
from tests.servers import PostgresServer
from tests.small_library import replace_workers, write_wav

pytestmark = pytest.mark.slow

N = 3000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and its index of many tracks around a few centres, with hubs in the middle."""
    run = vector_run(tmp_path_factory.mktemp("served") / "model")
    index = Index.create(run / "index", dim=8, fingerprint="e" * 32)
    centre = np.random.default_rng(1).integers(40, size=N)
    x = unit_vectors(40, 8)[centre] + 0.4 * unit_vectors(N, 8, 5)
    x[:30] = x.mean(axis=0) + 0.05 * unit_vectors(30, 8, 6)
    x[100:110] = x[99]
    tracks = [
        Song(
            f"id{i:06d}",
            Path(f"/music/{i % 7}/song {i}.mp3"),
            genre=("Techno", "House")[i % 2],
            subgenre=("dark", "emotional", "deep", "")[centre[i] % 4],
            artist=f"Artist {i % 50}",
            title=f"Title {i // 2 if i < 20 else i}",
            duration_s=100.0 + i % 400,
            bpm=float(90 + i % 80),
        )
        for i in range(N)
    ]
    index.upsert(tracks, x)
    index.set_measured({t.id: (None, ("Am", "C", None)[i % 3]) for i, t in enumerate(tracks)})
    index.set_copies({"id000042": ["/elsewhere/copy.mp3"]})
    index.keep_proximity()
    return run


@pytest.fixture(scope="module")
def moved(folder: Path, postgres: PostgresServer) -> str:
    """The same index on a server."""
    url = postgres.database()
    model = ModelFolder.open(folder)
    done = indexing.index(None, model, path=url, origin=model.index_path)
    assert (done.copied, done.n_tracks) == (N, N)
    return url


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """No command may load all tracks of a served index."""

    def fail(_self: object) -> None:
        raise AssertionError("all rows are loaded")

    monkeypatch.setattr("subgenre.search.postgresql.PostgreSQL.rows", fail)


def hits(model: subgenre.Model, seed: Any, **options: Any) -> list[tuple[str, str, str]]:
    found = model.playlist(seed, **options)
    return [(h.track.id, f"{h.score:.4f}", f"{h.cosine:.4f}") for h in found]


LISTS = [
    {},
    {"mutual": False},
    {"tracks": 40, "per_artist": 1},
    {"tracks": 25, "versions": True, "smooth": True},
    {"filter": Filter(genre=("house",), key=("Am",), bpm=(100, 120))},
    {"filter": Filter(folder=("/music/3", "/elsewhere"), duration_s=(100, 180)), "mutual": False},
    {"filter": Filter(artist=("Artist 7",), exclude=("id000007",)), "tracks": 90},
]


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("options", LISTS)
@pytest.mark.parametrize("seed", ["id000000", "/music/1/song 2003.mp3", "title 77", "id000103", 0])
def test_similar_loads_few_tracks_and_answers_as_a_folder(
    folder: Path, moved: str, seed: Any, options: dict[str, Any]
):
    vector = unit_vectors(1, 8, 9)[0] if seed == 0 else seed
    options = {"tracks": 10} | options
    expected = hits(subgenre.load(folder), vector, **options)
    assert len(expected) > 5
    assert hits(subgenre.load(folder, index=moved), vector, **options) == expected


@pytest.mark.usefixtures("few")
def test_similar_looks_beyond_the_first_candidates(folder: Path, moved: str):
    """The best by mutual proximity may be further off than the first 8 tracks asked for."""
    here, there = subgenre.load(folder), subgenre.load(folder, index=moved)
    queries = unit_vectors(300, 8, 9)
    nearest = [rows[0] for rows, _ in here.tracks.rank(queries, 1)]
    cosines = queries @ here.tracks.all_vectors.T
    ranks = [int((c > c[row]).sum()) for c, row in zip(cosines, nearest, strict=True)]
    deep = [query for query, rank in zip(queries, ranks, strict=True) if rank >= 8]
    assert len(deep) > 5
    for query in deep:
        assert hits(there, query, tracks=1) == hits(here, query, tracks=1)


@pytest.mark.parametrize(
    "words",
    [
        ("similar", "id000005", "--min-bpm", 100, "--in-key", "8A"),
        ("similar", "Titel 77"),
        ("similar", "title 3"),  # of two tracks
        ("similar", "id000005", "--genre", "Teckno"),
        ("similar", "id000005", "--subgenre", "House/deep"),
        ("similar", "id000005", "--folder", "/nowhere"),
        ("playlist", "id000005", "id000070", "--tracks", 8),
        ("playlist", "id000005", "--minutes", 30),
        ("playlist", "id000005", "id000070", "--journey", "--tracks", 6),
        ("playlist", "--expand", "House/dark", "--tracks", 12),
        ("playlist", "--axis", "House/dark:House/deep", "--tracks", 12),
    ],
)
def test_commands_answer_as_on_a_folder(
    folder: Path, moved: str, call: Call, words: tuple[object, ...]
):
    code, expected, said = call(*words, "--run", folder)
    found = call(*words, "--run", folder, "--index", moved)
    assert (found[0], found[2]) == (code, said)
    for hits in ((result or {}).get("hits", []) for result in (found[1], expected)):
        for hit in hits:
            hit |= {n: hit[n] and f"{hit[n]:.3f}" for n in ("score", "cosine", "fits") if n in hit}
    assert found[1] == expected


def test_the_explorer_reads_again_what_another_writer_changes(
    folder: Path, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
):
    drawn = SimpleNamespace(place=None, note="")
    monkeypatch.setattr(explore.model_map, "load_map", lambda *_, **__: drawn)
    monkeypatch.setattr(
        explore.model_map, "coordinates", lambda *given: np.ones((len(given[2]), 2))
    )
    url, model = postgres.database(), ModelFolder.open(folder)
    index = Index.create(url, dim=8, fingerprint="e" * 32)
    index.upsert(songs(30), unit_vectors(30, 8))
    shown = explore.library(model, index=url, playlists=Path("x"))
    assert shown.reread is not None
    assert shown.reread() is None
    index.delete(["id000003"])
    again = shown.reread()
    assert again is not None
    assert (len(shown.collection), len(again.collection)) == (30, 29)


def test_a_library_is_indexed_and_checked(
    tmp_path: Path,
    postgres: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
    call: Call,
):
    replace_workers(monkeypatch)
    run = sounding_run(tmp_path / "home")
    more = tmp_path / "more" / "a.wav"
    write_wav(more, 3.5, 20)
    shutil.copy(more, more.with_name("copy.wav"))
    for index in (tmp_path / "index", postgres.database()):
        words = ("--run", run, "--index", index)
        assert call("index", tmp_path / "home" / "WAV", *words)[0] == 0
        found = call("index", tmp_path / "more", *words)[1]
        assert (found["embedded"], found["path"]) == (1, str(index))
        assert call("index", tmp_path / "more", *words)[1]["embedded"] == 0
        more.rename(more.with_name("b.wav"))
        assert call("index", tmp_path / "more", *words)[1]["updated"] == 1
        more.with_name("b.wav").rename(more)
        call("index", tmp_path / "more", *words)
        assert call("check", index)[0] == 0
    one, other = (Index.open(a).collection for a in (tmp_path / "index", index))
    assert one.tracks(one.live) == other.tracks(other.live)
    assert (one.copies, one.measured) == (other.copies, other.measured)
    np.testing.assert_allclose(one.vectors(one.live), other.vectors(other.live), atol=1e-6)
    engine = served._engine(str(index))
    row = engine.get([one.track(0).id])[0]
    engine.put([{**row, "tags": row["tags"][1:]}])
    code, found, said = call("check", index)
    assert (code, len(found["bad"])) == (1, 1)
    assert "1 rows of postgresql://" in said
    engine.put([{**row, "track": {"path": "/a.mp3"}}])
    code, found, said = call("check", index)
    assert (code, len(found["bad"])) == (1, 1)
    assert f"row {row['id']} of the index is damaged ('copies')" in said
    with pytest.raises(IndexStoreError, match="damaged"):
        Index.open(str(index)).collection  # noqa: B018


def _copy_and_die(run: Path, url: str, puts: int) -> None:
    left = iter(range(puts))

    def put(self: Any, rows: Any) -> None:
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        was(self, rows)

    was = served.ServedIndex._put
    served.ServedIndex._put = put  # type: ignore[method-assign]
    model = ModelFolder.open(run)
    indexing.index(None, model, path=url, origin=model.index_path)


def test_a_killed_copy_goes_on(
    folder: Path, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(indexing, "_COPY_AT_ONCE", 500)
    url, model = postgres.database(), ModelFolder.open(folder)
    context, counts = multiprocessing.get_context("fork"), []
    for puts in (3, 2, 5):  # the last one dies at the measures
        process = context.Process(target=_copy_and_die, args=(folder, url, puts))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        counts.append(Index.open(url).count)
    assert counts == [1500, 2500, 3000]
    indexing.index(None, model, path=url, origin=model.index_path)
    assert indexing.index(None, model, path=url, origin=model.index_path).copied == 0
    origin, copy = (Index.open(a).collection for a in (model.index_path, url))
    assert origin.tracks(origin.live) == copy.tracks(copy.live)
    assert (origin.copies, origin.measured) == (copy.copies, copy.measured)
    np.testing.assert_allclose(origin.vectors(origin.live), copy.vectors(copy.live), atol=1e-6)


def _write_until_it_fails(url: str, acknowledged: Any, said: Any) -> None:
    index = Index.open(url)
    try:
        while True:
            step = acknowledged.value
            index.upsert(songs(20, 20 * step), unit_vectors(20, 8, seed=step))
            acknowledged.value = step + 1
    except IndexStoreError as problem:
        said.send(str(problem))


def test_a_killed_server_loses_nothing_that_was_committed(postgres: PostgresServer):
    url = postgres.database()
    Index.create(url, dim=8, fingerprint="m")
    context = multiprocessing.get_context("fork")
    done, (receiver, sender) = context.Value("i", 0), context.Pipe()
    writer = context.Process(target=_write_until_it_fails, args=(url, done, sender))
    writer.start()
    deadline = time.monotonic() + 30
    while done.value < 15 and time.monotonic() < deadline:
        time.sleep(0.003)
    postgres.kill()
    try:
        writer.join(30)
        assert receiver.poll(1)
        message = receiver.recv()
        assert message.startswith(f"{url} does not answer (")
        assert "\n" not in message
        with pytest.raises(IndexStoreError, match="does not answer"):
            Index.open(url)
    finally:
        postgres.start()
    index = Index.open(url)
    assert done.value >= 15
    assert index.count in (20 * done.value, 20 * done.value + 20)  # the last may be committed
    index.check()
    held = index.collection
    for step in range(done.value):
        rows = [held.row_of_id(song.id) for song in songs(20, 20 * step)]
        np.testing.assert_allclose(held.vectors(rows), unit_vectors(20, 8, seed=step), atol=1e-6)
    index.upsert(songs(1, 10**5), unit_vectors(1, 8))


def test_two_writers_at_once_lose_nothing(postgres: PostgresServer):
    url = postgres.database()
    Index.create(url, dim=8, fingerprint="m").upsert(songs(50), unit_vectors(50, 8))
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=work, args=(url,)) for work in (_measure, _add_copies)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    index = Index.open(url)
    index.check()
    assert index.collection.measured == {s.id: (120.0, "Am") for s in songs(50)}
    assert index.collection.copies == {s.id: (f"/copy/{s.id}",) for s in songs(50)}


def _measure(url: str) -> None:
    index = Index.open(url)
    for song in songs(50):
        index.set_measured({song.id: (120.0, "Am")})


def _add_copies(url: str) -> None:
    index = Index.open(url)
    for song in songs(50):
        index.set_copies({song.id: [f"/copy/{song.id}"]})


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://ann:s3cret@host/db",
        "postgresql://ann:s3@cret@host/db",
        "postgresql://host/db?password=s3cret",
        "https://root:s3cret@host:19530",
    ],
)
def test_an_address_with_a_password_is_refused_and_not_shown(text: str, folder: Path, call: Call):
    with pytest.raises(ConfigError, match=r"PGPASSWORD or ~/\.pgpass") as refused:
        address.parse(text)
    assert "s3" not in str(refused.value)
    code, _, said = call("similar", "id000001", "--run", folder, "--index", text)
    assert code == 2
    assert "s3" not in said


def test_kinds_of_addresses():
    assert address.parse("some/folder") == Path("some/folder")
    assert address.parse("postgresql://ann@host/db") == "postgresql://ann@host/db"
    assert address.parse("http://host:19530") == "http://host:19530"
    with pytest.raises(ConfigError, match="mysql:// is no index"):
        address.parse("mysql://host/db")


def test_what_is_missing_is_one_clear_line(
    folder: Path,
    postgres: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
    call: Call,
):
    def said(index: str, words: tuple[object, ...] = ("similar", "id000001")) -> str:
        code, _, text = call(*words, "--run", folder, "--index", index)
        assert code == 2
        assert text.strip().count("\n") == 0
        return text

    assert "does not answer" in said("postgresql://ann@127.0.0.1:1/db")
    empty = postgres.database()
    assert "holds no index; make one" in said(empty)
    other = Index.create(postgres.database(), dim=8, fingerprint="another")
    assert "by model another, not" in said(str(other.address))
    database = empty.partition("@/")[2].partition("?")[0]
    import psycopg

    with psycopg.connect(empty, autocommit=True) as db:
        db.execute("DROP ROLE IF EXISTS guest")
        db.execute("CREATE ROLE guest LOGIN")
    guest = postgres.address(database, user="guest")
    text = said(guest, ("index", "--from", folder / "index"))
    assert "lacks the extension pgvector" in text
    for name in ("psycopg", "pymilvus"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("postgresql", "milvus"):
        monkeypatch.delitem(sys.modules, f"subgenre.search.{name}", raising=False)
    with pytest.raises(MissingExtraError, match=r"pip install 'subgenre\[postgresql\]'"):
        Index.open(empty)
    with pytest.raises(MissingExtraError, match=r"pip install 'subgenre\[milvus\]'"):
        Index.open("http://127.0.0.1:1")
