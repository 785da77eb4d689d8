"""Splits -> vectors of trained models -> baselines -> audits -> figures, pictures and report.

A model folder has one split. With `folds`, a model is trained for each fold, so that every track is
held out once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subgenre import config
from subgenre.about import VERSION
from subgenre.commands.model_folder import ModelFolder
from subgenre.config import TrainConfig
from subgenre.core import hardware, validation, workspace
from subgenre.core.progress import Console, Silent
from subgenre.core.text import versions
from subgenre.dataset import track_vectors
from subgenre.dataset.folder import FeatureFolder
from subgenre.dataset.splits import Split
from subgenre.dataset.splits.grouping import groups_of
from subgenre.errors import ConfigError
from subgenre.evaluation import baselines, cross_validation
from subgenre.evaluation.audits import duplicates, registry
from subgenre.evaluation.audits.base import Context, Retraining, plain
from subgenre.evaluation.audits.registry import Audited
from subgenre.evaluation.baselines import Fold
from subgenre.evaluation.tracks import EvaluationTracks, embed_tracks
from subgenre.models import encoder
from subgenre.report import fonts, maps, summary, writer
from subgenre.report.data import Backbone, ReportData
from subgenre.report.html import MAX_MB
from subgenre.report.writer import Evaluated
from subgenre.training import checkpoint, fit

OUT = Path("evaluation")
OPEN_SETS = ("frozen", "full")
_ONE_SPLIT = (
    "These figures come from one split. The command subgenre evaluate --folds 5 also measures "
    "pairs, learning curve, confounders and leakage."
)
_TEST_RUN = (
    "This model comes from a test run (a few tracks, one epoch): its figures show that the "
    "program works, not what a model can learn."
)

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class _Models:
    """The splits of a library, and the models trained on them.

    Attributes:
        out: folder of the evaluation.
        splits, trained, pooled: for each model its split, its vectors of all tracks [N, D], and the
            output of the frozen backbone for all chunks [n, H].
        train_s: mean seconds of a training.
        fingerprint: of the trained models.
    """

    tracks: EvaluationTracks
    settings: TrainConfig
    out: Path
    splits: Sequence[Split]
    trained: Sequence[Floats]
    pooled: Sequence[NDArray[np.float32]]
    backbone: Backbone
    history: tuple[dict[str, Any], ...]
    train_s: float
    fingerprint: str
    is_test_run: bool = False


@dataclass(frozen=True)
class _Found:
    """What an evaluation measures.

    Attributes:
        folds, repeats: 0 for a model's own split.
        sides: tracks by the name of their side. vectors: of all tracks [N, D] or NaN.
    """

    folds: int
    repeats: int
    scored: Sequence[Fold]
    scores: baselines.Scores
    sides: dict[str, Ints]
    vectors: Floats
    audited: Audited
    warnings: list[str]


def evaluate(
    run: Path | None = None,
    *,
    features: Path | None = None,
    settings: TrainConfig | None = None,
    folds: int = 0,
    repeats: int = 1,
    out: Path = OUT,
    max_mb: float = MAX_MB,
    quick: bool = False,
    open_set: str = "frozen",
    workers: int | None = None,
    console: Console | None = None,
) -> Evaluated:
    """Score a model, or with `folds` a recipe, on held-out tracks, and write what was found.

    Writes `metrics.json`, `report.html`, `map.png`, `confusion.png`, `doctor.csv`,
    `embeddings.parquet` and the model card: into the model folder, or with `folds` into `out`,
    beside the vectors of each fold. An evaluation that was stopped continues there.

    Args:
        run: the model folder, by default the newest; not with `folds`.
        features: where the model's features are now, if they have moved; with `folds`, what
            `preprocess` wrote.
        settings: with `folds`, the recipe; by default `thesis`.
        folds, repeats: every track is held out once a repeat; 0 folds: the model's own split.
        max_mb: size of the audio in the report, megabytes.
        quick: only the figures, no audits.
        open_set: `frozen` vectors for the rejection of unknown subgenres, or with `folds` `full`:
            the model is also trained without each subgenre.
        workers: parallel trainings; by default one for each core.

    Raises:
        RunError, FeatureError, SplitError, BackboneError, TrainingError: as in training.
        RunError: `out` holds an evaluation of other settings or data.
        ConfigError: a bad option. EvaluationError: nothing can be scored.
    """
    console = console or Silent()
    if folds:
        if repeats < 1:
            raise ConfigError(f"repeats is {repeats}; give 1 or more")
        validation.check_choice("open_set", open_set, OPEN_SETS)
        settings = settings or config.load_recipe("thesis")
        folder = FeatureFolder.open(features or workspace.FEATURES)
        models = _train_folds(folder, settings, folds, repeats, out, workers, console)
    else:
        repeats = 0
        models = _read_model(
            ModelFolder.open(run, console, features=features, vectors=False), console
        )

    console.info("scoring the held-out tracks")
    tracks, seed = models.tracks, models.settings.run.seed
    scored = [
        tracks.fold(split, trained, pooled, seed=seed)
        for split, trained, pooled in zip(models.splits, models.trained, models.pooled, strict=True)
    ]
    scores = baselines.score(scored, tracks.labels, genres=tracks.genres, ids=tracks.ids, seed=seed)
    sides, vectors = _evaluated(scored) if folds else _both_sides(scored[0])
    audited = Audited({}, (), ())
    if not quick:
        retrain_in = models.out / "open_set" if open_set == "full" else None
        context = _context(
            models, scored, scores, vectors, folds, repeats, retrain_in, workers, console
        )
        audited = registry.run_all(context)
    warnings = _warnings(models, scores, audited, console)
    found = _Found(folds, repeats, scored, scores, sides, vectors, audited, warnings)

    track_vectors.write_embeddings(
        models.out / workspace.EMBEDDINGS,
        [tracks.folder.tracks[i] for side in sides.values() for i in side],
        np.concatenate([vectors[side] for side in sides.values()]),
        split=[name for name, side in sides.items() for _ in side],
        fingerprint=models.fingerprint,
    )
    console.info("drawing map and report")
    figures, data = _figures(models, found), _report_data(models, found)
    writer.write(models.out, figures, data, max_mb=max_mb, console=console)
    if "doctor" in audited.results:
        writer.write_doctor(models.out / workspace.DOCTOR, audited.results["doctor"])
    console.info(f"report: {models.out / workspace.REPORT}")
    return Evaluated(models.out, figures, summary.sentences(data))


def _warnings(
    models: _Models, scores: baselines.Scores, audited: Audited, console: Console
) -> list[str]:
    """Return what limits the figures; the console shows what it has not shown before."""
    folder = models.tracks.folder
    unreadable = fonts.note((*folder.labels, *folder.genres))
    new = [text for text in (_TEST_RUN if models.is_test_run else "", unreadable) if text]
    for text in new:
        console.warn(text)
    of_splits = dict.fromkeys(text for split in models.splits for text in split.warnings)
    return [*of_splits, *scores.notes, *new, *audited.notes]


def _figures(models: _Models, found: _Found) -> dict[str, Any]:
    """Return the content of `metrics.json`."""
    scored = found.scored
    figures = {
        "format_version": writer.FORMAT_VERSION,
        "models": plain(found.scores.scores),
        "comparisons": plain(found.scores.comparisons),
        "n_tracks": len(np.unique(np.concatenate([[*f.train, *f.test] for f in scored]))),
        "folds": found.folds,
        "repeats": found.repeats,
        "train_s": models.train_s,
        "grouped_by": list(models.splits[0].grouped_by),
        "warnings": found.warnings,
        "audits": plain(found.audited.results),
        "fingerprint": models.tracks.folder.fingerprint,
        "seed": models.settings.run.seed,
        "versions": versions(),
    }
    if not found.folds:
        figures |= {"n_train": len(scored[0].train), "n_test": len(scored[0].test)}
        figures["encoder"] = models.fingerprint
    return figures


def _report_data(models: _Models, found: _Found) -> ReportData:
    """Return what the report and the model card show."""
    tracks, folder = models.tracks, models.tracks.folder
    predicted, confusion = baselines.out_of_fold(found.scored, tracks.labels, len(folder.labels))
    return ReportData(
        title=models.out.resolve().name,
        made=f"subgenre {VERSION}",
        n_train=int(np.median([len(fold.train) for fold in found.scored])),
        n_test=len(found.sides["test"]),
        folds=found.folds,
        repeats=found.repeats,
        models=found.scores.scores,
        comparisons=found.scores.comparisons,
        labels=tuple(folder.labels),
        genres=tuple(folder.genres),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        **_map(tracks, found.sides, found.vectors, predicted, models.settings.run.seed),
        history=models.history,
        settings=validation.to_dict(models.settings),
        versions=versions(),
        fingerprint=folder.fingerprint,
        split_by=", ".join(models.splits[0].grouped_by),
        warnings=(*found.warnings, *(() if found.folds else (_ONE_SPLIT,))),
        skipped=writer.n_skipped(tracks),
        backbone=models.backbone,
        sections=found.audited.sections,
    )


def _context(
    models: _Models,
    scored: Sequence[Fold],
    scores: baselines.Scores,
    vectors: Floats,
    folds: int,
    repeats: int,
    retrain_in: Path | None,
    workers: int | None,
    console: Console,
) -> Context:
    """Return what the audits read; with `retrain_in`, where they keep models that they train."""
    tracks = models.tracks
    frozen = tracks.means(models.pooled[0])
    if folds:
        copies = duplicates.search(tracks.folder.tracks, frozen, console)
    else:
        copies = duplicates.find(tracks.folder.tracks, frozen)
    return Context(
        tracks=tracks.folder.tracks,
        labels=tracks.labels,
        names=tracks.folder.labels,
        genres=tracks.genres,
        groups=groups_of(tracks.folder.tracks, models.splits[0].grouped_by),
        columns=tracks.columns,
        frozen=frozen,
        chunks=np.asarray(models.pooled[0][tracks.rows], dtype=np.float64),
        chunk_track=tracks.track_of,
        folds=scored,
        vectors=vectors,
        copies=copies,
        chance=scores.scores["trained"]["centroid_accuracy"].chance,
        n_folds=folds,
        repeats=repeats,
        seed=models.settings.run.seed,
        retraining=Retraining(tracks.folder, models.settings, retrain_in, workers)
        if retrain_in
        else None,
        console=console,
    )


def _read_model(run: ModelFolder, console: Console) -> _Models:
    """Embed both sides of a model's own split."""
    tracks, device = EvaluationTracks(run.features), run.settings.run.device
    pooled = tracks.pooled(run.frozen_encoder, device, console)
    rows = [run.features.rows(side) for side in (run.split.train, run.split.test)]
    numbers, embedded = embed_tracks(
        run.encoder,
        run.features,
        np.concatenate(rows),
        device=hardware.pick_device(device),
        pooled=pooled if run.settings.model.tune == "head" else None,
    )
    vectors = np.zeros((len(tracks.ids), embedded.shape[1]), dtype=np.float32)
    vectors[numbers] = embedded
    backbone = run.frozen_encoder.backbone
    return _Models(
        tracks=tracks,
        settings=run.settings,
        out=run.path,
        splits=[run.split],
        trained=[vectors],
        pooled=[pooled],
        backbone=Backbone(run.settings.model.backbone, backbone.licence, backbone.source),
        history=run.history,
        train_s=run.data.get("train_s", 0.0),
        fingerprint=encoder.fingerprint(run.encoder),
        is_test_run=run.is_test_run,
    )


