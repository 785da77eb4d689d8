"""One state of the library as the page sees it: frozen, so that requests may share it."""

from __future__ import annotations

import json
import os
import unicodedata
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subgenre.errors import SubgenreError
from subgenre.explorer.content import Library
from subgenre.report.palette import Style, styles
from subgenre.search.classifier import Placement
from subgenre.search.ranking import Hit
from subgenre.search.track_rows import IndexedTrack

DECIMALS = 4  # of coordinates and positions: finer than a pixel


class UnknownTrackError(SubgenreError):
    """A track id that the library has not."""


@dataclass(frozen=True)
class View:
    """A library and its revision, which a refit raises by one."""

    library: Library
    revision: int

    @cached_property
    def labels(self) -> tuple[tuple[str, str], ...]:
        """Pairs (genre, subgenre), sorted; the position is the label's number on the page."""
        return self.library.collection.labels

    @cached_property
    def styles(self) -> list[Style]:
        """Colour and shape of each label."""
        names = ["/".join(pair) for pair in self.labels]
        found = styles(names, [genre for genre, _ in self.labels])
        return [found[name] for name in names]

    @cached_property
    def columns(self) -> dict[str, list[Any]]:
        """The columns of the live rows that the page reads, in their order."""
        table = self.library.collection.rows
        names = ["id", "path", "artist", "title", "genre", "subgenre"]
        return dict(table.select(names).take(self.library.collection.live).to_pydict())

    @cached_property
    def position(self) -> NDArray[np.int64]:
        """Position on the page of each row of the collection; -1 for rows that are gone."""
        found = np.full(self.library.collection.rows.num_rows, -1, dtype=np.int64)
        found[self.library.collection.live] = np.arange(len(self.library.collection))
        return found

    @cached_property
    def titles(self) -> list[str]:
        """Title of each track on the page; the file's name where it has none."""
        told = self.columns
        return [t or Path(p).stem for t, p in zip(told["title"], told["path"], strict=True)]

    @cached_property
    def paths(self) -> list[str]:
        """Path of each track on the page, relative to the library's folder where it lies in it."""
        root = f"{self.library.root.absolute()}{os.sep}"
        return [path.removeprefix(root) for path in self.columns["path"]]

    @cached_property
    def counts(self) -> list[int]:
        """How many tracks each label has."""
        known = self.label_of[self.label_of >= 0]
        return [int(n) for n in np.bincount(known, minlength=len(self.labels))]

    @cached_property
    def label_of(self) -> NDArray[np.int64]:
        """Number of each track's label, [n]; -1 where it has none."""
        number = {pair: i for i, pair in enumerate(self.labels)}
        pairs = zip(self.columns["genre"], self.columns["subgenre"], strict=True)
        return np.array([number.get(pair, -1) for pair in pairs], dtype=np.int64)

    @cached_property
    def points(self) -> bytes:
        """All points as JSON, column by column."""
        x, y = np.round(np.asarray(self.library.coordinates, dtype=np.float64), DECIMALS).T
        told = {
            "revision": self.revision,
            "ids": self.columns["id"],
            "titles": self.titles,
            "artists": self.columns["artist"],
            "x": x.tolist(),
            "y": y.tolist(),
            "label": self.label_of.tolist(),
        }
        text = json.dumps(told, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode("utf-8", "replace")

    @cached_property
    def _folded(self) -> list[str]:
        told = zip(self.columns["artist"], self.titles, self.paths, strict=True)
        return [fold("\n".join(one)) for one in told]

    @cached_property
    def _findings(self) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for finding in self.library.findings:
            found.setdefault(finding.track, []).append(finding)
        return found

    def warm(self) -> None:
        """Compute what the first requests need."""
        _ = self.points, self._folded
        collection = self.library.collection
        if len(collection):
            collection.rank(collection.vectors(collection.live[:1]), 1, own=True)

    def row(self, track_id: str) -> int:
        """Find a track by its id.

        Raises:
            UnknownTrackError: the library has no such track.
        """
        if not self.library.collection.has(track_id):
            raise UnknownTrackError(f"the library has no track with id '{track_id[:64]}'")
        return self.library.collection.row_of_id(track_id)

    def rows(self, track_ids: list[str]) -> list[int]:
        """Find tracks by their ids, in order, each once; see `row`."""
        return [self.row(track_id) for track_id in dict.fromkeys(track_ids)]

    def find(self, query: str, limit: int) -> list[int]:
        """Rows whose artist, title and path hold all words of a query.

        The title itself first, then titles that begin with it, then artists, then the rest.
        """
        words = fold(query).split()
        if not words:
            return []
        hits = [i for i, text in enumerate(self._folded) if all(word in text for word in words)]
        start = fold(query).strip()

        def late(i: int) -> tuple[bool, bool, bool, bool, str, int]:
            title, artist = fold(self.titles[i]), self._folded[i].split("\n")[0]
            inside = any(word in title or word in artist for word in words)
            begins, by = title.startswith(start), artist.startswith(start)
            return title.strip() != start, not begins, not by, not inside, title, i

        live = self.library.collection.live
        return [int(live[i]) for i in sorted(hits, key=late)[:limit]]

    def summary(self, track: IndexedTrack) -> dict[str, Any]:
        """Tell a track on one line."""
        return {
            "id": track.id,
            "title": track.title or track.path.stem,
            "artist": track.artist,
            "genre": track.genre,
            "subgenre": track.subgenre,
            "duration_s": round(track.duration_s, 2),
            "bpm": round(track.bpm, 1),
        }

    def hits(self, found: list[Hit]) -> list[dict[str, Any]]:
        """Tell what a search found."""
        return [
            {
                **self.summary(hit.track),
                "cosine": round(hit.cosine, DECIMALS),
                "score": round(hit.score, DECIMALS),
            }
            for hit in found
        ]

    def summaries(self, rows: list[int]) -> list[dict[str, Any]]:
        """Tell several rows, in order."""
        return [self.summary(track) for track in self.library.collection.tracks(rows)]

    def detail(self, track_id: str) -> dict[str, Any]:
        """Tell everything of one track.

        Raises:
            UnknownTrackError: the library has no such track.
        """
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
            "windows_s": [round(float(s), 2) for s in self.library.windows.get(track_id, ())],
            "chunk_s": self.library.chunk_s,
            "trained": track_id in self.library.trained,
            "placement": self._placement(track, row),
            "doctor": [_finding(one) for one in self._findings.get(track_id, [])],
        }

    def _placement(self, track: IndexedTrack, row: int) -> dict[str, Any] | None:
        if self.library.classifier is None:
            return None
        vector = self.library.collection.vectors([row])
        return placement(self.library.classifier.place([track], vector)[0])


def placement(placed: Placement, most: int = 6) -> dict[str, Any]:
    """Tell a placement: the most probable subgenres first."""
    told = placed.row()
    chances = [
        {"genre": genre, "subgenre": subgenre, "probability": round(p, DECIMALS)}
        for (genre, subgenre), p in placed.chances[:most]
    ]
    return {
        "none_of_these": told["none_of_these"],
        "fit": told["fit"],
        "chances": chances,
        "chunk_start_s": told["chunk_start_s"],
    }


def fold(text: str) -> str:
    """Fold text for searching: compatible forms, case and accents alike."""
    if text.isascii():  # most of it, and ten times as fast
        return text.lower()
    parts = unicodedata.normalize("NFKD", text.casefold())
    return "".join(c for c in parts if not unicodedata.combining(c)) if parts else ""


def _finding(finding: Any) -> dict[str, Any]:
    suggestion = finding.suggestion
    return {
        "kind": finding.kind,
        "suggestion": Path(suggestion).name if finding.kind == "duplicate" else suggestion,
        "confidence": round(float(finding.confidence), 3),
        "why": finding.why,
    }
