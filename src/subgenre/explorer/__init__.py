"""The library as a map in a browser: a JSON API on loopback and a page of plain modules.

`Library` says what is explored; encoding of dropped files and refitting are functions in it, so
that this package itself needs no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from subgenre.errors import MissingExtraError
from subgenre.explorer.content import Encoded, Library
from subgenre.explorer.corrections import Correction

__all__ = ["Correction", "Encoded", "Library", "create_app", "serve"]


def create_app(library: Library, *, hosts: Sequence[str] = ()) -> Any:
    """Make the FastAPI application of one library.

    Args:
        library: what is explored. hosts: names beside loopback and IP addresses by which the page
            may be asked for.

    Raises:
        MissingExtraError: FastAPI is not installed.
        LibraryError: the corrections can't be read, or shapes that don't match.
    """
    try:
        import fastapi  # noqa: F401
    except ImportError:
        raise MissingExtraError("the explorer", "web") from None
    from subgenre.explorer import app

    return app.create_app(library, hosts=hosts)


def serve(
    app: Any,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve an application until it is interrupted.

    Args:
        app: of `create_app`. host: address to listen on. port: 0 takes a free one.
        on_ready: hears the page's address as soon as it can be asked for.

    Raises:
        MissingExtraError: uvicorn is not installed.
        ConfigError: the address or port can't be had.
    """
    try:
        import uvicorn  # noqa: F401
    except ImportError:
        raise MissingExtraError("the explorer", "web") from None
    from subgenre.explorer import server

    server.serve(app, host=host, port=port, on_ready=on_ready)
