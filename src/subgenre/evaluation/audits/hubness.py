"""Hubness: do a few tracks stand in everybody's list of similar tracks, and others in none?

Radovanovic, Nanopoulos and Ivanovic (JMLR 11, 2010) count k-occurrence: in how many lists of k
nearest tracks each track stands. Its skewness is 0 where all are recommended alike; anti-hubs are
never recommended. Mutual proximity (Schnitzer et al., JMLR 13, 2012) is the remedy measured here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from subgenre.core.text import percent
from subgenre.errors import EvaluationError
from subgenre.evaluation.audits.base import Audit, Context, Result, Section, Table
from subgenre.evaluation.audits.probe import checked
from subgenre.metrics.vectors import unit
from subgenre.search.similarity import k_occurrence, neighbours, skewness

HUB = 5  # a hub stands in more than this many times k lists


@dataclass(frozen=True)
class Occurrence(Result):
    """How often tracks are recommended.

    Attributes: skewness of k-occurrence; never_share: tracks in no list, 0..1; hub_share: tracks in
    more than 5 k lists; most: the largest k-occurrence; same_share: neighbours of the same
    subgenre, 0..1; hubs: positions of the tracks that are recommended most, at most 5.
    """

    skewness: float
    never_share: float
    hub_share: float
    most: int
    same_share: float
    hubs: tuple[int, ...]


@dataclass(frozen=True)
class Hubness(Result):
    """K-occurrence among n_tracks lists of k, by plain cosine and by mutual proximity."""

    n_tracks: int
    k: int
    cosine: Occurrence
    mutual: Occurrence
    text: str


def hubness(vectors: ArrayLike, labels: ArrayLike, *, k: int = 10) -> Hubness:
    """Measure hubness before and after mutual proximity.

    Shapes: vectors [N, D], labels [N]. k falls to N - 1 in small libraries.

    Raises: EvaluationError for vectors that are not finite or fewer than three tracks.
    """
    x, y = checked(vectors, labels)
    if len(x) < 3:
        raise EvaluationError(f"{len(x)} tracks are too few to have neighbours; 3 are needed")
    k = min(k, len(x) - 1)
    near = unit(x).astype(np.float32)
    before, after = (_occurrence(neighbours(near, k, mutual=m), y, k) for m in (False, True))
    text = (
        f"{percent(before.never_share)} of the tracks are in no list of {k}; "
        f"{percent(after.never_share)} with mutual proximity"
    )
    return Hubness(len(x), k, before, after, text)


def _occurrence(nearest: np.ndarray, labels: np.ndarray, k: int) -> Occurrence:
    counts = k_occurrence(nearest)
    hubs: Sequence[int] = np.argsort(-counts, kind="stable")[:5].tolist()
    return Occurrence(
        skewness=skewness(counts),
        never_share=float(np.mean(counts == 0)),
        hub_share=float(np.mean(counts > HUB * k)),
        most=int(counts.max()),
        same_share=float(np.mean(labels[nearest] == labels[:, None])),
        hubs=tuple(h for h in hubs if counts[h] > k),
    )


def run(context: Context) -> Hubness:
    """Measure hubness among the evaluated tracks."""
    rows = np.flatnonzero(np.isfinite(context.vectors[:, 0]))
    return hubness(context.vectors[rows], context.labels[rows])


def section(found: Hubness, context: Context) -> Section:
    """Show both ways of searching side by side, and name the most frequent tracks."""
    tracks = [
        t for t, row in zip(context.tracks, context.vectors, strict=True) if np.isfinite(row[0])
    ]
    lines: tuple[tuple[str, Callable[[Occurrence], str]], ...] = (
        ("Tracks in no list", lambda o: percent(o.never_share)),
        ("Skewness of the number of lists a track is in (0: even)", lambda o: f"{o.skewness:.2f}"),
        ("Lists that hold the most frequent track", lambda o: str(o.most)),
        ("Tracks in over five times their share of lists", lambda o: percent(o.hub_share)),
        ("Neighbours of the same subgenre", lambda o: percent(o.same_share)),
    )
    names = [tracks[i].title or tracks[i].path.stem for i in found.cosine.hubs[:3]]
    return Section(
        "hubness",
        "Hubs",
        f"Are some tracks recommended everywhere and others nowhere? Each of {found.n_tracks} "
        f"tracks gets a list of its {found.k} most similar tracks, by cosine and by mutual "
        "proximity, which corrects for such hubs.",
        f"Most frequent in the lists by cosine: {', '.join(names)}." if names else "",
        (
            Table(
                ("", "Cosine", "Mutual proximity"),
                tuple((what, read(found.cosine), read(found.mutual)) for what, read in lines),
                "Hubs",
            ),
        ),
    )


AUDIT = Audit("hubness", run, section)
