"""A function over many files, in worker processes: one that dies or hangs costs one file."""

from __future__ import annotations

import errno
import itertools
import math
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from operator import itemgetter
from typing import IO, Any, TypeVar, cast

from pebble import ProcessExpired, ProcessPool, concurrent

from subgenre.errors import AudioError, SubgenreError

T = TypeVar("T")
R = TypeVar("R")

MAX_REASON = 300  # characters; a library's message on a broken file can be a page long
CRASHED = "the reader crashed on this file"
FAILED = "an unexpected error; please report it with the file"
END_S = 1.0  # in which the workers of a pool end
POLL_S = 1.0  # between two looks at whether a pool broke
MEMORY = 4 * 2**30  # bytes that a worker may take for one file
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # no file's fault


@dataclass(frozen=True)
class Failure:
    """Why there is no result for one item; `reason` is one line for a person."""

    reason: str


def worker_count(workers: int | None = None) -> int:
    """Return `workers`, or the number of cores that this process may use."""
    if workers is not None:
        return max(1, workers)
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def limit_memory() -> None:
    """Limit a worker that reads files, so that a hostile one costs no more than itself."""
    try:
        import resource
    except ImportError:  # Windows
        return
    most = resource.getrlimit(resource.RLIMIT_DATA)[1]
    limit = MEMORY if most == resource.RLIM_INFINITY else min(MEMORY, most)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, most))


def map_files(
    fn: Callable[[T], R],
    items: Iterable[T],
    *,
    workers: int,
    timeout_s: float,
    initializer: Callable[..., object] | None = None,
    initargs: tuple[Any, ...] = (),
) -> Generator[tuple[int, R | Failure], None, None]:
    """Apply `fn` to each item and yield (position, result or Failure) as they finish.

    `fn`, the items and the results travel between processes and must be picklable; `initializer`
    runs once in each worker. One worker isolates too: `fn` never runs in the calling process. An
    item that takes more than `timeout_s` seconds is given up and its worker killed.

    Raises:
        SubgenreError: no worker process can start.
        OSError: the disk is full or read-only.
    """
    waiting: Iterator[tuple[int, T]] = iter(enumerate(items))
    workers = max(1, workers)
    while (first := next(waiting, None)) is not None:
        run = _Run(fn, itertools.chain([first], waiting), workers, timeout_s, initializer, initargs)
        try:
            yield from run.results()
            return
        except BrokenProcessPool:
            suspects, waiting = sorted(run.pending.values(), key=itemgetter(0)), run.items
        # any of them may have killed its worker: run one at a time, the file is known
        for suspect in suspects:
            alone = _Run(fn, iter([suspect]), 1, timeout_s, initializer, initargs)
            try:
                yield from alone.results()
            except BrokenProcessPool:
                yield suspect[0], Failure(CRASHED)


