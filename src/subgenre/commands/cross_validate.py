"""Feature folder -> figures over folds and repeats, one training a fold, and the whole report."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from subgenre import config
from subgenre.about import VERSION
from subgenre.commands.evaluate import VIEWED
from subgenre.config import TrainConfig
from subgenre.core import files, hardware, validation, workspace
from subgenre.core.progress import Console, Silent
from subgenre.core.text import versions
from subgenre.dataset import splits
from subgenre.dataset.folder import FeatureFolder
from subgenre.dataset.splits import Split
from subgenre.errors import ConfigError, EvaluationError, RunError
from subgenre.evaluation import baselines, rejection
from subgenre.evaluation import cross_validation as folds
from subgenre.evaluation.audits import run, sections
from subgenre.evaluation.audits.probe import Fold as Positions
from subgenre.evaluation.audits.run import Audited
from subgenre.evaluation.baselines import Fold, Ladder
from subgenre.evaluation.cross_validation import FoldResult, Job
from subgenre.evaluation.tracks import Material
from subgenre.models import embedding
from subgenre.models.backbones import Backbone
from subgenre.report import maps, writer
from subgenre.report.data import Backbone as Origin
from subgenre.report.data import ReportData
from subgenre.report.html import MAX_MB
from subgenre.report.writer import Evaluated
from subgenre.training import checkpoint, fit

OUT = Path("evaluation")
MANIFEST, FOLDS = "evaluation.json", "folds"
OPEN_SETS = ("frozen", "full")


@dataclass(frozen=True)
class Plan:
    """What is evaluated: features, recipe, and every split with its training."""

    folder: FeatureFolder
    settings: TrainConfig
    folds: int
    repeats: int
    out: Path
    jobs: tuple[Job, ...]

    @property
    def seed(self) -> int:
        """Of splits, trainings and figures."""
        return self.settings.run.seed


def evaluate_folds(
    features: Path = workspace.FEATURES,
    settings: TrainConfig | None = None,
    *,
    folds: int = 5,
    repeats: int = 1,
    out: Path = OUT,
    max_mb: float = MAX_MB,
    quick: bool = False,
    open_set: str = "frozen",
    workers: int | None = None,
    console: Console | None = None,
) -> Evaluated:
    """Train once a fold, score what each model had not heard, and write the whole report.

    Writes into `out` what `evaluate` writes beside a model, and each fold's vectors: an evaluation
    that was stopped goes on, one with other settings or data is refused.

    Args:
        features: as `preprocess` wrote them. settings: by default the recipe `thesis`.
        folds, repeats: every track is held out once a repeat.
        max_mb: size of the sound inside the report, megabytes.
        quick: the figures alone, no audits.
        open_set: `frozen` vectors for the rejection of unknown subgenres, or `full`: the model
            trained anew without each subgenre.
        workers: trainings side by side; by default as many as there are cores.

    Raises:
        FeatureError, SplitError, BackboneError, TrainingError: as in training.
        RunError: `out` holds an evaluation of other settings or data.
        ConfigError: numbers that make no sense. EvaluationError: nothing can be scored.
    """
    console = console or Silent()
    if repeats < 1:
        raise ConfigError(f"repeats is {repeats}; give 1 or more")
    validation.check_choice("open_set", open_set, OPEN_SETS)
    plan = _plan(features, settings or config.load_recipe("thesis"), folds, repeats, out)
    for warning in dict.fromkeys(w for job in plan.jobs for w in job.split.warnings):
        console.warn(warning)
    backbone = fit.load_backbone(plan.settings.model.backbone, plan.folder)
    material = Material(plan.folder, plan.folder.path / fit.CACHE)
    first = _pooled(plan, backbone, plan.jobs[0].split, console)  # before the trainings want it
    results = _train(plan, workers, console)
    console.info("scoring the held-out tracks")
    scored = _folds(plan, material, backbone, first, results)
    found = baselines.ladder(
        scored, material.labels, genres=material.genres, ids=material.ids, seed=plan.seed
    )
    audited = Audited(notes=list(found.notes))
    if not quick:
        _audit(audited, plan, material, scored, first, console)
        if open_set == "full":
            rejection.add(audited, material, plan.settings, scored[0], plan.out, workers, console)
    return _write(plan, material, scored, found, audited, results, backbone, max_mb, console)


def _plan(features: Path, settings: TrainConfig, n_folds: int, repeats: int, out: Path) -> Plan:
    """Draw the folds and describe their trainings; `out` is theirs from here on."""
    folder = FeatureFolder.open(features)
    jobs = []
    for repeat in range(repeats):
        seed = settings.run.seed + repeat
        drawn = splits.folds(
            folder.tracks, n_folds, seed=seed, strict_groups=settings.run.strict_groups
        )
        for number, split in enumerate(drawn):
            name = f"fold {number + 1} of {n_folds}"
            name += f", repeat {repeat + 1} of {repeats}" if repeats > 1 else ""
            path = out / FOLDS / f"repeat{repeat}_fold{number}.npz"
            seeded = config.replace(settings, "run", seed=seed)
            jobs.append(folds.job(name, folder, seeded, split, path))
    _claim(out, folder, settings, n_folds)
    return Plan(folder, settings, n_folds, repeats, out, tuple(jobs))


def _claim(out: Path, folder: FeatureFolder, settings: TrainConfig, n_folds: int) -> None:
    """Write what `out` holds, or check that it is this; more repeats may be added later.

    Raises:
        RunError: something else is in it.
    """
    plain = validation.to_dict(settings)
    plain["run"] = {k: v for k, v in plain["run"].items() if k not in ("device", "save_every")}
    told = {
        "format_version": 1,
        "configuration": checkpoint.digest(plain),
        "data": folder.fingerprint,
        "folds": n_folds,
    }
    path = out / MANIFEST
    if path.is_file():
        known = files.read_json(path, version=1, error=RunError)
        other = [name for name, value in told.items() if known.get(name) != value]
        if other:
            raise RunError(
                f"{out} holds an evaluation with another {other[0]}; "
                "name another folder with --out, or remove it"
            )
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out} exists and holds no evaluation; name another with --out")
    files.write_json(path, told)


def _pooled(plan: Plan, backbone: Backbone, split: Split, console: Console) -> NDArray[np.float32]:
    """Run the backbone as it is before training over all chunks, or read that from its cache."""
    rows = plan.folder.rows(split.train)
    encoder = fit.new_encoder(backbone, plan.settings.model, plan.folder, rows, plan.seed)
    with console.progress("backbone") as bar:
        return embedding.pooled_vectors(
            encoder,
            plan.folder,
            np.arange(len(plan.folder.track_of)),
            cache=plan.folder.path / fit.CACHE,
            device=hardware.pick_device(plan.settings.run.device),
            on_progress=bar,
        )


def _train(plan: Plan, workers: int | None, console: Console) -> list[FoldResult]:
    console.info(f"{len(plan.jobs)} trainings with the recipe '{plan.settings.recipe}'")
    return folds.train_all(plan.jobs, workers=workers, console=console)


def _folds(
    plan: Plan,
    material: Material,
    backbone: Backbone,
    first: NDArray[np.float32],
    results: Sequence[FoldResult],
) -> list[Fold]:
    """Gather every rung's vectors, fold by fold."""
    normalised = plan.folder.spec.normalise != "none"  # then the statistics differ by fold
    found = []
    for job, result in zip(plan.jobs, results, strict=True):
        pooled = _pooled(plan, backbone, job.split, Silent()) if normalised else first
        found.append(material.fold(job.split, result.vectors, pooled, seed=plan.seed))
    return found


