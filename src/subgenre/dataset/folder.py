"""Read and write the feature folder: chunk files and their tables.

    <folder>/<subgenre>/<name>-<id>_chunk<N>.pt   one chunk: features [T, F], float16, un-normalised
    <folder>/trash/...                            chunks of the trash pool
    <folder>/chunks.parquet                       one row per chunk file
    <folder>/tracks.parquet                       one row per track; paths relative to the root
    <folder>/dataset.json                         spec, settings, labels, statistics, versions
    <folder>/skipped.csv                          path, reason

The files are not trusted: each column has the type of the schema, a chunk file lies inside the
folder, and chunks are read as plain tensors.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import pickle
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from subgenre.audio import measures
from subgenre.audio.features import MUSICNN_SPEC, FeatureSpec, Statistics, known_front_ends
from subgenre.config import DEFAULT_BACKBONE, PreprocessConfig
from subgenre.core import files, tables, validation, workspace
from subgenre.core.files import path_from_text, path_to_text
from subgenre.errors import ConfigError, FeatureError
from subgenre.library.track import Track

FORMAT_VERSION = 1
DATASET, SKIPPED = workspace.DATASET, "skipped.csv"
TRASH_FOLDER = "trash"
CHUNKS, TRACKS = "chunks.parquet", "tracks.parquet"
AGAIN = "run `subgenre preprocess` again"
ANEW = "run `subgenre preprocess --overwrite`"

CHUNK_SCHEMA = pa.schema(
    [
        ("file", pa.string()),
        ("track", pa.string()),
        ("label", pa.string()),
        ("index", pa.int64()),
        ("start_s", pa.float64()),
        ("n_frames", pa.int64()),
        ("count", pa.int64()),
        ("mean", pa.float64()),
        ("m2", pa.float64()),
        *((name, pa.float64()) for name in measures.COLUMNS),
        ("crc32", pa.int64()),
    ]
)
# columns that earlier features do not have, and what stands there instead
_ADDED: dict[str, float | None] = {"cancelled_share": math.nan, "crc32": None}
_TRACK_KINDS = {"str": pa.string(), "Path": pa.string(), "int": pa.int64(), "bool": pa.bool_()}
TRACK_SCHEMA = pa.schema(
    [
        (f.name, _TRACK_KINDS.get(str(f.type), pa.float64()))
        for f in dataclasses.fields(Track)
        if f.default is not None  # tempo and key, which an index measures
    ]
)


def chunk_file(label: str, path: Path, track_id: str, index: int) -> str:
    """Return a chunk's file name inside the folder; `label` "" is the trash pool."""
    return f"{label or TRASH_FOLDER}/{files.safe_name(path.stem)}-{track_id[:8]}_chunk{index}.pt"


def write_chunk(path: Path, features: Tensor, *, start_s: float, track_id: str) -> int:
    """Write one chunk [T, F] as float16, atomically; return the file's checksum.

    `torch.load(weights_only=True)` reads it.
    """
    # torch.save would write the whole storage of a view
    stored = features.to(torch.float16).clone(memory_format=torch.contiguous_format)
    buffer = io.BytesIO()
    torch.save({"input_values": stored, "start_s": float(start_s), "track": track_id}, buffer)
    files.write_bytes(path, buffer.getvalue())
    return files.checksum(buffer.getbuffer())


def window_frames(spec: FeatureSpec, config: PreprocessConfig) -> int:
    """Return T of every stored chunk."""
    return spec.frames(round(config.chunk_s * spec.rate))


