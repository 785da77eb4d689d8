"""Lists from seeds: similar tracks, agreement of several seeds, more tracks of a subgenre.

Every function takes a `Collection`, returns `Hit`s in order without the seeds, and keeps to
`Limits`. For paths from one track to another, see `journeys`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from subgenre.errors import EvaluationError, IndexStoreError, PlaylistError
from subgenre.metrics.vectors import unit
from subgenre.search.collection import Collection
from subgenre.search.ordering import smooth
from subgenre.search.ranking import Hit, Limits, Picker, hits_of
from subgenre.search.similarity import Ints
from subgenre.search.track_rows import Filter, checked_unit

if TYPE_CHECKING:
    from subgenre.search.classifier import Classifier

Doubles = NDArray[np.float64]
Seed = str | Path | NDArray[np.floating]  # a track's id, path or name, or a vector [D]

RRF_CONSTANT = 60  # Cormack et al. 2009
DEPTH = 1000  # ranks of each seed that are fused at first
MAX_OTHERS = 2000  # tracks of other subgenres that members are compared with
LIKE, UNLIKE = 0.75, 0.15  # Manning et al. 2008; the centroid weighs 1


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
    until_fit: float | None = None,
    like: Sequence[Seed] = (),
    unlike: Sequence[Seed] = (),
    classifier: Classifier | None = None,
) -> list[Hit]:
    """Find more tracks for a subgenre, best first: those that fit it best.

    How well a track fits is the calibrated probability that `classify` gives it. Tracks that a
    person likes and does not like move the centroid (Rocchio, in Manning, Raghavan and Schütze,
    "Introduction to information retrieval", 2008, section 9.1.1).

    Args:
        tracks: the collection. subgenre: its name, or genre/subgenre.
        until_fit: lowest probability; None: only the limits apply.
        like, unlike: tracks that the list moves towards and away from; they are not in it.
        classifier: of the model; if it does not know the subgenre, one is fitted on the collection.

    Returns:
        hits with the probability as score, the cosine to the subgenre's centroid, and, with `like`
        or `unlike`, the place of each without them.

    Raises:
        PlaylistError: an unknown subgenre or track; no other labelled tracks to compare with;
            `until_fit` outside [0, 1].
    """
    if until_fit is not None and not 0 <= until_fit <= 1:
        raise PlaylistError(f"until_fit is {until_fit}; it must lie between 0 and 1, such as 0.9")
    pair = label(tracks, subgenre)
    members = tracks.members("/".join(pair))
    liked, unliked = ([place(tracks, name) for name in names] for names in (like, unlike))
    judged = {p.row for p in (*liked, *unliked) if p.row is not None}
    mask = tracks.allowed(filter)
    mask[members] = False
    every = np.flatnonzero(mask)
    rows = np.setdiff1d(every, sorted(judged))
    if classifier is None or pair not in classifier.labels:
        classifier = _fitted(tracks, members)
    number = classifier.labels.index(pair)
    before = _fits(tracks, every, classifier, number) if liked or unliked else None
    if before is not None:
        classifier = _moved(classifier, number, liked, unliked)
    fits = _fits(tracks, rows, classifier, number)
    order = np.lexsort((rows, -fits))
    if until_fit is not None:
        order = order[fits[order] >= until_fit]
    picker = Picker(tracks, limits, [*members.tolist(), *sorted(judged)])
    picker.extend(rows[order])
    at = np.searchsorted(rows, picker.rows)
    cosines = tracks.vectors(picker.rows) @ classifier.centroids[number]
    hits = hits_of(tracks, picker.rows, cosines, fits[at])
    if before is not None:
        places = 1 + np.argsort(np.lexsort((every, -before)))[np.searchsorted(every, picker.rows)]
        hits = [replace(hit, before=int(i)) for hit, i in zip(hits, places, strict=True)]
    return hits


def _fitted(tracks: Collection, members: Ints) -> Classifier:
    """Fit a classifier on the labelled tracks of a collection."""
    from subgenre.search import classifier

    others = np.setdiff1d(np.flatnonzero(tracks.labelled), members)
    if len(others) > MAX_OTHERS:
        others = np.sort(np.random.default_rng(0).choice(others, MAX_OTHERS, replace=False))
    rows = np.concatenate([members, others])
    labels = [(track.genre, track.subgenre) for track in tracks.tracks(rows)]
    try:
        return classifier.fit(tracks.vectors(rows), labels)
    except EvaluationError as problem:
        raise PlaylistError(f"{problem}; index tracks of other subgenres") from problem


def _moved(
    classifier: Classifier, number: int, like: Sequence[Place], unlike: Sequence[Place]
) -> Classifier:
    """Move one centroid towards liked tracks and away from others."""
    centroid = classifier.centroids[number].astype(np.float64)
    for weight, places in ((LIKE, like), (-UNLIKE, unlike)):
        if places:
            centroid += weight * np.mean([p.vector for p in places], axis=0)
    centroids = classifier.centroids.copy()
    centroids[number] = unit(centroid[None])[0]
    return replace(classifier, centroids=centroids)


def _fits(tracks: Collection, rows: Ints, classifier: Classifier, number: int) -> Doubles:
    """Return how well each row fits one subgenre of a classifier."""
    blocks = np.array_split(rows, 1 + len(rows) // 65_536)
    found = [classifier.probabilities(tracks.vectors(block))[:, number] for block in blocks]
    return np.concatenate(found)


def smoothed(tracks: Collection, hits: Sequence[Hit], *, first: Seed | None = None) -> list[Hit]:
    """Order hits so that neighbours are similar; the first is the nearest to `first`, if given.

    The cosines are then those to the track before, NaN for the first.
    """
    rows = [hit.row for hit in hits]
    if first is not None and len(rows):
        near = int(np.argmax(tracks.vectors(rows) @ place(tracks, first).vector))
        rows = [rows[near], *rows[:near], *rows[near + 1 :]]
    by_row = {hit.row: hit for hit in hits}
    rows = smooth(tracks, rows, start=first is not None)
    x = tracks.vectors(rows)
    cosines = [math.nan, *(x[1:] * x[:-1]).sum(axis=1).tolist()]
    return [replace(by_row[row], cosine=c) for row, c in zip(rows, cosines, strict=False)]
