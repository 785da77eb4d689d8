"""The program `subgenre`: its commands, and the exit code of each end.

Exit codes: 0 all done; 1 done, but some files were skipped, or no track fits a list; 2 refused or
failed, with one line that gives the reason and the next step; 130 stopped by Ctrl-C; 143 stopped
by another signal.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from cyclopts import App, CycloptsError, Parameter

from subgenre.about import VERSION
from subgenre.cli import judge, learn, use
from subgenre.cli.console import Terminal
from subgenre.core import stopping
from subgenre.core.files import TEMPORARY
from subgenre.errors import SubgenreError

app = App(
    name="subgenre",
    help="Learn the nuance between your playlists, and explore your music by it.",
    version=VERSION,
    default_parameter=Parameter(negative=()),
    help_format="plaintext",
    suppress_keyboard_interrupt=False,  # `main` handles it
)
COMMANDS: tuple[Callable[..., int], ...] = (  # in the order of the job
    learn.demo,
    learn.run,
    learn.preprocess,
    learn.merge,
    judge.doctor,
    judge.check,
    learn.train,
    judge.evaluate,
    learn.tune,
    judge.runs,
    judge.compare,
    use.index,
    use.classify,
    use.tag,
    use.similar,
    use.playlist,
    use.explore,
    use.embed,
    use.export,
)
for position, command in enumerate(COMMANDS):
    app.command(command, sort_key=position)


def run(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and end the process with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):  # none, or no text stream of its own
            # a character that the terminal's encoding lacks is escaped
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    code = main(arguments)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, BrokenPipeError, ValueError):  # none, or closed
            pass
        except OSError:  # full: the result is lost
            code = code or 2
    # The interpreter would take seconds to free torch, one of whose threads may abort the process.
    os._exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = [_dashed(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    try:
        with stopping.caught():
            code = app(words, exit_on_error=False, print_error=False, result_action="return_value")
        return int(code or 0)
    except SubgenreError as problem:
        reason, code = str(problem), problem.exit_code
    except CycloptsError as problem:
        command = f"{words[0]} " if words and words[0] in app else ""
        reason, code = f"{problem} (see `subgenre {command}--help`)", 2
    except KeyboardInterrupt:
        reason, code = stopping.MESSAGES[signal.SIGINT], 128 + signal.SIGINT
    except stopping.Terminated:
        reason, code = stopping.MESSAGES[signal.SIGTERM], 128 + signal.SIGTERM
    except BrokenPipeError:  # `subgenre ... | head`
        sys.stderr.close()
        return 0
    except OSError as problem:
        reason, code = _reason(problem), 2
    Terminal().fail(reason)
    return code


def _reason(problem: OSError) -> str:
    """Return the file and the system's reason; a temporary file is named by its folder."""
    name = problem.filename2 or problem.filename
    if problem.strerror is None or not isinstance(name, str | bytes | os.PathLike):
        reason = problem.strerror or str(problem) or type(problem).__name__
        return f"{reason}; check the paths and the free space"
    path = Path(os.fsdecode(name))
    path = path.parent if path.name.startswith(TEMPORARY) else path
    full = problem.errno in (errno.ENOSPC, errno.EDQUOT)
    here = "free some space" if full else "repair this one"
    return f"{path}: {problem.strerror}; choose another place or {here}"


def _dashed(word: str) -> str:
    """Write an option's underscores as dashes: the original commands had `--test_run`."""
    name, equals, value = word.partition("=")
    return (name.replace("_", "-") if name.startswith("--") else name) + equals + value
