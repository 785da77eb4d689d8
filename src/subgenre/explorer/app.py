"""The application: the API under /api, the page and its modules, plotly from its own package."""

from __future__ import annotations

import re
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.staticfiles import StaticFiles
from threadpoolctl import threadpool_limits

from subgenre.errors import SubgenreError
from subgenre.explorer import routes, schemas
from subgenre.explorer.content import Library
from subgenre.explorer.limits import Limits
from subgenre.explorer.security import Guard
from subgenre.explorer.state import BusyError, Explorer
from subgenre.explorer.view import UnknownTrackError

_STATUS: dict[type[Exception], int] = {
    UnknownTrackError: 404,
    BusyError: 409,
}  # all other errors: 422
_STYLES = re.compile(rb'getElementById\("([0-9a-f]{64})"\)')


def create_app(library: Library, host: str = "localhost", token: str = "") -> FastAPI:
    """Make the application; `security.Guard` describes `host` and `token`."""
    app = FastAPI(
        title="subgenre explorer",
        description="The functions of the explorer's page, as JSON.",
        docs_url=None,  # FastAPI's own pages load their scripts from another site
        redoc_url=None,
        openapi_url="/api/openapi.json",
        lifespan=_lifespan,
        responses=schemas.problems(400, 401, 403, 404, 408, 413, 422),
    )
    app.state.explorer = Explorer(library)
    app.include_router(routes.router, prefix="/api")
    app.add_exception_handler(SubgenreError, _refused)
    app.add_exception_handler(FileNotFoundError, _gone)
    app.add_exception_handler(RequestValidationError, _invalid)
    _add_page(app)
    app.add_middleware(Limits)
    app.add_middleware(Guard, host=host, token=token)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Compute what the first requests need, beside them.

    Requests run in parallel, so each matrix product is limited to one thread.
    """
    with threadpool_limits(1, user_api="blas"):
        threading.Thread(target=app.state.explorer.view.warm, daemon=True).start()
        yield


async def _refused(_request: Request, problem: Exception) -> Response:
    return JSONResponse({"detail": str(problem)}, _STATUS.get(type(problem), 422))


async def _gone(_request: Request, problem: Any) -> Response:
    """Name a file that was removed while it was read."""
    name = Path(problem.filename or "the file").name
    return JSONResponse({"detail": f"{name} is gone; index the library again"}, 422)


async def _invalid(_request: Request, problem: Any) -> Response:
    """Return the first fault of a request, in one line."""
    first = problem.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:])
    return JSONResponse({"detail": f"{where or 'the body'}: {first['msg']}"}, 422)


def _add_page(app: FastAPI) -> None:
    folder = Path(__file__).with_name("static")
    plotly = (resources.files("plotly") / "package_data" / "plotly.min.js").read_bytes()
    page = (folder / "index.html").read_text(encoding="utf-8")
    # Plotly writes a style element for its street maps, which the security policy forbids, unless
    # an element of this id exists. The page has no street maps.
    ids = {match.decode() for match in _STYLES.findall(plotly)}
    page = page.replace("<!-- ids -->", "".join(f'<i hidden id="{name}"></i>' for name in ids))
    docs = (folder / "docs.html").read_text(encoding="utf-8")
    for path, content, kind, caching in (
        ("/", page, "text/html", "no-cache"),
        ("/docs", docs, "text/html", "no-cache"),
        ("/plotly.js", plotly, "text/javascript", "public, max-age=86400"),
    ):
        answer = Response(content, media_type=kind, headers={"cache-control": caching})
        app.router.routes.append(Route(path, answer, methods=["GET"], include_in_schema=False))
    app.mount("/static", StaticFiles(directory=folder), name="static")
