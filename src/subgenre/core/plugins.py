"""Backbones of installed packages: entry points of the group `subgenre.backbones`."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

GROUP = "subgenre.backbones"
_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def installed() -> dict[str, metadata.EntryPoint]:
    """Return the entry points by name; nothing is imported."""
    return {entry.name: entry for entry in metadata.entry_points(group=GROUP)}


def is_factory(name: str) -> bool:
    """Check whether a name is `package:function`, and no folder."""
    return _FACTORY.fullmatch(name) is not None and not Path(name).exists()
