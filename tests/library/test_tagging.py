"""Tags that we write are read by FFmpeg and tinytag; what FFmpeg wrote is kept, audio too.

The audio is compared by its packets, pictures by theirs, and an undo byte by byte.
"""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import pytest
from tinytag import TinyTag

from subgenre.audio import reading
from subgenre.core.files import TEMPORARY, checksum
from subgenre.errors import AudioError
from subgenre.library import retagging, tag_fields
from subgenre.library.scan import CHANGED, stamp
from subgenre.library.tag_fields import FIELDS
from tests import audio_files
from tests.small_disk import largest_file

# container options for FFmpeg; ID3 of both versions
FORMATS: dict[str, dict[str, str]] = {
    "v23.mp3": {"id3v2_version": "3", "write_id3v1": "1"},
    ".mp3": {"id3v2_version": "4"},
    ".flac": {},
    ".ogg": {},
    ".opus": {},
    ".m4a": {},
    ".aiff": {"write_id3v2": "1"},
    ".wav": {},
}
TAGS = {
    "title": "Ti",
    "artist": "Är",
    "album": "Al",
    "date": "2003",
    "genre": "Trance",
    "track": "3",
}
NEW = "Dunkler Techno, ü"


def make(path: Path, tags: dict[str, str] | None = None) -> Path:
    """Let FFmpeg write music with tags, and a picture where the format has any."""
    options = next(options for ending, options in FORMATS.items() if path.name.endswith(ending))
    audio_files.write(path, audio_files.music(1.0))
    cover = path.suffix in (".mp3", ".flac", ".m4a")
    given = TAGS if tags is None else tags
    return audio_files.remux(path, path, given, cover=cover, muxing=options)


def write(path: Path, *fields: str, mode: str = "overwrite", value: str = NEW) -> dict[str, Any]:
    """Write a value into the tags of a file; return its record."""
    records: list[Any] = []
    changes = tag_fields.plan(path, value, fields, mode)
    track_id = reading.probe(path).id
    retagging.change(path, changes, track_id=track_id, seen=stamp(path), record=records.append)
    (record,) = records
    return record


def by_ffmpeg(path: Path) -> tuple[dict[str, str], list[bytes]]:
    """Return all tags that FFmpeg finds, and the bytes of the pictures."""
    with av.open(str(path)) as container:
        tags = {**container.metadata, **container.streams.audio[0].metadata}
        pictures = [bytes(p) for p in container.demux(video=0)] if container.streams.video else []
    return {name.casefold(): value for name, value in tags.items()}, pictures


def by_tinytag(path: Path) -> dict[str, Any]:
    found = TinyTag.get(path, image=True)
    pictures = [image.data for images in found.images.as_dict().values() for image in images]
    of_file = ("filename", "filesize", "duration", "bitrate", "images")
    return {k: v for k, v in found.as_dict().items() if k not in of_file} | {"pictures": pictures}


@pytest.mark.parametrize("name", FORMATS)
def test_independent_readers_find_the_values_and_all_else(tmp_path: Path, name: str) -> None:
    path = make(tmp_path / f"a{name}")
    track_id, before = reading.probe(path).id, path.read_bytes()
    ffmpeg, tinytag = by_ffmpeg(path), by_tinytag(path)
    write(path, *FIELDS)
    assert path.read_bytes() != before
    assert reading.probe(path).id == track_id
    tags, pictures = by_ffmpeg(path)
    fields = {field.casefold(): NEW for field in FIELDS}
    assert tags == {**ffmpeg[0], **fields}
    assert pictures == ffmpeg[1]
    found = by_tinytag(path)
    if path.suffix == ".wav":  # it reads the older chunk, which stays, before ID3
        found["genre"] = found["genre"][1:]
    assert found == {**tinytag, **{field: [value] for field, value in fields.items()}}


