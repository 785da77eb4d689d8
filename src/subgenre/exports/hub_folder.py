"""A model as a folder for the hub: written, pushed on request, and read back.

It holds the weights, the settings, the card, and what `classify` and the map need: the vectors of
the training and test tracks with their labels. Their ids, names and paths stay here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from subgenre import config
from subgenre.config import TrainConfig
from subgenre.core import files, validation, workspace
from subgenre.dataset import track_vectors
from subgenre.dataset.track_vectors import Embeddings
from subgenre.errors import RunError
from subgenre.exports import weights
from subgenre.library.track import Track
from subgenre.metrics import METRICS, Score
from subgenre.models import encoder
from subgenre.models.backbones import hub
from subgenre.models.encoder import Encoder
from subgenre.report.card import escape
from subgenre.report.wording import score_text

FILES = (
    workspace.CARD,
    encoder.WEIGHTS,
    encoder.STRUCTURE,
    workspace.CONFIG,
    workspace.DATA,
    workspace.EMBEDDINGS,
    workspace.METRICS,
)
# what `data.json` records and others may read
_PUBLIC = (
    *("n_trash", "test_run", "labels", "genres", "train_s", "best_epoch", "stopped_early"),
    *("versions", "preprocess"),
)


@dataclass(frozen=True)
class Model:
    """What leaves of a model folder.

    Attributes:
        data: of `data.json`. embeddings: of the training and test tracks; None: not evaluated.
        scores: by metric. rejection: how well unknown subgenres are rejected.
    """

    encoder: Encoder
    settings: TrainConfig
    data: Mapping[str, Any]
    embeddings: Embeddings | None
    scores: Mapping[str, Mapping[str, Any]]
    rejection: Mapping[str, Any]


def write(model: Model, out: Path, name: str) -> None:
    """Write the folder; `name` is what the card calls it."""
    weights.save(model.encoder, out)
    backbone = weights.public_name(model.settings.model.backbone)
    settings = config.replace(model.settings, "model", backbone=backbone)
    toml = validation.to_toml(settings).encode()
    fingerprint = encoder.fingerprint(model.encoder)
    data = {
        "format_version": 1,
        "features": "not exported",
        **{key: model.data[key] for key in _PUBLIC if key in model.data},
        "encoder": fingerprint,
        "checksums": {workspace.CONFIG: files.checksum(toml)},
    }
    files.write_json(out / workspace.DATA, data)
    if model.embeddings is not None:
        _write_vectors(model.embeddings, out / workspace.EMBEDDINGS)
    if model.scores:
        figures = {
            "format_version": 1,
            "encoder": fingerprint,
            "models": {"trained": model.scores},
            "audits": {"open_set": {"gaussian": model.rejection}},
        }
        files.write_json(out / workspace.METRICS, figures)
    files.write_text(out / workspace.CARD, _card(model, name, backbone))
    files.write_bytes(out / workspace.CONFIG, toml)


def push(folder: Path, name: str) -> str:
    """Push a folder that `write` made to the hub, and return its address; a new one is private.

    Raises:
        RunError: the hub refuses it, or can't be reached.
    """
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        address = api.create_repo(name, private=True, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, allow_patterns=list(FILES))
    except hub.failures() as problem:
        raise RunError(
            f"the hub did not take {name} ({hub.first_line(problem)}); log in with `hf auth "
            f"login`, then run: hf upload {name} {folder}"
        ) from problem
    return str(address)


def download(name: str) -> Path:
    """Return the folder of a pushed model in the hub's cache.

    Raises:
        RunError: the hub has no such model, or can't be reached.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(FILES)))
    except hub.failures() as problem:
        raise RunError(
            f"{name} is no folder here, and the hub gave no such model "
            f"({hub.first_line(problem)}); name a {workspace.RUN_PREFIX}... folder or a model of "
            "the hub"
        ) from problem


def _write_vectors(stored: Embeddings, path: Path) -> None:
    """Write vectors, labels and sides; a number stands for each id and name."""
    rows = zip(stored.genres, stored.subgenres, strict=True)
    tracks = [
        Track(f"{number:032x}", Path(f"track {number}"), *labels)
        for number, labels in enumerate(rows, start=1)
    ]
    track_vectors.write_embeddings(
        path, tracks, stored.vectors, split=stored.splits, fingerprint=stored.fingerprint
    )


def _card(model: Model, name: str, backbone: str) -> str:
    """Return the card: a header for the hub, what the model is, how to load it."""
    licence, spec = model.encoder.backbone.licence, model.encoder.backbone.spec
    unknown = not licence or licence.startswith("see ")
    header = {
        "library_name": "subgenre",
        "license": "other" if unknown else licence.lower().replace(" ", "-"),
        "pipeline_tag": "audio-classification",
        "tags": ["subgenre", "music", "audio", "metric-learning"],
        **({"base_model": backbone} if "/" in backbone else {}),
    }
    labels = zip(model.data["genres"], model.data["labels"], strict=True)
    cut = model.data.get("preprocess", {}).get("chunk_s", 10.0)
    figures = _figures(model.scores)
    held_out = ["| metric | held-out tracks (95 % interval) |", "|---|---|", *figures, ""]
    return "\n".join(
        [
            "---",
            *(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in header.items()),
            "---",
            f"# {escape(name)}",
            "",
            f"A music embedding of {model.encoder.size} values, trained by the program `subgenre`: "
            f"tracks of one subgenre lie together. Input: chunks of {cut:g} s at {spec.rate} Hz, "
            "mono.",
            "",
            f"Backbone: {escape(backbone)}. Licence of its weights: {escape(licence)}.",
            "",
            "```python",
            "import subgenre",
            "",
            f"model = subgenre.load({json.dumps(name)})",
            'model.classify("track.mp3")',
            'model.embed("track.mp3").vectors  # [1, D], of norm 1',
            "```",
            "",
            *(held_out if figures else []),
            "| genre | subgenre |",
            "|---|---|",
            *(f"| {escape(genre)} | {escape(label)} |" for genre, label in labels),
            "",
            "The model knows these subgenres only. The folder holds the vectors and labels of its "
            "tracks, but no audio and neither their names nor their paths.",
            "",
        ]
    )


def _figures(scores: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a row of the table for each metric that has a figure."""
    rows = []
    for metric, score in scores.items():
        value, low, high = (score.get(name) for name in ("value", "low", "high"))
        if metric in METRICS and value is not None and low is not None and high is not None:
            text = score_text(Score(value, low, high, math.nan), metric)
            rows.append(f"| {METRICS[metric].title} | {text} |")
    return rows
