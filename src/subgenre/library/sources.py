"""Find the files of a library and their labels: a folder tree, a CSV, playlists, rekordbox XML."""

from __future__ import annotations

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from subgenre.audio.extensions import EXTENSIONS
from subgenre.core import csv_tables
from subgenre.core.files import safe_name
from subgenre.core.progress import Console
from subgenre.errors import LibraryError, PlaylistError
from subgenre.library.formats import FORMATS, M3U_EXTENSIONS, decoded_m3u, read_playlist, read_text
from subgenre.library.labels import Names, apart, label
from subgenre.library.rekordbox import read_collection
from subgenre.library.uris import Maps, elsewhere, resolve

TRASH = "trash"
NAMED = 5  # folders or files that a note names
WARNED = 20  # skipped files that are named; the others are counted
# rubbish and services of Windows, Linux, Synology and QNAP
_SYSTEM = re.compile(
    r"#recycle|@Recycle|\$RECYCLE\.BIN|RECYCLER|lost\+found|System Volume Information|@eaDir|"
    r"@Recently-Snapshot|#snapshot|@tmp|\.Trash(es|-.*)?",
    re.IGNORECASE,
)
_COLUMNS = ("path", "genre", "subgenre")
_LEVELS = ("", "genre", "subgenre")
_TAKEN = (TRASH, "dataset.json", "chunks.parquet", "tracks.parquet", "skipped.csv")
_HINT = (
    "name a folder (ROOT/genre/subgenre/*), a CSV (path,genre,subgenre), a folder of M3U8 or a "
    "rekordbox XML"
)


@dataclass(frozen=True)
class Skipped:
    """A file that was left out, and why."""

    path: Path
    reason: str

    def to_dict(self) -> dict[str, str]:
        """Return plain values for JSON."""
        return {"path": str(self.path), "reason": self.reason}


@dataclass(frozen=True)
class Entry:
    """A file and its label; trash has none. `origin` is the list and line that name the file."""

    path: Path
    genre: str
    subgenre: str
    trash: bool = False
    origin: str = ""


@dataclass
class Found:
    """The files of a source in order, those left out, and notes for the user."""

    entries: list[Entry] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    system: list[Path] = field(default_factory=list)  # folders of the system, left out
    hidden: list[Path] = field(default_factory=list)  # other folders and audio, left out
    written: dict[Names, dict[str, None]] = field(default_factory=dict)  # names by label
    maps: Maps = ()

    def label(self, genre: str, subgenre: str) -> tuple[str, str]:
        """Return two names as the labels of a track."""
        labels = label(genre), label(subgenre)
        self.written.setdefault(labels[:1], {})[genre] = None
        self.written.setdefault(labels, {})[subgenre] = None
        return labels

    def note_names(self) -> None:
        """Note which names are left out, a line for each kind, and which are one label."""
        if self.system:
            names = ", ".join(shown(name) for name in sorted({p.name for p in self.system}))
            self.notes.append(f"{len(self.system)} system folders are left out: {names}")
        if self.hidden:
            names = ", ".join(shown(path) for path in self.hidden[:NAMED])
            self.notes.append(
                f"{len(self.hidden)} folders and files whose names begin with a dot are left out "
                f"({names}); to use one, rename it"
            )
        for labels, written in self.written.items():
            if len(written) > 1:
                self.notes.append(
                    f"{len(written)} names look the same, so they are one {_LEVELS[len(labels)]}, "
                    f"{'/'.join(labels)}: {', '.join(map(ascii, written))}; to keep them apart, "
                    "rename one"
                )


def check(source: Path, trash: Path | None = None) -> None:
    """Refuse a library or a trash folder that is not there.

    Raises:
        LibraryError: one of them is missing.
    """
    if trash is not None and not trash.is_dir():
        raise LibraryError(f"the trash folder {shown(trash)} is not a readable folder")
    if not source.exists():
        raise LibraryError(f"{shown(source)} does not exist; {_HINT}")


def find(source: Path, trash: Path | None = None, maps: Maps = ()) -> Found:
    """List the files of a library with their labels, without opening audio.

    `maps` translates the paths in lists of another machine, see `uris.resolve`.

    Raises:
        LibraryError: the source or the trash folder is missing or can't be used.
    """
    check(source, trash)
    found = Found(maps=maps)
    blocked = set()
    if trash is not None:
        blocked.add(_identity(trash))
        _walk(found, trash, Entry(trash, "", "", trash=True), set())
    suffix = source.suffix.lower()
    if source.is_dir():
        _read_folder(found, source, blocked)
    elif suffix in M3U_EXTENSIONS:
        raise LibraryError(
            f"{shown(source)} is one playlist, so one subgenre; name the folder with a playlist "
            "for each subgenre"
        )
    elif suffix == ".csv" and source.is_file():
        _read_csv(found, source)
    elif suffix == ".xml" and source.is_file():
        _read_rekordbox(found, source)
    else:
        raise LibraryError(f"{shown(source)} holds no library; {_HINT}")
    found.entries = list(dict.fromkeys(found.entries))
    found.note_names()
    return found


