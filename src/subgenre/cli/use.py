"""The commands that use a model, from index to export."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

import subgenre
from subgenre.audio import keys
from subgenre.cli.options import Common, Mapped, Selection, Source
from subgenre.core import workspace
from subgenre.core.shards import Shard
from subgenre.core.text import counted, percent
from subgenre.errors import ConfigError

if TYPE_CHECKING:
    from subgenre.cli.console import Terminal
    from subgenre.library.track import Track
    from subgenre.search.classifier import Placement
    from subgenre.search.ranking import Hit
    from subgenre.search.requests import PlaylistRequest


def index(
    library: Path | None = None,
    *,
    root: Path | None = None,
    origin: Annotated[str | None, Parameter(name="--from")] = None,
    replace: bool = False,
    workers: int | None = None,
    source: Source | None = None,
    mapped: Mapped | None = None,
    common: Common | None = None,
) -> int:
    """Update the index of a model with a library: add new tracks, remove missing ones.

    The music needs no labels. Tracks of other libraries stay in the index.

    Example: subgenre index MyMusic

    Args:
        library: a folder of audio, a CSV, a folder of playlists, or a rekordbox XML.
        root: the new folder of a library that has moved; its tracks are found by their audio.
        origin: another index of the model, a folder or on a server; its tracks are copied.
        replace: remove the tracks of all other libraries, the training tracks among them.
        workers: processes; by default all cores.
    """
    terminal = (common or Common()).terminal()
    indexed = (
        (source or Source())
        .load(terminal)
        .index(
            library,
            root=root,
            origin=origin,
            replace=replace,
            maps=(mapped or Mapped()).maps(),
            workers=workers,
            console=terminal,
        )
    )
    terminal.info("next: subgenre explore, or: subgenre similar TRACK")
    terminal.result(indexed.to_dict())
    return 1 if indexed.skipped or (indexed.relinked and indexed.relinked.missing) else 0


def classify(
    *audio: Path,
    run: Path | None = None,
    alpha: float = 0.1,
    engine: str | None = None,
    out: Path | None = None,
    copy_to: Path | None = None,
    m3u_to: Path | None = None,
    workers: int | None = None,
    mapped: Mapped | None = None,
    common: Common | None = None,
) -> int:
    """Classify audio files: the subgenre or none of them, how well it fits, the typical part.

    Example: subgenre classify new/ --m3u-to sorted

    Args:
        audio: files, folders or playlists.
        run: the model folder; by default the newest with vectors.
        alpha: share of tracks of your subgenres that may be rejected as none of these.
        engine: of a transformer on a CPU: torch, openvino, onnx or auto; by default that of the
            training.
        out: write the placements as .csv or .json.
        copy_to: copy each file into FOLDER/genre/subgenre; the files themselves stay as they are.
        m3u_to: add each file to FOLDER/genre/subgenre.m3u8.
        workers: processes; by default all cores.
    """
    terminal = (common or Common()).terminal()
    classified = subgenre.load(run, engine=engine, console=terminal).classify_files(
        audio,
        alpha=alpha,
        out=out,
        copy_to=copy_to,
        m3u_to=m3u_to,
        maps=(mapped or Mapped()).maps(),
        workers=workers,
        console=terminal,
    )
    rows = [_placement_row(placement, classified.chunk_s) for placement in classified.placements]
    columns = ["file", "genre", "subgenre", "fits", "second choice", "fits", "typical part"]
    terminal.table("Placements", columns, rows)
    terminal.result(classified.to_dict())
    return 1 if classified.skipped else 0


def tag(
    *audio: Path,
    write: tuple[str, ...] = (),
    mode: str = "missing",
    apply: bool = False,
    undo: Path | None = None,
    run: Path | None = None,
    alpha: float = 0.1,
    engine: str | None = None,
    workers: int | None = None,
    mapped: Mapped | None = None,
    common: Common | None = None,
) -> int:
    """Write the subgenre into the tags of audio files; without --apply, only show the changes.

    Files of none of the subgenres stay as they are. No audio changes.

    Example: subgenre tag new --write subgenre=GROUPING

    Args:
        audio: files, folders or playlists.
        write: subgenre=GENRE, subgenre=GROUPING or subgenre=COMMENT; may be given again.
        mode: missing fills empty fields, append adds to the values, overwrite replaces them.
        apply: write, after a backup of what was there.
        undo: the backup of an earlier --apply; its files become what they were.
        run: the model folder; by default the newest with vectors.
        alpha: share of tracks of your subgenres that may be rejected as none of these.
        engine: of a transformer on a CPU: torch, openvino, onnx or auto; by default that of the
            training.
        workers: processes; by default all cores.
    """
    terminal = (common or Common()).terminal()
    if undo is not None:
        if audio or write or apply:
            raise ConfigError("--undo takes the files from the backup; leave the others out")
        return _undo_tags(undo, terminal)
    fields = [words.removeprefix("subgenre=") for words in write]
    if not all(words.startswith("subgenre=") for words in write):
        raise ConfigError(f"--write is {' '.join(write)}; give for example --write subgenre=GENRE")
    tagged = subgenre.load(run, engine=engine, console=terminal).tag(
        audio,
        *fields,
        mode=mode,
        apply=apply,
        alpha=alpha,
        maps=(mapped or Mapped()).maps(),
        workers=workers,
        console=terminal,
    )
    rows = [
        [file.path.name, change.field, "; ".join(change.old) or "-", "; ".join(change.new)]
        for file in tagged.files
        for change in file.changes
    ]
    if rows:
        title = "Written" if apply else "Changes, not written yet"
        terminal.table(title, ["file", "field", "old value", "new value"], rows)
    if tagged.kept:
        other = "" if mode == "overwrite" else "; --mode append or overwrite changes more"
        files = counted(len(tagged.kept), "file")
        terminal.info(f"{files} with nothing to change by --mode {mode}{other}")
    if rows and not apply:
        terminal.info("next: the same command with --apply")
    terminal.result(tagged.to_dict())
    return 1 if tagged.skipped else 0


def _undo_tags(backup: Path, terminal: Terminal) -> int:
    from subgenre.commands import tag as stage

    undone = stage.undo(backup, terminal)
    files = counted(len(undone.restored), "file")
    terminal.info(f"{files} restored, {len(undone.unchanged)} had the old tags already")
    terminal.result(undone.to_dict())
    return 1 if undone.skipped else 0


def similar(
    track: str,
    *,
    k: Annotated[int, Parameter(name=["--k", "-k"])] = 10,
    out: Path | None = None,
    selection: Selection | None = None,
    source: Source | None = None,
    common: Common | None = None,
) -> int:
    """List the tracks most similar to a track of the library, or to any file.

    Example: subgenre similar "new/some track.mp3" -k 10 --per-artist 1

    Args:
        track: a file, or an id, path or title of the library.
        k: number of tracks.
        out: write the list as .m3u8, .csv or .xml (rekordbox).
    """
    from subgenre.search.requests import PlaylistRequest

    terminal, selection = (common or Common()).terminal(), selection or Selection()
    request = PlaylistRequest((track,), tracks=k, **selection.options())
    return _list(terminal, f"Similar to {track}", request, source or Source(), out, track=track)


def playlist(
    *seeds: str,
    expand: str = "",
    until_fit: float | None = None,
    like: tuple[str, ...] = (),
    unlike: tuple[str, ...] = (),
    journey: bool = False,
    axis: str = "",
    between: tuple[float, float] | None = None,
    smooth: bool = False,
    tracks: int | None = None,
    minutes: float | None = None,
    out: Path | None = None,
    selection: Selection | None = None,
    source: Source | None = None,
    common: Common | None = None,
) -> int:
    """Make a playlist: from tracks, for a subgenre, on a journey, or along an axis.

    Example: subgenre playlist --expand "Dark Techno" --out more.m3u8

    Args:
        seeds: tracks that the list should be similar to; only a journey contains them.
        expand: a subgenre to find more tracks for.
        until_fit: with --expand, only tracks that fit at least as well, from 0 to 1; by default the
            20 best.
        like: with --expand, more tracks like this one; may be given again.
        unlike: with --expand, fewer tracks like this one; may be given again.
        journey: go from the first of two seeds to the second in small steps.
        axis: tracks along the line between two subgenres, as "Dark Techno:Emotional Techno".
        between: with --axis, lowest and highest position; 0 and 1 are the two centroids.
        smooth: order the list so that neighbours are similar, in tempo too where it is known.
        tracks: length in tracks.
        minutes: length in minutes.
        out: write the list as .m3u8, .csv or .xml (rekordbox).
    """
    from subgenre.search.requests import PlaylistRequest

    terminal, selection = (common or Common()).terminal(), selection or Selection()
    request = PlaylistRequest(
        seeds,
        expand=expand,
        until_fit=until_fit,
        like=like,
        unlike=unlike,
        journey=journey,
        axis=axis,
        between=between,
        smooth=smooth,
        tracks=tracks,
        minutes=minutes,
        **selection.options(),
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
    from subgenre.commands.playlist import rows_of

    model = source.load(terminal)
    hits = model.playlist(request=request, out=out, console=terminal)
    by = model.ranking(request)
    if hits:
        columns, rows = _hit_table(hits, by.name)
        terminal.table(title, columns, rows, caption=by.sentence)
    written = str(out) if out and hits else None
    result = {"out": written, "ranked_by": by.name, "hits": rows_of(hits, by.name)}
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
    """Show the library as a map with sound in the browser, until Ctrl+C.

    Example: subgenre explore --port 8765

    Args:
        playlists: folder for saved playlists.
        host: address to listen on; on any but loopback, the printed address holds a token.
        port: to listen on; 0 takes a free one.
    """
    terminal = (common or Common()).terminal()

    def ready(address: str) -> None:
        say = terminal.warn if "?token=" in address else terminal.info  # no --quiet hides a token
        say(f"the map is at {address} (stop with Ctrl+C)")
        terminal.result({"address": address})

    (source or Source()).load(terminal).explore(
        playlists=playlists, host=host, port=port, on_ready=ready, console=terminal
    )
    return 0


def embed(
    *audio: Path,
    run: Path | None = None,
    out: Path = Path("embeddings.parquet"),
    engine: str | None = None,
    shard: str | None = None,
    mapped: Mapped | None = None,
    common: Common | None = None,
) -> int:
    """Write the embeddings of audio files, or of the held-out tracks, as one table.

    Example: subgenre embed new/*.mp3 --out new.parquet

    Args:
        audio: files, folders or playlists; without any, the held-out tracks of the model.
        run: the model folder; by default the newest fully_trained_models_... here.
        out: a Parquet file: id, path, genre, subgenre, vector.
        engine: of a transformer on a CPU: torch, openvino, onnx or auto; by default that of the
            training.
        shard: I/N, embed only the I-th of N equal parts of the files; `subgenre merge` joins them
            and lists what was skipped.
    """
    part = None if shard is None else Shard.parse(shard)
    terminal = (common or Common()).terminal()
    run = workspace.find_run(run, terminal)
    from subgenre.commands import embed as stage

    maps = (mapped or Mapped()).maps()
    embedded = stage.embed(audio, run, out, maps=maps, engine=engine, shard=part, console=terminal)
    if part:
        terminal.info(f"next, after all shards: subgenre merge {out}")
    terminal.result(embedded.to_dict())
    return 1 if embedded.skipped and not part else 0


def export(
    run: Path | None = None,
    *,
    out: Path,
    onnx: bool = False,
    sentence_transformers: bool = False,
    hub: bool = False,
    faiss: bool = False,
    parquet: bool = False,
    tensorboard: bool = False,
    push: str = "",
    index: str | None = None,
    common: Common | None = None,
) -> int:
    """Write the model, or the vectors of its tracks, for another tool; give one of the formats.

    Example: subgenre export --onnx --out exported

    Args:
        run: the model folder; by default the newest with vectors.
        out: a new or empty folder.
        onnx: one graph, samples in and unit vectors out, for any ONNX runtime.
        sentence_transformers: a folder for SentenceTransformer(FOLDER, trust_remote_code=True).
        hub: weights, settings and card for the hub, without names or paths of your tracks.
        faiss: an exact index of the tracks' vectors, and a table of its rows.
        parquet: vectors, map, labels and names in one table, e.g. for embedding-atlas.
        tensorboard: a log folder for TensorBoard's projector.
        push: with --hub, push the folder to this name, OWNER/NAME.
        index: as of `similar`; by default the model's own, or its training and test tracks.
    """
    formats = {
        "onnx": onnx,
        "sentence-transformers": sentence_transformers,
        "hub": hub,
        "faiss": faiss,
        "parquet": parquet,
        "tensorboard": tensorboard,
    }
    chosen = [name for name, given in formats.items() if given]
    if len(chosen) != 1:
        given = " and ".join(f"--{name}" for name in chosen) or "no format"
        raise ConfigError(f"{given}: give exactly one of --{', --'.join(formats)}")
    terminal = (common or Common()).terminal()
    model = subgenre.load(run, index=index, console=terminal)
    exported = model.export(chosen[0], out, push=push, console=terminal)
    terminal.result(exported.to_dict())
    return 0


def _placement_row(placement: Placement, chunk_s: float) -> list[str]:
    row = placement.row()
    start = row["chunk_start_s"]
    part = "-" if start is None else f"{_clock(start)} to {_clock(start + chunk_s)}"
    (genre, subgenre), fits = placement.chances[0]
    (_, second), second_fits = placement.chances[1]
    if not placement.belongs:
        often = "" if row["none_right"] is None else f"right in {percent(row['none_right'])}, "
        genre, subgenre = "-", f"none of these ({often}nearest: {subgenre})"
    figures = [f"{fits:.2f}", second, f"{second_fits:.2f}"]
    return [Path(row["path"]).name, genre, subgenre, *figures, part]


def _hit_table(hits: Sequence[Hit], ranking: str) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows, with the figure that ranks the list."""
    figure, figures = _FIGURES.get(ranking), None
    if figure:
        figures = _distinct([figure[1](hit.score) for hit in hits], down=ranking == "fits")
    cosines = ["-" if math.isnan(hit.cosine) else f"{hit.cosine:.3f}" for hit in hits]
    if ranking == "cosine" and "-" not in cosines:
        cosines = _distinct([hit.cosine for hit in hits])
    places = any(hit.before for hit in hits)
    columns = ["", "track", "subgenre", *([figure[0]] if figure else []), "cosine"]
    columns += [*(["before"] if places else []), "bpm", "key", "length"]
    rows = [
        [
            str(position),
            hit.track.name,
            hit.track.subgenre or "-",
            *([] if figures is None else [figures[position - 1]]),
            cosines[position - 1],
            *([str(hit.before)] if places else []),
            _tempo_text(hit.track),
            f"{keys.camelot(hit.track.key)} {hit.track.key}" if hit.track.key else "-",
            _clock(hit.track.duration_s) if hit.track.duration_s else "-",
        ]
        for position, hit in enumerate(hits, start=1)
    ]
    return columns, rows


def _tempo_text(track: Track) -> str:
    """Return the tempo, with the measured one beside it where the tag has another octave."""
    if not track.tempo:
        return "-"
    measured = track.tempo_bpm or track.tempo
    octave = "" if measured == track.tempo else f" (measured {measured:.0f})"
    return f"{track.tempo:.0f}{octave}"


def _distinct(values: Sequence[float], *, down: bool = False) -> list[str]:
    """Write figures with as many decimals, 3 to 8, as different ones need to look different."""
    for decimals in range(3, 9):
        scale = 10**decimals
        rounded = [math.floor(v * scale) / scale if down else v for v in values]
        texts = [f"{value:.{decimals}f}" for value in rounded]
        if len(set(texts)) == len(set(values)):
            break
    return texts


# the column of the figure that ranks a list, and how it follows from the score
_FIGURES: dict[str, tuple[str, Callable[[float], float]]] = {
    "fits": ("fits", float),
    "axis": ("position", float),
    "agreement": ("agreement", float),
    "mutual proximity": ("proximity", math.exp),
}


def _clock(seconds: float) -> str:
    """Format a time in a track: '0:30', '1:02:03'."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d}"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
