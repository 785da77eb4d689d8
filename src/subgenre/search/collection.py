"""Tracks with their vectors: lookup, filters and exact search.

A `Collection` never changes, so any number of threads may read it while an index is written. It
also works without an index, on the rows of `embeddings.parquet`.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subgenre.audio import keys
from subgenre.core.validation import nearest
from subgenre.errors import IndexStoreError
from subgenre.library.artists import listed
from subgenre.library.track import Track, tempo
from subgenre.search import similarity
from subgenre.search.similarity import Ints, Mask, Moments, Spread
from subgenre.search.track_rows import (
    Filter,
    Measured,
    Rows,
    checked_unit,
    lies_below,
    table_of,
    take,
    tracks_of,
)

_NAMED = ("genre", "subgenre", "artist")  # columns that a filter chooses from by name
MIN_MUTUAL = 20  # tracks: with fewer, means and deviations of cosines are too rough


@dataclass(frozen=True, eq=False)
class Collection:
    """N tracks and their unit vectors.

    Attributes:
        all_vectors: [N, D] of unit norm, in memory or mapped.
        rows: columns of `track_rows.SCHEMA`, one value per vector.
        alive: [N], rows that are not deleted.
        copies: by track id, the paths of other files that hold the same recording.
        measured: by track id, tempo and key; a track that is not in it was never measured.
        stored: moments, and the spread of the rows that were there when it was cached on disk.
    """

    all_vectors: NDArray[np.float32]
    rows: Rows
    alive: Mask
    stored: tuple[Moments, Spread] | None = None
    copies: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    measured: Mapping[str, Measured] = field(default_factory=dict)

    @classmethod
    def of(cls, tracks: Iterable[Any], vectors: NDArray[np.floating]) -> Collection:
        """Make one in memory from tracks (any objects with the fields of `Track`)."""
        tracks = list(tracks)
        rows = table_of(tracks)
        count, measured = len(rows["id"]), {t.id: (t.tempo_bpm, t.key) for t in tracks}
        alive = np.ones(count, dtype=bool)
        return cls(checked_unit(vectors, count), rows, alive, measured=measured)

    def __len__(self) -> int:
        return int(np.count_nonzero(self.alive))

    @property
    def dim(self) -> int:
        """D."""
        return int(self.all_vectors.shape[1])

    @cached_property
    def live(self) -> Ints:
        """Rows that are not deleted, ascending."""
        return np.flatnonzero(self.alive)

    @cached_property
    def _row_of(self) -> dict[str, int]:
        ids = self.rows["id"].tolist()
        return {ids[row]: int(row) for row in self.live}

    def has(self, track_id: str) -> bool:
        """Whether there is a track with this id."""
        return track_id in self._row_of

    def has_path(self, path: Path) -> bool:
        """Whether there is a track with this path."""
        return str(path.absolute()) in self._by_path

    def row_of_id(self, track_id: str) -> int:
        """Return the row of a track by its id."""
        if track_id not in self._row_of:
            raise IndexStoreError(f"the index has no track with id '{track_id}'")
        return self._row_of[track_id]

    @cached_property
    def labels(self) -> tuple[tuple[str, str], ...]:
        """Distinct pairs (genre, subgenre) of the tracks with a subgenre, sorted."""
        genres, subgenres = (self.rows[name].tolist() for name in ("genre", "subgenre"))
        return tuple(sorted({(genres[row], subgenres[row]) for row in self.live if subgenres[row]}))

    @cached_property
    def labelled(self) -> Mask:
        """Rows that are not deleted and have a subgenre."""
        return self.alive & ~self._is("subgenre", ("",))

    def track(self, row: int) -> Track:
        """Return the track of a row."""
        return self.tracks([row])[0]

    def tracks(self, rows: Iterable[int]) -> list[Track]:
        """Return the tracks of rows, in order."""
        return tracks_of(take(self.rows, np.fromiter(rows, dtype=np.int64)), self.measured)

    def vectors(self, rows: Ints | Sequence[int]) -> NDArray[np.float32]:
        """Return the vectors [n, D] of rows, in order."""
        return np.asarray(self.all_vectors[np.asarray(rows, dtype=np.int64)])

    def row(self, name: str | Path) -> int:
        """Find a track by its id, its path, or a title or file name that only one track has.

        Raises:
            IndexStoreError: none or several; the message has the most similar name.
        """
        text = str(name)
        if text in self._row_of:
            return self._row_of[text]
        for path in (text, str(Path(text).absolute())):
            if path in self._by_path:
                return self._by_path[path]
        rows = self._by_name.get(text.casefold(), [])
        if len(rows) == 1:
            return rows[0]
        if rows:
            paths = ", ".join(str(self.track(row).path) for row in rows[:3])
            raise IndexStoreError(f"'{text}' names {len(rows)} tracks: {paths}; give a path")
        near = difflib.get_close_matches(text.casefold(), self._by_name, n=1, cutoff=0.6)
        hint = f" (did you mean '{self.track(self._by_name[near[0]][0]).name}'?)" if near else ""
        raise IndexStoreError(f"the index has no track '{text}'{hint}; give an id, path or title")

    @cached_property
    def _by_path(self) -> dict[str, int]:
        paths = self.rows["path"].tolist()
        copies = {p: self._row_of[i] for i, every in self.copies.items() for p in every}
        return copies | {paths[row]: int(row) for row in self.live}

    def paths(self) -> dict[str, tuple[str, ...]]:
        """Return every path of each track by id: that of the track, then those of its copies."""
        ids, paths = (self.rows[name].tolist() for name in ("id", "path"))
        return {ids[row]: (paths[row], *self.copies.get(ids[row], ())) for row in self.live}

    @cached_property
    def _by_name(self) -> dict[str, list[int]]:
        """Rows by title, by 'artist - title', and by file name with and without extension."""
        rows_of: dict[str, list[int]] = {}
        columns = {name: self.rows[name] for name in ("path", "artist", "title")}
        for row in map(int, self.live):
            path, artist, title = (columns[c][row] for c in ("path", "artist", "title"))
            for name in names_of(Path(path), artist, title):
                rows_of.setdefault(name, []).append(row)
        return rows_of

    def label(self, name: str) -> tuple[str, str]:
        """Find (genre, subgenre) by 'subgenre' or 'genre/subgenre'; case does not matter.

        Raises:
            IndexStoreError: an unknown name, or one in several genres.
        """
        key = name.strip().casefold()
        matches = [p for p in self.labels if key in (p[1].casefold(), "/".join(p).casefold())]
        exact = [p for p in matches if "/".join(p).casefold() == key]
        if len(matches) == 1 or len(exact) == 1:
            return (exact or matches)[0]
        if matches:
            pairs = " or ".join("/".join(pair) for pair in matches)
            raise IndexStoreError(f"subgenre '{name}' is in several genres; give {pairs}")
        choices = tuple(dict.fromkeys(p[1] for p in self.labels))
        near = nearest(name, choices) or nearest(name, tuple("/".join(p) for p in self.labels))
        known = f"known: {', '.join(choices[:20])}" if choices else "no track has a subgenre"
        raise IndexStoreError(f"no subgenre '{name}'{near}; {known}")

    def members(self, name: str) -> Ints:
        """Return the rows of a subgenre, ascending; names and errors as in `label`."""
        genre, subgenre = self.label(name)
        return np.flatnonzero(
            self.alive & self._is("genre", (genre,)) & self._is("subgenre", (subgenre,))
        )

    def allowed(self, filter: Filter | None = None) -> Mask:
        """Return the rows that a filter allows, [N].

        Raises:
            IndexStoreError: a genre, subgenre or artist that no track has, or no track has a tempo
                or a key. ConfigError: no key.
        """
        mask = self.alive.copy()
        if filter is None:
            return mask
        for column in _NAMED:
            if names := getattr(filter, column):
                mask &= self._is(column, self._known(column, names))
        if filter.folder:
            codes, folders = self._codes["folder"]
            inside = [any(lies_below(f, root) for root in filter.folder) for f in folders]
            lies = np.array(inside, dtype=bool)[codes]
            for track_id, paths in self.copies.items():
                lies[self._row_of[track_id]] |= any(
                    lies_below(path, root) for path in paths for root in filter.folder
                )
            mask &= lies
        if filter.duration_s is not None:
            values = self._numbers("duration_s")
            mask &= _between(values, filter.duration_s) & (values > 0)
        if filter.bpm is not None:
            _check_known("tempo", ~np.isnan(self._tempi))
            mask &= _between(self._tempi, filter.bpm)
        if filter.key or filter.in_key:
            _check_known("key", self._keys != "")
        if filter.key:
            mask &= np.isin(self._keys, [keys.parse(name) for name in filter.key])
        if filter.in_key:
            near = [key for name in filter.in_key for key in keys.neighbours(keys.parse(name))]
            mask &= np.isin(self._keys, near)
        mask[[self._row_of[i] for i in filter.exclude if i in self._row_of]] = False
        return mask

    @cached_property
    def _tempi(self) -> NDArray[np.float64]:
        """The tempo of each row, [N]; NaN where unknown."""
        ids, tags = self.rows["id"].tolist(), self.rows["bpm"].tolist()
        known = [self.measured.get(i, (None, None))[0] for i in ids]
        return np.array([tempo(*pair) for pair in zip(known, tags, strict=True)], np.float64)

    @cached_property
    def _keys(self) -> NDArray[np.str_]:
        """The key of each row, [N]; empty where unknown."""
        ids = self.rows["id"].tolist()
        return np.array([self.measured.get(i, (None, None))[1] or "" for i in ids], np.str_)

    @cached_property
    def _codes(self) -> dict[str, tuple[NDArray[np.int32], list[str]]]:
        """Codes and values of the columns that filters compare."""
        columns = {name: self.rows[name].tolist() for name in _NAMED}
        columns["folder"] = [os.path.dirname(path) for path in self.rows["path"].tolist()]  # noqa: PTH120
        codes = {}
        for name, values in columns.items():
            number: dict[str, int] = {}
            coded = [number.setdefault(value, len(number)) for value in values]
            codes[name] = (np.array(coded, dtype=np.int32), list(number))
        return codes

    def _is(self, column: str, names: tuple[str, ...]) -> Mask:
        codes, values = self._codes[column]
        folded = {n.casefold() for n in names}
        has = [not folded.isdisjoint(names_in(column, value)) for value in values]
        return np.array(has, dtype=bool)[codes]

    def _known(self, column: str, names: tuple[str, ...]) -> tuple[str, ...]:
        """Check that a column has these names; a subgenre may be given as 'genre/subgenre'."""
        if column == "subgenre":
            return tuple(n if self._has(column, n) else self.label(n)[1] for n in names)
        for name in names:
            if not self._has(column, name):
                near = nearest(name, tuple(v for v in self._codes[column][1] if v))
                raise IndexStoreError(f"no track of {column} '{name}'{near}")
        return names

    def _has(self, column: str, name: str) -> bool:
        return bool(self._is(column, (name,)).any())

    def durations_s(self) -> NDArray[np.float64]:
        """Return the known durations of the tracks, seconds."""
        values = self._numbers("duration_s")
        return values[self.alive & (values > 0)]

    def _numbers(self, column: str) -> NDArray[np.float64]:
        return np.asarray(self.rows[column], dtype=np.float64)

    @cached_property
    def proximity(self) -> tuple[Moments, Spread]:
        """Moments of all tracks and the spread of each row; cached until over 10 % has changed."""
        if self.stored is not None:
            whole, known = self.stored
            later = self.all_vectors[len(known.mean) :]
            if len(later) + np.count_nonzero(~self.alive) <= 0.1 * whole.count:
                spread = similarity.spread_of(later, whole, own=False)
                return whole, Spread(
                    np.concatenate([known.mean, spread.mean]),
                    np.concatenate([known.inverse, spread.inverse]),
                )
        whole = similarity.moments(self.all_vectors, self.alive)
        return whole, similarity.spread_of(self.all_vectors, whole)

    @property
    def ranks_mutually(self) -> bool:
        """Whether there are enough tracks for mutual proximity."""
        return len(self) >= MIN_MUTUAL

    @property
    def proximity_is_cached(self) -> bool:
        """Whether the cached moments still serve; what extends them is not cached again."""
        return self.stored is not None and self.proximity[0] is self.stored[0]

    def rank(
        self,
        queries: NDArray[np.floating],
        k: int,
        *,
        allowed: Mask | None = None,
        own: bool = False,
        mutual: bool = True,
    ) -> list[tuple[Ints, NDArray[np.float64]]]:
        """Find the k best rows of each query [B, D] and their scores, exactly, best first.

        Args:
            queries: unit vectors. allowed: [N]; by default all rows that are not deleted.
            own: whether the queries are tracks of the collection, for mutual proximity.
            mutual: rank by mutual proximity, if there are `MIN_MUTUAL` tracks; else by cosine.
        """
        both = None
        if mutual and self.ranks_mutually:
            whole, spread = self.proximity
            both = (whole.spread(queries, own=own), spread)
        mask = self.alive if allowed is None else allowed
        some = None if mask.all() else mask
        return similarity.top_k(self.all_vectors, queries, k, allowed=some, mutual=both)


def names_of(path: Path, artist: str, title: str) -> set[str]:
    """Return what a user may call a track, besides its id and path; case does not matter."""
    names = {path.name, path.stem}
    names |= {title, f"{artist} - {title}"} if title else set()
    return {name.casefold() for name in names}


def _between(values: NDArray[np.float64], limits: tuple[float, float]) -> Mask:
    return np.asarray((values >= limits[0]) & (values <= limits[1]))


def _check_known(what: str, known: Mask) -> None:
    if not known.any():
        raise IndexStoreError(f"no track has a known {what}; measure it: subgenre index LIBRARY")


def names_in(column: str, value: str) -> set[str]:
    """Return what a filter may name a value; a tag with several artists has the name of each."""
    return {value.casefold(), *(listed(value) if column == "artist" else [])}
