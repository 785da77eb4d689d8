"""How a training is stopped from outside, so that nothing is lost and nothing empty is left."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from subgenre.core import workspace
from subgenre.core.progress import Console
from subgenre.errors import Interrupted
from subgenre.training import checkpoint

_STOPPING = "stopping once this step, or the finished model, is saved; Ctrl-C again stops at once"


@contextmanager
def kept_or_gone(folder: Path, run: Path, console: Console, *, own: bool) -> Iterator[None]:
    """Tell of the checkpoint that Ctrl-C leaves; remove this process's `own` folder without one.

    Args:
        folder: of the checkpoint. run: the model folder to be: once it is a model, nothing is left
            to go on with.
        own: whether this process writes both.
    """
    try:
        yield
    except KeyboardInterrupt:
        finished = own and (run / workspace.CONFIG).is_file()
        if (folder / checkpoint.NAME).is_file() and not finished:
            console.warn(f"the checkpoint under {folder} stays: {Interrupted.go_on}")
        raise
    finally:
        if own:
            with suppress(OSError):  # it holds something
                folder.rmdir()


@contextmanager
def stop_signals(console: Console) -> Iterator[Callable[[], bool]]:
    """Stop with a checkpoint on SIGTERM and SIGUSR1 (a cluster says that time is up) and Ctrl-C.

    Raises:
        KeyboardInterrupt: after the checkpoint, or at once on a second Ctrl-C; after the block,
            where no step was left to stop at.
    """
    asked: list[int] = []

    def note(number: int, _frame: object) -> None:
        pressed = number == signal.SIGINT
        if pressed and number in asked:
            raise KeyboardInterrupt
        asked.append(number)  # before anything is told: that can fail, or wait for a lock
        if pressed:
            threading.Thread(target=console.warn, args=(_STOPPING,), daemon=True).start()

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    names = ("SIGINT", "SIGTERM", "SIGUSR1")
    caught = [getattr(signal, name) for name in names if hasattr(signal, name)]
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a script's job in the background
        caught.remove(signal.SIGINT)
    before = {number: signal.signal(number, note) for number in caught}
    try:
        yield lambda: bool(asked)
    except Interrupted as problem:
        if signal.SIGINT in asked:
            raise KeyboardInterrupt from problem
        raise
    else:
        if signal.SIGINT in asked:  # the person stops what comes after, too
            raise KeyboardInterrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
