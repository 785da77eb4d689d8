"""Builders of audio files for tests: every format, odd but good ones, and bad ones."""

from __future__ import annotations

import os
import struct
import wave
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

RATE = 44_100
# extension -> encoder, sample rate; Vorbis is not among PyAV's encoders, soundfile writes it
ENCODERS = {
    ".mp3": ("libmp3lame", RATE),
    ".wav": ("pcm_s16le", RATE),
    ".flac": ("flac", RATE),
    ".opus": ("libopus", 48_000),
    ".m4a": ("aac", RATE),
    ".aiff": ("pcm_s16be", RATE),
    ".wma": ("wmav2", RATE),
}
FORMATS = (*ENCODERS, ".ogg")
# more containers: extension -> encoder, format
CONTAINERS = {
    ".m4b": ("aac", "ipod"),
    ".mp4": ("aac", "mp4"),
    ".mov": ("pcm_s16le", "mov"),
    ".mkv": ("aac", "matroska"),
    ".mka": ("flac", "matroska"),
    ".webm": ("libopus", "webm"),
    ".aac": ("aac", "adts"),
    ".mp2": ("mp2", "mp2"),
    ".aifc": ("pcm_s16be", "aiff"),
    ".wv": ("wavpack", "wv"),
    ".caf": ("pcm_s16be", "caf"),
    ".w64": ("pcm_s16le", "w64"),
    ".tta": ("tta", "tta"),
    ".au": ("pcm_s16be", "au"),
    ".ac3": ("ac3", "ac3"),
    ".wma": ("wmav2", "asf"),
}


def music(seconds: float, rate: int = RATE, *, channels: int = 2, seed: int = 0) -> NDArray:
    """Tones, noise bursts and a slow swell, different at every place: [C, n] in [-1, 1]."""
    n = round(seconds * rate)
    t = np.arange(n, dtype=np.float32) / rate
    noise = 0.15 * np.random.default_rng(seed).standard_normal(n, dtype=np.float32)
    noise *= np.sin(2 * np.pi * 1.9 * t) ** 8
    sweep = 0.2 * np.sin(2 * np.pi * (200 * t + 40 * np.sin(2 * np.pi * t / 7.3)))
    swell = 1 + 0.3 * np.sin(2 * np.pi * t / 11)
    mixed = [sweep * swell + noise * (-0.7) ** channel for channel in range(channels)]
    return np.stack(mixed).clip(-1, 1).astype(np.float32)


def write(
    path: Path,
    samples: NDArray,
    rate: int | None = None,
    *,
    tags: Mapping[str, str] | None = None,
    kind: str | None = None,
    options: Mapping[str, str] | None = None,
    muxing: Mapping[str, str] | None = None,
    bit_rate: int = 128_000,
) -> Path:
    """Write samples [C, n] as the format of the extension, or as `kind` under any name."""
    kind = kind or path.suffix.lower()
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == ".ogg":
        shape = {"samplerate": rate or RATE, "channels": samples.shape[0]}
        with (
            path.open("wb") as file,
            soundfile.SoundFile(file, "w", format="OGG", subtype="VORBIS", **shape) as vorbis,
        ):
            for lo in range(0, samples.shape[1], 8192):  # its encoder overflows on long blocks
                vorbis.write(samples[:, lo : lo + 8192].T)
        return remux(path, path, tags) if tags else path
    if kind in ENCODERS:
        encoder, usual = ENCODERS[kind]
        container_format = {".m4a": "ipod", ".wma": "asf"}.get(kind, kind[1:])
    else:
        encoder, container_format = CONTAINERS[kind]
        usual = 48_000 if encoder == "libopus" else RATE
    rate = rate or usual
    with (
        path.open("wb") as file,
        av.open(file, "w", format=container_format, options=dict(muxing or {})) as container,
    ):
        container.metadata.update(tags or {})
        quickly = {"compression_level": "9"} if kind == ".mp3" else {}
        stream = container.add_stream(encoder, rate=rate, options=dict(options or quickly))
        stream.layout = {1: "mono", 2: "stereo", 6: "5.1"}[samples.shape[0]]
        if encoder == "tta":
            stream.format = "s16"
        if "pcm" not in encoder and encoder not in ("flac", "wavpack", "tta") and not options:
            stream.bit_rate = bit_rate
        _encode(container, stream, samples, rate)
    return path


def _encode(container, stream, samples: NDArray, rate: int) -> None:
    if not stream.codec_context.is_open:
        stream.open()
    converter = av.AudioResampler(
        format=stream.format, layout=stream.layout, rate=rate, frame_size=stream.frame_size or 1024
    )
    place = 0
    for lo in range(0, samples.shape[1], rate):
        block = np.ascontiguousarray(samples[:, lo : lo + rate], dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=stream.layout.name)
        frame.sample_rate, frame.pts, frame.time_base = rate, place, Fraction(1, rate)
        place += block.shape[1]
        for piece in converter.resample(frame):
            container.mux(stream.encode(piece))
    for piece in converter.resample(None):
        container.mux(stream.encode(piece))
    container.mux(stream.encode(None))


