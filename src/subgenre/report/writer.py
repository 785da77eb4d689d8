"""What an evaluation writes into its folder: figures, pictures, report and card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subgenre import metrics, report
from subgenre.core import csv_tables, files, workspace
from subgenre.core.progress import Console
from subgenre.evaluation.audits.findings import Finding
from subgenre.evaluation.audits.mislabels import csv_rows
from subgenre.evaluation.baselines import MODELS
from subgenre.evaluation.tracks import EvaluationTracks
from subgenre.report import fonts, plots
from subgenre.report.data import Point, ReportData

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Evaluated:
    """The folder that holds an evaluation, the content of its `metrics.json`, and the summary."""

    run: Path
    metrics: dict[str, Any]
    sentences: list[str]

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return columns and rows for a person: a metric a row, a model a column."""
        models = {n: s for n, s in self.metrics["models"].items() if n != "chance"}
        names = [m for m in metrics.METRICS if any(m in scores for scores in models.values())]
        rows = []
        for metric in names:
            cells = [_cell(scores.get(metric)) for scores in models.values()]
            # of the trained model, the last: the chance of NMI and ARI differs by model
            chance = next(s[metric]["chance"] for s in reversed(models.values()) if metric in s)
            rows.append([metrics.METRICS[metric].title, *cells, f"{chance:z.3f}"])
        return ["metric", *(MODELS[name].title for name in models), MODELS["chance"].title], rows


def write(
    path: Path, figures: Mapping[str, Any], data: ReportData, *, max_mb: float, console: Console
) -> None:
    """Write `metrics.json`, both pictures, the report and the model card."""
    files.write_json(path / workspace.METRICS, dict(figures))
    with fonts.for_names((*data.labels, *data.genres)):
        plots.save_map(path / workspace.MAP, data)
        plots.save_confusion(path / workspace.CONFUSION, data)
    with console.progress("previews") as bar:
        report.write_report(path / workspace.REPORT, data, max_mb=max_mb, on_progress=bar)
    report.write_card(path / workspace.CARD, data)


def write_doctor(path: Path, findings: Sequence[Finding]) -> None:
    """Write the doctor's findings as CSV."""
    csv_tables.write(path, csv_rows(findings))


def points(
    library: EvaluationTracks,
    tracks: Sequence[int] | NDArray[np.int64],
    coordinates: NDArray[np.floating],
    split: str,
    predicted: NDArray[np.int64] | None,
) -> list[Point]:
    """Return the points of some tracks.

    Args:
        tracks: [M] numbers of tracks. coordinates: [M, 2].
        predicted: [N] label numbers of all tracks, -1: no prediction.
    """
    folder = library.folder
    first = {int(t): row for row, t in reversed(list(enumerate(folder.track_of)))}
    starts = folder.chunks["start_s"].to_pylist()
    made = []
    for (x, y), number in zip(coordinates, tracks, strict=True):
        track = folder.tracks[int(number)]
        label = -1 if predicted is None else int(predicted[number])
        made.append(
            Point(
                id=track.id,
                x=float(x),
                y=float(y),
                title=track.title or track.path.stem,
                artist=track.artist,
                path=str(track.path),
                genre=track.genre,
                subgenre=folder.labels[int(library.labels[number])],
                split=split,
                predicted="" if label < 0 else folder.labels[label],
                start_s=float(starts[first[int(number)]]),
            )
        )
    return made


def n_skipped(library: EvaluationTracks) -> int:
    """Return how many files preprocessing left out."""
    path = library.folder.path / "skipped.csv"
    return max(0, len(path.read_text(encoding="utf-8").splitlines()) - 1) if path.is_file() else 0


def _cell(score: Mapping[str, Any] | None) -> str:
    if score is None:
        return "-"
    return f"{score['value']:z.3f} [{score['low']:z.2f}, {score['high']:z.2f}]"
