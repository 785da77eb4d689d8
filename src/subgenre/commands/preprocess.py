"""Library -> feature folder."""

from __future__ import annotations

import os
from pathlib import Path

from subgenre.config import PreprocessConfig
from subgenre.core import workspace
from subgenre.core.progress import Silent, Talk
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
    talk: Talk | None = None,
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
        talk: hears how it goes.

    Raises:
        LibraryError, BackboneError, FeatureError.
    """
    talk, settings = talk or Silent(), settings or PreprocessConfig()
    workers = workers or cores()
    spec = backbones.feature_spec(backbone)
    with talk.progress("reading tracks") as bar:
        tracks = scan.scan(
            source,
            trash=trash,
            multi=settings.multi,
            workers=workers,
            known=room.known_tracks(out, source),
            on_progress=bar,
        )
    for note in tracks.notes:
        talk.warn(note)
    estimate = room.estimate(tracks, spec, settings, workers, out=None if overwrite else out)
    _announce(tracks, estimate, workers, out, talk)
    _tell_weights(backbone, talk)
    with talk.progress("computing features") as bar:
        summary = room.preprocess(
            tracks,
            out,
            spec,
            settings,
            workers=workers,
            timeout_s=TIMEOUT_S,
            on_progress=bar,
            overwrite=overwrite,
        )
    _tell(summary, out, talk)
    return summary


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _announce(tracks: Library, estimate: Estimate, workers: int, out: Path, talk: Talk) -> None:
    """Say what there is to do, and what it will take."""
    trash = f", {len(tracks.trash)} of trash" if tracks.trash else ""
    talk.say(
        f"{len(tracks.tracks)} tracks of {len({(t.genre, t.subgenre) for t in tracks.tracks})} "
        f"subgenres{trash}: about {duration(estimate.seconds)} with "
        f"{workers} processes and {size(estimate.bytes)} in {out}"
    )


def _tell_weights(backbone: str, talk: Talk) -> None:
    """Say, before the work, what training will need beside the features."""
    if not backbones.is_at_hand(backbone):
        talk.warn(
            f"`subgenre train` will need the weights of {backbone}, which are not in this "
            f"computer's cache: it fetches them from the hub, as `hf download {backbone}` does "
            "now; without the hub, preprocess with --backbone musicnn, or a folder that has them"
        )


def _tell(summary: Summary, out: Path, talk: Talk) -> None:
    """Say what was done and what was skipped, with the reasons."""
    for skipped in summary.skipped[:_SHOWN]:
        talk.warn(f"skipped {skipped.path}: {skipped.reason}")
    if len(summary.skipped) > _SHOWN:
        talk.warn(f"... and {len(summary.skipped) - _SHOWN} more")
    told = f", {counted(len(summary.skipped), 'file')} skipped ({out / 'skipped.csv'})"
    talk.say(
        f"{out}: {summary.n_chunks} chunks of {summary.n_tracks} tracks, {summary.n_done} of them "
        f"new, in {duration(summary.seconds)}{told if summary.skipped else ''}"
    )
