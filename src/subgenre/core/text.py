"""Numbers, durations and sizes for a person, and the versions that a result was made with."""

from __future__ import annotations

import platform
from importlib import metadata

_MADE_WITH = (
    "subgenre",
    "torch",
    "transformers",
    "numpy",
    "av",
    "soxr",
    "scikit-learn",
    "umap-learn",
)


def counted(count: int, noun: str) -> str:
    """Say a number of things: '1 track', '2 tracks'."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def duration(seconds: float) -> str:
    """Say a duration in words: '0.4 s', '40 s', '12 min', '3.5 h'."""
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def size(n_bytes: float) -> str:
    """Say a number of bytes: '12 MB', '3.4 GB'."""
    megabytes = n_bytes / 1e6
    return f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1000:.1f} GB"


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that shape a result."""
    found = {"python": platform.python_version()}
    return found | {name: metadata.version(name) for name in _MADE_WITH}