def _train_folds(
    folder: FeatureFolder,
    settings: TrainConfig,
    folds: int,
    repeats: int,
    out: Path,
    workers: int | None,
    console: Console,
) -> _Models:
    """Train a model on each fold of each repeat, or read what is already trained."""
    backbone = fit.load_backbone(settings.model.backbone, folder, settings.run, console)
    settings = config.replace(settings, "run", engine=backbone.engine)
    jobs = cross_validation.plan(folder, settings, folds=folds, repeats=repeats, out=out)
    splits = [job.split for job in jobs]
    for warning in dict.fromkeys(warning for split in splits for warning in split.warnings):
        console.warn(warning)
    tracks = EvaluationTracks(folder)

    def pooled(split: Split, console: Console) -> NDArray[np.float32]:
        rows = folder.rows(split.train)
        frozen = fit.new_encoder(backbone, settings.model, folder, rows, settings.run.seed)
        return tracks.pooled(frozen, settings.run.device, console)

    first = pooled(splits[0], console)  # the trainings read it from the cache
    console.info(f"{len(jobs)} trainings with the recipe '{settings.recipe}'")
    results = cross_validation.train_all(jobs, workers=workers, console=console)
    normalised = folder.spec.normalise != "none"  # by statistics that differ between folds
    return _Models(
        tracks=tracks,
        settings=settings,
        out=out,
        splits=splits,
        trained=[result.vectors for result in results],
        pooled=[pooled(split, Silent()) if normalised else first for split in splits],
        backbone=Backbone(settings.model.backbone, backbone.licence, backbone.source),
        history=cross_validation.mean_history(results),
        train_s=float(np.mean([result.seconds for result in results])),
        fingerprint=checkpoint.digest([job.fingerprint for job in jobs]),
    )