@dataclass(frozen=True, eq=False)
class FeatureFolder:
    """A feature folder opened for reading by `open`.

    Attributes:
        path: of the folder. root: of the library; the paths of tracks start from it.
        spec, config: settings of the chunks.
        tracks, trash: with at least one chunk, by label folder and id.
        labels: folder names of the subgenres, sorted; the index is the class number.
        genres: the genre of each label.
        chunks: `chunks.parquet`, tracks first, then trash.
        track_of: int [n], position in tracks + trash of each chunk row.
        label_of: int [n], class number of each chunk row, -1 for trash.
        backbone: for which the chunks were computed.
    """

    path: Path
    root: Path
    spec: FeatureSpec
    config: PreprocessConfig
    tracks: tuple[Track, ...]
    trash: tuple[Track, ...]
    labels: tuple[str, ...]
    genres: tuple[str, ...]
    chunks: pa.Table
    track_of: NDArray[np.int64]
    label_of: NDArray[np.int64]
    backbone: str = DEFAULT_BACKBONE

    @classmethod
    def open(cls, path: Path) -> FeatureFolder:
        """Open a feature folder.

        Raises:
            FeatureError: missing, damaged, of another version, or with tables that do not match.
        """
        path = Path(path)
        dataset = read_dataset(path)
        front_end, backbone = dataset["spec"].get("front_end"), dataset.get("backbone")
        if isinstance(front_end, str) and front_end not in known_front_ends(front_end):
            raise FeatureError(
                f"the features in {path} have the front end '{front_end}' of another package: "
                f"install it, or give --trust {backbone or 'package:function'}"
            )
        try:
            root = files.located(dataset["root"], path)
            spec = FeatureSpec.from_dict(dataset["spec"])
            config = PreprocessConfig.from_dict(dataset["config"])
            folders = {(d["genre"], d["subgenre"]): d["folder"] for d in dataset["labels"]}
            genre_of = {d["folder"]: d["genre"] for d in dataset["labels"]}
            backbone = backbone_of(dataset)
        except (ConfigError, KeyError, ValueError) as problem:
            raise _damaged(path / DATASET, problem, ANEW) from problem
        recorded = dataset.get("checksums", {})
        chunks = read_chunks(path, recorded.get(CHUNKS))
        everyone = read_tracks(path, root, recorded.get(TRACKS))
        tracks = tuple(t for t in everyone if not t.trash)
        trash = tuple(t for t in everyone if t.trash)
        labels = tuple(sorted(genre_of))
        keys = [(t.id, folders.get((t.genre, t.subgenre), "?")) for t in tracks]
        keys += [(t.id, "") for t in trash]
        position = {key: i for i, key in enumerate(keys)}
        number = {"": -1, **{label: i for i, label in enumerate(labels)}}
        rows = list(zip(_column(chunks, "track"), _column(chunks, "label"), strict=True))
        if any(row not in position for row in rows) or any(r[1] not in number for r in rows):
            raise FeatureError(f"{path / CHUNKS} and {TRACKS} do not match; {AGAIN}")
        track_of = np.array([position[row] for row in rows], dtype=np.int64)
        label_of = np.array([number[label] for _, label in rows], dtype=np.int64)
        genres = tuple(genre_of[label] for label in labels)
        return cls(
            path=path,
            root=root,
            spec=spec,
            config=config,
            tracks=tracks,
            trash=trash,
            labels=labels,
            genres=genres,
            chunks=chunks,
            track_of=track_of,
            label_of=label_of,
            backbone=backbone,
        )

    def rows(self, track_ids: Iterable[str]) -> NDArray[np.int64]:
        """Return the rows of these tracks' chunks, ascending.

        Raises:
            FeatureError: an id that has no chunk here.
        """
        ids = set(track_ids)
        everyone = [t.id for t in (*self.tracks, *self.trash)]
        unknown = sorted(ids.difference(everyone))
        if unknown:
            more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
            raise FeatureError(f"{self.path} has no track {unknown[0]}{more}; {AGAIN}")
        chosen = np.array([id_ in ids for id_ in everyone], dtype=bool)
        return np.flatnonzero(chosen[self.track_of])

    def load(self, rows: ArrayLike) -> Tensor:
        """Load chunks [B, T, F], float32, un-normalised, as stored.

        Raises:
            FeatureError: a file that is missing, damaged or not the expected chunk.
        """
        T = window_frames(self.spec, self.config)
        places = np.asarray(rows, dtype=np.int64).ravel()
        out = torch.empty((len(places), T, self.spec.n_mels), dtype=torch.float32)
        chosen = self.chunks.select(["file", "track", "crc32"]).take(places).to_pylist()
        for i, chunk in enumerate(chosen):
            path, shape = self.path / chunk["file"], (T, self.spec.n_mels)
            out[i] = read_chunk(path, shape, chunk["track"], chunk["crc32"])
        return out

    def n_frames(self, rows: ArrayLike) -> NDArray[np.int64]:
        """Return the number of frames of each chunk without padding."""
        return self._numbers("n_frames").astype(np.int64)[np.asarray(rows, dtype=np.int64)]

    def statistics(self, rows: ArrayLike) -> Statistics:
        """Return the statistics over all values of these chunks, without padded frames."""
        index = np.asarray(rows, dtype=np.int64)
        columns = [self._numbers(name)[index].tolist() for name in ("count", "mean", "m2")]
        return Statistics.merged(
            Statistics(int(count), mean, m2) for count, mean, m2 in zip(*columns, strict=True)
        )

    @cached_property
    def fingerprint(self) -> str:
        """Hash of spec, config and chunks, without the location and the file names."""
        return self._hash(self.chunks)

    def fingerprint_of(self, track_ids: Iterable[str]) -> str:
        """Return the `fingerprint` that the folder would have with these tracks alone."""
        return self._hash(self.chunks.take(self.rows(track_ids)))

    def _hash(self, chunks: pa.Table) -> str:
        """Hash JSON [spec, config, {column: values}], a column at a time."""
        kept = sorted(name for name in chunks.column_names if name not in ("file", *_ADDED))
        settings = json.dumps([self.spec.to_dict(), self.config.to_dict()], sort_keys=True)
        found = hashlib.sha256(f"{settings[:-1]}, {{".encode())
        for name in kept:
            comma = "" if name == kept[0] else ", "
            found.update(f"{comma}{json.dumps(name)}: ".encode())
            found.update(json.dumps(chunks[name].to_pylist()).encode())
        found.update(b"}]")
        return found.hexdigest()[:32]

    def _numbers(self, name: str) -> NDArray[np.float64]:
        return np.asarray(self.chunks[name].to_numpy())


