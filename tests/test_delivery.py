"""What a user installs: the wheel, the extras that messages and documents name, the container."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

from subgenre.about import VERSION
from subgenre.explorer.server import bind
from tests.conftest import REPOSITORY
from tests.explorer_library import make_library, served

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
PACKAGE = REPOSITORY / "src/subgenre"
INFO = f"subgenre-{VERSION}.dist-info"


def build(kind: str, source: Path, out: Path) -> None:
    """Run the build backend as a front end does, in the environment of the tests."""
    code = f"import sys; from setuptools.build_meta import *; build_{kind}(sys.argv[1])"
    command = [sys.executable, "-W", "ignore", "-c", code, str(out)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of the wheel that is made from the sdist."""
    folder = tmp_path_factory.mktemp("built")
    source = folder / "source"
    pycache = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, source / "src/subgenre", ignore=pycache)
    for name in ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    build("sdist", source, folder)
    with tarfile.open(folder / f"subgenre-{VERSION}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    build("wheel", folder / f"subgenre-{VERSION}", folder)
    with zipfile.ZipFile(folder / f"subgenre-{VERSION}-py3-none-any.whl") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.slow
def test_the_wheel_has_each_file_of_the_package_and_nothing_else(wheel):
    files = [p for p in PACKAGE.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    there = {path.relative_to(PACKAGE.parent).as_posix(): path.read_bytes() for path in files}
    assert there == {name: data for name, data in wheel.items() if not name.startswith(INFO)}


def test_the_wheel_names_its_version_command_and_licences(wheel):
    assert message_from_bytes(wheel[f"{INFO}/METADATA"])["Version"] == VERSION
    assert b"subgenre = subgenre.__main__:start" in wheel[f"{INFO}/entry_points.txt"]
    for path in PROJECT["license-files"]:
        assert wheel[f"{INFO}/licenses/{path}"] == (REPOSITORY / path).read_bytes()


def test_the_version_is_written_once():
    tracked = ("CITATION.cff", "Dockerfile", "compose.yaml", "README.md", "docs/install.md")
    for name in (*tracked, ".github/workflows/release.yml"):
        assert VERSION not in (REPOSITORY / name).read_text("utf-8"), name
    assert "version" not in PROJECT


def test_the_extras_of_messages_and_documents_exist():
    code = "\n".join(path.read_text("utf-8") for path in PACKAGE.rglob("*.py"))
    named = set(re.findall(r'MissingExtraError\([^()]*, "([\w-]+)"\)', code))
    assert {"web", "lora", "onnx", "faiss", "postgresql", "milvus"} <= named
    for path in (
        *REPOSITORY.glob("*.md"),
        *(REPOSITORY / "docs").rglob("*.md"),
        REPOSITORY / "Dockerfile",
    ):
        for group in re.findall(r"(?:subgenre|\.|\.whl)\[([\w,-]+)\]", path.read_text("utf-8")):
            named |= set(group.split(","))
    assert named <= PROJECT["optional-dependencies"].keys()


def test_the_page_on_installing_lists_each_extra():
    section = (REPOSITORY / "docs/install.md").read_text("utf-8").partition("## Extras")[2]
    rows = re.findall(r"^\| (`[^|]*) \|", section.partition("\n## ")[0], re.MULTILINE)
    listed = [name for row in rows for name in re.findall(r"`([\w-]+)`", row)]
    assert sorted(listed) == sorted(PROJECT["optional-dependencies"])


@pytest.fixture(scope="module")
def health() -> str:
    """The code of the Dockerfile's health check."""
    text = (REPOSITORY / "Dockerfile").read_text("utf-8").replace("\\\n", "")
    python, option, code = json.loads(re.findall(r"^HEALTHCHECK .*?CMD (\[.*\])$", text, re.M)[0])
    assert (python, option) == ("python", "-c")
    return code


def is_healthy(code: str, port: int, token: str) -> bool:
    code = code.replace("8765", str(port))
    command = [sys.executable, "-c", code]
    ended = subprocess.run(
        command, env={**os.environ, "SUBGENRE_TOKEN": token}, capture_output=True
    )
    return ended.returncode == 0


def test_the_health_check_finds_a_server_that_answers(tmp_path, health):
    with served(make_library(tmp_path), token="f" * 32) as (url, _):
        port = int(url.rpartition(":")[2].strip("/"))
        assert is_healthy(health, port, "f" * 32)
        assert is_healthy(health, port, "")


def test_the_health_check_fails_without_an_answer(health):
    with bind("127.0.0.1", 0) as bound:  # accepts, and answers nothing
        port = bound.getsockname()[1]
        assert not is_healthy(health.replace("timeout=5", "timeout=.1"), port, "")
    assert not is_healthy(health, port, "")