@pytest.mark.parametrize("name", FORMATS)
def test_append_adds_once_and_keeps_what_is_there(tmp_path: Path, name: str) -> None:
    path = make(tmp_path / f"a{name}", {**TAGS, "comment": "mine"})
    if path.suffix == ".mp3":  # FFmpeg writes its comment into another frame
        write(path, "COMMENT", value="mine")
    write(path, "GENRE", "COMMENT", mode="append")
    assert tag_fields.plan(path, NEW.upper(), ("GENRE", "COMMENT"), "append") == []
    found = by_tinytag(path)
    assert found["genre"] == ([f"Trance/{NEW}"] if name == "v23.mp3" else ["Trance", NEW])
    of_wav = ["mine"] if path.suffix == ".wav" else []  # of its older chunk
    assert found["comment"] in (["mine", NEW], [*of_wav, f"mine; {NEW}"])


def test_missing_fills_empty_fields_only(tmp_path: Path) -> None:
    path = make(tmp_path / "a.flac")
    assert [c.field for c in tag_fields.plan(path, NEW, FIELDS, "missing")] == [
        "GROUPING",
        "COMMENT",
    ]


@pytest.mark.parametrize("name", FORMATS)
def test_undo_restores_each_byte_the_times_and_the_mode(tmp_path: Path, name: str) -> None:
    path = make(tmp_path / f"a{name}")
    path.chmod(0o640)
    os.utime(path, ns=(10**18, 10**18 + 1))
    before, seen = path.read_bytes(), path.stat()
    record = write(path, *FIELDS, mode="append")
    assert path.stat().st_mode == seen.st_mode
    assert path.stat().st_mtime_ns > seen.st_mtime_ns  # a backup program copies it
    assert retagging.undo(path, record)
    assert path.read_bytes() == before
    assert (path.stat().st_mtime_ns, path.stat().st_mode) == (seen.st_mtime_ns, seen.st_mode)
    assert not retagging.undo(path, record)


def test_undo_restores_a_time_of_zero(tmp_path: Path) -> None:
    path = make(tmp_path / "a.flac")
    os.utime(path, ns=(0, 0))
    assert retagging.undo(path, write(path, "GENRE"))
    assert path.stat().st_mtime_ns == 0


def test_undo_changes_tags_only(tmp_path: Path) -> None:
    path = make(tmp_path / "a.flac")
    other = make(tmp_path / "b.flac").read_bytes()[:-1] + b"x"
    record = write(path, "GENRE")
    before = path.read_bytes()
    of_other = {"old": checksum(other), "patch": [b64encode(other).decode()]}
    with pytest.raises(AudioError, match="record is damaged"):
        retagging.undo(path, {**record, **of_other})
    with pytest.raises(AudioError, match="has other audio"):
        retagging.undo(path, {**record, "id": "0" * 32})
    assert path.read_bytes() == before


