"""Checks of every request, and the security headers of every response.

Only the page itself may change playlists and corrections. So requests must name a known host
(against DNS rebinding) and changes must come from the same origin: browsers report the origin of a
request (`Origin`, `Sec-Fetch-Site`), and a page of another site can't send a custom header without
a preflight request, which is never granted. Where other machines reach the server, a request also
needs the token: as `Authorization: Bearer`, or in the cookie that the printed address sets.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

HEADER = "x-subgenre"  # the page sends it with every change
HOW_TO_ENTER = (
    "a token is needed: open the address that 'subgenre explore' printed, or send the header "
    "'Authorization: Bearer TOKEN'"
)
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
_HOST = re.compile(r"(?P<name>\[[0-9a-fA-F:.]+\]|[^\[\]:@,\s]+)(:\d{1,5})?")
_SAFE = frozenset({"GET", "HEAD"})


class Guard:
    """ASGI middleware that refuses who may not enter and sets the security headers.

    `host` is the name of the server, allowed besides IP addresses. `token`: "" asks for none.
    """

    def __init__(self, app: Any, host: str, token: str) -> None:
        self.app = app
        self.hosts = frozenset({"localhost", host.lower()})
        self.token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        answer = self._answer(Request(scope)) if scope["type"] == "http" else None
        await (answer or self.app)(scope, receive, _with_headers(send))

    def _answer(self, request: Request) -> Response | None:
        """Return the answer to a request that may not enter, or that brings the token."""
        refusal = self.refusal(request.method, request.headers, request.scope["scheme"])
        if refusal is not None:
            return JSONResponse({"detail": refusal[1]}, refusal[0])
        cookie = f"subgenre-{request.scope['server'][1]}"  # browsers send a cookie to every port
        kind, _, bearer = request.headers.get("authorization", "").partition(" ")
        given = bearer if kind.lower() == "bearer" else request.cookies.get(cookie, "")
        if self._is_token(given):
            return None
        if request.scope["path"] == "/" and self._is_token(request.query_params.get("token", "")):
            page = RedirectResponse("/", 303, {"cache-control": "no-store"})
            page.set_cookie(cookie, self.token, httponly=True, samesite="lax")
            return page
        return JSONResponse({"detail": HOW_TO_ENTER}, 401, {"www-authenticate": "Bearer"})

    def _is_token(self, given: str) -> bool:
        return not self.token or hmac.compare_digest(given.encode(), self.token.encode())

    def refusal(
        self, method: str, headers: Mapping[str, str], scheme: str = "http"
    ) -> tuple[int, str] | None:
        """Return why a request is refused, as status and sentence; None if it is allowed."""
        host = headers.get("host", "")
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
        found = _HOST.fullmatch(host)
        if found is None:
            return False
        name = found["name"].lower()
        if name in self.hosts:
            return True
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return True


def _with_headers(send: Send) -> Send:
    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            extra = [(k.encode(), v.encode()) for k, v in HEADERS.items()]
            message["headers"] = [*message.get("headers", []), *extra]
        await send(message)

    return with_headers
