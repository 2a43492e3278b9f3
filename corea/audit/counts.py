"""What the audit did since the process began, for metrics and for the words that warn. Decides nothing."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Counts:
    """What was done since the process began, for metrics."""

    #: Questions by what became of them: deferred, kept, drawn, paused, unwatched.
    questions: dict[str, int] = field(default_factory=dict)
    #: Audits that ended: agreed, differed, unknown, lost.
    ended: dict[str, int] = field(default_factory=dict)
    #: By task.
    alarms: dict[str, int] = field(default_factory=dict)
    #: Why auditing paused, or rows were left out: money, busy, ledger.
    trouble: dict[str, int] = field(default_factory=dict)
    cost_nano_usd: int = 0
    unknown_cost: int = 0
    webhook_failed: int = 0
    #: What a day's cap pays, at the rate seen; None while that is not known.
    affordable_share: float | None = None

    @property
    def mean_cost_nano_usd(self) -> float | None:
        """Of the audits whose cost is known; None where there is none."""
        known = sum(self.ended.get(how, 0) for how in ("agreed", "differed", "unknown")) - self.unknown_cost
        return self.cost_nano_usd / known if known > 0 else None


def count(counts: dict[str, int], what: str, more: int = 1) -> None:
    counts[what] = counts.get(what, 0) + more
