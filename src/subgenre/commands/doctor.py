"""Feature folder -> tracks to look at again: the doctor without a trained model."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subgenre import config
from subgenre.commands.model_folder import ModelFolder
from subgenre.config import RunConfig
from subgenre.core import workspace
from subgenre.core.progress import Console, Silent
from subgenre.core.text import percent
from subgenre.core.validation import check_output, check_range
from subgenre.dataset.folder import FeatureFolder
from subgenre.errors import SplitError
from subgenre.evaluation.audits import duplicates, mislabels
from subgenre.evaluation.audits.duplicates import Duplicates
from subgenre.evaluation.audits.findings import Finding
from subgenre.evaluation.audits.probe import Fold
from subgenre.evaluation.tracks import EvaluationTracks
from subgenre.report import writer
from subgenre.training import fit

OUT = Path(workspace.DOCTOR)
REPEATS = 3
SHOWN = 20  # findings on the screen


@dataclass(frozen=True)
class Diagnosed:
    """What the doctor found, by kind and the surest first, and where the table lies."""

    path: Path
    n_tracks: int
    findings: tuple[Finding, ...]
    copies: Duplicates

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return columns and the first `SHOWN` rows for a person."""
        rows = [
            [
                *(f.kind, Path(f.path).name, f.subgenre, f.how_sure),
                "" if f.kind == "duplicate" else f.suggestion,
                *("" if f.fit is None else percent(f.fit), f.why),
            ]
            for f in self.findings[:SHOWN]
        ]
        return ["what", "track", "lies in", "how sure", "best fit", "probability", "why"], rows

    @property
    def caption(self) -> str:
        """How to read the table, and how many findings it leaves out."""
        left_out = max(0, len(self.findings) - SHOWN)
        more = f"{left_out} more in {self.path}. " if left_out else ""
        return more + mislabels.SURE

    def to_dict(self) -> dict[str, Any]:
        """Give plain values for JSON."""
        return {
            "path": str(self.path),
            "n_tracks": self.n_tracks,
            "compared": self.copies.method,
            "kinds": dict(Counter(f.kind for f in self.findings)),
            "findings": [asdict(f) for f in self.findings],
        }


def doctor(
    features: Path = workspace.FEATURES,
    *,
    run: Path | None = None,
    backbone: str | None = None,
    folds: int | None = None,
    repeats: int = REPEATS,
    out: Path = OUT,
    seed: int = 0,
    device: str = "auto",
    engine: str | None = None,
    console: Console | None = None,
) -> Diagnosed:
    """Find tracks in the wrong playlist, copies, outliers, and files that are broken.

    Light probes on the frozen backbone that were not trained on a track judge it, over folds and
    repeats. Nothing is moved.

    Args:
        features: as `preprocess` wrote them; with `run`, those of that model.
        run: a model folder, whose frozen backbone's cached output is used.
        backbone: by default the one that the features are made for.
        folds: by default 5, or fewer where the largest subgenre has fewer tracks; without two
            tracks in each subgenre only copies, outliers and broken files are listed.
        out: the table, as CSV.
        device, engine: see `config.RunConfig`; by default the engine of the model, or torch.

    Raises:
        ConfigError: a seed, a number of repeats or an output that can't be.
        FeatureError, BackboneError, RunError: they can't be had.
        SplitError: folds that can't be drawn. EvaluationError: nothing can be judged.
    """
    console = console or Silent()
    check_range("seed", seed, *config.SEEDS)
    check_range("repeats", repeats, 1, 1000)
    check_output("out", out)
    tracks, pooled = frozen_output(features, run, backbone, device, engine, console)
    frozen = tracks.means(pooled)
    copies = duplicates.search(tracks.folder.tracks, frozen, console)
    findings = mislabels.diagnose(
        frozen,
        tracks.labels,
        tracks.folder.labels,
        tracks.folder.tracks,
        _folds(tracks, folds, repeats, seed, console),
        copies,
        tracks.columns,
    )
    writer.write_doctor(out, findings)
    console.info(f"{out}: {len(findings)} findings in {len(tracks.ids)} tracks; {copies.text}")
    return Diagnosed(out, len(tracks.ids), tuple(findings), copies)


def _folds(
    tracks: EvaluationTracks, folds: int | None, repeats: int, seed: int, console: Console
) -> list[Fold]:
    """Draw the folds; by default as many as can be, or none."""
    count = mislabels.most_folds(tracks.labels) if folds is None else folds
    try:
        return mislabels.repeated_folds(tracks.folder.tracks, count, repeats, seed)
    except SplitError as problem:
        if folds is not None:
            raise
        console.warn(f"no wrong playlists are listed: {problem}")
        return []


def frozen_output(
    features: Path,
    run: Path | None,
    backbone: str | None,
    device: str,
    engine: str | None,
    console: Console,
) -> tuple[EvaluationTracks, NDArray[np.float32]]:
    """Return the tracks and the output of the backbone before training for all chunks [n, H]."""
    if run is not None:
        opened = ModelFolder.open(run, console, engine=engine)
        folder, model = opened.features, opened.frozen_encoder
        statistics = None
    else:
        folder = FeatureFolder.open(features)
        name, how = backbone or folder.backbone, RunConfig(device=device, engine=engine or "torch")
        model = fit.load_backbone(name, folder, how, console)  # type: ignore[assignment]
        statistics = folder.statistics(np.flatnonzero(folder.label_of >= 0))
    tracks = EvaluationTracks(folder)
    return tracks, tracks.pooled(model, device, console, statistics)
