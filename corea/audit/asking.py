"""One audit: the last tier is asked the same question, and the answers are compared. Knows no lots and no ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from corea.audit.agreement import agreement
from corea.audit.harm import drop_between
from corea.ledger.audits import Ending
from corea.tier import AS_CONFIGURED, Sampling, Tier
from corea.types import Attempt, Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """An audit that was drawn: whose answer, which day pays, and when to give up (monotonic)."""

    trace: Trace
    kept: Attempt
    day: int
    give_up_at_s: float


async def ask(job: Job, last: Tier, *, clock: Callable[[], float], wall_clock: Callable[[], float]) -> Ending:
    """How it ended; what the model does wrong is such an end. Asked late, it is not asked at all."""
    left_s = job.give_up_at_s - clock()
    if left_s <= 0:
        return unknown(job.trace.id, "it waited too long for its turn", wall_clock(), cost_nano_usd=0)
    request = job.trace.request
    answered = await last.attempt(request, time_left_s=left_s, clock=clock, sampling=_sampling(job.trace))
    agrees = await asyncio.to_thread(agreement, job.kept, answered, request.kind)
    harm = drop_between(agrees=agrees)
    why = None if agrees is not None else (answered.failure.kind if answered.failure else "not gradable")
    return Ending(
        trace_id=job.trace.id, state="failed" if agrees is None else "done", agrees=agrees,
        harm_least=harm.least, harm_most=harm.most, cost_nano_usd=answered.cost_nano_usd,
        at_unix_s=wall_clock(), why=why,
    )  # fmt: skip


def unknown(trace_id: str, why: str, at_unix_s: float, *, cost_nano_usd: int | None = None) -> Ending:
    """An audit that told nothing: from the least to the most harm."""
    return Ending(
        trace_id=trace_id, state="failed", agrees=None, harm_least=-1.0, harm_most=1.0, cost_nano_usd=cost_nano_usd,
        at_unix_s=at_unix_s, why=why,
    )  # fmt: skip


def _sampling(trace: Trace) -> Sampling:
    """As the user wanted the reply sampled: the audit asks for the same."""
    told = trace.metadata.get("sampling")
    if not isinstance(told, Mapping):
        return AS_CONFIGURED
    chosen: dict[str, Any] = {name: tuple(value) if name == "stop" else value for name, value in told.items()}
    return Sampling(**chosen)
