"""The one reader of a model folder: settings, features, split, vectors, index and encoder.

All but the settings is read, and what reads it imported, when it is first used; torch is loaded
only for chunks and audio.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subgenre import config
from subgenre.config import PreprocessConfig, TrainConfig
from subgenre.core import files, workspace
from subgenre.core.progress import Console, Silent
from subgenre.errors import FeatureError, RunError
from subgenre.library.track import Track

if TYPE_CHECKING:
    import torch

    from subgenre.dataset.folder import FeatureFolder
    from subgenre.dataset.splits import Split
    from subgenre.dataset.track_vectors import Embeddings
    from subgenre.models.encoder import Encoder
    from subgenre.models.file_vectors import FileVectors, Kept
    from subgenre.search.classifier import Classifier
    from subgenre.search.collection import Collection
    from subgenre.search.vector_index import Index

INDEX = "index"  # in the model folder
_TRACKS = "tracks.parquet"  # of a feature folder
_TAGS = ("artist", "album", "title", "label", "year", "bpm", "duration_s", "size", "mtime_ns")


@dataclass(frozen=True)
class ModelFolder:
    """A trained model on disk.

    Attributes:
        path: of the folder.
        settings: what it was trained with.
        data: what `data.json` records of the training data.
        moved_features: where its feature folder is now, if it has moved.
    """

    path: Path
    settings: TrainConfig
    data: dict[str, Any]
    moved_features: Path | None = None

    @classmethod
    def open(
        cls,
        path: Path | None = None,
        console: Console | None = None,
        *,
        features: Path | None = None,
        vectors: bool = True,
    ) -> ModelFolder:
        """Open a model folder.

        Args:
            path: by default the newest model here; `console` gets its name.
            features: where its feature folder is now, if it has moved.
            vectors: by default, choose a model that has track vectors, if there is one.

        Raises:
            RunError: no model there, or a damaged one. ConfigError: damaged settings.
        """
        path = workspace.find_run(path, console, vectors=vectors)
        data = files.read_json(path / workspace.DATA, version=1, error=RunError)
        return cls(path, config.load_settings(path / workspace.CONFIG), data, features)

    @property
    def is_test_run(self) -> bool:
        """Whether `train --test-run` made it, from a few tracks."""
        return self.data.get("test_run") is True

    @cached_property
    def figures(self) -> dict[str, Any]:
        """`metrics.json`; empty until the model is evaluated.

        Raises:
            RunError: the file is damaged.
        """
        path = self.path / workspace.METRICS
        return files.read_json(path, version=1, error=RunError) if path.is_file() else {}

    @property
    def scores(self) -> dict[str, dict[str, float]]:
        """Figures of the model on its held-out tracks, by metric; empty until it is evaluated."""
        found: dict[str, dict[str, float]] = self.figures.get("models", {}).get("trained", {})
        return found

    @cached_property
    def features(self) -> FeatureFolder:
        """The feature folder that the model was trained on; loads torch.

        Raises:
            FeatureError: it is gone, damaged, or has other subgenres than the model.
        """
        from subgenre.dataset.folder import FeatureFolder

        path = self.moved_features or Path(self.data["features"])
        if not path.is_dir():
            raise FeatureError(
                f"the features of {self.path} are gone from {path}; run `subgenre preprocess` "
                "again, or name where they are now with --features"
            )
        folder = FeatureFolder.open(path)
        if list(folder.labels) != self.data["labels"]:
            raise FeatureError(f"{path} has other subgenres than {self.path} was trained on")
        return folder

    @cached_property
    def split(self) -> Split:
        """The training and test tracks, checked against `features`.

        Raises:
            SplitError: the file is missing or damaged, or the split leaks.
        """
        from subgenre.dataset import splits

        return splits.load(self.path / workspace.SPLIT, self.features.tracks)

    @cached_property
    def frozen_encoder(self) -> Encoder:
        """An encoder around the backbone as it was before training.

        A frozen backbone is in the model folder; one that was tuned is loaded again.
        """
        from subgenre.training import fit

        if self.settings.model.tune == "head":
            return self.encoder
        backbone = fit.load_backbone(self.settings.model.backbone, self.features)
        rows = self.features.rows(self.split.train)
        seed = self.settings.run.seed
        return fit.new_encoder(backbone, self.settings.model, self.features, rows, seed)

    @cached_property
    def embeddings(self) -> Embeddings:
        """Vectors of the training and test tracks.

        Raises:
            RunError: the model has none yet, or they are another model's.
        """
        path = self.path / workspace.EMBEDDINGS
        if not path.is_file():
            raise RunError(
                f"{self.path} has no vectors yet; run `subgenre evaluate --run {self.path}`"
            )
        from subgenre.dataset import track_vectors

        stored = track_vectors.read_embeddings(path)
        self._check_same(path, stored.fingerprint, "`subgenre evaluate` writes it again")
        return stored

    @property
    def has_embeddings(self) -> bool:
        """Whether the model folder holds vectors of its tracks."""
        return (self.path / workspace.EMBEDDINGS).is_file()

    @cached_property
    def tracks(self) -> tuple[Track, ...]:
        """The tracks of `embeddings`, with tags while the feature folder is there."""
        tags = self._tags()
        stored = self.embeddings
        columns = zip(stored.ids, stored.paths, stored.genres, stored.subgenres, strict=True)
        return tuple(
            Track(track_id, path, genre, subgenre, **tags.get(track_id, {}))
            for track_id, path, genre, subgenre in columns
        )

    def _tags(self) -> dict[str, dict[str, Any]]:
        """Read the tags by track id from the feature folder; empty where they can't be read."""
        import pyarrow as pa

        from subgenre.core import tables

        path = Path(self.data.get("features", "")) / _TRACKS
        try:
            rows = tables.read(path, ["id", *_TAGS]).to_pylist()
        except (OSError, ValueError, KeyError, pa.ArrowException):
            return {}
        return {row.pop("id"): row for row in rows}

    @cached_property
    def labels(self) -> frozenset[tuple[str, str]]:
        """Pairs (genre, subgenre) that the model was trained on."""
        if self.has_embeddings:
            return frozenset(self.embeddings.labels) - {("", "")}
        return frozenset(zip(self.data["genres"], self.data["labels"], strict=True))

    @cached_property
    def encoder(self) -> Encoder:
        """The trained encoder; loads torch.

        Raises:
            RunError: its files are missing, damaged, or another model's.
        """
        from subgenre.models import encoder

        loaded = encoder.load(self.path)
        path = self.path / encoder.STRUCTURE
        found = files.read_json(path, version=encoder.FORMAT_VERSION, error=RunError)["fingerprint"]
        self._check_same(path, found, "copy the whole folder again, or train again")
        return loaded

    def _check_same(self, path: Path, found: str, way_out: str) -> None:
        """Refuse a file that belongs to another model than `data.json`."""
        expected = self.data.get("encoder", found)
        if found != expected:
            raise RunError(
                f"{path} is of model {found}, {workspace.DATA} beside it of {expected}; {way_out}"
            )

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the encoder: as written beside it, else computed."""
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
        """How tracks were cut into chunks for training; other files are cut the same way."""
        plain = self.data.get("preprocess")
        if plain is None:
            try:
                text = (Path(self.data["features"]) / workspace.DATASET).read_text(encoding="utf-8")
                plain = json.loads(text)["config"]
            except (OSError, ValueError, KeyError):
                return PreprocessConfig(chunk_strategy="spaced")
        return PreprocessConfig.from_dict(plain, str(self.path / workspace.DATA))

    @property
    def index_path(self) -> Path:
        """Where the model's own index is, or will be."""
        return self.path / INDEX

    def open_index(self, path: Path | None = None) -> Index:
        """Open the index, and check that this model made it.

        Raises:
            IndexStoreError: missing, or of another model; dimension and fingerprint are named.
        """
        from subgenre.search.vector_index import Index

        return Index.open(path or self.index_path, dim=self.dim, fingerprint=self.fingerprint)

    def collection(self, index: Path | None = None) -> Collection:
        """Return the tracks to search: those of the index, else the model's own.

        Args:
            index: an index folder; by default the model's own, where there is one.

        Raises:
            IndexStoreError: the index is of another model. RunError: no index and no vectors.
        """
        from subgenre.search import storage
        from subgenre.search.collection import Collection

        if index is not None or storage.exists(self.index_path):
            return self.open_index(index).collection
        if not self.has_embeddings:
            raise RunError(
                f"{self.path} has neither an index nor vectors; run `subgenre index LIBRARY`, "
                "or `subgenre evaluate`"
            )
        return Collection.of(self.tracks, self.embeddings.vectors)

    @cached_property
    def train_ids(self) -> frozenset[str]:
        """Ids of the training tracks; empty without vectors."""
        return frozenset(self._ids("train"))

    @cached_property
    def test_ids(self) -> tuple[str, ...]:
        """Ids of the tracks held out of training; empty without vectors."""
        return self._ids("test")

    def _ids(self, split: str) -> tuple[str, ...]:
        if not self.has_embeddings:
            return ()
        return tuple(self.embeddings.ids[row] for row in self.embeddings.rows(split))

    def classifier(self, alpha: float = config.ALPHA) -> Classifier:
        """Fit a classifier on the model's training tracks and calibrate it on the test tracks.

        Raises:
            RunError: no vectors. EvaluationError: fewer than two subgenres, or a bad alpha.
        """
        from subgenre.search import classifier

        vectors, labels = self.embeddings.vectors, self.embeddings.labels
        train = self.embeddings.rows("train")
        train_labels = [labels[row] for row in train]
        test = [row for row in self.embeddings.rows("test") if labels[row] in set(train_labels)]
        calibration = (vectors[test], [labels[row] for row in test]) if test else None
        return classifier.fit(
            vectors[train],
            train_labels,
            calibration=calibration,
            alpha=alpha,
            none_right=self.rejection.get("none_right") or math.nan,
        )

    @property
    def rejection(self) -> dict[str, Any]:
        """How well tracks of unknown subgenres are rejected, by the audit; empty without it.

        That of models trained without a subgenre, else that of the frozen vectors.
        """
        audits = self.figures.get("audits", {})
        trained = audits.get("open_set_trained", {}).get("trained without it")
        found = trained or audits.get("open_set", {}).get("gaussian")
        return found if isinstance(found, dict) else {}

    def embed(
        self, paths: Sequence[Path], *, workers: int | None = None, console: Console | None = None
    ) -> FileVectors:
        """Embed audio files, cut as the training tracks were; loads torch.

        What was embedded before is read from the model folder. A file that can't be read is in
        `skipped` of the result.

        Raises:
            RunError: the model's files are missing or damaged.
        """
        if len(paths) == 1 and (found := self._kept.find(paths[0])):
            return found  # without torch
        from subgenre.models import file_embedding

        with (console or Silent()).progress("embedding") as bar:
            options = self._embedding(workers)
            return file_embedding.embed_files(self.encoder, paths, on_progress=bar, **options)

    def embed_each(
        self, paths: Sequence[Path], *, workers: int | None = None
    ) -> Iterator[tuple[int, FileVectors]]:
        """Embed audio files one by one: yield the position and the vectors of each; loads torch."""
        from subgenre.models import file_embedding

        return file_embedding.embed_each(self.encoder, paths, **self._embedding(workers))

    def _embedding(self, workers: int | None) -> dict[str, Any]:
        """Return the options of `file_embedding.embed_each` for this model."""
        return {
            "config": self.preprocess,
            "device": self._device,
            "workers": workers,
            "kept": self._kept,
        }

    @property
    def _kept(self) -> Kept:
        from subgenre.models.cache import CACHE
        from subgenre.models.file_vectors import Kept

        return Kept(self.path / CACHE, self.fingerprint, self.dim, self.preprocess)

    @property
    def _device(self) -> torch.device:
        from subgenre.core import hardware

        return hardware.pick_device(self.settings.run.device)