def remux(
    source: Path,
    target: Path,
    tags: Mapping[str, str] | None,
    *,
    cover: bool = False,
    muxing: Mapping[str, str] | None = None,
) -> Path:
    """Copy the packets into a new file with other tags, and artwork if given."""
    with av.open(str(source)) as old:
        name = {"mov,mp4,m4a,3gp,3g2,mj2": "mp4"}.get(old.format.name, old.format.name)
        part = target.with_name("part")
        with av.open(str(part), "w", format=name, options=dict(muxing or {})) as new:
            new.metadata.update(tags or {})
            stream = new.add_stream_from_template(old.streams.audio[0])
            picture = _add_cover(new) if cover else None
            if picture is not None:
                new.mux(picture)
            for packet in old.demux(old.streams.audio[0]):
                if packet.dts is not None:
                    packet.stream = stream
                    new.mux(packet)
    return part.replace(target)


def _add_cover(container):
    stream = container.add_stream("mjpeg", rate=1)
    stream.width = stream.height = 32
    stream.pix_fmt = "yuvj420p"
    stream.disposition = av.stream.Disposition.attached_pic
    image = np.random.default_rng(1).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    return stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24"))


def write_dsf(path: Path, seconds: float) -> Path:
    """Write one-bit sound at 64 x 44.1 kHz, a tone by error feedback, as the DSF format says."""
    n = round(seconds * 64 * RATE) // 32768 * 32768
    level = 0.5 + 0.3 * np.sin(2 * np.pi * 441 * np.arange(n) / (64 * RATE))
    bits = np.diff(np.floor(np.cumsum(level)), prepend=0).astype(np.uint8)
    data = np.packbits(bits, bitorder="little").tobytes()
    form = struct.pack("<4sQIIIIIIQII", b"fmt ", 52, 1, 0, 1, 1, 64 * RATE, 1, n, 4096, 0)
    sound = struct.pack("<4sQ", b"data", 12 + len(data)) + data
    size = 28 + len(form) + len(sound)
    path.write_bytes(struct.pack("<4sQQQ", b"DSD ", 28, size, 0) + form + sound)
    return path


def write_silent_ape(path: Path, seconds: float, rate: int = RATE) -> Path:
    """Write Monkey's Audio, stereo, 16 bits: frames of silence, which hold no code words.

    Neither PyAV nor another library at hand encodes it.
    """
    a_frame = 73_728  # samples
    count, last = divmod(round(seconds * rate), a_frame)
    frame = struct.pack("<IIII", 0x80000000, 3, 0, 0)  # checksum and flag, silence, empty code
    start = 52 + 24 + 4 * (count + 1)
    seeks = [start + i * len(frame) for i in range(count + 1)]
    data = frame * (count + 1)
    sizes = (52, 24, 4 * len(seeks), 0, len(data), 0, 0)
    head = struct.pack("<4sHH7I16x", b"MAC ", 3990, 0, *sizes)
    head += struct.pack("<HHIIIHHI", 1000, 0, a_frame, last, count + 1, 16, 2, rate)
    path.write_bytes(head + struct.pack(f"<{len(seeks)}I", *seeks) + data)
    return path


def write_float_wav(path: Path, samples: NDArray, rate: int = RATE) -> Path:
    """Write 32-bit float samples as they are, NaN included."""
    soundfile.write(str(path), samples.T, rate, subtype="FLOAT", format="WAV")
    return path


