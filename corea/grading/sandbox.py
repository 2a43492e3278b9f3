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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
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
#: Starts for one list of expressions: one, and another after an expression that the process did not live through.
_MAX_RUNS = 2
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
    with _shut_in({"program": program, "tests": tests}, limits) as watched:
        try:
            message = watched.told()
        except _TooMuch as exc:
            return str(exc)
        if message is None or "why" not in message:
            return _ended(watched.killed())
        return None if message["why"] is None else str(message["why"])


def values(program: str, expressions: Sequence[str], *, limits: Limits) -> list[str | None]:
    """What each expression gives once the program ran, as Python writes it; None where that is nothing plain, or late.

    An expression that hangs or ends the process is passed over once; after the second, the rest is None. ``limits``
    hold for each of those two runs. Blocks its thread. Raises :class:`InputError` where programs cannot be shut in.
    """
    found: list[str | None] = []
    for _ in range(_MAX_RUNS):
        told, done = _values(program, expressions[len(found) :], limits)
        found += told
        if done or len(found) == len(expressions):
            break
        found.append(None)
    return found + [None] * (len(expressions) - len(found))


def _values(program: str, expressions: Sequence[str], limits: Limits) -> tuple[list[str | None], bool]:
    """The values told until the process ended, and whether it ended as it should."""
    found: list[str | None] = []
    with _shut_in({"program": program, "expressions": list(expressions)}, limits) as watched, suppress(_TooMuch):
        while (message := watched.told()) is not None:
            if "value" not in message or len(found) == len(expressions):
                return found, True
            value = message["value"]
            found.append(value if isinstance(value, str) else None)
    return found, False


def check() -> None:
    """Raise :class:`InputError` if programs cannot be shut in on this machine: what to ask before money is spent."""
    if (why := run("", "", limits=Limits(timeout_s=START_S))) is not None:
        raise InputError(_refusal(f"an empty program failed: {why}"))


@contextmanager
def _shut_in(job: dict[str, Any], limits: Limits) -> Iterator[_Watched]:
    """A process that is about to begin with the job; it is gone afterwards."""
    if sys.platform != "linux":
        raise InputError(_refusal(f"it needs Linux, and this is {sys.platform}"))
    word = secrets.token_hex(16)
    with _turns, tempfile.TemporaryDirectory(prefix="corea-", ignore_cleanup_errors=True) as folder:
        told = {
            **job,
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
                watched = _Watched(process, Path(folder), word, limits)
                watched.begin(told)
                yield watched
            finally:
                process.kill()


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

    def __init__(self, process: subprocess.Popen[bytes], folder: Path, word: str, limits: Limits) -> None:
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - both are pipes
        self.process = process
        self._word = word
        self._limits = limits
        self._deadline = 0.0
        self._in = process.stdin
        self._out = process.stdout.fileno()
        self._folder = folder
        self._read = b""

    def begin(self, job: dict[str, Any]) -> None:
        """Hand the job over; the program's time begins. Raises :class:`InputError` if it could not be shut in."""
        # It reads all of it before anything else, so this cannot hang for long.
        for step in (lambda: self._in.write(json.dumps(job).encode()), self._in.close):
            with suppress(BrokenPipeError):
                step()
        first = _message(self._line(time.monotonic() + START_S))
        if "ready" not in first:
            raise InputError(_refusal(str(first.get("refused", "its process did not start"))))
        self._deadline = time.monotonic() + self._limits.timeout_s

    def told(self) -> dict[str, Any] | None:
        """The next thing it says with its word; None when it ended without. Raises :class:`_TooMuch`."""
        line = self._line(self._deadline, self._limits.folder_mib << 20)
        if line is None:
            raise _TooMuch(f"timed out after {self._limits.timeout_s:g} s")
        message = _message(line)
        return message if message.get("word") == self._word else None

    def killed(self) -> int:
        """How it ended: its exit status."""
        self.process.kill()
        return self.process.wait()

    def _line(self, deadline: float, folder_bytes: int | None = None) -> bytes | None:
        """The next line; empty at its end. None when the time is up. Raises :class:`_TooMuch`."""
        poll = select.poll()
        poll.register(self._out, select.POLLIN)
        while b"\n" not in self._read:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return None
            if poll.poll(1000 * min(left_s, _LOOK_S)):
                if not (got := os.read(self._out, _MAX_REPORT_BYTES)):
                    return b""
                self._read += got
            if len(self._read) > _MAX_REPORT_BYTES and b"\n" not in self._read:
                return b""
            if folder_bytes is not None and _size_bytes(self._folder) > folder_bytes:
                raise _TooMuch(f"wrote more than {self._limits.folder_mib} MiB")
        line, _, self._read = self._read.partition(b"\n")
        return line


class _TooMuch(Exception):
    """The program took more time or room than it may; the message says which."""


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
        "or leave out --allow-code, or allow_code in a configuration"
    )
