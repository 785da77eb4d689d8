"""Turn a library into a feature folder."""

from __future__ import annotations

from pathlib import Path

from subgenre.config import PreprocessConfig
from subgenre.core import files, parallel, workspace
from subgenre.core.progress import Console, Silent
from subgenre.core.shards import Shard
from subgenre.core.text import counted, duration, size
from subgenre.dataset import building as room
from subgenre.dataset.building import Estimate, Summary
from subgenre.errors import ConfigError
from subgenre.library import scan
from subgenre.library.scan import Library
from subgenre.library.uris import Maps
from subgenre.models import backbones

_SHOWN = 20  # skipped files in the terminal


def preprocess(
    source: Path = workspace.LIBRARY,
    out: Path = workspace.FEATURES,
    *,
    backbone: str,
    settings: PreprocessConfig | None = None,
    trash: Path | None = None,
    maps: Maps = (),
    workers: int | None = None,
    overwrite: bool = False,
    shard: Shard | None = None,
    console: Console | None = None,
) -> Summary:
    """Scan a library and write the features of its chunks.

    Args:
        source: folder genre/subgenre/*, a CSV, or a folder of playlists.
        out: the feature folder.
        backbone: the features are for it; its weights are not loaded.
        settings: chunks, strategy, seed.
        trash: music that belongs to no subgenre.
        maps: prefixes of paths in lists of another machine, and their folders here.
        workers: processes; by default all cores.
        overwrite: replace features of other settings.
        shard: do only its share of the files; `merge` joins the shards.
        console: receives progress and messages.

    Raises:
        LibraryError, BackboneError, FeatureError.
        ConfigError: the shards in `out` are of another job.
    """
    console, settings = console or Silent(), settings or PreprocessConfig()
    workers = parallel.worker_count(workers or None)
    spec = backbones.feature_spec(backbone)
    is_folder = not backbones.has_name(backbone) and Path(backbone).is_dir()
    backbone = str(Path(backbone).absolute()) if is_folder else backbone
    # names in the tables then do not depend on the folder in which the command runs
    source, trash = source.absolute(), trash and trash.absolute()
    if shard:
        if overwrite:
            raise ConfigError(
                f"--overwrite would delete the chunks of the other shards; delete {out} before "
                "all shards instead"
            )
        job = {
            "source": files.portable(source, out),
            "trash": files.portable(trash, out) if trash else "",
            "maps": [list(pair) for pair in maps],
            "backbone": backbone,
            "config": settings.to_dict(),
        }
        shard.join(out / workspace.SHARDS, job)
    with console.progress("reading tracks") as bar:
        tracks = scan.scan(
            source,
            trash=trash,
            multi=settings.multi,
            maps=maps,
            workers=workers,
            known=room.known_tracks(out, source, shard),
            shard=shard,
            on_progress=bar,
        )
    for note in tracks.notes:
        console.warn(note)
    kept = None if overwrite else out
    estimate = room.estimate(tracks, spec, settings, workers, out=kept, shard=shard)
    _announce(tracks, estimate, workers, out, console)
    _warn_of_missing_weights(backbone, console)
    with console.progress("computing features") as bar:
        summary = room.preprocess(
            tracks,
            out,
            spec,
            settings,
            workers=workers,
            backbone=backbone,
            on_progress=bar,
            overwrite=overwrite,
            shard=shard,
        )
    _report(summary, out, shard, console)
    return summary


def _announce(
    tracks: Library, estimate: Estimate, workers: int, out: Path, console: Console
) -> None:
    """Show the size of the library and the estimated time and space."""
    trash = f", {len(tracks.trash)} of trash" if tracks.trash else ""
    subgenres = {(track.genre, track.subgenre) for track in tracks.tracks}
    console.info(
        f"{counted(len(tracks.tracks), 'track')} of {counted(len(subgenres), 'subgenre')}{trash}: "
        f"about {duration(estimate.seconds)} with {workers} processes and "
        f"{size(estimate.bytes)} in {out}"
    )


def _warn_of_missing_weights(backbone: str, console: Console) -> None:
    """Warn before the work if training must download the weights."""
    if not backbones.is_available(backbone):
        console.warn(
            f"the weights of {backbone} are not in this computer's cache; `subgenre train` will "
            f"download them from the hub. To download them now, run `hf download {backbone}`; "
            "without access to the hub, use --backbone musicnn or a folder with the weights"
        )


def _report(summary: Summary, out: Path, shard: Shard | None, console: Console) -> None:
    """Show the result and the skipped files with their reasons."""
    for skipped in summary.skipped[:_SHOWN]:
        console.warn(f"skipped {skipped.path}: {skipped.reason}")
    if len(summary.skipped) > _SHOWN:
        console.warn(f"... and {len(summary.skipped) - _SHOWN} more")
    place, listed = (f"{out}, shard {shard}", "") if shard else (out, f" ({out / 'skipped.csv'})")
    skipped_note = f", {counted(len(summary.skipped), 'file')} skipped{listed}"
    console.info(
        f"{place}: {summary.n_chunks} chunks of {summary.n_tracks} tracks, {summary.n_done} of "
        f"them new, in {duration(summary.seconds)}{skipped_note if summary.skipped else ''}"
    )
