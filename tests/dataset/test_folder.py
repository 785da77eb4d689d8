"""The feature folder: round trips, and every way in which what lies there can be wrong."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from subgenre.audio import measures
from subgenre.audio.features import FeatureSpec, Statistics
from subgenre.config import DEFAULT_BACKBONE, PreprocessConfig
from subgenre.core import files, validation
from subgenre.dataset import folder as store
from subgenre.dataset.folder import FeatureFolder
from subgenre.errors import FeatureError
from subgenre.library.track import Track
from tests import small_library

SPEC = FeatureSpec("musicnn", rate=16_000, n_mels=8, hop=256, normalise="none")
CONFIG = PreprocessConfig(chunk_s=1.0)
T = 63
LABELS = [("dark", "techno", "dark"), ("house", "house", "house")]


def track(n: int, subgenre: str = "", *, root: Path) -> Track:
    genre = {"dark": "techno", "house": "house", "": ""}[subgenre]
    path = root / (subgenre or "trash") / f"a song {n}.mp3"
    tags = {"artist": "Ärtist", "year": 2001, "bpm": 128.5, "duration_s": 200.0 + n}
    stream = {"rate": 44_100, "channels": 2, "codec": "mp3", "container": "mp3"}
    file = {"bit_rate": 320_000, "size": 1000 + n, "mtime_ns": 10**18 + n, "trash": not subgenre}
    return Track(f"{n:032x}", path, genre, subgenre, **tags, **stream, **file)


def write_folder(out: Path, root: Path) -> list[np.ndarray]:
    """Two subgenres of two tracks, one track of trash; two chunks each, the last one padded."""
    names = ["dark", "dark", "house", "house", ""]
    tracks = [track(n, name, root=root) for n, name in enumerate(names)]
    rng = np.random.default_rng(0)
    rows, stored = [], []
    for t, label in zip(tracks, names, strict=True):
        for index, n_frames in enumerate((T, 40)):
            values = rng.normal(1, 2, (n_frames, 8)).astype(np.float16)
            file = store.chunk_file(label, t.path, t.id, index)
            padded = SPEC.pad(torch.from_numpy(values), T)
            store.write_chunk(out / file, padded, start_s=index * 1.5, track_id=t.id)
            row: dict[str, Any] = {"file": file, "track": t.id, "label": label, "index": index}
            row |= {"start_s": index * 1.5, "n_frames": n_frames}
            row |= dataclasses.asdict(Statistics.of(values)) | dict.fromkeys(measures.COLUMNS, 1.0)
            rows.append(row)
            stored.append(values)
    settings = {"spec": SPEC.to_dict(), "config": validation.to_dict(CONFIG)}
    store.write_chunks(out, rows)
    store.write_tracks(out, tracks, root)
    counts = {"n_tracks": 4, "n_trash": 1, "n_skipped": 0}
    dataset = store.dataset_json(
        root=str(root), settings=settings, labels=LABELS, rows=rows, **counts
    )
    files.write_json(out / store.DATASET, dataset)
    return stored


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_folder(tmp_path / "features", tmp_path / "WAV")
    return tmp_path / "features"


def test_the_backbone_is_the_recorded_one_or_else_the_front_ends() -> None:
    assert store.backbone_of({"spec": {"front_end": "ast"}, "backbone": "/models/a"}) == "/models/a"
    assert store.backbone_of({"spec": {"front_end": "ast"}}) == DEFAULT_BACKBONE
    assert store.backbone_of({"spec": {"front_end": "musicnn"}}) == "musicnn"


def test_a_folder_is_read_as_written(tmp_path: Path) -> None:
    out, root = tmp_path / "features", tmp_path / "WAV"
    stored = write_folder(out, root)
    opened = FeatureFolder.open(out)
    assert (opened.spec, opened.config, opened.root) == (SPEC, CONFIG, root)
    assert (opened.labels, opened.genres) == (("dark", "house"), ("techno", "house"))
    assert opened.tracks == tuple(
        track(n, "dark" if n < 2 else "house", root=root) for n in range(4)
    )
    assert opened.trash == (track(4, root=root),)
    assert opened.track_of.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert opened.label_of.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, -1, -1]
    loaded = opened.load(np.arange(10))
    assert loaded.dtype == torch.float32
    assert tuple(loaded.shape) == (10, T, 8)
    for chunk, values in zip(loaded.numpy(), stored, strict=True):
        np.testing.assert_array_equal(chunk[: len(values)], values.astype(np.float32))
        assert not chunk[len(values) :].any()
    assert opened.n_frames([0, 1, 9]).tolist() == [63, 40, 40]
    assert opened.rows([opened.tracks[3].id, opened.tracks[0].id]).tolist() == [0, 1, 6, 7]
    assert opened.load([7])[0].equal(loaded[7])


def test_features_from_before_a_measure_are_read_and_keep_their_fingerprint(folder: Path) -> None:
    known = FeatureFolder.open(folder)
    table = pq.read_table(folder / "chunks.parquet").drop_columns(["cancelled_share", "crc32"])
    pq.write_table(table.replace_schema_metadata(None), folder / "chunks.parquet")
    earlier = FeatureFolder.open(folder)
    assert earlier.fingerprint == known.fingerprint
    assert np.isnan(earlier.chunks["cancelled_share"].to_numpy()).all()


def test_statistics_are_numpys_without_padding(tmp_path: Path) -> None:
    stored = write_folder(tmp_path / "features", tmp_path)
    opened = FeatureFolder.open(tmp_path / "features")
    for rows in (range(10), [1, 4, 5]):
        values = np.concatenate([stored[row].ravel() for row in rows]).astype(np.float64)
        found = opened.statistics(list(rows))
        assert found.count == values.size
        assert found.mean == pytest.approx(values.mean(), rel=1e-12)
        assert found.std == pytest.approx(values.std(), rel=1e-12)
    dataset = json.loads((tmp_path / "features" / "dataset.json").read_text())
    assert dataset["statistics"]["mean"] == opened.statistics(range(10)).mean
    assert dataset["counts"] == {"tracks": 4, "trash": 1, "chunks": 10, "skipped": 0}


def test_a_chunk_file_is_plain_tensors_of_its_own_size(tmp_path: Path) -> None:
    large = torch.randn(100, 500, 8)
    store.write_chunk(tmp_path / "a.pt", large[3, :T], start_s=2.5, track_id="ab")
    found = torch.load(tmp_path / "a.pt", weights_only=True)
    assert set(found) == {"input_values", "start_s", "track"}
    assert found["input_values"].dtype == torch.float16
    assert found["input_values"].is_contiguous()
    assert torch.equal(found["input_values"], large[3, :T].half())
    assert (found["start_s"], found["track"]) == (2.5, "ab")
    assert (tmp_path / "a.pt").stat().st_size < T * 8 * 2 + 4096
    store.write_chunk(tmp_path / "b.pt", large[3, :T], start_s=2.5, track_id="ab")
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


def test_chunk_names_are_safe_and_short() -> None:
    name = store.chunk_file(
        "dark", Path("x/..what: a\nname?" + "é" * 300 + ".mp3"), "0123456789", 2
    )
    folder, file = name.split("/")
    assert folder == "dark"
    assert file.endswith("-01234567_chunk2.pt")
    assert len(file) <= 80 + len("-01234567_chunk2.pt")
    assert not set(file) & set(':?\n"')
    assert store.chunk_file("", Path("a.wav"), "0123456789", 0) == "trash/a-01234567_chunk0.pt"


def test_fingerprint_follows_content_not_place(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "elsewhere" / "copy")
    first = FeatureFolder.open(folder)
    assert FeatureFolder.open(tmp_path / "elsewhere" / "copy").fingerprint == first.fingerprint
    rows = first.chunks.to_pylist()
    store.write_chunks(folder, rows[:-1])
    assert FeatureFolder.open(folder).fingerprint != first.fingerprint


def test_an_unknown_track_is_named(folder: Path) -> None:
    with pytest.raises(FeatureError, match="has no track beef"):
        FeatureFolder.open(folder).rows(["beef"])


def _edit_json(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        dataset = json.loads((folder / "dataset.json").read_text())
        del dataset["checksum"]
        change(dataset)
        (folder / "dataset.json").write_text(json.dumps(dataset))

    return edit


def _edit_rows(**values: Any) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        table = pq.read_table(folder / "chunks.parquet").replace_schema_metadata(None)
        rows = table.to_pylist()
        rows[3] |= values
        pq.write_table(table.from_pylist(rows, schema=table.schema), folder / "chunks.parquet")

    return edit


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "holds no features"),
        (lambda f: (f / "dataset.json").unlink(), "holds no features"),
        (lambda f: (f / "dataset.json").write_text("{"), "can't be read"),
        (_edit_json(lambda d: d.update(format_version=2)), "format version 2"),
        (_edit_json(lambda d: d.pop("spec")), r"damaged .*spec"),
        (_edit_json(lambda d: d["config"].update(chunk_m=1)), "chunk_m"),
        (_edit_json(lambda d: d.update(labels=d["labels"][:1])), "do not match"),
        (lambda f: (f / "chunks.parquet").unlink(), r"chunks\.parquet does not exist"),
        (lambda f: (f / "chunks.parquet").write_bytes(b"PAR1"), r"chunks\.parquet is damaged"),
        (lambda f: (f / "tracks.parquet").write_bytes(b""), r"tracks\.parquet is damaged"),
        (lambda f: shutil.copy(f / "chunks.parquet", f / "tracks.parquet"), "is damaged"),
        (_edit_rows(track="f" * 32), "do not match"),
        (_edit_rows(file="../secret.pt"), r"outside its folder: '\.\./secret\.pt'"),
        (_edit_rows(file="/etc/passwd"), "outside its folder"),
        (_edit_rows(file="dark/../../x.pt"), "outside its folder"),
        (_edit_rows(file="dark/x\\y.pt"), "outside its folder"),
        (_edit_rows(file="dark/x.txt"), "not a chunk"),
        (_edit_rows(mean=None), "empty fields"),
    ],
)
def test_a_damaged_folder_is_refused(folder, damage, message) -> None:
    FeatureFolder.open(folder)
    damage(folder)
    with pytest.raises(FeatureError, match=message):
        FeatureFolder.open(folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [("m2", -1.0), ("m2", float("nan")), ("mean", float("inf")), ("count", -5), ("n_frames", -1)],
)
def test_numbers_that_no_chunk_has_are_refused(folder: Path, name: str, value: float) -> None:
    _edit_rows(**{name: value})(folder)
    with pytest.raises(
        FeatureError, match=rf"chunks\.parquet is damaged \({name} of .* is {value}"
    ):
        FeatureFolder.open(folder)


@pytest.mark.parametrize("key", ["root", "spec", "config", "labels", "backbone", "checksums"])
@pytest.mark.parametrize("value", [None, 3, [1], [[]], {"a": {}}])
def test_other_types_in_dataset_json_are_one_clear_error(
    folder: Path, key: str, value: Any
) -> None:
    if key == "checksums" and isinstance(value, dict):
        return  # a table is what stands there
    _edit_json(lambda d: d.update({key: value}))(folder)
    with pytest.raises(FeatureError, match=r"dataset\.json is damaged"):
        FeatureFolder.open(folder)


def test_tables_of_another_folder_are_refused_by_name(root: Path, tmp_path: Path, inline) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    small_library.run(root, one)
    (root / "techno" / "dark" / "b.wav").unlink()
    small_library.run(root, other)
    for name, refused in (
        ("chunks.parquet", "chunks"),
        ("tracks.parquet", "tracks"),
        ("dataset.json", "chunks"),
    ):
        shutil.copytree(one, tmp_path / name)
        shutil.copy(other / name, tmp_path / name / name)
        with pytest.raises(FeatureError, match=rf"{refused}\.parquet is not the table"):
            FeatureFolder.open(tmp_path / name)


def test_a_flipped_bit_of_a_chunk_file_is_noticed(root: Path, tmp_path: Path, inline) -> None:
    small_library.run(root, tmp_path / "f")
    opened = FeatureFolder.open(tmp_path / "f")
    path = tmp_path / "f" / opened.chunks["file"][1].as_py()
    data, rng = path.read_bytes(), np.random.default_rng(0)
    for at in rng.integers(len(data), size=100):
        damaged = bytearray(data)
        damaged[at] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        with pytest.raises(FeatureError, match="is damaged"):
            opened.load([1])
    shutil.copy(tmp_path / "f" / opened.chunks["file"][0].as_py(), path)
    with pytest.raises(FeatureError, match="is damaged"):
        opened.load([1])
    path.unlink()
    small_library.run(root, tmp_path / "f")
    assert path.read_bytes() == data


@pytest.mark.parametrize("name", ["chunks.parquet", "tracks.parquet"])
def test_preprocess_mends_damaged_tables(root: Path, tmp_path: Path, inline, name: str) -> None:
    small_library.run(root, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "f")
    for damage in (Path.unlink, lambda path: path.write_bytes(b"")):
        damage(tmp_path / "f" / name)
        with pytest.raises(FeatureError, match="run `subgenre preprocess` again"):
            FeatureFolder.open(tmp_path / "f")
        small_library.run(root, tmp_path / "f")
        small_library.same_folders(tmp_path / "f", tmp_path / "whole")


def test_a_moved_library_and_its_features_are_the_same(tmp_path: Path, inline) -> None:
    small_library.make_library(tmp_path / "here" / "WAV")
    small_library.run(tmp_path / "here" / "WAV", tmp_path / "here" / "features")
    before = FeatureFolder.open(tmp_path / "here" / "features")
    (tmp_path / "here").rename(tmp_path / "there")
    after = FeatureFolder.open(tmp_path / "there" / "features")
    assert after.fingerprint == before.fingerprint
    assert after.root == tmp_path / "there" / "WAV"
    assert all(track.path.is_file() for track in (*after.tracks, *after.trash))


def _save(content: Any) -> Callable[[Path], object]:
    return lambda path: torch.save(content, path)


def _chunk(values: torch.Tensor, track: int = 1) -> Callable[[Path], object]:
    return _save({"input_values": values, "start_s": 0.0, "track": f"{track:032x}"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (Path.unlink, "is missing"),
        (lambda p: p.write_bytes(p.read_bytes()[:300]), "is damaged"),
        (lambda p: p.write_bytes(b""), "is damaged"),
        (_save(Path("a class")), "is damaged"),
        (_save([1, 2]), "is damaged"),
        (_chunk(torch.zeros(T, 9).half()), "does not hold chunk"),
        (_chunk(torch.zeros(T, 8)), "does not hold chunk"),
        (_chunk(torch.zeros(T, 8).half(), track=7), "does not hold chunk"),
        (_chunk(torch.full((T, 8), float("nan")).half()), "not finite"),
    ],
)
def test_a_damaged_chunk_is_refused(folder, damage, message) -> None:
    opened = FeatureFolder.open(folder)
    path = folder / opened.chunks["file"][2].as_py()
    opened.load([2])
    damage(path)
    with pytest.raises(FeatureError, match=message) as error:
        opened.load([2])
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/music/WAV/g/s/a.mp3", "g/s/a.mp3"),
        ("/elsewhere/a.mp3", "/elsewhere/a.mp3"),
        ("/music/WAV/g/line\nbreak é.mp3", "g/line\nbreak é.mp3"),
        (os.fsdecode(b"/music/WAV/g/\xff 100%.mp3"), "bytes:g/%FF%20100%25.mp3"),
        ("/music/WAV/bytes:x.mp3", "bytes:bytes%3Ax.mp3"),
    ],
)
def test_paths_survive_the_table(path: str, text: str) -> None:
    root = Path("/music/WAV")
    assert files.path_to_text(Path(path), root) == text
    assert root / files.path_from_text(text) == Path(path)