def test_undo_leaves_a_file_that_somebody_changed(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp3")
    record = write(path, "GENRE")
    write(path, "GENRE", value="mine")
    mine = path.read_bytes()
    with pytest.raises(AudioError, match="was changed after"):
        retagging.undo(path, record)
    assert path.read_bytes() == mine


def test_the_grouping_is_where_the_file_has_it(tmp_path: Path) -> None:
    from mutagen import id3

    path = make(tmp_path / "a.mp3")
    own = id3.ID3(path)
    own.add(id3.GRP1(encoding=3, text="old"))
    own.add(id3.TIT1(encoding=3, text="a work"))
    own.save()
    write(path, "GROUPING")
    found = TinyTag.get(path).as_dict()
    assert (found["grouping"], found["work"]) == ([NEW], ["a work"])


def bare_mp3(folder: Path) -> Path:
    """Write an MP3 without any tag."""
    bare = {"id3v2_version": "0"}
    return audio_files.write(folder / "a.mp3", audio_files.music(1.0), muxing=bare)


ID3V1 = b"TAG" + b"Only here".ljust(30, b"\0") + bytes(94) + bytes([31])  # genre: Trance


def test_id3v1_alone_becomes_version_2(tmp_path: Path) -> None:
    path = bare_mp3(tmp_path)
    path.write_bytes(path.read_bytes() + ID3V1)
    write(path, "GENRE", mode="append")
    found = TinyTag.get(path)
    assert (found.title, found.as_dict()["genre"]) == ("Only here", ["Trance", NEW])


def test_a_comment_of_id3v1_alone_is_seen(tmp_path: Path) -> None:
    path = bare_mp3(tmp_path)
    own = b"my comment".ljust(28, b"\0") + bytes([0, 5, 31])
    path.write_bytes(path.read_bytes() + ID3V1[:97] + own)
    assert tag_fields.plan(path, NEW, ("COMMENT",), "missing") == []
    write(path, "COMMENT", mode="append")
    assert by_tinytag(path)["comment"] == [f"my comment; {NEW}"]


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("languages", [("eng", "deu"), ("deu", "XXX"), ("fra", "deu")])
@pytest.mark.parametrize("mode", ["append", "overwrite"])
def test_a_second_run_leaves_the_comment_of_another_language(
    tmp_path: Path, version: int, languages: tuple[str, str], mode: str
) -> None:
    from mutagen import id3

    path = bare_mp3(tmp_path)
    own = id3.ID3()
    for language, text in zip(languages, ("short", "ein Kommentar"), strict=True):
        own.add(id3.COMM(encoding=0, lang=language, desc="", text=text))
    own.save(path, v2_version=version)
    write(path, "COMMENT", mode=mode)
    assert tag_fields.plan(path, NEW, ("COMMENT",), mode) == []
    written = [c.lang for c in id3.ID3(path).getall("COMM") if NEW in c.text[0]]
    assert written == [languages[1] if languages[0] != "eng" else "eng"]


def test_a_frame_with_text_is_seen_beside_an_empty_one(tmp_path: Path) -> None:
    path = bare_mp3(tmp_path)
    frames = b"".join(
        name + len(data).to_bytes(4) + bytes(2) + data
        for name, data in (
            (b"COMM", b"\0eng\0\0"),
            (b"COMM", b"\0deu\0mine"),
            (b"GRP1", b"\0\0"),
            (b"TIT1", b"\0mine"),
        )
    )
    path.write_bytes(b"ID3\3\0\0" + bytes([0, 0, 0, len(frames)]) + frames + path.read_bytes())
    assert tag_fields.plan(path, NEW, ("COMMENT", "GROUPING"), "missing") == []


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("value", ["2", "140", "RX", "CR", "(17)", "(4)x", "((x"])
def test_a_genre_that_reads_as_a_code_of_id3_is_refused(
    tmp_path: Path, version: int, value: str
) -> None:
    from mutagen import id3

    path = bare_mp3(tmp_path)
    own = id3.ID3()
    own.add(id3.TIT2(encoding=3, text="Ti"))
    own.save(path, v2_version=version)
    with pytest.raises(AudioError, match=f"its GENRE would read as .*, not {re.escape(value)}"):
        tag_fields.plan(path, value, ("GENRE",), "append")


def test_a_refused_genre_is_told_in_one_line(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp3", {**TAGS, "genre": "a\nb\x1b[31m"})
    with pytest.raises(AudioError, match="would read as ") as problem:
        tag_fields.plan(path, "140", ("GENRE",), "append")
    assert str(problem.value).isprintable()


def test_id3_that_no_reader_finds_is_refused(tmp_path: Path) -> None:
    path = audio_files.write(tmp_path / "a.wav", audio_files.music(1.0))
    head, _, samples = path.read_bytes().partition(b"data")
    samples = samples[4:-1]  # an odd number of bytes, without the pad byte that must follow
    chunks = head[8:] + b"data" + len(samples).to_bytes(4, "little") + samples
    path.write_bytes(b"RIFF" + len(chunks).to_bytes(4, "little") + chunks)
    refused(path, "its GENRE would read as nothing")


def test_id3v1_beside_version_2_stays(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp3", {"artist": "A"})
    path.write_bytes(path.read_bytes() + ID3V1)
    write(path, "GENRE")
    assert path.read_bytes().endswith(ID3V1)
    assert by_ffmpeg(path)[0].get("title") is None  # it reads version 2 alone


def test_version_2_2_becomes_2_3_and_undo_restores_it(tmp_path: Path) -> None:
    path = bare_mp3(tmp_path)
    frames = b"".join(
        name + (1 + len(text)).to_bytes(3) + b"\0" + text
        for name, text in ((b"TT2", b"Ti"), (b"TCO", b"(31)"))
    )
    path.write_bytes(b"ID3\2\0\0" + bytes([0, 0, 0, len(frames)]) + frames + path.read_bytes())
    before = path.read_bytes()
    record = write(path, "GENRE", mode="append")
    assert path.read_bytes().startswith(b"ID3\3")
    found = TinyTag.get(path)
    assert (found.title, found.as_dict()["genre"]) == ("Ti", [f"Trance/{NEW}"])
    assert retagging.undo(path, record)
    assert path.read_bytes() == before


def test_other_frames_of_version_2_3_keep_their_bytes(tmp_path: Path) -> None:
    path = bare_mp3(tmp_path)
    frames = [
        name + len(data).to_bytes(4) + bytes(2) + data
        for name, data in (
            (b"TPE1", b"\0A\0B\0"),  # two artists, as some programs write them
            (b"TYER", b"\0" + b"2003\0"),  # of this version alone
            (b"XXXX", b"unknown"),
        )
    ]
    head = b"ID3\3\0\0" + bytes([0, 0, 0, sum(map(len, frames))])
    path.write_bytes(head + b"".join(frames) + path.read_bytes())
    write(path, "GENRE", "COMMENT")
    data = path.read_bytes()
    assert data.startswith(b"ID3\3")
    assert all(frame in data for frame in frames)


def test_id3_of_a_wav_has_what_the_older_chunk_has(tmp_path: Path) -> None:
    from mutagen.wave import WAVE

    path = make(tmp_path / "a.wav")  # FFmpeg writes LIST INFO
    assert WAVE(path).tags is None
    write(path, "GROUPING")
    id3 = WAVE(path).tags
    assert [id3[k].text[0] for k in ("TIT2", "TPE1", "TALB", "TCON")] == [
        "Ti",
        "Är",
        "Al",
        "Trance",
    ]


def test_ape_alone_is_not_hidden(tmp_path: Path) -> None:
    from mutagen.apev2 import APEv2

    path = bare_mp3(tmp_path)
    own = APEv2()
    own["Title"] = "Ti"
    own.save(path)
    with pytest.raises(AudioError, match="APE tags alone"):
        tag_fields.plan(path, NEW, ("GENRE",), "missing")


@pytest.mark.parametrize("kind", [".wma", ".wv", ".mkv", ".aac"])
def test_other_formats_have_a_reason(tmp_path: Path, kind: str) -> None:
    path = audio_files.write(tmp_path / f"a{kind}", audio_files.music(1.0))
    with pytest.raises(AudioError, match="no tags are written into " + kind):
        tag_fields.plan(path, NEW, ("GENRE",), "missing")


def refused(path: Path, reason: str) -> None:
    """See a file refused for a reason, and left as it is, with nothing beside it."""
    before, names = path.read_bytes(), sorted(path.parent.iterdir())
    with pytest.raises(AudioError, match=reason):
        write(path, "GENRE")
    assert path.read_bytes() == before
    assert sorted(path.parent.iterdir()) == names


def test_a_read_only_file_and_one_of_two_names_stay(tmp_path: Path) -> None:
    path = make(tmp_path / "a.flac")
    path.chmod(0o444)
    refused(path, "is read-only")
    path.chmod(0o644)
    os.link(path, tmp_path / "b.flac")
    refused(path, "2 names")


def test_a_file_that_changes_meanwhile_stays(tmp_path: Path) -> None:
    path = make(tmp_path / "a.flac")
    changes = tag_fields.plan(path, NEW, ("GENRE",), "overwrite")
    other = make(tmp_path / "other.flac", {"title": "Other"}).read_bytes()
    arguments: dict[str, Any] = {"track_id": reading.probe(path).id, "seen": stamp(path)}
    with pytest.raises(AudioError, match=CHANGED):
        retagging.change(path, changes, **arguments, record=lambda _: path.write_bytes(other))
    assert path.read_bytes() == other


CUT = """
import os, sys
from pathlib import Path
from subgenre.audio import reading
from subgenre.core import patches
from subgenre.errors import AudioError
from subgenre.library import retagging, scan, tag_fields
path, real = Path(sys.argv[1]), patches.difference
def difference(*contents):
    os.truncate(path, 5000)
    return real(*contents)
patches.difference = difference
changes = tag_fields.plan(path, "Trance", ["GENRE"], "overwrite")
track_id, seen = reading.probe(path).id, scan.stamp(path)
try:
    retagging.change(path, changes, track_id=track_id, seen=seen, record=lambda _: None)
except AudioError as problem:
    assert str(problem) == scan.CHANGED
    print("refused")
"""


def test_a_file_that_is_cut_meanwhile_stays(tmp_path: Path) -> None:
    path = make(tmp_path / "a.flac")
    words: Sequence[str] = (sys.executable, "-c", CUT, str(path))
    found = subprocess.run(words, check=False, timeout=120, capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "refused\n")  # else it ends with SIGBUS


def test_a_file_whose_audio_would_change_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(tmp_path / "a.mp3")
    real = tag_fields.write

    def damage(copy: Path, changes: Any) -> None:
        real(copy, changes)
        data = bytearray(copy.read_bytes())
        data[-1000] ^= 1
        copy.write_bytes(data)

    monkeypatch.setattr(tag_fields, "write", damage)
    refused(path, "audio would not stay the same")


@pytest.mark.parametrize("share", [0.5, 1.0])  # in the copy, and in mutagen
def test_a_full_disk_leaves_the_old_file(tmp_path: Path, share: float) -> None:
    path = make(tmp_path / "a.mp3", {})
    before = path.read_bytes()
    with (
        largest_file(round(share * len(before))),
        pytest.raises(OSError, match="too large") as problem,
    ):
        write(path, "GENRE", value="x" * 50_000)
    assert problem.value.errno == errno.EFBIG
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp3"]


KILLED = """
import os, random, signal, sys, time
from pathlib import Path
from subgenre.audio import reading
from subgenre.library import retagging, scan, tag_fields
path, records = Path(sys.argv[1]), []
track_id = reading.probe(path).id
def write():
    changes = tag_fields.plan(path, "Trance", ["GENRE"], "overwrite")
    seen = scan.stamp(path)
    retagging.change(path, changes, track_id=track_id, seen=seen, record=records.append)
states = [path.read_bytes()]
write()
states.append(path.read_bytes())
for _ in range(20):
    child = os.fork()
    if child == 0:
        while True:
            if not retagging.undo(path, records[0]):
                write()
    time.sleep(random.uniform(0, 0.05))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert path.read_bytes() in states
"""


def test_a_kill_leaves_the_old_or_the_new_file(tmp_path: Path) -> None:
    path = make(tmp_path / "a.flac", {"title": "Ti"})
    words: Sequence[str] = (sys.executable, "-c", KILLED, str(path))
    subprocess.run(words, check=True, timeout=120)
    write(path, "COMMENT")
    assert not list(tmp_path.glob(f"{TEMPORARY}*"))  # the next change removes what was left
