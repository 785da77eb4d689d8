"""Library -> feature folder."""

from __future__ import annotations

import os
from pathlib import Path

from subgenre.config import PreprocessConfig
from subgenre.core import workspace
from subgenre.core.progress import Console, Silent
from subgenre.core.text import counted, duration, size
from subgenre.dataset import building as room
from subgenre.dataset.building import Estimate, Summary
from subgenre.library import scan
from subgenre.library.scan import Library
from subgenre.models import backbones

TIMEOUT_S = 300.0  # for one file; a longer one counts as hung
_SHOWN = 20


def preprocess(
    source: Path = workspace.LIBRARY,
    out: Path = workspace.FEATURES,
    *,
    backbone: str,
    settings: PreprocessConfig | None = None,
    trash: Path | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> Summary:
    """Scan a library and write the features of its chunks.

    Args:
        source: folder genre/subgenre/*, a CSV, or a folder of playlists.
        out: the feature folder.
        backbone: whose features to compute; its weights are not loaded.
        settings: chunks, strategy, seed.
        trash: music of none of the subgenres.
        workers: processes; by default the cores.
        overwrite: replace features of other settings.
        console: hears how it goes.

    Raises:
        LibraryError, BackboneError, FeatureError.
    """
    console, settings = console or Silent(), settings or PreprocessConfig()
    workers = workers or cores()
    spec = backbones.feature_spec(backbone)
    with console.progress("reading tracks") as bar:
        tracks = scan.scan(
            source,
            trash=trash,
            multi=settings.multi,
            workers=workers,
            known=room.known_tracks(out, source),
            on_progress=bar,
        )
    for note in tracks.notes:
        console.warn(note)
    estimate = room.estimate(tracks, spec, settings, workers, out=None if overwrite else out)
    _announce(tracks, estimate, workers, out, console)
    _tell_weights(backbone, console)
    with console.progress("computing features") as bar:
        summary = room.preprocess(
            tracks,
            out,
            spec,
            settings,
            workers=workers,
            backbone=_findable(backbone),
            timeout_s=TIMEOUT_S,
            on_progress=bar,
            overwrite=overwrite,
        )
    _tell(summary, out, console)
    return summary


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _findable(backbone: str) -> str:
    """Return the name of a backbone, a folder as an absolute path."""
    is_folder = not backbones.is_built_in(backbone) and Path(backbone).is_dir()
    return str(Path(backbone).absolute()) if is_folder else backbone


def _announce(
    tracks: Library, estimate: Estimate, workers: int, out: Path, console: Console
) -> None:
    """Say what there is to do, and what it will take."""
    trash = f", {len(tracks.trash)} of trash" if tracks.trash else ""
    console.info(
        f"{len(tracks.tracks)} tracks of {len({(t.genre, t.subgenre) for t in tracks.tracks})} "
        f"subgenres{trash}: about {duration(estimate.seconds)} with "
        f"{workers} processes and {size(estimate.bytes)} in {out}"
    )


def _tell_weights(backbone: str, console: Console) -> None:
    """Say, before the work, what training will need beside the features."""
    if not backbones.is_at_hand(backbone):
        console.warn(
            f"`subgenre train` will need the weights of {backbone}, which are not in this "
            f"computer's cache: it fetches them from the hub, as `hf download {backbone}` does "
            "now; without the hub, preprocess with --backbone musicnn, or a folder that has them"
        )


def _tell(summary: Summary, out: Path, console: Console) -> None:
    """Say what was done and what was skipped, with the reasons."""
    for skipped in summary.skipped[:_SHOWN]:
        console.warn(f"skipped {skipped.path}: {skipped.reason}")
    if len(summary.skipped) > _SHOWN:
        console.warn(f"... and {len(summary.skipped) - _SHOWN} more")
    told = f", {counted(len(summary.skipped), 'file')} skipped ({out / 'skipped.csv'})"
    console.info(
        f"{out}: {summary.n_chunks} chunks of {summary.n_tracks} tracks, {summary.n_done} of them "
        f"new, in {duration(summary.seconds)}{told if summary.skipped else ''}"
    )
