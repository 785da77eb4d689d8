"""A seeded generator of hostile audio files: more than 300, each named after its fault."""

from __future__ import annotations

import io
import os
import random
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile

from tests import audio_files

Case = tuple[str, bytes | Callable[[Path], object]]  # name, and the content or what makes the file
RATE, SECONDS = 16_000, 3.5
_EDGES = (0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)


def write_all(folder: Path, *, count: int | None = None, seed: int = 0) -> list[Path]:
    """Write all cases, or `count` of them spread over the kinds; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    every = list(_cases(_bases(folder / "base"), random.Random(seed)))
    step = 1.0 if count is None else len(every) / count
    chosen = [every[int(i * step)] for i in range(count or len(every))]
    paths = []
    for name, content in chosen:
        path = folder / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            content(path)
        paths.append(path)
    return paths


def _bases(folder: Path) -> dict[str, bytes]:
    """Return one small good file of each format, by extension."""
    kinds = (*audio_files.ENCODERS, ".ogg", ".mka", ".webm", ".aac", ".mp2", ".aifc", ".wv")
    kinds += (".caf", ".w64", ".tta")
    bases = {}
    for seed, kind in enumerate(kinds):
        rate = 48_000 if kind in (".opus", ".webm") else RATE
        samples = audio_files.music(SECONDS, rate, channels=1 + seed % 2, seed=seed)
        path = audio_files.write(folder / f"x{kind}", samples, rate)
        bases[kind] = path.read_bytes()
    bases[".ape"] = audio_files.write_silent_ape(folder / "x.ape", SECONDS).read_bytes()
    bases[".dsf"] = audio_files.write_dsf(folder / "x.dsf", 0.5).read_bytes()
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    return bases


def _cases(bases: dict[str, bytes], rng: random.Random) -> Iterator[Case]:
    for kind, data in bases.items():
        yield from _cut(kind, data, rng)
        yield from _flipped(kind, data, rng)
    yield from _riff(bases[".wav"])
    yield from _sixty_four_bits(bases[".wav"])
    yield from _aiff(bases[".aiff"])
    yield from _flac(bases[".flac"])
    for kind in (".ogg", ".opus"):
        yield from _ogg(kind, bases[kind], bases[".ogg"], rng)
    yield from _mp3(bases[".mp3"], rng)
    yield from _id3(bases[".mp3"])
    yield from _samples()
    yield from _other_kinds()
    yield from _no_files()
    yield from _names()


def _cut(kind: str, data: bytes, rng: random.Random) -> Iterator[Case]:
    """Yield the beginning of a file, cut inside its header, in the middle and near its end."""
    places = [rng.randrange(2, 60), rng.randrange(60, 600), len(data) - rng.randrange(1, 40)]
    places += [rng.randrange(len(data)) for _ in range(2)]
    for i, place in enumerate(places):
        yield f"cut {i}{kind}", data[:place]
    yield f"beginning gone{kind}", data[rng.randrange(1, len(data) // 2) :]


def _flipped(kind: str, data: bytes, rng: random.Random) -> Iterator[Case]:
    """Yield files with random bytes: in the header, and anywhere."""
    for i, (end, n) in enumerate([(48, 2), (200, 6), (200, 40), (len(data), 30)]):
        damaged = bytearray(data)
        for _ in range(n):
            damaged[rng.randrange(4, min(end, len(data)))] = rng.randrange(256)
        yield f"flipped {i}{kind}", bytes(damaged)
    hole = rng.randrange(len(data) // 2)
    yield f"zeros inside{kind}", data[:hole] + bytes(len(data) // 4) + data[hole:]


def _put(data: bytes, at: int, form: str, *values: float) -> bytes:
    return data[:at] + struct.pack(form, *values) + data[at + struct.calcsize(form) :]


def _riff(data: bytes) -> Iterator[Case]:
    """Yield WAV headers with each field at its edges, and extensible ones."""
    form, chunk = data.index(b"fmt "), data.index(b"data")
    fields = {"size": (4, "<I"), "fmt size": (form + 4, "<I"), "data size": (chunk + 4, "<I")}
    fields |= {"tag": (form + 8, "<H"), "channels": (form + 10, "<H"), "rate": (form + 12, "<I")}
    fields |= {"byte rate": (form + 16, "<I"), "align": (form + 20, "<H")}
    fields |= {"bits": (form + 22, "<H")}
    for name, (at, kind) in fields.items():
        for edge in _EDGES:
            if edge < 2 ** (8 * struct.calcsize(kind)):
                yield f"riff {name} {edge}.wav", _put(data, at, kind, edge)
    sound = data[chunk:]
    shapes = [(16, 16, 3), (16, 0, 0), (16, 99, 2**31), (24, 16, 3)]
    for i, (bits, valid, mask) in enumerate(shapes):
        guid = b"\1\0\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71" if i < 3 else bytes(16)
        head = struct.pack("<HHIIHHHHI", 0xFFFE, 1, RATE, 2 * RATE, 2, bits, 22, valid, mask) + guid
        body = b"WAVEfmt " + struct.pack("<I", len(head)) + head + sound
        yield f"extensible {i}.wav", b"RIFF" + struct.pack("<I", len(body)) + body


def _sixty_four_bits(data: bytes) -> Iterator[Case]:
    """Yield RF64 with sizes that are right, absurd, zero and missing."""
    form = data[data.index(b"fmt ") : data.index(b"data")]
    sound = data[data.index(b"data") + 8 :]
    sizes = (len(sound), 2**63 - 1, 2**64 - 1, 0)
    for i, size in enumerate(sizes):
        sizes_chunk = b"ds64" + struct.pack("<IQQQI", 28, size, size, size // 2, 0)
        head = b"RF64\xff\xff\xff\xffWAVE" + (sizes_chunk if i else b"")
        yield f"rf64 {i}.wav", head + form + b"data\xff\xff\xff\xff" + sound


def _aiff(data: bytes) -> Iterator[Case]:
    """Yield AIFF with rates of 80 bits that are no rates, and other fields at their edges."""
    comm = data.index(b"COMM") + 8
    rates = {
        "zero": bytes(10),
        "infinite": b"\x7f\xff\x80" + bytes(7),
        "nan": b"\x7f\xff" + b"\xff" * 8,
        "negative": b"\xc0\x0e\xac\x44" + bytes(6),
        "huge": b"\x7f\xfe" + b"\xff" * 8,
        "tiny": b"\0\0" + b"\0" * 7 + b"\1",
    }
    for name, rate in rates.items():
        yield f"aiff rate {name}.aiff", data[: comm + 8] + rate + data[comm + 18 :]
    for name, (at, kind) in {"channels": (0, ">H"), "frames": (2, ">I"), "bits": (6, ">H")}.items():
        for edge in (0, 0xFFFF):
            yield f"aiff {name} {edge}.aiff", _put(data, comm + at, kind, edge)


def _flac(data: bytes) -> Iterator[Case]:
    """Yield FLAC whose STREAMINFO is wrong: block sizes, rate, channels, samples, MD5."""
    info = 8
    for name, sizes in {"zero": (0, 0), "large": (65535, 65535), "crossed": (4608, 16)}.items():
        yield f"flac blocks {name}.flac", _put(data, info, ">HH", *sizes)
    (packed,) = struct.unpack_from(">Q", data, info + 10)
    low = packed & (2**44 - 1)
    for rate in (0, 1, 655_350, 2**20 - 1):
        yield f"flac rate {rate}.flac", _put(data, info + 10, ">Q", rate << 44 | low)
    for samples in (0, 2**36 - 1):
        change = packed & ~(2**36 - 1) | samples
        yield f"flac samples {samples}.flac", _put(data, info + 10, ">Q", change)
    yield "flac eight channels.flac", _put(data, info + 10, ">Q", packed | 7 << 41)
    yield "flac md5.flac", data[: info + 18] + b"\xff" * 16 + data[info + 34 :]
    yield "flac block length.flac", _put(data, 4, ">I", 0x00FFFFFF)


def _pages(data: bytes) -> list[bytes]:
    return [b"OggS" + page for page in data.split(b"OggS")[1:]]


def _ogg(kind: str, data: bytes, other: bytes, rng: random.Random) -> Iterator[Case]:
    """Yield Ogg with lost, doubled and shuffled pages, and streams that follow one another."""
    pages = _pages(data)
    for lost in (0, 1, 2, len(pages) - 1):
        yield f"ogg page {lost} lost{kind}", b"".join(pages[:lost] + pages[lost + 1 :])
    yield f"ogg doubled{kind}", b"".join(page * 2 for page in pages)
    yield f"ogg shuffled{kind}", b"".join(pages[:2] + rng.sample(pages[2:], len(pages) - 2))
    absurd = [_put(page, 6, "<Q", 2**63 - 1 - i) for i, page in enumerate(pages)]
    yield f"ogg granules{kind}", b"".join(absurd)
    yield f"ogg chained{kind}", data + other
    yield f"ogg chained to noise{kind}", data + rng.randbytes(5_000)
    yield f"ogg never ends{kind}", data[: len(data) // 2] + b"OggS\0\4" + bytes(500)


def _mp3(data: bytes, rng: random.Random) -> Iterator[Case]:
    """Yield MP3 whose frames are wrong, foreign or missing."""
    start = data.index(b"\xff", data.index(b"ID3") + 10 if data.startswith(b"ID3") else 0)
    head, frames = data[:start], data[start:]
    size = len(frames) // 60
    for byte in (0xFF, 0x0F, 0xFC, 0x00):
        damaged = bytearray(frames)
        damaged[2 * size :: size] = bytes([byte]) * len(damaged[2 * size :: size])
        yield f"mp3 bytes {byte}.mp3", head + bytes(damaged)
    half = 30 * size
    yield "mp3 noise between.mp3", head + frames[:half] + rng.randbytes(3000) + frames[half:]
    yield "mp3 tags between.mp3", head + frames[:half] + data + frames[half:]
    yield "mp3 free format.mp3", frames[:2] + b"\x00" + frames[3:]
    yield "mp3 sync alone.mp3", b"\xff\xfb" * 5_000
    xing = max(frames.find(b"Xing"), frames.find(b"Info"), 0)
    for edge in _EDGES:
        yield f"mp3 xing {edge}.mp3", head + _put(frames, xing + 8, ">II", edge, edge)


def _id3(data: bytes) -> Iterator[Case]:
    """Yield MP3 with tags of absurd sizes, hostile texts and pictures."""

    def tag(body: bytes, version: int = 3, flags: int = 0, size: int | None = None) -> bytes:
        length = len(body) if size is None else size
        parts = bytes((length >> shift) & 0x7F for shift in (21, 14, 7, 0))
        return b"ID3" + bytes([version, 0, flags]) + parts + body + data

    def frame(name: bytes, text: bytes, size: int | None = None) -> bytes:
        return name + struct.pack(">I", len(text) if size is None else size) + b"\0\0" + text

    for size in (1, 2**28 - 1, len(data), len(data) * 2):
        yield f"id3 size {size}.mp3", tag(frame(b"TIT2", b"\0a"), size=size)
    for version in (0, 2, 4, 9, 255):
        yield f"id3 version {version}.mp3", tag(frame(b"TPE1", b"\0name"), version)
    for flags in (0x80, 0x40, 0x20, 0xFF):
        yield f"id3 flags {flags}.mp3", tag(frame(b"TPE1", b"\1\xff\xfea"), 4, flags)
    texts = {
        "formula": b"\0=cmd|'/C calc'!A0",
        "control": b"\0" + bytes(range(1, 32)) * 3,
        "newlines": b"\0a\r\nb\rc\nd",
        "utf16 cut": b"\1\xff\xfea",
        "surrogates": b"\1\xff\xfe\x00\xd8\x00\xd8",
        "encoding 9": b"\x09abc",
        "direction": b"\3" + "\u202eexe.gpj\u2066".encode(),
        "long": b"\0" + b"a" * 300_000,
        "nothing": b"",
        "html": b"\0<script>alert(1)</script>",
    }
    for name, text in texts.items():
        frames = b"".join(frame(key, text) for key in (b"TIT2", b"TPE1", b"TALB", b"TYER", b"TBPM"))
        yield f"id3 text {name}.mp3", tag(frames)
    yield "id3 frame size.mp3", tag(frame(b"TPE1", b"\0a", size=2**32 - 1))
    yield "id3 many frames.mp3", tag(frame(b"TXXX", b"\0a\0b") * 20_000)
    edge = 2**31 - 1
    header = struct.pack(">I4sII", 13, b"IHDR", edge, edge)
    picture = b"\0image/png\0\3\0\x89PNG\r\n\x1a\n" + header
    yield "id3 picture.mp3", tag(frame(b"APIC", picture))
    yield "id3 picture large.mp3", tag(frame(b"APIC", picture + bytes(2_000_000)))
    ape = struct.pack("<8sIIII8x", b"APETAGEX", 2000, 2**32 - 1, 2**32 - 1, 0)
    yield "ape tag.mp3", data + ape
    yield "ape tag before id3v1.mp3", data + ape + b"TAG" + b"\xff" * 125


def _samples() -> Iterator[Case]:
    """Yield floating-point WAV with samples that are no sound, and shapes at their limits."""
    values = {"nan": np.nan, "infinite": np.inf, "large": 1e38, "denormal": 1e-42, "loud": 900.0}
    places = {"all": slice(None), "one": slice(9_000, 9_001), "last": slice(-1, None)}
    for name, value in values.items():
        for kind, place in places.items():
            samples = audio_files.music(SECONDS, RATE, seed=60).T
            samples[place, 0] = value
            yield f"samples {name} {kind}.wav", _wav(samples, RATE, "FLOAT")
    doubles = audio_files.music(SECONDS, RATE, seed=61).T.astype(np.float64)
    doubles[100] = 1e300
    yield "samples double.wav", _wav(doubles, RATE, "DOUBLE")
    for rate, channels in ((1, 1), (2_000, 64), (768_000, 8), (2**31 - 1, 1), (RATE, 200)):
        n = min(400_000, max(100, 4 * rate)) // channels
        samples = np.full((n, channels), 0.1)
        yield f"rate {rate} channels {channels}.wav", _wav(samples, rate, "PCM_16")


def _wav(samples: np.ndarray, rate: int, subtype: str) -> bytes:
    buffer = io.BytesIO()
    with np.errstate(all="ignore"):
        soundfile.write(buffer, samples, RATE, format="WAV", subtype=subtype)
    data = buffer.getvalue()
    return _put(data, data.index(b"fmt ") + 12, "<I", rate)


def _other_kinds() -> Iterator[Case]:
    """Yield files of other kinds with the names of songs."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("song.mp3", b"no music")
    contents = {
        "text": b"This is no music.\n" * 99,
        "html": b"<!DOCTYPE html><html><body>404</body></html>",
        "zip": packed.getvalue(),
        "pdf": b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\n%%EOF",
        "png": b"\x89PNG\r\n\x1a\n" + bytes(100),
        "program": b"\x7fELF" + bytes(500),
        "list": b"#EXTM3U\n#EXTINF:9,\n/etc/passwd\nhttp://127.0.0.1:9/a.mp3\n",
        "script": b"ffconcat version 1.0\nfile /etc/passwd\n",
        "pickle": b"\x80\x04cos\nsystem\n",
        "noise": random.Random(1).randbytes(20_000),
        "zeros": bytes(20_000),
        "empty": b"",
        "one byte": b"\xff",
    }
    for name, data in contents.items():
        for kind in (".mp3", ".flac", ".m4a"):
            yield f"{name}{kind}", data


