"""The audio of a track for a browser: a file that browsers play, and peaks to draw."""

from __future__ import annotations

import base64
import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from subgenre.audio import decoder, mp3
from subgenre.core import files, parallel
from subgenre.errors import AudioError

PEAKS = 1000  # of a track: more than the canvas is wide
CACHED_FILES = 200  # transcoded tracks kept
MEDIA_TYPES = {
    ".mp3": "audio/mpeg",
    ".wav": "audio/wav",
    ".flac": "audio/flac",
    ".ogg": "audio/ogg",
    ".oga": "audio/ogg",
    ".opus": "audio/ogg",
    ".m4a": "audio/mp4",
    ".aac": "audio/aac",
}  # all other formats are transcoded
_BLOCK = 256  # samples; only the loudest of each block is kept while a track is read
_RATE, _BIT_RATE = 44_100, 128_000
_transcoding = threading.Lock()


def playable(path: Path, cache: Path, name: str, *, as_mp3: bool = False) -> tuple[Path, str]:
    """Return a file that a browser plays, and its media type; transcode it if none plays it.

    `name` is that of the transcoded file in the cache; `as_mp3` transcodes any other format, too.
    """
    media_type = MEDIA_TYPES.get(path.suffix.lower())
    if not path.is_file():
        raise AudioError(f"{path.name} is gone; index the library again")
    if media_type is not None and not as_mp3:
        return path, media_type
    mp3_path = _fresh(path, cache / "sound", name, ".mp3")
    if not mp3_path.exists():
        with _transcoding:
            if not mp3_path.exists():
                with files.atomic_path(mp3_path) as temporary:
                    transcode(path, temporary)
                _prune(mp3_path.parent)
    return mp3_path, MEDIA_TYPES[".mp3"]


def transcode(path: Path, out: Path) -> None:
    """Write a track as MP3, stereo, 128 kbit/s, frame by frame."""
    next(parallel.alone(_transcode, (path, out), timeout_s=decoder.LIMIT_S))


def _transcode(paths: tuple[Path, Path]) -> list[int]:
    path, out = paths
    with decoder.opened(path) as (container, stream):
        frames = decoder.frames(container, stream)
        count = mp3.write(out, frames, rate=_RATE, layout="stereo", bit_rate=_BIT_RATE)
    if not count:
        raise AudioError(f"{path.name} holds no audio that can be decoded")
    return [count]


def peaks(path: Path) -> NDArray[np.uint8]:
    """Return the loudest sample of each of `PEAKS` equal parts of a track: [PEAKS], 0 to 255."""
    return next(parallel.alone(_peaks, path, timeout_s=decoder.LIMIT_S))


def _peaks(path: Path) -> list[NDArray[np.uint8]]:
    blocks: list[NDArray[np.float32]] = []
    with decoder.opened(path) as (container, stream):
        for frame in decoder.frames(container, stream):
            loud = np.abs(decoder.to_float(frame)).max(axis=0)
            edges = np.arange(0, len(loud), _BLOCK)
            blocks.append(np.maximum.reduceat(loud, edges) if len(loud) else loud)
    level = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    if not len(level):
        raise AudioError(f"{path.name} holds no audio that can be decoded")
    place = np.linspace(0, len(level), PEAKS, endpoint=False).astype(np.int64)
    loudest = np.nan_to_num(np.maximum.reduceat(level, place))
    return [np.asarray(np.clip(np.round(255 * loudest), 0, 255), dtype=np.uint8)]


def cached_peaks(path: Path, cache: Path, name: str) -> NDArray[np.uint8]:
    """Return the peaks of a track, from the cache until its file changes."""
    if not path.is_file():
        raise AudioError(f"{path.name} is gone; index the library again")
    kept = _fresh(path, cache / "peaks", name, ".bin")
    data = kept.read_bytes() if kept.exists() else b""
    if len(data) != PEAKS:
        data = peaks(path).tobytes()
        files.write_bytes(kept, data)
    return np.frombuffer(data, dtype=np.uint8)


def packed(levels: NDArray[np.uint8]) -> str:
    """Encode peaks as base64, one byte each."""
    return base64.b64encode(levels.tobytes()).decode("ascii")


def _fresh(path: Path, folder: Path, name: str, suffix: str) -> Path:
    """Return the path of a cached file; it changes when the track's file does."""
    return folder / f"{files.safe_name(name)}-{path.stat().st_mtime_ns:x}{suffix}"


def _prune(folder: Path) -> None:
    """Remove all but the newest files of a cache."""
    newest = sorted(folder.glob("[!.]*"), key=lambda p: p.stat().st_mtime_ns, reverse=True)
    for old in newest[CACHED_FILES:]:
        old.unlink(missing_ok=True)
