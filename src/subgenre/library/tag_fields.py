"""The tags that hold a subgenre: genre, grouping and comment, as each format keeps them.

| | ID3: mp3, aiff, wav | MP4: m4a, m4b, mp4 | Vorbis comments: flac, ogg, opus |
|---|---|---|---|
| GENRE | TCON | ©gen | GENRE |
| GROUPING | GRP1 where the file has it, else TIT1 | ©grp | GROUPING |
| COMMENT | COMM without a description | ©cmt | COMMENT, or DESCRIPTION where only that is there |

These are the names of Picard (picard-docs.musicbrainz.org, "Tag Mapping") and of Mp3tag
(docs.mp3tag.de/mapping), which DJ software reads. Of the two groupings of ID3, iTunes has used GRP1
since version 12.5, others TIT1; Mixxx decides as above (`trackmetadata_id3v2.cpp`), tinytag too.

Several values stand in a list where the format has one: repeated comments of Vorbis, strings of ID3
v2.4, data of MP4. In ID3 v2.3 a slash separates them, and a comment of ID3 or MP4 is one text. Of
the comments of ID3 in several languages, that of eng is meant, else of XXX, else of the first code.

Some programs read ID3 alone where there is any. So a file that has only ID3v1, or a wav with the
older chunk LIST INFO, gets those values as ID3v2 too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tinytag import TinyTag

from subgenre.audio import tags
from subgenre.errors import AudioError, MissingExtraError
from subgenre.library.sources import shown

Values = tuple[str, ...]

FIELDS = ("GENRE", "GROUPING", "COMMENT")
MODES = ("missing", "append", "overwrite")
_BETWEEN = "; "  # two values in one text
_MP4 = {"GENRE": "\xa9gen", "GROUPING": "\xa9grp", "COMMENT": "\xa9cmt"}
_ID3V1_BYTES = 128


@dataclass(frozen=True)
class Change:
    """What one field of a file has, and what it gets."""

    field: str
    old: Values
    new: Values


def check_library() -> None:
    """Raise an error if the library that writes tags is not installed.

    Raises:
        MissingExtraError: it is not.
    """
    try:
        import mutagen  # noqa: F401
    except ImportError as problem:
        writer = "writing tags (with mutagen, licence GPL-2.0-or-later)"
        raise MissingExtraError(writer, "tag") from problem


def plan(path: Path, value: str, fields: Sequence[str], mode: str) -> list[Change]:
    """Return the changes that write a value into fields of a file; the file is only read.

    Args:
        mode: `overwrite` replaces what is there, `append` adds the value where it is not among
            the others, `missing` fills an empty field only.

    Raises:
        AudioError: no tags are written into this format, those of the file are damaged, or a reader
            would find other values.
    """
    with _reasons():
        found = _open(path)
        changes = [
            Change(field, old := found.read(field), _new(old, value, mode)) for field in fields
        ]
        changes = [change for change in changes if change.new != change.old]
        for change in changes:
            found.write(change.field, change.new)
        _check_values(found, changes)
    return changes


def write(path: Path, changes: Sequence[Change]) -> None:
    """Write the new values into a file, in place, and read them back; all other tags stay.

    Raises:
        AudioError: as of `plan`. OSError: the disk is full.
    """
    with _reasons():
        found = _open(path)
        for change in changes:
            found.write(change.field, change.new)
        found.save()
        _check_values(_open(path), changes)


def _new(old: Values, value: str, mode: str) -> Values:
    if mode == "overwrite" or not old:
        return (value,)
    if mode == "missing" or any(_holds(text, value) for text in old):
        return old
    return (*old, value)


def _holds(text: str, value: str) -> bool:
    """Return whether a value is one of those in a text, whatever its case."""
    text, value = text.casefold(), value.casefold()
    return any(f"{sign}{value}{sign}" in f"{sign}{text}{sign}" for sign in (_BETWEEN, "/"))


def _check_values(found: _Tags, changes: Sequence[Change]) -> None:
    """Refuse tags that read as other values than the new ones, as a genre that is a code does."""
    for change in changes:
        read = found.read(change.field)
        if not all(any(_holds(text, value) for text in read) for value in change.new):
            there, new = (shown(_BETWEEN.join(values))[:80] for values in (read, change.new))
            raise AudioError(
                f"its {change.field} would read as {there or 'nothing'}, not {new}, so it stays as "
                "it is"
            )


class _Tags(Protocol):
    """The tags of an open file."""

    def read(self, field: str) -> Values:
        """Return the values of a field; an empty one has none."""

    def write(self, field: str, values: Values) -> None:
        """Replace the values of a field."""

    def save(self) -> None:
        """Write all tags into the file."""


class _Id3:
    """ID3 of the version that the file has, or 2.4; a tag of version 2.2 becomes one of 2.3."""

    def __init__(self, path: Path, kind: Callable[..., Any]) -> None:
        # frames stay as they are, and ID3v1 does not get into a tag of version 2
        file = kind(path, translate=False, load_v1=False)
        if file.tags is None:
            file = kind(path, translate=False)
            for comment in file.tags.getall("COMM") if file.tags else ():
                comment.desc = ""  # which tells mutagen that it is of ID3v1
        if file.tags is None:
            _refuse_ape(path)
            file.add_tags()
            _add_known(file.tags, path)
        self._path, self._tags = path, file.tags
        self._minor = 3 if self._tags.version[:2] in ((2, 2), (2, 3)) else 4

    def read(self, field: str) -> Values:
        frame = self._frame(field)
        if frame is None:
            return ()
        return tuple(filter(None, frame.genres if field == "GENRE" else frame.text))

    def write(self, field: str, values: Values) -> None:
        from mutagen import id3

        text = list(values)
        if field == "COMMENT":
            text = [_BETWEEN.join(values)]
        elif self._minor == 3:
            text = ["/".join(values)]
        frame = self._frame(field)
        if frame is not None:
            frame.text, frame.encoding = text, id3.Encoding.UTF8
        elif field == "COMMENT":
            self._tags.add(id3.COMM(encoding=id3.Encoding.UTF8, lang="eng", desc="", text=text))
        else:
            kind = id3.TCON if field == "GENRE" else id3.TIT1
            self._tags.add(kind(encoding=id3.Encoding.UTF8, text=text))

    def save(self) -> None:
        with self._path.open("rb") as file:
            file.seek(-_ID3V1_BYTES, os.SEEK_END)
            id3v1 = file.read()
        self._tags.save(self._path, v2_version=self._minor, v23_sep=None)
        if id3v1.startswith(b"TAG"):  # mutagen makes it anew; what only it has would be lost
            with self._path.open("r+b") as file:
                file.seek(-_ID3V1_BYTES, os.SEEK_END)
                file.write(id3v1)

    def _frame(self, field: str) -> Any:
        names = {"GENRE": ("TCON",), "GROUPING": ("GRP1", "TIT1"), "COMMENT": ("COMM",)}[field]
        frames = [frame for name in names for frame in self._tags.getall(name)]
        own = [frame for frame in frames if not getattr(frame, "desc", "")]
        return min(own, key=_rank, default=None)


def _rank(frame: Any) -> Any:
    """Sort frames: those with text first, then by language; their order changes with their size."""
    language = getattr(frame, "lang", "")
    return not any(frame.text), language != "eng", language != "XXX", language


def _refuse_ape(path: Path) -> None:
    from mutagen import apev2

    with suppress(apev2.APENoHeaderError):
        apev2.APEv2(path)
        raise AudioError("has APE tags alone, which new ID3 tags would hide; convert them first")


def _add_known(own: Any, path: Path) -> None:
    """Add what another reader finds in a file without ID3: the chunk LIST INFO of a wav."""
    from mutagen import id3

    known = TinyTag.get(path, duration=False)
    text = {
        id3.TIT2: known.title,
        id3.TPE1: known.artist,
        id3.TALB: known.album,
        id3.TDRC: known.year,
        id3.TRCK: known.track,
        id3.TCOM: known.composer,
        id3.TCON: known.genre,
    }
    for kind, value in text.items():
        if value:
            own.add(kind(encoding=id3.Encoding.UTF8, text=str(value)))
    if known.comment:
        own.add(id3.COMM(encoding=id3.Encoding.UTF8, lang="eng", desc="", text=known.comment))


class _Vorbis:
    """Vorbis comments."""

    def __init__(self, file: Any) -> None:
        if file.tags is None:
            file.add_tags()
        self._file = file

    def read(self, field: str) -> Values:
        return tuple(filter(None, self._file.tags.get(self._key(field), [])))

    def write(self, field: str, values: Values) -> None:
        self._file.tags[self._key(field)] = list(values)

    def save(self) -> None:
        self._file.save()

    def _key(self, field: str) -> str:
        # FFmpeg writes a comment as DESCRIPTION
        if field == "COMMENT" and field not in self._file.tags and "DESCRIPTION" in self._file.tags:
            return "DESCRIPTION"
        return field


class _Mp4(_Vorbis):
    """The list of items of an MP4 file."""

    def write(self, field: str, values: Values) -> None:
        super().write(field, (_BETWEEN.join(values),) if field == "COMMENT" else values)

    def _key(self, field: str) -> str:
        return _MP4[field]


def _open(path: Path) -> _Tags:
    from mutagen import File
    from mutagen.aiff import AIFF
    from mutagen.flac import FLAC
    from mutagen.mp3 import MP3
    from mutagen.mp4 import MP4
    from mutagen.oggflac import OggFLAC
    from mutagen.oggopus import OggOpus
    from mutagen.oggvorbis import OggVorbis
    from mutagen.wave import WAVE

    file = File(path)
    if isinstance(file, MP3 | AIFF | WAVE):
        return _Id3(path, type(file))
    if isinstance(file, FLAC | OggFLAC | OggOpus | OggVorbis):
        return _Vorbis(file)
    if isinstance(file, MP4):
        return _Mp4(file)
    raise AudioError(
        f"no tags are written into {path.suffix or 'this kind of file'}, only into mp3, aiff, wav, "
        "m4a, flac, ogg and opus"
    )


@contextmanager
def _reasons() -> Iterator[None]:
    """Turn what the parsers raise into an `AudioError`, or into the system's error behind it."""
    from mutagen import MutagenError

    try:
        yield
    except OSError:
        raise
    except (MutagenError, *tags.PROBLEMS) as problem:
        cause = problem.args[0] if problem.args else None
        if isinstance(cause, OSError) and cause.errno:
            raise cause from problem
        raise AudioError(f"its tags can't be read: {problem}") from problem
