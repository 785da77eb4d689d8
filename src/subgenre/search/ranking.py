"""Hits, and the limits on what a list of them may hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from subgenre.library.artists import NOBODY, listed
from subgenre.library.track import Track
from subgenre.search.collection import Collection
from subgenre.search.versions import recording_key

SAME_COSINE, SAME_S = 0.9995, 1.5  # two files as alike as this hold one recording
UNKNOWN_S = 240.0  # what a track of unknown duration adds to a list measured in minutes


@dataclass(frozen=True)
class Hit:
    """A track found by a search.

    Attributes:
        cosine: to the query, or to the track before; NaN for the first of these.
        score: what ranks it: the log of mutual proximity, the cosine, ...
        before: its place without the tracks that a person likes and does not like, from 1; None
            where there are none.
    """

    track: Track
    row: int
    cosine: float
    score: float
    before: int | None = None


@dataclass(frozen=True)
class Limits:
    """When a list is full, and what it may hold.

    Attributes:
        k: tracks; None: no limit. minutes: of music, the last track may exceed it; None: no limit.
        per_artist: most tracks of one artist; 0: no limit.
        versions: keep several versions of one recording.
    """

    k: int | None = 10
    minutes: float | None = None
    per_artist: int = 0
    versions: bool = False


class Picker:
    """Fills a list from candidates, best first, within `Limits`.

    Args:
        seeds: rows to leave out, with their other versions.
        chosen: rows that the list has from the start, whatever the limits.
    """

    def __init__(
        self,
        tracks: Collection,
        limits: Limits,
        seeds: Sequence[int] = (),
        chosen: Sequence[int] = (),
    ) -> None:
        self.tracks, self.limits = tracks, limits
        self.rows: list[int] = []
        self.seconds = 0.0
        self._taken = set(seeds)
        self._artists: Counter[str] = Counter()
        self._songs: dict[str, list[tuple[str, float]]] = {}
        self._seen: list[tuple[int, float]] = []
        for seed, track in zip(seeds, tracks.tracks(seeds), strict=True):
            self._remember(seed, track)
        for row in chosen:
            self._take(row, tracks.track(row))

    @property
    def full(self) -> bool:
        """Whether the list has its length."""
        k, minutes = self.limits.k, self.limits.minutes
        return (k is not None and len(self.rows) >= k) or (
            minutes is not None and self.seconds >= 60 * minutes
        )

    def offer(self, row: int) -> bool:
        """Take a row, unless the list is full, has it, or a limit excludes it; return whether."""
        if self.full or row in self._taken:
            return False
        track = self.tracks.track(row)
        cap = self.limits.per_artist
        if cap and any(self._artists[name] >= cap for name in _artists(track)):
            return False
        if not self.limits.versions and self._is_version(row, track):
            return False
        self._take(row, track)
        return True

    def extend(self, rows: Iterable[int]) -> None:
        """Offer rows in order until the list is full."""
        for row in rows:
            if self.full:
                break
            self.offer(int(row))

    def extend_by_one(self, rows: Iterable[int]) -> None:
        """Offer rows in order until one is taken."""
        any(self.offer(int(row)) for row in rows)

    def take_back(self) -> None:
        """Remove the row that was taken last."""
        row = self.rows.pop()
        track = self.tracks.track(row)
        self._taken.remove(row)
        self.seconds -= track.duration_s or UNKNOWN_S
        self._artists.subtract(_artists(track))
        self._songs[recording_key(track.artist, track.title, track.path)[1]].pop()
        self._seen.pop()

    def _take(self, row: int, track: Track) -> None:
        self._taken.add(row)
        self.rows.append(row)
        self.seconds += track.duration_s or UNKNOWN_S
        self._artists.update(_artists(track))
        self._remember(row, track)

    def _remember(self, row: int, track: Track) -> None:
        artist, song = recording_key(track.artist, track.title, track.path)
        self._songs.setdefault(song, []).append((artist, track.duration_s))
        self._seen.append((row, track.duration_s))

    def _is_version(self, row: int, track: Track) -> bool:
        """Whether the list has another version: by tags, or by vectors that are nearly equal."""
        artist, song = recording_key(track.artist, track.title, track.path)
        for other, seconds in self._songs.get(song, []) if song else []:
            if artist and artist == other:
                return True
            if not (artist and other) and abs(seconds - track.duration_s) <= SAME_S:
                return True
        near = [seen for seen, s in self._seen if s and abs(s - track.duration_s) <= SAME_S]
        cosines = self.tracks.vectors(near) @ self.tracks.vectors([row])[0]
        return bool((cosines >= SAME_COSINE).any())


def hits_of(
    tracks: Collection,
    rows: Sequence[int] | NDArray[np.int64],
    cosines: NDArray[np.floating],
    scores: Sequence[float] | NDArray[np.float64],
) -> list[Hit]:
    """Describe rows with their cosines and scores, in order."""
    columns = zip(tracks.tracks(rows), rows, cosines, scores, strict=True)
    return [Hit(track, int(row), float(cosine), float(s)) for track, row, cosine, s in columns]


def _artists(track: Track) -> list[str]:
    """Return the artists whose tracks a limit counts, each once."""
    return [name for name in dict.fromkeys(listed(track.artist)) if name not in NOBODY]