def read_chunk(path: Path, shape: tuple[int, int], track_id: str, crc: int | None = None) -> Tensor:
    """Read one chunk file: float16 [T, F] of the track `track_id`, finite.

    Args:
        crc: the checksum that the file was written with; None: of an earlier version.

    Raises:
        FeatureError: missing, damaged, or not this chunk.
    """
    try:
        data = path.read_bytes()
        if crc is not None and files.checksum(data) != crc:
            raise ValueError("its checksum differs")
        stored = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        values, track = stored["input_values"], stored["track"]
    except FileNotFoundError:
        raise FeatureError(f"{path} is missing; {AGAIN}") from None
    except (
        *(OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError),
        pickle.UnpicklingError,
    ) as problem:
        raise FeatureError(f"{path} is damaged; delete it and {AGAIN}") from problem
    right = isinstance(values, Tensor) and values.dtype == torch.float16
    if not right or tuple(values.shape) != shape or track != track_id:
        raise FeatureError(
            f"{path} does not hold chunk {list(shape)} of track {track_id}; delete it and {AGAIN}"
        )
    # values were checked before they were written, and the checksum shows that these are the same
    if crc is None and not torch.isfinite(values).all():
        raise FeatureError(f"{path} holds values that are not finite; delete it and {AGAIN}")
    loaded: Tensor = values
    return loaded


def read_dataset(path: Path) -> dict[str, Any]:
    """Read `dataset.json` of the feature folder `path`.

    Raises:
        FeatureError: the folder or the file is missing, damaged or of another version.
    """
    workspace.check_features(path)
    file = path / DATASET
    dataset = files.read_json(file, version=FORMAT_VERSION, error=FeatureError, way_out=ANEW)
    entries = tuple[dict, ...]  # type: ignore[type-arg]
    try:
        validation.check_kinds(
            dataset, DATASET, root=str, spec=dict, config=dict, backbone=str, checksums=dict,
            labels=entries, failures=entries,
        )  # fmt: skip
        validation.check_kinds(dataset["spec"], DATASET, front_end=str)
        for entry in (*dataset.get("labels", ()), *dataset.get("failures", ())):
            validation.check_kinds(entry, DATASET, **dict.fromkeys(entry, str))
    except (ConfigError, KeyError) as problem:
        raise _damaged(file, problem, ANEW) from problem
    return dataset


def _damaged(path: Path, problem: Exception, way_out: str = AGAIN) -> FeatureError:
    missing = f"{problem} is missing" if isinstance(problem, KeyError) else problem
    return FeatureError(f"{path} is damaged ({missing}); {way_out}")


def backbone_of(dataset: Mapping[str, Any]) -> str:
    """Return the backbone that the features of a `dataset.json` are for.

    Older files name only the front end; its default backbone is used.
    """
    built_in = dataset["spec"]["front_end"] == MUSICNN_SPEC.front_end
    recorded: str | None = dataset.get("backbone")
    return recorded or ("musicnn" if built_in else DEFAULT_BACKBONE)


