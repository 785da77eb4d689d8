"""Playlists: by agreement, until they stop fitting, along a path; seeds left out, caps kept."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest

from subgenre.errors import IndexStoreError, PlaylistError
from subgenre.library.track import Track
from subgenre.search import classifier, journeys, ordering, playlists, requests
from subgenre.search.collection import Collection
from subgenre.search.ranking import Limits
from subgenre.search.requests import PlaylistRequest
from subgenre.search.track_rows import Filter

NAMES = ("Dark Techno", "Emotional Techno", "Deep House")


def Song(track_id, path, genre="", subgenre="", duration_s=300.0, **values):  # noqa: N802
    return Track(track_id, path, genre, subgenre, duration_s=duration_s, **values)


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def tracks():
    """Three subgenres of 40 labelled tracks each around a centre, and 90 unlabelled ones."""
    generator = np.random.default_rng(0)
    centres = unit(generator.normal(size=(3, 24)))
    made, vectors = [], []
    for i in range(210):
        of = i % 3
        name = NAMES[of] if i < 120 else ""
        song = Song(
            f"t{i:03d}",
            Path(f"/music/{i}.mp3"),
            genre=("House" if of == 2 else "Techno") if name else "",
            subgenre=name,
            artist=f"Artist {generator.integers(0, 40)}",
            title=f"{'member' if name else 'stray'} {i} of {of}",
            bpm=float(generator.integers(118, 140)),
            duration_s=200.0 + i,
        )
        made.append(song)
        vectors.append(centres[of] + 0.22 * generator.normal(size=24))
    return Collection.of(made, unit(np.array(vectors)))


def of(hits):
    """Which centre each hit was drawn around."""
    return [hit.row % 3 for hit in hits]


# from seeds -------------------------------------------------------------------------------------


def test_similar_leaves_the_seed_out_and_finds_its_kind(tracks):
    hits = playlists.similar(tracks, ["t003"], Limits(k=20))
    assert "t003" not in [h.track.id for h in hits]
    assert len(hits) == 20
    assert np.mean([o == 0 for o in of(hits)]) > 0.8
    outside = playlists.similar(tracks, [tracks.vectors([3])[0]], Limits(k=1))
    assert outside[0].track.id == "t003"
    plain = playlists.similar(tracks, ["t003"], Limits(k=20), mutual=False)
    assert [h.cosine for h in plain] == sorted((h.cosine for h in plain), reverse=True)
    assert {h.row for h in plain} != {h.row for h in hits}


def test_fusion_equals_the_formula():
    score = playlists.fuse([np.array([5, 7, 9]), np.array([7, 5]), np.array([1])])
    assert score == pytest.approx({5: 1 / 61 + 1 / 62, 7: 1 / 62 + 1 / 61, 9: 1 / 63, 1: 1 / 61})


def test_agreement_prefers_what_all_seeds_reach(tracks):
    """One seed stands apart: the other two outvote it, while the mean vector is drawn to it."""
    hits = playlists.similar(tracks, ["t000", "t003", "t001"], Limits(k=10))
    assert not {"t000", "t003", "t001"} & {h.track.id for h in hits}
    assert np.mean([o == 0 for o in of(hits)]) >= 0.8
    assert [h.score for h in hits] == sorted((h.score for h in hits), reverse=True)
    other = playlists.similar(tracks, ["t001", "t000", "t003"], Limits(k=10))
    assert {h.row for h in hits} == {h.row for h in other}


def test_unknown_names(tracks):
    with pytest.raises(PlaylistError, match=r"did you mean 'Artist .* - member 3 of 0'"):
        playlists.similar(tracks, ["membr 3 of 0"], Limits())
    with pytest.raises(PlaylistError, match="did you mean 'Dark Techno'"):
        playlists.expand(tracks, "Dark Tecno", Limits())
    with pytest.raises(PlaylistError, match="did you mean 'Deep House'"):
        journeys.axis(tracks, "Dark Techno:Depe House")
    with pytest.raises(PlaylistError, match="no seed"):
        playlists.similar(tracks, [], Limits())
    with pytest.raises(IndexStoreError, match="did you mean 'Techno'"):
        playlists.similar(tracks, ["t003"], Limits(), Filter(genre=("Tecno",)))
    with pytest.raises(PlaylistError, match="index have 24"):
        playlists.similar(tracks, [np.ones(5)], Limits())


# expanding --------------------------------------------------------------------------------------


def test_expand_until_it_stops_fitting(tracks):
    fitting = playlists.expand(tracks, "Dark Techno", Limits(k=None), until_fit=0.5)
    for fit in (0.9, 0.99):
        hits = playlists.expand(tracks, "dark techno", Limits(k=None), until_fit=fit)
        assert hits == [hit for hit in fitting if hit.score >= fit]
    assert "Dark Techno" not in {h.track.subgenre for h in fitting}
    assert np.mean([o == 0 for o in of(fitting)]) > 0.85
    assert sum(o == 0 for o in of(fitting)) > 20  # of the 30 unlabelled ones around that centre


def test_expand_by_count_is_the_same_each_time(tracks):
    limits = Limits(k=7, per_artist=1)
    hits = playlists.expand(tracks, "Techno/Dark Techno", limits, until_fit=None)
    assert len(hits) == len({h.track.artist for h in hits}) == 7
    assert playlists.expand(tracks, "dark techno", limits, until_fit=None) == hits


def test_like_and_unlike_move_the_ranking_at_once(tracks):
    plain = playlists.expand(tracks, "Dark Techno", Limits(k=100), until_fit=None)
    rank = {h.track.id: i for i, h in enumerate(plain)}
    like, unlike = plain[40].track.id, plain[0].track.id

    def near(name):
        hits = playlists.similar(tracks, [name], Limits(k=5), mutual=False)
        return [h.track.id for h in hits if h.track.id in rank]

    moved = playlists.expand(
        tracks, "Dark Techno", Limits(k=100), until_fit=None, like=[like], unlike=[unlike]
    )
    later = {h.track.id: i for i, h in enumerate(moved)}
    assert not later.keys() & {like, unlike}
    liked = [rank[i] - later[i] for i in near(like) if i in later]
    unliked = [rank[i] - later[i] for i in near(unlike) if i in later]
    assert np.mean(liked) > 0 > np.mean(unliked)


def test_bad_fit_and_nothing_to_compare_with(tracks):
    with pytest.raises(PlaylistError, match="until_fit is 90"):
        playlists.expand(tracks, "Dark Techno", Limits(k=None), until_fit=90)
    lone = Collection.of(
        [Song(str(i), Path(f"{i}"), "G", "S") for i in range(9)], unit(np.eye(9, 24))
    )
    with pytest.raises(PlaylistError, match="other subgenres"):
        playlists.expand(lone, "S", Limits())


def test_fits_is_the_probability_that_classify_gives(tracks):
    """The model's classifier has the number; without it one is fitted on the labelled tracks."""
    x = tracks.vectors(range(120))
    labels = [(t.genre, t.subgenre) for t in tracks.tracks(range(120))]
    model = classifier.fit(x[::2], labels[::2], calibration=(x[1::2], labels[1::2]))
    number = model.labels.index(("House", "Deep House"))
    for known, expected in ((model, model), (None, classifier.fit(x, labels))):
        hits = playlists.expand(tracks, "Deep House", Limits(k=15), classifier=known)
        fits = expected.probabilities(tracks.vectors([h.row for h in hits]))[:, number]
        np.testing.assert_allclose([h.score for h in hits], fits, atol=1e-6)
    assert all(hit.before is None for hit in hits)
    plain = playlists.expand(tracks, "Deep House", Limits(k=None), classifier=model)
    place = {hit.track.id: i for i, hit in enumerate(plain, start=1)}
    moved = playlists.expand(
        tracks, "Deep House", Limits(k=15), unlike=[plain[0].track.id], classifier=model
    )
    assert [hit.before for hit in moved] == [place[hit.track.id] for hit in moved]


