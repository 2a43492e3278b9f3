"""Servers as processes of their own: started, pinned to a core, and asked what they used. Linux only."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

#: The slowest, LiteLLM, imports for some twenty seconds on a busy machine.
_PATIENCE_S = 180.0


@contextmanager
def started(
    command: Sequence[str], *, env: Mapping[str, str] | None = None, log: Path | None = None
) -> Iterator[tuple[int, int]]:
    """A server process: its port and pid. ``PORT`` in the command is replaced; ``log`` takes what it prints."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = [argument.replace("PORT", str(port)) for argument in command]
    with open(log or os.devnull, "ab") as out:  # noqa: PTH123
        streams = {} if log is None else {"stdout": out, "stderr": subprocess.STDOUT}
        with subprocess.Popen(arguments, env={**os.environ, **(env or {})}, **streams) as process:  # type: ignore[call-overload]
            try:
                _wait(port, process, log)
                yield port, process.pid
            finally:
                _end(process.pid)


def _end(pid: int) -> None:
    """Children first: those of a parent that is gone would stay."""
    for one in reversed(family(pid)):
        with suppress(ProcessLookupError), open(os.pidfd_open(one), "rb") as alive:  # noqa: PTH123
            os.kill(one, signal.SIGTERM)
            select.select([alive], [], [], _PATIENCE_S)


def _wait(port: int, process: subprocess.Popen[bytes], log: Path | None) -> None:
    until_s = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until_s and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    told = "" if log is None else f"; it said: {log.read_text(errors='replace')[-2000:]}"
    raise RuntimeError(f"a server did not start{told}")


@contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """Runs on this core, and so does what is started meanwhile; None: anywhere."""
    before = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def family(pid: int) -> list[int]:
    """The process and all that it started, and they."""
    children = [
        int(child) for listed in Path(f"/proc/{pid}/task").glob("*/children") for child in listed.read_text().split()
    ]
    return [pid, *(one for child in children for one in family(child))]


def cpu_s(pid: int) -> float:
    """User and system time of the process and its living children, all threads, to the nanosecond."""
    # What clock_getcpuclockid(3) gives; /proc counts in hundredths of a second.
    return sum(time.clock_gettime((~one << 3) | 2) for one in family(pid))


def pss_mb(pid: int) -> float:
    """What the process and its children have in memory, shared pages in proportion."""
    return sum(_pss_mb(one) for one in family(pid))


def _pss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("the kernel does not tell PSS")
