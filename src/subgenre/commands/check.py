"""Verify every file of a feature folder, a model folder or an index."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subgenre.commands.model_folder import INDEX, ModelFolder
from subgenre.config import PreprocessConfig
from subgenre.core import files, workspace
from subgenre.core.progress import Console, Silent
from subgenre.errors import ConfigError, RunError, SubgenreError
from subgenre.search import storage
from subgenre.search.address import Address
from subgenre.search.vector_index import Index

if TYPE_CHECKING:
    from subgenre.dataset.folder import FeatureFolder

_TRAIN = "copy the folder again, or run: subgenre train"
_OPTIONS = ("chunk_strategy", "chunk_s", "max_chunks", "multi", "seed")  # of `preprocess`
Part = tuple[Address, Callable[[], object], str]  # a file, what reads it, and what mends it


@dataclass(frozen=True)
class Bad:
    """A damaged or missing file, the reason, and the command that mends it."""

    path: Address
    reason: str
    command: str


@dataclass(frozen=True)
class Checked:
    """Result of `check`: the number of files that were read, and those that are bad."""

    path: Address
    n_files: int
    bad: tuple[Bad, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        bad = [{**asdict(one), "path": str(one.path)} for one in self.bad]
        return {"path": str(self.path), "files": self.n_files, "bad": bad}


def check(path: Address, *, console: Console | None = None) -> Checked:
    """Read every file of a folder that has a checksum or belongs to another; change nothing.

    Args:
        path: a feature folder, a model folder (with its index), or an index, also on a server.

    Raises:
        ConfigError: it is none of them.
    """
    parts = [_served(path)] if isinstance(path, str) else _parts(path)
    bad = []
    with (console or Silent()).progress("checking") as bar:
        for done, (file, read, command) in enumerate(parts, start=1):
            try:
                read()
            except SubgenreError as problem:
                reason = str(problem).split("; ")[0]  # what mends it follows there too
                bad.append(Bad(file, reason, command))
            bar(done, len(parts))
    return Checked(path, len(parts), tuple(bad))


def _parts(path: Path) -> list[Part]:
    names = (workspace.CONFIG, workspace.DATA, "encoder.json", "model.safetensors")
    if (path / workspace.DATASET).is_file() or (path / "chunks.parquet").is_file():
        return _features(path)
    if any((path / name).is_file() for name in names):
        return _model(path)
    if storage.exists(path):
        return [_index(path)]
    raise ConfigError(f"{path} holds no features, no model and no index; name another folder")


def _served(address: str) -> Part:
    return address, lambda: Index.open(address).check(), "restore the server's backup"


def _features(path: Path) -> list[Part]:
    from subgenre.dataset import folder

    try:
        opened = folder.FeatureFolder.open(path)
    except SubgenreError as problem:
        file = next((path / n for n in (folder.CHUNKS, folder.TRACKS) if n in str(problem)), None)
        again = f"subgenre preprocess LIBRARY --out {shlex.quote(str(path))}"
        mend = again if file else f"{again} --overwrite"
        return [(file or path / folder.DATASET, partial(_fail, problem), mend)]
    again = _preprocess(opened)
    tables = (folder.DATASET, folder.CHUNKS, folder.TRACKS)
    return [
        *((path / name, lambda: None, again) for name in tables),  # `open` has read them
        *(
            (path / name, partial(opened.load, [row]), f"rm {_quoted(path / name)} && {again}")
            for row, name in enumerate(opened.chunks["file"].to_pylist())
        ),
    ]


def _preprocess(opened: FeatureFolder) -> str:
    """Return the command that completes a feature folder."""
    default = PreprocessConfig()
    words = ["subgenre", "preprocess", str(opened.root), "--out", str(opened.path)]
    words += ["--backbone", opened.backbone]
    for name in _OPTIONS:
        value = getattr(opened.config, name)
        if value != getattr(default, name):
            words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words)


def _model(path: Path) -> list[Part]:
    try:
        model = ModelFolder.open(path)
    except SubgenreError as problem:
        name = workspace.CONFIG if workspace.CONFIG in str(problem) else workspace.DATA
        return [(path / name, partial(_fail, problem), _TRAIN)]
    evaluate = f"subgenre evaluate --run {_quoted(path)}"
    parts: list[Part] = [
        (path / workspace.CONFIG, lambda: None, _TRAIN),  # `open` has read both
        (path / workspace.DATA, lambda: None, _TRAIN),
        (path / "model.safetensors", lambda: model.encoder, _TRAIN),
        (path / "encoder.json", partial(_json, path / "encoder.json"), _TRAIN),
        (path / workspace.SPLIT, model.check_split, _TRAIN),
        (path / workspace.HISTORY, lambda: model.history, _TRAIN),
    ]
    evaluated = (path / workspace.METRICS).exists()
    if model.has_embeddings or evaluated:
        parts.append((path / workspace.EMBEDDINGS, lambda: model.embeddings, evaluate))
    if evaluated:
        parts.append((path / workspace.METRICS, lambda: model.figures, evaluate))
    if storage.exists(path / INDEX):
        parts.append(_index(path / INDEX, model))
    return parts


def _index(path: Path, model: ModelFolder | None = None) -> Part:
    def read() -> None:
        storage.check(path)
        if model is not None:
            model.open_index(path)

    run = f" --run {_quoted(model.path)}" if model else ""
    return path / storage.DATABASE, read, f"rm -r {_quoted(path)} && subgenre index LIBRARY{run}"


def _json(path: Path) -> None:
    files.read_json(path, version=1, error=RunError)


def _fail(problem: SubgenreError) -> None:
    raise problem


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
