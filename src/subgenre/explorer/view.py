"""One state of the library as the page shows it; frozen, because requests share it."""

from __future__ import annotations

import json
import math
import os
import unicodedata
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subgenre.audio import keys
from subgenre.errors import IndexStoreError, SubgenreError
from subgenre.explorer.content import Encoded, Library
from subgenre.library.track import Track
from subgenre.report.palette import Style, styles
from subgenre.search.ranking import Hit

DECIMALS = 4  # of coordinates and positions: finer than a pixel
CHANCES = 6  # subgenres of a placement


class UnknownTrackError(SubgenreError):
    """A track id that is not in the library."""


@dataclass(frozen=True)
class View:
    """A library and its revision; a refit makes a new view of the next revision."""

    library: Library
    revision: int

    @cached_property
    def styles(self) -> list[Style]:
        """Colour and shape of each label."""
        labels = self.library.collection.labels
        names = ["/".join(pair) for pair in labels]
        by_name = styles(names, [genre for genre, _ in labels])
        return [by_name[name] for name in names]

    @cached_property
    def columns(self) -> dict[str, list[Any]]:
        """The columns that the page reads, in the order of the points."""
        tracks = self.library.collection
        names = ("id", "path", "artist", "title", "genre", "subgenre")
        return {name: tracks.rows[name][tracks.live].tolist() for name in names}

    @cached_property
    def position(self) -> NDArray[np.int64]:
        """Position among the points of each row of the collection; -1 for deleted rows."""
        positions = np.full(len(self.library.collection.alive), -1, dtype=np.int64)
        positions[self.library.collection.live] = np.arange(len(self.library.collection))
        return positions

    @cached_property
    def titles(self) -> list[str]:
        """Title of each point; the file's name if it has none."""
        pairs = zip(self.columns["title"], self.columns["path"], strict=True)
        return [title or Path(path).stem for title, path in pairs]

    @cached_property
    def paths(self) -> list[str]:
        """Path of each point, relative to the library's folder if it lies there."""
        root = f"{self.library.root.absolute()}{os.sep}"
        return [path.removeprefix(root) for path in self.columns["path"]]

    @cached_property
    def counts(self) -> list[int]:
        """Number of tracks of each label."""
        known = self.label_of[self.label_of >= 0]
        return list(np.bincount(known, minlength=len(self.styles)).tolist())

    @cached_property
    def label_of(self) -> NDArray[np.int64]:
        """Label of each point, by its position in the collection's labels, [n]; -1 without one."""
        number = {pair: i for i, pair in enumerate(self.library.collection.labels)}
        pairs = zip(self.columns["genre"], self.columns["subgenre"], strict=True)
        return np.array([number.get(pair, -1) for pair in pairs], dtype=np.int64)

    @cached_property
    def points(self) -> bytes:
        """All points as JSON, column by column."""
        x, y = np.round(np.asarray(self.library.coordinates, dtype=np.float64), DECIMALS).T
        columns = {
            "revision": self.revision,
            "ids": self.columns["id"],
            "titles": self.titles,
            "artists": self.columns["artist"],
            "x": x.tolist(),
            "y": y.tolist(),
            "label": self.label_of.tolist(),
        }
        text = json.dumps(columns, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode("utf-8", "replace")

    @cached_property
    def _searched(self) -> list[str]:
        """The text of each point that `find` searches: artist, title and path."""
        rows = zip(self.columns["artist"], self.titles, self.paths, strict=True)
        return [fold("\n".join(row)) for row in rows]

    def warm(self) -> None:
        """Compute what the first requests need."""
        _ = self.points, self._searched
        collection = self.library.collection
        if len(collection):
            collection.rank(collection.vectors(collection.live[:1]), 1, own=True)

    def row(self, track_id: str) -> int:
        """Return the row of a track."""
        try:
            return self.library.collection.row_of_id(track_id)
        except IndexStoreError:
            message = f"the library has no track with id '{track_id[:64]}'"
            raise UnknownTrackError(message) from None

    def find(self, query: str, limit: int) -> list[int]:
        """Return the rows whose artist, title and path contain all words of a query.

        An equal title comes first, then titles and artists that begin with the query.
        """
        words = fold(query).split()
        if not words:
            return []
        hits = [i for i, text in enumerate(self._searched) if all(word in text for word in words)]
        start = fold(query).strip()

        def order(i: int) -> tuple[bool, bool, bool, bool, str, int]:
            title, artist = fold(self.titles[i]), self._searched[i].split("\n")[0]
            return (
                title.strip() != start,
                not title.startswith(start),
                not artist.startswith(start),
                not any(word in title or word in artist for word in words),
                title,
                i,
            )

        live = self.library.collection.live
        return [int(live[i]) for i in sorted(hits, key=order)[:limit]]

    def summary(self, track: Track) -> dict[str, Any]:
        """Return the fields of `schemas.TrackLine`."""
        return {
            **{name: getattr(track, name) for name in ("id", "artist", "genre", "subgenre")},
            "title": track.title or track.path.stem,
            "duration_s": round(track.duration_s, 2),
            "bpm": round(track.bpm, 1) or None,
            "tempo": track.tempo and round(track.tempo, 2),
            "tempo_bpm": track.tempo_bpm,
            "key": track.key,
            "camelot": track.key and keys.camelot(track.key),
        }

    def hits(self, hits: list[Hit]) -> list[dict[str, Any]]:
        """Return the fields of `schemas.HitLine` for each hit."""
        return [
            {
                **self.summary(hit.track),
                "cosine": None if math.isnan(hit.cosine) else round(hit.cosine, DECIMALS),
                "score": round(hit.score, DECIMALS),
                "before": hit.before,
            }
            for hit in hits
        ]

    def summaries(self, rows: list[int]) -> list[dict[str, Any]]:
        """Return the fields of `schemas.TrackLine` for each row."""
        return [self.summary(track) for track in self.library.collection.tracks(rows)]

    def detail(self, track_id: str) -> dict[str, Any]:
        """Return the fields of `schemas.TrackDetail`, but for the correction."""
        row = self.row(track_id)
        track = self.library.collection.track(row)
        at = int(self.position[row])
        x, y = np.round(self.library.coordinates[at], DECIMALS).tolist()
        return {
            **self.summary(track),
            "album": track.album,
            "year": track.year,
            "path": self.paths[at],
            "x": x,
            "y": y,
            "there": track.path.is_file(),
            "windows_s": [round(float(s), 2) for s in self.library.chunk_starts.get(track_id, ())],
            "chunk_s": self.library.chunk_s,
            "trained": track_id in self.library.trained,
            "placement": self.placement(track, self.library.collection.vectors([row])[0]),
            "doctor": [
                {
                    "kind": one.kind,
                    "suggestion": Path(one.suggestion).name
                    if one.kind == "duplicate"
                    else one.suggestion,
                    "confidence": round(float(one.confidence), 3),
                    "how_sure": one.how_sure,
                    "why": one.why,
                    "fit": one.fit,
                    "nearest": [
                        self.summary(self.library.collection.track(self.row(near)))
                        for near in one.nearest
                        if near in self.columns["id"]
                    ],
                }
                for one in self.library.findings
                if one.track == track_id
            ],
        }

    def placement(
        self, track: Track, vector: NDArray[np.floating], encoded: Encoded | None = None
    ) -> dict[str, Any] | None:
        """Return the fields of `schemas.Placement`, the subgenres that it fits best first."""
        if self.library.classifier is None:
            return None
        chunks, starts_s = ([encoded.chunks], [encoded.starts_s]) if encoded else (None, ())
        (placed,) = self.library.classifier.place(
            [track], vector[None], chunks=chunks, starts_s=starts_s
        )
        chances = [
            {"genre": genre, "subgenre": subgenre, "fits": round(p, DECIMALS)}
            for (genre, subgenre), p in placed.chances[:CHANCES]
        ]
        return {**placed.row(), "chances": chances}


def fold(text: str) -> str:
    """Remove differences of case, accent and Unicode form, for searching."""
    if text.isascii():  # most text is, and this is ten times as fast
        return text.lower()
    parts = unicodedata.normalize("NFKD", text.casefold())
    return "".join(c for c in parts if not unicodedata.combining(c)) if parts else ""
