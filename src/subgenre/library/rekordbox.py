"""rekordbox XML: the collection and its playlists, written and read.

A document type is refused where it begins, so no entity is ever declared or expanded. The size of
the file and the depth of its elements are limited.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.parsers import expat
from xml.sax.saxutils import quoteattr

from subgenre.core import files
from subgenre.errors import PlaylistError
from subgenre.library.labels import Names, apart
from subgenre.library.track import Track
from subgenre.library.uris import Maps, decode, read_regular, resolve, uri_of

MAX_XML_BYTES = 512 * 2**20  # a collection of 200,000 tracks has about 200 MB
MAX_XML_DEPTH = 100
# of a track: rose, red, orange, lemon, green, turquoise, blue, violet; from the "XML format list"
# of rekordbox's developers
COLOURS = (
    *("0xFF007F", "0xFF0000", "0xFFA500", "0xFFFF00"),
    *("0x00FF00", "0x25FDE9", "0x0000FF", "0x660099"),
)
# locations of streaming services: `spotify:track:1`, `file://localhosttidal:tracks:1`, `https://...`
_STREAM = re.compile(
    r"(file://(localhost)?/?)?"
    r"(spotify|tidal|soundcloud|beatport|beatsource|deezer|qobuz|itunes|applemusic|https?):",
    re.IGNORECASE,
)


def write_rekordbox(path: Path, playlists: Mapping[str, Sequence[Track]]) -> None:
    """Write playlists as an XML collection that rekordbox imports; each track is in it once."""
    collection = {t.path: t for tracks in playlists.values() for t in tracks}
    number = {name: i for i, name in enumerate(collection, start=1)}
    colour = _colours({(t.genre, t.subgenre) for t in collection.values() if t.subgenre})
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<DJ_PLAYLISTS Version="1.0.0">',
        '  <PRODUCT Name="subgenre" Version="1" Company=""/>',
        f'  <COLLECTION Entries="{len(collection)}">',
        *(
            _xml_track(track, number[name], colour.get((track.genre, track.subgenre)))
            for name, track in collection.items()
        ),
        "  </COLLECTION>",
        "  <PLAYLISTS>",
        f'    <NODE Type="0" Name="ROOT" Count="{len(playlists)}">',
    ]
    for name, tracks in playlists.items():
        start = f'      <NODE Name={_attribute(name)} Type="1" KeyType="0" Entries="{len(tracks)}">'
        keys = [f'        <TRACK Key="{number[t.path]}"/>' for t in tracks]
        lines += [start, *keys, "      </NODE>"]
    lines += ["    </NODE>", "  </PLAYLISTS>", "</DJ_PLAYLISTS>", ""]
    files.write_text(path, "\n".join(lines))


@dataclass(frozen=True)
class Collection:
    """The playlists of a file, and a line for each thing left out.

    A playlist has the names of its folders and its own, and tracks in order. Names may repeat; a
    slash inside a name becomes `_`.
    """

    playlists: tuple[tuple[Names, list[Path]], ...]
    left_out: tuple[str, ...]
    encoding: str


def read_rekordbox(path: Path, maps: Maps = ()) -> dict[str, list[Path]]:
    """Read the playlists of a rekordbox XML file: `folder/playlist` -> tracks in order.

    The second one of a name gets ` (2)`.
    """
    playlists = read_collection(path, maps).playlists
    names = apart([names for names, _ in playlists])
    return {"/".join(own): tracks for own, (_, tracks) in zip(names, playlists, strict=True)}


def read_collection(path: Path, maps: Maps = ()) -> Collection:
    """Read a rekordbox XML file; for `maps` see `uris.resolve`.

    Raises:
        PlaylistError: no XML, no rekordbox collection, larger than `MAX_XML_BYTES`, or with a
            document type or entities, which are never expanded.
    """
    data = read_regular(path, MAX_XML_BYTES, "rekordbox XML")
    reader = _Rekordbox(path, maps)
    parser = expat.ParserCreate("utf-8")  # whatever the first line says
    parser.StartDoctypeDeclHandler = reader.refuse
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    try:
        text, encoding = decode(data)
        parser.Parse(text.encode("utf-8"), True)
    except (expat.ExpatError, LookupError, ValueError) as problem:
        raise PlaylistError(f"{path} can't be read as XML: {problem}") from problem
    if not reader.is_rekordbox:
        raise PlaylistError(f"{path} holds no <DJ_PLAYLISTS>; export the collection from rekordbox")
    playlists = tuple((names, reader.tracks(names, keys)) for names, keys in reader.lists)
    return Collection(playlists, tuple(reader.left_out), encoding)


class _Rekordbox:
    """Collects locations and lists while the parser walks through the file."""

    def __init__(self, path: Path, maps: Maps) -> None:
        self.path, self.maps = path, maps
        self.is_rekordbox = False
        self._open: list[str] = []  # element names from the root down
        self._nodes: list[str] = []  # names of the NODEs that are open
        self._key_types: list[str] = []
        self._found: dict[str, tuple[str, str]] = {}  # TrackID -> Location, Name
        self.lists: list[tuple[Names, list[tuple[str, str]]]] = []  # names; kind of key, key
        self.left_out: list[str] = []
        self._in_list = False  # whether the last of the lists is open

    def refuse(self, *_: object) -> None:
        raise PlaylistError(f"{self.path} has a document type (DOCTYPE), as no rekordbox file has")

    def start(self, name: str, values: dict[str, str]) -> None:
        self._open.append(name)
        if len(self._open) > MAX_XML_DEPTH:
            raise PlaylistError(f"{self.path} is nested deeper than {MAX_XML_DEPTH} levels")
        if len(self._open) == 1:
            self.is_rekordbox = name == "DJ_PLAYLISTS"
        elif name == "NODE":
            self._nodes.append(values.get("Name", "").replace("/", "_"))
            self._key_types.append(values.get("KeyType", "0"))
            self._begin(values.get("Type", "0"))
        elif name == "TRACK" and self._open[-2] == "COLLECTION":
            self._collect(*(values.get(key, "") for key in ("TrackID", "Location", "Name")))
        elif name == "TRACK" and self._in_list:
            self.lists[-1][1].append((self._key_types[-1], values.get("Key", "")))

    def end(self, name: str) -> None:
        self._open.pop()
        if name == "NODE":
            self._nodes.pop()
            self._key_types.pop()
            self._in_list = False

    def _collect(self, key: str, location: str, title: str) -> None:
        """Keep a track of the collection, the first one of an id."""
        first = self._found.setdefault(key, (location, title))
        if first[0] != location:
            self.left_out.append(
                f"track {key} '{title}' has the TrackID of '{first[1]}', to which playlists refer"
            )

    def _begin(self, kind: str) -> None:
        """Open a node: "0" is a folder, "1" a playlist."""
        has_root = self._nodes[0] == "ROOT" and len(self._nodes) > 1
        names = tuple(self._nodes[has_root:])
        self._in_list = kind == "1"
        if self._in_list:
            self.lists.append((names, []))
        elif kind != "0":
            name = "/".join(names)
            self.left_out.append(f"playlist '{name}' is of another kind, Type {kind}")

    def tracks(self, names: Names, keys: Sequence[tuple[str, str]]) -> list[Path]:
        """Return the files of a playlist; a key is an id, or a location where KeyType is 1."""
        name = "/".join(names)
        if not keys:
            self.left_out.append(f"playlist '{name}' is empty; a smart playlist holds no tracks")
        paths = []
        for kind, key in keys:
            location, title = (key, "") if kind == "1" else self._found.get(key, (None, ""))
            track = f"track {key} '{title}' of playlist '{name}'"
            if location is None:
                self.left_out.append(f"track {key} of playlist '{name}' is not in the collection")
            elif not location:
                self.left_out.append(f"{track} has no location")
            elif _STREAM.match(location):
                self.left_out.append(f"{track} is a stream, not a file: {location}")
            else:
                paths.append(resolve(self.path.parent, location, self.maps))
        return paths


def _colours(labels: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Give each subgenre a colour: its own by a checksum, so that it has the same in other files.

    Up to eight subgenres of a file differ: where a colour is taken, the next free one serves.
    """
    found: dict[tuple[str, str], str] = {}
    for label in sorted(labels):
        first = files.checksum("/".join(label).encode())
        turned = [COLOURS[(first + i) % len(COLOURS)] for i in range(len(COLOURS))]
        free = [colour for colour in turned if colour not in found.values()]
        found[label] = (free or turned)[0]
    return found


def _xml_track(track: Track, number: int, colour: str | None) -> str:
    """Describe one track of the collection."""
    values = {
        "TrackID": str(number),
        "Name": track.title or track.path.stem,
        "Artist": track.artist,
        "Album": track.album,
        "Genre": track.genre,
        "Grouping": track.subgenre,
        "Size": str(track.size),
        "TotalTime": str(round(track.duration_s)),
        **({"AverageBpm": f"{track.tempo:.2f}"} if track.tempo else {}),
        **({"Tonality": track.key} if track.key else {}),
        **({"Colour": colour} if colour else {}),
        "Location": uri_of(track.path, host="localhost"),
    }
    attributes = " ".join(f"{name}={_attribute(value)}" for name, value in values.items())
    return f"    <TRACK {attributes}/>"


def _attribute(value: str) -> str:
    """Quote a value; characters that XML 1.0 does not allow become question marks."""
    return quoteattr(re.sub(r"[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", value))
