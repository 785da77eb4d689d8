"""Vectors of chunks, tracks and files, and the cache of a frozen backbone."""

from __future__ import annotations

import copy
import dataclasses
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from subgenre.audio import decoder, features, reading
from subgenre.audio.features import AST_SPEC, MUSICNN_SPEC, Statistics
from subgenre.config import PreprocessConfig
from subgenre.core import parallel
from subgenre.dataset import folder as store
from subgenre.dataset import track_vectors
from subgenre.dataset.folder import FeatureFolder
from subgenre.errors import BackboneError, ConfigError, RunError
from subgenre.library.track import Track
from subgenre.models import backbones, embedding, engines, file_embedding
from subgenre.models.encoder import Encoder
from tests.small_library import write_wav
from tests.toy import make_ast_folder

N_TRACKS, N_CHUNKS = 5, 3


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return backbones.load(str(make_ast_folder(tmp_path_factory.mktemp("toy") / "ast")))


@pytest.fixture
def encoder(backbone) -> Encoder:
    net = Encoder(
        backbone, head=(16,), embedding_size=8, generator=torch.Generator().manual_seed(1)
    )
    net.set_statistics(Statistics(100, -4.5, 900.0))
    return net


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> FeatureFolder:
    """Five tracks of three chunks of 1 s."""
    path = tmp_path_factory.mktemp("features")
    config = PreprocessConfig(chunk_s=1.0)
    generator = torch.Generator().manual_seed(0)
    track = np.repeat(np.arange(N_TRACKS), N_CHUNKS)
    rows = []
    for row, number in enumerate(track):
        shape = (store.window_frames(AST_SPEC, config), 128)
        x = torch.randn(shape, generator=generator) * 4 - 5 + float(number)
        crc = store.write_chunk(path / f"{row}.pt", x, start_s=0.0, track_id=f"t{number}")
        found = Statistics.of(x)
        stats = {"count": found.count, "mean": found.mean, "m2": found.m2, "crc32": crc}
        rows.append({"file": f"{row}.pt", "track": f"t{number}", "n_frames": shape[0], **stats})
    tracks = tuple(Track(f"t{i}", Path(f"{i}.mp3"), "g", "s") for i in range(N_TRACKS))
    label, table = np.zeros(len(track), np.int64), pa.Table.from_pylist(rows)
    return FeatureFolder(
        path, path, AST_SPEC, config, tracks, (), ("s",), ("g",), table, track, label
    )


@torch.inference_mode()
def test_chunk_vectors_are_the_encoders_in_the_order_of_the_rows(encoder, folder) -> None:
    encoder.train()
    seen = []
    rows = np.array([7, 2, 11, 2])
    found = embedding.chunk_vectors(
        encoder, folder, rows, batch_size=3, on_progress=lambda *a: seen.append(a)
    )
    assert encoder.training  # as it was
    assert seen == [(3, 4), (4, 4)]
    assert found.dtype == np.float32
    encoder.eval()
    for row, vector in zip(rows, found, strict=True):
        np.testing.assert_allclose(vector, encoder(folder.load([row]))[0], atol=1e-5)
    assert embedding.chunk_vectors(encoder, folder, []).shape == (0, 8)


class Counted:
    """A feature folder that counts the chunks that are read."""

    def __init__(self, folder: FeatureFolder) -> None:
        self.folder, self.read, self.largest = folder, 0, 0

    def __getattr__(self, name: str):
        return getattr(self.folder, name)

    def load(self, rows):
        self.read += len(rows)
        self.largest = max(self.largest, len(rows))
        return self.folder.load(rows)


def test_pooled_vectors_are_made_once_and_kept(encoder, folder, tmp_path) -> None:
    counted, rows, seen = Counted(folder), np.arange(15), []
    with torch.inference_mode():
        expected = encoder.eval().pooled(folder.load(rows)).numpy()
    few = embedding.pooled_vectors(encoder, counted, rows[4:9], cache=tmp_path, batch_size=4)
    np.testing.assert_allclose(few, expected[4:9], atol=1e-5)
    every = embedding.pooled_vectors(
        encoder, counted, rows, cache=tmp_path, batch_size=4, on_progress=lambda *a: seen.append(a)
    )
    np.testing.assert_allclose(every, expected, atol=1e-5)
    assert counted.read == 15  # only the missing rows
    assert counted.largest == 4  # never all features at once
    assert seen == [(5, 15), (9, 15), (13, 15), (15, 15)]
    again = embedding.pooled_vectors(encoder, counted, rows, cache=tmp_path)
    shuffled = embedding.pooled_vectors(encoder, counted, [3, 14, 3], cache=tmp_path)
    assert counted.read == 15
    assert isinstance(again, np.memmap)
    np.testing.assert_array_equal(again, every)
    np.testing.assert_array_equal(shuffled, every[[3, 14, 3]])


