"""The commands that use a model: index, classify, similar, playlist, explore, embed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

import subgenre
from subgenre.cli.options import Common, Source, Wanted, clock, listed

if TYPE_CHECKING:
    from subgenre.cli.console import Terminal
    from subgenre.search.classifier import Placement
    from subgenre.search.requests import PlaylistRequest


def index(
    library: Path | None = None,
    *,
    root: Path | None = None,
    replace: bool = False,
    workers: int | None = None,
    source: Source | None = None,
    common: Common | None = None,
) -> int:
    """Bring the index of a model up to date with a library: new tracks in, gone ones out.

    Music needs no labels to be indexed. What the index holds of other libraries stays.

    Example: subgenre index MyMusic

    Args:
        library: a folder of audio, a CSV, a folder of playlists, or a rekordbox XML.
        root: where a library that has moved is now; its tracks are found by their sound.
        replace: forget the tracks of all other libraries, those of the training among them.
        workers: processes; by default all cores.
    """
    terminal = (common or Common()).terminal()
    indexed = (
        (source or Source())
        .load(terminal)
        .index(library, root=root, replace=replace, workers=workers, console=terminal)
    )
    terminal.result(indexed.to_dict())
    return 1 if indexed.skipped or (indexed.relinked and indexed.relinked.missing) else 0


def classify(
    *audio: Path,
    run: Path | None = None,
    alpha: float = 0.1,
    out: Path | None = None,
    copy_to: Path | None = None,
    m3u_to: Path | None = None,
    workers: int | None = None,
    common: Common | None = None,
) -> int:
    """Say which subgenre audio files belong to, how surely, by which seconds; or none of these.

    Example: subgenre classify new/ --m3u-to sorted

    Args:
        audio: files, folders or playlists.
        run: the model folder; by default the newest with vectors.
        alpha: share of tracks that belong which may be called none of these.
        out: write the placements as .csv or .json.
        copy_to: copy each file into FOLDER/genre/subgenre; the sources are never changed.
        m3u_to: add each file to FOLDER/genre/subgenre.m3u8.
        workers: processes; by default all cores.
    """
    terminal = (common or Common()).terminal()
    classified = subgenre.load(run, console=terminal).classify_files(
        audio,
        alpha=alpha,
        out=out,
        copy_to=copy_to,
        m3u_to=m3u_to,
        workers=workers,
        console=terminal,
    )
    rows = [_placement_row(placement, classified.chunk_s) for placement in classified.placements]
    terminal.table("Placements", ["file", "subgenre", "probability", "heard at"], rows)
    terminal.result(classified.to_dict())
    return 1 if classified.skipped else 0


def similar(
    track: str,
    *,
    k: Annotated[int, Parameter(name=["--k", "-k"])] = 10,
    out: Path | None = None,
    wanted: Wanted | None = None,
    source: Source | None = None,
    common: Common | None = None,
) -> int:
    """List the tracks most similar to one, of the library or any file.

    Example: subgenre similar "new/some track.mp3" -k 10 --per-artist 1

    Args:
        track: a file, or an id, path or title of the library.
        k: how many.
        out: write the list as .m3u8, .csv or .xml (rekordbox).
    """
    from subgenre.search.requests import PlaylistRequest

    terminal, wanted = (common or Common()).terminal(), wanted or Wanted()
    request = PlaylistRequest((track,), tracks=k, **wanted.options())
    return _list(terminal, f"Similar to {track}", request, source or Source(), out, track=track)


def playlist(
    *seeds: str,
    expand: str = "",
    until_fit: float = 0.9,
    like: tuple[str, ...] = (),
    unlike: tuple[str, ...] = (),
    journey: bool = False,
    axis: str = "",
    between: tuple[float, float] | None = None,
    smooth: bool = False,
    tracks: int | None = None,
    minutes: float | None = None,
    out: Path | None = None,
    wanted: Wanted | None = None,
    source: Source | None = None,
    common: Common | None = None,
) -> int:
    """Make a playlist: from tracks, from a subgenre until it stops fitting, or along a way.

    Example: subgenre playlist --expand "Dark Techno" --until-fit 0.9 --out more.m3u8

    Args:
        seeds: tracks to go by, left out of the list (a journey keeps them); several by agreement.
        expand: a subgenre to go on from.
        until_fit: with --expand, the least probability of belonging; 0: no limit.
        like: with --expand, more like this track; may be given again.
        unlike: with --expand, less like this track; may be given again.
        journey: from the first of two seeds to the second, in small steps.
        axis: tracks along the way between two subgenres, as "Dark Techno:Emotional Techno".
        between: with --axis, first and last position of a track; 0 and 1 are the two middles.
        smooth: order by small steps in sound, and in tempo where tags tell it.
        tracks: length in tracks.
        minutes: length in minutes.
        out: write it as .m3u8, .csv or .xml (rekordbox).
    """
    from subgenre.search.requests import PlaylistRequest

    terminal, wanted = (common or Common()).terminal(), wanted or Wanted()
    request = PlaylistRequest(
        seeds,
        expand=expand,
        until_fit=until_fit or None,
        like=like,
        unlike=unlike,
        journey=journey,
        axis=axis,
        between=between,
        smooth=smooth,
        tracks=tracks,
        minutes=minutes,
        **wanted.options(),
    )
    return _list(terminal, "Playlist", request, source or Source(), out)


def _list(
    terminal: Terminal,
    title: str,
    request: PlaylistRequest,
    source: Source,
    out: Path | None,
    **query: str,
) -> int:
    """Make a list, write it and show it; return the exit code."""
    from subgenre.commands.playlist import row

    model = source.load(terminal)
    hits = model.playlist(request=request, out=out, console=terminal)
    by = model.ranking(request)
    if hits:
        columns, rows = listed(hits, by.name)
        terminal.table(title, columns, rows, caption=by.sentence)
    written = str(out) if out and hits else None
    result = {"out": written, "ranked_by": by.name, "hits": [row(hit) for hit in hits]}
    terminal.result({**query, **result})
    return 0 if hits else 1


def explore(
    *,
    playlists: Path = Path("playlists"),
    host: str = "127.0.0.1",
    port: int = 8765,
    source: Source | None = None,
    common: Common | None = None,
) -> int:
    """Show the library as a map in the browser, to be heard; stop it with Ctrl+C.

    Example: subgenre explore --port 8765

    Args:
        playlists: folder that saved playlists go to.
        host: address to listen on; the page has no password, so leave it on loopback.
        port: 0 takes a free one.
    """
    terminal = (common or Common()).terminal()

    def ready(address: str) -> None:
        terminal.info(f"the map is at {address} (stop with Ctrl+C)")
        terminal.result({"address": address})

    (source or Source()).load(terminal).explore(
        playlists=playlists, host=host, port=port, on_ready=ready, console=terminal
    )
    return 0


def embed(
    *audio: Path,
    run: Path | None = None,
    out: Path = Path("embeddings.parquet"),
    common: Common | None = None,
) -> int:
    """Write the vectors of audio files, or of the model's held-out tracks, as one table.

    Example: subgenre embed new/*.mp3 --out new.parquet

    Args:
        audio: files or folders; without any, the held-out tracks of the model.
        run: the model folder; by default the newest fully_trained_models_... here.
        out: a Parquet file: id, path, genre, subgenre, vector.
    """
    from subgenre.commands import embed as stage

    terminal = (common or Common()).terminal()
    done = stage.embed(audio, run, out, console=terminal)
    terminal.result(done.to_dict())
    return 1 if done.skipped else 0


def _placement_row(placement: Placement, chunk_s: float) -> list[str]:
    row = placement.row()
    start = row["chunk_start_s"]
    heard_at = "-" if start is None else f"{clock(start)} to {clock(start + chunk_s)}"
    name = placement.subgenre or f"none of these (nearest: {placement.nearest[1]})"
    return [Path(row["path"]).name, name, f"{placement.probability:.2f}", heard_at]
