"""What the doctor finds, for those that show it."""

from __future__ import annotations

from dataclasses import dataclass

from subgenre.core.text import percent

BROKEN = ("silent", "clipped", "out of phase")
KINDS = ("wrong playlist", "two playlists", "duplicate", "outlier", *BROKEN)


@dataclass(frozen=True)
class Finding:
    """A track to check.

    Attributes:
        track: its id. kind: one of `KINDS`. subgenre: its playlist.
        suggestion: the playlist that it fits best, or the path of the other copy, or "".
        confidence: 0..1, that there is such a problem; of "wrong playlist", that the track does
            not belong to `subgenre`. why: a sentence.
        fit: probability of `suggestion` by the probe; None for other kinds.
        nearest: ids of the tracks nearest to one in a wrong playlist.
    """

    track: str
    path: str
    kind: str
    subgenre: str
    suggestion: str
    confidence: float
    why: str
    fit: float | None = None
    nearest: tuple[str, ...] = ()

    @property
    def how_sure(self) -> str:
        """The confidence for a person; "" where `why` names what was measured."""
        return "" if self.kind in BROKEN else percent(self.confidence)
