"""A model folder as the uses of it read it: stored vectors first, the encoder only when asked for.

Nothing here imports torch until a file has to be embedded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from subgenre.config import PreprocessConfig, TrainConfig
from subgenre.core import files, validation, workspace
from subgenre.core.progress import Console, Silent
from subgenre.dataset import track_vectors
from subgenre.dataset.track_vectors import Embeddings
from subgenre.errors import RunError
from subgenre.search import classifier as classify
from subgenre.search.classifier import ALPHA, Classifier
from subgenre.search.collection import Collection
from subgenre.search.track_rows import IndexedTrack
from subgenre.search.vector_index import Index

if TYPE_CHECKING:
    import torch

    from subgenre.models.encoder import Encoder
    from subgenre.models.file_embedding import FileVectors

INDEX = "index"  # in the model folder
_DATASET, _TRACKS = "dataset.json", "tracks.parquet"  # of a feature folder
_TAGS = ("artist", "album", "title", "label", "year", "bpm", "duration_s", "size", "mtime_ns")


@dataclass(frozen=True)
class StoredRun:
    """A model folder: its settings, and on demand its vectors, classifier and encoder."""

    path: Path
    settings: TrainConfig
    data: dict[str, Any]

    @cached_property
    def embeddings(self) -> Embeddings:
        """Vectors of the tracks on both sides of the split.

        Raises:
            RunError: the run has none yet.
        """
        path = self.path / workspace.EMBEDDINGS
        if not path.is_file():
            raise RunError(
                f"{self.path} has no vectors yet; run `subgenre evaluate --run {self.path}`"
            )
        return track_vectors.read_embeddings(path)

    @property
    def has_embeddings(self) -> bool:
        """Whether the vectors of the run's own tracks are there."""
        return (self.path / workspace.EMBEDDINGS).is_file()

    @cached_property
    def tracks(self) -> tuple[IndexedTrack, ...]:
        """Tell the tracks of `embeddings`, with tags where the feature folder is still there."""
        tags = self._tags()
        stored = self.embeddings
        columns = zip(stored.ids, stored.paths, stored.genres, stored.subgenres, strict=True)
        return tuple(
            IndexedTrack(track_id, path, genre, subgenre, **tags.get(track_id, {}))
            for track_id, path, genre, subgenre in columns
        )

    def _tags(self) -> dict[str, dict[str, Any]]:
        """Read tags by track id from the feature folder; they only make lists readable."""
        path = Path(self.data.get("features", "")) / _TRACKS
        try:
            rows = pq.read_table(path, columns=["id", *_TAGS]).to_pylist()
        except (OSError, ValueError, KeyError, pa.ArrowException):
            return {}
        return {row.pop("id"): row for row in rows}

    @cached_property
    def labels(self) -> frozenset[tuple[str, str]]:
        """Pairs (genre, subgenre) that the model has learnt, as far as its folder tells."""
        if self.has_embeddings:
            stored = self.embeddings
            return frozenset(zip(stored.genres, stored.subgenres, strict=True)) - {("", "")}
        return frozenset(zip(self.data["genres"], self.data["labels"], strict=True))

    @cached_property
    def encoder(self) -> Encoder:
        """The model itself; loads torch.

        Raises:
            RunError: its files are missing or damaged.
        """
        from subgenre.models import encoder

        return encoder.load(self.path)

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the encoder, read from where it is written or computed from the model."""
        if found := self.data.get("encoder"):
            return str(found)
        if self.has_embeddings:
            return self.embeddings.fingerprint
        from subgenre.models import encoder

        return encoder.fingerprint(self.encoder)

    @cached_property
    def dim(self) -> int:
        """Size of a vector, D."""
        model = self.settings.model
        return model.embedding_size + (model.pca if model.fusion else 0)

    @cached_property
    def preprocess(self) -> PreprocessConfig:
        """How tracks became chunks in training; files from outside are cut the same way."""
        plain = self.data.get("preprocess")
        if plain is None:
            try:
                told = (Path(self.data["features"]) / _DATASET).read_text(encoding="utf-8")
                plain = json.loads(told)["config"]
            except (OSError, ValueError, KeyError):
                return PreprocessConfig(chunk_strategy="spaced")
        return validation.from_dict(PreprocessConfig, plain, str(self.path / workspace.DATA))

    @property
    def index_path(self) -> Path:
        """Where the run's index is unless another place is named."""
        return self.path / INDEX

    def open_index(self, path: Path | None = None) -> Index:
        """Open the index, and check that this model made it.

        Raises:
            IndexStoreError: missing, or of another model; dimension and fingerprint are named.
        """
        return Index.open(path or self.index_path, dim=self.dim, fingerprint=self.fingerprint)

    def collection(self, index: Path | None = None) -> Collection:
        """Return the tracks to search: of the index, or of the run itself where none was built.

        Raises:
            IndexStoreError: the index is of another model. RunError: there is neither.
        """
        if index is not None or (self.index_path / "index.json").is_file():
            return self.open_index(index).collection
        if not self.has_embeddings:
            raise RunError(
                f"{self.path} has neither an index nor vectors; run `subgenre index LIBRARY`, "
                "or `subgenre evaluate`"
            )
        return Collection.of(self.tracks, self.embeddings.vectors)

    @property
    def held_out(self) -> tuple[str, ...]:
        """Ids of tracks held out of training; empty where the run has no vectors."""
        if not self.has_embeddings:
            return ()
        stored = self.embeddings
        return tuple(i for i, s in zip(stored.ids, stored.splits, strict=True) if s == "test")

    @property
    def learnt(self) -> frozenset[str]:
        """Ids of tracks that the model was trained on; empty where the run has no vectors."""
        if not self.has_embeddings:
            return frozenset()
        stored = self.embeddings
        told = zip(stored.ids, stored.splits, strict=True)
        return frozenset(i for i, side in told if side == "train")

    def classifier(self, alpha: float = ALPHA) -> Classifier:
        """Fit on the run's training tracks, calibrated on those held out.

        Raises:
            RunError: no vectors. EvaluationError: fewer than two subgenres, or a bad alpha.
        """
        stored = self.embeddings
        label = list(zip(stored.genres, stored.subgenres, strict=True))
        train = [i for i, side in enumerate(stored.splits) if side == "train"]
        known = {label[i] for i in train}
        test = [i for i, s in enumerate(stored.splits) if s == "test" and label[i] in known]
        calibration = (stored.vectors[test], [label[i] for i in test]) if test else None
        return classify.fit(
            stored.vectors[train], [label[i] for i in train], calibration=calibration, alpha=alpha
        )

    def embed(
        self, paths: Sequence[Path], *, workers: int | None = None, console: Console | None = None
    ) -> FileVectors:
        """Embed audio files as the training tracks were; what can't be read is listed. Needs torch.

        Raises:
            RunError: the model's files are missing or damaged.
        """
        from subgenre.models import embedding

        with (console or Silent()).progress("embedding") as bar:
            return embedding.embed_files(
                self.encoder,
                paths,
                self.preprocess,
                device=self._device,
                workers=workers,
                on_progress=bar,
            )

    def embed_each(
        self, paths: Sequence[Path], *, workers: int | None = None
    ) -> Iterator[tuple[int, FileVectors]]:
        """Embed audio files one by one: position, and the vectors of that file. Needs torch."""
        from subgenre.models import embedding

        return embedding.embed_each(
            self.encoder, paths, self.preprocess, device=self._device, workers=workers
        )

    @property
    def _device(self) -> torch.device:
        from subgenre.core import hardware

        return hardware.pick_device(self.settings.run.device)


def open_stored(run: Path | None = None, console: Console | None = None) -> StoredRun:
    """Open a model folder, by default the newest here with vectors; `console` hears which that is.

    Raises:
        RunError: there is none, or its description is damaged. ConfigError: so are its settings.
    """
    path = workspace.find_run(run, console, vectors=True)
    data = files.read_json(path / workspace.DATA, version=1, error=RunError)
    config = path / workspace.CONFIG
    settings = validation.from_dict(TrainConfig, validation.load_toml(config), str(config))
    return StoredRun(path, settings, data)
