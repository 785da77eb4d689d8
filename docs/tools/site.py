"""Hooks of mkdocs: what the site shows of the package itself is made when the site is built."""

from __future__ import annotations

import json
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from subgenre.cli.main import app

ROOT = Path(__file__).parents[2]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the commands, of each notebook and on security, and the examples."""
    commands = app.generate_docs(output_format="markdown").replace("# subgenre", "# Commands", 1)
    commands = re.sub("## Table of Contents.*?(?=\\*\\*Commands)", "", commands, flags=re.DOTALL)
    files.append(File.generated(config, "reference/commands.md", content=commands))
    for file in [file for file in files if file.src_uri.endswith(".ipynb")]:
        page = notebook_page(json.loads(file.content_string), file.name)
        files.append(File.generated(config, file.src_uri.replace(".ipynb", ".md"), content=page))
    security = str(ROOT / "SECURITY.md")
    files.append(File.generated(config, "security.md", abs_src_path=security))
    for path in (ROOT / "examples").iterdir():
        files.append(File.generated(config, f"examples/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Make links to other files of the repository ones to their copies in the site."""
    markdown = markdown.replace("](../examples/", "](examples/")
    return markdown.replace("](../SECURITY.md", "](security.md")


def notebook_page(notebook: dict[str, list[dict[str, object]]], name: str) -> str:
    """Write the cells of a notebook as a page, with a link to the notebook."""
    cells = [
        (cell["cell_type"], "".join(map(str, cell["source"])))  # type: ignore[call-overload]
        for cell in notebook["cells"]
    ]
    parts = [text if kind == "markdown" else f"```python\n{text}\n```" for kind, text in cells]
    title, rest = parts[0].split("\n", 1)
    return "\n\n".join([title, f"[Download this notebook]({name}.ipynb)", rest, *parts[1:]])
