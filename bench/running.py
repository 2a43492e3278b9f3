"""Runs benches, each in a process of its own, and keeps in ``bench/results/runs.json`` when, how long and how it ended.

Knows nothing of figures: a bench has written its files, and says by its exit code whether a limit was missed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from bench.registry import BENCH, Bench, Given

Outcome = Literal["met", "missed", "failed"]
#: A bench may take so many times as long as it is said to, and ten minutes at least; then it hangs.
PATIENCE, LEAST_S = 6.0, 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The end of one bench. ``seconds``: None where nobody took the time. ``why``: of a failure."""

    date: str
    seconds: float | None
    outcome: Outcome
    why: str = ""


def run(
    bench: Bench, given: Given, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC), root: Path = BENCH
) -> Run:
    """Runs it here and now; what it prints is seen. Never raises for what the bench does."""
    before = _written(bench, root)
    began = clock()
    code = _code(bench.words(given), limit_s=max(LEAST_S, PATIENCE * bench.takes_s), folder=root.parent)
    ended = clock()
    seconds = round((ended - began).total_seconds(), 1)
    outcome, why = _verdict(code, wrote=_written(bench, root) != before)
    return Run(date=ended.date().isoformat(), seconds=seconds, outcome=outcome, why=why)


def _verdict(code: int | None, *, wrote: bool) -> tuple[Outcome, str]:
    """A crash and a missed limit both end in 1; but who crashes has written nothing."""
    if code is None:
        return "failed", "it took much too long and was ended"
    if not wrote:
        return "failed", f"exit code {code}, and nothing was written"
    if code not in (0, 1):
        return "failed", f"exit code {code}"
    return ("missed" if code else "met"), ""


def _code(words: Sequence[str], *, limit_s: float, folder: Path) -> int | None:
    """The exit code, or None where the time was up. Whatever it started ends with it."""
    child = subprocess.Popen([sys.executable, "-m", *words], cwd=folder, start_new_session=True)
    try:
        return child.wait(limit_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _written(bench: Bench, root: Path) -> list[int]:
    """When each of its files was last written."""
    files = [root / file for file in bench.results]
    return [file.stat().st_mtime_ns if file.exists() else 0 for file in files]


def runs(root: Path = BENCH) -> dict[str, Run]:
    """The last run of each bench that has one."""
    file = root / "results" / "runs.json"
    kept: Mapping[str, dict[str, object]] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return {name: Run(**of) for name, of in kept.items()}  # type: ignore[arg-type]


def keep(name: str, made: Run, root: Path = BENCH) -> None:
    """Adds one to those kept."""
    kept = {**runs(root), name: made}
    text = json.dumps({name: asdict(kept[name]) for name in sorted(kept)}, indent=1, ensure_ascii=False)
    (root / "results" / "runs.json").write_text(f"{text}\n", encoding="utf-8")


def lasting(seconds: float) -> str:
    """For a reader: seconds, minutes or hours."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"