def test_a_new_head_uses_the_cache_and_any_other_change_does_not(
    backbone, encoder, folder, tmp_path
) -> None:
    counted = Counted(folder)

    def read(net) -> int:
        counted.read = 0
        embedding.pooled_vectors(net, counted, [0, 1], cache=tmp_path)
        return counted.read

    statistics = Statistics(100, -4.5, 900.0)
    assert read(encoder) == 2
    other_head = Encoder(backbone, head=(), embedding_size=3)
    other_head.set_statistics(statistics)
    assert read(other_head) == 0
    for options in ({"layer": 0}, {"pooling": "cls"}):
        net = Encoder(backbone, **options)
        net.set_statistics(statistics)
        assert read(net) == 2
    assert read(Encoder(backbone)) == 2  # other statistics
    counted.fingerprint = "other features"
    assert read(encoder) == 2
    del counted.fingerprint
    with torch.no_grad():
        encoder.backbone.model.layernorm.bias[0] += 1.0
    assert read(encoder) == 2
    with torch.no_grad():
        encoder.backbone.model.layernorm.bias[0] -= 1.0


def test_a_backbone_alone(backbone, encoder, folder, tmp_path) -> None:
    with pytest.raises(ConfigError, match="statistics"):
        embedding.pooled_vectors(backbone, folder, [0], cache=tmp_path)
    options = {"cache": tmp_path / "a", "statistics": Statistics(100, -4.5, 900.0)}
    found = embedding.pooled_vectors(backbone, folder, [0], **options)
    expected = embedding.pooled_vectors(encoder, folder, [0], cache=tmp_path / "b")
    np.testing.assert_allclose(found, expected, atol=1e-6)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_track_vectors_against_a_loop() -> None:
    chunks = rng().normal(size=(10, 4)).astype(np.float32)
    track = np.array([5, 2, 5, 5, 9, 2, 9, 9, 9, 0])
    tracks, found = track_vectors.track_vectors(chunks, track)
    assert tracks.tolist() == [0, 2, 5, 9]
    for number, vector in zip(tracks, found, strict=True):
        mean = chunks[track == number].mean(0)
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), rtol=1e-5)
    opposite = track_vectors.track_vectors([[1.0, 0.0], [-1.0, 0.0]], [0, 0])[1]
    np.testing.assert_array_equal(opposite, [[0.0, 0.0]])  # no direction, and no NaN


def test_frozen_track_vectors_against_scikit_learn() -> None:
    from sklearn.preprocessing import StandardScaler, normalize

    pooled = rng(1).normal(3.0, 2.0, size=(12, 5)).astype(np.float32)
    pooled[:, 2] = 0.1  # constant, and no round number
    track = np.repeat([3, 1, 2, 0], 3)
    train, test = np.arange(6), np.arange(6, 12)
    ours = track_vectors.frozen_track_vectors(pooled, track, train, test)
    scaled = StandardScaler().fit(pooled[train].astype(np.float64)).transform(pooled)
    scaled[:, 2] = 0.0
    for found, tracks in zip(ours, ([1, 3], [0, 2]), strict=True):
        expected = normalize(np.array([scaled[track == t].mean(0) for t in tracks]))
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert not found[:, 2].any()
    pooled[test, 2] = 7.0  # varies on the other side alone: still no information
    assert not track_vectors.frozen_track_vectors(pooled, track, train, test)[1][:, 2].any()


@dataclasses.dataclass(frozen=True)
class Row:
    id: str
    path: Path
    genre: str = "Techno"
    subgenre: str = 'Dark, "deep"'


