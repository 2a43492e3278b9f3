"""Holds the cascade to the step that the audit is at. Knows no evidence; asks nobody, so it costs a look-up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from corea.audit.evidence import InForce
from corea.policy.base import Bar, Policies, Policy, View, skipped
from corea.types import Trace

NAME = "audit"


class AuditPolicy:
    """Only ever stricter: no bar is lowered, and while no alarm is open nothing is said at all."""

    name = NAME

    def __init__(self, in_force: Callable[[str | None], InForce | None]) -> None:
        """``in_force``: of a task; None where nobody watches it."""
        self._in_force = in_force

    def before(self, view: View, bar: Bar) -> Bar:
        now = self._in_force(view.request.task)
        if now is None:
            if view.certified:
                raise skipped(NAME, view.tier, "nobody watches such questions, though answers are audited")
            return bar
        if not now.tightened:
            return bar
        step = now.step
        if step.threshold is None:
            raise skipped(NAME, view.tier, "an alarm of the audit is open; see: corea audit status")
        note = "an alarm of the audit is open"
        return bar.at_least(replace(bar, threshold=step.threshold, tie_fraction=step.tie_fraction, note=note))

    def after(self, trace: Trace) -> None:
        """Seen once it is in the ledger; see :mod:`corea.audit.auditor`."""


def joined(policies: Policies, policy: Policy) -> Policies:
    """The same, and this one last, whoever asks."""
    return replace(policies, always=(*policies.always, policy))