def listing(folder: Path) -> Found:
    """List all audio below a folder, at any depth, without labels."""
    found = Found()
    _walk(found, folder, Entry(folder, "", ""), set())
    found.entries.sort(key=lambda entry: str(entry.path))
    found.note_names()
    return found


@dataclass(frozen=True)
class AudioFiles:
    """Files to read, each once, in the given order; and what was left out."""

    paths: tuple[Path, ...]
    skipped: tuple[Skipped, ...]


def audio_files(given: Sequence[Path], maps: Maps = ()) -> AudioFiles:
    """List audio files: files, all audio below folders, and the entries of playlists.

    `maps` translates the paths in playlists of another machine, see `uris.resolve`.

    Raises:
        LibraryError: no audio there. PlaylistError: a playlist can't be read.
    """
    paths: dict[Path, None] = {}
    skipped: list[Skipped] = []
    for path in given:
        suffix = path.suffix.lower()
        if path.is_dir():
            found = listing(path)
            paths |= dict.fromkeys(entry.path for entry in found.entries)
            skipped += found.skipped
        elif not path.exists():
            skipped.append(Skipped(path, "does not exist"))
        elif suffix in FORMATS:
            for file in read_playlist(path, maps):
                reason = elsewhere(file)
                if reason:
                    skipped.append(Skipped(file, f"{reason} (listed in {shown(path.name)})"))
                else:
                    paths[file] = None
        elif suffix in EXTENSIONS:
            paths[path] = None
        else:
            skipped.append(Skipped(path, "has no audio extension"))
    if not paths:
        reasons = ", ".join(f"{shown(s.path)}: {s.reason}" for s in skipped[:3])
        places = f"{', '.join(map(shown, given))} holds no audio" if given else "nothing is named"
        what = reasons or places
        raise LibraryError(f"{what}; name audio files, folders or playlists")
    return AudioFiles(tuple(paths), tuple(skipped))


def warn_of_skipped(console: Console, skipped: Sequence[Skipped]) -> tuple[Skipped, ...]:
    """Warn of skipped files, the first ones by name; return them as a tuple."""
    for one in skipped[:WARNED]:
        console.warn(f"skipped {shown(one.path)}: {one.reason}")
    if len(skipped) > WARNED:
        console.warn(f"... and {len(skipped) - WARNED} more")
    return tuple(skipped)