def test_embeddings_are_read_as_written(tmp_path) -> None:
    values = rng().normal(size=(3, 6)).astype(np.float32)
    tracks = [Row("a", Path("x/ä b\n.mp3")), Row("b", Path("c")), Row("c", Path("d"), "", "")]
    path = tmp_path / "embeddings.parquet"
    track_vectors.write_embeddings(
        path, tracks, values, split=["train", "test", ""], fingerprint="f00"
    )
    found = track_vectors.read_embeddings(path)
    np.testing.assert_array_equal(found.vectors, values)
    assert found.ids == ("a", "b", "c")
    assert found.paths[0] == tracks[0].path
    assert found.subgenres == (tracks[0].subgenre, tracks[0].subgenre, "")
    assert found.splits == ("train", "test", "")
    assert found.fingerprint == "f00"
    table = pq.read_table(path)
    assert table.column_names == ["id", "path", "genre", "subgenre", "split", "vector"]
    assert table.schema.field("vector").type == pa.list_(pa.float32(), 6)
    track_vectors.write_embeddings(path, [], np.empty((0, 6)), fingerprint="f00")
    assert track_vectors.read_embeddings(path).vectors.shape == (0, 6)
    track_vectors.write_embeddings(path, [Row("a", Path("b\udcff"))], values[:1], fingerprint="")
    assert track_vectors.read_embeddings(path).ids == ("a",)  # a name that is no Unicode


def test_damaged_embeddings_are_refused(tmp_path) -> None:
    def write(path: Path, value: float = 0.0) -> None:
        track_vectors.write_embeddings(path, [Row("a", Path("b"))], [[value, 1.0]], fingerprint="")

    def other_version(path: Path) -> None:
        write(path)
        pq.write_table(pq.read_table(path).replace_schema_metadata({"format_version": "9"}), path)

    for damage, word in (
        (lambda path: None, "does not exist"),
        (lambda path: path.write_bytes(b"nothing"), "no embeddings"),
        (lambda path: pq.write_table(pa.table({"id": ["a"]}), path), "no embeddings"),
        (lambda path: write(path, np.nan), "not finite"),
        (other_version, "format version 9"),
    ):
        damage(tmp_path / "e.parquet")
        with pytest.raises(RunError, match=word):
            track_vectors.read_embeddings(tmp_path / "e.parquet")


def test_reading_embeddings_needs_no_torch() -> None:
    code = "import sys, subgenre.dataset.track_vectors; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.slow
