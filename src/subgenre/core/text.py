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


def percent(share: float) -> str:
    """Write a share as a percentage: '83 %', one digit below ten: '9.5 %'."""
    points = 100 * share
    digits = 1 if abs(points) < 9.95 and round(points, 1) % 1 else 0  # rounded once
    return f"{points:z.{digits}f} %"


def percent_interval(share: float, low: float, high: float) -> str:
    """Write a share with its interval, in per cent: '83 % (78 to 86)'."""
    return f"{percent(share)} ({100 * low:z.0f} to {100 * high:z.0f})"


def signed(value: float, digits: int = 0) -> str:
    """Write a number with its sign, and 0 without: '+4', '-0.012', '0'."""
    text = f"{value:+z.{digits}f}"
    return text if float(text) else text.removeprefix("+")


def two_digits(value: float) -> str:
    """Write a number with two significant digits: '0.042', '6.1', '64,000'."""
    return f"{float(f'{value:.2g}'):,.12g}"


def p_value(p: float) -> str:
    """Write a p-value: '0.021', '< 0.001'."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def counted(count: int, noun: str) -> str:
    """Write a number of things: '1 track', '2 tracks'."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def duration(seconds: float) -> str:
    """Write a duration: '0.4 s', '40 s', '12 min', '3.5 h'."""
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def size(n_bytes: float) -> str:
    """Write a number of bytes: '12 MB', '3.4 GB'."""
    megabytes = n_bytes / 1e6
    return f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1000:.1f} GB"


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that shape a result."""
    found = {"python": platform.python_version()}
    return found | {name: metadata.version(name) for name in _MADE_WITH}
