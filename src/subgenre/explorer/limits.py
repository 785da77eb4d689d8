"""How much a client may send, and how long it may keep the server waiting."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from starlette.exceptions import HTTPException
from uvicorn.protocols.http.h11_impl import H11Protocol

from subgenre.explorer.security import Message, Receive, Scope, Send

UPLOAD = "/api/place"  # the one path that takes more than JSON
MAX_UPLOAD_BYTES = 200 * 2**20
MAX_BODY_BYTES = 4 * 2**20
MAX_UPLOADS = 4  # at once
MAX_CONNECTIONS = 256
SILENT_S = 20.0  # longest pause in a body, and longest time for the head of a request
BODY_S = 600.0  # longest time for a body
UNREAD_S = 60.0  # longest time in which a client reads nothing; a paused player reads nothing
STOP_S = 1.0  # time for a running request when the server stops

_LOG = logging.getLogger(__name__)


class Limits:
    """ASGI middleware that refuses a body that is too large or too slow."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and scope["method"] not in ("GET", "HEAD"):
            receive = _limited(receive, scope)
        await self.app(scope, receive, send)


def _limited(receive: Receive, scope: Scope) -> Receive:
    """Count and time the body of a request, and log a client that leaves before it is sent."""
    limit = MAX_UPLOAD_BYTES if scope["path"] == UPLOAD else MAX_BODY_BYTES
    stated = int(dict(scope["headers"]).get(b"content-length", b"0"))
    end = asyncio.get_running_loop().time() + BODY_S
    size, more = 0, True

    async def limited() -> Message:
        nonlocal size, more
        if not more:  # who receives now waits for the client to leave
            return await receive()
        if stated > limit:
            raise _too_large(limit)
        silent = asyncio.get_running_loop().time() + SILENT_S
        try:
            async with asyncio.timeout_at(min(silent, end)):
                message = await receive()
        except TimeoutError:
            raise HTTPException(
                408,
                f"the body stopped for {SILENT_S:.0f} s or took {BODY_S:.0f} s; send it again",
            ) from None
        if message["type"] == "http.disconnect":
            who = (scope["client"] or ("a client",))[0]
            _LOG.warning("%s left before %s %r was sent", who, scope["method"], scope["path"])
            raise HTTPException(400, "the body is not complete")
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
        if size > limit:
            raise _too_large(limit)
        return message

    return limited


def _too_large(limit: int) -> HTTPException:
    return HTTPException(413, f"the request is larger than {limit // 2**20} MB, the limit")


class Connection(H11Protocol):  # type: ignore[misc]  # mypy skips uvicorn
    """A connection that ends when its client neither sends a request nor reads the answer."""

    app_state: dict[str, Any]

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Expect the head of a request; a route may end the connection."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, "abort": transport.abort}
        self.silent = self.loop.call_later(SILENT_S, transport.close)

    def data_received(self, data: bytes) -> None:
        """Expect the rest of a head, or of a body that is refused already."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self.silent.cancel()
        elif self.silent.cancelled():
            self.silent = self.loop.call_later(SILENT_S, self.transport.close)

    def pause_writing(self) -> None:
        """Expect the client to read."""
        super().pause_writing()
        self._expect_reading(None)

    def resume_writing(self) -> None:
        """Expect nothing: the client has read."""
        super().resume_writing()
        self.unread.cancel()

    def shutdown(self) -> None:
        """End soon: the server stops."""
        super().shutdown()
        self.loop.call_later(STOP_S, self.transport.abort)

    def _expect_reading(self, before: int | None) -> None:
        size = self.transport.get_write_buffer_size()
        if size == before:
            self.transport.abort()
        else:
            self.unread = self.loop.call_later(UNREAD_S, self._expect_reading, size)
