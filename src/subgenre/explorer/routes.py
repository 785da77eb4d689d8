"""The JSON API: one function for each route, with its request and response in `schemas`."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import numpy as np
from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse

from subgenre.audio.extensions import EXTENSIONS
from subgenre.core import files
from subgenre.errors import AudioError
from subgenre.explorer import playback, schemas
from subgenre.explorer.content import Correction
from subgenre.explorer.limits import MAX_UPLOAD_BYTES, MAX_UPLOADS
from subgenre.explorer.security import Message, Receive, Scope, Send
from subgenre.explorer.state import Explorer
from subgenre.explorer.view import DECIMALS
from subgenre.library import formats
from subgenre.search import journeys, ordering, requests
from subgenre.search.requests import PlaylistRequest

router = APIRouter()
_LOG = logging.getLogger(__name__)


class LateResponse(FileResponse):  # type: ignore[misc]  # mypy skips starlette
    """A file that may go away: the answer begins when its first bytes are read.

    If it shrinks meanwhile, the connection is closed, because its length is sent already.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        head: list[Message] = []
        left, short = 0, False  # bytes

        async def late(message: Message) -> None:
            nonlocal left, short
            if message["type"] == "http.response.start":
                head.append(message)
                left = int(dict(message["headers"])[b"content-length"])
                return
            if head:
                await send(head.pop())
            body = message["body"][:left]  # it may have grown
            left -= len(body)
            short = left > 0 and not message["more_body"] and scope["method"] != "HEAD"
            if not short:
                await send({**message, "body": body})

        try:
            await super().__call__(scope, receive, late)
        except RuntimeError:  # one of several ranges is shorter
            if head or not left:
                raise
            short = True
        if short:
            _LOG.warning("%s became shorter while it was sent", Path(self.path).name)
            scope["state"]["abort"]()
            while (await receive())["type"] != "http.disconnect":
                pass


def _explorer(request: Request, response: Response) -> Explorer:
    explorer: Explorer = request.app.state.explorer
    explorer.refresh()
    response.headers["x-revision"] = str(explorer.view.revision)
    return explorer


Current: TypeAlias = Annotated[Explorer, Depends(_explorer)]


# The library and its tracks


@router.get("/library", response_model=schemas.Library)
def library(explorer: Current) -> dict[str, Any]:
    """Describe the library: its subgenres, how they are drawn, and what can be done with it."""
    view = explorer.view
    labels = zip(view.library.collection.labels, view.counts, view.styles, strict=True)
    return {
        "title": view.library.title,
        "note": view.library.note,
        "tracks": len(view.library.collection),
        "revision": view.revision,
        "labels": [
            {
                **{"genre": genre, "subgenre": subgenre, "count": count},
                **{"colour": style.colour, "symbol": style.symbol, "outline": style.outline},
            }
            for (genre, subgenre), count, style in labels
        ],
        "can_place": view.library.encode is not None,
        "can_refit": view.library.refit is not None,
        "max_upload_mb": MAX_UPLOAD_BYTES // 2**20,
        "extensions": sorted(EXTENSIONS),
    }


@router.get("/points", response_model=None, responses={200: {"model": schemas.Points}})
def points(explorer: Current) -> Response:
    """Return all points of the map, column by column."""
    return Response(explorer.view.points, media_type="application/json")


@router.get("/search", response_model=schemas.Tracks)
def search(
    explorer: Current,
    q: Annotated[str, Query(max_length=200, description="words of artist, title or path")],
    limit: Annotated[int, Query(ge=1, le=200)] = 20,
) -> dict[str, Any]:
    """Find tracks by artist, title or path."""
    view = explorer.view
    return {"tracks": view.summaries(view.find(q, limit))}


@router.get("/tracks/{track_id}", response_model=schemas.TrackDetail)
def track(explorer: Current, track_id: str) -> dict[str, Any]:
    """Return the tags of a track, its placement, the doctor's findings and its correction."""
    correction = explorer.corrections.by_track.get(track_id)
    return {**explorer.view.detail(track_id), "correction": correction}


