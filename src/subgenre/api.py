"""The public interface: a trained model in a notebook.

    import subgenre

    model = subgenre.load()                        # the newest model here
    for placement in model.classify(["new/a.mp3"]):
        print(placement.subgenre, placement.fits)
    model.similar("Some Title", k=10, per_artist=1)
    model.playlist(expand="Dark Techno")

Each method imports what it needs: only the embedding of files loads torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subgenre.commands.model_folder import ModelFolder
from subgenre.config import ALPHA
from subgenre.core import workspace
from subgenre.core.progress import Console
from subgenre.errors import IndexStoreError
from subgenre.library import sources
from subgenre.search import address

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from subgenre.commands.classify import Classified
    from subgenre.commands.export import Exported
    from subgenre.commands.index import Indexed
    from subgenre.commands.tag import Tagged
    from subgenre.library.track import Track
    from subgenre.library.uris import Maps
    from subgenre.models.file_vectors import FileVectors
    from subgenre.search.address import Address
    from subgenre.search.classifier import Placement
    from subgenre.search.collection import Collection
    from subgenre.search.playlists import Seed
    from subgenre.search.ranking import Hit
    from subgenre.search.requests import PlaylistRequest, Ranking
    from subgenre.search.served import ServedIndex
    from subgenre.search.track_rows import Filter

Paths = str | Path | Iterable[str | Path]


@dataclass(frozen=True)
class LibraryMap:
    """The map of a library.

    Attributes:
        tracks: N tracks. coordinates: [N, 2].
        method: `UMAP` or `PCA`. note: how far the map can be trusted, in words.
    """

    tracks: tuple[Track, ...]
    coordinates: NDArray[np.float64]
    method: str
    note: str


class Model:
    """A trained model and the tracks it knows; `load` opens one.

    Attributes:
        path: the model folder.
        tracks: those of the index if there is one, else the model's own.
    """

    def __init__(self, folder: ModelFolder, index: Address | None = None) -> None:
        self._folder, self._index = folder, index
        self.path = folder.path

    def __repr__(self) -> str:
        return f"<subgenre.Model {self.path}>"

    @property
    def labels(self) -> tuple[tuple[str, str], ...]:
        """Pairs (genre, subgenre) that the model was trained on, sorted."""
        return tuple(sorted(self._folder.labels))

    @cached_property
    def tracks(self) -> Collection:
        """The tracks that are searched, with vectors [N, D] of unit norm.

        Raises:
            IndexStoreError: the index is of another model. RunError: there are no vectors.
        """
        if self._served is not None:
            return self._served.collection
        return self._folder.collection(self._index)

    @cached_property
    def _served(self) -> ServedIndex | None:
        """The index, if it is on a server."""
        if not isinstance(self._index, str):
            return None
        from subgenre.search.served import ServedIndex

        index = self._folder.open_index(self._index)
        return index if isinstance(index, ServedIndex) else None

    def scores(self) -> Mapping[str, Mapping[str, float]]:
        """Return the figures on held-out tracks by metric: value, low, high, chance.

        They are empty until the model is evaluated.

        Raises:
            RunError: the figures are damaged.
        """
        return self._folder.scores

    def index(
        self,
        library: str | Path | None = None,
        *,
        root: str | Path | None = None,
        origin: str | Path | None = None,
        replace: bool = False,
        maps: Maps = (),
        workers: int | None = None,
        console: Console | None = None,
    ) -> Indexed:
        """Bring the model's index up to date with a library; later calls search it.

        Args:
            origin: another index of this model, whose tracks are copied first.
            root: where an indexed library that has moved is now.
            replace: remove the tracks of all other libraries, the model's own among them.
            maps: prefixes of paths in lists of another machine, and their folders here.
            workers: processes; by default all cores.

        Raises:
            LibraryError: no audio there. IndexStoreError: the index is of another model.
        """
        from subgenre.commands.index import index

        indexed = index(
            _path(library),
            self._folder,
            path=self._index,
            root=_path(root),
            origin=None if origin is None else address.parse(origin),
            replace=replace,
            maps=maps,
            workers=workers,
            console=console,
        )
        for name in ("tracks", "_served"):
            self.__dict__.pop(name, None)
        return indexed

    def embed(
        self, files: Paths, *, maps: Maps = (), console: Console | None = None
    ) -> FileVectors:
        """Embed audio files, folders or playlists; files that can't be read are in `skipped`.

        `maps`: as of `index`.

        Returns:
            vectors [N, D] of the files, vectors [n, D] of their chunks, and where those start.

        Raises:
            LibraryError: no audio there.
        """
        listed = sources.audio_files(_paths(files), maps)
        found = self._folder.embed(listed.paths, console=console)
        return dataclasses.replace(found, skipped=(*listed.skipped, *found.skipped))

    def classify(
        self, tracks: FileVectors | Paths, *, alpha: float = ALPHA, console: Console | None = None
    ) -> list[Placement]:
        """Classify files, the result of `embed`, or tracks of the index by id or title.

        If the index has all of them, their stored vectors are used: no torch, but the placements
        don't name the most typical chunk. Otherwise all are files, and embedded.

        Args:
            alpha: share of tracks of the subgenres that may be rejected as none of these.

        Raises:
            RunError: the model has no vectors. LibraryError: no audio there.
        """
        from subgenre.commands.classify import place

        classifier = self._folder.classifier(alpha)
        if not isinstance(tracks, str | Path | Iterable):
            return place(classifier, tracks)
        names = _paths(tracks)
        try:
            rows = [self.tracks.row(str(name)) for name in names]
        except IndexStoreError:
            return place(classifier, self.embed(names, console=console))
        return classifier.place(self.tracks.tracks(rows), self.tracks.vectors(rows))

    def classify_files(
        self,
        files: Paths,
        *,
        alpha: float = ALPHA,
        out: str | Path | None = None,
        copy_to: str | Path | None = None,
        m3u_to: str | Path | None = None,
        maps: Maps = (),
        workers: int | None = None,
        console: Console | None = None,
    ) -> Classified:
        """Classify audio files, and write or sort the result; the files stay as they are.

        Args:
            files: files, folders or playlists.
            alpha: as in `classify`.
            out: a .csv or .json of the placements.
            copy_to: copy each file into this folder, by genre/subgenre.
            m3u_to: add each file to the playlist of its subgenre in this folder.
            maps: as of `index`.
            workers: processes; by default all cores.

        Raises:
            RunError: the model has no vectors. LibraryError: no audio, or none of it can be read.
            PlaylistError: `out` is of another kind, or a copy would replace another file.
        """
        from subgenre.commands.classify import classify

        return classify(
            _paths(files),
            self._folder,
            alpha=alpha,
            out=_path(out),
            copy_to=_path(copy_to),
            m3u_to=_path(m3u_to),
            maps=maps,
            workers=workers,
            console=console,
        )

    def tag(
        self,
        files: Paths,
        *fields: str,
        mode: str = "missing",
        apply: bool = False,
        alpha: float = ALPHA,
        maps: Maps = (),
        workers: int | None = None,
        console: Console | None = None,
    ) -> Tagged:
        """Classify audio files and write the subgenre into their tags; without `apply`, only tell.

        Args:
            files: files, folders or playlists.
            fields: GENRE, GROUPING or COMMENT.
            mode: `missing` fills empty fields, `append` adds to the values, `overwrite` replaces
                them.
            apply: write; `backup` of the result is for `subgenre tag --undo`.
            alpha: as in `classify`. maps: as of `index`.
            workers: processes; by default all cores.

        Raises:
            MissingExtraError: the extra `tag` is not installed. RunError: the model has no vectors.
            ConfigError: an unknown field or mode. LibraryError: no audio, or none of it can be
                read.
        """
        from subgenre.commands.tag import tag

        return tag(
            _paths(files),
            self._folder,
            fields=fields,
            mode=mode,
            apply=apply,
            alpha=alpha,
            maps=maps,
            workers=workers,
            console=console,
        )

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
            per_artist: most tracks of one artist; 0: no limit.
            versions: keep several versions of one recording.
            mutual: rank by mutual proximity, which corrects hubs; else by cosine.

        Raises:
            PlaylistError: unknown; the message names the most similar name.
        """
        return self.playlist(
            track, tracks=k, filter=filter, per_artist=per_artist, versions=versions, mutual=mutual
        )

    def playlist(
        self,
        *seeds: Seed,
        request: PlaylistRequest | None = None,
        out: str | Path | None = None,
        console: Console | None = None,
        **options: Any,
    ) -> list[Hit]:
        """Make a playlist: from seeds, for a subgenre, on a journey, or along an axis.

        Args:
            seeds: tracks to begin with: ids, paths, titles, files, or vectors [D].
            out: a .m3u8, .csv or .xml (rekordbox) to write; an empty list is not written.
            options: the other fields of `PlaylistRequest`. request: all of them, ready made.

        Raises:
            PlaylistError: unknown names, or options that exclude each other.
        """
        from subgenre.commands.playlist import nearby, playlist
        from subgenre.search.requests import PlaylistRequest

        request = request or PlaylistRequest(seeds, **options)
        tracks = None
        if self._served is not None and "tracks" not in self.__dict__:
            tracks = nearby(self._folder, self._served, request, console=console)
        if tracks is None:
            tracks = self.tracks
        return playlist(self._folder, tracks, request, out=_path(out), console=console)

    def ranking(self, request: PlaylistRequest) -> Ranking:
        """Return what orders the list of a request."""
        from subgenre.search import requests

        return requests.ranking(self._count, request)

    @property
    def _count(self) -> int:
        """Number of tracks that are searched."""
        return len(self.tracks) if self._served is None else self._served.count

    def map(self) -> LibraryMap:
        """Return the map of all tracks; the first call fits it and keeps it.

        Raises:
            RunError: the model has no vectors.
        """
        from subgenre.commands import model_map

        fitted = model_map.load_map(self._folder)
        return LibraryMap(
            tuple(self.tracks.tracks(self.tracks.live)),
            model_map.coordinates(fitted, self._folder, self.tracks),
            fitted.method,
            fitted.note,
        )

    def explore(
        self,
        *,
        playlists: str | Path = "playlists",
        host: str = "127.0.0.1",
        port: int = 8765,
        on_ready: Callable[[str], None] = print,
        console: Console | None = None,
    ) -> None:
        """Serve the map in the browser, with sound, until it is interrupted.

        Args:
            playlists: folder for saved playlists.
            host: address to listen on. port: 0 takes a free one.
            on_ready: receives the page's address; on any host but loopback, with a token.

        Raises:
            MissingExtraError: the web extra is not installed. ConfigError: the address or port is
                not available. RunError: the model has no vectors.
        """
        from subgenre.commands.explore import explore

        explore(
            self._folder,
            index=self._index,
            playlists=Path(playlists),
            host=host,
            port=port,
            on_ready=on_ready,
            console=console,
        )

    def export(
        self,
        target: str,
        out: str | Path,
        *,
        push: str = "",
        console: Console | None = None,
    ) -> Exported:
        """Write the model, or the vectors of `tracks`, into a new folder for another tool.

        Args:
            target: `onnx`, `sentence-transformers` or `hub`: the model. `faiss`, `parquet` or
                `tensorboard`: the vectors, with names and labels.
            out: the folder; it may exist if it is empty.
            push: with `hub`, the name there, `owner/name`; by default nothing leaves this computer.

        Raises:
            ConfigError: an unknown target, or a folder that is not empty. MissingExtraError: the
                target's library is not installed. RunError: the model has no vectors, or the hub
                refuses it.
        """
        from subgenre.commands.export import export

        return export(
            self._folder, target, Path(out), index=self._index, push=push, console=console
        )


def load(
    run: str | Path | None = None,
    *,
    index: str | Path | None = None,
    engine: str | None = None,
    console: Console | None = None,
) -> Model:
    """Open a trained model.

    Args:
        run: the model folder, or the name of a pushed one on the hub, `owner/name`; by default the
            newest with vectors here.
        index: a folder, or the address of a server; by default the model's own, if there is one.
        engine: what runs a transformer on a CPU: `torch`, `openvino`, `onnx` or `auto`; by default
            that of the training.
        console: shows the name of the chosen model.

    Raises:
        RunError: there is no model, or it is damaged. ConfigError: no such engine, or an address
            with a password.
    """
    path = _path(run)
    if path is not None and not path.exists() and workspace.HUB_NAME.fullmatch(path.as_posix()):
        from subgenre.exports import hub_folder

        path = hub_folder.download(path.as_posix())
    searched = None if index is None else address.parse(index)
    return Model(ModelFolder.open(path, console, engine=engine), searched)


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)


def _paths(files: Paths) -> list[Path]:
    return [Path(file) for file in ([files] if isinstance(files, str | Path) else files)]
