"""Model folder -> figures, pictures and report beside it, from its one split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from subgenre.about import VERSION
from subgenre.commands.model_folder import ModelFolder
from subgenre.core import hardware, validation, workspace
from subgenre.core.progress import Console, Silent
from subgenre.core.text import versions
from subgenre.evaluation import baselines, scores
from subgenre.evaluation.audits import duplicates, sections
from subgenre.evaluation.audits import run as audits
from subgenre.evaluation.audits.run import Audited
from subgenre.evaluation.baselines import Fold, Ladder
from subgenre.evaluation.scores import Scored
from subgenre.evaluation.tracks import Material
from subgenre.models import embedding, encoder
from subgenre.models.encoder import Encoder
from subgenre.report import maps, writer
from subgenre.report.data import Backbone as Origin
from subgenre.report.data import ReportData
from subgenre.report.html import MAX_MB
from subgenre.report.writer import Evaluated
from subgenre.training import fit

VIEWED = ("frozen", "probe", "trained")  # rungs that are scored by genre too
_MORE = (
    "These figures come from one split. Run `subgenre evaluate --folds 5` to measure pairs, "
    "learning curve, confounders, leakage and unknown subgenres too."
)
_TEST_RUN = (
    "This model comes from a test run (a few tracks, one epoch): its figures show that the "
    "program works, not what a model can learn."
)


def evaluate(
    run: Path | None = None,
    *,
    features: Path | None = None,
    max_mb: float = MAX_MB,
    quick: bool = False,
    console: Console | None = None,
) -> Evaluated:
    """Score a model on its held-out tracks and write what was found into its folder.

    Writes `metrics.json`, `report.html`, `map.png`, `confusion.png`, `doctor.csv`,
    `embeddings.parquet` and the model card.

    Args:
        run: the model folder; by default the newest.
        features: where its features are now, if they have moved.
        max_mb: size of the sound inside the report, megabytes.
        quick: leave out the levels of genre, hubs and the doctor.
        console: hears how it goes.

    Raises:
        RunError, FeatureError, SplitError, EvaluationError.
    """
    console = console or Silent()
    opened = ModelFolder.open(run, console, features=features, vectors=False)
    material = Material(opened.features, opened.features.path / fit.CACHE)
    frozen = opened.frozen_encoder
    pooled, scored = _vectors(opened, frozen, console)
    seed = opened.settings.run.seed
    fold = material.fold(opened.split, _trained(scored, len(material.ids)), pooled, seed=seed)
    console.info("scoring the held-out tracks")
    found = _ladder(material, [fold], seed=seed)
    audited = Audited(notes=list(found.notes))
    if opened.is_test_run:
        audited.notes.append(_TEST_RUN)
        console.warn(_TEST_RUN)
    if not quick:
        _audit(audited, material, fold, pooled, seed)
    figures = _figures(opened, found, audited)
    _write_vectors(opened, scored)
    console.info("drawing map and report")
    origin = Origin(opened.settings.model.backbone, frozen.backbone.licence, frozen.backbone.source)
    data = _report_data(opened, material, fold, found, audited, origin)
    writer.write(opened.path, figures, data, max_mb=max_mb)
    if not quick:
        writer.write_doctor(opened.path / workspace.DOCTOR, audited.findings)
    console.info(f"report: {opened.path / workspace.REPORT}")
    return Evaluated(opened.path, figures)


def _vectors(
    run: ModelFolder, frozen: Encoder, console: Console
) -> tuple[NDArray[np.float32], Scored]:
    """Run the backbone as it was before training over all chunks, and the model over its tracks."""
    device, folder = hardware.pick_device(run.settings.run.device), run.features
    with console.progress("backbone") as bar:
        pooled = embedding.pooled_vectors(
            frozen,
            folder,
            np.arange(len(folder.track_of)),
            cache=folder.path / fit.CACHE,
            device=device,
            on_progress=bar,
        )
    scored = scores.sides(
        folder,
        run.split,
        run.encoder,
        pooled,
        device=device,
        head_only=run.settings.model.tune == "head",
    )
    return pooled, scored


def _trained(scored: Scored, n_tracks: int) -> NDArray[np.float32]:
    """Put the model's vectors of both sides into rows by track number; the rest is zero."""
    width = scored.train.vectors["trained"].shape[1]
    rows = np.zeros((n_tracks, width), dtype=np.float32)
    for side in (scored.train, scored.test):
        rows[side.tracks] = side.vectors["trained"]
    return rows


