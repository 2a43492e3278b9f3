"""A small ledger for the dashboard's tests: all reasons, all outcomes, feedback, and text that wants to be markup."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from random import Random
from typing import Any

from corea.ledger import Ledger
from corea.types import Attempt, Confidence, Decision, Failure, Message, Reason, Request, Trace, Usage

NOW = 1_764_072_000.0
PASSWORD = "correct horse battery staple"
NASTY = "<script>document.title='broken'</script><img src=x onerror=\"document.title='broken'\">'\"&\u202e\x00\ud800 "
TASKS = ("maths", "law & <b>order</b>", None, NASTY)
KEYS = ("key-a", "key-b", None)
PROFILES = ("corea", "corea:careful", None)


def attempt(tier: str = "small", *, decision: Decision | None = None, confidence: float | None = 0.9) -> Attempt:
    return Attempt(
        tier=tier,
        model=f"model-{tier}",
        decision=decision or Decision(keep=True, reason=Reason.CONFIDENT, threshold=0.5),
        confidence=Confidence(value=confidence, source="fitted"),
        text="Because.\nAnswer: 42",
        answer="42",
        finish_reason="stop",
        usage=Usage(prompt_tokens=20, completion_tokens=12),
        cost_nano_usd=1_000 if tier == "small" else 10_000,
        latency_s=0.25,
    )


LAST = Decision(keep=True, reason=Reason.LAST_TIER)


def trace(number: int, rng: Random, *, at: float | None = None, **changes: Any) -> Trace:
    """Kept, deferred or failed, by chance. Ids sort by time only roughly, as imported ones may."""
    sure = rng.random()
    first = attempt(confidence=sure)
    if sure < 0.5:
        first = replace(first, decision=Decision(keep=False, reason=Reason.BELOW_THRESHOLD, threshold=0.5))
    if rng.random() < 0.1:
        why = Decision(keep=False, reason=Reason.GUARDED, threshold=0.5, guard="repeats", note="says it 9 times")
        first = replace(first, decision=why)
    attempts = [first] if first.decision.keep else [first, attempt("large", decision=LAST, confidence=None)]
    final: int | None = len(attempts) - 1
    if not first.decision.keep and rng.random() < 0.2:
        failure = Failure(kind="UpstreamTimeout", message=f"no answer {NASTY}")
        lost = Decision(keep=False, reason=Reason.FAILED)
        attempts[1] = replace(attempts[1], decision=lost, failure=failure, text="", answer=None, cost_nano_usd=None)
        final = None
    metadata = {"key": rng.choice(KEYS), "model": rng.choice(PROFILES), "sampling": {"stop": [NASTY]}}
    made = Trace(
        id=f"t{number:05}",
        request=Request(messages=(Message(role="user", content=f"{NASTY}{number}?"),), task=rng.choice(TASKS)),
        attempts=tuple(attempts),
        final=final,
        started_at_unix_s=NOW - rng.random() * 6.9 * 86_400 if at is None else at,
        elapsed_s=0.3,
        cost_nano_usd=None if final is None else sum(one.cost_nano_usd or 0 for one in attempts),
        baseline_nano_usd=None if final is None else 10_000,
        fingerprint="f00d",
        metadata={name: value for name, value in metadata.items() if value is not None},
    )
    return replace(made, **changes)


def some_traces(count: int, *, seed: int = 1) -> list[Trace]:
    """In no order; some began at the same moment."""
    rng = Random(seed)
    made = [trace(number, rng) for number in range(count)]
    return [replace(one, started_at_unix_s=made[0].started_at_unix_s) if rng.random() < 0.05 else one for one in made]


def write(ledger: Ledger, traces: list[Trace], *, feedback: float = 0.0, seed: int = 2) -> None:
    """``feedback``: the share that somebody spoke of; right as often as stated."""
    rng = Random(seed)

    async def all_of_them() -> None:
        await asyncio.gather(*(ledger.write(one) for one in traces))
        for one in traces:
            if one.final is not None and rng.random() < feedback:
                right = rng.random() < (one.confidence if one.confidence is not None else 0.9)
                await ledger.add_feedback(one.id, float(right), NASTY)

    asyncio.run(all_of_them())
