"""Builders of audio files for tests: every format, odd but good ones, and bad ones."""

from __future__ import annotations

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


def music(seconds: float, rate: int = RATE, *, channels: int = 2, seed: int = 0) -> NDArray:
    """Tones, noise bursts and a slow swell, different at every place: [C, n] in [-1, 1]."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    sweep = 0.2 * np.sin(2 * np.pi * (200 * t + 40 * np.sin(2 * np.pi * t / 7.3)))
    bursts = 0.15 * rng.standard_normal((channels, len(t))) * (np.sin(2 * np.pi * 1.9 * t) ** 8)
    return (sweep * (1 + 0.3 * np.sin(2 * np.pi * t / 11)) + bursts).clip(-1, 1).astype(np.float32)


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
    encoder, usual = ENCODERS[kind]
    rate = rate or usual
    container_format = {".m4a": "ipod", ".wma": "asf"}.get(kind, kind[1:])
    with (
        path.open("wb") as file,
        av.open(file, "w", format=container_format, options=dict(muxing or {})) as container,
    ):
        container.metadata.update(tags or {})
        stream = container.add_stream(encoder, rate=rate, options=dict(options or {}))
        stream.layout = {1: "mono", 2: "stereo", 6: "5.1"}[samples.shape[0]]
        if "pcm" not in encoder and encoder != "flac" and not options:
            stream.bit_rate = bit_rate
        _encode(container, stream, samples, rate)
    return path


def _encode(container, stream, samples: NDArray, rate: int) -> None:
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


def remux(source: Path, target: Path, tags: Mapping[str, str] | None, *, cover: bool = False) -> Path:
    """Copy the packets into a new file with other tags, and with artwork if wanted."""
    with av.open(str(source)) as old:
        name = {"mov,mp4,m4a,3gp,3g2,mj2": "ipod"}.get(old.format.name, old.format.name)
        part = target.with_name("part")
        with av.open(str(part), "w", format=name) as new:
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
