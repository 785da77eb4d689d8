"""Train/test splits and folds by track, stratified by subgenre, that refuse to leak."""

from subgenre.dataset.splits.grouping import BY_ARTIST, BY_TRACK, UNBOUND, LabelledTrack
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
    "UNBOUND",
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
