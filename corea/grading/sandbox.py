"""A program and its tests, run in a process of their own that has no network, no children, and little of anything.

What holds the process, and what it cannot prevent, is described in :mod:`corea.grading.confined`, which runs in it.
Where that cannot be had, nothing is run. Knows nothing of replies and grades.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from corea.errors import InputError

#: Seconds for Python to start and to shut itself in, before the program's own time begins.
START_S = 30.0
#: Seconds between two looks at the size of the program's folder.
_LOOK_S = 0.05
#: More than this is no verdict.
_MAX_REPORT_BYTES = 16_384
#: One program a core at a time: on a crowded machine right programs would run out of time.
_turns = threading.BoundedSemaphore(os.cpu_count() or 1)
_SCRIPT = Path(__file__).with_name("confined.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one program may use. It has one process with one thread, whatever is said here."""

    timeout_s: float = 5.0
    #: Address space of the whole process; Python itself takes about 30 MiB of it.
    memory_mib: int = 512
    #: The largest file it may write, and all files in its folder together.
    file_mib: int = 8
    folder_mib: int = 64
    open_files: int = 32


LIMITS = Limits()


def run(program: str, tests: str, *, limits: Limits) -> str | None:
    """None when the program ran and then its tests did, in the same namespace; otherwise why not. Blocks its thread.

    Raises :class:`InputError` where programs cannot be shut in.
    """
    if sys.platform != "linux":
        raise InputError(_refusal(f"it needs Linux, and this is {sys.platform}"))
    word = secrets.token_hex(16)
    with _turns, tempfile.TemporaryDirectory(prefix="corea-", ignore_cleanup_errors=True) as folder:
        job = {
            "program": program,
            "tests": tests,
            "word": word,
            "folder": folder,
            "parent": os.getpid(),
            "cpu_s": ceil(limits.timeout_s) + 1,
            "memory_mib": limits.memory_mib,
            "file_mib": limits.file_mib,
            "open_files": limits.open_files,
        }
        with _started(folder) as process:
            try:
                return _verdict(_Watched(process, Path(folder)), job, word, limits)
            finally:
                process.kill()


def check() -> None:
    """Raise :class:`InputError` if programs cannot be shut in on this machine: what to ask before money is spent."""
    if (why := run("", "", limits=Limits(timeout_s=START_S))) is not None:
        raise InputError(_refusal(f"an empty program failed: {why}"))


def _started(folder: str) -> subprocess.Popen[bytes]:
    # No site-packages, nothing from the working directory, no bytecode; the environment is these variables alone. The
    # hash seed is fixed, so that a program that depends on the order of a set has one verdict.
    return subprocess.Popen(  # noqa: S603 - our own script
        [sys.executable, "-P", "-s", "-S", "-B", "-X", "utf8", str(_SCRIPT)],
        cwd=folder,
        env={"PYTHONHASHSEED": "0"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


class _Watched:
    """The process's report, read line by line while its time and its folder are watched."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - both are pipes
        self.process = process
        self._in = process.stdin
        self._out = process.stdout.fileno()
        self._folder = folder
        self._read = b""

    def send(self, job: dict[str, Any]) -> None:
        # It reads all of it before anything else, so this cannot hang for long.
        for step in (lambda: self._in.write(json.dumps(job).encode()), self._in.close):
            with suppress(BrokenPipeError):
                step()

    def line(self, limit_s: float, folder_bytes: int | None = None) -> bytes | None:
        """The next line; empty at its end. None when the time is up. Raises :class:`_TooMuch`."""
        poll = select.poll()
        poll.register(self._out, select.POLLIN)
        deadline = time.monotonic() + limit_s
        while b"\n" not in self._read:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return None
            if poll.poll(1000 * min(left_s, _LOOK_S)):
                if not (got := os.read(self._out, _MAX_REPORT_BYTES)):
                    return b""
                self._read += got
            if len(self._read) > _MAX_REPORT_BYTES:
                return b""
            if folder_bytes is not None and _size_bytes(self._folder) > folder_bytes:
                raise _TooMuch
        line, _, self._read = self._read.partition(b"\n")
        return line


class _TooMuch(Exception):
    """The program's folder has outgrown its limit."""


def _verdict(watched: _Watched, job: dict[str, Any], word: str, limits: Limits) -> str | None:
    watched.send(job)
    first = _message(watched.line(START_S))
    if "ready" not in first:
        raise InputError(_refusal(str(first.get("refused", "its process did not start"))))
    try:
        line = watched.line(limits.timeout_s, limits.folder_mib << 20)
    except _TooMuch:
        return f"wrote more than {limits.folder_mib} MiB"
    if line is None:
        return f"timed out after {limits.timeout_s:g} s"
    last = _message(line)
    if last.get("word") == word:
        return str(last["why"]) if last["why"] is not None else None
    watched.process.kill()
    return _ended(watched.process.wait())


def _message(line: bytes | None) -> dict[str, Any]:
    try:
        message = json.loads(line or b"{}")
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}


def _ended(code: int) -> str:
    if code < 0 and -code != signal.SIGKILL:
        return f"crashed before the tests were done ({signal.Signals(-code).name})"
    return "ended before the tests were done"


def _size_bytes(folder: Path) -> int:
    """Of the files in it; there are no folders in it."""
    total = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                # An empty file takes room too.
                total += max(4096, entry.stat(follow_symlinks=False).st_blocks * 512)
            except OSError:
                continue
    return total


def _refusal(why: str) -> str:
    return (
        f"programs cannot be shut in here: {why}; run them on Linux 5.13 or newer with Landlock and seccomp, "
        "or leave out --allow-code"
    )
