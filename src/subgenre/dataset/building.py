"""A library to a feature folder: in parallel, each window decoded once, resumable after a kill.

A track is known by its id, the hash of its audio packets, and by its label: what is done under the
same settings is not done again, however the file was retagged or renamed. The parent process writes
one line of the journal a finished track and the tables at the end, in sorted order; so the result
depends neither on the number of workers nor on interruptions.
"""

from __future__ import annotations

import csv
import io
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from subgenre.about import VERSION
from subgenre.audio.features import FeatureSpec
from subgenre.config import PreprocessConfig
from subgenre.core import files, parallel
from subgenre.dataset import chunking, feature_tables, folder, planning
from subgenre.dataset.chunking import Job, Outcome
from subgenre.dataset.journal import Journal
from subgenre.dataset.planning import JOURNAL, Estimate, Plan, Row, estimate, known_tracks
from subgenre.errors import FeatureError
from subgenre.library.scan import Library, Skipped

__all__ = ["Estimate", "Summary", "estimate", "known_tracks", "preprocess"]

TIMEOUT_S = 300.0  # of one track


@dataclass(frozen=True)
class Summary:
    """What was done.

    Attributes:
        n_tracks: in the feature folder, trash included: `n_done` now and `n_reused` from before.
        n_chunks: in the feature folder.
        skipped: files without chunks, with the reason, by path.
        seconds: taken.
    """

    n_tracks: int
    n_done: int
    n_reused: int
    n_chunks: int
    skipped: tuple[Skipped, ...]
    seconds: float


def preprocess(
    library: Library,
    out: Path,
    spec: FeatureSpec,
    config: PreprocessConfig,
    *,
    workers: int,
    backbone: str = "",
    timeout_s: float = TIMEOUT_S,
    on_progress: Callable[[int, int], None] | None = None,
    overwrite: bool = False,
) -> Summary:
    """Make or complete the feature folder `out`.

    A file that can't be used is listed in `skipped.csv` with its reason and stops nothing.
    A track that takes more than `timeout_s` seconds is given up. `on_progress` gets the number of
    tracks done and of all tracks. `backbone` is recorded for the commands that follow.

    Raises:
        FeatureError: `out` holds features of other settings (unless `overwrite`), the disk is too
            full, or not one track can be used.
    """
    began = time.monotonic()
    out = Path(out)
    settings = planning.settings_of(spec, config)
    known = planning.read_known(out, settings, overwrite=overwrite)
    plan = planning.make_plan(library, out, spec, config, known)
    planning.check_space(out, plan.jobs, spec, config)
    n_reused = len(plan.rows)
    _work(plan, out, settings, workers, timeout_s, on_progress)
    rows = _sorted_rows(plan)
    skipped = _all_skipped(plan, library)
    planning.clear(out, known, {row["file"] for row in rows})
    if not rows:
        write_skipped(out / folder.SKIPPED, skipped, library.root)
        raise FeatureError(f"not one track can be used; {out / folder.SKIPPED} lists the reasons")
    _write_tables(plan, library, out, {"backbone": backbone, **settings}, rows, skipped)
    (out / JOURNAL).unlink(missing_ok=True)
    seconds, n_tracks = time.monotonic() - began, len(plan.rows)
    return Summary(n_tracks, n_tracks - n_reused, n_reused, len(rows), tuple(skipped), seconds)


def write_skipped(path: Path, skipped: Iterable[Skipped], root: Path) -> None:
    """Write `skipped.csv`: path (relative to `root` where inside it) and reason."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "reason"])
    writer.writerows(
        [feature_tables.path_to_text(item.path, root), item.reason] for item in skipped
    )
    files.write_text(path, text.getvalue().encode("utf-8", "replace").decode("utf-8"))


def _work(
    plan: Plan,
    out: Path,
    settings: Mapping[str, Any],
    workers: int,
    timeout_s: float,
    on_progress: Callable[[int, int], None] | None,
) -> None:
    """Do the jobs; the journal has each track before it counts as done.

    A worker that died or hung may do better next time, so that reason is not kept in the journal.
    """
    total, finished = len(plan.tracks), len(plan.tracks) - len(plan.jobs)
    if on_progress:
        on_progress(finished, total)
    if not plan.jobs:
        return
    with Journal(out / JOURNAL, settings) as journal:
        for position, outcome in parallel.map_files(
            chunking.make_chunks,
            plan.jobs,
            workers=workers,
            timeout_s=timeout_s,
            initializer=chunking.start_worker,
        ):
            _record(plan, plan.jobs[position], outcome, journal)
            finished += 1
            if on_progress:
                on_progress(finished, total)


def _record(plan: Plan, job: Job, outcome: Outcome | parallel.Failure, journal: Journal) -> None:
    key = (job.track, job.label)
    if isinstance(outcome, parallel.Failure):
        chunking.remove(job)
        plan.skipped.append(Skipped(job.path, outcome.reason))
        return
    if outcome.rows:
        plan.rows[key] = list(outcome.rows)
    else:
        plan.reasons[key] = outcome.reason
    entry = {"track": job.track, "label": job.label}
    journal.append({**entry, "rows": list(outcome.rows), "reason": outcome.reason})


def _sorted_rows(plan: Plan) -> list[Row]:
    """All chunk rows: by label, id and index, the trash last."""
    rows = [row for key in plan.tracks for row in plan.rows.get(key, [])]
    return sorted(rows, key=lambda r: (not r["label"], r["label"], r["track"], r["index"]))


def _all_skipped(plan: Plan, library: Library) -> list[Skipped]:
    failed = [Skipped(plan.tracks[key].path, reason) for key, reason in plan.reasons.items()]
    return sorted([*library.skipped, *plan.skipped, *failed], key=lambda s: (str(s.path), s.reason))


def _write_tables(
    plan: Plan,
    library: Library,
    out: Path,
    settings: Mapping[str, Any],
    rows: list[Row],
    skipped: list[Skipped],
) -> None:
    """Write the four tables; `dataset.json` comes last and makes the folder valid."""
    used = list(dict.fromkeys((row["track"], row["label"]) for row in rows))
    tracks = [plan.tracks[key] for key in used]
    present = {label for _, label in used}
    labels = [(f, g, s) for (g, s), f in plan.folders.items() if f in present]
    n_trash = sum(track.trash for track in tracks)
    failures = sorted((*key, reason) for key, reason in plan.reasons.items())
    dataset = folder.dataset_json(
        root=library.root.absolute(),
        settings=settings,
        labels=labels,
        rows=rows,
        n_tracks=len(tracks) - n_trash,
        n_trash=n_trash,
        n_skipped=len(skipped),
        failures=[{"track": t, "label": label, "reason": why} for t, label, why in failures],
        versions=_versions(),
    )
    feature_tables.write_chunks(out, rows)
    feature_tables.write_tracks(out, tracks, library.root)
    write_skipped(out / folder.SKIPPED, skipped, library.root)
    files.write_json(out / folder.DATASET, dataset)


def _versions() -> dict[str, str]:
    found = {name: metadata.version(name) for name in ("av", "numpy", "soxr", "torch")}
    return {"subgenre": VERSION, "python": platform.python_version(), **found}
