"""A library -> features, a model, its evaluation and the report, in one command."""

from __future__ import annotations

import os
import sys
import webbrowser
from collections.abc import Callable
from pathlib import Path

from subgenre.commands.evaluate import evaluate
from subgenre.commands.preprocess import preprocess
from subgenre.commands.train import train
from subgenre.config import TrainConfig
from subgenre.core import workspace
from subgenre.core.progress import Console, Silent
from subgenre.library.uris import Maps
from subgenre.report.writer import Evaluated


def run(
    source: Path,
    backbone: str,
    settings: Callable[[Path], TrainConfig],
    *,
    maps: Maps = (),
    console: Console | None = None,
) -> Evaluated:
    """Preprocess a library, train on it and evaluate; open the report where there is a display.

    The features and the model have their usual names here. What an earlier run has computed is
    used again.

    Args:
        source, backbone, maps: as for `preprocess`.
        settings: returns the recipe for the feature folder that was written.

    Raises:
        SubgenreError: as `preprocess`, `train` and `evaluate`.
    """
    console = console or Silent()
    preprocess(source, workspace.FEATURES, backbone=backbone, maps=maps, console=console)
    trained = train(workspace.FEATURES, settings(workspace.FEATURES), console=console)
    evaluated = evaluate(trained.run, console=console)
    if sys.platform in ("darwin", "win32") or {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
        webbrowser.open((evaluated.run / workspace.REPORT).resolve().as_uri())
    return evaluated
