"""`subgenre export`: each format is read back by its own library, and gives the same vectors."""

from __future__ import annotations

import csv
import errno
import importlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import subgenre
from subgenre import config
from subgenre.audio.features import AST_SPEC, MUSICNN_SPEC, FeatureSpec, log_mel
from subgenre.cli import main
from subgenre.commands.model_folder import ModelFolder
from subgenre.config import PreprocessConfig
from subgenre.core import files, tables, validation, workspace
from subgenre.errors import BackboneError, ConfigError, MissingExtraError, RunError
from subgenre.exports import onnx, track_exports, weights
from subgenre.library.track import Track
from subgenre.models import backbones, encoder, file_embedding
from subgenre.models.encoder import Encoder
from tests.conftest import REPOSITORY, need
from tests.runs import sounding_run
from tests.small_library import RATE, replace_workers, write_wav
from tests.toy import make_ast_folder

pytestmark = pytest.mark.slow  # torch's exporter takes seconds

EXAMPLE = REPOSITORY / "examples" / "onnx_embed.py"
LENGTHS_S = (2.1, 3.0, 3.7, 10.3, 60.0)
CHUNK_S = 3.0
# the rule of the graph: whole chunks one after another, of any number
IN_TURN = PreprocessConfig(
    chunk_s=CHUNK_S, max_chunks=1000, chunk_strategy="sequential", min_track_s=1.0
)
ALONE = """
import runpy, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "subgenre", "transformers"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subgenre.Model]:
    """A model with an encoder, of eight tracks; its workers run in this process."""
    patch = pytest.MonkeyPatch()
    replace_workers(patch)
    yield subgenre.load(sounding_run(tmp_path_factory.mktemp("made")))
    patch.undo()


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """WAV files of several lengths, at the rate of the front ends."""
    folder = tmp_path_factory.mktemp("clips")
    paths = [folder / f"{length_s}.wav" for length_s in LENGTHS_S]
    for seed, (path, length_s) in enumerate(zip(paths, LENGTHS_S, strict=True)):
        write_wav(path, length_s, seed)
    return paths


def library(name: str) -> Any:
    """Import an optional library, or skip the test."""
    need(importlib.util.find_spec(name.partition(".")[0]) is not None, f"{name} is not installed")
    return importlib.import_module(name)


def test_the_graph_gives_the_vectors_of_embed_without_this_package(
    model: subgenre.Model, clips: list[Path], tmp_path: Path
) -> None:
    library("onnxruntime")
    exported = model.export("onnx", tmp_path / "out")
    graph = exported.path / onnx.FILE
    assert str(REPOSITORY).encode() not in graph.read_bytes()
    words = [sys.executable, "-c", ALONE, EXAMPLE, graph, *clips]
    done = subprocess.run([*map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [line.split()[1:] for line in done.stdout.splitlines()]
    found = file_embedding.embed_files(encoder.load(model.path), clips, IN_TURN)
    assert len(found.chunks) == 1 + 1 + 1 + 3 + 20
    np.testing.assert_allclose(np.array(rows, dtype=np.float64), found.vectors, atol=1e-4)


def check_graph(whole: Encoder, clips: list[Path], out: Path) -> None:
    """Run the graph of an encoder on the clips; its vectors are those of `embed`."""
    runtime = library("onnxruntime")
    session = runtime.InferenceSession(onnx.write(whole, CHUNK_S, out))
    found = file_embedding.embed_files(whole, clips, IN_TURN)
    assert session.get_modelmeta().custom_metadata_map["rate"] == str(RATE)
    for number, path in enumerate(clips):
        samples = np.frombuffer(path.read_bytes()[44:], "<i2").astype(np.float32) / 32768
        vector, chunks = session.run(["vector", "chunks"], {"samples": samples})
        np.testing.assert_allclose(vector, found.vectors[number], atol=1e-4)
        np.testing.assert_allclose(chunks, found.chunks[found.chunk_file == number], atol=1e-4)


def test_the_graph_of_a_transformer_with_axes_beside_its_head(
    clips: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_workers(monkeypatch)
    toy = make_ast_folder(tmp_path / "toy", num_hidden_layers=1)
    whole = Encoder(
        backbones.load(str(toy)),
        head=(16,),
        embedding_size=8,
        pca=12,
        fusion=0.5,
        centre=True,
        generator=torch.Generator().manual_seed(0),
    ).eval()
    rng = np.random.default_rng(0)
    pooled = rng.normal(size=(40, 32)).astype(np.float32)
    pooled[:, 30:] = 0.0  # constant columns, which the encoder leaves out
    encoder.standardise(whole, pooled, np.arange(40))
    whole.set_centre(rng.normal(size=(4, whole.size)).astype(np.float32) / 10)
    check_graph(whole, clips[:4], tmp_path)


def test_the_graph_does_not_amplify_rounding_in_filters_that_hardly_fire(
    clips: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_workers(monkeypatch)
    whole = Encoder(
        backbones.load("musicnn"),
        head=(),
        embedding_size=8,
        generator=torch.Generator().manual_seed(0),
    ).eval()
    noise = torch.rand(40, 187, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        pooled = whole.pooled(noise * torch.linspace(0, 4, 40)[:, None, None])
    encoder.standardise(whole, pooled.numpy(), np.arange(40))
    check_graph(whole, clips[:4], tmp_path)


class StoredFeatures(torch.nn.Module):
    """Stands for an encoder: gives its input back."""

    def __init__(self, spec: FeatureSpec) -> None:
        super().__init__()
        self.backbone = SimpleNamespace(spec=spec)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features


@pytest.mark.parametrize("spec", [AST_SPEC, MUSICNN_SPEC])
@pytest.mark.parametrize("n", [300, 1000, 20_000, 48_000])
def test_the_encoder_gets_what_a_feature_folder_stores(spec: FeatureSpec, n: int) -> None:
    chunk = onnx.ChunkEncoder(StoredFeatures(spec), 48_000)
    samples = torch.randn(48_000, generator=torch.Generator().manual_seed(n)) / 10
    samples[n:] = 0.0
    _, features = chunk(torch.tensor([n]), samples)
    expected = spec.pad(log_mel(samples[None, :n], spec)[0].half(), spec.frames(48_000))
    torch.testing.assert_close(features, expected.float(), atol=1e-2, rtol=1e-3)
    assert torch.equal(features, features.half().float())


def test_sentence_transformers_encodes_the_same_vectors(
    model: subgenre.Model, clips: list[Path], tmp_path: Path
) -> None:
    sentence_transformers = library("sentence_transformers")
    model.export("sentence-transformers", tmp_path / "out")
    loaded = sentence_transformers.SentenceTransformer(
        str(tmp_path / "out"), trust_remote_code=True, device="cpu"
    )
    paths = clips[1:4]
    vectors = loaded.encode([str(path) for path in paths])
    np.testing.assert_array_equal(vectors, model.embed(paths).vectors)
    assert loaded.get_embedding_dimension() == vectors.shape[1]
    (tmp_path / "text.wav").write_text("no music")
    with pytest.raises(subgenre.SubgenreError, match=r"text\.wav"):
        loaded.encode(str(tmp_path / "text.wav"))


def test_faiss_finds_what_similar_finds(model: subgenre.Model, tmp_path: Path) -> None:
    faiss = library("faiss")
    model.export("faiss", tmp_path)
    index = faiss.read_index(str(tmp_path / "index.faiss"))
    with (tmp_path / "tracks.csv").open(encoding="utf-8", newline="") as table:
        ids = [row["id"] for row in csv.DictReader(table)]
    first = model.tracks.row_of_id(ids[0])
    _, rows = index.search(model.tracks.vectors([first]), 4)
    hits = model.similar(ids[0], 3, mutual=False, versions=True)
    assert [ids[row] for row in rows[0]] == [ids[0], *(hit.track.id for hit in hits)]


def test_names_that_are_no_unicode_stay_apart(tmp_path: Path) -> None:
    tracks = [Track("", Path("a.mp3"), title=f"caf{chr(0xDCE8 + i)}") for i in range(2)]
    vectors = np.eye(2, dtype=np.float32)
    two: Any = SimpleNamespace(tracks=lambda _: tracks, live=[0, 1], vectors=lambda _: vectors)
    track_exports.write_tensorboard(two, tmp_path)
    rows = (tmp_path / "metadata.tsv").read_text("utf-8").splitlines()
    assert len(set(rows)) == 3


def test_parquet_holds_the_map_with_names_and_labels(model: subgenre.Model, tmp_path: Path) -> None:
    model.export("parquet", tmp_path)
    columns = pq.read_table(tmp_path / "tracks.parquet").to_pydict()
    map = model.map()
    places = np.stack([columns["projection_x"], columns["projection_y"]], axis=1)
    np.testing.assert_array_equal(places, map.coordinates)
    assert columns["name"] == [track.name for track in map.tracks]
    assert columns["subgenre"] == [track.subgenre for track in map.tracks]
    np.testing.assert_array_equal(columns["vector"], model.tracks.vectors(model.tracks.live))


def test_the_projector_reads_its_folder(model: subgenre.Model, tmp_path: Path) -> None:
    model.export("tensorboard", tmp_path)
    vectors = np.loadtxt(tmp_path / "tensors.tsv", delimiter="\t")
    np.testing.assert_allclose(vectors, model.tracks.vectors(model.tracks.live), rtol=1e-6)
    lines = (tmp_path / "metadata.tsv").read_text("utf-8").splitlines()
    assert lines[0].split("\t") == ["name", "genre", "subgenre"]
    assert [line.split("\t")[2] for line in lines[1:]] == [
        track.subgenre for track in model.tracks.tracks(model.tracks.live)
    ]
    projector = library("tensorboard.plugins.projector.projector_config_pb2")
    text_format = library("google.protobuf.text_format")
    read = text_format.Parse(
        (tmp_path / "projector_config.pbtxt").read_text(), projector.ProjectorConfig()
    )
    for path in (read.embeddings[0].tensor_path, read.embeddings[0].metadata_path):
        assert (tmp_path / path).is_file()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder whose name stands for the paths of this computer."""
    return str(tmp_path_factory.mktemp("private"))


