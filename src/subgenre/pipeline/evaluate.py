"""Model folder -> figures, pictures and report beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from subgenre import __version__, checks, embed, encoder, files, metrics, precision, report, splits
from subgenre.backbones import Backbone
from subgenre.config import TrainConfig
from subgenre.encoder import Encoder
from subgenre.errors import FeatureError, RunError
from subgenre.metrics import Score
from subgenre.pipeline import fit, score, work
from subgenre.pipeline.score import Scored
from subgenre.pipeline.words import versions
from subgenre.report import maps, plots
from subgenre.report.data import Backbone as Origin
from subgenre.report.data import Epoch, Point, ReportData, Rung
from subgenre.report.html import MAX_MB
from subgenre.splits import Split
from subgenre.store import FeatureFolder
from subgenre.talk import Silent, Talk

FORMAT_VERSION = 1
RUNGS = {
    "frozen": "the pretrained backbone as it is",
    "trained": "the model that learnt from your folders",
}


@dataclass(frozen=True)
class Run:
    """A model folder, read."""

    path: Path
    encoder: Encoder
    settings: TrainConfig
    split: Split
    folder: FeatureFolder
    data: dict[str, Any]


@dataclass(frozen=True)
class Evaluated:
    """What `evaluate` found: the content of `metrics.json`."""

    run: Path
    metrics: dict[str, Any]

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return columns and rows for a person."""
        models = self.metrics["models"]
        names = [m for m in metrics.METRICS if any(m in scores for scores in models.values())]
        rows = []
        for metric in names:
            cells = [_cell(scores.get(metric)) for scores in models.values()]
            chance = next(s[metric]["chance"] for s in models.values() if metric in s)
            rows.append([metric, *cells, "" if chance is None else f"{chance:.3f}"])
        return ["metric", *models, "chance"], rows


def open_run(run: Path | None, features: Path | None = None) -> Run:
    """Read a model folder and the feature folder it was trained on.

    Raises:
        RunError: no such model, or a damaged one.
        FeatureError: its features are gone or are no longer those of its tracks.
    """
    path = work.find_run(run)
    data = files.read_json(path / work.DATA, version=1, error=RunError)
    settings = checks.from_dict(
        TrainConfig, checks.load_toml(path / work.CONFIG), str(path / work.CONFIG)
    )
    source = features or Path(data["features"])
    if not source.is_dir():
        raise FeatureError(
            f"the features of {path} are gone from {source}; run `subgenre preprocess` again, "
            "or name where they are now with --features"
        )
    folder = FeatureFolder.open(source)
    split = splits.load(path / work.SPLIT, folder.tracks)
    if list(folder.labels) != data["labels"]:
        raise FeatureError(f"{source} has other subgenres than {path} was trained on")
    return Run(path, encoder.load(path), settings, split, folder, data)


def evaluate(
    run: Path | None = None,
    *,
    features: Path | None = None,
    max_mb: float = MAX_MB,
    talk: Talk | None = None,
) -> Evaluated:
    """Score a model on its held-out tracks and write what was found into its folder.

    Writes `metrics.json`, `report.html`, `map.png`, `confusion.png`, `embeddings.parquet` and the
    model card.

    Args:
        run: the model folder; by default the newest.
        features: where its features are now, if they have moved.
        max_mb: size of the sound inside the report, megabytes.
        talk: hears how it goes.

    Raises:
        RunError, FeatureError, SplitError, EvaluationError.
    """
    talk = talk or Silent()
    opened = open_run(run, features)
    device = precision.pick_device(opened.settings.run.device)
    folder = opened.folder
    frozen = _frozen(opened)
    with talk.progress("backbone") as bar:
        pooled = embed.pooled_vectors(
            frozen,
            folder,
            np.arange(len(folder.track_of)),
            cache=folder.path / fit.CACHE,
            device=device,
            on_progress=bar,
        )
    scored = score.sides(
        folder,
        opened.split,
        opened.encoder,
        pooled,
        device=device,
        head_only=opened.settings.model.tune == "head",
    )
    found = score.scores(scored, folder, opened.settings.run.seed)
    figures = _figures(opened, found)
    files.write_json(opened.path / work.METRICS, figures)
    _write_vectors(opened, scored)
    talk.say("drawing the map")
    data = _report_data(opened, scored, found, frozen.backbone)
    plots.save_map(opened.path / work.MAP, data.points, data.labels, data.genres, _map_note(data))
    plots.save_confusion(opened.path / work.CONFUSION, data.confusion, data.labels, data.genres)
    report.write_report(opened.path / work.REPORT, data, max_mb=max_mb)
    report.write_card(opened.path / work.CARD, data)
    talk.say(f"report: {opened.path / work.REPORT}")
    return Evaluated(opened.path, figures)


def _frozen(run: Run) -> Encoder:
    """Return an encoder around the backbone as it was before training.

    A frozen backbone is in the run's own folder; one that was tuned is loaded again.
    """
    if run.settings.model.tune == "head":
        return run.encoder
    backbone = fit.load_backbone(run.settings.model.backbone, run.folder)
    rows = run.folder.rows(run.split.train)
    return fit.new_encoder(backbone, run.settings.model, run.folder, rows, run.settings.run.seed)


