"""The API's changes: playlists are saved, labels corrected, the model refitted, files heard."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse

from subgenre.core import files
from subgenre.explorer import schemas, state
from subgenre.explorer.routes import Here
from subgenre.library.formats import EXTENSIONS, write_playlist


def save(explorer: Here, wanted: schemas.SaveRequest) -> dict[str, Any]:
    """Save a playlist in the library's playlists folder."""
    view = explorer.view
    tracks = view.library.collection.tracks([view.row(i) for i in wanted.ids])
    path = view.library.playlists / f"{files.safe_name(wanted.name)}.{wanted.format}"
    if path.exists() and not wanted.replace:
        told = f"there is a playlist '{path.name}' already; replace it, or choose another name"
        raise HTTPException(409, told)
    write_playlist(path, tracks)
    return {"file": path.name, "tracks": len(tracks), "folder": str(view.library.playlists)}


def saved(explorer: Here) -> dict[str, Any]:
    """List the playlists that were saved."""
    folder = explorer.view.library.playlists
    found = folder.iterdir() if folder.is_dir() else ()
    names = [p.name for p in found if p.suffix in EXTENSIONS and not p.name.startswith(".")]
    return {"folder": str(folder), "files": sorted(names)}


def download(explorer: Here, file: str) -> FileResponse:
    """Give a saved playlist as a file."""
    if file not in saved(explorer)["files"]:
        raise HTTPException(404, f"there is no playlist '{file[:80]}'")
    path = explorer.view.library.playlists / file
    kind = {".m3u8": "audio/x-mpegurl", ".csv": "text/csv", ".xml": "application/xml"}
    told = kind.get(path.suffix, "application/octet-stream")
    return FileResponse(path, media_type=told, filename=file)


def corrections(explorer: Here) -> dict[str, Any]:
    """Tell all corrections, and whether the map has learnt them."""
    said = explorer.corrections.all()
    told = {key: vars(one) for key, one in said.items()}
    return {"corrections": told, "pending": said != explorer.learnt}


def correct(explorer: Here, track_id: str, said: schemas.CorrectionRequest) -> dict[str, Any]:
    """Say where a track belongs, or that its label is wrong; the audio is never touched."""
    if bool(said.subgenre) == said.wrong:
        raise HTTPException(422, "name the subgenre where the track belongs, or say wrong")
    return vars(explorer.correct(track_id, said.subgenre, said.wrong))


def uncorrect(explorer: Here, track_id: str) -> dict[str, Any]:
    """Take back what was said of a track."""
    if not explorer.corrections.drop(track_id):
        raise HTTPException(404, "nothing was said of this track")
    return corrections(explorer)


def refit(explorer: Here) -> dict[str, Any]:
    """Retrain with the corrections; the map moves."""
    view = explorer.refit()
    return {"revision": view.revision, "corrections": len(explorer.corrections.all())}


async def place(
    explorer: Here, request: Request, name: Annotated[str, Query(max_length=300)] = "file"
) -> dict[str, Any]:
    """Hear an audio file, sent as the body, and place it on the map; it is not kept."""
    limit = request.app.state.max_upload_bytes
    shown = state.shown_name(name)
    if int(request.headers.get("content-length", "0")) > limit:
        raise state.too_large(shown, limit)
    folder = explorer.view.library.cache / "uploads"
    path = await state.store_upload(request.stream(), folder, shown, limit)
    try:
        heard: dict[str, Any] = await run_in_threadpool(explorer.hear, path, shown)
        return heard
    finally:
        path.unlink(missing_ok=True)


def router() -> APIRouter:
    """Return the routes of this module."""
    made = APIRouter()
    one = "/corrections/{track_id}"
    for path, call, method, model in (
        ("/playlists", save, "POST", schemas.Saved),
        ("/playlists", saved, "GET", schemas.SavedList),
        ("/corrections", corrections, "GET", schemas.CorrectionsModel),
        (one, correct, "PUT", schemas.CorrectionModel),
        (one, uncorrect, "DELETE", schemas.CorrectionsModel),
        ("/refit", refit, "POST", schemas.Refitted),
    ):
        made.add_api_route(path, call, methods=[method], response_model=model)
    body = {"requestBody": {"required": True, "content": {"application/octet-stream": {}}}}
    made.add_api_route(
        "/place", place, methods=["POST"], response_model=schemas.Placed, openapi_extra=body
    )
    made.add_api_route(
        "/playlists/{file}",
        download,
        methods=["GET"],
        response_class=FileResponse,
        response_model=None,
    )
    return made