def shown(path: Path | str) -> str:
    """Return a path as printable text; line breaks and bytes that are not UTF-8 are escaped."""
    text = str(path).encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def folder_names(labels: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Give each (genre, subgenre) its own safe folder name, unique without regard to case.

    The name is the subgenre, or `<genre>__<subgenre>` if two genres have that subgenre or a file of
    the feature folder has that name.
    """
    ordered = sorted(set(labels))
    plain = Counter(safe_name(subgenre).casefold() for _, subgenre in ordered)
    taken = set(_TAKEN)
    names: dict[tuple[str, str], str] = {}
    for genre, subgenre in ordered:
        name = safe_name(subgenre)
        if plain[name.casefold()] > 1 or name.casefold() in _TAKEN:
            name = safe_name(f"{safe_name(genre)}__{name}", limit=160)
        free, count = name, 1
        while free.casefold() in taken:
            count += 1
            free = f"{name}_{count}"
        taken.add(free.casefold())
        names[genre, subgenre] = free
    return names


def _read_folder(found: Found, root: Path, blocked: set[tuple[int, int]]) -> None:
    """Read ROOT/genre/subgenre/**, or the playlists if no audio has such a path."""
    above = blocked | {_identity(root)}
    labelled: list[Entry] = []
    loose = []  # files outside ROOT/genre/subgenre/, with their folder and its name
    for child, is_folder in _listing(found, root):
        if not is_folder:
            loose.append((child, "the library's folder", root.resolve().name))
        elif _is_trash(child.name):
            _walk(found, child, Entry(child, "", "", trash=True), set(above))
        elif _identity(child) not in above:
            entries, files = _read_genre(found, child, above | {_identity(child)})
            labelled += entries
            loose += [(file, "a genre's folder", child.name) for file in files]
    playlists = [(file, genre) for file, _, genre in loose if file.suffix.lower() in M3U_EXTENSIONS]
    if playlists and not labelled:
        _read_playlists(found, playlists)
        return
    _warn_if_too_deep(found, root, labelled)
    found.entries += labelled
    for file, where, _ in loose:
        if file.suffix.lower() in EXTENSIONS:
            reason = f"directly in {where}; move it to ROOT/genre/subgenre/"
            found.skipped.append(Skipped(file, reason))
    if playlists:
        found.notes.append(f"{len(playlists)} playlists are ignored: folders give the labels")


def _warn_if_too_deep(found: Found, root: Path, labelled: list[Entry]) -> None:
    """Warn if the only folder seems to be a library itself: all its tracks lie one level deeper."""
    parts = [entry.path.relative_to(root).parts for entry in labelled]
    tops = {part[0] for part in parts}
    if len(tops) == 1 and min(map(len, parts)) > len(("genre", "subgenre", "track")):
        found.notes.append(
            f"every track lies deeper than ROOT/genre/subgenre/, so all of {labelled[0].genre}/"
            f"{labelled[0].subgenre}/ is one subgenre; if its folders are the subgenres, name "
            f"{shown(root / tops.pop())} instead"
        )


def _read_genre(
    found: Found, folder: Path, above: set[tuple[int, int]]
) -> tuple[list[Entry], list[Path]]:
    """Return the entries of one genre, and the files directly in its folder."""
    labelled = Found(skipped=found.skipped, system=found.system, hidden=found.hidden)
    loose = []
    for child, is_folder in _listing(found, folder):
        if not is_folder:
            loose.append(child)
            continue
        before = len(labelled.entries)
        _walk(labelled, child, Entry(child, label(folder.name), label(child.name)), set(above))
        if len(labelled.entries) > before:
            found.label(folder.name, child.name)
        elif child.suffix.lower() not in EXTENSIONS:
            found.notes.append(f"{shown(child)} holds no audio")
    return labelled.entries, loose


def _walk(found: Found, top: Path, like: Entry, seen: set[tuple[int, int]]) -> None:
    """Add all audio below a folder; each folder once, so that circular links end."""
    folders = [top]
    while folders:
        folder = folders.pop()
        if _identity(folder) in seen:
            continue
        seen.add(_identity(folder))
        children = _listing(found, folder)
        inside = [child for child, is_folder in children if is_folder]
        audio = [c for c, is_folder in children if not is_folder and c.suffix.lower() in EXTENSIONS]
        folders += inside
        found.entries += [replace(like, path=path) for path in audio]
        if not (inside or audio) and folder.suffix.lower() in EXTENSIONS:
            found.skipped.append(Skipped(folder, "a folder, not a file"))


def _listing(found: Found, folder: Path) -> list[tuple[Path, bool]]:
    """Return a folder's children that are not hidden, sorted, and whether each is a folder."""
    try:
        children = sorted(folder.iterdir())
        found.system += [c for c in children if _SYSTEM.fullmatch(c.name)]
        children = [c for c in children if not _SYSTEM.fullmatch(c.name)]
    except OSError as problem:
        found.skipped.append(Skipped(folder, f"the folder can't be read ({problem.strerror})"))
        return []
    kinds = [(child, os.path.isdir(child)) for child in children]  # noqa: PTH112 - links may loop
    found.hidden += [
        child
        for child, is_folder in kinds
        if child.name.startswith(".")
        and (is_folder or child.suffix.lower() in EXTENSIONS)
        and not child.name.startswith("._")  # macOS keeps attributes of a file there
    ]
    return [(child, is_folder) for child, is_folder in kinds if not child.name.startswith(".")]


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _read_playlists(found: Found, playlists: Sequence[tuple[Path, str]]) -> None:
    """Read the playlists of genres; two with one name in a genre keep their extensions."""
    stems = Counter((genre, playlist.stem) for playlist, genre in playlists)
    names = [
        (genre, file.stem if stems[genre, file.stem] == 1 or _is_trash(file.stem) else file.name)
        for file, genre in playlists
    ]
    origins = [shown(playlist) for playlist, _ in playlists]
    for (playlist, _), own in zip(playlists, _apart(found, names, origins), strict=True):
        _read_playlist(found, playlist, own)


def _read_playlist(found: Found, playlist: Path, names: tuple[str, str]) -> None:
    try:
        paths, encoding = decoded_m3u(playlist, found.maps)
    except PlaylistError as problem:
        found.skipped.append(Skipped(playlist, shown(str(problem))))
        return
    _note_encoding(found, playlist, encoding)
    _add_list(found, paths, names, shown(playlist.name))
    if not paths:
        found.skipped.append(Skipped(playlist, "the playlist is empty"))


def _note_encoding(found: Found, source: Path, encoding: str) -> None:
    if encoding != "UTF-8":
        found.notes.append(f"{shown(source)} is read as {encoding}")


def _read_rekordbox(found: Found, source: Path) -> None:
    """Read a collection: a playlist is a subgenre, its folder (or the file) the genre.

    The genre is the whole path of the folder if two folders and playlists have the same names.
    """
    try:
        collection = read_collection(source, found.maps)
    except PlaylistError as problem:
        raise LibraryError(str(problem)) from problem
    _note_encoding(found, source, collection.encoding)
    found.skipped += [Skipped(source, shown(line)) for line in collection.left_out]
    paths = [(*(names[:-1] or (source.stem,)), names[-1]) for names, _ in collection.playlists]
    ends = Counter(path[-2:] for path in {tuple(map(label, path)) for path in paths})
    names = [
        (path[-2] if ends[label(path[-2]), label(path[-1])] == 1 else "/".join(path[:-1]), path[-1])
        for path in paths
    ]
    origins = [f"{shown(source.name)}, {shown('/'.join(own))}" for own, _ in collection.playlists]
    labels = _apart(found, names, origins)
    for (_, tracks), own, origin in zip(collection.playlists, labels, origins, strict=True):
        _add_list(found, tracks, own, origin)


def _apart(found: Found, names: list[tuple[str, str]], origins: list[str]) -> list[tuple[str, str]]:
    """Keep lists of one (genre, subgenre) apart, with a note for each; all trash is one."""
    lists = iter(apart([own for own in names if not _is_trash(*own)]))
    labels = []
    for own, origin in zip(names, origins, strict=True):
        genre, subgenre = own if _is_trash(*own) else next(lists)
        labels.append((genre, subgenre))
        if (genre, subgenre) != own:
            found.notes.append(
                f"another list is {shown('/'.join(own))} too, so {origin} is the subgenre "
                f"{shown(f'{genre}/{subgenre}')}; to choose a name, rename it"
            )
    return labels


def _is_trash(*names: str) -> bool:
    return TRASH in (label(name).casefold() for name in names)


def _add_list(found: Found, paths: list[Path], names: tuple[str, str], origin: str) -> None:
    """Add the tracks of one playlist; (genre, subgenre) may name the trash."""
    trash = _is_trash(*names)
    for path in paths:
        _add_listed(found, path, names, trash, f"listed in {origin}")


def _add_listed(found: Found, path: Path, names: tuple[str, str], trash: bool, origin: str) -> None:
    """Add a listed file if it has an audio extension."""
    suffix = path.suffix.lower()
    reason = elsewhere(path)
    if reason:
        found.skipped.append(Skipped(path, f"{reason} ({origin})"))
        return
    if suffix not in EXTENSIONS:
        reason = f"no audio extension: '{shown(suffix)}' ({origin})"
        found.skipped.append(Skipped(path, reason))
        return
    genre, subgenre = ("", "") if trash else found.label(*names)
    found.entries.append(Entry(path, genre, subgenre, trash, origin))


def _read_csv(found: Found, source: Path) -> None:
    """Read `path,genre,subgenre`; paths are relative to the folder of the CSV.

    Cells are read as `csv_tables.plain`: a person's `'+x` is `+x`, as it is in a file of ours.
    """
    for number, row in _rows(found, source):
        origin = f"row {number} of {shown(source.name)}"
        path, genre, subgenre = (row[column].strip() for column in _COLUMNS)
        trash = _is_trash(genre or subgenre)
        empty = [c for c in _COLUMNS if not row[c].strip() and not (trash and c != "path")]
        if empty:
            found.skipped.append(Skipped(source, f"{origin} has no {' and no '.join(empty)}"))
            continue
        file = resolve(source.parent, path, found.maps)
        _add_listed(found, file, (genre, subgenre), trash, origin)


def _rows(found: Found, source: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line number and the three columns of each row that is not blank."""
    try:
        text, encoding = read_text(source)
        _note_encoding(found, source, encoding)
        delimiter = csv_tables.delimiter(text)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        names = [name.strip().casefold() for name in next(reader, [])]
        missing = [column for column in _COLUMNS if column not in names]
        if missing:
            raise LibraryError(
                f"{shown(source)} has no column {' and no column '.join(missing)}, but "
                f"{shown(','.join(names)[:200]) or 'none'}; line 1 must be path,genre,subgenre"
            )
        for cells in reader:
            row = dict(zip(names, cells + [""] * len(names), strict=False))
            if any(cell.strip() for cell in cells):
                yield reader.line_num, {c: csv_tables.plain(row[c]) for c in _COLUMNS}
    except PlaylistError as problem:
        raise LibraryError(shown(str(problem))) from problem
    except csv.Error as problem:
        raise LibraryError(f"{shown(source)} can't be read as a CSV: {problem}") from problem
