"""The API's questions: what is there, where it lies, what it resembles, how it sounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeAlias

import numpy as np
from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.responses import FileResponse

from subgenre.audio.decoder import EXTENSIONS
from subgenre.errors import PlaylistError
from subgenre.explorer import playback, schemas
from subgenre.explorer.state import MAX_UPLOAD_BYTES, Explorer
from subgenre.explorer.view import DECIMALS, View
from subgenre.search import journeys, playlists
from subgenre.search.ordering import smooth
from subgenre.search.ranking import Hit


async def explorer_of(request: Request) -> Explorer:
    """Hand a request the explorer of its application."""
    found: Explorer = request.app.state.explorer
    return found


Here: TypeAlias = Annotated[Explorer, Depends(explorer_of)]


def library(explorer: Here) -> dict[str, Any]:
    """Tell the library: its subgenres, how they are drawn, and what can be done with it."""
    view = explorer.view
    told = zip(view.labels, view.counts, view.styles, strict=True)
    return {
        "title": view.library.title,
        "note": view.library.note,
        "tracks": len(view.library.collection),
        "revision": view.revision,
        "labels": [
            {
                "genre": genre,
                "subgenre": subgenre,
                "count": count,
                "colour": style.colour,
                "symbol": style.symbol,
                "outline": style.outline,
            }
            for (genre, subgenre), count, style in told
        ],
        "can_place": view.library.encode is not None,
        "can_refit": view.library.refit is not None,
        "max_upload_mb": MAX_UPLOAD_BYTES // 2**20,
        "extensions": sorted(EXTENSIONS),
    }


def points(explorer: Here) -> Response:
    """Give all points of the map, column by column."""
    return Response(explorer.view.points, media_type="application/json")


def search(
    explorer: Here,
    q: Annotated[str, Query(max_length=200, description="words of artist, title or path")],
    limit: Annotated[int, Query(ge=1, le=200)] = 20,
) -> dict[str, Any]:
    """Find tracks by their artist, title or path."""
    view = explorer.view
    return {"tracks": view.summaries(view.find(q, limit))}


def track(explorer: Here, track_id: str) -> dict[str, Any]:
    """Tell everything of one track: tags, placement, what the doctor and the person said."""
    said = explorer.corrections.all().get(track_id)
    return {**explorer.view.detail(track_id), "correction": said and vars(said)}


def similar(
    explorer: Here, track_id: str, wanted: Annotated[schemas.SimilarQuery, Query()]
) -> dict[str, Any]:
    """Find the tracks most similar to one, most similar first."""
    view = explorer.view
    view.row(track_id)
    found = playlists.similar(
        view.library.collection, track_id, wanted.limits(), wanted.filter(), mutual=wanted.mutual
    )
    return {"tracks": view.hits(found)}


def peaks(explorer: Here, track_id: str) -> dict[str, Any]:
    """Give the loudest sample of each part of a track, for drawing."""
    view = explorer.view
    path = view.library.collection.track(view.row(track_id)).path
    levels = playback.cached_peaks(path, view.library.cache, track_id)
    return {"count": len(levels), "peaks": playback.packed(levels)}


def sound_of(
    explorer: Here,
    track_id: str,
    mp3: Annotated[bool, Query(description="transcode also what browsers play")] = False,
) -> FileResponse:
    """Give a track's sound; ranges are served."""
    view = explorer.view
    path = view.library.collection.track(view.row(track_id)).path
    file, kind = playback.playable(path, view.library.cache, track_id, as_mp3=mp3)
    return FileResponse(file, media_type=kind, headers={"cache-control": "no-cache"})


def axis(
    explorer: Here,
    name: Annotated[str, Query(max_length=600, description="'Subgenre A:Subgenre B'")],
) -> dict[str, Any]:
    """Tell where every track lies between two subgenres."""
    view = explorer.view
    tracks = view.library.collection
    line = journeys.axis(tracks, name)
    where = np.round(journeys.positions(tracks, line)[tracks.live], DECIMALS)
    start, end = ("/".join(pair) for pair in (line.start, line.end))
    return {
        "start": start,
        "end": end,
        "revision": view.revision,
        "positions": where.tolist(),
    }


