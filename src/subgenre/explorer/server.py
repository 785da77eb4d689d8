"""uvicorn on a socket that is bound first, so that the port is known before the page is served."""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
import socket
import threading
from collections.abc import Callable
from typing import Any

import uvicorn

from subgenre.errors import ConfigError
from subgenre.explorer.app import create_app
from subgenre.explorer.content import Library
from subgenre.explorer.limits import MAX_CONNECTIONS, STOP_S, Connection

VARIABLE = "SUBGENRE_TOKEN"  # the environment's: a container keeps its token when it starts again


def serve(library: Library, *, host: str, port: int, on_ready: Callable[[str], None]) -> None:
    """Serve the explorer of a library until it is interrupted.

    Port 0 takes a free one. `on_ready` is called with the page's address. On any address but
    loopback it holds the token that every request needs: that of the environment, or a new one.

    Raises:
        ConfigError: the address or port is not available, or the token can be guessed.
    """
    with bind(host, port) as bound:
        ip, number = bound.getsockname()[:2]
        token = "" if ipaddress.ip_address(ip).is_loopback else _token()
        server = make_server(create_app(library, host, token))
        on_ready(address(host, number) + (f"?token={token}" if token else ""))
        ended = threading.Event()

        def run() -> None:
            try:
                server.run([bound])
            finally:
                ended.set()

        threading.Thread(target=run, daemon=True).start()
        try:
            while not ended.wait(0.5):  # on Windows, Ctrl-C ends no wait
                pass
        finally:
            server.should_exit = True
            ended.wait(STOP_S + 0.5)  # no longer: a refit may take minutes


def _token() -> str:
    given = os.environ.get(VARIABLE)
    if given is None:
        return secrets.token_urlsafe()
    if not re.fullmatch(r"[\w-]{32,}", given, re.ASCII):
        raise ConfigError(
            f"{VARIABLE} must have 32 or more of A-Z, a-z, 0-9, - and _, without spaces; make one "
            "with: openssl rand -hex 32"
        )
    return given


def make_server(app: Any) -> uvicorn.Server:
    """Make the server of an application, with the limits of a connection."""
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        limit_concurrency=MAX_CONNECTIONS,
        log_level="warning",
        access_log=False,
        server_header=False,
    )
    return uvicorn.Server(config)


def bind(host: str, port: int) -> socket.socket:
    """Listen on an address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        bound = socket.create_server((host, port), family=family, backlog=128)
    except (OSError, OverflowError) as problem:
        raise ConfigError(
            f"can't listen on {host} port {port} ({problem}); give another --port, or 0 for a "
            "free one"
        ) from problem
    # its connections inherit this; without it each answer waits 40 ms for the client's delayed ACK
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return bound


def address(host: str, port: int) -> str:
    """Return the page's address; for a host that stands for all interfaces, that of one of them."""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return f"http://{host}:{port}/"
    if ip.is_unspecified:
        ip = ipaddress.ip_address(_outward(ip.version))
    return f"http://[{ip}]:{port}/" if ip.version == 6 else f"http://{ip}:{port}/"


def _outward(version: int) -> str:
    """Return the address of this machine in its network, or loopback without one."""
    family, other = (
        (socket.AF_INET6, "2001:db8::1") if version == 6 else (socket.AF_INET, "192.0.2.1")
    )
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((other, 9))  # chooses an interface and sends nothing
        except OSError:
            return "::1" if version == 6 else "127.0.0.1"
        return str(probe.getsockname()[0])
