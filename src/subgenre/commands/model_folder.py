"""The one reader of a model folder: settings, features, split, vectors, index and encoder.

All but the settings is read, and what reads it imported, when it is first used; torch is loaded
only for chunks and audio.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subgenre import config
from subgenre.config import PreprocessConfig, TrainConfig
from subgenre.core import files, validation, workspace
from subgenre.core.progress import Console, Silent
from subgenre.errors import ConfigError, FeatureError, RunError
from subgenre.library.track import Track

if TYPE_CHECKING:
    import torch

    from subgenre.dataset.folder import FeatureFolder
    from subgenre.dataset.splits import Split
    from subgenre.dataset.track_vectors import Embeddings
    from subgenre.models.encoder import Encoder
    from subgenre.models.engines import Frozen
    from subgenre.models.file_vectors import FileVectors, Kept
    from subgenre.search.address import Address
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
        console: receives the name of the engine that embeds.
    """

    path: Path
    settings: TrainConfig
    data: dict[str, Any]
    moved_features: Path | None = None
    console: Console = field(default_factory=Silent)

    @classmethod
    def open(
        cls,
        path: Path | None = None,
        console: Console | None = None,
        *,
        features: Path | None = None,
        vectors: bool = True,
        engine: str | None = None,
    ) -> ModelFolder:
        """Open a model folder.

        Args:
            path: by default the newest model here; `console` gets its name.
            features: where its feature folder is now, if it has moved.
            vectors: by default, choose a model that has track vectors, if there is one.
            engine: see `engines.select`; by default that of the training.

        Raises:
            RunError: no model there, or a damaged one. ConfigError: damaged settings.
        """
        path = workspace.find_run(path, console, vectors=vectors)
        data = _read_data(path / workspace.DATA)
        _check_file(path / workspace.CONFIG, data)
        settings = config.load_settings(path / workspace.CONFIG)
        if engine:
            settings = config.replace(settings, "run", engine=engine)
        return cls(path, settings, data, features, console or Silent())

    @property
    def features_path(self) -> Path:
        """Where the feature folder is, or was."""
        return self.moved_features or files.located(self.data["features"], self.path)

    @property
    def root(self) -> Path | None:
        """The folder of the library that it was trained on; None if it is unknown."""
        root = self.data.get("root")
        return files.located(root, self.path) if root else None

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
        if not path.is_file():
            return {}
        way_out = f"run `subgenre evaluate --run {self.path}`"
        figures = files.read_json(path, version=1, error=RunError, way_out=way_out)
        try:
            _check_figures(figures)
        except ConfigError as problem:
            raise RunError(f"{path} is damaged ({problem}); {way_out}") from problem
        self._check_same(path, figures.get("encoder"), way_out)
        return figures

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

        path = self.features_path
        if not path.is_dir():
            raise FeatureError(
                f"the features of {self.path} are gone from {path}; run `subgenre preprocess` "
                "again, or name where they are now with --features"
            )
        folder = FeatureFolder.open(path)
        if list(folder.labels) != self.data["labels"]:
            raise FeatureError(f"{path} has other subgenres than {self.path} was trained on")
        cut = self.data.get("preprocess", folder.config.to_dict())
        if PreprocessConfig.from_dict(cut) != folder.config:
            raise FeatureError(
                f"{path} has chunks of other settings than {self.path} was trained on; run "
                "`subgenre preprocess` with those again, or train again"
            )
        return folder

    @cached_property
    def split(self) -> Split:
        """The training and test tracks, checked against `features`.

        Raises:
            SplitError: the file is missing or damaged, or the split leaks. RunError: it is not
                the split that the model was trained with. FeatureError: the features of its
                tracks are not those that the model was trained on.
        """
        from subgenre.dataset import splits

        self.check_split()
        split = splits.load(self.path / workspace.SPLIT, self.features.tracks)
        found = self.features.fingerprint_of((*split.train, *split.test))
        if found != self.data.get("tracks", found):
            raise FeatureError(
                f"{self.features.path} has other chunks of the tracks than {self.path} was trained "
                "on; name the features that it was trained on with --features, or train again"
            )
        return split

    def check_split(self) -> None:
        """Check that the file of the split is whole and the one that the model was trained with.

        Raises:
            RunError: it is not.
        """
        path = self.path / workspace.SPLIT
        files.read_json(path, version=1, error=RunError, way_out=workspace.COPY_AGAIN)
        _check_file(path, self.data)

    @cached_property
    def frozen_encoder(self) -> Encoder:
        """An encoder around the backbone as it was before training.

        A frozen backbone is in the model folder; one that was tuned is loaded again.
        """
        from subgenre.training import fit

        if self.settings.model.tune == "head":
            return self.encoder
        backbone = fit.load_backbone(
            self.settings.model.backbone, self.features, self.settings.run, self.console
        )
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
        """Read the tags by track id from the feature folder; empty if that is gone."""
        rows = self.feature_rows(_TRACKS, "id", *_TAGS)
        return {row.pop("id"): row for row in rows}

    def feature_rows(self, name: str, *columns: str) -> list[dict[str, Any]]:
        """Read columns of a table of the feature folder; no row if the folder is gone.

        Raises:
            FeatureError: the folder is there, and the table is missing or damaged.
        """
        from subgenre.core import tables

        path = self.features_path
        try:
            rows: list[dict[str, Any]] = tables.read(path / name, columns).to_pylist()
        except (OSError, ValueError, KeyError) as problem:
            if isinstance(problem, OSError) and not (path / workspace.DATASET).exists():
                return []
            raise FeatureError(
                f"{path / name} is damaged ({problem}); run `subgenre preprocess` again"
            ) from problem
        return rows

    @cached_property
    def history(self) -> tuple[dict[str, Any], ...]:
        """The epochs of the training.

        Raises:
            RunError: the file is missing or damaged.
        """
        from subgenre.core import tables

        path = self.path / workspace.HISTORY
        _check_file(path, self.data)
        try:
            return tuple(tables.read(path).to_pylist())
        except (OSError, ValueError) as problem:
            raise RunError(f"{path} is damaged ({problem}); {workspace.COPY_AGAIN}") from problem

    @cached_property
    def labels(self) -> frozenset[tuple[str, str]]:
        """Pairs (genre, subgenre) that the model was trained on."""
        if self.has_embeddings:
            return frozenset(self.embeddings.labels) - {("", "")}
        return frozenset(zip(self.data["genres"], self.data["labels"], strict=True))

    @cached_property
    def encoder(self) -> Encoder:
        """The trained encoder and its engine; loads torch.

        Raises:
            RunError: its files are missing, damaged, or another model's.
            ConfigError, MissingExtraError: as `engines.select`.
        """
        from subgenre.models import encoder, engines

        loaded = encoder.load(self.path)
        path = self.path / encoder.STRUCTURE
        found = files.read_json(path, version=encoder.FORMAT_VERSION, error=RunError)["fingerprint"]
        self._check_same(path, found, workspace.COPY_AGAIN)
        engines.select(
            loaded.backbone,
            self.settings.run.engine,
            self.preprocess,
            device=self._device,
            console=self.console,
        )
        return loaded

    def _check_same(self, path: Path, found: str | None, way_out: str) -> None:
        """Refuse a file that belongs to another model than `data.json`; None: it names none."""
        expected = self.data.get("encoder", found)
        if found not in (None, expected):
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
            path = self.features_path / workspace.DATASET
            if not path.is_file():
                return PreprocessConfig(chunk_strategy="spaced")
            plain = files.read_json(path, version=1, error=FeatureError).get("config", {})
        return PreprocessConfig.from_dict(plain, str(self.path / workspace.DATA))

    @property
    def index_path(self) -> Path:
        """Where the model's own index is, or will be."""
        return self.path / INDEX

    def open_index(self, address: Address | None = None) -> Index:
        """Open the index, and check that this model made it.

        Raises:
            IndexStoreError: missing, or of another model; dimension and fingerprint are named.
        """
        from subgenre.search.vector_index import Index

        return Index.open(address or self.index_path, dim=self.dim, fingerprint=self.fingerprint)

    def collection(self, index: Address | None = None) -> Collection:
        """Return the tracks to search: those of the index, else the model's own.

        Args:
            index: a folder or a server; by default the model's own, where there is one.

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
        known = set(train_labels)
        test = [row for row in self.embeddings.rows("test") if labels[row] in known]
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
            "pooled": self._pooled,
        }

    @cached_property
    def _pooled(self) -> Frozen:
        from subgenre.models import engines

        return engines.Frozen(self.encoder, self.encoder.pooled)

    @property
    def _kept(self) -> Kept:
        from subgenre.models.cache import CACHE
        from subgenre.models.file_vectors import Kept

        engine = ""
        if self.settings.run.engine != "torch":
            from subgenre.models import engines

            engine = engines.precision(self.encoder.backbone.engine, self._device)
        return Kept(self.path / CACHE, self.fingerprint, self.dim, self.preprocess, engine)

    @property
    def _device(self) -> torch.device:
        from subgenre.core import hardware

        return hardware.pick_device(self.settings.run.device)


def _read_data(path: Path) -> dict[str, Any]:
    """Read `data.json` and check the types of its values."""
    data = files.read_json(path, version=1, error=RunError, way_out=workspace.COPY_AGAIN)
    texts = tuple[str, ...]
    try:
        validation.check_kinds(
            data, workspace.DATA, features=str, root=str, fingerprint=str, encoder=str,
            labels=texts, genres=texts, preprocess=dict, checksums=dict, train_s=float,
            test_run=bool,
        )  # fmt: skip
        if len(data["labels"]) != len(data["genres"]):
            raise ConfigError("labels and genres differ in number")
        data["features"]  # every model names it
    except (ConfigError, KeyError) as problem:
        raise RunError(f"{path} is damaged ({problem}); {workspace.COPY_AGAIN}") from problem
    return data


def _check_figures(figures: Mapping[str, Any]) -> None:
    """Refuse figures of other types than `evaluate` writes.

    Raises:
        ConfigError: the key, the value and the type.
    """
    where, number = workspace.METRICS, float | None
    validation.check_kinds(
        figures,
        where,
        models=dict,
        audits=dict,
        encoder=str,
        n_train=int | None,
        n_test=int | None,
    )
    for name, scores in figures.get("models", {}).items():
        validation.check_kinds({name: scores}, where, **{name: dict})
        for metric, score in scores.items():
            validation.check_kinds({metric: score}, where, **{metric: dict})
            validation.check_kinds(score, where, **dict.fromkeys(score, number))
    validation.check_kinds(figures.get("audits", {}), where, open_set=dict, open_set_trained=dict)


def _check_file(path: Path, data: Mapping[str, Any]) -> None:
    """Refuse a file of the model folder that is not the one that `data.json` names."""
    expected = data.get("checksums", {}).get(path.name)
    if expected is None:
        return
    try:
        found = files.checksum(path.read_bytes())
    except OSError as problem:
        raise RunError(
            f"{path} can't be read ({problem.strerror}); {workspace.COPY_AGAIN}"
        ) from problem
    if found != expected:
        raise RunError(
            f"{path} is damaged or of another model: its checksum differs from that in "
            f"{workspace.DATA}; {workspace.COPY_AGAIN}"
        )
