"""The examples of README.md, of the pages in docs/ and of the notebooks run as they are written.

They run in one folder, on a small library, without worker processes, after the commands of
README.md. Not run: `make` and the installation (they need the network), Windows's `py`, and the
blocks that say so in their first line, which `MARKED` lists. `docs/extending.md` has its own test.
Replaced: the AST's download in `docs/thesis.md` by `musicnn`, the epochs of recipes by a few, the
demo's library by a smaller one, names of models and of a track by those that are there, and
absolute paths by paths in the folder. `subgenre explore` is started on a free port and stopped.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest

from subgenre import cli, config, demo
from subgenre.cli.main import COMMANDS
from subgenre.core import csv_tables, workspace
from subgenre.demo import STYLES, music_files
from subgenre.library import formats, rekordbox
from subgenre.library.track import Track
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
MARK = "# not run by the tests: "
MARKED = {  # the reason of each block
    "docs/architecture.md": ["an outline"],
    "docs/backbones.md": ["needs the hub"],
    "docs/cluster.md": ["tests/training/test_nodes.py runs the script for SLURM"],
    "docs/export.md": [
        "tests/commands/test_export.py runs the script on a smaller model",
        "tests/commands/test_export.py does the same with a smaller model",
        "they serve a page until they are stopped",
    ],
    "docs/howto/report.md": ["trains five models"],
    "docs/install.md": ["needs a container engine"],
    "docs/scaling.md": ["takes hours"],
    "docs/served-index.md": ["needs a server", "needs a server"],
}
HOW_TO = ("docs/howto/labels.md", "docs/howto/lists.md", "docs/tags.md")
RUN_HERE = {
    *("README.md", "docs/index.md", "docs/tutorial.md", "docs/api.md", "docs/thesis.md"),
    *("docs/cluster.md", "docs/export.md", "docs/howto/playlists.md", *HOW_TO),
}
RUN_ELSEWHERE = {"docs/extending.md"}  # tests/test_extending.py
EPOCHS, DEMO_STYLES = 5, ("deep house", "acid house", "techno")
PLACEHOLDERS: dict[str, Callable[[], str]] = {
    "fully_trained_models_before": lambda: RUN,
    "fully_trained_models_after": lambda: workspace.runs(Path())[-1].name,
    f"{RUN}/tags_1.jsonl": lambda: str(next(Path().glob("*/tags_1.jsonl"))),
    "Tidal Basin": lambda: min(Path("WAV/house/acid house").iterdir()).stem[3:],
}


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


def blocks(document: str, *languages: str) -> list[str]:
    """Return the code blocks of a document, in order, without those that are marked."""
    text = (REPOSITORY / document).read_text(encoding="utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [code for kind, code in found if kind in languages and not code.startswith(MARK)]


def commands(document: str) -> list[list[str]]:
    """Return the commands of a document as words, without comments."""
    lines = [line for block in blocks(document, "") for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if not line.startswith(NOT_RUN)]


@cache
def start_and_stop(*words: str) -> None:
    """Start the explorer, wait for its address, and stop it; once for all pages."""
    server = subprocess.Popen(
        [sys.executable, "-m", *words, "--port", "0"], stderr=subprocess.PIPE, text=True
    )
    assert server.stderr
    assert any("http://127.0.0.1" in line for line in server.stderr)
    server.send_signal(signal.SIGTERM)
    server.communicate(timeout=60)
    assert server.returncode in (0, 128 + signal.SIGTERM)


def run_commands(document: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the commands of a document in a folder."""
    monkeypatch.chdir(folder)
    replace_workers(monkeypatch)
    for program, *words in commands(document):
        given = [PLACEHOLDERS[word]() if word in PLACEHOLDERS else word for word in words]
        if program == "cd":
            monkeypatch.chdir(given[0])
        elif given[0] == "explore":
            start_and_stop(program, *given)
        else:
            assert program == "subgenre"
            assert cli.main(given) == 0, given


@pytest.fixture(scope="module", autouse=True)
def _few_epochs() -> Iterator[None]:
    """Each recipe has `EPOCHS` epochs."""
    load = config.load_recipe
    shorten = partial(config.replace, section="optim", epochs=EPOCHS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "load_recipe", lambda name: shorten(load(name)))
        yield


