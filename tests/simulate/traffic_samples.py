"""Requests for the tests of replays: what each tier would say, and the trace that a cascade leaves of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from corea.policy.thresholds import decide
from corea.simulate.traffic import Past
from corea.types import Attempt, Confidence, Failure, Message, Request, Trace, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a tier has to say. ``cost=None``: it failed, and nobody knows what that cost."""

    confidence: float | None = 0.5
    cost: int | None = 10
    answer: str | None = "A"
    failure: str | None = None
    cut_off: bool = False
    tokens: tuple[int, int] = (100, 20)
    latency_s: float = 1.0


def attempt(tier: str, said: Said, threshold: float | None, question: str = "q") -> Attempt:
    """As ``Tier.attempt`` makes it."""
    failure = None if said.failure is None else Failure(kind=said.failure, message="no")
    value = None if said.failure else said.confidence
    confidence = Confidence(value=value, source="verbalized" if threshold is not None else "none")
    finish = "length" if said.cut_off else "stop"
    return Attempt(
        tier=tier,
        model=f"model-{tier}",
        decision=decide(
            threshold=threshold,
            confidence=confidence,
            finish_reason=None if failure else finish,
            failure=failure,
            question=question,
        ),
        confidence=confidence,
        text="" if failure else f"Answer: {said.answer}",
        answer=None if failure else said.answer,
        finish_reason=None if failure else finish,
        usage=None if failure else Usage(prompt_tokens=said.tokens[0], completion_tokens=said.tokens[1]),
        cost_nano_usd=said.cost,
        latency_s=said.latency_s,
        failure=failure,
    )


def past(
    said: Mapping[str, Said],
    thresholds: Sequence[float],
    *,
    task: str | None = "t",
    id: str = "q",
    at_s: float = 0.0,
    right: Mapping[str, float] | None = None,
) -> Past:
    """The request as a cascade of ``said``'s tiers answers it; ``thresholds`` are those of all tiers but the last."""
    tried: list[Attempt] = []
    for tier, threshold in zip(said, [*thresholds, None], strict=True):
        tried.append(attempt(tier, said[tier], threshold, f"question {id}"))
        if tried[-1].decision.keep:
            break
    kept = tried[-1].decision.keep
    costs = [one.cost_nano_usd for one in tried]
    trace = Trace(
        id=id,
        request=Request(messages=(Message(role="user", content=f"question {id}"),), task=task, kind="choice"),
        attempts=tuple(tried),
        final=len(tried) - 1 if kept else None,
        started_at_unix_s=at_s,
        elapsed_s=sum(one.latency_s for one in tried),
        cost_nano_usd=None if None in costs else sum(cost for cost in costs if cost is not None),
        baseline_nano_usd=None,
        fingerprint="f",
    )
    return Past(trace=trace, right=right or {})
