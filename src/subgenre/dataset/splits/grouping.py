"""Group tracks that share a recording, an artist or an album, in a fixed order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from subgenre.errors import SplitError
from subgenre.library.artists import NOBODY, Artists, normal

BY_TRACK = ("track", "recording")
BY_ARTIST = ("track", "recording", "artist", "album")


class LabelledTrack(Protocol):
    """A track as the splits see it."""

    @property
    def id(self) -> str: ...  # noqa: D102
    @property
    def genre(self) -> str: ...  # noqa: D102
    @property
    def subgenre(self) -> str: ...  # noqa: D102
    @property
    def artist(self) -> str: ...  # noqa: D102
    @property
    def album(self) -> str: ...  # noqa: D102


class Bonds:
    """What binds the tracks of a library together: recording, artists and album.

    A tag with several artists binds by each, see `Artists`.
    """

    def __init__(self, tracks: Iterable[LabelledTrack]) -> None:
        self._artists = Artists((track.id, track.artist) for track in tracks)

    def of(self, track: LabelledTrack, grouped_by: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Yield the groups of a track as (kind, name)."""
        yield "recording", track.id
        names = [("album", normal(track.album))]
        names += [("artist", name) for name in self._artists.of(track.artist)]
        for kind, name in names:
            if kind in grouped_by and name.strip(" ()[]<>") not in NOBODY:
                yield kind, name


def joined(bonds: Iterable[Iterable[tuple[str, str]]]) -> NDArray[np.int64]:
    """Return a group number for each item; items joined by any chain of bonds share one."""
    parent: list[int] = []

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[tuple[str, str], int] = {}
    for i, own in enumerate(bonds):
        parent.append(i)
        for bond in own:
            parent[root(i)] = root(first.setdefault(bond, i))
    roots = np.array([root(i) for i in range(len(parent))], dtype=np.int64)
    return np.asarray(np.unique(roots, return_inverse=True)[1], dtype=np.int64)


def groups_of(tracks: Sequence[LabelledTrack], grouped_by: Sequence[str]) -> NDArray[np.int64]:
    """Return a group number for each track; those joined by any chain of bonds share one."""
    bonds = Bonds(tracks)
    return joined(bonds.of(track, grouped_by) for track in tracks)


@dataclass(frozen=True)
class Rows:
    """Tracks in a fixed order, with the class number of each."""

    tracks: tuple[LabelledTrack, ...]
    label: NDArray[np.int64]
    names: tuple[str, ...]

    @classmethod
    def of(cls, tracks: Iterable[LabelledTrack]) -> Rows:
        """Sort the tracks, so that their given order has no effect; trash is left out."""
        kept = [track for track in tracks if not getattr(track, "trash", False)]
        rows = tuple(sorted(kept, key=lambda t: (t.id, t.genre, t.subgenre)))
        pairs = sorted({(t.genre, t.subgenre) for t in rows})
        number = {pair: i for i, pair in enumerate(pairs)}
        label = np.array([number[t.genre, t.subgenre] for t in rows], dtype=np.int64)
        return cls(rows, label, tuple(f"{genre}/{name}" for genre, name in pairs))

    def demand(self, n: int, purpose: str) -> None:
        """Refuse a library in which a subgenre has fewer than `n` recordings."""
        if len(self.names) < 2:
            raise SplitError(f"{len(self.names)} subgenres were given; 2 or more are needed")
        for i, name in enumerate(self.names):
            ids = {t.id for t, label in zip(self.tracks, self.label, strict=True) if label == i}
            if len(ids) < n:
                raise SplitError(
                    f"subgenre {name} has {len(ids)} track; it needs {n}, {purpose}: "
                    "add tracks or take the folder out"
                )

    def groups(
        self, grouped_by: Sequence[str], loose: NDArray[np.bool_] | None = None
    ) -> NDArray[np.int64]:
        """Return a group number per track; tracks joined by any chain of bonds share one.

        Tracks of the labels in the mask `loose` [C] are grouped by recording only.
        """
        alone = np.zeros(len(self.tracks), bool) if loose is None else loose[self.label]
        bonds = Bonds(self.tracks)
        return joined(
            bonds.of(track, BY_TRACK if is_alone else grouped_by)
            for track, is_alone in zip(self.tracks, alone, strict=True)
        )

    def blocker(self, label: int) -> str:
        """Name the subgenre and the artist or album that holds most of its tracks."""
        bonds = Bonds(self.tracks)
        names = [
            (kind, getattr(track, kind).strip())
            for track, i in zip(self.tracks, self.label, strict=True)
            for kind in {kind for kind, _ in bonds.of(track, BY_ARTIST)}
            if i == label and kind != "recording"
        ]
        n = int((self.label == label).sum())
        where = f"subgenre {self.names[label]} ({n} tracks)"
        if not names:
            return f"{where} can't be divided"
        (kind, name), count = Counter(names).most_common(1)[0]
        return f"{where} can't be divided, {count} of them by {kind} '{name}'"
