"""Batches: their pairs, their coverage, and repeatability."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from subgenre.config import BatchConfig
from subgenre.errors import ConfigError, SplitError
from subgenre.training.batches import ChunkTable, epoch_batches
from subgenre.training.batches.pk import _Deck, pk_batches
from subgenre.training.batches.table import chunk_table
from subgenre.training.batches.triplets import TripletAudioDataset, draw_triplets


@dataclass(frozen=True)
class Row:
    id: str


class Folder:
    """What batches need of a feature folder; a chunk's features are its own row number."""

    def __init__(self, labels: list[int], genres: tuple[str, ...], chunks: int = 3) -> None:
        """One track a number in `labels`, -1 for trash, which comes last."""
        self.genres = genres
        ids = [f"track{i:03d}" for i in range(len(labels))]
        self.tracks = tuple(Row(i) for i, n in zip(ids, labels, strict=True) if n >= 0)
        self.trash = tuple(Row(i) for i, n in zip(ids, labels, strict=True) if n < 0)
        self.track_of = np.repeat(np.arange(len(labels)), chunks)
        self.label_of = np.repeat(np.array(labels), chunks)

    def rows(self, track_ids: list[str]) -> NDArray[np.int64]:
        requested = set(track_ids)
        hit = [t.id in requested for t in (*self.tracks, *self.trash)]
        return np.flatnonzero(np.array(hit)[self.track_of])

    def load(self, rows: NDArray[np.int64]) -> torch.Tensor:
        return torch.as_tensor(rows, dtype=torch.float32)[:, None, None].expand(-1, 5, 2)


def folder(per_label: int = 8, trash: int = 4) -> Folder:
    labels = [label for label in range(6) for _ in range(per_label)] + [-1] * trash
    return Folder(labels, ("a", "a", "b", "b", "c", "c"))


def table(source: Folder | None = None, *, trash: bool = False) -> ChunkTable:
    source = source or folder()
    return chunk_table(source, [t.id for t in source.tracks], trash=trash)  # type: ignore[arg-type]


def overlapping() -> ChunkTable:
    """Two labels that share most of their recordings (tracks kept in both)."""
    label = np.repeat([0, 0, 0, 1, 1, 1], 2)
    track = np.repeat(np.arange(6), 2)
    recording = np.repeat([0, 1, 2, 0, 1, 5], 2)
    return ChunkTable(label, np.zeros(12, int), track, recording, np.arange(12))


def test_the_table_has_label_genre_track_and_recording() -> None:
    found = table(trash=True)
    assert len(found) == (6 * 8 + 4) * 3
    assert found.label[:3].tolist() == [0, 0, 0]
    assert set(found.genre[found.label == 3]) == {1}
    assert set(found.genre[found.label < 0]) == {-1}
    assert len(set(found.recording)) == len(set(found.track)) == 52
    assert (table().label >= 0).all()


def test_one_recording_in_two_subgenres_has_one_recording_number() -> None:
    source = Folder([0, 0, 1, 1], ("a", "a"))
    source.tracks = (Row("x"), Row("y"), Row("x"), Row("z"))
    found = table(source)
    assert found.recording[found.track == 0][0] == found.recording[found.track == 2][0]
    assert len(set(found.recording)) == 3
    assert len(set(found.track)) == 4


@pytest.mark.parametrize("trash", [False, True])
@pytest.mark.parametrize("epoch", range(3))
def test_drawn_triplets_keep_every_rule(trash: bool, epoch: int) -> None:
    t = table(trash=trash)
    drawn = draw_triplets(t, seed=1, epoch=epoch, quadruplet=True)
    a, p, n, x = drawn.T
    assert a.tolist() == np.flatnonzero(t.label >= 0).tolist()
    assert (t.label[a] == t.label[p]).all()
    assert (t.track[a] != t.track[p]).all()
    assert (t.label[a] != t.label[n]).all()
    assert (t.label[n] >= 0).all()
    if trash:
        assert (t.label[x] == -1).all()
    else:
        assert (t.genre[x] != t.genre[a]).all()


def test_a_recording_is_never_its_own_negative_or_positive() -> None:
    t = overlapping()
    for epoch in range(30):
        a, p, n = draw_triplets(t, seed=0, epoch=epoch).T
        assert (t.recording[a] != t.recording[p]).all()
        assert (t.recording[a] != t.recording[n]).all()
    same = ChunkTable(t.label, t.genre, t.track, np.zeros(12, int), t.row)
    with pytest.raises(SplitError, match="no subgenre has two training tracks"):
        draw_triplets(same, seed=0, epoch=0)


