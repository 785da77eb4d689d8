"""Lists from seeds: similar tracks, agreement of several seeds, more tracks of a subgenre.

Every function takes a `Collection`, returns `Hit`s in order without the seeds, and keeps to
`Limits`. For paths from one track to another, see `journeys`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from subgenre.errors import IndexStoreError, PlaylistError
from subgenre.metrics.vectors import unit
from subgenre.search import belonging
from subgenre.search.collection import Collection
from subgenre.search.ordering import smooth
from subgenre.search.ranking import Hit, Limits, Picker, hits_of
from subgenre.search.similarity import Ints
from subgenre.search.track_rows import Filter, checked_unit
from subgenre.search.versions import artist_key

Seed = str | Path | NDArray[np.floating]  # a track's id, path or name, or a vector [D]

RRF_CONSTANT = 60  # Cormack et al. 2009
DEPTH = 1000  # ranks of each seed that are fused at first
MAX_OTHERS = 2000  # tracks of other subgenres that members are compared with


@dataclass(frozen=True)
class Place:
    """A seed: its vector [D], and its row if it is a track of the collection."""

    vector: NDArray[np.float32]
    row: int | None


def place(tracks: Collection, seed: Seed) -> Place:
    """Find a seed in the collection, or check its vector and scale it to norm 1."""
    try:
        if not isinstance(seed, np.ndarray):
            row = tracks.row(seed)
            return Place(tracks.vectors([row])[0], row)
        if seed.shape == (tracks.dim,):
            return Place(checked_unit(seed[None], 1)[0], None)
    except IndexStoreError as problem:
        raise PlaylistError(str(problem)) from problem
    raise PlaylistError(
        f"the query has shape {seed.shape}, but the vectors of the index have {tracks.dim} "
        "values; use the model that made the index"
    )


def label(tracks: Collection, name: str) -> tuple[str, str]:
    """Find the (genre, subgenre) that a name means."""
    try:
        return tracks.label(name)
    except IndexStoreError as problem:
        raise PlaylistError(str(problem)) from problem


def similar(
    tracks: Collection,
    seeds: Sequence[Seed],
    limits: Limits,
    filter: Filter | None = None,
    *,
    mutual: bool = True,
) -> list[Hit]:
    """Find the tracks most similar to one seed, or those that several seeds agree on, best first.

    Several seeds agree by reciprocal rank fusion: each ranks the library, and the score of a track
    is the sum of 1 / (60 + rank), so that it must be near several seeds. The mean of their vectors
    would find the most average music between them instead. (Cormack, Clarke and Büttcher,
    "Reciprocal rank fusion outperforms Condorcet", SIGIR 2009.)

    Args:
        mutual: rank by mutual proximity, else by cosine.

    Returns:
        hits with the mean cosine to the seeds, and the score of the only seed or the fused one.

    Raises:
        PlaylistError: no seed, or an unknown one. IndexStoreError: an unknown name in the filter.
    """
    if not len(seeds):
        raise PlaylistError("no seed is given; name at least one track")
    places = [place(tracks, seed) for seed in seeds]
    own = [p.row for p in places if p.row is not None]
    queries = np.stack([p.vector for p in places])
    mask = tracks.allowed(filter)
    mask[own] = False
    picker = Picker(tracks, limits, own)
    count = int(np.count_nonzero(mask))
    depth = DEPTH if len(seeds) > 1 else 2 * (limits.k or 128)
    while True:
        ranked = tracks.rank(queries, depth, allowed=mask, own=bool(own), mutual=mutual)
        if len(seeds) > 1:
            score = fuse([rows for rows, _ in ranked])
        else:
            score = dict(zip(ranked[0][0].tolist(), ranked[0][1].tolist(), strict=True))
        picker.extend(score)
        if picker.full or depth >= count:
            break
        depth *= 8
    cosines = (tracks.vectors(picker.rows) @ queries.T).mean(axis=1)
    return hits_of(tracks, picker.rows, cosines, [score[row] for row in picker.rows])


def fuse(ranked: Sequence[Ints]) -> dict[int, float]:
    """Sum 1 / (60 + rank) over rankings, ranks from 1: row -> score, best first."""
    score: dict[int, float] = {}
    for rows in ranked:
        for rank, row in enumerate(rows.tolist(), start=1):
            score[row] = score.get(row, 0.0) + 1.0 / (RRF_CONSTANT + rank)
    return dict(sorted(score.items(), key=lambda item: (-item[1], item[0])))


def expand(
    tracks: Collection,
    subgenre: str,
    limits: Limits,
    filter: Filter | None = None,
    *,
    until_fit: float | None = 0.9,
    like: Sequence[Seed] = (),
    unlike: Sequence[Seed] = (),
    trusted: Sequence[str] | None = None,
    seed: int = 0,
) -> list[Hit]:
    """Find more tracks that belong to a subgenre, best first, until they stop fitting.

    Each call fits a new model (see `belonging`), so `like` and `unlike` have an effect at once.

    Args:
        tracks: the collection. subgenre: its name, or genre/subgenre.
        until_fit: lowest calibrated probability of belonging; None: only the limits apply.
        like, unlike: tracks that the list moves towards and away from; they are not in it.
        trusted: ids to calibrate on, such as held-out tracks; None: all labelled tracks.
        seed: of the folds that calibrate.

    Returns:
        hits with the probability as score, and the cosine to the subgenre's centroid.

    Raises:
        PlaylistError: an unknown subgenre or track; no other labelled tracks to compare with;
            `until_fit` outside (0, 1].
    """
    if until_fit is not None and not 0 < until_fit <= 1:
        raise PlaylistError(f"until_fit is {until_fit}; it must lie between 0 and 1, such as 0.9")
    members = tracks.members("/".join(label(tracks, subgenre)))
    liked, unliked = ([place(tracks, name) for name in names] for names in (like, unlike))
    model = _belonging(tracks, members, liked, unliked, trusted, seed)
    own = {p.row for p in (*liked, *unliked) if p.row is not None} | set(members.tolist())
    mask = tracks.allowed(filter)
    mask[sorted(own)] = False
    rows = np.flatnonzero(mask)
    blocks = np.array_split(rows, 1 + len(rows) // 65_536)
    chance = np.concatenate([model.probabilities(tracks.vectors(block)) for block in blocks])
    order = np.lexsort((rows, -chance))
    if until_fit is not None:
        order = order[chance[order] >= until_fit]
    picker = Picker(tracks, limits, sorted(own))
    picker.extend(rows[order])
    score = dict(zip(rows.tolist(), chance.tolist(), strict=True))
    centroid = unit(tracks.vectors(members).sum(axis=0, keepdims=True))[0]
    cosines = tracks.vectors(picker.rows) @ centroid
    return hits_of(tracks, picker.rows, cosines, [score[row] for row in picker.rows])


def smoothed(tracks: Collection, hits: Sequence[Hit], *, first: Seed | None = None) -> list[Hit]:
    """Order hits so that neighbours are similar; the first is the nearest to `first`, if given."""
    rows = [hit.row for hit in hits]
    if first is not None and len(rows):
        near = int(np.argmax(tracks.vectors(rows) @ place(tracks, first).vector))
        rows = [rows[near], *rows[:near], *rows[near + 1 :]]
    by_row = {hit.row: hit for hit in hits}
    return [by_row[row] for row in smooth(tracks, rows, start=first is not None)]


def _belonging(
    tracks: Collection,
    members: Ints,
    like: Sequence[Place],
    unlike: Sequence[Place],
    trusted: Sequence[str] | None,
    seed: int,
) -> belonging.Belonging:
    """Fit members against the tracks of all other subgenres."""
    judged = [p.row for p in (*like, *unlike) if p.row is not None]
    if len(members) >= 4:
        members = np.setdiff1d(members, judged)
    others = np.setdiff1d(np.flatnonzero(tracks.labelled), [*members, *judged])
    if len(others) > MAX_OTHERS:
        others = np.sort(np.random.default_rng(seed).choice(others, MAX_OTHERS, replace=False))
    compared = tracks.tracks([*members, *others])
    return belonging.fit(
        tracks.vectors(members),
        tracks.vectors(others),
        [artist_key(track.artist) for track in compared],
        like=[p.vector for p in like],
        unlike=[p.vector for p in unlike],
        trusted=None if trusted is None else np.isin([t.id for t in compared], list(trusted)),
        seed=seed,
    )
