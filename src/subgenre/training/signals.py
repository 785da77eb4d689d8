"""Stop a training from outside without lost work or empty folders."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from subgenre.core import stopping, workspace
from subgenre.core.progress import Console
from subgenre.errors import Interrupted
from subgenre.training import checkpoint

_STOPPING = "stopping once this step, or the finished model, is saved; Ctrl-C again stops at once"


@contextmanager
def tidy_checkpoints(folder: Path, run: Path, console: Console, *, own: bool) -> Iterator[None]:
    """After Ctrl-C or on a full disk name the checkpoint, if the model is not finished.

    An empty folder is removed.

    Args:
        folder: of the checkpoint. run: the model folder. own: whether this process writes both.
    """
    try:
        yield
    except (KeyboardInterrupt, OSError):
        finished = own and (run / workspace.CONFIG).is_file()
        if (folder / checkpoint.NAME).is_file() and not finished:
            console.warn(f"the checkpoint under {folder} stays: {Interrupted.go_on}")
        raise
    finally:
        if own:
            for place in (folder, run):
                with suppress(OSError):  # it is not empty
                    place.rmdir()


@contextmanager
def stop_signals(console: Console) -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether SIGTERM, SIGUSR1 (a cluster) or Ctrl-C came.

    Before its first call, a signal stops the work at once: there is no step to be saved.

    Raises:
        KeyboardInterrupt: after the checkpoint, or at once on a second Ctrl-C; after the block
            if there was no step left to stop at.
        Interrupted: another signal came before the first call.
    """
    received: list[int] = []
    called = False

    def requested() -> bool:
        nonlocal called
        called = True
        return bool(received)

    def note(number: int, frame: FrameType | None) -> None:
        pressed = number == signal.SIGINT
        if not called or (pressed and number in received):
            at_once = before[number]
            if callable(at_once):
                at_once(number, frame)
            raise stopping.Terminated
        received.append(number)  # before the message: that can fail, or wait for a lock
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
        yield requested
    except stopping.Terminated:
        again = "the same command again goes on with what is computed"
        raise Interrupted(f"stopped before the first step; {again}") from None
    except Interrupted as problem:
        if signal.SIGINT in received:
            raise KeyboardInterrupt from problem
        raise
    else:
        if signal.SIGINT in received:  # Ctrl-C ends what comes after, too
            raise KeyboardInterrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