def test_drawing_is_uniform_over_subgenres_then_tracks() -> None:
    source = Folder([0] * 4 + [1] * 2 + [2] * 12, ("a", "b", "c"), chunks=2)
    t = table(source)
    drawn = np.concatenate([draw_triplets(t, seed=0, epoch=e) for e in range(400)])
    mine = drawn[t.label[drawn[:, 0]] == 0]
    negatives = np.bincount(t.label[mine[:, 2]], minlength=3) / len(mine)
    np.testing.assert_allclose(negatives, [0, 0.5, 0.5], atol=0.03)
    by_track = np.bincount(t.track[mine[:, 2]], minlength=18)[6:] / len(mine)
    np.testing.assert_allclose(by_track, 0.5 / 12, atol=0.012)
    first = mine[t.track[mine[:, 0]] == 0]
    positives = np.bincount(t.track[first[:, 1]], minlength=4)[:4] / len(first)
    np.testing.assert_allclose(positives, [0, 1 / 3, 1 / 3, 1 / 3], atol=0.06)


def test_a_subgenre_with_one_track_gives_negatives_only() -> None:
    t = table(Folder([0, 0, 0, 1], ("a", "b")))
    drawn = draw_triplets(t, seed=0, epoch=0)
    assert set(t.label[drawn[:, 0]]) == {0}
    assert set(t.label[drawn[:, 2]]) == {1}


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(SplitError, match="2 or more subgenres"):
        draw_triplets(table(Folder([0, 0, 0], ("a",))), seed=0, epoch=0)
    one_genre = table(Folder([0, 0, 1, 1], ("a", "a")))
    with pytest.raises(ConfigError, match="no trash pool and one genre only"):
        draw_triplets(one_genre, seed=0, epoch=0, quadruplet=True)
    pk = {"chunks": 1, "same_genre": 0.0, "seed": 0, "epoch": 0}
    with pytest.raises(ConfigError, match="1 subgenres x 4 tracks has no triplet"):
        pk_batches(table(), subgenres=1, tracks=4, **pk)  # type: ignore[arg-type]
    with pytest.raises(SplitError, match="one of them with 2 tracks"):
        pk_batches(table(Folder([0, 1], ("a", "b"))), subgenres=2, tracks=2, **pk)  # type: ignore[arg-type]


def test_an_epoch_of_triplets_holds_every_anchor_once() -> None:
    t = table()
    found = epoch_batches(t, BatchConfig(size=7), quadruplet=False, seed=3, epoch=2)
    assert [len(b) for b in found[:-1]] == [7] * (len(found) - 1)
    anchors = np.concatenate(found)[:, 0]
    assert sorted(anchors) == list(range(len(t)))
    assert anchors.tolist() != sorted(anchors)


def test_drawings_follow_from_seed_and_epoch_alone() -> None:
    t = table()

    def draw(settings: BatchConfig, seed: int, epoch: int) -> list[list[int]]:
        found = epoch_batches(t, settings, quadruplet=False, seed=seed, epoch=epoch)
        return [batch.tolist() for batch in found]

    for settings in (BatchConfig(size=4), BatchConfig("pk", subgenres=3, tracks=2)):
        assert draw(settings, 1, 1) == draw(settings, 1, 1)
        assert draw(settings, 1, 1) != draw(settings, 1, 2)
        assert draw(settings, 1, 1) != draw(settings, 2, 1)


def test_pk_batches_have_their_shape() -> None:
    t = table()
    found = pk_batches(t, subgenres=4, tracks=3, chunks=2, same_genre=0.0, seed=0, epoch=0)
    for batch in found:
        assert len(set(batch)) == len(batch) == 24
        labels = Counter(t.label[batch].tolist())
        assert set(labels.values()) == {6}
        tracks = Counter(t.track[batch].tolist())
        assert set(tracks.values()) == {2}
        assert len(tracks) == 12


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("k", [2, 8])
def test_the_given_share_of_batches_is_of_one_genre(share: float, k: int) -> None:
    t = table()
    numbers = {"subgenres": 0, "tracks": k, "chunks": 0, "same_genre": share, "seed": 0}
    epochs = [pk_batches(t, epoch=epoch, **numbers) for epoch in range(40)]  # type: ignore[arg-type]
    found = [batch for epoch in epochs for batch in epoch]
    of_one = sum(len(set(t.genre[batch])) == 1 for batch in found)
    assert len(epochs[0]) <= 12  # a share holds over epochs of few batches
    assert abs(of_one - share * len(found)) <= 1
    assert all(len(set(t.label[batch])) >= 2 for batch in found)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("p", "k", "c"), [(4, 3, 2), (8, 4, 2), (0, 0, 0), (3, 5, 1), (2, 0, 1)])
