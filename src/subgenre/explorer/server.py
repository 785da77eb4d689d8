"""uvicorn on a socket that is bound first, so that the port is known before the page is served."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable

import uvicorn

from subgenre.errors import ConfigError
from subgenre.explorer.app import create_app
from subgenre.explorer.content import Library


def serve(library: Library, *, host: str, port: int, on_ready: Callable[[str], None]) -> None:
    """Serve the explorer of a library until it is interrupted.

    Port 0 takes a free one. `on_ready` is called with the page's address.
    """
    app = create_app(library, host)
    with bind(host, port) as bound:
        config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False)
        on_ready(address(host, bound.getsockname()[1]))
        uvicorn.Server(config).run(sockets=[bound])


def bind(host: str, port: int) -> socket.socket:
    """Listen on an address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except (OSError, OverflowError) as problem:
        raise ConfigError(
            f"can't listen on {host} port {port} ({problem}); give another --port, or 0 for a "
            "free one"
        ) from problem


def address(host: str, port: int) -> str:
    """Return the page's address; for a host that stands for all interfaces, that of loopback."""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return f"http://{host}:{port}/"
    if ip.is_unspecified:
        ip = ipaddress.ip_address("::1" if ip.version == 6 else "127.0.0.1")
    return f"http://[{ip}]:{port}/" if ip.version == 6 else f"http://{ip}:{port}/"