def dataset_json(
    *,
    root: str,
    settings: Mapping[str, Any],
    labels: Iterable[tuple[str, str, str]],
    rows: list[dict[str, Any]],
    n_tracks: int,
    n_trash: int,
    n_skipped: int,
    **more: Any,
) -> dict[str, Any]:
    """Build `dataset.json`.

    Args:
        root: of the library, as `files.portable` gives it.
        labels: (folder, genre, subgenre). rows: of the chunks.
    """
    everything = Statistics.merged(Statistics(r["count"], r["mean"], r["m2"]) for r in rows)
    named = [{"folder": f, "genre": g, "subgenre": s} for f, g, s in sorted(labels)]
    return {
        "format_version": FORMAT_VERSION,
        "root": root,
        **settings,
        "labels": named,
        "genres": sorted({label["genre"] for label in named}),
        "statistics": {**dataclasses.asdict(everything), "std": everything.std},
        "counts": {
            "tracks": n_tracks,
            "trash": n_trash,
            "chunks": len(rows),
            "skipped": n_skipped,
        },
        **more,
    }


def read_chunks(path: Path, recorded: int | None = None) -> pa.Table:
    """Read `chunks.parquet`; every `file` is `<folder>/<name>.pt` inside the feature folder.

    Args:
        recorded: its checksum in `dataset.json`, where there is one.

    Raises:
        FeatureError: missing, damaged or of another folder, a file outside the folder, or numbers
            that no chunk has.
    """
    table = _read_table(path / CHUNKS, CHUNK_SCHEMA, recorded)
    check_files(path / CHUNKS, table["file"].to_pylist())
    for name in ("index", "start_s", "n_frames", "count", "mean", "m2"):
        values = np.asarray(table[name].to_numpy())
        wrong = ~np.isfinite(values) | ((values < 0) & (name != "mean"))
        if wrong.any():
            row = int(wrong.argmax())
            problem = ValueError(f"{name} of {table['file'][row]} is {values[row]}")
            raise _damaged(path / CHUNKS, problem)
    return table


def check_files(source: Path, names: Iterable[str]) -> None:
    """Refuse names other than `<folder>/<name>.pt`; the error names `source`, the file read."""
    for name in names:
        parts = PurePosixPath(name).parts
        if len(parts) != 2 or parts[0] in ("/", "..") or set(name) & set("\\:\0"):
            raise FeatureError(f"{source} names a file outside its folder: {name!r}")
        if parts[1] == ".." or not name.endswith(".pt"):
            raise FeatureError(f"{source} names a file that is not a chunk: {name!r}")


def write_chunks(path: Path, rows: list[dict[str, Any]]) -> int:
    """Write `chunks.parquet`, atomically; return the checksum of its content."""
    return tables.write(path / CHUNKS, pa.Table.from_pylist(rows, schema=CHUNK_SCHEMA))


def read_tracks(path: Path, root: Path, recorded: int | None = None) -> list[Track]:
    """Read `tracks.parquet`; paths start from `root`, `recorded` is as of `read_chunks`.

    Raises:
        FeatureError: missing, damaged or of another folder.
    """
    rows = _read_table(path / TRACKS, TRACK_SCHEMA, recorded).to_pylist()
    return [Track(**{**row, "path": root / path_from_text(row["path"])}) for row in rows]


def write_tracks(path: Path, tracks: Iterable[Track], root: Path) -> int:
    """Write `tracks.parquet`, atomically; paths inside `root` are relative to it.

    Returns:
        the checksum of its content.
    """
    rows = [
        {name: _plain(getattr(track, name)) for name in TRACK_SCHEMA.names}
        | {"path": path_to_text(track.path, root)}
        for track in tracks
    ]
    return tables.write(path / TRACKS, pa.Table.from_pylist(rows, schema=TRACK_SCHEMA))


def _read_table(path: Path, schema: pa.Schema, recorded: int | None) -> pa.Table:
    try:
        table = tables.read(path)
        found = tables.recorded_checksum(table)
        for name in set(_ADDED).intersection(schema.names).difference(table.column_names):
            table = table.append_column(name, pa.array([_ADDED[name]] * len(table)))
        table = table.select(schema.names).cast(schema)
    except FileNotFoundError:
        raise FeatureError(f"{path} does not exist; {AGAIN}") from None
    except (OSError, KeyError, ValueError, pa.ArrowException) as problem:
        raise _damaged(path, problem) from problem
    if recorded not in (None, found):
        raise FeatureError(f"{path} is not the table that {DATASET} beside it names; {AGAIN}")
    if any(table[name].null_count for name in schema.names if name != "crc32"):
        raise FeatureError(f"{path} has empty fields; {AGAIN}")
    return table


def _plain(value: Any) -> Any:
    """Replace characters that are not valid Unicode with question marks."""
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value


def _column(table: pa.Table, name: str) -> list[str]:
    values: list[str] = table[name].to_pylist()
    return values
