"""The lock file: what the package needs, at the tested versions, with hashes and no addresses.

And the Makefile, which makes it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import REPOSITORY, need


def pins(name: str) -> dict[str, str]:
    """Version by package, of a requirements file."""
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    found = re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE)
    return {canonicalize_name(package): version for package, version in found}


def test_the_lock_file_has_all_dependencies_at_the_tested_versions():
    locked, tested = pins("requirements-lock.txt"), pins("constraints.txt")
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    for text in (*project["dependencies"], *extras["web"], *extras["lora"]):
        needed = Requirement(text)
        assert needed.specifier.contains(locked[canonicalize_name(needed.name)]), text
    assert {name: tested[name] for name in locked.keys() & tested.keys()}.items() <= locked.items()


def test_the_lock_file_has_hashes_of_several_systems_and_no_address():
    text = (REPOSITORY / "requirements-lock.txt").read_text(encoding="utf-8")
    assert not re.search(r"https?:|file:|--\w*index|--find-links|\+cpu", text)
    for entry in re.split(r"\n(?=[a-z])", text.replace("\\\n", ""))[1:]:
        package, *hashes = entry.split("--hash=")
        assert "==" in package
        assert hashes
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}\s*", value) for value in hashes)
    torch = re.search(r"^torch==.*\n(?: +--hash.*\n)+", text, re.MULTILINE)
    assert torch is not None
    assert torch[0].count("--hash") > 10  # a build for each system and Python


def test_each_target_of_the_makefile_has_its_rules():
    need(shutil.which("make") is not None, "make is not installed")
    text = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^# make ([\w-]+)", text, re.MULTILINE)
    assert "sbom" in targets
    subprocess.run(["make", "-n", *targets], cwd=REPOSITORY, check=True, capture_output=True)