def _no_files() -> Iterator[Case]:
    """Yield what is no regular file."""
    yield "pipe.mp3", os.mkfifo
    yield "folder.mp3", Path.mkdir
    yield "itself.mp3", lambda path: path.symlink_to(path.name)
    yield "gone.mp3", lambda path: path.symlink_to("nowhere")
    yield "device.wav", lambda path: path.symlink_to("/dev/zero")
    yield "up", lambda path: path.symlink_to("..")  # a folder that holds itself


def _names() -> Iterator[Case]:
    """Yield good sound under names that upset terminals, tables and file systems."""
    names = (
        *("two\nlines", "carriage\rreturn", "tab\there", "bell\a\x1b[31mred", "nul-free \x01\x7f"),
        *("=1+1", "@sum", "-rf", "+1", "'quoted'", 'a "b", c', "$(id)", "a;b|c&d", "%s%n"),
        " ",
        *("\u202egnp", "e\u0301 \u00e9", "音楽 🎛", "a" * 251, "\u00e9" * 125, "CON", "<b>bold"),
        *(os.fsdecode(b"caf\xe9"), os.fsdecode(b"\xff\xfe")),
    )
    for seed, name in enumerate(names, start=100):
        samples = audio_files.music(SECONDS, RATE, channels=1, seed=seed).T
        yield f"{name}.wav", _wav(samples, RATE, "PCM_16")
