"""Learn the nuance between playlists: folders of music in, a trained embedding and its map out."""

from __future__ import annotations

__version__ = "0.1.0"