# paths ------------------------------------------------------------------------------------------


def test_journey_has_its_ends_and_small_steps(tracks):
    hits = journeys.journey(tracks, "t000", "t001", Limits(k=9))
    rows = [h.row for h in hits]
    assert (rows[0], rows[-1]) == (0, 1)
    assert len(set(rows)) == 9
    x = tracks.vectors(rows)
    assert hits[4].score == 0.5
    assert np.corrcoef(x @ (x[-1] - x[0]), np.arange(9))[0, 1] > 0.9
    timed = journeys.journey(tracks, "t000", "t001", Limits(k=None, minutes=60))
    assert sum(h.track.duration_s for h in timed) == pytest.approx(3600, rel=0.2)


def test_journey_follows_the_music_that_is_there():
    """300 tracks lie along a bent line: the way goes along it, in steps as even as it allows."""
    generator = np.random.default_rng(5)
    angle = np.sort(generator.uniform(0, 0.6 * np.pi, 300))
    x = np.zeros((300, 12))
    x[:, 0], x[:, 1], x[:, 2] = np.cos(angle), np.sin(angle), 0.5 * np.sin(2 * angle)
    x = unit(x + 0.03 * generator.normal(size=x.shape))
    bent = Collection.of([Song(str(i), Path(str(i))) for i in range(300)], x)
    hits = journeys.journey(bent, "0", "299", Limits(k=12))
    rows = [h.row for h in hits]
    assert rows == sorted(rows)
    assert 1 - min(h.cosine for h in hits[1:]) < 0.15 * (1 - x[0] @ x[-1])


