"""Checks of every request, and the security headers of every response.

Only the page itself may change playlists and corrections. So requests must name a known host
(against DNS rebinding) and changes must come from the same origin: browsers report the origin of a
request (`Origin`, `Sec-Fetch-Site`), and a page of another site can't send a custom header without
a preflight request, which is never granted.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.responses import JSONResponse

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

HEADER = "x-subgenre"  # the page sends it with every change
MAX_BODY_BYTES = 4 * 2**20  # of JSON; uploads have a limit of their own
# 'unsafe-eval': the map's WebGL library compiles its draw calls with `Function`. The hash is that
# of an empty style element, which plotly fills through the CSSOM.
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
    """ASGI middleware that refuses requests of other sites and sets the security headers.

    `host` is the name of the server, allowed besides IP addresses.
    """

    def __init__(self, app: Any, host: str) -> None:
        self.app = app
        self.hosts = frozenset({"localhost", host.lower()})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {key.decode("latin-1"): v.decode("latin-1") for key, v in scope["headers"]}
        refusal = self.refusal(scope["method"], headers, scope.get("scheme", "http"))
        length = int(headers.get("content-length", "0")) if refusal is None else 0
        if length > MAX_BODY_BYTES and scope["path"] != "/api/place":
            refusal = 413, f"the request is larger than {MAX_BODY_BYTES // 2**20} MB"
        if refusal is not None:
            status, detail = refusal
            answer = JSONResponse({"detail": detail}, status)
            await answer(scope, receive, _with_headers(send))
            return
        if scope["path"] != "/api/place":
            receive = _limited(receive)
        await self.app(scope, receive, _with_headers(send))

    def refusal(
        self, method: str, headers: dict[str, str], scheme: str = "http"
    ) -> tuple[int, str] | None:
        """Return why a request is refused, as status and sentence; None if it is allowed."""
        host = headers.get("host", "")
        if not headers.get("content-length", "0").isdecimal():
            return 400, "content-length is not a number"
        if not self._known(host):
            return 400, f"unknown host '{host[:80]}'; use localhost or an IP address"
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
    """End a request whose body is too large, even if it does not state its length."""
    size = 0

    async def counted() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        return {"type": "http.disconnect"} if size > MAX_BODY_BYTES else message

    return counted


def _with_headers(send: Send) -> Send:
    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            extra = [(k.encode(), v.encode()) for k, v in HEADERS.items()]
            message["headers"] = [*message.get("headers", []), *extra]
        await send(message)

    return with_headers