def _figures(run: Run, found: dict[str, dict[str, Score]]) -> dict[str, Any]:
    """Build `metrics.json`."""
    return {
        "format_version": FORMAT_VERSION,
        "models": {
            name: {metric: value.to_dict() for metric, value in scores.items()}
            for name, scores in found.items()
        },
        "n_tracks": len(run.split.train) + len(run.split.test),
        "n_train": len(run.split.train),
        "n_test": len(run.split.test),
        "folds": 0,
        "repeats": 0,
        "train_s": run.data["train_s"],
        "grouped_by": list(run.split.grouped_by),
        "warnings": list(run.split.warnings),
        "fingerprint": run.folder.fingerprint,
        "seed": run.settings.run.seed,
        "versions": versions(),
    }


def _write_vectors(run: Run, scored: Scored) -> None:
    """Keep the vectors of both sides in the model folder."""
    numbers = [*scored.train.tracks, *scored.test.tracks]
    vectors = np.concatenate([scored.train.vectors["trained"], scored.test.vectors["trained"]])
    sides = ["train"] * len(scored.train.tracks) + ["test"] * len(scored.test.tracks)
    embed.write_embeddings(
        run.path / work.EMBEDDINGS,
        score.tracks_of(run.folder, numbers),
        vectors,
        split=sides,
        fingerprint=encoder.fingerprint(run.encoder),
    )


def _report_data(
    run: Run, scored: Scored, found: dict[str, dict[str, Score]], backbone: Backbone
) -> ReportData:
    """Gather what the report of a single split shows."""
    folder, train, test = run.folder, scored.train, scored.test
    predicted = metrics.nearest_centroids(
        train.vectors["trained"], train.labels, test.vectors["trained"]
    )
    matrix = metrics.confusion_matrix(test.labels, predicted, len(folder.labels))
    fitted = maps.fit_map(train.vectors["trained"], run.settings.run.seed)
    places = fitted.place(test.vectors["trained"])
    points = [
        *_points(folder, train, fitted.coordinates, "train", None),
        *_points(folder, test, places, "test", predicted),
    ]
    return ReportData(
        title=run.path.name,
        made=f"subgenre {__version__}",
        n_train=len(train.tracks),
        n_test=len(test.tracks),
        ladder=tuple(Rung(name, RUNGS[name], scores) for name, scores in found.items()),
        labels=tuple(folder.labels),
        genres=tuple(folder.genres),
        confusion=tuple(tuple(int(n) for n in row) for row in matrix),
        points=tuple(points),
        map_method=fitted.method,
        map_k=fitted.k,
        trustworthiness=fitted.trustworthiness,
        knn_agreement=fitted.knn_agreement,
        history=_history(run.path),
        settings=checks.to_dict(run.settings),
        versions=versions(),
        fingerprint=folder.fingerprint,
        split_by=", ".join(run.split.grouped_by),
        warnings=tuple(run.split.warnings),
        skipped=_n_skipped(folder),
        backbone=Origin(run.settings.model.backbone, backbone.licence, backbone.source),
    )


def _points(
    folder: FeatureFolder,
    side: score.Side,
    places: Any,
    split: str,
    predicted: Sequence[int] | Any,
) -> list[Point]:
    """Return the map's points of one side."""
    first = {int(t): row for row, t in reversed(list(enumerate(folder.track_of)))}
    starts = folder.chunks["start_s"].to_pylist()
    points = []
    for i, number in enumerate(side.tracks):
        track = folder.tracks[int(number)]
        points.append(
            Point(
                id=track.id,
                x=float(places[i][0]),
                y=float(places[i][1]),
                title=track.title or track.path.stem,
                artist=track.artist,
                path=str(track.path),
                genre=track.genre,
                subgenre=folder.labels[int(side.labels[i])],
                split=split,
                predicted="" if predicted is None else folder.labels[int(predicted[i])],
                start_s=float(starts[first[int(number)]]),
            )
        )
    return points


def _history(run: Path) -> tuple[Epoch, ...]:
    names = ("epoch", "loss", "active", "spread", "val_map_at_r")
    rows = pq.read_table(run / work.HISTORY).to_pylist()
    return tuple(Epoch(**{name: row[name] for name in names}) for row in rows)


def _map_note(data: ReportData) -> str:
    if data.trustworthiness is None or data.knn_agreement is None:
        return data.map_method
    return (
        f"{data.map_method}; trustworthiness {data.trustworthiness:.2f}; "
        f"{data.knn_agreement:.0%} of the {data.map_k} nearest tracks are near on the map too"
    )


def _n_skipped(folder: FeatureFolder) -> int:
    path = folder.path / "skipped.csv"
    return max(0, len(path.read_text(encoding="utf-8").splitlines()) - 1) if path.is_file() else 0


def _cell(score: dict[str, Any] | None) -> str:
    if score is None:
        return "-"
    text = f"{score['value']:.3f}"
    if score.get("low") is None:
        return text
    return f"{text} [{score['low']:.3f}, {score['high']:.3f}]"