@pytest.mark.slow
def test_journey_obeys_caps_and_filters(tracks):
    hits = journeys.journey(
        tracks, "t000", "t001", Limits(k=14, per_artist=1), Filter(duration_s=(230, 390))
    )
    artists = {h.track.artist for h in hits}
    assert len(artists) >= len(hits) - 1  # the ends themselves may share an artist
    assert all(230 <= h.track.duration_s <= 390 for h in hits[1:-1])
    with pytest.raises(PlaylistError, match="too few tracks"):
        journeys.journey(tracks, "t000", "t001", Limits(k=60, per_artist=1))
    with pytest.raises(PlaylistError, match="same track"):
        journeys.journey(tracks, "t000", "t000", Limits())
    with pytest.raises(PlaylistError, match="at least 2"):
        journeys.journey(tracks, "t000", "t001", Limits(k=1))


@pytest.mark.parametrize("limits", [Limits(k=5), Limits(k=5, per_artist=1), Limits(k=2)])
def test_no_journey_has_a_stronger_weakest_step(limits):
    """As by trying every order of 9 tracks; two of them are versions of one recording."""
    for seed in range(6):
        generator = np.random.default_rng(seed)
        x = unit(generator.normal(size=(9, 3)))
        x[8] = x[7]
        made = [
            Song(str(i), Path(str(i)), artist=f"Artist {i % 5}", duration_s=99) for i in range(9)
        ]
        small = Collection.of(made, x)
        x = small.vectors(range(9)).astype(float)

        def weakest(rows, x=x):
            return min(a @ b for a, b in itertools.pairwise(x[list(rows)]))

        def allowed(rows):
            inner = [i % 5 for i in rows]
            return not {7, 8} <= set(rows) and (not limits.per_artist or len(set(inner)) == 5)

        ways = [(0, *w, 4) for w in itertools.permutations({1, 2, 3, 5, 6, 7, 8}, limits.k - 2)]
        best = max((weakest(way) for way in ways if allowed(way)), default=None)
        if best is None:
            with pytest.raises(PlaylistError, match="too few"):
                journeys.journey(small, "0", "4", limits)
        else:
            hits = journeys.journey(small, "0", "4", limits)
            assert allowed([h.row for h in hits])
            assert min(h.cosine for h in hits[1:]) == pytest.approx(best, abs=1e-6)


