"""A measured figure beside the limit it is held to, and a way to compare two things fairly."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """``limit`` is the most (or, with ``at_least``, the least) that it may be; None is for information."""

    name: str
    value: float
    unit: str = "×"
    limit: float | None = None
    at_least: bool = False
    detail: str = ""

    @property
    def met(self) -> bool | None:
        if self.limit is None:
            return None
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    @property
    def record(self) -> dict[str, object]:
        return {**asdict(self), "met": self.met}

    def __str__(self) -> str:
        sign = "≥" if self.at_least else "≤"
        verdict = "" if self.limit is None else f"  (wanted {sign} {self.limit:g}: {'met' if self.met else 'MISSED'})"
        return f"{self.name}: {self.value:.3g} {self.unit}{verdict}  {self.detail}"


def paired(one: Callable[[], float], two: Callable[[], float], *, rounds: int) -> tuple[float, float, float]:
    """Medians of both and of the ratio one/two, measured in turn (A B A B …) after one round that does not count."""
    one(), two()
    pairs = [(one(), two()) for _ in range(rounds)]
    return median(a for a, _ in pairs), median(b for _, b in pairs), median(a / b for a, b in pairs)


def child(module: str, *args: str) -> str:
    """What ``python -m module args`` prints: a fresh process, with nothing imported and no memory used yet."""
    done = subprocess.run([sys.executable, "-m", module, *args], capture_output=True, text=True, check=True)
    return done.stdout
