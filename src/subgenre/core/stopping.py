"""Ctrl-C and SIGTERM end a command by an exception, so that it tidies up.

Python raises it wherever the program is. In the middle of an import it would be lost, where a
library tries an import, or break a compiled module; then the process ends at once: there is nothing
to tidy up. In a destructor or a callback it would be lost too; then the signal is sent again.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# exit codes are those of a shell: 128 + the signal
MESSAGES = {
    signal.SIGINT: "stopped by Ctrl-C",
    signal.SIGTERM: "stopped by a signal; what was finished before is kept",
}
_SOON_S = 0.05
_IMPORT_SYSTEM = "<frozen importlib._bootstrap>"


class Terminated(BaseException):
    """A signal other than Ctrl-C arrived; no library catches this as an error of its own."""


@contextmanager
def caught() -> Iterator[None]:
    """Make SIGTERM raise `Terminated` and Ctrl-C `KeyboardInterrupt`, for a whole program.

    A signal that is ignored, or handled by others, stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours = (signal.SIG_DFL, signal.default_int_handler)
    caught = [number for number in MESSAGES if signal.getsignal(number) in ours]
    before = {number: signal.signal(number, _stop) for number in caught}
    hook, sys.unraisablehook = sys.unraisablehook, _send_again
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def at_once() -> Iterator[None]:
    """Let SIGTERM end the process at once: while foreign code waits, `_stop` would not be called.

    For a block with nothing to tidy up.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop(number: int, frame: FrameType | None) -> None:
    while frame is not None:
        if frame.f_code.co_filename == _IMPORT_SYSTEM:
            os.write(2, f"subgenre: {MESSAGES[signal.Signals(number)]}\n".encode())
            os._exit(128 + number)
        frame = frame.f_back
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated


def _send_again(lost: sys.UnraisableHookArgs) -> None:
    if isinstance(lost.exc_value, KeyboardInterrupt | Terminated):
        pressed = isinstance(lost.exc_value, KeyboardInterrupt)
        again = signal.SIGINT if pressed else signal.SIGTERM
        # soon: here it would be lost once more
        threading.Timer(_SOON_S, os.kill, (os.getpid(), again)).start()
    else:
        sys.__unraisablehook__(lost)
