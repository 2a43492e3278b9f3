"""Equality of mathematical expressions, by math-verify, in processes of their own that are killed when they take long.

math-verify's own time limit works only in a main thread, and sympy can hang on a hostile expression, or want all
memory. The processes are started as a module, not by multiprocessing, which would run the caller's main script again.
Knows no brackets, units or lists: :mod:`corea.grading.shapes` takes those apart first.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import subprocess
import sys
import threading
from contextlib import suppress
from importlib import import_module
from typing import Any

from corea.errors import InputError

#: Seconds for one comparison; ordinary ones take milliseconds.
LIMIT_S = 10.0
#: Seconds for a process to import sympy, before its first comparison.
START_S = 60.0
#: Processes at most, each of about 100 MiB; they are started as they are needed.
MOST = min(4, os.cpu_count() or 1)
#: Address space of one of them.
MEMORY_MIB = 2048
#: Decimals to which a decimal number and an exact one must agree.
DECIMALS = 12


def equivalent(gold: str, answer: str, *, limit_s: float = LIMIT_S) -> bool:
    """True when math-verify finds the two equal. Unreadable, too slow or crashing is not equal. Blocks its thread."""
    return _pool.ask(gold, answer, limit_s)


class _Worker:
    """One process. Dead after an answer that did not come in time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "corea.grading.algebra"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        if not self._line(START_S):
            raise InputError(
                "expressions cannot be compared: math-verify does not start; see why with: "
                "python -m corea.grading.algebra < /dev/null"
            )

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, gold: str, answer: str, limit_s: float) -> bool | None:
        """None when the process was gone before it could take the question."""
        assert self._process.stdin is not None  # noqa: S101 - a pipe
        try:
            self._process.stdin.write(json.dumps([gold, answer]).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self.stop()
            return None
        return self._line(limit_s) == b"true\n"

    def _line(self, limit_s: float) -> bytes:
        """The next line; the process is stopped if none comes in time."""
        assert self._process.stdout is not None  # noqa: S101 - a pipe
        poll = select.poll()
        poll.register(self._process.stdout, select.POLLIN)
        line = self._process.stdout.readline() if poll.poll(1000 * limit_s) else b""
        if not line:
            self.stop()
        return line

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            # What could not be sent is not to be sent.
            with suppress(BrokenPipeError):
                pipe.close()  # type: ignore[union-attr]


class _Pool:
    """Workers that wait, the one that was busy last first; a thread that finds none waits for its turn."""

    def __init__(self, most: int) -> None:
        self._turns = threading.BoundedSemaphore(most)
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []

    def ask(self, gold: str, answer: str, limit_s: float) -> bool:
        with self._turns:
            while True:
                worker = self._take()
                equal = worker.ask(gold, answer, limit_s)
                if worker.alive:
                    with self._lock:
                        self._idle.append(worker)
                if equal is not None:
                    return equal

    def stop(self) -> None:
        with self._lock:
            while self._idle:
                self._idle.pop().stop()

    def _take(self) -> _Worker:
        with self._lock:
            while self._idle:
                worker = self._idle.pop()
                if worker.alive:
                    return worker
                worker.stop()
        return _Worker()


_pool = _Pool(MOST)
atexit.register(_pool.stop)


def _verify(gold: str, answer: str) -> bool:
    from math_verify import LatexExtractionConfig, parse, verify
    from math_verify.parser import NormalizationConfig

    # Units are off: they were taken away before, and it would take one from 2m.
    config = LatexExtractionConfig(
        normalization_config=NormalizationConfig(
            basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False
        )
    )
    # Their time limits use signals and are off: this process is killed instead. Gold goes first, by their contract.
    left = parse(f"${gold}$", [config], parsing_timeout=None)
    right = parse(f"${answer}$", [config], parsing_timeout=None)
    if not left or not right:
        return False
    if (verdict := _same_relation(left[0], right[0])) is not None:
        return verdict
    return bool(verify(left, right, float_rounding=DECIMALS, timeout_seconds=None))


def _same_relation(left: Any, right: Any) -> bool | None:
    """Equations and inequalities: one must be a multiple of the other. None if neither is one.

    math-verify compares their solutions, and takes x² + 1 = 0 for x² + 2 = 0.
    """
    are_relations = [getattr(side, "is_Relational", False) for side in (left, right)]
    if not all(are_relations):
        return False if any(are_relations) else None
    (kind, one), (other_kind, other) = _sides_to_zero(left), _sides_to_zero(right)
    ratio = (one / other).simplify()
    known = ratio.is_number and ratio.is_finite and ratio.is_nonzero
    return kind == other_kind and bool(known and (kind in {"==", "!="} or ratio.is_positive))


def _sides_to_zero(relation: Any) -> tuple[str, Any]:
    """(">", a − b) for a > b as for b < a; ("==", a − b) for a = b."""
    if relation.rel_op in {"==", "!="}:
        return relation.rel_op, relation.lhs - relation.rhs
    return relation.rel_op.replace("<", ">"), relation.gts - relation.lts


def _serve() -> None:
    """A line when it is ready; then one JSON pair a line in, ``true`` or ``false`` out, until the parent hangs up."""
    import_module("math_verify")
    # What libraries print is not an answer.
    out, sys.stdout = sys.stdout, sys.stderr
    print("ready", file=out, flush=True)
    with suppress(ImportError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MIB << 20, MEMORY_MIB << 20))
    for line in sys.stdin:
        gold, answer = json.loads(line)
        try:
            equal = _verify(gold, answer)
        except Exception:  # noqa: BLE001 - whatever a hostile expression does to sympy, it is not a match
            equal = False
        print("true" if equal else "false", file=out, flush=True)


if __name__ == "__main__":
    _serve()
