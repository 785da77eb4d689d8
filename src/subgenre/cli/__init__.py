"""The command line: arguments -> pipeline -> exit code, nothing else.

Exit codes: 0 all done; 1 done, but some files were skipped, or no track fits a list; 2 refused or
failed, with one line that says what and what to do.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cyclopts import App, CycloptsError, Parameter

from subgenre.about import VERSION
from subgenre.cli import judge, learn, tune, use
from subgenre.cli.console import Terminal
from subgenre.errors import SubgenreError
from subgenre.files import TEMPORARY

app = App(
    name="subgenre",
    help="Learn the nuance between your playlists, and hear what was learnt.",
    version=VERSION,
    default_parameter=Parameter(negative=()),
    help_format="plaintext",
    suppress_keyboard_interrupt=False,  # `main` says so and gives 130
)
learn.register(app)
judge.register(app)
tune.register(app)
use.register(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = [_dashed(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    try:
        code = app(words, exit_on_error=False, print_error=False, result_action="return_value")
    except SubgenreError as problem:
        Terminal().fail(str(problem))
        return 2
    except CycloptsError as problem:
        Terminal().fail(f"{problem} (see `subgenre {_command(words)}--help`)")
        return 2
    except KeyboardInterrupt:
        Terminal().fail("stopped from the keyboard")
        return 130
    except BrokenPipeError:  # `subgenre ... | head`
        sys.stderr.close()
        return 0
    except OSError as problem:
        Terminal().fail(_reason(problem))
        return 2
    return int(code or 0)


def _reason(problem: OSError) -> str:
    """Name the file and the system's reason; a temporary file stands for its folder."""
    name = problem.filename2 or problem.filename
    if problem.strerror is None or not isinstance(name, str | bytes | os.PathLike):
        reason = problem.strerror or str(problem) or type(problem).__name__
        return f"{reason}; check the paths and the free space"
    path = Path(os.fsdecode(name))
    path = path.parent if path.name.startswith(TEMPORARY) else path
    return f"{path}: {problem.strerror}; choose another place or mend this one"


def _dashed(word: str) -> str:
    """Write an option's underscores as dashes: the original commands had `--test_run`."""
    name, equals, value = word.partition("=")
    return (name.replace("_", "-") if name.startswith("--") else name) + equals + value


def _command(words: Sequence[str]) -> str:
    return f"{words[0]} " if words and words[0] in {name for name in app if name[0] != "-"} else ""
