"""What a model keeps of the files that it has embedded: the same vectors, by model and cut."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from subgenre.audio import reading
from subgenre.config import PreprocessConfig
from subgenre.models.file_vectors import FileVectors, Kept
from tests.small_library import write_wav

CUT = PreprocessConfig(chunk_s=4.0, max_chunks=3, chunk_strategy="spaced")
DIM = 5


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_wav(tmp_path / "a.wav", 10.0, 1)
    return tmp_path / "a.wav"


def embedded(path: Path, starts_s: list[float]) -> FileVectors:
    probe = reading.probe(path)
    chunks = np.random.default_rng(0).normal(size=(len(starts_s), DIM)).astype(np.float32)
    return FileVectors.of(path, probe.id, probe.duration_s, chunks, np.array(starts_s))


@pytest.mark.parametrize("starts_s", [[0.0, 3.0, 6.0], [0.0, 6.0], [3.0]])
def test_what_is_kept_comes_back(path: Path, starts_s: list[float]) -> None:
    kept, found = Kept(path.parent / "kept", "m" * 32, DIM, CUT), embedded(path, starts_s)
    assert kept.find(path) is None
    kept.write(found)
    again = kept.find(path)
    assert again is not None
    for name in ("vectors", "chunks", "chunk_file", "chunk_start_s"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
    assert (again.ids, again.duration_s) == (found.ids, found.duration_s)


def test_another_model_another_cut_and_damage_count_as_absent(path: Path) -> None:
    kept = Kept(path.parent / "kept", "m" * 32, DIM, CUT)
    kept.write(embedded(path, [0.0, 3.0, 6.0]))
    assert replace(kept, fingerprint="n" * 32).find(path) is None
    assert replace(kept, engine="openvino bf16").find(path) is None
    assert replace(kept, config=replace(CUT, chunk_s=3.0)).find(path) is None
    assert replace(kept, config=replace(CUT, chunk_strategy="sequential")).find(path) is None
    (values,) = (p for p in kept.folder.glob("*.npy") if ".done" not in p.name)
    values.write_bytes(values.read_bytes()[:-1] + b"x")
    assert kept.find(path) is None


def test_a_model_folder_that_cannot_be_written_keeps_nothing(path: Path) -> None:
    (path.parent / "file").write_text("in the way")
    kept = Kept(path.parent / "file", "m" * 32, DIM, CUT)
    kept.write(embedded(path, [0.0, 3.0, 6.0]))
    assert kept.find(path) is None
