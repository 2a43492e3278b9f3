"""Equality of mathematical expressions, by math-verify, in a process of its own that is killed when it takes too long.

math-verify's own time limit works only in a main thread, and sympy can hang on a hostile expression. The process is
started as a module, not by multiprocessing, which would run the caller's main script again.
"""

from __future__ import annotations

import atexit
import json
import select
import subprocess
import sys
import threading

#: Seconds for one comparison; ordinary ones take milliseconds.
LIMIT_S = 10.0
#: Seconds for the process to import sympy, on top of the first comparison.
START_S = 60.0


def equivalent(gold: str, answer: str, *, limit_s: float = LIMIT_S) -> bool:
    """True when math-verify finds the two equal. Unreadable, too slow or crashing is not equal. Blocks its thread."""
    return _worker.ask(gold, answer, limit_s)


class _Worker:
    """The process, started at first need and again after it was killed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def ask(self, gold: str, answer: str, limit_s: float) -> bool:
        with self._lock:
            process, limit_s = self._running(limit_s)
            assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - both are pipes
            try:
                process.stdin.write(json.dumps([gold, answer]) + "\n")
                process.stdin.flush()
            except BrokenPipeError:
                self._stop()
                return False
            ready, _, _ = select.select([process.stdout], [], [], limit_s)
            line = process.stdout.readline() if ready else ""
            if not line:
                self._stop()
            return line == "true\n"

    def stop(self) -> None:
        with self._lock:
            self._stop()

    def _running(self, limit_s: float) -> tuple[subprocess.Popen[str], float]:
        if self._process is not None and self._process.poll() is None:
            return self._process, limit_s
        self._stop()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "corea.grading.algebra"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        return self._process, limit_s + START_S

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


_worker = _Worker()
atexit.register(_worker.stop)


def _verify(gold: str, answer: str) -> bool:
    from math_verify import parse, verify

    # Their time limits use signals and are off: this process is killed instead. Gold goes first, by their contract.
    left = parse(_as_latex(gold), parsing_timeout=None)
    right = parse(_as_latex(answer), parsing_timeout=None)
    return bool(left) and bool(right) and bool(verify(left, right, timeout_seconds=None))


def _as_latex(text: str) -> str:
    """math-verify reads LaTeX only where it is marked as such."""
    return text if "$" in text or "\\(" in text or "\\boxed" in text else f"${text}$"


def _serve() -> None:
    """One JSON pair a line in, ``true`` or ``false`` a line out, until the parent hangs up."""
    for line in sys.stdin:
        gold, answer = json.loads(line)
        try:
            equal = _verify(gold, answer)
        except Exception:  # noqa: BLE001 - whatever a hostile expression does to sympy, it is not a match
            equal = False
        sys.stdout.write("true\n" if equal else "false\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