def _audit(
    found: Audited,
    plan: Plan,
    material: Material,
    scored: Sequence[Fold],
    pooled: NDArray[np.float32],
    console: Console,
) -> None:
    """Run all audits; what can't be done costs a note."""
    means = material.means(pooled)
    positions: list[Positions] = [(fold.train, fold.test) for fold in scored]
    console.info("scores within and across genres")
    by_view = {
        view: baselines.ladder(
            scored,
            material.labels,
            genres=material.genres,
            ids=material.ids,
            view=view,
            only=VIEWED,
            seed=plan.seed,
        ).scores
        for view in sections.VIEWS
    }
    found.plain["views"] = {view: writer.plain_scores(told) for view, told in by_view.items()}
    found.sections.append(sections.views(by_view))
    same = run.copies(material, means, console)
    console.info("pairs of subgenres")
    trained = [fold.vectors["trained"] for fold in scored]
    run.add_pairs(found, material, means, positions, trained, seed=plan.seed)
    console.info("leakage, learning curve, confounders, rejection")
    run.add_frozen(found, material, pooled, means, positions, same, seed=plan.seed)
    console.info("the doctor, and who is recommended to whom")
    repeats = max(plan.repeats, run.DOCTOR_REPEATS)
    judged = run.repeated(material, plan.folds, repeats, plan.seed)
    run.add_doctor(found, material, means, judged, same)
    held = baselines.aligned(scored)
    run.add_hubs(found, material, held, np.flatnonzero(np.isfinite(held[:, 0])))