@router.get("/tracks/{track_id}/similar", response_model=schemas.Hits)
def similar(
    explorer: Current, track_id: str, query: Annotated[schemas.SimilarQuery, Query()]
) -> dict[str, Any]:
    """Find the tracks most similar to one, most similar first."""
    view = explorer.view
    view.row(track_id)
    request = PlaylistRequest((track_id,), mutual=query.mutual, **query.options())
    return {"tracks": view.hits(requests.make(view.library.collection, request))}


# Audio


@router.get("/tracks/{track_id}/peaks", response_model=schemas.Peaks)
def peaks(explorer: Current, track_id: str) -> dict[str, Any]:
    """Return the loudest sample of each part of a track, for drawing."""
    view = explorer.view
    path = view.library.collection.track(view.row(track_id)).path
    levels = playback.cached_peaks(path, view.library.cache, track_id)
    return {"count": len(levels), "peaks": playback.packed(levels)}


@router.get("/tracks/{track_id}/audio", response_class=FileResponse, response_model=None)
def audio(
    explorer: Current,
    track_id: str,
    mp3: Annotated[bool, Query(description="transcode formats that browsers play, too")] = False,
) -> FileResponse:
    """Return the audio of a track; byte ranges are supported."""
    view = explorer.view
    path = view.library.collection.track(view.row(track_id)).path
    file, media_type = playback.playable(path, view.library.cache, track_id, as_mp3=mp3)
    caching = {"cache-control": "no-cache"}
    return LateResponse(file, media_type=media_type, headers=caching, stat_result=file.stat())


# Lists


@router.get("/axis", response_model=schemas.Axis)
def axis(
    explorer: Current,
    name: Annotated[str, Query(max_length=600, description="'Subgenre A:Subgenre B'")],
) -> dict[str, Any]:
    """Return the position of every track between two subgenres."""
    view = explorer.view
    tracks = view.library.collection
    line = journeys.axis(tracks, name)
    return {
        "start": "/".join(line.start),
        "end": "/".join(line.end),
        "revision": view.revision,
        "positions": np.round(journeys.positions(tracks, line)[tracks.live], DECIMALS).tolist(),
    }


@router.get("/axis/near", response_model=schemas.Hits)
def axis_near(explorer: Current, query: Annotated[schemas.AxisQuery, Query()]) -> dict[str, Any]:
    """Find the tracks nearest to a point of the line between two subgenres, nearest first.

    A track that is like neither of the two has a position on the line as well. Distance from the
    point leaves it out; position alone would not.
    """
    view = explorer.view
    tracks = view.library.collection
    point = journeys.axis(tracks, query.name).point(query.at)
    request = PlaylistRequest((point,), **query.options())
    return {"tracks": view.hits(requests.make(tracks, request))}


@router.post("/playlist", response_model=schemas.Hits)
def make_playlist(explorer: Current, body: schemas.PlaylistBody) -> dict[str, Any]:
    """Make a playlist: by agreement of seeds, of a subgenre, from A to B, or along an axis."""
    view = explorer.view
    for track_id in (*body.seeds, *body.like, *body.unlike):
        view.row(track_id)
    tracks, request = view.library.collection, body.to_request()
    hits = requests.make(tracks, request, classifier=view.library.classifier)
    return {"tracks": view.hits(hits), "notes": requests.notes(tracks, request, hits)}


@router.post("/order", response_model=schemas.Tracks)
def order(explorer: Current, request: schemas.OrderRequest) -> dict[str, Any]:
    """Put tracks in a smooth order."""
    view = explorer.view
    rows = [view.row(track_id) for track_id in dict.fromkeys(request.ids)]
    ordered = ordering.smooth(view.library.collection, rows, start=request.keep_first)
    return {"tracks": view.summaries(ordered)}


@router.post("/playlists", response_model=schemas.Saved, responses=schemas.problems(409))
def save(explorer: Current, request: schemas.SaveRequest) -> dict[str, Any]:
    """Save a playlist in the playlists folder."""
    view = explorer.view
    tracks = view.library.collection.tracks([view.row(i) for i in request.ids])
    path = view.library.playlists / f"{files.safe_name(request.name)}.{request.format}"
    if path.exists() and not request.replace:
        raise HTTPException(409, f"'{path.name}' exists; replace it, or choose another name")
    formats.write_playlist(path, tracks)
    return {"file": path.name, "tracks": len(tracks), "folder": str(view.library.playlists)}


