"""Feature folder -> tracks to look at again: the doctor without a trained model."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subgenre import config
from subgenre.commands.model_folder import ModelFolder
from subgenre.core import hardware, workspace
from subgenre.core.progress import Console, Silent
from subgenre.core.validation import check_output, check_range
from subgenre.dataset.folder import FeatureFolder
from subgenre.errors import EvaluationError
from subgenre.evaluation.audits import run as audits
from subgenre.evaluation.audits.duplicates import Duplicates
from subgenre.evaluation.audits.mislabels import Finding
from subgenre.evaluation.audits.run import Audited
from subgenre.evaluation.tracks import Material
from subgenre.models import embedding
from subgenre.report import writer
from subgenre.training import fit

OUT = Path(workspace.DOCTOR)
REPEATS = 3


@dataclass(frozen=True)
class Diagnosed:
    """What the doctor found, by kind and the surest first, and where the table lies."""

    path: Path
    n_tracks: int
    findings: tuple[Finding, ...]
    copies: Duplicates

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return columns and rows for a person."""
        rows = [
            [f.kind, Path(f.path).name, f.subgenre, f.suggestion, f"{f.confidence:.2f}", f.why]
            for f in self.findings
        ]
        return ["what", "track", "lies in", "fits", "sure", "why"], rows

    def to_dict(self) -> dict[str, Any]:
        """Give plain values for JSON."""
        return {
            "path": str(self.path),
            "n_tracks": self.n_tracks,
            "compared": self.copies.method,
            "kinds": dict(Counter(f.kind for f in self.findings)),
            "findings": [f.to_dict() for f in self.findings],
        }


def doctor(
    features: Path = workspace.FEATURES,
    *,
    run: Path | None = None,
    backbone: str | None = None,
    folds: int = 5,
    repeats: int = REPEATS,
    out: Path = OUT,
    seed: int = 0,
    device: str = "auto",
    console: Console | None = None,
) -> Diagnosed:
    """Find tracks in the wrong playlist, copies, outliers, silent and clipped files.

    Each track is judged by light probes on the frozen backbone that have not heard it, over folds
    and repeats. Nothing is moved.

    Args:
        features: as `preprocess` wrote them; with `run`, those of that model.
        run: a model folder, whose frozen backbone's cached output is used.
        backbone: by default the one that the features are made for.
        out: the table, as CSV.

    Raises:
        ConfigError: a seed, a number of repeats or an output that can't be.
        FeatureError, BackboneError, RunError: they can't be had.
        SplitError: folds that can't be drawn. EvaluationError: nothing can be judged.
    """
    console = console or Silent()
    check_range("seed", seed, *config.SEEDS)
    check_range("repeats", repeats, 1, 1000)
    check_output("out", out)
    folder, pooled = frozen_output(features, run, backbone, device, console)
    material = Material(folder, folder.path / fit.CACHE)
    judged = audits.repeated(material, folds, repeats, seed)
    means = material.means(pooled)
    same = audits.copies(material, means, console)
    found = Audited()
    audits.add_doctor(found, material, means, judged, same)
    if found.notes:
        raise EvaluationError(found.notes[0])
    writer.write_doctor(out, found.findings)
    console.info(
        f"{out}: {len(found.findings)} findings in {len(material.ids)} tracks; {same.text}"
    )
    return Diagnosed(out, len(material.ids), tuple(found.findings), same)


def frozen_output(
    features: Path, run: Path | None, backbone: str | None, device: str, console: Console
) -> tuple[FeatureFolder, NDArray[np.float32]]:
    """Return the features and what the backbone before any training makes of their chunks."""
    if run is not None:
        opened = ModelFolder.open(run)
        folder, model = opened.features, opened.frozen_encoder
        statistics = None
    else:
        folder = FeatureFolder.open(features)
        model = fit.load_backbone(backbone or folder.backbone, folder)  # type: ignore[assignment]
        statistics = folder.statistics(np.flatnonzero(folder.label_of >= 0))
    with console.progress("backbone") as bar:
        pooled = embedding.pooled_vectors(
            model,
            folder,
            np.arange(len(folder.track_of)),
            cache=folder.path / fit.CACHE,
            device=hardware.pick_device(device),
            statistics=statistics,
            on_progress=bar,
        )
    return folder, pooled
