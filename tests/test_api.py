"""The public interface, as a notebook uses it; stored vectors need no torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import subgenre
from subgenre.commands import explore
from subgenre.commands.model_folder import ModelFolder
from subgenre.core import workspace
from subgenre.dataset import track_vectors
from subgenre.errors import IndexStoreError, PlaylistError, RunError
from subgenre.explorer.app import create_app
from subgenre.library import formats
from subgenre.search.vector_index import Index
from tests.conftest import REPOSITORY
from tests.runs import DIM, LABELS, sounding_run, vector_run
from tests.small_library import replace_workers, write_wav

NO_TORCH = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
"""


def python(code: str, *arguments: object) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subgenre.Model]:
    patch = pytest.MonkeyPatch()
    replace_workers(patch)
    yield subgenre.load(sounding_run(tmp_path_factory.mktemp("made")))
    patch.undo()


def test_public_names():
    assert subgenre.__all__ == [
        "Filter",
        "LibraryMap",
        "Model",
        "SubgenreError",
        "__version__",
        "load",
    ]
    assert all(hasattr(subgenre, name) for name in subgenre.__all__)
    assert set(subgenre.__all__) <= set(dir(subgenre))
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        subgenre.laod  # noqa: B018


def test_every_public_method_is_documented():
    text = (REPOSITORY / "docs/api.md").read_text(encoding="utf-8")
    for name in [n for n in vars(subgenre.Model) if not n.startswith("_")]:
        assert f".{name}" in text, name


def test_import_loads_no_torch_and_no_numpy():
    code = "import sys, subgenre; print([m for m in ('torch', 'numpy') if m in sys.modules])"
    assert python(code) == ["[]"]


@pytest.mark.slow
def test_stored_vectors_need_no_torch(tmp_path: Path):
    run = vector_run(tmp_path / "fully_trained_models_1")
    code = (
        NO_TORCH
        + """
import subgenre
model = subgenre.load(sys.argv[1])
print(len(model.tracks), model.labels)
print([hit.track.path.stem for hit in model.similar("dark 0", 3)])
print([placed.subgenre for placed in model.classify(["dark 3", "deep 3"])])
print(len(model.playlist("dark 0", "dark 1", tracks=4)), model.playlist(axis="dark:deep")[0].row)
print(len(model.playlist(expand="dark", until_fit=None, tracks=3)))
print(model.scores())
try:
    model.embed("x.wav") if False else model.embed(sys.argv[2])
except ImportError as problem:
    print(problem)
print("torch" in sys.modules)
"""
    )
    write_wav(tmp_path / "x.wav", 4.0, 1)
    lines = python(code, run, tmp_path / "x.wav")
    assert lines[0].startswith("30 (('house', 'deep')")
    assert lines[1].count("dark") == 3
    assert lines[2] == "['dark', 'deep']"
    assert lines[3].startswith("4 ")
    assert lines[4:] == ["3", "{}", "torch is blocked", "False"]


def loaded(names: str, code: str, *arguments: object) -> list[str]:
    """The libraries, of those named, that a program loads; it prints nothing else."""
    check = f"\nprint(*sorted(set({names.split()!r}) & set(sys.modules)))"
    return python("import sys\n" + code + check, *arguments)[0].split()


def indexed_run(folder: Path) -> Path:
    run = ModelFolder.open(vector_run(folder / "fully_trained_models_1"))
    store = Index.create(run.index_path, dim=run.dim, fingerprint=run.fingerprint)
    store.upsert(run.tracks, run.embeddings.vectors)
    return run.path


@pytest.mark.slow
def test_similar_of_an_indexed_track_loads_only_what_its_answer_needs(tmp_path: Path):
    run = indexed_run(tmp_path)
    heavy = "torch transformers sklearn pandas pyarrow scipy av umap"
    unknown = """
import subgenre
try:
    subgenre.load(sys.argv[1]).similar("gone")
except subgenre.SubgenreError:
    pass
"""
    assert loaded(heavy, unknown, run) == []
    known = "import subgenre\nassert subgenre.load(sys.argv[1]).similar('dark 0', 3)"
    assert loaded(heavy, known, run) == ["scipy"]  # the tails of mutual proximity


@pytest.mark.slow
def test_the_explorers_first_page_loads_no_torch_and_no_scikit_learn(tmp_path: Path):
    run = vector_run(tmp_path / "fully_trained_models_1", each=3)
    code = """
from pathlib import Path
from subgenre.commands.explore import library
from subgenre.commands.model_folder import ModelFolder
from subgenre.explorer.app import create_app
run = Path(sys.argv[1])
create_app(library(ModelFolder.open(run), playlists=run)).state.explorer.view.warm()
"""
    shown = explore.library(ModelFolder.open(run), playlists=run)  # draws the map and keeps it
    create_app(shown).state.explorer.view.warm()
    assert loaded("torch transformers sklearn pandas umap", code, run) == []