def _evaluated(folds: Sequence[Fold]) -> tuple[dict[str, Ints], Floats]:
    """Return the held-out tracks of all folds, and the vectors of all tracks [N, D] or NaN."""
    vectors = baselines.aligned(folds)
    return {"test": np.flatnonzero(np.isfinite(vectors[:, 0]))}, vectors


def _both_sides(fold: Fold) -> tuple[dict[str, Ints], Floats]:
    """Return the training and test tracks, and the vectors of all tracks [N, D] or NaN."""
    sides = {"train": fold.train, "test": fold.test}
    vectors = np.full_like(fold.vectors["trained"], np.nan)
    for side in sides.values():
        vectors[side] = fold.vectors["trained"][side]
    return sides, vectors


def _map(
    tracks: EvaluationTracks, sides: dict[str, Ints], vectors: Floats, predicted: Ints, seed: int
) -> dict[str, Any]:
    """Fit the map on the first side, or a sample of it, and place the other tracks on it."""
    first = next(iter(sides.values()))
    rows = first[maps.fitted_rows(len(first), seed)]
    fitted = maps.fit_map(vectors[rows], seed)
    points = []
    for name, side in sides.items():
        coordinates = fitted.place(vectors[side])
        coordinates[np.isin(side, rows)] = fitted.coordinates[np.isin(rows, side)]
        known = predicted if name == "test" else None
        points += writer.points(tracks, side, coordinates, name, known)
    return {"map": fitted, "points": tuple(points)}
