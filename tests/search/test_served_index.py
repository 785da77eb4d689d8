"""One contract for every kind of index: a folder, PostgreSQL with pgvector, Milvus Lite, Milvus."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from subgenre.errors import IndexStoreError
from subgenre.search.address import Address
from subgenre.search.collection import Collection
from subgenre.search.track_rows import Filter
from subgenre.search.vector_index import Index
from tests import servers
from tests.search.test_similarity import unit_vectors
from tests.search.test_vector_index import Song, library, songs

pytestmark = pytest.mark.slow

FILTERS = [
    None,
    Filter(genre=("techno",)),
    Filter(subgenre=("Acid", "deep house")),
    Filter(subgenre=("House/Acid",)),
    Filter(artist=("artist 3", "Zoë")),
    Filter(folder=("/music/a",)),
    Filter(folder=("/music/b/../b", "/copies")),
    Filter(folder=("/mus",)),
    Filter(duration_s=(110, 120)),
    Filter(duration_s=(0, 99)),
    Filter(bpm=(0, 130)),
    Filter(bpm=(85.5, float("inf"))),
    Filter(key=("8A", "E minor")),
    Filter(in_key=("Am",)),
    Filter(key=("C",), in_key=("8A",)),
    Filter(exclude=("id3", "id4", "nobody")),
    Filter(genre=("House",), bpm=(120, 150), exclude=("id5",)),
]


@pytest.fixture(scope="session")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with servers.milvus(tmp_path_factory.mktemp("milvus")) as server:
        yield server


@pytest.fixture(params=["folder", "postgresql", "milvus lite", "milvus"])
def new(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Address]:
    """Return a function that returns an address without an index."""
    if request.param == "postgresql":
        return request.getfixturevalue("postgres").database
    if request.param == "milvus":
        server = request.getfixturevalue("milvus")
        return lambda: servers.new_database(server)
    if request.param == "milvus lite":
        pytest.importorskip("milvus_lite")
        pytest.importorskip("pymilvus")
        return lambda: str(tmp_path / "index.db")
    return lambda: tmp_path / "index"


@pytest.fixture
def index(new: Callable[[], Address]) -> Index:
    return Index.create(new(), dim=8, fingerprint="model-a")


def everything(index: Index) -> tuple[list, dict, dict]:
    c = Index.open(index.address).collection
    vectors = c.vectors(c.live).tolist()
    return list(zip(c.tracks(c.live), vectors, strict=True)), c.copies, c.measured


def filled(index: Index) -> tuple[Index, Collection]:
    """Fill an index step by step; return it, and its content made in memory."""
    made, x = library(), unit_vectors(60, 8)
    made[7] = replace(made[7], artist="Zoë\0Ann", title='"; DROP TABLE subgenre_tracks; --')
    made[8] = replace(made[8], duration_s=0.0, genre="it's", path=Path("/music/ü %_\\/8.mp3"))
    bare = [replace(track, tempo_bpm=None, key=None) for track in made]
    index.upsert(bare[:40], x[:40])
    index.upsert(bare[30:], x[30:])
    index.set_measured({t.id: (t.tempo_bpm, t.key) for t in made})
    index.set_copies({"id2": ["/copies/2.mp3", "/music/b/2.mp3"]})
    order = [*range(30), *range(30, 60)]
    held = Collection.of([made[i] for i in order], x[order])
    return index, replace(held, copies={"id2": ("/copies/2.mp3", "/music/b/2.mp3")})


def test_the_contract(index: Index):
    """Steps and searches of one index: starting a server's collections takes most of the time."""
    assert (index.count, index.collection.dim) == (0, 8)
    _, held = filled(index)
    tracks, copies, measured = everything(index)
    assert [t for t, _ in tracks] == held.tracks(held.live)
    np.testing.assert_allclose([v for _, v in tracks], held.all_vectors, atol=1e-6)
    assert (copies, measured) == (held.copies, held.measured)
    query = unit_vectors(1, 8, 3)[0]
    for chosen in FILTERS:
        mask = held.allowed(chosen)
        expected = np.argsort(-np.where(mask, held.all_vectors @ query, -2))[: mask.sum()]
        found = index.search(query, 60, chosen)
        assert [t.id for t in found.tracks(found.live)] == [f"id{i}" for i in expected], chosen
        some = index.search(query, 3, chosen)
        assert [t.id for t in some.tracks(some.live)] == [f"id{i}" for i in expected[:3]], chosen
    for wrong, message in (
        (Filter(subgenre=("Drak Techno",)), "mean 'Dark Techno'"),
        (Filter(artist=("Artst 3",)), "mean 'Artist 3'"),
    ):
        with pytest.raises(IndexStoreError, match=message):
            index.search(query, 5, wrong)
    stamp = Index.stamp(index.address)
    other = Index.open(index.address, dim=8, fingerprint="model-a")
    assert other.delete(["id3", "nobody", "id59"]) == 2
    assert Index.stamp(index.address) != stamp
    assert index.get("id2").path == other.get("id2").path
    other.update([replace(other.get("id4"), title="Now tagged", path=Path("/new/4.mp3"))])
    tracks = dict(everything(other)[0])
    named = {t.id: t for t in tracks}
    assert len(named) == other.count == 58
    assert (named["id4"].title, named["id4"].key) == ("Now tagged", held.track(4).key)
    np.testing.assert_allclose(tracks[named["id4"]], held.all_vectors[4], atol=1e-6)
    found = other.search(query, 60, Filter(folder=("/new",)))
    assert [t.id for t in found.tracks(found.live)] == ["id4"]
    with pytest.raises(IndexStoreError, match="add it first"):
        other.update([Song("nobody", Path("/a.mp3"))])
    with pytest.raises(IndexStoreError, match="zero or not finite"):
        other.upsert(songs(1), np.full((1, 8), np.inf))
    with pytest.raises(IndexStoreError, match=r"8 values by model model-a.*8 values by model-b"):
        Index.open(index.address, fingerprint="model-b")
    with pytest.raises(IndexStoreError, match="already"):
        Index.create(index.address, dim=8, fingerprint="model-a")
    assert Index.exists(index.address)