@pytest.fixture(scope="module")
def tuned(model: subgenre.Model, home: str) -> subgenre.Model:
    """The model as if its backbone came from a folder of this computer, with figures."""
    run = Path(home) / "fully_trained_models_1"
    run.mkdir()
    for path in model.path.iterdir():
        if path.is_file():
            (run / path.name).write_bytes(path.read_bytes())
    settings = config.load_settings(run / workspace.CONFIG)
    settings = config.replace(settings, "model", backbone=f"{home}/musicnn")
    validation.save_toml(run / workspace.CONFIG, settings)
    score = {"value": 0.8, "low": 0.7, "high": 0.9, "chance": 0.5}
    figures = {"models": {"trained": {"map_at_r": score}}, "n_train": 6, "n_test": 2}
    figures["audits"] = {"doctor": {"path": f"{home}/a.mp3"}}
    files.write_json(run / workspace.METRICS, {"format_version": 1, **figures})
    return subgenre.load(run)


def test_a_hub_folder_classifies_and_names_no_track(
    tuned: subgenre.Model, home: str, clips: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    tuned.export("hub", out)
    stored = ModelFolder.open(tuned.path).embeddings
    private = [home, *stored.ids, *(path.stem for path in stored.paths)]
    content = b"".join(path.read_bytes() for path in out.iterdir())
    content += str(tables.read(out / workspace.EMBEDDINGS).to_pylist()).encode()
    assert [text for text in private if text.encode() in content] == []
    again = subgenre.load(out)
    before, after = tuned.classify(clips[1:3]), again.classify(clips[1:3])
    assert [placed.chances for placed in after] == [placed.chances for placed in before]
    assert again.scores() == tuned.scores()
    assert again.map().coordinates.shape == (8, 2)


def test_the_card_has_a_header_the_licence_and_how_to_load(
    tuned: subgenre.Model, tmp_path: Path
) -> None:
    from huggingface_hub import ModelCard

    tuned.export("hub", tmp_path / "out")
    card = ModelCard.load(tmp_path / "out" / workspace.CARD)
    assert card.data.license == "isc"
    assert "music" in card.data.tags
    assert "subgenre.load(" in card.text
    assert "0.800 (0.70 to 0.90)" in card.text


class Hub:
    """What `HfApi` and `snapshot_download` do, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.private: list[bool] = []

    def create_repo(self, name: str, *, private: bool, exist_ok: bool) -> str:
        self.private.append(private)
        return f"https://hub/{name}"

    def upload_folder(self, *, repo_id: str, folder_path: Path, allow_patterns: list[str]) -> None:
        target = self.folder / repo_id
        target.mkdir(parents=True)
        for name in allow_patterns:
            if (folder_path / name).exists():
                (target / name).write_bytes((folder_path / name).read_bytes())

    def download(self, name: str, *, allow_patterns: list[str]) -> str:
        from huggingface_hub.errors import LocalEntryNotFoundError

        if not (self.folder / name).exists():
            raise LocalEntryNotFoundError(f"no {name} here.\nmore")
        return str(self.folder / name)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    made = Hub(tmp_path / "hub")
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: made)
    monkeypatch.setattr("huggingface_hub.snapshot_download", made.download)
    return made


def test_a_pushed_model_is_loaded_by_its_name(
    tuned: subgenre.Model, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", str(tuned.path), "--hub", "--out", str(tmp_path / "out")]
    assert main([*words, "--push", "ann/techno", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pushed"] == "https://hub/ann/techno"
    assert hub.private == [True]
    assert subgenre.load("ann/techno").labels == tuned.labels
    with pytest.raises(RunError, match=r"^ann/gone is no folder here, and the hub gave .*ann/gone"):
        subgenre.load("ann/gone")


def test_nothing_is_pushed_unless_it_is_asked_for(
    tuned: subgenre.Model, hub: Hub, tmp_path: Path
) -> None:
    assert tuned.export("hub", tmp_path / "out").pushed == ""
    assert hub.private == []


def test_a_refusal_of_the_hub_says_how_to_push_the_folder(
    tuned: subgenre.Model, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError("no network.\nmore")

    monkeypatch.setattr(Hub, "create_repo", refused)
    with pytest.raises(RunError, match=r"\(no network\); .* hf upload ann/techno .*out$"):
        tuned.export("hub", tmp_path / "out", push="ann/techno")


@pytest.mark.parametrize(
    ("name", "public"),
    [
        ("musicnn", "musicnn"),
        ("MIT/ast-finetuned-audioset-10-10-0.4593", "MIT/ast-finetuned-audioset-10-10-0.4593"),
        ("/home/ann/ast", "ast"),
        ("../models/ast", "ast"),
        ("~/ast", "ast"),
        ("my/own/ast", "ast"),
        ("here/ast", "ast"),
    ],
)
def test_a_folder_is_named_by_its_last_part(
    name: str, public: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here" / "ast").mkdir(parents=True)
    assert weights.public_name(name) == public


def test_the_weights_do_not_name_the_folder_of_their_backbone(tmp_path: Path) -> None:
    toy = make_ast_folder(tmp_path / "toy", num_hidden_layers=1)
    whole = Encoder(backbones.load(str(toy)), head=(), embedding_size=4)
    weights.save(whole, tmp_path / "out")
    assert str(tmp_path) not in (tmp_path / "out" / encoder.STRUCTURE).read_text("utf-8")
    again = encoder.load(tmp_path / "out")
    assert encoder.fingerprint(again) == encoder.fingerprint(whole)
    assert again.backbone.source == "toy"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no format: give exactly one of --onnx, --sentence-transformers"),
        (["--faiss", "--hub"], "--hub and --faiss: give exactly one of"),
        (["--faiss", "--push", "ann/x"], "push is ann/x, but the target is faiss"),
        (["--hub", "--push", "techno"], "push is techno; write it as OWNER/NAME"),
        (["--faiss", "--out", "full"], "out is full, which is not empty; name a new folder"),
    ],
)
def test_a_refusal_is_one_line(
    words: list[str],
    message: str,
    model: subgenre.Model,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    out = [] if "--out" in words else ["--out", "out"]
    assert main(["export", str(model.path), *words, *out]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "mine.txt"]


def test_an_unknown_target_names_the_nearest(model: subgenre.Model, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'onnx'"):
        model.export("onx", tmp_path)


def test_a_network_that_can_not_be_exported_is_one_line(
    model: subgenre.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise torch.onnx.OnnxExporterError("data-dependent\nmore")

    monkeypatch.setattr(torch.onnx, "export", refused)
    with pytest.raises(
        BackboneError, match=r"^the network musicnn .* \(data-dependent\); use --hub"
    ):
        model.export("onnx", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_disk_that_fills_leaves_no_half_of_an_export(
    model: subgenre.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("subgenre.core.csv_tables.write", full)  # of the second file
    with pytest.raises(OSError, match="No space"):
        model.export("faiss", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("target", "module"),
    [
        ("onnx", "onnx"),
        ("faiss", "faiss"),
        ("sentence-transformers", "sentence_transformers.base.modules"),
    ],
)
def test_a_missing_library_names_its_extra(
    target: str,
    module: str,
    model: subgenre.Model,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    blocked: Any = None
    monkeypatch.setitem(sys.modules, module, blocked)
    monkeypatch.delitem(sys.modules, "subgenre.exports.sentence", raising=False)
    monkeypatch.delattr("subgenre.exports.sentence", raising=False)
    with pytest.raises(MissingExtraError, match=rf"pip install 'subgenre\[{target}\]'"):
        model.export(target, tmp_path / "out")
    assert not (tmp_path / "out").exists()
