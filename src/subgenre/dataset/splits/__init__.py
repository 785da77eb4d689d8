"""Train/test splits, folds and validation sets by track, stratified by subgenre.

A split with a recording, artist or album on both sides is neither written nor read.
"""

from subgenre.dataset.splits.grouping import BY_ARTIST, BY_TRACK, LabelledTrack
from subgenre.dataset.splits.split import (
    Split,
    check,
    check_validation,
    folds,
    load,
    save,
    split,
    validation,
)

__all__ = [
    "BY_ARTIST",
    "BY_TRACK",
    "LabelledTrack",
    "Split",
    "check",
    "check_validation",
    "folds",
    "load",
    "save",
    "split",
    "validation",
]