def write_vbr_without_header(path: Path, seconds: float) -> Path:
    """Write an mp3 whose bit rate changes from frame to frame and that no Xing header describes."""
    samples = music(seconds)
    samples[:, : samples.shape[1] // 3] *= 0.001  # a guess by these cheap frames is far off
    return write(
        path,
        samples,
        options={"compression_level": "9", "global_quality": "236", "flags": "+qscale"},
        kind=".mp3",
        muxing={"write_xing": "0", "id3v2_version": "0"},
    )


def write_truncated_mp3(path: Path, *, whole_s: float, left_s: float) -> Path:
    """Write an mp3 of `whole_s` seconds that says so in its header, and cut it off."""
    write(path, music(whole_s, 22_050, channels=1), 22_050, kind=".mp3", bit_rate=64_000)
    data = path.read_bytes()
    path.write_bytes(data[: round(len(data) * left_s / whole_s)])
    return path


def write_zero_channels(path: Path) -> Path:
    """Write a wav whose header says that it has no channels."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(b"\1\2" * RATE)
    data = bytearray(path.read_bytes())
    data[22:24] = struct.pack("<H", 0)
    path.write_bytes(data)
    return path


def write_video(path: Path) -> Path:
    """Write a short film without sound, as an MP4 under any name."""
    with path.open("wb") as file, av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for shade in range(0, 200, 10):
            picture = np.full((48, 64, 3), shade, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def write_film(path: Path, samples: NDArray) -> Path:
    """Write a film whose first stream is the picture and whose second is the sound."""
    name = {".mkv": "matroska"}.get(path.suffix, path.suffix[1:])
    with path.open("wb") as file, av.open(file, "w", format=name) as container:
        picture = container.add_stream("mpeg4", rate=10)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream("aac", rate=RATE)
        sound.layout = "stereo"
        for shade in range(0, 200, 10):
            image = np.full((48, 64, 3), shade, np.uint8)
            container.mux(picture.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(picture.encode(None))
        _encode(container, sound, samples, RATE)
    return path


def add_id3(path: Path, size: int = 5000) -> None:
    """Put ID3v2 and ID3v1 tags around an mp3's frames, with artwork-sized bytes."""
    data = path.read_bytes()
    body = b"TIT2" + struct.pack(">I", 4) + b"\0\0" + b"\0new" + b"\0" * size
    length = bytes((len(body) >> shift) & 0x7F for shift in (21, 14, 7, 0))
    last = b"TAG" + b"new title".ljust(125, b"\0")
    path.write_bytes(b"ID3\3\0\0" + length + body + data + last)


def write_odd_but_good(folder: Path, seconds: float = 12) -> list[Path]:
    """Write ten files that look wrong and play: each must be read. Returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)

    def sound(seed: int) -> NDArray:
        return music(seconds, seed=seed)

    odd = [
        write(folder / "wav named.mp3", sound(1), kind=".wav"),
        write(folder / "LOUD.MP3", sound(2), kind=".mp3"),
        write_vbr_without_header(folder / "vbr.mp3", seconds),
        write(folder / "björk naïve 音楽 🎛.flac", sound(4)),
        write(folder / ("x" * 246 + ".ogg"), sound(5)),
        write(folder / "two\nlines.wav", sound(6)),
        write_truncated_mp3(folder / "truncated.mp3", whole_s=60, left_s=20),
        write(folder / os.fsdecode(b"caf\xe9.mp3"), sound(8)),
        write(folder / "six channels.flac", np.repeat(sound(9), 3, axis=0)),
        write(folder / "q.opus", sound(10)),
    ]
    (folder / "link.mp3").symlink_to(write(folder / "linked.dat", sound(11), kind=".mp3").name)
    return [*odd, folder / "link.mp3"]


def write_bad(folder: Path) -> dict[str, str]:
    """Write files that can't be used. Returns name -> a word that the reason must hold.

    What only decoding shows (NaN, too short) is not among them: see `write_bad_inside`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "empty.mp3").touch()
    (folder / "text.mp3").write_text("This is no music, but a few lines of text.\n" * 40)
    (folder / "page.mp3").write_text("<!DOCTYPE html><html><body>Not found</body></html>")
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n"
    (folder / "stream.mp3").write_text(playlist)
    (folder / "random.mp3").write_bytes(np.random.default_rng(0).bytes(20_000))
    (folder / "random.flac").write_bytes(np.random.default_rng(1).bytes(20_000))
    (folder / "zeros.wav").write_bytes(bytes(10_000))
    write_zero_channels(folder / "no channels.wav")
    write_video(folder / "film.m4a")
    header = write(folder / "header only.wav", music(1))
    header.write_bytes(header.read_bytes()[:44])
    whole = write(folder / "cut.m4a", music(3)).read_bytes()
    (folder / "cut.m4a").write_bytes(whole[: len(whole) // 2])
    os.mkfifo(folder / "pipe.mp3")
    (folder / "gone.mp3").symlink_to(folder / "nothing here")
    (folder / "loop.mp3").symlink_to(folder / "pool.mp3")
    (folder / "pool.mp3").symlink_to(folder / "loop.mp3")
    (folder / "device.wav").symlink_to("/dev/zero")
    (folder / "folder.mp3").mkdir()
    no_audio = ("text.mp3", "page.mp3", "stream.mp3", "random.flac", "zeros.wav")
    return dict.fromkeys((*no_audio, "header only.wav", "cut.m4a"), "no audio") | {
        "empty.mp3": "empty",
        "random.mp3": "",
        "no channels.wav": "no channels",
        "film.m4a": "no audio stream",
        "pipe.mp3": "a pipe",
        "gone.mp3": "a link to a file that is gone",
        "loop.mp3": "leads back to itself",
        "pool.mp3": "leads back to itself",
        "device.wav": "a device",
        "folder.mp3": "a folder",
    }


def write_bad_inside(folder: Path) -> dict[str, str]:
    """Write files whose packets are fine and whose samples are not, or too few."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = music(12, seed=20)
    samples[:, 100::1000] = np.nan
    write_float_wav(folder / "nan.wav", samples)
    samples = music(12, seed=21)
    samples[1, 40_000::50_000] = np.inf
    write_float_wav(folder / "infinite.wav", samples)
    write(folder / "one second.mp3", music(1, seed=22))
    return {"nan.wav": "NaN", "infinite.wav": "NaN", "one second.mp3": "short"}
