"""Two machines train one model by torchrun, started by the script for SLURM; one process is killed.

The machines are two agents of torchrun here; `srun` and `scontrol` are stand-ins.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from subgenre import cli
from tests.conftest import REPOSITORY
from tests.folders import make_folder
from tests.training.test_distributed import free_port, join, two_processes
from tests.training_runs import same_models

SCRIPT = REPOSITORY / "examples/slurm-multinode.sbatch"
STAND_INS = {
    "scontrol": "echo 127.0.0.1",
    "srun": '[ "$1" = --kill-on-bad-exit ] && shift\n'
    'for node in 0 1; do SLURM_NODEID=$node "$@" & nodes="$nodes $!"; done\n'
    "for one in $nodes; do wait $one || code=$?; done; exit ${code:-0}",
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc"),
]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A work folder with features, and the stand-ins."""
    make_folder(tmp_path / "features")
    (tmp_path / "bin").mkdir()
    for name, text in STAND_INS.items():
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)
    return tmp_path


def submitted(place: Path, *words: str) -> subprocess.Popen[str]:
    """Run the script as a job of two machines."""
    path = f"{place / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_NNODES": "2"}
    environment = os.environ | job | {"PATH": path, "MASTER_PORT": str(free_port())}
    with (place / "job.log").open("a") as log:
        return subprocess.Popen(
            ["bash", str(SCRIPT), *words], cwd=place, env=environment, stdout=log, stderr=log
        )


def trainer_of(rank: int, place: Path) -> int:
    """Return the process of a rank in this work folder."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
            here = (folder / "cwd").readlink() == place
        except OSError:  # it has ended, or is another user's
            continue
        if here and f"RANK={rank}".encode() in variables:
            return int(folder.name)
    raise AssertionError((place / "job.log").read_text())


def _alone(rank: int, port: int, place: Path, words: list[str]) -> None:
    join(rank, port)
    os.chdir(place)
    assert cli.main(["train", *words, "--out", "whole", "--checkpoints", "c"]) == 0


def test_a_killed_process_costs_a_restart(place: Path) -> None:
    words = ["--recipe", "thesis", "--backbone", "musicnn", "--tune", "head", "--device", "cpu"]
    words += ["--features", "features", "--epochs", "10", "--set", "run.save_every=5"]
    job = submitted(place, *words, "--out", "model")
    while not list(place.glob("ast_triplet_output/job_7/*/checkpoint.pt")):
        assert job.poll() is None, (place / "job.log").read_text()
        time.sleep(0.02)
    os.kill(trainer_of(1, place), signal.SIGKILL)
    assert job.wait() == 0, (place / "job.log").read_text()
    log = (place / "job.log").read_text()
    assert "failed (exitcode: -9)" in log
    assert log.count("starting anew") == log.count("continuing from") == 1
    two_processes(_alone, place, words)
    assert same_models(place / "model", place / "whole")
