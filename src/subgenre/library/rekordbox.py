"""rekordbox XML: the collection and its playlists, written and read.

A document type is refused where it begins, so no entity is ever declared or expanded. The size of
the file and the depth of its elements are limited.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.parsers import expat
from xml.sax.saxutils import quoteattr

from subgenre.core import files
from subgenre.errors import PlaylistError
from subgenre.library.track import Track
from subgenre.library.uris import path_of_uri, read_regular, uri_of

MAX_XML_BYTES = 512 * 2**20  # a collection of 200,000 tracks has about 200 MB
MAX_XML_DEPTH = 100


def write_rekordbox(path: Path, playlists: Mapping[str, Sequence[Track]]) -> None:
    """Write playlists as an XML collection that rekordbox imports; each track is in it once."""
    collection = {t.path: t for tracks in playlists.values() for t in tracks}
    number = {name: i for i, name in enumerate(collection, start=1)}
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<DJ_PLAYLISTS Version="1.0.0">',
        '  <PRODUCT Name="subgenre" Version="1" Company=""/>',
        f'  <COLLECTION Entries="{len(collection)}">',
        *(_xml_track(track, number[name]) for name, track in collection.items()),
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


def read_rekordbox(path: Path) -> dict[str, list[Path]]:
    """Read the playlists of a rekordbox XML file: name -> tracks in order.

    A playlist in a folder is named `folder/playlist`; a slash inside a name becomes `_`. Entries
    whose track is not in the collection are ignored.

    Raises:
        PlaylistError: no XML, no rekordbox collection, larger than `MAX_XML_BYTES`, or with a
            document type or entities, which are never expanded.
    """
    data = read_regular(path, MAX_XML_BYTES, "rekordbox XML")
    reader = _Rekordbox(path)
    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = reader.refuse
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, LookupError, ValueError) as problem:
        raise PlaylistError(f"{path} can't be read as XML: {problem}") from problem
    if not reader.is_rekordbox:
        raise PlaylistError(f"{path} holds no <DJ_PLAYLISTS>; export the collection from rekordbox")
    return reader.playlists()


class _Rekordbox:
    """Collects locations and lists while the parser walks through the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_rekordbox = False
        self._open: list[str] = []  # element names from the root down
        self._nodes: list[str] = []  # names of the NODEs that are open
        self._key_types: list[str] = []
        self._locations: dict[str, str] = {}
        self._lists: dict[str, list[tuple[str, str]]] = {}

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
            if values.get("Type") == "1":
                self._lists.setdefault(self._list_name(), [])
        elif name == "TRACK" and self._open[-2] == "COLLECTION":
            self._locations[values.get("TrackID", "")] = values.get("Location", "")
        elif name == "TRACK" and self._nodes:
            entry = (self._key_types[-1], values.get("Key", ""))
            self._lists.setdefault(self._list_name(), []).append(entry)

    def end(self, name: str) -> None:
        self._open.pop()
        if name == "NODE":
            self._nodes.pop()
            self._key_types.pop()

    def playlists(self) -> dict[str, list[Path]]:
        """Playlists by name; a key is a track's number, or its location where KeyType is 1."""
        found: dict[str, list[Path]] = {}
        for name, entries in self._lists.items():
            places = [k if kind == "1" else self._locations.get(k, "") for kind, k in entries]
            found[name] = [self._path(place) for place in places if place]
        return found

    def _list_name(self) -> str:
        has_root = self._nodes[0] == "ROOT" and len(self._nodes) > 1
        return "/".join(self._nodes[has_root:])

    def _path(self, location: str) -> Path:
        if location[:7].lower() == "file://":
            return self.path.parent / path_of_uri(location.encode("utf-8"))
        return self.path.parent / location


def _xml_track(track: Track, number: int) -> str:
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
        **({"AverageBpm": f"{track.bpm:.2f}"} if track.bpm else {}),
        "Location": uri_of(track.path, host="localhost"),
    }
    attributes = " ".join(f"{name}={_attribute(value)}" for name, value in values.items())
    return f"    <TRACK {attributes}/>"


def _attribute(value: str) -> str:
    """Quote a value; characters that XML 1.0 does not allow become question marks."""
    return quoteattr(re.sub(r"[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", value))
