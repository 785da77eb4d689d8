"""The file map says what each file's first line says; `python -m tests.test_readme` renews it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.conftest import REPOSITORY

BEGIN, END = "<!-- file map -->", "<!-- end of file map -->"


def first_line(path: Path) -> str:
    """The first sentence of a module's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split()).rstrip(".")


def file_map() -> str:
    """A line a file, folder by folder."""
    groups = [sorted(REPOSITORY.glob("*.py"))]
    package = REPOSITORY / "src/subgenre"
    groups.append(sorted(package.glob("*.py")))
    groups += [
        sorted(folder.glob("*.py"))
        for folder in sorted(package.iterdir())
        if folder.is_dir() and any(folder.glob("*.py"))
    ]
    groups.append(sorted((REPOSITORY / "benchmarks").glob("*.py")))
    lines = []
    for group in groups:
        folder = group[0].parent.relative_to(REPOSITORY).as_posix()
        lines.append(f"\n{'the root' if folder == '.' else folder + '/'}\n")
        lines += [f"  {path.name:<24} {first_line(path)}\n" for path in group]
    return f"{BEGIN}\n```\n{''.join(lines).lstrip()}```\n{END}"


def readme() -> str:
    return (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_every_file_says_what_it_is() -> None:
    files = [*REPOSITORY.glob("src/subgenre/**/*.py"), *REPOSITORY.glob("benchmarks/*.py")]
    assert [path.name for path in files if not first_line(path)] == []


def test_the_file_map_is_that_of_the_tree() -> None:
    assert file_map() in readme()


def test_links_and_commands_of_the_readme_exist() -> None:
    text = readme()
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (REPOSITORY / target).exists(), target
    makefile = (REPOSITORY / "Makefile").read_text()
    for command in re.findall(r"^make (\w+)", text, re.MULTILINE):
        assert f"\n{command}:" in makefile, command


if __name__ == "__main__":
    before, rest = readme().split(BEGIN)
    after = rest.split(END)[1]
    (REPOSITORY / "README.md").write_text(before + file_map() + after, encoding="utf-8")