def _write(
    plan: Plan,
    material: Material,
    scored: Sequence[Fold],
    found: Ladder,
    audited: Audited,
    results: Sequence[FoldResult],
    backbone: Backbone,
    max_mb: float,
    console: Console,
) -> Evaluated:
    """Write all files of the evaluation."""
    warnings = list(dict.fromkeys(w for job in plan.jobs for w in job.split.warnings))
    train_s = float(np.mean([result.seconds for result in results]))
    figures = {
        "format_version": writer.FORMAT_VERSION,
        "models": writer.plain_scores(found.scores),
        "n_tracks": len(material.ids),
        "folds": plan.folds,
        "repeats": plan.repeats,
        "train_s": train_s,
        "grouped_by": list(plan.jobs[0].split.grouped_by),
        "warnings": [*warnings, *audited.notes],
        "audits": audited.plain,
        "fingerprint": plan.folder.fingerprint,
        "seed": plan.seed,
        "versions": versions(),
    }
    held = baselines.aligned(scored)
    tested = np.flatnonzero(np.isfinite(held[:, 0]))
    if not tested.size:
        raise EvaluationError("no track was held out; take other folds")
    embedding.write_embeddings(
        plan.out / workspace.EMBEDDINGS,
        [plan.folder.tracks[i] for i in tested],
        held[tested],
        split=["test"] * len(tested),
        fingerprint=checkpoint.digest([job.fingerprint for job in plan.jobs]),
    )
    console.info("drawing map and report")
    data = _report_data(plan, material, scored, found, audited, held, tested)
    origin = Origin(plan.settings.model.backbone, backbone.licence, backbone.source)
    data = dataclasses.replace(
        data,
        history=folds.mean_history(results),
        warnings=(*warnings, *audited.notes),
        backbone=origin,
    )
    writer.write(plan.out, figures, data, max_mb=max_mb)
    if audited.findings or "doctor" in audited.plain:
        writer.write_doctor(plan.out / workspace.DOCTOR, audited.findings)
    console.info(f"report: {plan.out / workspace.REPORT}")
    return Evaluated(plan.out, figures)


def _report_data(
    plan: Plan,
    material: Material,
    scored: Sequence[Fold],
    found: Ladder,
    audited: Audited,
    held: NDArray[np.float64],
    tested: NDArray[np.int64],
) -> ReportData:
    """Gather what the report over folds shows: every track is a held-out one."""
    folder = plan.folder
    taken = baselines.out_of_fold(scored, material.labels)
    fitted = maps.fit_map(held[tested], plan.seed)
    points = writer.points(material, tested, fitted.coordinates, "test", taken.predicted)
    return ReportData(
        title=plan.out.resolve().name,
        made=f"subgenre {VERSION}",
        n_train=int(np.median([len(fold.train) for fold in scored])),
        n_test=len(tested),
        folds=plan.folds,
        repeats=plan.repeats,
        models=found.scores,
        labels=tuple(folder.labels),
        genres=tuple(folder.genres),
        confusion=tuple(tuple(int(n) for n in row) for row in taken.confusion),
        points=tuple(points),
        map=fitted,
        settings=validation.to_dict(plan.settings),
        versions=versions(),
        fingerprint=folder.fingerprint,
        split_by=", ".join(plan.jobs[0].split.grouped_by),
        skipped=writer.n_skipped(material),
        sections=tuple(audited.sections),
    )
