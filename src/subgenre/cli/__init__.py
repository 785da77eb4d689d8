"""The command line: arguments -> pipeline -> exit code, nothing else.

Exit codes: 0 all done; 1 done, but some files were skipped, or no track fits a list; 2 refused or
failed, with one line that says what and what to do; 130 stopped from the keyboard; 143 stopped by
another signal.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from cyclopts import App, CycloptsError, Parameter

from subgenre.about import VERSION
from subgenre.cli import judge, learn, tune, use
from subgenre.cli.console import Terminal
from subgenre.core.files import TEMPORARY
from subgenre.errors import Interrupted, SubgenreError

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


def run(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and end the process with its exit code."""
    code = main(arguments)
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        sys.exit(code)
    # A thread of torch's that wakes while the interpreter is taken down aborts the process, now and
    # then, though the model is written: torchrun would call the whole run failed.
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # none, full, or closed
            stream.flush()
    os._exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = [_dashed(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    try:
        with _stoppable():
            code = app(words, exit_on_error=False, print_error=False, result_action="return_value")
    except SubgenreError as problem:
        Terminal().fail(str(problem))
        return problem.exit_code
    except CycloptsError as problem:
        Terminal().fail(f"{problem} (see `subgenre {_command(words)}--help`)")
        return 2
    except KeyboardInterrupt:
        Terminal().fail("stopped from the keyboard")
        return 130
    except _Stopped:
        Terminal().fail("stopped as asked; what was done so far is kept")
        return Interrupted.exit_code
    except BrokenPipeError:  # `subgenre ... | head`
        sys.stderr.close()
        return 0
    except OSError as problem:
        Terminal().fail(_reason(problem))
        return 2
    return int(code or 0)


class _Stopped(BaseException):
    """SIGTERM: nothing but `main` catches it."""


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does, and with it the processes that it has started."""

    def leave(_number: int, _frame: object) -> None:
        raise _Stopped

    main_thread = threading.current_thread() is threading.main_thread()
    if not main_thread or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


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
