"""A worker that dies or hangs costs one item; everything else arrives, whatever the count."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from subgenre.core.parallel import FAILED, Failure, alone, limit_memory, map_files, worker_count
from subgenre.errors import AudioError
from tests import workers


def collect(fn, items, **options):
    return dict(map_files(fn, items, **{"workers": 2, "timeout_s": 30, **options}))


@pytest.mark.slow
def test_every_position_comes_once_with_its_result():
    assert collect(workers.double, range(25)) == {i: 2 * i for i in range(25)}


@pytest.mark.slow
def test_one_worker_still_runs_outside_this_process():
    assert os.getpid() not in collect(workers.process_id, range(3), workers=1).values()


@pytest.mark.slow
def test_a_bad_item_fails_alone():
    items = ["a", "kill", "b", "hang", "c", "raise", "d", "exit", "e", "leave", "f"]
    found = collect(workers.misbehave, items, timeout_s=2)
    assert {i: found[i] for i in range(0, 11, 2)} == dict(
        zip(range(0, 11, 2), "abcdef", strict=True)
    )
    crashed = Failure("the reader crashed on this file")
    assert (found[1], found[7]) == (crashed, crashed)
    assert found[3] == Failure("took longer than 2 s")
    assert found[5] == found[9] == Failure(FAILED)  # the library's own words help no one


def test_a_full_disk_is_no_files_fault():
    with pytest.raises(OSError, match="No space") as problem:
        collect(workers.misbehave, ["a", "full", "b"])
    assert problem.value.errno == errno.ENOSPC


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not count memory maps")
def test_a_file_that_takes_too_much_memory_fails_alone():
    found = collect(workers.allocate, [1, 5 * 2**30, 2], initializer=limit_memory)
    assert found == {0: 1, 1: Failure("needs too much memory"), 2: 2}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "timeout_s", "reason"),
    [
        ("hang", 3, "took longer than 3 s"),
        ("segfault", 60, "the reader crashed on this file"),
        ("exit", 60, "the reader crashed on this file"),
        ("raise", 60, FAILED),
    ],
)
def test_one_file_that_hangs_or_crashes_its_own_process_is_an_error(what, timeout_s, reason):
    results = alone(workers.misbehave_after, what, timeout_s=timeout_s)
    assert next(results) == "first"
    with pytest.raises(AudioError, match=reason):
        next(results)


def test_one_file_in_a_process_of_its_own_arrives_whole_and_a_full_disk_is_not_its_fault():
    assert list(alone(workers.misbehave_after, "second", timeout_s=30)) == ["first", "second"]
    with pytest.raises(OSError, match="No space"):
        list(alone(workers.misbehave_after, "full", timeout_s=30))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not count memory maps")
def test_one_file_that_takes_too_much_memory_is_an_error():
    with pytest.raises(AudioError, match="needs too much memory"):
        next(alone(workers.allocate_alone, 5 * 2**30, timeout_s=30))


def test_a_process_for_one_file_loads_no_torch_and_ends_with_its_caller():
    assert "torch" not in next(alone(workers.modules, 0, timeout_s=30))
    results = alone(workers.wait_for_ever, 0, timeout_s=30)
    pid = next(results)
    results.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_each_worker_is_prepared_once():
    found = collect(
        workers.prepared, range(4), workers=1, initializer=workers.prepare, initargs=("ready",)
    )
    assert list(found.values()) == [["ready"]] * 4


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="this system has no masks")
def test_only_the_caller_receives_ctrl_c():
    """One that is still importing would answer with a page of traceback."""
    found = collect(workers.receives_ctrl_c, range(6))
    assert set(found.values()) == {False}
    assert workers.receives_ctrl_c(0)


def test_dropping_the_generator_ends_the_workers(tmp_path: Path):
    results = map_files(workers.process_id, range(100), workers=1, timeout_s=30)
    _, pid = next(results)
    os.kill(pid, 0)  # alive
    results.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.slow
def test_ctrl_c_ends_the_workers(tmp_path: Path):
    script = tmp_path / "run.py"
    script.write_text(
        "import signal\n"
        "from pathlib import Path\n"
        "from subgenre.core.parallel import map_files\n"
        "from tests import workers\n"
        "if __name__ == '__main__':\n"
        # a shell's background jobs ignore the interrupt, and their children inherit that
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"    folder = Path({str(tmp_path)!r})\n"
        "    list(map_files(workers.leave_mark, [folder], workers=1, timeout_s=99))\n"
    )
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"}
    running = subprocess.Popen(
        [sys.executable, str(script)], env=environment, stderr=subprocess.PIPE
    )
    mark = _wait_for_mark(tmp_path, running)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert b"KeyboardInterrupt" in errors
    with pytest.raises(ProcessLookupError):
        os.kill(mark, 0)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux")
def test_ctrl_c_does_not_wait_for_the_start_of_workers(tmp_path: Path):
    (tmp_path / "slow.py").write_text(
        "import os, pathlib, time\n"
        f"pathlib.Path({str(tmp_path)!r}, str(os.getpid())).touch()\n"
        "time.sleep(60)\n"
    )
    script = tmp_path / "run.py"
    script.write_text(
        "import multiprocessing, signal\n"
        "from subgenre.core import parallel\n"
        "def context():\n"
        "    forks = multiprocessing.get_context('forkserver')\n"
        "    forks.set_forkserver_preload(['slow'])\n"
        "    return forks\n"
        "if __name__ == '__main__':\n"
        "    parallel._context = context\n"
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "    list(parallel.map_files(abs, [1], workers=1, timeout_s=99))\n"
    )
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": f"{root / 'src'}{os.pathsep}{tmp_path}"}
    running = subprocess.Popen([sys.executable, script], env=environment, stderr=subprocess.DEVNULL)
    server = _wait_for_mark(tmp_path, running)
    try:
        running.send_signal(signal.SIGINT)
        assert running.wait(timeout=20) != 0
    finally:
        running.kill()
        os.kill(server, signal.SIGKILL)


@pytest.mark.slow
def test_workers_import_nothing_from_the_current_folder(tmp_path: Path):
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "re.py").write_text("open('imported', 'w')")
    script = tmp_path / "run.py"
    script.write_text(
        "from subgenre.core.parallel import map_files\n"
        "if __name__ == '__main__':\n"
        "    print(list(map_files(abs, [-3, 4], workers=2, timeout_s=99)))\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, str(script)],
        env=os.environ | {"PYTHONPATH": str(root / "src")},
        cwd=tmp_path / "music",
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "[(0, 3), (1, 4)]", done.stderr
    assert not (tmp_path / "music" / "imported").exists()


def _wait_for_mark(folder: Path, running: subprocess.Popen[bytes]) -> int:
    for _ in range(600):
        marks = [int(p.name) for p in folder.iterdir() if p.name.isdigit()]
        if marks:
            return marks[0]
        assert running.poll() is None, running.communicate()[1].decode()
        time.sleep(0.1)
    raise AssertionError("the worker never began")


@pytest.mark.slow
def test_a_failed_worker_start_is_reported_and_not_blamed_on_the_files():
    # a program read from standard input can't be imported by a spawned worker
    code = (
        "from subgenre.core.parallel import map_files\n"
        "try: print(dict(map_files(len, ['a'], workers=1, timeout_s=9)))\n"
        "except Exception as problem: print(type(problem).__name__, problem)\n"
    )
    done = subprocess.run(
        [sys.executable, "-"], input=code, capture_output=True, text=True, timeout=60
    )
    assert "SubgenreError no worker process can start" in done.stdout


def test_worker_count():
    assert worker_count(3) == 3
    assert worker_count(0) == 1
    assert 1 <= worker_count() <= (os.cpu_count() or 1)
