"""Options of the commands that choose tracks: which model, which tracks, how long a list."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import Parameter

from subgenre.errors import ConfigError

if TYPE_CHECKING:
    from subgenre.search.ranking import Hit, Limits
    from subgenre.search.track_rows import Filter


@Parameter(name="*")
@dataclass(frozen=True)
class Source:
    """Whose vectors are searched."""

    run: Path | None = None
    "The model folder; by default the newest with vectors."
    index: Path | None = None
    "An index folder; by default the model's own, or the tracks it was trained and tested on."


@Parameter(name="*")
@dataclass(frozen=True)
class Wanted:
    """Which tracks may stand in a list, and how it is ranked."""

    genre: tuple[str, ...] = ()
    "Only tracks of this genre; may be given again."
    subgenre: tuple[str, ...] = ()
    "Only tracks of this subgenre; may be given again."
    artist: tuple[str, ...] = ()
    "Only tracks of this artist; may be given again."
    folder: tuple[Path, ...] = ()
    "Only files below this folder; may be given again."
    min_bpm: float | None = None
    "Lowest tempo by the tags."
    max_bpm: float | None = None
    "Highest tempo by the tags."
    min_seconds: float | None = None
    "Shortest track."
    max_seconds: float | None = None
    "Longest track."
    per_artist: int = 0
    "At most this many tracks of one artist; 0: no limit."
    versions: bool = False
    "Keep several versions of one recording."
    plain: bool = False
    "Rank by cosine alone, without the correction of hubs (mutual proximity)."

    def filter(self) -> Filter:
        """Say it in the index's words.

        Raises:
            ConfigError: limits that nothing can meet.
        """
        from subgenre.search.track_rows import Filter

        return Filter(
            genre=self.genre,
            subgenre=self.subgenre,
            artist=self.artist,
            folder=tuple(str(folder.absolute()) for folder in self.folder),
            bpm=_between("bpm", self.min_bpm, self.max_bpm),
            duration_s=_between("seconds", self.min_seconds, self.max_seconds),
        )

    def limits(self, k: int | None, minutes: float | None = None) -> Limits:
        """Say how long the list may be.

        Raises:
            ConfigError: a number that makes no list.
        """
        from subgenre.search.ranking import Limits

        for name, value in (("tracks", k), ("minutes", minutes)):
            if value is not None and not value > 0:
                raise ConfigError(f"{value} {name} make no list; ask for more than 0")
        if self.per_artist < 0:
            raise ConfigError(f"--per-artist is {self.per_artist}; give 1 or more, or 0: no limit")
        return Limits(k, minutes, self.per_artist, self.versions)


def _between(name: str, low: float | None, high: float | None) -> tuple[float, float] | None:
    if low is None and high is None:
        return None
    low, high = low if low is not None else 0.0, high if high is not None else math.inf
    if not low <= high:
        raise ConfigError(f"--min-{name} {low:g} is above --max-{name} {high:g}; swap them")
    return low, high


def listed(hits: Sequence[Hit], by: str = "") -> tuple[list[str], list[list[str]]]:
    """Tell hits as columns and rows of a table.

    A list by `fit` shows the score that an expansion ends by, one by `axis` the position on it.
    """
    from subgenre.commands.playlist import floored

    score = {"fit": ["fit"], "axis": ["position"]}.get(by, [])
    columns = ["", "track", "subgenre", *score, "cosine", "bpm", "length"]
    told = [
        [
            str(place),
            hit.track.name,
            hit.track.subgenre or "-",
            *([floored(hit.score) if by == "fit" else f"{hit.score:.3f}"] if score else []),
            f"{hit.cosine:.3f}",
            f"{hit.track.bpm:.0f}" if hit.track.bpm else "-",
            clock(hit.track.duration_s) if hit.track.duration_s else "-",
        ]
        for place, hit in enumerate(hits, start=1)
    ]
    return columns, told


def clock(seconds: float) -> str:
    """Say a position in a track: '0:30', '1:02:03'."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d}"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
