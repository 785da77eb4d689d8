"""Who may ask: loopback names against DNS rebinding, same origin for changes, strict headers.

The page can change playlists and corrections, so a page of another site must not be able to ask
for that. A browser tells where a request comes from (`Origin`, `Sec-Fetch-Site`) and can't be made
by a foreign page to send a header of one's own without asking first, which is never granted.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

HEADER = "x-subgenre"  # what the page sends with every change
MAX_BODY_BYTES = 4 * 2**20  # of JSON; uploads have their own limit
# The map's WebGL library compiles its draw calls with `Function`, hence 'unsafe-eval'; nothing of
# ours does. The hash is that of an empty style element, which plotly fills through the CSSOM.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self' 'unsafe-eval'",
        "style-src 'self' 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='",
        "img-src 'self' data: blob:",
        "media-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
_SAFE = frozenset({"GET", "HEAD"})


class Guard:
    """ASGI middleware that refuses what a foreign page could ask for, and sets the headers.

    Args:
        app: the application. hosts: names allowed beside `localhost` and IP addresses.
    """

    def __init__(self, app: Any, hosts: Iterable[str] = ()) -> None:
        self.app = app
        self.hosts = frozenset({"localhost", *(host.lower() for host in hosts)})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {key.decode("latin-1"): v.decode("latin-1") for key, v in scope["headers"]}
        refusal = self.refusal(scope["method"], headers, scope.get("scheme", "http"))
        if refusal is not None:
            await _refuse(_hardened(send), *refusal)
            return
        limited = receive
        if scope["path"] != "/api/place":
            if int(headers.get("content-length", "0")) > MAX_BODY_BYTES:
                told = f"the request is larger than {MAX_BODY_BYTES // 2**20} MB"
                await _refuse(_hardened(send), 413, told)
                return
            limited = _limited(receive)
        await self.app(scope, limited, _hardened(send))

    def refusal(
        self, method: str, headers: dict[str, str], scheme: str = "http"
    ) -> tuple[int, str] | None:
        """Say why a request is refused, as status and sentence; None where it may pass."""
        host = headers.get("host", "")
        if not headers.get("content-length", "0").isdecimal():
            return 400, "content-length is no number"
        if not self._known(host):
            return 400, f"unknown host '{host[:80]}'; ask by localhost or an IP address"
        if headers.get("sec-fetch-site") == "cross-site" and (
            headers.get("sec-fetch-mode") != "navigate" or method not in _SAFE
        ):
            return 403, "a request from another site is refused"
        if method in _SAFE:
            return None
        origin = headers.get("origin")
        if origin is not None and origin.lower() != f"{scheme}://{host}".lower():
            return 403, "a change from another origin is refused"
        kind = headers.get("content-type", "").split(";")[0].strip().lower()
        if kind != "application/json" and HEADER not in headers:
            return 403, f"a change needs the content type application/json or the header {HEADER}"
        return None

    def _known(self, host: str) -> bool:
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        if name.lower() in self.hosts:
            return True
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return True


def _limited(receive: Receive) -> Receive:
    """Count a body that does not tell its length; what is too much ends the request."""
    size = 0

    async def counted() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        return {"type": "http.disconnect"} if size > MAX_BODY_BYTES else message

    return counted


def _hardened(send: Send) -> Send:
    async def hardened(message: Message) -> None:
        if message["type"] == "http.response.start":
            extra = [(k.encode(), v.encode()) for k, v in HEADERS.items()]
            message["headers"] = [*message.get("headers", []), *extra]
        await send(message)

    return hardened


async def _refuse(send: Send, status: int, told: str) -> None:
    body = json.dumps({"detail": told}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
