"""Learn the nuance between playlists: folders of music in, a trained embedding and its map out.

The public names are loaded when they are first used: `import subgenre` is fast and loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from subgenre.about import VERSION

if TYPE_CHECKING:
    from subgenre.api import LibraryMap as LibraryMap
    from subgenre.api import Model as Model
    from subgenre.api import load as load
    from subgenre.errors import SubgenreError as SubgenreError
    from subgenre.search.track_rows import Filter as Filter

__version__ = VERSION

_PUBLIC = {
    "Filter": "subgenre.search.track_rows",
    "LibraryMap": "subgenre.api",
    "Model": "subgenre.api",
    "SubgenreError": "subgenre.errors",
    "load": "subgenre.api",
}
__all__ = ["Filter", "LibraryMap", "Model", "SubgenreError", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """Load a public name from its module."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'subgenre' has no attribute '{name}'")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted({*globals(), *__all__})
