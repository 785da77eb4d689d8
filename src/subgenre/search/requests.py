"""A request for a list of tracks, the same for the command line, the API and HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from subgenre.core import text
from subgenre.errors import PlaylistError
from subgenre.search import journeys, playlists
from subgenre.search.collection import MIN_MUTUAL, Collection
from subgenre.search.playlists import Seed
from subgenre.search.ranking import Hit, Limits
from subgenre.search.track_rows import Filter

if TYPE_CHECKING:
    from subgenre.search.classifier import Classifier

TRACKS = 20  # in a list whose length is not given


@dataclass(frozen=True)
class PlaylistRequest:
    """What a list is made from, what it may hold, and how long it is.

    Attributes:
        seeds: tracks by id, path, title or file, or vectors [D]; several count by agreement.
        expand: a subgenre to find more tracks for. until_fit: how well a track must fit it, as a
            probability; None: no limit. like, unlike: tracks that the list moves towards, and
            away from.
        journey: from the first of two seeds to the second.
        axis: two subgenres, 'A:B'. between: lowest and highest position on the axis; 0 and 1 are
            the centroids of the two; None: from end to end.
        smooth: order the list so that neighbours are similar.
        mutual: rank by mutual proximity, else by cosine.
        tracks, minutes: length. per_artist: most tracks of one artist; 0: no limit.
        versions: keep several versions of one recording.
        filter: which tracks the list may hold.

    Raises:
        PlaylistError: nothing to begin with, two kinds of list at once, or no possible length.
    """

    seeds: Sequence[Seed] = ()
    expand: str = ""
    until_fit: float | None = None
    like: Sequence[Seed] = ()
    unlike: Sequence[Seed] = ()
    journey: bool = False
    axis: str = ""
    between: tuple[float, float] | None = None
    smooth: bool = False
    mutual: bool = True
    tracks: int | None = None
    minutes: float | None = None
    per_artist: int = 0
    versions: bool = False
    filter: Filter | None = None

    def __post_init__(self) -> None:
        kinds = [name for name in ("expand", "journey", "axis") if getattr(self, name)]
        if len(kinds) > 1:
            raise PlaylistError(f"--{kinds[0]} and --{kinds[1]} are two kinds of list; choose one")
        if kinds in (["expand"], ["axis"]) and len(self.seeds):
            raise PlaylistError(f"a list by --{kinds[0]} takes no seeds; leave them out")
        if self.smooth and (self.journey or self.axis):
            raise PlaylistError(f"--{kinds[0]} has an order of its own; leave out --smooth")
        if self.until_fit is not None and not self.expand:
            raise PlaylistError("--until-fit needs a subgenre; give --expand")
        if self.between is not None and not self.axis:
            raise PlaylistError("--between needs two subgenres; give --axis")
        if self.journey and len(self.seeds) != 2:
            raise PlaylistError(f"a journey needs two seeds, not {len(self.seeds)}")
        if (len(self.like) or len(self.unlike)) and not self.expand:
            raise PlaylistError("--like and --unlike need a subgenre; give --expand")
        if not kinds and not len(self.seeds):
            raise PlaylistError("no seed is given; name a track, or use --expand or --axis")
        for name, value in (("tracks", self.tracks), ("minutes", self.minutes)):
            if value is not None and not value > 0:
                raise PlaylistError(f"{name} is {value}; give more than 0")
        if self.per_artist < 0:
            raise PlaylistError(f"--per-artist is {self.per_artist}; give 0 for no limit, or more")

    @property
    def limits(self) -> Limits:
        """When the list is full; a list that ends by fit needs no length."""
        tracks = self.tracks
        if tracks is None and self.minutes is None and not (self.expand and self.until_fit):
            tracks = TRACKS
        return Limits(tracks, self.minutes, self.per_artist, self.versions)


class Ranking(NamedTuple):
    """What orders a list: a short name, and a sentence that explains the columns."""

    name: str
    sentence: str


def ranking(n_tracks: int, request: PlaylistRequest) -> Ranking:
    """Return what orders the list of a request, from that many tracks."""
    mutual = request.mutual and n_tracks >= MIN_MUTUAL
    measure = "mutual proximity" if mutual else "cosine"
    if request.axis:
        return Ranking("axis", "Ordered by position on the axis. Cosine: to that point.")
    if request.journey:
        return Ranking("journey", "In the order of the journey. Cosine: to the previous track.")
    if request.expand:
        name = "fits"
        sentence = (
            "Ranked by how well a track fits: the probability that it belongs. "
            "Cosine: to the centroid."
        )
        if len(request.like) or len(request.unlike):
            sentence += " Before: the place without --like and --unlike."
    elif len(request.seeds) > 1:
        name = "agreement"
        sentence = f"Ranked by the agreement of the seeds, each by {measure}. Cosine: the mean."
    elif mutual:
        name = measure
        sentence = (
            "Ranked by mutual proximity, which ranks down tracks that are near to everything. "
            "--plain ranks by cosine."
        )
    else:
        name, sentence = measure, "Ranked by cosine."
        if request.mutual:
            sentence += f" Mutual proximity needs at least {MIN_MUTUAL} tracks."
    if request.smooth:
        sentence = sentence.split(" Cosine:")[0]
        sentence += " Then ordered so that neighbours are similar. Cosine: to the previous track."
    return Ranking(name, sentence)


def make(
    tracks: Collection,
    request: PlaylistRequest,
    *,
    classifier: Classifier | None = None,
) -> list[Hit]:
    """Make the list of a request; its seeds are not in it, the two ends of a journey are.

    Args:
        classifier: of the model; it says how well a track fits.

    Raises:
        PlaylistError: an unknown track or subgenre. IndexStoreError: an unknown name in the filter.
    """
    limits, chosen, mutual = request.limits, request.filter, request.mutual
    if request.axis:
        line = journeys.axis(tracks, request.axis)
        return journeys.along(tracks, line, limits, chosen, between=request.between)
    if request.journey:
        return journeys.journey(tracks, request.seeds[0], request.seeds[1], limits, chosen)
    if request.expand:
        hits = playlists.expand(
            tracks,
            request.expand,
            limits,
            chosen,
            until_fit=request.until_fit,
            like=request.like,
            unlike=request.unlike,
            classifier=classifier,
        )
    else:
        hits = playlists.similar(tracks, request.seeds, limits, chosen, mutual=mutual)
    if request.smooth:
        first = request.seeds[0] if len(request.seeds) else None
        hits = playlists.smoothed(tracks, hits, first=first)
    return hits


def notes(tracks: Collection, request: PlaylistRequest, hits: Sequence[Hit]) -> list[str]:
    """Return where a list falls short, in sentences: too few tracks, a leap, gaps of an axis."""
    if request.journey:
        return _leap(hits, journeys.leap(tracks, hits))
    if not hits:
        return []
    if not request.axis:
        return _few(request, len(hits))
    said, between = [], request.between
    requested = journeys.length(tracks, request.limits)
    if len(hits) < requested:
        low, high = sorted(between or (0.0, 1.0))
        count = text.counted(len(hits), "track")
        said = [f"{count} instead of {requested}: no more lie between {low:g} and {high:g}"]
    line = journeys.axis(tracks, request.axis)
    gaps = journeys.gaps(tracks, line, len(hits), request.filter, between=between)
    if gaps:
        where = ", ".join(f"between {low:.2f} and {high:.2f}" for low, high in gaps)
        said.append(f"the library has a gap on this axis: no track {where}")
    return said


def _few(request: PlaylistRequest, count: int) -> list[str]:
    """Say that the filter leaves fewer tracks than the list has room for."""
    number = request.limits.k
    filtered = request.filter not in (None, Filter()) and not request.until_fit
    if not filtered or number is None or count >= number or request.minutes is not None:
        return []
    return [f"only {count} of the {number} asked for pass the filter"]


def _leap(hits: Sequence[Hit], place: int) -> list[str]:
    if not place:
        return []
    before, after = hits[place - 1], hits[place]
    return [
        f"no smooth way: the weakest step has cosine {after.cosine:.2f}, from "
        f"{before.track.name} to {after.track.name}, and no other path of {len(hits)} tracks has "
        "a stronger weakest step; index more music"
    ]


def best_fit(
    tracks: Collection, request: PlaylistRequest, *, classifier: Classifier | None
) -> Hit | None:
    """Return the track that fits the expanded subgenre best, whatever its fit; None: no track."""
    closest = replace(request, until_fit=None, tracks=1, minutes=None)
    return next(iter(make(tracks, closest, classifier=classifier)), None)
