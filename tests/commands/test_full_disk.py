"""A full disk ends each command with one line and leaves no half of a model.

The system's limit on the size of a file stands for it: the same call fails, inside each library.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from subgenre.cli.main import main
from subgenre.commands import train as stage
from subgenre.search.vector_index import Index
from tests.folders import make_folder
from tests.runs import sounding_run
from tests.small_disk import largest_file
from tests.small_library import make_library, replace_workers, run, same_folders

pytestmark = pytest.mark.slow


def refused(capsys: pytest.CaptureFixture[str], size: int, *words: str) -> str:
    """Run a command that may write no file beyond `size` bytes; return its one line."""
    with largest_file(size):
        assert main([*words, "--quiet"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("subgenre: ")
    assert "File too large" in lines[-1] or "disk" in lines[-1]
    assert len(lines) <= 2
    return "\n".join(lines)


def test_preprocess_stops_and_counts_no_file_as_bad(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_workers(monkeypatch)
    root = make_library(tmp_path / "WAV")
    assert "probe.wav" in refused(capsys, 30_000, "preprocess", str(root), "--backbone", "musicnn")
    with largest_file(30_000), pytest.raises(OSError, match="too large") as problem:
        run(root, tmp_path / "f")
    assert Path(problem.value.filename).is_relative_to(tmp_path / "f")
    assert not (tmp_path / "f" / "dataset.json").exists()
    for out in ("f", "whole"):
        run(root, tmp_path / out)
    same_folders(tmp_path / "f", tmp_path / "whole")


def test_train_leaves_no_half_of_a_model_and_is_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    features = make_folder(tmp_path / "features").path
    words = ["train", "--features", str(features), "--backbone", "musicnn", "--recipe", "thesis"]
    words += ["--tune", "head", "--epochs", "1", "--checkpoints", str(tmp_path / "c")]
    words += ["--out", str(tmp_path / "m")]
    for size, what in {10_000: ".vectors", 300_000: "checkpoint"}.items():
        assert what in refused(capsys, size, *words)

    def write(*args: Any, **options: Any) -> None:
        with largest_file(300_000):
            real(*args, **options)

    real = stage._write
    with monkeypatch.context() as patch:
        patch.setattr(stage, "_write", write)
        note, line = refused(capsys, 2**30, *words).splitlines()
    assert "train --resume`" in note
    assert "safetensors" in line
    assert not (tmp_path / "m").exists()
    assert main([*words, "--resume", "--quiet"]) == 0
    assert (tmp_path / "m" / "config.toml").is_file()


def test_an_index_is_the_old_or_the_new_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_workers(monkeypatch)
    made = sounding_run(tmp_path)
    words = ["index", str(tmp_path / "WAV"), "--run", str(made)]
    for size in (1_000, 13_000):  # the database, a transaction
        refused(capsys, size, *words)
    assert main([*words, "--quiet"]) == 0
    assert len(Index.open(made / "index").collection.live) == 8
