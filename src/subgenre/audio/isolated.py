"""One file of unknown origin, read in a process of its own."""

from __future__ import annotations

from pathlib import Path

from subgenre.audio import decoder, reading
from subgenre.core import parallel


def probe(path: Path) -> reading.Probe:
    """Return what `reading.probe` does, and raise what it does."""
    return next(parallel.alone(_probe, path, timeout_s=decoder.LIMIT_S))


def _probe(path: Path) -> list[reading.Probe]:
    return [reading.probe(path)]
