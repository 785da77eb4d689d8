"""Two machines train one model by torchrun, started by the script for SLURM; a process is killed.

The machines are network namespaces where these can be made, else both are this one. `srun` and
`scontrol` are stand-ins.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from subgenre import cli
from tests.conftest import REPOSITORY
from tests.folders import make_folder
from tests.training.test_distributed import free_port, join, two_processes
from tests.training_runs import same_models

SCRIPT = REPOSITORY / "examples/slurm-multinode.sbatch"
SRUN = """#!/bin/bash
[ "$1" = --kill-on-bad-exit ] && shift
while read -r number address enter; do
    SLURM_NODEID=$number SLURMD_NODENAME=$address $enter "$@" &
    agents="$agents $!"
done < nodes
for _ in $agents; do wait -n || { code=$?; kill $agents; }; done
exit ${code:-0}
"""
SCONTROL = """#!/bin/bash
cut -d ' ' -f 2 nodes
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the script is for SLURM"),
]


@pytest.fixture
def nodes() -> Iterator[str]:
    """Return for each of two machines a line `number address command`: it runs another there."""
    names = [f"subgenre-{os.getpid()}-{number}" for number in (0, 1)]
    addresses = ["10.77.0.1", "10.77.0.2"]
    steps = [f"netns add {name}" for name in names]
    steps += ["link add veth0 netns {} type veth peer name veth0 netns {}".format(*names)]
    for name, address in zip(names, addresses, strict=True):
        steps += [f"-n {name} address add {address}/24 dev veth0"]
        steps += [f"-n {name} link set {link} up" for link in ("lo", "veth0")]
    try:
        for step in steps:
            subprocess.run(["ip", *step.split()], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):  # no such program, or not allowed
        yield "0 127.0.0.1\n1 127.0.0.1\n"
    else:
        enters = [f"ip netns exec {name} env GLOO_SOCKET_IFNAME=veth0" for name in names]
        lines = zip("01", addresses, enters, strict=True)
        yield "".join(f"{' '.join(line)}\n" for line in lines)
    finally:
        with suppress(OSError):
            for name in names:
                subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


@pytest.fixture
def place(tmp_path: Path, nodes: str) -> Path:
    """A work folder with features, the machines and the stand-ins."""
    make_folder(tmp_path / "features")
    (tmp_path / "nodes").write_text(nodes, encoding="utf-8")
    (tmp_path / "bin").mkdir()
    for name, text in {"srun": SRUN, "scontrol": SCONTROL}.items():
        path = tmp_path / "bin" / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
    return tmp_path


def submitted(place: Path, *words: str) -> subprocess.Popen[bytes]:
    """Run the script as a job of two machines."""
    path = f"{place / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_NNODES": "2"}
    environment = os.environ | job | {"PATH": path, "PORT": str(free_port())}
    with (place / "job.log").open("w") as log:
        return subprocess.Popen(
            ["bash", str(SCRIPT), *words], cwd=place, env=environment, stdout=log, stderr=log
        )


def trainer(rank: int, job: subprocess.Popen[bytes]) -> psutil.Process:
    """Return the process of a rank."""
    started = psutil.Process(job.pid).children(recursive=True)
    (found,) = (process for process in started if process.environ().get("RANK") == str(rank))
    return found


def _alone(rank: int, port: int, place: Path, words: list[str]) -> None:
    join(rank, port)
    os.chdir(place)
    assert cli.main(["train", *words, "--out", "whole", "--checkpoints", "c"]) == 0


def test_a_killed_process_costs_a_restart(place: Path) -> None:
    """It is the one that has written the checkpoint, and holds the store of the others."""
    words = ["--recipe", "thesis", "--backbone", "musicnn", "--tune", "head", "--device", "cpu"]
    words += ["--features", "features", "--epochs", "10", "--set", "run.save_every=5"]
    job = submitted(place, *words, "--out", "model")
    try:
        while not list(place.glob("ast_triplet_output/job_7/*/checkpoint.pt")):
            assert job.poll() is None, (place / "job.log").read_text()
            time.sleep(0.02)
        trainer(0, job).kill()
        job.wait(timeout=240)
    finally:
        if job.poll() is None:
            for process in (*psutil.Process(job.pid).children(recursive=True), job):
                process.kill()
    log = (place / "job.log").read_text()
    assert job.returncode == 0, log
    assert log.count("failed (exitcode: -9)") == 1
    assert log.count("starting anew") == log.count("continuing from") == 1
    two_processes(_alone, place, words)
    assert same_models(place / "model", place / "whole")
