"""What the dashboard shows of alarms. Knows not who raises them: whatever has :class:`Alarms` may be plugged in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """Something that somebody should look at. ``task`` is None where it is about all of them."""

    name: str
    task: str | None
    since_unix_s: float
    text: str
    severity: Literal["warning", "critical"] = "warning"


class Alarms(Protocol):
    """Asked for each page, from a thread, so it may block for some milliseconds."""

    def current(self) -> Sequence[Alarm]:
        """Those that ring now, the gravest first. Raises LedgerError."""
        ...


class NoAlarms:
    """Nothing is watched."""

    def current(self) -> Sequence[Alarm]:
        return ()