@pytest.fixture(scope="module")
def ready(folder: Path) -> Path:
    """The folder after the commands of README.md."""
    with pytest.MonkeyPatch.context() as patch:
        run_commands("README.md", folder, patch)
    (folder / next(folder.glob("fully_trained_models_*"))).rename(folder / RUN)
    return folder


def test_the_commands_of_the_readme(ready: Path) -> None:
    assert (ready / RUN / "report.html").is_file()
    assert (ready / "more.m3u8").is_file()


def test_the_python_of_the_api_page(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ready)
    replace_workers(monkeypatch)
    code = "\n".join(blocks("docs/api.md", "python"))
    for path in ("/music/new", "/anywhere/else.flac"):
        assert path in code
        code = code.replace(path, f"{ready}{path}")
    exec(compile(code, "docs/api.md", "exec"), {})
    assert (ready / "mine.m3u8").is_file()


def test_the_commands_of_the_thesis(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ready)
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


@pytest.mark.parametrize("page", HOW_TO)
def test_the_commands_of_a_how_to(page: str, ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webbrowser.open", lambda _: True)
    run_commands(page, ready, monkeypatch)


def test_the_commands_of_the_tutorial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smaller = partial(demo.make_library, tracks_per_subgenre=4, track_s=10, workers=1)
    monkeypatch.setattr(demo, "make_library", smaller)
    monkeypatch.setattr(music_files, "STYLES", [s for s in STYLES if s.name in DEMO_STYLES])
    run_commands("docs/tutorial.md", tmp_path, monkeypatch)
    assert len(formats.read_playlist(tmp_path / "demo" / "first.m3u8")) == 10


def test_the_commands_of_the_home_page_are_run_on_other_pages() -> None:
    run = [*commands("docs/tutorial.md"), *commands("docs/howto/labels.md")]
    assert all(words in run for words in commands("docs/index.md"))


def test_playlists_of_each_kind(
    ready: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "WAV").symlink_to(ready / "WAV")
    lists = {
        label: [Track(path.stem, path) for path in sorted((tmp_path / "WAV" / label).iterdir())[:3]]
        for label in LABELS
    }
    for name, tracks in lists.items():
        formats.write_playlist(tmp_path / "playlists" / f"{name}.m3u8", tracks)
    rekordbox.write_rekordbox(tmp_path / "rekordbox.xml", lists)
    rows = [(track.path, *name.split("/")) for name, tracks in lists.items() for track in tracks]
    csv_tables.write(tmp_path / "tracks.csv", [("path", "genre", "subgenre"), *rows])
    run_commands("docs/howto/playlists.md", tmp_path, monkeypatch)


def test_the_shards_of_the_cluster_page(
    ready: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "WAV").symlink_to(ready / "WAV")
    run_commands("docs/cluster.md", tmp_path, monkeypatch)
    assert (tmp_path / "preprocessed_features" / "chunks.parquet").is_file()


def test_the_vectors_of_the_export_page(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ready)
    shutil.rmtree("exported")
    assert cli.main(["export", "--faiss", "--out", "exported"]) == 0
    names: dict[str, Any] = {}
    exec("\n".join(blocks("docs/export.md", "python")), names)
    assert names["index"].ntotal == len(names["tracks"]) > 0


def test_the_notebooks(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ready)
    replace_workers(monkeypatch)
    for name in ("judged_model", "compare_recipes"):
        path = REPOSITORY / "docs" / "notebooks" / f"{name}.ipynb"
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        assert not any(cell.get("outputs") for cell in cells)
        exec(compile("\n".join(code), path.name, "exec"), {})
    plt.close("all")


def test_each_block_is_run_or_says_why_not() -> None:
    marked: dict[str, list[str]] = {}
    for path in (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))):
        page = path.relative_to(REPOSITORY).as_posix()
        text = path.read_text(encoding="utf-8")
        reasons = re.findall(rf"^```\w*\n{MARK}(.*)$", text, re.MULTILINE)
        if reasons:
            marked[page] = reasons
        if blocks(page, "", "sh", "python"):
            assert page in RUN_HERE | RUN_ELSEWHERE, page
    assert marked == MARKED


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    mkdocs = Path(sys.executable).with_name("mkdocs")
    words = [mkdocs, "build", "--strict", "--site-dir", tmp_path]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    commands = (tmp_path / "reference" / "commands" / "index.html").read_text(encoding="utf-8")
    assert ">subgenre demo [OPTIONS]" in commands
    assert all(f'id="subgenre-{command.__name__}"' in commands for command in COMMANDS)
