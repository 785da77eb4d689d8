"""The errors that a user can meet, as one small tree.

    SubgenreError
    |-- ConfigError          an option, a recipe or a TOML file that makes no sense
    |-- LibraryError         folders, playlists or a CSV that hold no usable library
    |-- AudioError           one file that can't be read; the reason is for a person
    |-- FeatureError         a feature folder that is missing, damaged or of another kind
    |-- BackboneError        a backbone that can't be had
    |-- SplitError           a split that leaks or can't be drawn
    |-- TrainingError        training that can't go on
    |   |-- CollapseError    all embeddings have become one point
    |   |-- NotFiniteError   a loss that is not a number
    |   `-- Interrupted      a signal stopped it, after its checkpoint was saved
    |-- CheckpointError      a checkpoint of another configuration, data or split
    |-- RunError             a model folder that is missing, damaged or of another kind
    |-- EvaluationError      figures that can't be computed from what is there
    |-- IndexStoreError      an index that is missing or was made by another model
    |-- PlaylistError        a playlist that can't be made, written or read
    `-- MissingExtraError    an optional library that is not installed

The command line turns each of them into one line and exit code 2. An error says what, which
value, and what to do.
"""

from __future__ import annotations


class SubgenreError(Exception):
    """Anything that a user can fix; the message says how.

    Attributes:
        exit_code: of the command that ends with it.
    """

    exit_code = 2


class ConfigError(SubgenreError):
    """An option, a recipe or a TOML file that makes no sense."""


class LibraryError(SubgenreError):
    """Folders, playlists or a CSV that hold no usable library."""


class AudioError(SubgenreError):
    """One audio file that can't be read."""


class FeatureError(SubgenreError):
    """A feature folder that is missing, damaged or of another kind."""


class BackboneError(SubgenreError):
    """A backbone that can't be had."""


class SplitError(SubgenreError):
    """A split that leaks or can't be drawn."""


class TrainingError(SubgenreError):
    """Training that can't go on."""


class CollapseError(TrainingError):
    """All embeddings have become one point."""


class NotFiniteError(TrainingError):
    """A loss that is not a number."""


class Interrupted(TrainingError):  # noqa: N818 - a requested stop, not a fault
    """A signal stopped the run after its checkpoint was saved."""

    exit_code = 143  # as of a process that SIGTERM ended
    go_on = "`subgenre train --resume` with the same options goes on"


class CheckpointError(SubgenreError):
    """A checkpoint of another configuration, data or split."""


class RunError(SubgenreError):
    """A model folder that is missing, damaged or of another kind."""


class EvaluationError(SubgenreError):
    """Figures that can't be computed from what is there."""


class IndexStoreError(SubgenreError):
    """An index that is missing or was made by another model."""


class PlaylistError(SubgenreError):
    """A playlist that can't be made, written or read."""


class MissingExtraError(SubgenreError):
    """An optional library that is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs the extra '{extra}': pip install 'subgenre[{extra}]'")