def test_a_journey_takes_the_stepping_stones():
    """Two islands far apart, and stones between them that lie far from the straight way."""
    generator = np.random.default_rng(4)
    angle = np.concatenate([np.zeros(20), np.linspace(0, np.pi / 2, 8), np.full(20, np.pi / 2)])
    detour = np.sin(2 * angle)
    x = np.stack([np.cos(angle), np.sin(angle), 1.5 * detour, *np.zeros((9, 48))], axis=1)
    x = unit(unit(x) + 0.02 * generator.normal(size=x.shape))
    library = Collection.of([Song(str(i), Path(str(i))) for i in range(48)], x)
    widest = library.vectors(range(48)) @ library.vectors(range(48)).T
    for middle in range(48):  # Floyd and Warshall
        widest = np.maximum(widest, np.minimum(widest[:, [middle]], widest[middle]))
    for count in (8, 20):
        hits = journeys.journey(library, "0", "47", Limits(k=count))
        assert len({h.row for h in hits}) == count
        assert min(h.cosine for h in hits[1:]) == pytest.approx(widest[0, 47], abs=1e-6)


def test_arc_keeps_its_pace_even_between_opposites():
    a = unit(np.array([[1.0, 2.0, 3.0]]))[0]
    for b in (unit(np.array([[3.0, -1.0, 0.5]]))[0], -a, a):
        points = journeys.arc(a, b, 7)
        np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1.0)
        np.testing.assert_allclose(points[0], a, atol=1e-7)
        np.testing.assert_allclose(points[-1], b, atol=1e-7)
        cosines = (points[1:] * points[:-1]).sum(axis=1)
        np.testing.assert_allclose(cosines, cosines[0], atol=1e-7)


def test_axis_positions_and_tracks_along_it(tracks):
    line = journeys.axis(tracks, "Dark Techno:Deep House")
    assert (line.start, line.end) == (("Techno", "Dark Techno"), ("House", "Deep House"))
    ends = line.position(np.stack([line.origin, line.origin + line.direction]))
    np.testing.assert_allclose(ends, [0, 1], atol=1e-12)
    where = journeys.positions(tracks, line)
    assert where[:120:3].mean() < 0.2 < 0.8 < where[2:120:3].mean()
    hits = journeys.along(tracks, line, Limits(k=9))
    scores = [h.score for h in hits]
    assert scores == sorted(scores)
    assert len({h.row for h in hits}) == 9
    assert of(hits)[0] == 0
    assert of(hits)[-1] == 2
    assert scores[0] < 0.25 < 0.75 < scores[-1]


def test_an_axis_is_spread_as_evenly_as_the_library_allows():
    """As by trying every choice: no other list of its length has a smaller sum of squares."""
    for seed in range(5):
        generator = np.random.default_rng(seed)
        at = np.concatenate([[0.0, 1.0], generator.beta(0.4, 0.6, 10)])
        names = ["A", "B", *[""] * 10]
        line = np.stack([1 - at, at, np.zeros(12)], axis=1)
        made = [Song(str(i), Path(str(i)), "G" if n else "", n) for i, n in enumerate(names)]
        library = Collection.of(made, unit(line))
        hits = journeys.along(library, journeys.axis(library, "A:B"), Limits(k=6))
        found = [h.score for h in hits]
        where = sorted(journeys.positions(library, journeys.axis(library, "A:B")))
        choices = [(where[0], *c, where[-1]) for c in itertools.combinations(where[1:-1], 4)]
        best = min((np.diff(c) @ np.diff(c), c) for c in choices)
        np.testing.assert_allclose(found, best[1], atol=1e-6)


def test_an_axis_leaves_out_what_is_like_neither_end(tracks):
    line = journeys.axis(tracks, "Dark Techno:Deep House")
    hits = journeys.along(tracks, line, Limits(k=12))
    assert np.mean([o == 1 for o in of(hits)]) < 0.1
    scores = [h.score for h in journeys.along(tracks, line, Limits(k=5), between=(0.1, 0.9))]
    np.testing.assert_allclose(scores, np.linspace(0.1, 0.9, 5), atol=0.1)


