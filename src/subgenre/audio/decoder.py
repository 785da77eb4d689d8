"""Open regular audio files with PyAV and decode their packets; damaged parts are skipped."""

from __future__ import annotations

import errno
import functools
import io
import math
import mmap
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeAlias

import av
import numpy as np
from av.container import InputContainer
from numpy.typing import NDArray

from subgenre.audio.extensions import EXTENSIONS
from subgenre.errors import AudioError

Float32: TypeAlias = NDArray[np.float32]

# The content of a file decides its format, not its name; a playlist or text with the name of a song
# must not make the library open other files or the network.
_FORMATS = (
    "mp3,wav,w64,flac,ogg,mov,aac,aiff,asf,caf,matroska,ape,wv,dsf,iff,tta,tak,mpc,mpc8,au,ac3,"
    "eac3,dts,shn,amr,avi"
)
# formats whose time stamps are exact after a seek; others round or guess them
_EXACT = ("mp3", "flac", "mov,mp4,m4a,3gp,3g2,mj2")
_PCM = ("wav", "w64", "aiff", "caf", "au")
_OGG_BEGINS = re.compile(rb"OggS\0[\2\3\6\7]")  # the first page of a logical stream
LIMIT_S = 120.0  # for one opened file
MAX_HOURS = 24  # of sound in one file
_RATES_HZ = (2_000, 768_000)
MAX_CHANNELS = 64
_NO_CODEC = "holds sound of an unknown codec"
_RESTARTS = 64  # attempts to continue after damage that stops the reader
_ends: ContextVar[float] = ContextVar("ends", default=math.inf)  # of `time.monotonic`


@contextmanager
def _time_limit() -> Iterator[None]:
    """Limit the time in which an opened file is read.

    So a file that never ends is an error in this process, too, where no worker can be killed.
    """
    token = _ends.set(time.monotonic() + LIMIT_S)
    try:
        yield
    finally:
        _ends.reset(token)


def _is_over() -> bool:
    return time.monotonic() > _ends.get()


def _check_time() -> None:
    if _is_over():
        raise AudioError("takes too long to read")


@contextmanager
def opened(path: Path) -> Iterator[tuple[InputContainer, av.AudioStream]]:
    """Open a regular file and its first audio stream.

    Raises:
        AudioError: not a regular file, no audio, or an error of the library inside the block; or
            reading it takes longer than `LIMIT_S`.
    """
    with _open_regular(path) as file, _time_limit():
        try:
            with _open_container(file, path) as container:
                _check_time()
                if not container.streams.audio:
                    raise AudioError("holds no audio stream")
                stream = container.streams.audio[0]
                if stream.codec_context is None:
                    raise AudioError(_NO_CODEC)
                stream.codec_context.thread_count = 1
                yield container, stream
        except av.FFmpegError as problem:
            _check_time()
            raise AudioError(_reason(problem)) from problem
        except OSError as problem:
            raise AudioError(f"can't be read ({problem.strerror or problem})") from problem


def _open_container(file: io.FileIO, path: Path) -> InputContainer:
    try:
        return av.open(
            _Named(file, path),
            "r",
            options={"format_whitelist": _FORMATS, "protocol_whitelist": "file"},
            metadata_errors="replace",
        )
    except (ValueError, EOFError) as problem:
        _check_time()
        raise AudioError(_reason(problem)) from problem


def _open_regular(path: Path) -> io.FileIO:
    """Open a regular file; reading a pipe, a socket or a device could block forever."""
    try:
        _check_regular(path.stat())
        # not blocking, and checked again below: another file may have taken the name in between
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        file = io.FileIO(os.open(path, flags), "r")
    except OSError as problem:
        raise AudioError(_open_reason(problem, path)) from problem
    try:
        _check_regular(os.fstat(file.fileno()))
    except AudioError:
        file.close()
        raise
    return file


def _check_regular(status: os.stat_result) -> None:
    kinds: tuple[tuple[Callable[[int], bool], str], ...] = (
        (stat.S_ISDIR, "a folder, not a file"),
        (stat.S_ISFIFO, "a pipe, not a file"),
        (stat.S_ISSOCK, "a socket, not a file"),
        (stat.S_ISREG, ""),
    )
    reason = next((text for test, text in kinds if test(status.st_mode)), "a device, not a file")
    if reason:
        raise AudioError(reason)
    if status.st_size == 0:
        raise AudioError("an empty file")


def _open_reason(problem: OSError, path: Path) -> str:
    if problem.errno == errno.ENOENT:
        return "a link to a file that is gone" if path.is_symlink() else "does not exist"
    if problem.errno == errno.ELOOP:
        return "a link that leads back to itself"
    if problem.errno in (errno.EACCES, errno.EPERM):
        return "is not readable; check its permissions"
    return f"can't be opened ({problem.strerror or problem})"


