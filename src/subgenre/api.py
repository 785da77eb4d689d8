"""The public interface: a trained model in a notebook.

    import subgenre

    model = subgenre.load()                        # the newest model here
    for placement in model.classify(["new/a.mp3"]):
        print(placement.subgenre, placement.probability)
    model.similar("Some Title", k=10, per_artist=1)
    model.playlist(expand="Dark Techno", until_fit=0.9)

What files sound like is worked out by torch; all the rest reads stored vectors and loads none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from subgenre.commands import classify, model_map
from subgenre.commands import index as indexing
from subgenre.commands import playlist as lists
from subgenre.commands.index import Indexed
from subgenre.commands.model_folder import ModelFolder
from subgenre.commands.playlist import TRACKS, Wish
from subgenre.core.progress import Console
from subgenre.errors import IndexStoreError
from subgenre.library import audio_files
from subgenre.search.classifier import ALPHA, Placement
from subgenre.search.collection import Collection
from subgenre.search.playlists import Seed
from subgenre.search.ranking import Hit, Limits
from subgenre.search.track_rows import Filter, IndexedTrack

if TYPE_CHECKING:
    from subgenre.models.file_embedding import FileVectors


@dataclass(frozen=True)
class LibraryMap:
    """Where every track lies on the map.

    Attributes:
        tracks: N of them. coordinates: [N, 2].
        method: `UMAP` or `PCA`. note: how far the map can be trusted, in a sentence.
    """

    tracks: tuple[IndexedTrack, ...]
    coordinates: NDArray[np.float64]
    method: str
    note: str


class Model:
    """A trained model and the tracks it knows; made by `load`.

    Attributes:
        path: the model folder.
        tracks: `Collection` of the index where one was built, else of the model's own tracks.
    """

    def __init__(self, run: ModelFolder, index: Path | None = None) -> None:
        self._run, self._index = run, index

    def __repr__(self) -> str:
        return f"<subgenre.Model {self.path}>"

    @property
    def path(self) -> Path:
        """The model folder."""
        return self._run.path

    @property
    def labels(self) -> tuple[tuple[str, str], ...]:
        """Pairs (genre, subgenre) that the model has learnt, sorted."""
        return tuple(sorted(self._run.labels))

    @cached_property
    def tracks(self) -> Collection:
        """Tracks and vectors that are searched: vectors [N, D] of unit norm.

        Raises:
            IndexStoreError: the index is of another model. RunError: there are no vectors.
        """
        return self._run.collection(self._index)

    def index(
        self, library: str | Path, *, replace: bool = False, console: Console | None = None
    ) -> Indexed:
        """Bring the model's index up to date with a library; later calls search it.

        Args:
            replace: forget the tracks of all other libraries, the model's own among them.

        Raises:
            LibraryError: no audio there. IndexStoreError: the index is of another model.
        """
        done = indexing.index(
            Path(library), self._run, path=self._index, replace=replace, console=console
        )
        self.__dict__.pop("tracks", None)
        return done

    def embed(
        self, files: str | Path | Iterable[str | Path], *, console: Console | None = None
    ) -> FileVectors:
        """Embed audio files, folders or playlists; what can't be read is listed in `skipped`.

        Returns:
            vectors [N, D] of the files, those of their chunks [n, D], and where those start.

        Raises:
            LibraryError: no audio in what was named.
        """
        listed = audio_files.find(_paths(files))
        return self._run.embed(listed.paths, console=console)

    def classify(
        self,
        what: FileVectors | str | Path | Iterable[str | Path],
        *,
        alpha: float = ALPHA,
        console: Console | None = None,
    ) -> list[Placement]:
        """Place files, what `embed` gave, or tracks of the index by id or title.

        Names that the index knows are placed by their stored vectors, without torch and without
        a word on which seconds spoke; all others are files, and embedded.

        Args:
            alpha: share of belonging tracks that may be called none of these.

        Raises:
            RunError: the run has no vectors. LibraryError: no audio in what was named.
        """
        model = self._run.classifier(alpha)
        if not isinstance(what, str | Path | Iterable):
            return classify.place(model, what)
        names = _paths(what)
        try:
            rows = [self.tracks.row(str(name)) for name in names]
        except IndexStoreError:
            return classify.place(model, self.embed(names, console=console))
        return model.place(self.tracks.tracks(rows), self.tracks.vectors(rows))

    def similar(
        self,
        track: Seed,
        k: int = 10,
        *,
        filter: Filter | None = None,
        per_artist: int = 0,
        versions: bool = False,
        mutual: bool = True,
    ) -> list[Hit]:
        """Find the k tracks most similar to one: an id, path or title, a file, or a vector [D].

        Args:
            filter: which tracks may be found.
            per_artist: tracks of one artist at most; 0: no limit.
            versions: keep several versions of one recording.
            mutual: rank by mutual proximity, which corrects hubs; else by cosine.

        Raises:
            PlaylistError: unknown; the nearest name is told.
        """
        limits = Limits(k, None, per_artist, versions)
        return lists.similar(self._run, self.tracks, track, limits, filter, mutual=mutual)

    def playlist(
        self,
        *seeds: Seed,
        expand: str = "",
        until_fit: float | None = 0.9,
        like: Sequence[Seed] = (),
        unlike: Sequence[Seed] = (),
        journey: bool = False,
        axis: str = "",
        between: tuple[float, float] | None = None,
        smooth: bool = False,
        tracks: int | None = None,
        minutes: float | None = None,
        per_artist: int = 0,
        versions: bool = False,
        filter: Filter | None = None,
        mutual: bool = True,
        out: str | Path | None = None,
    ) -> list[Hit]:
        """Make a playlist: from seeds, from a subgenre until it stops fitting, or along a way.

        Args:
            seeds: tracks to begin with; several count by agreement. journey: between two of them.
            expand: a subgenre to go on from, while tracks belong to it with a probability of
                `until_fit` or more; like, unlike: tracks that refit this at once.
            axis: 'A:B', two subgenres. between: first and last position on it that a track may
                have; 0 and 1 are the middles of the two. smooth: order by small steps.
            tracks, minutes: length. per_artist, versions, filter, mutual: as in `similar`.
            out: a .m3u8, .csv or .xml (rekordbox) to write; a list that is empty is not written.

        Raises:
            PlaylistError: unknown names, or wishes that contradict each other.
        """
        wish = Wish(
            seeds,
            expand,
            until_fit,
            like,
            unlike,
            journey,
            axis,
            between,
            smooth,
            mutual,
        )
        if tracks is None and minutes is None and not (expand and until_fit):
            tracks = TRACKS
        limits = Limits(tracks, minutes, per_artist, versions)
        hits = lists.make(self._run, self.tracks, wish, limits, filter)
        lists.write(None if out is None else Path(out), hits)
        return hits

    def map(self) -> LibraryMap:
        """Lay the tracks out in two dimensions; the first call fits the map and keeps it.

        Raises:
            RunError: the run has no vectors.
        """
        fitted = model_map.load_map(self._run)
        return LibraryMap(
            tuple(self.tracks.tracks(self.tracks.live)),
            model_map.coordinates(fitted, self._run, self.tracks),
            fitted.method,
            model_map.note(fitted),
        )

    def scores(self) -> Mapping[str, Mapping[str, float]]:
        """Figures on held-out tracks, by metric: value, low, high, chance; empty until evaluated.

        Raises:
            RunError: the figures are damaged.
        """
        return self._run.scores


def load(run: str | Path | None = None, *, index: str | Path | None = None) -> Model:
    """Open a trained model.

    Args:
        run: the model folder; by default the newest with vectors here.
        index: an index folder; by default the model's own, where there is one.

    Raises:
        RunError: there is no model, or it is damaged.
    """
    opened = ModelFolder.open(None if run is None else Path(run))
    return Model(opened, None if index is None else Path(index))


def _paths(files: str | Path | Iterable[str | Path]) -> list[Path]:
    if isinstance(files, str | Path):
        return [Path(files)]
    return [Path(file) for file in files]
