"""The examples of README.md, docs/thesis.md, docs/tags.md and docs/api.md run as they are written.

They run in order in one folder, on a small library, without worker processes. Not run: `make` and
the installation (they need the network), and Windows's `py`. Replaced: the AST's download in
`docs/thesis.md` by `musicnn`, and absolute paths by paths in the folder. `subgenre explore` is
started on a free port and stopped.
"""

from __future__ import annotations

import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from subgenre import cli
from tests import audio_files
from tests.audio.test_tempo_key import RATE, cadence, clicks
from tests.conftest import REPOSITORY
from tests.small_library import replace_workers

pytestmark = pytest.mark.slow

RUN = "fully_trained_models_20261122_101500"  # as docs/api.md names it
LABELS = ("techno/Dark Techno", "techno/Emotional Techno", "house/Deep House")
TITLES = (
    *("Track A", "Track B", "Track C", "Track D", "Track E", "Track Z", "Some Title"),
    *("Amber", "Birch", "Cedar", "Delta", "Ember", "Fjord", "Glade", "Heron"),
)
NOT_RUN = ("make ", "python3 -m venv", "pip ", "py ", ".venv")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library of three subgenres, and the other files that the examples name."""
    folder = tmp_path_factory.mktemp("documents")
    names = [f"WAV/{LABELS[i % 3]}/{title}.mp3" for i, title in enumerate(TITLES)]
    names += ["some track.mp3", "anywhere/else.flac"]
    names += ["new/a.mp3", "new/b.mp3", "MyMusic/c.mp3", "music/new/d.mp3"]
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        seconds = 8.0 + 1.8 * (number % 8)  # tracks of one length may pass for one recording
        samples = audio_files.music(seconds, 22_050, channels=1, seed=number)
        beat = np.sin(2 * np.pi * 2.0 ** (number % 3) * np.arange(samples.shape[1]) / 22_050)
        audio_files.write(folder / name, samples * np.clip(4 * beat, 0, 1), 22_050)
    in_a_minor = clicks(125, 16) + np.tile(cadence(9, True), 4)
    audio_files.write(folder / "MyMusic/c.mp3", in_a_minor[None], RATE)
    return folder


def blocks(document: str, language: str = "") -> list[str]:
    """Return the code blocks of a document, in order."""
    text = (REPOSITORY / document).read_text(encoding="utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [code for kind, code in found if kind == language]


def commands(document: str) -> list[list[str]]:
    """Return the commands of a document as words, without comments."""
    lines = [line for block in blocks(document) for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if not line.startswith(NOT_RUN)]


def start_and_stop(words: list[str]) -> None:
    """Start the explorer, wait for its address, and stop it."""
    server = subprocess.Popen(
        [sys.executable, "-m", *words, "--port", "0"], stderr=subprocess.PIPE, text=True
    )
    assert server.stderr
    assert any("http://127.0.0.1" in line for line in server.stderr)
    server.send_signal(signal.SIGTERM)
    server.communicate(timeout=60)
    assert server.returncode in (0, 128 + signal.SIGTERM)


def test_the_commands_of_the_readme(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    replace_workers(monkeypatch)
    for words in commands("README.md"):
        assert words[0] == "subgenre"
        if words[1] == "explore":
            start_and_stop(words)
        else:
            assert cli.main(words[1:]) == 0, words
    (folder / next(folder.glob("fully_trained_models_*"))).rename(folder / RUN)
    assert (folder / RUN / "report.html").is_file()
    assert (folder / "more.m3u8").is_file()


def test_the_python_of_the_api_page(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    replace_workers(monkeypatch)
    code = "\n".join(blocks("docs/api.md", "python"))
    for path in ("/music/new", "/anywhere/else.flac"):
        assert path in code
        code = code.replace(path, f"{folder}{path}")
    names: dict[str, object] = {}
    exec(compile(code, "docs/api.md", "exec"), names)
    assert (folder / "mine.m3u8").is_file()


def test_the_commands_of_the_tags_page(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    replace_workers(monkeypatch)
    for words in commands("docs/tags.md"):
        assert cli.main(words[1:]) == 0, words


def test_the_commands_of_the_thesis(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    replace_workers(monkeypatch)
    for python, script, *options in commands("docs/thesis.md"):
        assert python == "python"
        given = ["--test_run"] if "[--test_run]" in options else []
        if script.startswith("Preprocess"):
            given = ["--backbone", "musicnn"]
        monkeypatch.setattr(sys, "argv", [script, *given])
        monkeypatch.setattr(os, "_exit", sys.exit)
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(REPOSITORY / script), run_name="__main__")
        assert stop.value.code in (0, None), script
    assert any(Path("ast_triplet_output").iterdir())
