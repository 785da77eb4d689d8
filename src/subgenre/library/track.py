"""A track: one audio file with its labels and tags, the same type in every room."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Track:
    """One audio file; text is empty and a number is 0 where it is not known.

    Attributes:
        id: hash of the audio packets; tags and artwork do not change it.
        label: the record label, by the tags. year, bpm: by the tags. rate: Hz. size: bytes.
        mtime_ns: time of the last change of the file, nanoseconds.
        trash: whether it is of the trash pool, which has no label.
    """

    id: str
    path: Path
    genre: str = ""
    subgenre: str = ""
    artist: str = ""
    album: str = ""
    title: str = ""
    label: str = ""
    year: int = 0
    bpm: float = 0.0
    duration_s: float = 0.0
    rate: int = 0
    channels: int = 0
    codec: str = ""
    container: str = ""
    bit_rate: int = 0
    size: int = 0
    mtime_ns: int = 0
    trash: bool = False

    @property
    def name(self) -> str:
        """What a list shows: artist and title, or the file's name."""
        title = self.title or self.path.stem
        return f"{self.artist} - {title}" if self.artist else title
