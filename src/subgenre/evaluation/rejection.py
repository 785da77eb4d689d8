"""None of my playlists, measured the hard way: the model trained anew without each subgenre."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from subgenre import config
from subgenre.config import TrainConfig
from subgenre.core.progress import Console
from subgenre.dataset.splits import Split
from subgenre.evaluation import cross_validation
from subgenre.evaluation.audits import open_set as open_sets
from subgenre.evaluation.audits import sections
from subgenre.evaluation.audits.open_set import OpenSet
from subgenre.evaluation.audits.run import Audited
from subgenre.evaluation.baselines import Fold
from subgenre.evaluation.tracks import Material

FOLDER = "open_set"
SCORE = "centroid"  # what `classify` turns tracks away by


def add(
    found: Audited,
    material: Material,
    settings: TrainConfig,
    fold: Fold,
    out: Path,
    workers: int | None,
    console: Console,
) -> None:
    """Leave each subgenre out of the first fold's training, with and without trash samples.

    The known tracks are those of the fold's test side; of the left-out subgenre all tracks are
    unknown, as its model has heard none. Without a trash pool there is no row with trash, and a
    note says so.
    """
    ways = {"trained without it": settings}
    if material.folder.trash:
        quadruplet = config.replace(settings, "loss", name="quadruplet")
        quadruplet = config.replace(quadruplet, "batch", kind="triplet")
        ways["trained without it, with trash"] = quadruplet
        if settings.loss.name != "triplet" or settings.batch.kind != "triplet":
            triplet = config.replace(settings, "loss", name="triplet")
            ways["trained without it, triplets"] = config.replace(triplet, "batch", kind="triplet")
    else:
        found.notes.append("rejection with trash samples: there is no trash folder to train with")
    rows = {}
    for number, (name, recipe) in enumerate(ways.items()):
        console.info(f"rejection: {name}")
        rows[name] = _left_out(material, recipe, fold, out / FOLDER / str(number), workers, console)
    found.plain["open_set_trained"] = {name: one.to_dict() for name, one in rows.items()}
    trained = sections.open_set(rows)
    found.sections.append(
        dataclasses.replace(trained, name="open_set_trained", title="Unknown subgenres, trained")
    )


def _left_out(
    material: Material,
    settings: TrainConfig,
    fold: Fold,
    out: Path,
    workers: int | None,
    console: Console,
) -> OpenSet:
    """Train once a left-out subgenre and score the rejection of its tracks."""
    ids, labels = np.array(material.ids), material.labels
    jobs, positions = {}, {}
    for c, label in enumerate(material.folder.labels):
        train = fold.train[labels[fold.train] != c]
        test = np.union1d(fold.test, np.flatnonzero(labels == c))
        if np.unique(labels[train]).size < 2 or not np.any(labels[test] != c):
            continue
        split = Split(
            tuple(sorted(ids[train].tolist())),
            tuple(sorted(ids[test].tolist())),
            settings.run.seed,
            ("track", "recording"),
        )
        positions[c] = [(train, test)]
        path = out / f"{c}.npz"
        jobs[c] = cross_validation.job(f"without {label}", material.folder, settings, split, path)
    results = cross_validation.train_all(list(jobs.values()), workers=workers, console=console)
    vectors = {c: result.vectors for c, result in zip(jobs, results, strict=True)}
    return open_sets.open_set(vectors, labels, material.folder.labels, positions, score=SCORE)
