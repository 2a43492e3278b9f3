"""The main job on real questions, measured: every question through the cascade, and all of them to the last tier too.

Knows nothing of terminals: the command line draws what :func:`run` yields.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from corea.batch.rows import Question
from corea.cascade import Cascade
from corea.grading.answers import grade
from corea.types import Attempt, Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One question: what the cascade did, and what the last tier answered (``alone``, in the trace if deferred)."""

    question: Question
    trace: Trace
    alone: Attempt
    correct: bool
    alone_correct: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Sums over steps. Costs are None where any part is unknown; times are seconds, one question after the other."""

    questions: int
    deferred: int
    correct: int
    alone_correct: int
    cost_nano_usd: int | None
    alone_cost_nano_usd: int | None
    elapsed_s: float
    alone_elapsed_s: float

    @classmethod
    def of(cls, steps: Sequence[Step]) -> Tally:
        return cls(
            questions=len(steps),
            deferred=sum(step.trace.deferred for step in steps),
            correct=sum(step.correct for step in steps),
            alone_correct=sum(step.alone_correct for step in steps),
            cost_nano_usd=_sum([step.trace.cost_nano_usd for step in steps]),
            alone_cost_nano_usd=_sum([step.alone.cost_nano_usd for step in steps]),
            elapsed_s=sum(step.trace.elapsed_s for step in steps),
            alone_elapsed_s=sum(step.alone.latency_s for step in steps),
        )

    @property
    def saving(self) -> float | None:
        """1 − cost of the cascade ÷ cost of the last tier alone, both measured."""
        if self.cost_nano_usd is None or not self.alone_cost_nano_usd:
            return None
        return 1 - self.cost_nano_usd / self.alone_cost_nano_usd


async def run(cascade: Cascade, questions: Sequence[Question]) -> AsyncIterator[Step]:
    """One question at a time, so that the times compare. Raises what :meth:`Cascade.ask` raises."""
    last = cascade.tiers[-1]
    for question in questions:
        trace = await cascade.ask(question.request)
        alone = next((attempt for attempt in trace.attempts if attempt.tier == last.name), None)
        if alone is None:
            alone = await last.attempt(question.request, time_left_s=cascade.deadline_s, clock=time.monotonic)
        correct, alone_correct = await asyncio.gather(
            _right(trace.answer, question), _right(alone.answer or alone.text, question)
        )
        yield Step(question=question, trace=trace, alone=alone, correct=correct, alone_correct=alone_correct)


async def _right(answer: str | None, question: Question) -> bool:
    if question.gold is None or question.kind is None:
        return False
    return await asyncio.to_thread(grade, answer, question.gold, question.kind)


def _sum(costs: Sequence[int | None]) -> int | None:
    known = [cost for cost in costs if cost is not None]
    return sum(known) if len(known) == len(costs) else None
