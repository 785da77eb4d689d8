"""The application: the API under /api, the page and its modules, plotly from its own package."""

from __future__ import annotations

import re
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles
from threadpoolctl import threadpool_limits

from subgenre.errors import AudioError, SubgenreError
from subgenre.explorer import changes, routes, schemas, state
from subgenre.explorer.content import Library
from subgenre.explorer.security import Guard
from subgenre.explorer.view import UnknownTrackError

_STATUS: tuple[tuple[type[SubgenreError], int], ...] = (
    (UnknownTrackError, 404),
    (state.BusyError, 409),
    (state.TooLargeError, 413),
    (AudioError, 422),
    (SubgenreError, 422),
)
_STYLES = re.compile(rb'getElementById\("([0-9a-f]{64})"\)')


def create_app(library: Library, *, hosts: Sequence[str] = ()) -> FastAPI:
    """Make the application; see `explorer.create_app`."""
    explorer = state.Explorer(library)
    app = FastAPI(
        title="subgenre explorer",
        description="The functions of the explorer's page, as JSON.",
        docs_url=None,  # those pages load their scripts from elsewhere
        redoc_url=None,
        openapi_url="/api/openapi.json",
        lifespan=_warmed,
        responses={status: {"model": schemas.Problem} for status in (403, 404, 413, 422)},
    )
    app.state.explorer = explorer
    app.state.max_upload_bytes = state.MAX_UPLOAD_BYTES
    app.include_router(routes.router(), prefix="/api")
    app.include_router(changes.router(), prefix="/api")
    app.add_exception_handler(SubgenreError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    _add_page(app)
    app.add_middleware(Guard, hosts=tuple(hosts))
    return app


@asynccontextmanager
async def _warmed(app: FastAPI) -> AsyncIterator[None]:
    """Prepare what the first requests ask for, beside them.

    Requests run side by side: a matrix product that took all cores for each would slow them all.
    """
    with threadpool_limits(1, user_api="blas"):
        threading.Thread(target=app.state.explorer.view.warm, daemon=True).start()
        yield


async def _refused(_request: Request, problem: Exception) -> Response:
    status = next(status for kind, status in _STATUS if isinstance(problem, kind))
    return JSONResponse({"detail": str(problem)}, status)


async def _invalid(_request: Request, problem: Any) -> Response:
    """Tell the first thing that is wrong with a request, in one line."""
    first = problem.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:])
    return JSONResponse({"detail": f"{where or 'the body'}: {first['msg']}"}, 422)


def _add_page(app: FastAPI) -> None:
    folder = Path(str(resources.files("subgenre.explorer") / "static"))
    plotly = Path(str(resources.files("plotly") / "package_data" / "plotly.min.js"))
    page = (folder / "index.html").read_text(encoding="utf-8")
    # plotly adds the style of its street maps as a text, which the policy forbids, unless an
    # element of this id is there; it has no use here
    library = plotly.read_bytes()
    styles = {found.decode() for found in _STYLES.findall(library)}
    page = page.replace("<!-- ids -->", "".join(f'<i hidden id="{name}"></i>' for name in styles))

    async def index() -> Response:
        return HTMLResponse(page, headers={"cache-control": "no-cache"})

    async def docs() -> Response:
        return FileResponse(folder / "docs.html", headers={"cache-control": "no-cache"})

    async def script() -> Response:
        fresh = {"cache-control": "public, max-age=86400"}
        return Response(library, media_type="text/javascript", headers=fresh)

    for path, call in (("/", index), ("/docs", docs), ("/plotly.js", script)):
        app.add_api_route(path, call, methods=["GET"], include_in_schema=False)
    app.mount("/static", StaticFiles(directory=folder), name="static")
