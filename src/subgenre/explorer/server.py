"""uvicorn on a socket that is bound before anything is told, so that the port is known."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from typing import Any

import uvicorn

from subgenre.errors import ConfigError


def serve(app: Any, *, host: str, port: int, on_ready: Callable[[str], None] | None) -> None:
    """Serve until interrupted; see `explorer.serve`."""
    bound = bind(host, port)
    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False)
    try:
        if on_ready is not None:
            on_ready(address(host, bound.getsockname()[1]))
        uvicorn.Server(config).run(sockets=[bound])
    finally:
        bound.close()


def bind(host: str, port: int) -> socket.socket:
    """Listen on an address.

    Raises:
        ConfigError: it can't be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except (OSError, OverflowError) as problem:
        told = f"{host} port {port} can't be listened on ({problem})"
        raise ConfigError(f"{told}; give another --port, or 0 for a free one") from problem


def address(host: str, port: int) -> str:
    """Return the page's address; one that means every interface is told as loopback."""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return f"http://{host}:{port}/"
    if ip.is_unspecified:
        ip = ipaddress.ip_address("::1" if ip.version == 6 else "127.0.0.1")
    return f"http://[{ip}]:{port}/" if ip.version == 6 else f"http://{ip}:{port}/"