def test_an_epoch_covers_each_chunk_about_once(share: float, p: int, k: int, c: int) -> None:
    t = table(folder(per_label=20))
    times = np.zeros(len(t))
    sizes = set()
    for epoch in range(6):
        found = pk_batches(
            t, subgenres=p, tracks=k, chunks=c, same_genre=share, seed=0, epoch=epoch
        )
        np.add.at(times, np.concatenate(found), 1)
        sizes.add(len(found))
    assert len(sizes) == 1
    assert 0.75 < times.mean() / 6 < 1.45
    assert times.min() >= 2
    assert times.max() <= 14


def test_uneven_subgenres_are_drawn_by_their_size() -> None:
    t = table(Folder([0] * 30 + [1] * 6 + [2] * 12 + [3], ("a", "a", "b", "c")))
    numbers = {"subgenres": 2, "tracks": 3, "chunks": 3, "same_genre": 0.3}
    times = np.zeros(len(t))
    for epoch in range(20):
        for batch in pk_batches(t, seed=0, epoch=epoch, **numbers):  # type: ignore[arg-type]
            times[batch] += 1
    by_label = np.array([times[t.label == i].mean() / 20 for i in range(4)])
    assert by_label[0] > 0.6
    assert by_label.max() < 2.5


@pytest.mark.parametrize(("k", "n_trash"), [(2, 2), (0, 8)])  # 0: as many as a subgenre has
def test_trash_in_the_table_is_in_every_batch(k: int, n_trash: int) -> None:
    t = table(folder(trash=50), trash=True)
    found = pk_batches(t, subgenres=3, tracks=k, chunks=2, same_genre=0.5, seed=0, epoch=0)
    for batch in found:
        assert (t.label[batch] == -1).sum() == n_trash * 2


@pytest.mark.parametrize("n", [0, 1, 7, 29, 30, 99])
def test_the_least_drawn_are_the_first_of_a_whole_sort(n: int) -> None:
    times = np.random.default_rng(n).integers(0, 4, 30) / 3
    found, expected = (_Deck(table(), np.random.default_rng(5)) for _ in range(2))
    whole = np.lexsort((expected.rng.random(30), times))
    assert found._least(times, n).tolist() == whole[: n or 30].tolist()


def test_fewer_drawn_triplets_than_processes_are_refused() -> None:
    t, settings = table(), BatchConfig(size=2)
    n = sum(len(batch) for batch in epoch_batches(t, settings, quadruplet=False, seed=0, epoch=0))
    with pytest.raises(ConfigError, match=f"{n} triplets can't be shared by {n + 1} processes"):
        epoch_batches(t, settings, quadruplet=False, seed=0, epoch=0, world=n + 1)


def test_the_dataset_gives_features_of_the_drawn_chunks() -> None:
    source = folder()
    ids = [t.id for i, t in enumerate(source.tracks) if i % 2]
    data = TripletAudioDataset(source, ids, seed=5, quadruplet=True)  # type: ignore[arg-type]
    assert len(data) == len(ids) * 3
    rows = set(source.rows(ids).tolist())
    before = data.triplets.tolist()
    for i in range(len(data)):
        item = data[i]
        assert list(item) == ["anchor", "positive", "negative", "trash"]
        assert item["anchor"].shape == (5, 2)
        drawn = [int(x[0, 0]) for x in item.values()]
        assert drawn == data.table.row[data.triplets[i]].tolist()
        assert set(drawn[:3]) <= rows
        assert source.label_of[drawn[3]] == -1
    data.set_epoch(1)
    assert data.triplets.tolist() != before
    data.set_epoch(0)
    assert data.triplets.tolist() == before
    plain = TripletAudioDataset(source, ids, seed=5)  # type: ignore[arg-type]
    batch = next(iter(torch.utils.data.DataLoader(plain, batch_size=4)))
    assert {name: value.shape for name, value in batch.items()} == dict.fromkeys(
        ("anchor", "positive", "negative"), (4, 5, 2)
    )
