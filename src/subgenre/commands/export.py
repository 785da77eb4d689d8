"""A model, or the vectors of its tracks, as a folder for another tool."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from subgenre.commands.model_folder import ModelFolder
from subgenre.core import workspace
from subgenre.core.progress import Console, Silent
from subgenre.core.validation import check_choice, check_output
from subgenre.errors import ConfigError
from subgenre.search.address import Address
from subgenre.search.collection import Collection


@dataclass(frozen=True)
class Exported:
    """What `export` wrote, and where it was pushed."""

    path: Path
    target: str
    files: tuple[str, ...]
    pushed: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**vars(self), "path": str(self.path), "files": list(self.files)}


@dataclass(frozen=True)
class _Job:
    """What to export, and the folder to make."""

    model: ModelFolder
    index: Address | None
    out: Path
    push: str
    console: Console

    @property
    def tracks(self) -> Collection:
        return self.model.collection(self.index)


def export(
    model: ModelFolder,
    target: str,
    out: Path,
    *,
    index: Address | None = None,
    push: str = "",
    console: Console | None = None,
) -> Exported:
    """Write a model, or the vectors of its tracks, into a new folder.

    Args:
        target: one of `TARGETS`.
        out: the folder; it may exist if it is empty.
        index: whose tracks are written; by default the model's own, else its tracks.
        push: with the target `hub`, the name there, `owner/name`; by default nothing is pushed.

    Raises:
        ConfigError: an unknown target, a folder that is not empty, or `push` of another target.
        MissingExtraError: the target's library is not installed.
        RunError: the model is damaged, has no vectors, or the hub refuses it.
    """
    check_choice("target", target, tuple(TARGETS))
    if push and target != "hub":
        raise ConfigError(f"push is {push}, but the target is {target}; only hub is pushed")
    if push and not workspace.HUB_NAME.fullmatch(push):
        raise ConfigError(f"push is {push}; write it as OWNER/NAME")
    check_output("out", out, folder=True)
    if out.is_dir() and any(out.iterdir()):
        raise ConfigError(f"out is {out}, which is not empty; name a new folder")
    console = console or Silent()
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".subgenre-export-", dir=out.parent) as place:
        job = _Job(model, index, Path(place, "out"), push, console)
        TARGETS[target](job)
        written = tuple(sorted(path.name for path in job.out.iterdir()))
        out.mkdir(exist_ok=True)  # only now: a failure leaves no half of it
        for name in written:
            shutil.move(job.out / name, out / name)
    console.info(f"{out}: {', '.join(written)}")
    return Exported(out, target, written, _push(out, push, console) if push else "")


def _onnx(job: _Job) -> None:
    from subgenre.exports import onnx

    onnx.write(job.model.encoder, job.model.preprocess.chunk_s, job.out)


def _sentence_transformers(job: _Job) -> None:
    from subgenre.exports import sentence

    sentence.write(job.model.encoder, job.model.preprocess, job.out)


def _push(out: Path, name: str, console: Console) -> str:
    from subgenre.exports import hub_folder

    address = hub_folder.push(out, name)
    console.info(f"pushed to {address}; a new repository is private")
    return address


def _hub(job: _Job) -> None:
    from subgenre.exports import hub_folder

    model = job.model
    if not model.has_embeddings:
        job.console.warn(
            f"{model.path} has no vectors yet, so the exported model can embed but not classify; "
            f"run `subgenre evaluate --run {model.path}` first"
        )
    leaving = hub_folder.Model(
        model.encoder,
        model.settings,
        model.data,
        model.embeddings if model.has_embeddings else None,
        model.scores,
        model.rejection,
    )
    hub_folder.write(leaving, job.out, job.push or "OWNER/NAME")


def _faiss(job: _Job) -> None:
    from subgenre.exports import track_exports

    track_exports.write_faiss(job.tracks, job.out)


def _parquet(job: _Job) -> None:
    from subgenre.commands import model_map
    from subgenre.exports import track_exports

    tracks = job.tracks
    places = model_map.coordinates(model_map.load_map(job.model), job.model, tracks)
    track_exports.write_parquet(tracks, places, job.out)


def _tensorboard(job: _Job) -> None:
    from subgenre.exports import track_exports

    track_exports.write_tensorboard(job.tracks, job.out)


TARGETS: dict[str, Callable[[_Job], None]] = {
    "onnx": _onnx,
    "sentence-transformers": _sentence_transformers,
    "hub": _hub,
    "faiss": _faiss,
    "parquet": _parquet,
    "tensorboard": _tensorboard,
}
