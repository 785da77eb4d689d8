"""Break each stage at seeded moments, run it again, and compare with an undisturbed run.

    python -m tests.crashes --cases 200 --seed 0

A process imports everything and runs each stage once; each case is a fork of it, so that a kill is
cheap. Every case works in the same folder, so that absolute paths are the same. What a stage writes
must be the same after its second run, byte by byte; of the index, the tracks, vectors and measures.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import gc
import io
import itertools
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

os.environ |= {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "COLUMNS": "200"}

import pytest

from subgenre.cli.main import main
from subgenre.commands import index as indexing
from subgenre.core import workspace
from subgenre.core.files import TEMPORARY
from subgenre.dataset import building
from subgenre.metrics import clusters
from subgenre.models import cache, embedding
from subgenre.search import storage
from tests.small_library import replace_workers, write_wav

# the words of each stage, and what it writes; each starts from what those before it leave
STAGES = {
    "preprocess": (
        "preprocess WAV --backbone musicnn --chunk-s 3 --max-chunks 2 --workers 1",
        "preprocessed_features",
    ),
    "train": (
        "train --backbone musicnn --recipe laptop --set optim.epochs=2 --set run.save_every=1 "
        "--set model.head=[] --set model.embedding_size=8 --set model.pca=0 --device cpu "
        "--out m --resume",
        "m",
    ),
    "evaluate": ("evaluate --run m --quick --max-mb 0", "m"),
    "index": ("index WAV --run m", "m/index"),
    "index again": ("index more --run m", "m/index"),
    "playlist": ("playlist --run m --expand quiet --out list.xml", "list.xml"),
    "tag": (
        "tag more --run m --write subgenre=GENRE --mode overwrite --alpha 0.001 --apply",
        "more",
    ),
}
FAULTS = (
    "killed at an operation",
    "killed at an operation",
    "killed at a moment",
    "killed in a write",
    "disk full",
    "too large a file",
    "read-only folder",
    "file vanishes",
    "file changes",
    "two at once",
)
ENDS = {0, 1, 2}  # exit codes of `subgenre`
CRASHED = 70  # one that it does not have
TRACKS = 6


@dataclass
class Usual:
    """An undisturbed run: operations on files, bytes of the largest file, time, what it writes."""

    operations: int
    largest: int
    seconds: float
    written: dict[str, Any]


def make_libraries(folder: Path) -> None:
    """Write a library of two subgenres and more music without labels."""
    for i in range(TRACKS):
        write_wav(folder / "WAV" / "techno" / ("quiet", "loud")[i % 2] / f"{i}.wav", 4.0, i)
    for i in range(2):
        write_wav(folder / "more" / f"{i}.wav", 3.5, 20 + i)


def slow_motion(patch: pytest.MonkeyPatch) -> None:
    """No worker processes, a clock that stands still, and everything is saved at once."""
    replace_workers(patch)
    patch.setattr(time, "monotonic", lambda: 0.0)
    patch.setattr(time, "perf_counter", lambda: 0.0)
    patch.setattr(indexing, "SAVE_EVERY_S", -1.0)
    patch.setattr(cache, "SAVE_EVERY_S", -1.0)
    patch.setattr(embedding, "_batch_size", lambda _device: 3)
    patch.setattr(clusters, "REDRAWS", 5)  # of an interval, which takes a third of the time


class Operations:
    """Calls a function before each operation that changes a file below `work`."""

    def __init__(self, work: Path) -> None:
        self.work, self.call = str(work), lambda _event: None
        self.fsync, os.fsync = os.fsync, self._fsync
        sys.addaudithook(self._hook)

    def _fsync(self, number: int) -> None:
        self.call("fsync")
        self.fsync(number)

    def _hook(self, event: str, given: tuple[Any, ...]) -> None:
        if event not in ("open", "os.rename", "os.remove", "os.mkdir", "sqlite3.connect"):
            return
        if event == "open" and not given[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
        name = str(given[0])
        path = os.path.join(os.getcwd(), name)  # noqa: PTH109, PTH118 - pathlib opens
        if path.startswith(self.work) or event == "sqlite3.connect":
            self.call(event)


def install(fault: str, at: float, operations: Operations, usual: Usual) -> None:
    """Let a fault come in this process; `at` of [0, 1) says when."""
    work, chosen, counted = Path(operations.work), int(at * usual.operations), itertools.count()

    def refuse(code: int, since: int) -> None:
        def call(event: str) -> None:
            if next(counted) >= since and event != "os.remove":
                raise OSError(code, os.strerror(code), str(work))

        operations.call = call

    def once(action: Callable[[], object]) -> None:
        operations.call = lambda _event: action() if next(counted) == chosen else None

    victim = sorted((work / "WAV").rglob("*.wav"))[int(at * 1000) % TRACKS]
    if fault == "killed at an operation":
        once(lambda: os.kill(os.getpid(), signal.SIGKILL))
    elif fault == "killed at a moment":
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, 0.001 + at * usual.seconds)
    elif fault in ("killed in a write", "too large a file"):
        kills = fault == "killed in a write"
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL if kills else signal.SIG_IGN)
        limit = int(usual.largest**at)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    elif fault == "disk full":
        refuse(errno.ENOSPC, chosen)
    elif fault == "read-only folder":
        refuse(errno.EROFS, 0)
    elif fault == "file vanishes":
        once(victim.unlink)
    elif fault == "file changes":
        once(lambda: write_wav(victim, 5.0, 77))


class Fork:
    """A command in a fork of this process."""

    def __init__(self, words: str, work: Path, prepare: Callable[[], None]) -> None:
        self.output, into = os.pipe()  # a file would grow against the limit of a fault
        self.process = os.fork()
        if not self.process:
            self._run(words, work, into, prepare)
        os.close(into)

    def _run(self, words: str, work: Path, into: int, prepare: Callable[[], None]) -> NoReturn:
        try:
            os.chdir(work)
            os.dup2(into, 1)
            os.dup2(into, 2)
            prepare()
            code = main(words.split())
        except BaseException:  # noqa: BLE001 - a traceback is what we look for
            traceback.print_exc()
            code = CRASHED
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def wait(self) -> tuple[int, str]:
        """Return the exit code, or the signal as a negative number, and the output."""
        with open(self.output, "rb") as output:  # noqa: PTH123 - no path
            text = output.read().decode(errors="replace")
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1]), text


def content(path: Path) -> dict[str, Any]:
    """Return what a stage has written, by name; without caches and journals."""
    if path.is_file():
        return {path.name: path.read_bytes()}
    if storage.exists(path):
        _, held = storage.read(path)
        rows = zip(*(column[held.live] for column in held.rows.values()), strict=True)
        tracks = zip(held.rows["id"][held.live], rows, held.vectors(held.live), strict=True)
        found: dict[str, Any] = {f"copies of {i}": paths for i, paths in held.copies.items()}
        found |= {f"measures of {i}": values for i, values in held.measured.items()}
        for track_id, row, vector in tracks:
            found |= {f"row of {track_id}": row, f"vector of {track_id}": vector.tobytes()}
        return found
    named = {p.relative_to(path).as_posix(): p for p in path.rglob("*") if p.is_file()}
    return {
        name: p.read_bytes()
        for name, p in named.items()
        if not (name.startswith((".vectors", "index")) or name == building.JOURNAL)
    }


class Harness:
    """The state before each stage, and what it writes undisturbed; `place` is a new folder."""

    def __init__(self, place: Path) -> None:
        self.before, self.work = place / "before", place / "work"
        make_libraries(self.work)
        self.operations = Operations(self.work)
        self.usual: dict[str, Usual] = {}
        os.chdir(self.work)
        for stage in STAGES:
            shutil.copytree(self.work, self.before / stage)
            self.usual[stage] = self._run_here(stage)
        gc.freeze()  # a fork would copy what its collector touches

    def _run_here(self, stage: str) -> Usual:
        """Run a stage in this process, which imports and compiles what its forks need."""
        words, written = STAGES[stage]
        counted, began = itertools.count(), time.time()
        self.operations.call = lambda _event: next(counted)
        with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(said):
            code = main(words.split())
        self.operations.call = lambda _event: None
        if code:
            raise RuntimeError(said.getvalue())
        seconds = time.time() - began
        largest = max(p.stat().st_size for p in self.work.rglob("*") if p.is_file())
        return Usual(next(counted), largest, seconds, content(self.work / written))

    def case(self, stage: str, fault: str, at: float) -> str:
        """Break a stage and run it again; return what is wrong, or nothing."""
        words, written = STAGES[stage]
        usual = self.usual[stage]
        os.chdir(self.before)
        shutil.rmtree(self.work)
        shutil.copytree(self.before / stage, self.work)
        before = content(self.work / written)
        broken = [
            Fork(words, self.work, lambda: install(fault, at, self.operations, usual))
            for _ in range(2 if fault == "two at once" else 1)
        ]
        ends = [fork.wait() for fork in broken]
        for code, said in ends:
            stopped = code < 0 and fault.startswith("killed")
            if "Traceback" in said or not (code in ENDS or stopped):
                return f"ended with {code}: {said}"
        found = content(self.work / written)
        known = (n for n in found if TEMPORARY not in n)  # the next run removes what was begun
        torn = [n for n in known if found[n] not in (before.get(n), usual.written.get(n))]
        if torn and not fault.startswith("file"):
            return f"ended with {ends} and left neither the old nor the new {', '.join(torn)}"
        shutil.copytree(self.before / stage / "WAV", self.work / "WAV", dirs_exist_ok=True)
        if not (stage == "train" and (self.work / written / workspace.CONFIG).is_file()):
            began = time.time()
            code, said = Fork(words, self.work, lambda: None).wait()
            usual.seconds = min(usual.seconds, time.time() - began)
            if code:
                return f"ended with {ends}, then with {code}: {said}"
        found = content(self.work / written)
        changed = [n for n in {*usual.written, *found} if usual.written.get(n) != found.get(n)]
        return f"ended with {ends}, then with another {', '.join(changed)}" if changed else ""


def cases(number: int, seed: int) -> list[tuple[str, str, float]]:
    """Draw cases: every stage in turn, each with another fault, at seeded moments."""
    drawn = random.Random(seed)
    pairs = list(itertools.product(FAULTS, STAGES))
    drawn.shuffle(pairs)
    return [(s, f, drawn.random()) for f, s in itertools.islice(itertools.cycle(pairs), number)]


def run() -> int:
    """Run the cases that the command line names; return 1 if one went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        slow_motion(patch)
        harness = Harness(Path(folder).resolve() / "crashes")
        for stage, fault, at in cases(given.cases, given.seed):
            if problem := harness.case(stage, fault, at):
                wrong += 1
                sys.stdout.write(f"{stage}, {fault} at {at:.4f}: {problem}\n")
    sys.stdout.write(f"{given.cases} cases, {wrong} wrong\n")
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(run())
