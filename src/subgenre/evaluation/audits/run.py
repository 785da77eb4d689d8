"""The audits on a folder's tracks: each gives a part of the report, or a line why there is none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from subgenre.core.progress import Console
from subgenre.dataset import splits
from subgenre.errors import EvaluationError
from subgenre.evaluation.audits import (
    confounders,
    duplicates,
    growth,
    hubness,
    leakage,
    learnability,
    mislabels,
    sections,
)
from subgenre.evaluation.audits import open_set as open_sets
from subgenre.evaluation.audits.base import Section
from subgenre.evaluation.audits.duplicates import Duplicates
from subgenre.evaluation.audits.probe import Fold, grouped_folds
from subgenre.evaluation.audits.result import plain
from subgenre.evaluation.tracks import Material

Floats = NDArray[np.float64]
FOLDS, DOCTOR_REPEATS = 5, 3
T = TypeVar("T")


@dataclass
class Audited:
    """What was found, as parts of the report, as plain values, and what could not be done.

    Attributes:
        sections: of the report. plain: for `metrics.json`, by audit.
        findings: the doctor's.
    """

    sections: list[Section] = field(default_factory=list)
    plain: dict[str, Any] = field(default_factory=dict)
    findings: list[mislabels.Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, find: Callable[[], T], show: Callable[[T], Section]) -> None:
        """Run one audit; one that has nothing to go by costs a note."""
        try:
            found = find()
        except EvaluationError as problem:
            self.notes.append(f"{name}: {problem}")
            return
        self.plain[name] = plain(found)
        self.sections.append(show(found))


def copies(material: Material, vectors: Floats, console: Console) -> Duplicates:
    """Search for recordings under two names: by fingerprints where `fpcalc` is installed.

    Args:
        vectors: [N, H], used where there are no fingerprints.
    """
    tracks = material.folder.tracks
    prints = None
    if duplicates.fpcalc() is not None:
        console.info("comparing acoustic fingerprints")
        prints = duplicates.fingerprints([t for t in tracks if t.path.is_file()])
    return duplicates.find(tracks, vectors, prints=prints or None)


def add_hubs(found: Audited, material: Material, vectors: Floats, rows: NDArray[np.int64]) -> None:
    """Measure hubness among the tracks `rows`; vectors [N, D]."""
    tracks = [material.folder.tracks[i] for i in rows]
    found.add(
        "hubness",
        lambda: hubness.hubness(vectors[rows], material.labels[rows]),
        lambda hubs: sections.hubs(hubs, tracks),
    )


def add_doctor(
    found: Audited,
    material: Material,
    vectors: Floats,
    folds: Sequence[Fold],
    same: Duplicates | None,
) -> None:
    """Look for tracks in the wrong playlist, copies, outliers and broken recordings.

    Args:
        vectors: [N, H] of the frozen backbone. folds: each track is judged where it is tested.
        same: of tracks that are copies.
    """
    tracks, folder = material.folder.tracks, material.folder
    measured = {name: material.columns[name] for name in ("silent_share", "clipped_share")}

    def find() -> list[mislabels.Finding]:
        return mislabels.diagnose(
            vectors,
            material.labels,
            folder.labels,
            tracks,
            folds,
            duplicates=same,
            measures=measured,
        )

    def show(findings: list[mislabels.Finding]) -> Section:
        found.findings = findings
        return sections.suggestions(findings, tracks)

    found.add("doctor", find, show)


def repeated(material: Material, n_folds: int, repeats: int, seed: int) -> list[Fold]:
    """Return folds of all tracks as positions, several times over, drawn as for the figures."""
    return [
        material.positions(split)
        for repeat in range(repeats)
        for split in splits.folds(material.folder.tracks, n_folds, seed=seed + repeat)
    ]


def add_frozen(
    found: Audited,
    material: Material,
    pooled: NDArray[np.floating],
    means: Floats,
    folds: Sequence[Fold],
    same: Duplicates,
    *,
    seed: int = 0,
) -> None:
    """Run the audits that frozen vectors serve: leakage, learning curve, confounders, open set.

    Args:
        pooled: [n, H] of the folder's chunks. means: [N, H] of its tracks.
        folds: those of the other figures.
    """
    labels, folder = material.labels, material.folder
    chunks = np.asarray(pooled[material.rows], dtype=np.float64)
    chunks = chunks if chunks.ndim == 2 else chunks.mean(axis=1)
    found.add(
        "leakage",
        lambda: leakage.leakage(
            chunks,
            material.track_of,
            labels,
            folder.tracks,
            folder.labels,
            duplicates=same,
            folds_in_use=folds,
            repeats=1,
            seed=seed,
        ),
        lambda gaps: sections.leakage(gaps, same),
    )
    found.add(
        "learning_curve",
        lambda: growth.learning_curve(means, labels, folds, seed=seed),
        sections.curve,
    )
    found.add(
        "confounders",
        lambda: confounders.confounders(
            material.columns,
            labels,
            folder.labels,
            grouped_folds(labels, np.arange(len(labels)), FOLDS, seed=seed),
            seed=seed,
        ),
        sections.confounders,
    )
    found.add(
        "open_set",
        lambda: {
            score: open_sets.open_set(means, labels, folder.labels, folds, score=score, seed=seed)
            for score in open_sets.SCORES
        },
        sections.open_set,
    )


def add_pairs(
    found: Audited,
    material: Material,
    means: Floats,
    folds: Sequence[Fold],
    trained: Sequence[NDArray[np.floating]],
    *,
    seed: int = 0,
) -> None:
    """Judge each pair of subgenres; `trained` holds a fold's vectors [N, D] each."""
    found.add(
        "pairs",
        lambda: learnability.pairs(
            means, material.labels, material.folder.labels, folds, trained=trained, seed=seed
        ),
        sections.pairs,
    )
