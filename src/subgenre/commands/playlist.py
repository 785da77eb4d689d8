"""Similar tracks and playlists of a model: seeds found by any name, lists made and written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from subgenre.audio import reading
from subgenre.commands.index import missing
from subgenre.commands.model_folder import ModelFolder
from subgenre.core import text
from subgenre.core.progress import Console, Silent
from subgenre.errors import AudioError, IndexStoreError, PlaylistError
from subgenre.library import formats
from subgenre.library.track import Track
from subgenre.search import journeys as journey
from subgenre.search import playlists
from subgenre.search.collection import MIN_MUTUAL, Collection
from subgenre.search.playlists import Seed
from subgenre.search.ranking import Hit, Limits
from subgenre.search.track_rows import Filter

TRACKS = 20  # of a playlist whose length is not named
NONE_LEFT = (
    "no track is left to choose from; drop a filter, or index more music (subgenre index FOLDER)"
)


@dataclass(frozen=True)
class Wish:
    """What a playlist is made from: seeds, or a subgenre to expand, or an axis.

    Attributes:
        seeds: tracks by id, path, title or file; vectors [D] serve too.
        expand: a subgenre to go on from. until_fit: least probability of belonging to it; None:
            no limit. like, unlike: tracks that the person wants more of, and less of.
        journey: from the first of two seeds to the second.
        axis: 'A:B', two subgenres. between: first and last position on it that a track may have;
            0 and 1 are their centroids; None: from end to end.
        smooth: order by small steps. mutual: rank by mutual proximity instead of cosine.
    """

    seeds: Sequence[Seed] = ()
    expand: str = ""
    until_fit: float | None = 0.9
    like: Sequence[Seed] = ()
    unlike: Sequence[Seed] = ()
    journey: bool = False
    axis: str = ""
    between: tuple[float, float] | None = None
    smooth: bool = False
    mutual: bool = True

    def __post_init__(self) -> None:
        """Refuse wishes that contradict each other.

        Raises:
            PlaylistError: nothing to begin with, or two ways at once.
        """
        ways = [name for name in ("expand", "journey", "axis") if getattr(self, name)]
        if len(ways) > 1:
            raise PlaylistError(f"--{ways[0]} and --{ways[1]} are two playlists; ask for one")
        if ways in (["expand"], ["axis"]) and len(self.seeds):
            raise PlaylistError(f"--{ways[0]} takes no seeds; name tracks with --like or drop it")
        if self.journey and len(self.seeds) != 2:
            raise PlaylistError(f"a journey has two ends, not {len(self.seeds)}: name two tracks")
        if (len(self.like) or len(self.unlike)) and not self.expand:
            raise PlaylistError("--like and --unlike refine --expand SUBGENRE; name it")
        if not ways and not len(self.seeds):
            raise PlaylistError("no seed: name tracks, or --expand SUBGENRE, or --axis A:B")


@dataclass(frozen=True)
class Ranking:
    """By what a list is in order: a short name, and a sentence that tells its numbers."""

    name: str
    sentence: str


def ranking(tracks: Collection, wish: Wish) -> Ranking:
    """Tell by what the list of a wish is in order."""
    mutual = wish.mutual and len(tracks) >= MIN_MUTUAL
    how = "mutual proximity" if mutual else "cosine"
    if wish.expand:
        told = Ranking("fit", "ranked by fit, the probability of belonging; cosine: to its middle")
    elif wish.axis:
        return Ranking("axis", "in order along the axis; cosine: to the place on it")
    elif wish.journey:
        return Ranking("journey", "in order of the way; cosine: to the track before")
    elif len(wish.seeds) > 1:
        by = f"ranked by the agreement of the seeds, each by {how}; cosine: the mean to them"
        told = Ranking("agreement", by)
    elif mutual:
        by = "ranked by mutual proximity, which holds back tracks that are near to everything"
        told = Ranking(how, f"{by}; --plain ranks by cosine")
    else:
        few = f": mutual proximity takes {MIN_MUTUAL} tracks or more" if wish.mutual else ""
        told = Ranking(how, f"ranked by cosine{few}")
    return replace(told, sentence=told.sentence + "; then put in small steps" * wish.smooth)


def similar(
    run: ModelFolder,
    tracks: Collection,
    track: Seed,
    limits: Limits | None = None,
    wanted: Filter | None = None,
    *,
    mutual: bool = True,
    console: Console | None = None,
) -> list[Hit]:
    """Find the tracks most similar to one, in the collection or outside it.

    Raises:
        PlaylistError: neither a track nor a file; the nearest name is told. AudioError: a file
        that can't be read. IndexStoreError: an unknown name in the filter.
    """
    seed = seeds(run, tracks, [track], console)[0]
    hits = playlists.similar(tracks, seed, limits, wanted, mutual=mutual)
    if not hits:
        (console or Silent()).warn(NONE_LEFT)
    return hits


def make(
    run: ModelFolder,
    tracks: Collection,
    wish: Wish,
    limits: Limits | None = None,
    wanted: Filter | None = None,
    *,
    console: Console | None = None,
) -> list[Hit]:
    """Make a playlist; seeds and liked tracks themselves are not in it, a journey's ends are.

    Where no track fits, the list is empty, and `console` hears why.

    Args:
        run: whose encoder embeds files from outside. tracks: to choose from.
        limits: by default `TRACKS` tracks; an expanded subgenre ends where tracks stop fitting.
        wanted: which tracks may be chosen.

    Raises:
        PlaylistError, IndexStoreError, AudioError: as for `similar`; an unknown subgenre.
    """
    limits = limits or Limits(k=None if wish.expand else TRACKS)
    begin = seeds(run, tracks, wish.seeds, console)
    if wish.expand:
        hits = _expanded(run, tracks, wish, limits, wanted, console)
    elif wish.axis:
        line = journey.axis(tracks, wish.axis)
        hits = journey.along(tracks, line, limits, wanted, between=wish.between)
        _tell_few(tracks, wish, limits, len(hits), console or Silent())
    elif wish.journey:
        hits = journey.journey(tracks, begin[0], begin[1], limits, wanted)
        _tell_outside(wish, begin, console or Silent())
    elif len(begin) == 1:
        hits = playlists.similar(tracks, begin[0], limits, wanted, mutual=wish.mutual)
    else:
        hits = playlists.agreement(tracks, begin, limits, wanted, mutual=wish.mutual)
    if wish.smooth and not (wish.axis or wish.journey):
        hits = playlists.smoothed(tracks, hits, first=begin[0] if begin else None)
    if not hits:
        (console or Silent()).warn(_why_none(run, tracks, wish, wanted, console))
    return hits


def _why_none(
    run: ModelFolder, tracks: Collection, wish: Wish, wanted: Filter | None, console: Console | None
) -> str:
    """Say why a list is empty: no track fits well enough, or none is left to choose from."""
    if wish.axis and wish.between:
        return (
            f"no track is left {_range(wish.between)} on the axis; widen --between, drop a filter, "
            "or index more music (subgenre index FOLDER)"
        )
    if not wish.expand:
        return NONE_LEFT
    best = _expanded(run, tracks, replace(wish, until_fit=None), Limits(k=1), wanted, console)
    if not best:
        return NONE_LEFT
    return (
        f"no track fits {wish.expand} with a probability of {wish.until_fit:g}; the best fit is "
        f"{floored(best[0].score)} ({best[0].track.name}): ask for less with --until-fit, or "
        "index more music (subgenre index FOLDER)"
    )


def _tell_outside(wish: Wish, begin: Sequence[Seed], console: Console) -> None:
    """Say which ends of a journey are files from outside, for which the nearest tracks stand."""
    pairs = zip(wish.seeds, begin, strict=True)
    names = [str(name) for name, seed in pairs if isinstance(seed, np.ndarray) and name is not seed]
    if len(names) == 1:
        console.info(
            f"{names[0]} is not in the index, so not in the list: the nearest track stands for it"
        )
    elif names:
        console.info(
            f"{' and '.join(names)} are not in the index, so not in the list: the nearest tracks "
            "stand for them"
        )


def _tell_few(tracks: Collection, wish: Wish, limits: Limits, count: int, console: Console) -> None:
    """Say where a range of an axis gives fewer tracks than were asked for; none is told apart."""
    asked = journey.length(tracks, limits)
    if wish.between and 0 < count < asked:
        found = text.counted(count, "track")
        console.info(f"only {found} of {asked} asked for: no more are left {_range(wish.between)}")


def _range(between: tuple[float, float]) -> str:
    low, high = sorted(between)
    return f"between {low:g} and {high:g}"


def floored(fit: float) -> str:
    """Tell a fit by three digits that are never above it, so that it serves as --until-fit."""
    return f"{math.floor(fit * 1000) / 1000:.3f}"


def _expanded(
    run: ModelFolder,
    tracks: Collection,
    wish: Wish,
    limits: Limits,
    wanted: Filter | None,
    console: Console | None,
) -> list[Hit]:
    held = [track_id for track_id in run.test_ids if tracks.has(track_id)]
    return playlists.expand(
        tracks,
        wish.expand,
        limits,
        wanted,
        until_fit=wish.until_fit,
        like=seeds(run, tracks, wish.like, console),
        unlike=seeds(run, tracks, wish.unlike, console),
        trusted=held or None,
        seed=run.settings.run.seed,
    )


def seeds(
    run: ModelFolder, tracks: Collection, names: Sequence[Seed], console: Console | None = None
) -> list[Seed]:
    """Find each seed: a file by its path or its sound, a track by id, path or name.

    A file that is not in the collection is embedded.

    Raises:
        PlaylistError: neither; the nearest name is told. AudioError: a file that can't be read.
    """
    found: list[Seed] = [_known(tracks, name) for name in names]
    outside = [i for i, seed in enumerate(found) if isinstance(seed, Path)]
    if not outside:
        return found
    embedded = run.embed([Path(str(found[i])) for i in outside], console=console or Silent())
    if embedded.skipped:
        first = embedded.skipped[0]
        raise PlaylistError(f"{first.path} can't serve as a seed: {first.reason}")
    for i, vector in zip(outside, embedded.vectors, strict=True):
        found[i] = vector
    return found


def _known(tracks: Collection, name: Seed) -> Seed:
    """Return a track's id, a vector as it is, or the path of a file to embed."""
    if isinstance(name, np.ndarray):
        return name
    path = Path(name)
    if path.is_file():
        try:
            row = tracks.row(path.absolute())
            if tracks.track(row).path == path.absolute():
                return tracks.track(row).id
        except IndexStoreError:
            pass
        try:
            found = reading.probe(path).id
        except AudioError as problem:
            raise AudioError(f"{path} can't serve as a seed: {problem}") from problem
        return found if tracks.has(found) else path
    try:
        return tracks.track(tracks.row(name)).id
    except IndexStoreError as problem:
        raise PlaylistError(f"{problem} (and there is no such file)") from problem


def write(out: Path | None, hits: Sequence[Hit], console: Console | None = None) -> None:
    """Write a list where one is wanted and not empty, and warn of tracks that are gone.

    Raises:
        PlaylistError: an extension of no playlist.
    """
    told, console = [hit.track for hit in hits], console or Silent()
    missing(told, console)
    if out is not None and not told:
        console.warn(f"{out} is not written")
    elif out is not None:
        formats.write_playlist(out, told)
        console.info(f"{out}: {text.counted(len(told), 'track')}")


def row(hit: Hit) -> dict[str, Any]:
    """Tell a hit in plain values."""
    track: Track = hit.track
    return {
        "id": track.id,
        "path": str(track.path),
        "artist": track.artist,
        "title": track.title,
        "genre": track.genre,
        "subgenre": track.subgenre,
        "bpm": track.bpm,
        "duration_s": track.duration_s,
        "cosine": round(hit.cosine, 6),
        "score": round(hit.score, 6),
    }