def test_vectors_of_outside_files(tmp_path) -> None:
    seeded, backbone = torch.Generator().manual_seed(0), backbones.load("musicnn")
    net = Encoder(backbone, head=(), embedding_size=8, generator=seeded).eval()
    long, short = tmp_path / "long.wav", tmp_path / "short.wav"
    write_wav(long, 8.0, 1)
    write_wav(short, 1.0, 2)
    (tmp_path / "text.mp3").write_text("no music")
    paths = [short, tmp_path / "text.mp3", long, tmp_path / "gone.mp3"]
    config = PreprocessConfig(chunk_s=4.0, max_chunks=2, chunk_strategy="spaced")
    seen = []
    found = file_embedding.embed_files(
        net, paths, config, workers=1, on_progress=lambda *a: seen.append(a)
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert found.paths == (long,)
    assert [s.path for s in found.skipped] == [paths[0], paths[1], paths[3]]
    assert "1.0 s long" in found.skipped[0].reason
    assert found.ids == (reading.probe(long).id,)
    assert found.chunk_start_s.tolist() == [0.0, 4.0]
    assert found.chunk_file.tolist() == [0, 0]
    with wave.open(str(long)) as stored:
        samples = np.frombuffer(stored.readframes(-1), "<i2").astype(np.float32) / 32768
    for chunk, start in zip(found.chunks, (0, 4), strict=True):
        window = torch.from_numpy(samples[start * 16_000 : (start + 4) * 16_000])[None]
        with torch.inference_mode():
            expected = net(features.log_mel(window, MUSICNN_SPEC))[0]
        np.testing.assert_allclose(chunk, expected, atol=5e-3)  # float16, edges of the window
    mean = found.chunks.mean(0)
    np.testing.assert_allclose(found.vectors[0], mean / np.linalg.norm(mean), atol=1e-6)
    assert file_embedding.embed_files(net, [], workers=1).vectors.shape == (0, 8)


@pytest.fixture
def doubling(monkeypatch, encoder):
    """An engine whose values are twice torch's."""
    twice = {"onnx": lambda part, _example: lambda x: 2 * part(x)}
    monkeypatch.setattr(engines, "_CONVERTERS", twice)
    monkeypatch.setattr(engines, "_check_installed", lambda _engine: None)
    monkeypatch.setattr(encoder.backbone, "engine", "onnx")


def test_the_engine_of_the_backbone_computes_and_its_values_are_kept_apart(
    encoder, folder, tmp_path, doubling, monkeypatch
) -> None:
    every = np.arange(6)

    def computed() -> list[np.ndarray]:
        return [
            embedding.pooled_vectors(encoder, folder, every, cache=tmp_path),
            embedding.frozen_activations(encoder, folder, 1, cache=tmp_path)[every],
            embedding.layer_vectors(
                encoder.backbone, folder, cache=tmp_path, statistics=Statistics(100, -4.5, 900.0)
            )[every],
        ]

    found = computed()
    chunks = embedding.chunk_vectors(encoder, folder, every)
    heads = embedding.project_vectors(encoder, found[0])
    np.testing.assert_allclose(chunks, heads, atol=1e-6)
    monkeypatch.setattr(encoder.backbone, "engine", "torch")
    for one, expected in zip(found, computed(), strict=True):
        np.testing.assert_allclose(one, 2 * expected, rtol=2e-3, atol=1e-3)


def test_the_engine_of_the_backbone_computes_the_vectors_of_files(
    encoder, tmp_path, doubling
) -> None:
    write_wav(tmp_path / "a.wav", 6.0, 0)
    config = PreprocessConfig(chunk_s=4.0, max_chunks=2, chunk_strategy="spaced")
    seen: list[torch.Tensor] = []
    real = encoder.project
    encoder.project = lambda pooled: (seen.append(pooled), real(pooled))[1]
    file_embedding.embed_files(encoder, [tmp_path / "a.wav"], config)
    encoder.backbone.engine = "torch"
    file_embedding.embed_files(encoder, [tmp_path / "a.wav"], config)
    torch.testing.assert_close(seen[0], 2 * seen[1])


def test_a_file_without_finite_vectors_is_skipped(tmp_path, monkeypatch) -> None:
    net = Encoder(
        backbones.load("musicnn"), head=(), embedding_size=8, generator=torch.Generator()
    ).eval()
    paths = [tmp_path / f"{i}.wav" for i in range(3)]
    for i, path in enumerate(paths):
        write_wav(path, 4.0, i)
    real = net.project
    calls: list[int] = []

    def project(pooled):
        calls.append(len(pooled))
        return real(pooled) * (torch.nan if len(calls) == 2 else 1)

    monkeypatch.setattr(net, "project", project)
    monkeypatch.setattr(parallel, "map_files", lambda fn, items, **_: enumerate(map(fn, items)))
    config = PreprocessConfig(chunk_s=4.0, max_chunks=1)
    found = file_embedding.embed_files(net, paths, config)
    assert found.paths == (paths[0], paths[2])
    assert [s.path for s in found.skipped] == [paths[1]]


def test_one_file_has_a_limit_of_time(encoder, tmp_path) -> None:
    write_wav(tmp_path / "a.wav", 4.0, 0)
    config = PreprocessConfig(chunk_s=4.0, max_chunks=1)
    found = file_embedding.embed_files(encoder, [tmp_path / "a.wav"], config, timeout_s=0.0)
    assert [s.reason for s in found.skipped] == ["took longer than 0 s"]


def test_one_file_is_decoded_in_another_process(encoder, tmp_path, monkeypatch) -> None:
    """A fault of the decoder in this process would end it."""
    write_wav(tmp_path / "a.wav", 4.0, 0)
    config = PreprocessConfig(chunk_s=4.0, max_chunks=1)
    monkeypatch.delattr(decoder, "opened")
    assert len(file_embedding.embed_files(encoder, [tmp_path / "a.wav"], config).vectors) == 1


def test_a_network_that_gives_no_numbers_is_refused_by_the_file(encoder, folder, tmp_path) -> None:
    damaged = copy.deepcopy(encoder)
    with torch.no_grad():
        next(damaged.backbone.parameters()).fill_(torch.nan)
    with pytest.raises(BackboneError, match=r"0\.pt"):
        embedding.pooled_vectors(damaged, folder, [0, 1], cache=tmp_path)