def _ladder(material: Material, folds: list[Fold], *, seed: int) -> Ladder:
    return baselines.ladder(
        folds, material.labels, genres=material.genres, ids=material.ids, seed=seed
    )


def _audit(
    found: Audited, material: Material, fold: Fold, pooled: NDArray[np.float32], seed: int
) -> None:
    """Add what one split can show: genres, hubs; and the doctor, whose probes are its own."""
    means = material.means(pooled)
    by_view = {}
    for view in sections.VIEWS:
        told = baselines.ladder(
            [fold],
            material.labels,
            genres=material.genres,
            ids=material.ids,
            view=view,
            only=VIEWED,
            seed=seed,
        )
        by_view[view] = told.scores
    found.plain["views"] = {view: writer.plain_scores(told) for view, told in by_view.items()}
    found.sections.append(sections.views(by_view))
    both = np.sort(np.concatenate([fold.train, fold.test]))
    audits.add_hubs(found, material, np.asarray(fold.vectors["trained"], np.float64), both)
    same = duplicates.find(material.folder.tracks, means)
    n_folds = min(audits.FOLDS, int(np.bincount(material.labels).max()))
    judged = audits.repeated(material, n_folds, audits.DOCTOR_REPEATS, seed)
    audits.add_doctor(found, material, means, judged, same)


def _figures(run: ModelFolder, found: Ladder, audited: Audited) -> dict[str, Any]:
    """Build `metrics.json`."""
    return {
        "format_version": writer.FORMAT_VERSION,
        "models": writer.plain_scores(found.scores),
        "n_tracks": len(run.split.train) + len(run.split.test),
        "n_train": len(run.split.train),
        "n_test": len(run.split.test),
        "folds": 0,
        "repeats": 0,
        "train_s": run.data["train_s"],
        "grouped_by": list(run.split.grouped_by),
        "warnings": [*run.split.warnings, *audited.notes],
        "audits": audited.plain,
        "fingerprint": run.features.fingerprint,
        "seed": run.settings.run.seed,
        "versions": versions(),
    }


def _write_vectors(run: ModelFolder, scored: Scored) -> None:
    """Keep the vectors of both sides in the model folder."""
    numbers = [*scored.train.tracks, *scored.test.tracks]
    vectors = np.concatenate([scored.train.vectors["trained"], scored.test.vectors["trained"]])
    sides = ["train"] * len(scored.train.tracks) + ["test"] * len(scored.test.tracks)
    embedding.write_embeddings(
        run.path / workspace.EMBEDDINGS,
        scores.tracks_of(run.features, numbers),
        vectors,
        split=sides,
        fingerprint=encoder.fingerprint(run.encoder),
    )


def _report_data(
    run: ModelFolder,
    material: Material,
    fold: Fold,
    found: Ladder,
    audited: Audited,
    origin: Origin,
) -> ReportData:
    """Gather what the report of a single split shows."""
    folder, vectors = run.features, fold.vectors["trained"]
    taken = baselines.out_of_fold([fold], material.labels)
    matrix = np.zeros((len(folder.labels),) * 2, dtype=np.int64)
    matrix[: len(taken.confusion), : len(taken.confusion)] = taken.confusion
    fitted = maps.fit_map(vectors[fold.train], run.settings.run.seed)
    places = fitted.place(vectors[fold.test])
    points = [
        *writer.points(material, fold.train, fitted.coordinates, "train", None),
        *writer.points(material, fold.test, places, "test", taken.predicted),
    ]
    return ReportData(
        title=run.path.name,
        made=f"subgenre {VERSION}",
        n_train=len(fold.train),
        n_test=len(fold.test),
        models=found.scores,
        labels=tuple(folder.labels),
        genres=tuple(folder.genres),
        confusion=tuple(tuple(int(n) for n in row) for row in matrix),
        points=tuple(points),
        map=fitted,
        history=_history(run.path),
        settings=validation.to_dict(run.settings),
        versions=versions(),
        fingerprint=folder.fingerprint,
        split_by=", ".join(run.split.grouped_by),
        warnings=(*run.split.warnings, *audited.notes, _MORE),
        skipped=writer.n_skipped(material),
        backbone=origin,
        sections=tuple(audited.sections),
    )


def _history(run: Path) -> tuple[dict[str, Any], ...]:
    return tuple(pq.read_table(run / workspace.HISTORY).to_pylist())