@router.get("/playlists", response_model=schemas.SavedList)
def saved(explorer: Current) -> dict[str, Any]:
    """List the saved playlists."""
    folder = explorer.view.library.playlists
    paths = folder.iterdir() if folder.is_dir() else ()
    names = [p.name for p in paths if p.suffix in formats.FORMATS and p.name[0] != "."]
    return {"folder": str(folder), "files": sorted(names)}


@router.get("/playlists/{file}", response_class=FileResponse, response_model=None)
def download(explorer: Current, file: str) -> FileResponse:
    """Return a saved playlist as a file."""
    if file not in saved(explorer)["files"]:
        raise HTTPException(404, f"there is no playlist '{file[:80]}'")
    path = explorer.view.library.playlists / file
    types = {".m3u8": "audio/x-mpegurl", ".csv": "text/csv", ".xml": "application/xml"}
    media_type = types.get(path.suffix, "application/octet-stream")
    return LateResponse(path, media_type=media_type, filename=file, stat_result=path.stat())


# Corrections


@router.get("/corrections", response_model=schemas.Corrections)
def corrections(explorer: Current) -> dict[str, Any]:
    """Return all corrections, and whether a refit would change the map."""
    by_track = explorer.corrections.by_track
    return {"corrections": by_track, "pending": by_track != explorer.fitted}


@router.put("/corrections/{track_id}", response_model=schemas.Correction)
def correct(explorer: Current, track_id: str, request: schemas.CorrectionRequest) -> Correction:
    """Correct the label of a track; the audio file stays as it is."""
    if bool(request.subgenre) == request.wrong:
        raise HTTPException(422, "give either the right subgenre or 'wrong'")
    return explorer.correct(track_id, request.subgenre, request.wrong)


@router.delete("/corrections/{track_id}", response_model=schemas.Corrections)
def uncorrect(explorer: Current, track_id: str) -> dict[str, Any]:
    """Remove the correction of a track."""
    if not explorer.corrections.drop(track_id):
        raise HTTPException(404, "this track has no correction")
    return dict(corrections(explorer))


@router.post("/refit", response_model=schemas.Refitted, responses=schemas.problems(409))
def refit(explorer: Current) -> dict[str, Any]:
    """Refit the model with the corrections; tracks move on the map."""
    view = explorer.refit()
    return {"revision": view.revision, "corrections": len(explorer.corrections.by_track)}


@router.get("/refit", response_model=schemas.Refitting)
def refitting(explorer: Current) -> dict[str, Any]:
    """Return how far the running refit is."""
    return vars(explorer.refitting)


# Files from outside


_AUDIO_BODY = {"requestBody": {"required": True, "content": {"application/octet-stream": {}}}}


@router.post(
    "/place",
    response_model=schemas.Placed,
    responses=schemas.problems(429),
    openapi_extra=_AUDIO_BODY,
)
async def place(
    explorer: Current, request: Request, name: Annotated[str, Query(max_length=300)] = "file"
) -> dict[str, Any]:
    """Place an audio file, sent as the body, on the map; the file is not kept."""
    shown = files.safe_name(Path(name.replace("\\", "/")).name or "file", 120)
    if explorer.uploads.locked():
        raise HTTPException(429, f"{MAX_UPLOADS} files are being placed; wait until one is done")
    folder = explorer.view.library.cache / "uploads"
    async with explorer.uploads, _stored(request.stream(), folder, shown) as path:
        return dict(await run_in_threadpool(explorer.place, path, shown))


@asynccontextmanager
async def _stored(stream: AsyncIterator[bytes], folder: Path, name: str) -> AsyncIterator[Path]:
    """Write an upload to a temporary file, part by part, and remove it in the end."""
    suffix = Path(name).suffix.lower()
    with files.temporary_path(folder, suffix if suffix in EXTENSIONS else "") as path:
        with path.open("wb") as file:
            async for part in stream:
                file.write(part)
        if not path.stat().st_size:
            raise AudioError(f"'{name}' is an empty file")
        yield path