def axis_near(explorer: Here, wanted: Annotated[schemas.AxisQuery, Query()]) -> dict[str, Any]:
    """Find the tracks nearest to a place between two subgenres, nearest first.

    By the rule of an axis playlist: a track that sounds like neither of the two lies somewhere
    along their line as well, so that its position alone says nothing of its sound.
    """
    view = explorer.view
    tracks = view.library.collection
    point = journeys.axis(tracks, wanted.name).point(wanted.at)
    return {"tracks": view.hits(playlists.similar(tracks, point, wanted.limits(), wanted.filter()))}


def make_playlist(explorer: Here, wanted: schemas.PlaylistRequest) -> dict[str, Any]:
    """Make a playlist: by agreement of seeds, of a subgenre, from A to B, or along an axis."""
    view = explorer.view
    for one in (*wanted.seeds, *wanted.like, *wanted.unlike):
        view.row(one)
    found = _KINDS[wanted.kind](view, wanted)
    if wanted.smooth:
        found = playlists.smoothed(view.library.collection, found)
    return {"tracks": view.hits(found)}


def order(explorer: Here, wanted: schemas.OrderRequest) -> dict[str, Any]:
    """Put tracks in a smooth order."""
    view = explorer.view
    rows = smooth(view.library.collection, view.rows(wanted.ids), start=wanted.keep_first)
    return {"tracks": view.summaries(rows)}


def _agreement(view: View, wanted: schemas.PlaylistRequest) -> list[Hit]:
    return playlists.agreement(
        view.library.collection, wanted.seeds, wanted.limits(), wanted.filter()
    )


def _expand(view: View, wanted: schemas.PlaylistRequest) -> list[Hit]:
    return playlists.expand(
        view.library.collection,
        wanted.subgenre_name,
        wanted.limits(),
        wanted.filter(),
        until_fit=wanted.until_fit,
        like=wanted.like,
        unlike=wanted.unlike,
    )


def _journey(view: View, wanted: schemas.PlaylistRequest) -> list[Hit]:
    if len(wanted.seeds) != 2:
        raise PlaylistError(f"a journey has two ends; {len(wanted.seeds)} seeds are named")
    start, end = wanted.seeds
    return journeys.journey(view.library.collection, start, end, wanted.limits(), wanted.filter())


def _axis(view: View, wanted: schemas.PlaylistRequest) -> list[Hit]:
    tracks = view.library.collection
    return journeys.along(
        tracks, journeys.axis(tracks, wanted.axis), wanted.limits(), wanted.filter()
    )


_KINDS: dict[str, Callable[[View, schemas.PlaylistRequest], list[Hit]]] = {
    "agreement": _agreement,
    "expand": _expand,
    "journey": _journey,
    "axis": _axis,
}


def router() -> APIRouter:
    """Return the routes of this module."""
    made = APIRouter()
    get, post = ["GET"], ["POST"]
    for path, call, methods, model in (
        ("/library", library, get, schemas.LibraryModel),
        ("/search", search, get, schemas.Tracks),
        ("/tracks/{track_id}", track, get, schemas.TrackDetail),
        ("/tracks/{track_id}/similar", similar, get, schemas.Hits),
        ("/tracks/{track_id}/peaks", peaks, get, schemas.PeaksModel),
        ("/axis", axis, get, schemas.AxisModel),
        ("/axis/near", axis_near, get, schemas.Hits),
        ("/playlist", make_playlist, post, schemas.Hits),
        ("/order", order, post, schemas.Tracks),
    ):
        made.add_api_route(path, call, methods=methods, response_model=model)
    given: dict[int | str, dict[str, Any]] = {200: {"model": schemas.Points}}
    made.add_api_route("/points", points, methods=get, responses=given, response_model=None)
    made.add_api_route(
        "/tracks/{track_id}/audio",
        sound_of,
        methods=get,
        response_class=FileResponse,
        response_model=None,
    )
    return made