def alone(fn: Callable[[T], Iterable[R]], item: T, *, timeout_s: float) -> Generator[R, None, None]:
    """Yield what `fn(item)` yields in a process of its own, with the limits of a worker.

    For one file: the process starts sooner than a pool, and imports only what `fn` needs. It is
    killed after `timeout_s` seconds, and when the caller drops the generator.

    Raises:
        AudioError: `fn` fails, crashes, or takes too much time or memory.
        OSError: the disk is full or read-only.
    """
    search = os.pathsep.join(filter(None, sys.path))
    end = time.monotonic() + timeout_s
    with subprocess.Popen(
        (sys.executable, "-m", "subgenre.core.child"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": search, "PYTHONSAFEPATH": "1"},
        process_group=0,  # without Ctrl-C
    ) as process:
        timer = threading.Timer(timeout_s, process.kill)
        timer.start()
        try:
            with suppress(BrokenPipeError), cast(IO[bytes], process.stdin) as request:
                pickle.dump((fn, item), request)
            results = cast(IO[bytes], process.stdout)
            while (result := pickle.load(results)) is not None:  # noqa: S301 - of our own process
                if isinstance(result, OSError):
                    raise result
                if isinstance(result, Failure):
                    raise AudioError(result.reason)
                yield result
        except (EOFError, pickle.UnpicklingError) as problem:
            reason = _too_long(timeout_s) if time.monotonic() >= end else CRASHED
            raise AudioError(reason) from problem
        finally:
            timer.cancel()
            process.kill()


def sendable(problem: Exception) -> OSError | Failure:
    """Return what `alone` raises for an error in its process."""
    if isinstance(problem, OSError) and no_room(problem):
        return problem
    return _failure(problem, math.inf)


def no_room(problem: BaseException) -> bool:
    """Return whether an error is of the disk, full or read-only, and of no single file."""
    return isinstance(problem, OSError) and problem.errno in _NO_ROOM


class _Run:
    """One pool, and the items under way in it."""

    def __init__(
        self,
        fn: Callable[[Any], Any],
        items: Iterator[tuple[int, Any]],
        workers: int,
        timeout_s: float,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
    ) -> None:
        self.fn, self.items, self.workers, self.timeout_s = fn, items, workers, timeout_s
        self.pending: dict[Future[Any], tuple[int, Any]] = {}
        self.pool = ProcessPool(
            max_workers=workers,
            initializer=initializer,
            initargs=initargs,
            context=_context(),
        )

    def results(self) -> Iterator[tuple[int, Any]]:
        """Yield results as they finish, then end the pool.

        Raises:
            BrokenProcessPool: `pending` and `items` hold what is left.
        """
        starting = concurrent.thread(self._start)()
        try:
            problem = starting.exception()  # a start that fails is not blamed on the files
            if problem is not None:
                raise SubgenreError(
                    f"no worker process can start ({_one_line(problem)}); a script that calls this "
                    "must be a file, and guard its own start with: if __name__ == '__main__':"
                ) from problem
            while self._fill():
                yield from self._finish(self._wait(self.pending))
        finally:
            # also on Ctrl-C, and when the caller drops the generator
            ending = concurrent.thread(self._end)(starting)
            with suppress(TimeoutError):  # a process that still imports ends with this one
                ending.result(END_S)

    def _start(self) -> None:
        """Start the workers and wait for one; in a thread, because Ctrl-C can't break it off."""
        with _safe_path(), _without_ctrl_c():
            first = self.pool.schedule(int)
        self._wait([first]).pop().result()

    def _end(self, starting: Future[None]) -> None:
        starting.exception()  # waits
        self.pool.stop()
        self.pool.join()

    def _wait(self, futures: Iterable[Future[Any]]) -> set[Future[Any]]:
        """Return those that are done, at least one.

        Raises:
            BrokenProcessPool: the pool broke just before a future came in; it forgets such a one.
        """
        while True:
            broken = not self.pool.active
            done, _ = wait(futures, POLL_S, FIRST_COMPLETED)
            if done:
                return done
            if broken:
                raise BrokenProcessPool("a worker ended before its first task")

    def _fill(self) -> bool:
        """Keep each worker supplied with a next item; False when none is left."""
        for position, item in itertools.islice(self.items, 2 * self.workers - len(self.pending)):
            try:
                future = self.pool.schedule(self.fn, args=[item], timeout=self.timeout_s)
            except RuntimeError as problem:  # the pool broke meanwhile
                self.items = itertools.chain([(position, item)], self.items)
                raise BrokenProcessPool(str(problem)) from problem
            self.pending[future] = (position, item)
        return bool(self.pending)

    def _finish(self, done: set[Future[Any]]) -> Iterator[tuple[int, Any]]:
        for future in sorted(done, key=lambda future: self.pending[future][0]):
            problem = future.exception()
            if problem and (isinstance(problem, BrokenProcessPool) or no_room(problem)):
                raise problem
            position, _ = self.pending.pop(future)
            yield position, _failure(problem, self.timeout_s) if problem else future.result()


def _context() -> Any:
    """Return how workers start: on Linux as forks of one process that has imported torch.

    So they start in milliseconds, also in place of one that crashed, and share its memory.
    Elsewhere a fork after such imports is not safe.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch"])
    return context


@contextmanager
def _safe_path() -> Iterator[None]:
    """Keep the current folder out of the search path of the processes that start meanwhile.

    Python would put it first, and import a `re.py` that lies there. Workers take the search path of
    this process over.
    """
    before = os.environ.get("PYTHONSAFEPATH", "")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        os.environ["PYTHONSAFEPATH"] = before  # empty: not set


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Block Ctrl-C in the processes that start meanwhile, from any thread.

    Each would print a traceback while it still imports; their pool ends them.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # it would unblock the signal when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _failure(problem: BaseException, timeout_s: float) -> Failure:
    """Turn an error into one sentence for a person."""
    if isinstance(problem, ProcessExpired):
        return Failure(CRASHED)
    if isinstance(problem, TimeoutError):
        return Failure(_too_long(timeout_s))
    if isinstance(problem, MemoryError):
        return Failure("needs too much memory")
    if isinstance(problem, SubgenreError):
        return Failure(_one_line(problem))
    return Failure(FAILED)


def _too_long(timeout_s: float) -> str:
    return f"took longer than {timeout_s:g} s"


def _one_line(problem: BaseException) -> str:
    """Return the message on one line that any terminal and any file can hold."""
    text = " ".join(str(problem).split()) or type(problem).__name__
    return text.encode("utf-8", "backslashreplace").decode("utf-8")[:MAX_REASON]
