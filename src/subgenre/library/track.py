"""A track: one audio file with its labels and tags, the same type in every room."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from subgenre.audio import keys


@dataclass(frozen=True)
class Track:
    """One audio file; text is empty and a number is 0 where it is not known.

    Attributes:
        id: hash of the audio packets; tags and artwork do not change it.
        label: the record label, by the tags. year, bpm: by the tags. rate: Hz. size: bytes.
        mtime_ns: time of the last change of the file, nanoseconds.
        tempo_bpm, key: measured, the key as in `audio.keys`; None where unknown.
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
    tempo_bpm: float | None = None
    key: str | None = None
    trash: bool = False

    @property
    def name(self) -> str:
        """What a list shows: artist and title, or the file's name."""
        title = self.title or self.path.stem
        return f"{self.artist} - {title}" if self.artist else title

    @property
    def tempo(self) -> float | None:
        """Beats a minute, see `tempo`."""
        return tempo(self.tempo_bpm, self.bpm)

    @property
    def tempo_and_key(self) -> str:
        """What is known of both, as '126.0 bpm, 8A (Am)'."""
        known = [f"{self.tempo:.1f} bpm"] if self.tempo else []
        known += [f"{keys.camelot(self.key)} ({self.key})"] if self.key else []
        return ", ".join(known)


def tempo(measured: float | None, tag: float) -> float | None:
    """Return the measured tempo, in the octave of the tag's; the tag's where none is measured."""
    if measured and tag:
        octaves = math.log2(tag / measured)
        if abs(octaves - round(octaves)) < 0.06:  # 4 %
            return measured * 2.0 ** round(octaves)
    return measured or tag or None
