"""The main job on real questions, measured: every question through the cascade, and all of them to the last tier too.

Where the first tier is trained, its base answers as well, untrained: what the training is worth, on the same questions.
Knows nothing of terminals: the command line draws what :func:`run` yields.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from corea.batch.rows import Question
from corea.cascade import Cascade
from corea.config import ConfidenceConfig, Config, EmbeddedTier
from corea.grading.answers import grade
from corea.tier import Tier
from corea.types import Attempt, Trace

#: Of an untrained first tier's threshold: a guess, as its confidence is (docs/results.md).
UNTRAINED_THRESHOLD = 0.92


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a way of answering came to on one question. The cost is None where any part is unknown."""

    right: bool
    deferred: bool
    cost_nano_usd: int | None
    elapsed_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One question: what the cascade did, and what the last tier answered (``alone``, in the trace if deferred).

    ``untrained``: what the first tier answered without its adapters, None where it has none.
    """

    question: Question
    trace: Trace
    alone: Attempt
    untrained: Attempt | None
    by_cascade: Answer
    by_last: Answer
    by_untrained: Answer | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """Sums over one way of answering. Times are seconds, one question after the other."""

    right: int
    deferred: int
    cost_nano_usd: int | None
    elapsed_s: float

    @classmethod
    def of(cls, answers: Sequence[Answer]) -> Side:
        return cls(
            right=sum(answer.right for answer in answers),
            deferred=sum(answer.deferred for answer in answers),
            cost_nano_usd=_sum([answer.cost_nano_usd for answer in answers]),
            elapsed_s=sum(answer.elapsed_s for answer in answers),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """The cascade beside the last tier alone, and beside the cascade as it would be untrained."""

    questions: int
    cascade: Side
    alone: Side
    untrained: Side | None

    @classmethod
    def of(cls, steps: Sequence[Step]) -> Tally:
        plain = [step.by_untrained for step in steps if step.by_untrained is not None]
        return cls(
            questions=len(steps),
            cascade=Side.of([step.by_cascade for step in steps]),
            alone=Side.of([step.by_last for step in steps]),
            untrained=Side.of(plain) if plain else None,
        )

    def saving(self, side: Side) -> float | None:
        """1 − its cost ÷ cost of the last tier alone, both measured."""
        if side.cost_nano_usd is None or not self.alone.cost_nano_usd:
            return None
        return 1 - side.cost_nano_usd / self.alone.cost_nano_usd


def untrained(config: Config) -> Config | None:
    """The same, its first tier without its adapters and judged by the likelihood of its words; None if it has none."""
    first = config.tiers[0]
    if not isinstance(first, EmbeddedTier) or not first.adapters or len(config.tiers) < 2:
        return None
    plain = {"adapters": (), "confidence": ConfidenceConfig(), "certificate": None, "threshold": UNTRAINED_THRESHOLD}
    return config.model_copy(update={"tiers": (first.model_copy(update=plain), *config.tiers[1:])})


async def run(cascade: Cascade, questions: Sequence[Question], *, plain: Tier | None = None) -> AsyncIterator[Step]:
    """One question at a time, so that the times compare. ``plain``: the first tier, untrained.

    Raises what :meth:`Cascade.ask` raises.
    """
    last = cascade.tiers[-1]
    for question in questions:
        trace = await cascade.ask(question.request)
        alone = next((attempt for attempt in trace.attempts if attempt.tier == last.name), None)
        if alone is None:
            alone = await _alone(last, question, cascade)
        untrained = None if plain is None else await _alone(plain, question, cascade)
        yield Step(
            question=question,
            trace=trace,
            alone=alone,
            untrained=untrained,
            by_cascade=Answer(
                right=await _right(trace.answer, question),
                deferred=trace.deferred,
                cost_nano_usd=trace.cost_nano_usd,
                elapsed_s=trace.elapsed_s,
            ),
            by_last=await _answer((alone,), question),
            by_untrained=None if untrained is None else await _answer(_asked(untrained, alone), question),
        )


async def _alone(tier: Tier, question: Question, cascade: Cascade) -> Attempt:
    return await tier.attempt(question.request, time_left_s=cascade.deadline_s, clock=time.monotonic)


def _asked(first: Attempt, last: Attempt) -> tuple[Attempt, ...]:
    return (first,) if first.decision.keep else (first, last)


async def _answer(attempts: Sequence[Attempt], question: Question) -> Answer:
    """Of a cascade that made these attempts, the last of which it handed out."""
    return Answer(
        right=await _right(attempts[-1].answer or attempts[-1].text, question),
        deferred=len(attempts) > 1,
        cost_nano_usd=_sum([attempt.cost_nano_usd for attempt in attempts]),
        elapsed_s=sum(attempt.latency_s for attempt in attempts),
    )


async def _right(answer: str | None, question: Question) -> bool:
    if question.gold is None or question.kind is None:
        return False
    return await asyncio.to_thread(grade, answer, question.gold, question.kind)


def _sum(costs: Sequence[int | None]) -> int | None:
    known = [cost for cost in costs if cost is not None]
    return sum(known) if len(known) == len(costs) else None
