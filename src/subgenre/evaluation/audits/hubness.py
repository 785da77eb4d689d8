"""Hubness: are a few tracks in every list of similar tracks, and others in none?

Radovanovic, Nanopoulos and Ivanovic (JMLR 11, 2010) count k-occurrence: how many lists of k nearest
tracks hold each track. Its skewness is 0 where all tracks are recommended equally often. The remedy
measured here is mutual proximity (Schnitzer et al., JMLR 13, 2012).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from subgenre.core.text import percent
from subgenre.evaluation.audits.base import Audit, Context, Section, Table
from subgenre.evaluation.audits.probe import checked
from subgenre.metrics.vectors import Ints, unit
from subgenre.search.similarity import k_occurrence, neighbours, skewness

LENGTH = 10  # of a list, at most
HUB = 5  # a hub is in more than this many times k lists


@dataclass(frozen=True)
class Occurrence:
    """How often tracks are recommended.

    Attributes:
        skewness: of k-occurrence. most: the largest k-occurrence.
        never_share: of tracks in no list, 0..1. hub_share: of tracks in more than 5 k lists.
        same_share: of neighbours of the same subgenre, 0..1.
        hubs: positions of the tracks that are recommended most, at most 5.
    """

    skewness: float
    never_share: float
    hub_share: float
    most: int
    same_share: float
    hubs: tuple[int, ...]


@dataclass(frozen=True)
class Hubness:
    """K-occurrence among n_tracks lists of k, by plain cosine and by mutual proximity."""

    n_tracks: int
    k: int
    cosine: Occurrence
    mutual: Occurrence
    text: str


def run(context: Context) -> Hubness:
    """Measure hubness among the evaluated tracks, by cosine and by mutual proximity.

    Raises: EvaluationError for vectors that are not finite.
    """
    rows = _evaluated(context)
    x, y = checked(context.vectors[rows], context.labels[rows])
    k = min(LENGTH, len(x) - 1)
    near = unit(x).astype(np.float32)
    before, after = (_occurrence(neighbours(near, k, mutual=m), y, k) for m in (False, True))
    text = (
        f"{percent(before.never_share)} of the tracks are in no list of {k}; "
        f"{percent(after.never_share)} with mutual proximity"
    )
    return Hubness(len(x), k, before, after, text)


def _occurrence(nearest: Ints, labels: Ints, k: int) -> Occurrence:
    counts = k_occurrence(nearest)
    hubs = np.argsort(-counts, kind="stable")[:5]
    return Occurrence(
        skewness=skewness(counts),
        never_share=float(np.mean(counts == 0)),
        hub_share=float(np.mean(counts > HUB * k)),
        most=int(counts.max()),
        same_share=float(np.mean(labels[nearest] == labels[:, None])),
        hubs=tuple(hubs[counts[hubs] > k].tolist()),
    )


def _evaluated(context: Context) -> Ints:
    return np.flatnonzero(np.isfinite(context.vectors[:, 0]))


def section(found: Hubness, context: Context) -> Section:
    """Compare both ways of searching, and name the most frequent tracks."""
    figures: dict[str, Callable[[Occurrence], str]] = {
        "Tracks in no list": lambda o: percent(o.never_share),
        "Skewness: 0 if all tracks are in equally many lists, more with hubs": lambda o: (
            f"{o.skewness:z.2f}"
        ),
        "Lists that hold the most frequent track": lambda o: str(o.most),
        "Tracks in over five times their share of lists": lambda o: percent(o.hub_share),
        "Neighbours of the same subgenre": lambda o: percent(o.same_share),
    }
    rows = tuple((what, text(found.cosine), text(found.mutual)) for what, text in figures.items())
    hubs = [context.tracks[i] for i in _evaluated(context)[list(found.cosine.hubs[:3])]]
    names = ", ".join(track.title or track.path.stem for track in hubs)
    return Section(
        "hubness",
        "Hubs",
        f"Are some tracks recommended everywhere and others nowhere? Each of {found.n_tracks} "
        f"tracks gets a list of its {found.k} most similar tracks, by cosine and by mutual "
        "proximity, which corrects for such hubs.",
        f"Most frequent in the lists by cosine: {names}." if names else "",
        (Table(("", "Cosine", "Mutual proximity"), rows, "Hubs"),),
    )


AUDIT = Audit("hubness", run, section)