def test_lists_say_where_the_library_has_no_way():
    """Tracks lie on an arc from A to B, all along it or only near its ends."""

    def library(angle):
        x = np.stack([np.cos(angle), np.sin(angle), np.zeros(len(angle))], axis=1)
        names = ["A" if a < 0.2 else "B" if a > 1.37 else "" for a in angle]
        return Collection.of(
            [Song(str(i), Path(str(i)), "G" if n else "", n) for i, n in enumerate(names)], x
        )

    every = np.linspace(0, np.pi / 2, 200)
    way = PlaylistRequest(("0", "199"), journey=True, tracks=10)
    line = PlaylistRequest(axis="A:B", tracks=10)
    for request in (way, line):
        whole = library(every)
        assert requests.notes(whole, request, requests.make(whole, request)) == []
    angle = np.concatenate([every[:60], every[140:]])
    split = library(angle)
    way = dataclasses.replace(way, seeds=("0", "119"))
    (note,) = requests.notes(split, way, requests.make(split, way))
    assert f"{np.cos(every[140] - every[59]):.2f}" in note
    (note,) = requests.notes(split, line, requests.make(split, line))
    at = journeys.positions(split, journeys.axis(split, "A:B"))
    assert f"{at[59]:.2f} and {at[60]:.2f}" in note


def test_axis_with_colons_in_names():
    made = [Song(str(i), Path(str(i)), "G", ("A: x", "B")[i % 2]) for i in range(8)]
    line = journeys.axis(Collection.of(made, unit(np.eye(8) + 0.1)), "A: x:B")
    assert (line.start[1], line.end[1]) == ("A: x", "B")
    with pytest.raises(PlaylistError, match="no colon"):
        journeys.axis(Collection.of(made, np.eye(8)), "A")
    with pytest.raises(PlaylistError, match="same subgenre"):
        journeys.axis(Collection.of(made, np.eye(8)), "B:B")


# order ------------------------------------------------------------------------------------------


def test_order_is_near_the_shortest_of_all(tracks):
    for seed in range(5):
        generator = np.random.default_rng(seed)
        x = unit(generator.normal(size=(7, 4)))
        cost = ordering.costs(x, generator.choice([0.0, 90, 120, 128, 180], 7))
        best = min(ordering.length(cost, p) for p in itertools.permutations(range(7)))
        found = ordering.shortest_path(cost)
        assert sorted(found) == list(range(7))
        assert ordering.length(cost, found) <= 1.1 * best
        held = ordering.shortest_path(cost, start=True)
        assert held[0] == 0
        of_those = min(ordering.length(cost, (0, *p)) for p in itertools.permutations(range(1, 7)))
        assert ordering.length(cost, held) <= 1.15 * of_those


def test_tempo_counts_where_tags_have_it():
    x = unit(np.ones((4, 3)))
    cost = ordering.costs(x, np.array([120.0, 60.0, 126.0, 0.0]))
    assert cost[0, 1] == pytest.approx(0.0, abs=1e-12)  # half tempo mixes
    assert cost[0, 2] == pytest.approx(ordering.BPM_WEIGHT * np.log2(1.05))
    assert cost[0, 3] == pytest.approx(0.0, abs=1e-12)
    np.testing.assert_allclose(cost, cost.T)


def test_smoothed_keeps_the_tracks_and_shortens_the_way(tracks):
    hits = playlists.expand(tracks, "Deep House", Limits(k=25), until_fit=None)
    ordered = playlists.smoothed(tracks, hits)
    assert sorted(h.row for h in ordered) == sorted(h.row for h in hits)

    def way(some):
        bpm = np.array([h.track.bpm for h in some])
        cost = ordering.costs(tracks.vectors([h.row for h in some]), bpm)
        return ordering.length(cost, range(len(some)))

    assert way(ordered) < 0.8 * way(hits)
    begun = playlists.smoothed(tracks, hits, first=hits[7].track.id)
    assert begun[0].row == hits[7].row
    x = tracks.vectors([h.row for h in ordered])
    np.testing.assert_allclose([h.cosine for h in ordered][1:], (x[1:] * x[:-1]).sum(axis=1))