class _Named:
    """An open file with a plain name, of which the library uses only the extension."""

    def __init__(self, file: io.FileIO, path: Path) -> None:
        suffix = path.suffix.lower()
        self.name = f"audio{suffix if suffix in EXTENSIONS else ''}"
        self.file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size: int) -> bytes:
        """Read, until the time is over: a reader may search a huge file for its next packet.

        Then the file ends here, and `packets` raises the error: FFmpeg can't pass one on.
        """
        return b"" if _is_over() else self.file.read(size)


def packets(container: InputContainer, stream: av.AudioStream) -> Iterator[Any]:
    """Yield the packets of a stream; damage is skipped where the library can continue."""
    for _ in range(_RESTARTS):
        try:
            for packet in container.demux(stream):
                _check_time()  # packets may lie in one place of a file, and so need no reading
                if packet.size:
                    yield packet
        except av.EOFError:
            break
        except av.FFmpegError:
            continue
        break
    _check_time()


def decode(packet: Any) -> list[av.AudioFrame]:
    """Decode a packet; a damaged one has no frames."""
    try:
        return list(packet.decode())
    except av.FFmpegError:
        return []


def frames(container: InputContainer, stream: av.AudioStream) -> Iterator[av.AudioFrame]:
    """Decode a whole stream.

    Raises:
        AudioError: it is too long.
    """
    length_s = 0.0
    for packet in packets(container, stream):
        for frame in decode(packet):
            length_s += frame.samples / frame.sample_rate
            check_length(length_s)
            yield frame


def check_length(length_s: float) -> None:
    """Refuse a file that is longer than any music, so that it takes no memory without end."""
    if length_s > MAX_HOURS * 3600:
        raise AudioError(f"is longer than {MAX_HOURS} hours, the limit")


def seek(container: InputContainer, stream: av.AudioStream, at_s: float) -> bool:
    """Seek to the last position at or before `at_s` in stream time; False if that fails."""
    ticks = (stream.start_time or 0) + math.floor(at_s / float(stream.time_base or 1))
    try:
        container.seek(ticks, stream=stream, backward=True, any_frame=False)
    except av.FFmpegError:
        return False
    return True


def can_seek(path: Path, container: InputContainer, stream: av.AudioStream) -> bool:
    """Whether the time stamps after a seek give the exact position in the decoded samples.

    Those of PCM do if the header's byte rate is right. Those of an Ogg file do not if streams are
    chained in it, because each begins at 0.
    """
    name, context = container.format.name, stream.codec_context
    if name in _PCM:
        bits = re.fullmatch(r"pcm_[suf](\d+)[bl]?e?", context.name)
        return bits is not None and context.bit_rate == context.rate * context.channels * int(
            bits[1]
        )
    if name == "ogg":
        status = path.stat()
        return _logical_streams(path, status.st_size, status.st_mtime_ns) == 1
    return name in _EXACT


@functools.lru_cache(maxsize=1)
def _logical_streams(path: Path, _size: int, _mtime_ns: int) -> int:
    """Count the streams of an Ogg file; its windows are mostly read one after the other."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return len(_OGG_BEGINS.findall(data))


def check_shape(frame: av.AudioFrame) -> tuple[int, int]:
    """Return rate (Hz) and number of channels.

    Raises:
        AudioError: rate or channels outside the supported range.
    """
    rate, channels = frame.sample_rate, len(frame.layout.channels)
    if not _RATES_HZ[0] <= rate <= _RATES_HZ[1]:
        raise AudioError(
            f"has a sample rate of {rate} Hz; {_RATES_HZ[0]} to {_RATES_HZ[1]} are supported"
        )
    if not 1 <= channels <= MAX_CHANNELS:
        raise AudioError(f"has {channels} channels; 1 to {MAX_CHANNELS} are supported")
    return rate, channels


def to_float(frame: av.AudioFrame) -> Float32:
    """Return a frame's samples as [C, n] in [-1, 1]."""
    samples: NDArray[Any] = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, len(frame.layout.channels)).T
    with np.errstate(over="ignore"):  # of 64-bit samples: infinite, and refused
        scaled: Float32 = samples.astype(np.float32, copy=False)
    if samples.dtype == np.uint8:
        scaled -= 128
        scaled /= 128
    elif samples.dtype.kind == "i":
        scaled /= -float(np.iinfo(samples.dtype).min)
    return scaled


def _reason(problem: Exception) -> str:
    """Describe an error of the library; its own texts name system calls that never happened."""
    if isinstance(problem, av.DecoderNotFoundError):
        return _NO_CODEC
    if isinstance(problem, av.InvalidDataError):
        return "has no audio in a supported format"
    return "is damaged: no audio in it can be read"