@pytest.mark.slow
def test_a_models_parts_are_read_without_symbolic_algebra_and_pandas(tmp_path: Path):
    run = vector_run(tmp_path / "fully_trained_models_1")
    code = """
from pathlib import Path
from subgenre.commands.model_folder import ModelFolder
from subgenre.models import heads
heads.build([8, 4, 2])
ModelFolder.open(Path(sys.argv[1])).classifier()
"""
    assert loaded("sympy pandas scipy", code, run) == []


def test_map_places_every_track_and_is_kept(tmp_path: Path):
    model = subgenre.load(vector_run(tmp_path / "fully_trained_models_1", each=3))
    found = model.map()
    assert found.coordinates.shape == (9, 2)
    assert found.method == "PCA"  # too few tracks for UMAP
    assert [track.subgenre for track in found.tracks[:3]] == ["dark"] * 3
    kept = (model.path / "map.npz").read_bytes()
    again = subgenre.load(model.path).map()
    np.testing.assert_array_equal(again.coordinates, found.coordinates)
    assert (model.path / "map.npz").read_bytes() == kept
    (model.path / "map.npz").write_bytes(kept[:100])
    np.testing.assert_array_equal(model.map().coordinates, found.coordinates)
    vector_run(model.path, each=3, seed=1)  # trained anew: the old map is of other vectors
    assert not np.allclose(subgenre.load(model.path).map().coordinates, found.coordinates)


def test_embed_and_classify(made: subgenre.Model, tmp_path: Path):
    write_wav(tmp_path / "new.wav", 7.0, 3)
    (tmp_path / "bad.wav").write_text("no music")
    found = made.embed([tmp_path])
    assert found.vectors.shape == (1, DIM)
    assert [s.path.name for s in found.skipped] == ["bad.wav"]
    gone = made.embed([tmp_path / "new.wav", tmp_path / "gone.wav"])
    assert [(s.path.name, s.reason) for s in gone.skipped] == [("gone.wav", "does not exist")]
    placed = made.classify(found)[0]
    assert placed.fits == pytest.approx(made.classify(tmp_path / "new.wav")[0].fits)
    assert placed.chunk_start_s in found.chunk_start_s
    assert placed.track.duration_s == pytest.approx(7.0, abs=0.01)
    stored = track_vectors.read_embeddings(made.path / workspace.EMBEDDINGS)
    by_path = made.classify(str(stored.paths[0]))[0]
    assert by_path.track.id == stored.ids[0]
    assert made.classify([stored.ids[0]])[0].fits == by_path.fits
    assert {placed.nearest for placed in made.classify(stored.paths)} <= set(LABELS)


def test_similar_takes_names_files_and_vectors(made: subgenre.Model, tmp_path: Path):
    write_wav(tmp_path / "new.wav", 5.0, 4)
    vector = made.embed(tmp_path / "new.wav").vectors[0]
    by_file = made.similar(tmp_path / "new.wav", 3)
    assert [hit.track.id for hit in made.similar(vector, 3)] == [hit.track.id for hit in by_file]
    only = made.similar("dark, ü 0", 8, filter=subgenre.Filter(subgenre=("emotional",)))
    assert {hit.track.subgenre for hit in only} == {"emotional"}
    with pytest.raises(PlaylistError, match="did you mean 'dark, ü 0'"):
        made.similar("dark ü 0")
    with pytest.raises(PlaylistError, match="or a file that exists"):
        made.similar(tmp_path / "gone.wav")
    (tmp_path / "text.wav").write_text("no music")
    with pytest.raises(subgenre.SubgenreError):
        made.similar(tmp_path / "text.wav")


def test_playlist_is_written_with_relative_paths(made: subgenre.Model, tmp_path: Path):
    out = made.path.parent / "lists" / "mine.m3u8"
    hits = made.playlist("dark, ü 0", tracks=4, smooth=True, out=out)
    assert [path.resolve() for path in formats.read_m3u(out)] == [
        hit.track.path.resolve() for hit in hits
    ]
    lines = [line for line in out.read_text("utf-8").splitlines() if not line.startswith("#")]
    assert all(line.startswith("../WAV/") for line in lines)


def test_index_is_searched_from_then_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    replace_workers(monkeypatch)
    model = subgenre.load(sounding_run(tmp_path, each=2))
    assert len(model.tracks) == 4
    write_wav(tmp_path / "WAV/techno/dark/new.wav", 4.0, 70)
    assert model.index(tmp_path / "WAV").embedded == 1
    assert len(model.tracks) == 5
    assert len(subgenre.load(model.path).tracks) == 5
    assert "fully_trained_models_1" in repr(model)
    with pytest.raises(IndexStoreError):
        subgenre.load(model.path, index=tmp_path / "none").tracks  # noqa: B018


def test_load_names_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match="run `subgenre train`"):
        subgenre.load()
    vector_run(tmp_path / "fully_trained_models_1")
    newest = vector_run(tmp_path / "fully_trained_models_2")
    assert subgenre.load().path.resolve() == newest
