"""The names in a work folder, and how the newest model is found."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from subgenre.core import files
from subgenre.core.files import TEMPORARY
from subgenre.core.progress import Console
from subgenre.core.validation import check_output
from subgenre.errors import ConfigError, FeatureError, RunError

LIBRARY = Path("WAV")
FEATURES = Path("preprocessed_features")
CHECKPOINTS = Path("ast_triplet_output")
TRACKING = Path("tracking")
RUN_PREFIX = "fully_trained_models_"
HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")  # owner/name of a model on the hub

CONFIG = "config.toml"
SPLIT = "split.json"
HISTORY = "history.parquet"
CARD = "README.md"
METRICS = "metrics.json"
REPORT = "report.html"
MAP = "map.png"
CONFUSION = "confusion.png"
EMBEDDINGS = "embeddings.parquet"
DOCTOR = "doctor.csv"
DATA = "data.json"
DATASET = "dataset.json"  # of a feature folder
SHARDS = ".shards"  # folder, in a feature folder, of what the shards of a job record

COPY_AGAIN = "copy the whole folder again, or train again"  # out of a damaged model folder


def stamp() -> str:
    """Return the present local time as a run's name carries it: YYYYMMDD_HHMMSS."""
    return time.strftime("%Y%m%d_%H%M%S")


def user_cache() -> Path:
    """Return the folder for what this user's programs can make anew; it may not exist yet.

    Raises:
        ConfigError: the user has no home folder.
    """
    if sys.platform == "win32":
        place, default = os.environ.get("LOCALAPPDATA"), "AppData/Local"
    elif sys.platform == "darwin":
        place, default = None, "Library/Caches"
    else:
        place, default = os.environ.get("XDG_CACHE_HOME"), ".cache"
    try:
        return (Path(place) if place else Path.home() / default) / "subgenre"
    except RuntimeError:
        raise ConfigError("this user has no home folder; set the variable HOME") from None


def model_folder(out: Path | None, name: str) -> Path:
    """Return where the model of a run goes: `out`, or `fully_trained_models_<name>` here."""
    return out or Path(f"{RUN_PREFIX}{name}")


def check_features(path: Path) -> None:
    """Refuse a folder that holds no features, before anything heavy is loaded.

    Raises:
        FeatureError: it is missing, or `preprocess` or `merge` has not finished there.
    """
    if not (path / DATASET).is_file():
        if (path / SHARDS).is_dir():
            raise FeatureError(
                f"{path} holds shards that are not joined; run `subgenre merge {path}` after all "
                "of them"
            )
        raise FeatureError(
            f"{path} holds no features; run `subgenre preprocess`, or name another folder with "
            "--features"
        )


def new_run(out: Path | None, name: str, begun: Sequence[str] = ()) -> Path:
    """Return the folder of a new model, as `model_folder` names it.

    Args:
        begun: names of what a stopped run may have left in it, to be written anew, the first
            written first.

    Raises:
        RunError: it exists and holds something else, or with `begun` the whole model.
        ConfigError: it can't be made there.
    """
    folder = model_folder(out, name)
    if begun and (folder / CONFIG).is_file():
        raise RunError(
            f"{folder} holds a finished model; leave --resume out to train anew, or name another "
            "folder with --out"
        )
    left = _left(folder, begun) if begun else []
    if folder.exists() and (not folder.is_dir() or set(folder.iterdir()) - set(left)):
        raise RunError(f"{folder} exists and is not empty; name another with --out")
    check_output("out", folder, folder=True)
    return folder


def clear(folder: Path, begun: Sequence[str]) -> None:
    """Remove what a run left that was stopped while it wrote its model; `begun` as of `new_run`."""
    for path in _left(folder, begun):
        path.unlink()


def _left(folder: Path, begun: Sequence[str]) -> list[Path]:
    """List what a stopped run left; without the first file, the others are a person's own."""
    known = begun if (folder / begun[0]).is_file() else ()
    return [p for p in folder.glob("*") if p.name in known or p.name.startswith(TEMPORARY)]


def runs(root: Path) -> list[Path]:
    """List the model folders in `root`, oldest first."""
    found = [p.parent for p in root.glob(f"{RUN_PREFIX}*/{CONFIG}")]
    return sorted(found, key=lambda folder: folder.name)


def is_trial(run: Path) -> bool:
    """Return whether a model is of `train --test-run`; one whose `data.json` is damaged is not."""
    try:
        return files.read_json(run / DATA, version=1, error=RunError).get("test_run") is True
    except RunError:
        return False


def find_run(run: Path | None, console: Console | None = None, *, vectors: bool = False) -> Path:
    """Return the model folder that was named, or the newest here; `console` reports which.

    Args:
        vectors: the newest that has its tracks' vectors, if any has: a model that was just trained
            does not hide the one in use. A test run hides none either.

    Raises:
        RunError: there is none; the error says how to make one.
    """
    if run is not None:
        if not (run / CONFIG).is_file():
            what = "holds no model" if run.is_dir() else "does not exist"
            raise RunError(f"{run} {what}; name a {RUN_PREFIX}... folder")
        return run
    found = runs(Path())
    if not found:
        raise RunError(
            f"no {RUN_PREFIX}... folder here; run `subgenre train`, or name one with --run"
        )
    found = [path for path in found if not is_trial(path)] or found
    ready = [path for path in found if (path / EMBEDDINGS).is_file()] if vectors else found
    chosen = ready[-1] if ready else found[-1]
    if console is not None:
        last = found[-1]
        newer = f" ({last} is newer: `subgenre evaluate --run {last}` readies it)"
        console.info(f"model: {chosen}{newer if chosen != last else ''}")
    return chosen
