"""The strategies against their definitions, and `random` against the distribution it claims."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from subgenre.config import CHUNK_STRATEGIES
from subgenre.dataset.starts import chunk_starts
from subgenre.errors import ConfigError


def draw(duration_s, **options):
    usual = {"chunk_s": 10.0, "max_chunks": 3, "strategy": "random", "seed": 0, "track_id": "a"}
    return chunk_starts(duration_s, **usual | options)


def test_sequential_gives_the_first_windows():
    assert draw(100, strategy="sequential") == [0.0, 10.0, 20.0]
    assert draw(29.9, strategy="sequential") == [0.0, 10.0]
    assert draw(30, strategy="sequential") == [0.0, 10.0, 20.0]


def test_spaced_is_linspace_and_may_overlap():
    assert draw(110, strategy="spaced") == [0.0, 50.0, 100.0]
    assert draw(15, strategy="spaced") == [0.0, 2.5, 5.0]
    assert draw(110, strategy="spaced", max_chunks=1) == [0.0]


@pytest.mark.parametrize("strategy", CHUNK_STRATEGIES)
@pytest.mark.parametrize("duration_s", [0.0, 4.0, 10.0])
def test_one_chunk_or_less_gives_one_start(strategy, duration_s):
    assert draw(duration_s, strategy=strategy) == [0.0]


@given(
    duration_s=st.floats(0.1, 4000),
    chunk_s=st.floats(0.5, 60),
    max_chunks=st.integers(1, 20),
    strategy=st.sampled_from(CHUNK_STRATEGIES),
    others=st.fixed_dictionaries({"seed": st.integers(-5, 2**70), "track_id": st.text()}),
)
def test_windows_overlap_only_when_spaced(duration_s, chunk_s, max_chunks, strategy, others):
    options = {"chunk_s": chunk_s, "max_chunks": max_chunks, "strategy": strategy}
    found = draw(duration_s, **options, **others)
    assert 1 <= len(found) <= max_chunks
    assert found == sorted(found)
    assert found[0] >= 0
    assert found[-1] + chunk_s <= max(duration_s, chunk_s) + 1e-4
    if strategy != "spaced":
        assert len(found) == min(max_chunks, max(1, int((duration_s + 1e-6) / chunk_s)))
        assert (np.diff(found) >= chunk_s - 1e-6).all()


@given(duration_s=st.integers(1, 40), chunk_s=st.integers(1, 12), max_chunks=st.integers(1, 9))
def test_starts_are_those_of_the_loops(duration_s, chunk_s, max_chunks):
    options = {"chunk_s": chunk_s, "max_chunks": max_chunks}
    first, start = [], 0
    while start == 0 or (start + chunk_s <= duration_s and len(first) < max_chunks):
        first.append(start)
        start += chunk_s
    assert draw(duration_s, **options, strategy="sequential") == first
    spaced = draw(duration_s, **options, strategy="spaced")
    steps = np.diff([*spaced, duration_s - chunk_s])[:-1]
    if duration_s > chunk_s:  # even steps from the beginning to the end
        assert len(spaced) == max_chunks
        np.testing.assert_allclose(steps, steps[:1].repeat(len(steps)), atol=1e-9)
        assert max_chunks == 1 or spaced[-1] + chunk_s == pytest.approx(duration_s)
    filling = -(-duration_s // chunk_s)  # so many chunks leave nothing out
    spaced = draw(duration_s, chunk_s=chunk_s, max_chunks=filling, strategy="spaced")
    assert (np.diff(spaced) <= chunk_s + 1e-9).all()
    assert spaced[-1] + chunk_s >= duration_s - 1e-9


def test_random_depends_on_the_seed_and_the_track_alone():
    assert draw(200) == draw(200)
    assert draw(200) != draw(200, seed=1)
    assert draw(200) != draw(200, track_id="b")
    assert draw(200, seed=1, track_id="1") != draw(200, seed=11, track_id="")


def test_random_is_uniform_over_all_sets_of_windows_that_do_not_overlap():
    # the reference draws three starts anywhere and throws away what overlaps
    rng = np.random.default_rng(0)
    tried = np.sort(rng.uniform(0, 50, (60_000, 3)), axis=1)
    reference = tried[(np.diff(tried, axis=1) >= 10).all(axis=1)]
    found = np.array([draw(60, track_id=str(i)) for i in range(4000)])
    for column in range(3):
        grid = np.linspace(0, 50, 51)
        ours = np.searchsorted(np.sort(found[:, column]), grid) / len(found)
        theirs = np.searchsorted(np.sort(reference[:, column]), grid) / len(reference)
        # Kolmogorov-Smirnov, one in 10,000: 2.23 / sqrt(n) for the two samples
        assert np.abs(ours - theirs).max() < 2.23 * np.sqrt(1 / len(found) + 1 / len(reference))


def test_bad_arguments_are_refused():
    with pytest.raises(ConfigError, match="did you mean 'random'"):
        draw(60, strategy="randon")
    with pytest.raises(ConfigError, match="duration_s nan"):
        draw(float("nan"))
    with pytest.raises(ConfigError, match="chunk_s is 0"):
        draw(60, chunk_s=0)
