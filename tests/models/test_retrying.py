"""Retries take from a budget that only answers fill, and what a lost try may have cost is never forgotten."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corea.errors import ModelError, UpstreamGarbage, UpstreamRefused, UpstreamStatus, UpstreamTimeout
from corea.models.base import Delta
from corea.models.openai import OpenAIModel
from corea.models.retrying import RetryBudget, retried
from corea.types import Message, Prompt, Reply
from faults.endpoint import TEXT, Fault, FaultyEndpoint
from faults.streaming import whole

PROMPT = Prompt(messages=(Message(role="user", content="?"),), max_tokens=16)


class Upstream:
    """Fails where the script says so."""

    def __init__(self, failures: Sequence[bool]) -> None:
        self._failures = iter(failures)
        self.calls = 0

    async def __call__(self) -> str:
        self.calls += 1
        if next(self._failures, False):
            raise UpstreamStatus("large: HTTP 503", status=503)
        return "answer"


async def ask(upstream: Upstream, budget: RetryBudget, max_retries: int = 2) -> bool:
    """Whether it was answered."""

    async def no_sleep(pause_s: float) -> None:
        """Time does not matter here."""

    try:
        await retried(
            upstream,
            model="large",
            max_retries=max_retries,
            budget=budget,
            timeout_s=60.0,
            rng=random.Random(1),
            sleep=no_sleep,
        )
    except ModelError:
        return False
    return True


@given(
    failures=st.lists(st.booleans(), max_size=300),
    share=st.floats(0, 1),
    reserve=st.floats(0, 20),
    max_retries=st.integers(0, 10),
)
def test_retries_are_never_more_than_the_reserve_and_the_answers_share(
    failures: list[bool], share: float, reserve: float, max_retries: int
) -> None:
    upstream, budget = Upstream(failures), RetryBudget(share=share, reserve=reserve)

    async def main() -> int:
        return sum([await ask(upstream, budget, max_retries) for _ in range(50)])

    answers = asyncio.run(main())
    assert upstream.calls - 50 == budget.retries
    assert budget.retries <= reserve + share * answers + 1e-6


def test_in_a_total_outage_a_spent_budget_leaves_one_call_each() -> None:
    upstream, budget = Upstream([True] * 10_000), RetryBudget()

    async def main() -> tuple[int, int]:
        for _ in range(10):
            await ask(upstream, budget)
        spent = upstream.calls
        for _ in range(500):
            await ask(upstream, budget)
        return spent, upstream.calls - spent

    spent, after = asyncio.run(main())
    assert spent == 10 + 10
    assert after == 500
    assert budget.refused > 0


def test_a_budget_comes_back_with_the_answers() -> None:
    upstream, budget = Upstream([True] * 40 + [False] * 10 + [True]), RetryBudget()

    async def main() -> list[bool]:
        while upstream.calls < 40:
            await ask(upstream, budget)
        return [await ask(upstream, budget) for _ in range(11)]

    assert asyncio.run(main()) == [True] * 11


def test_no_reserve_and_no_share_are_no_retries() -> None:
    upstream, budget = Upstream([True]), RetryBudget(share=0, reserve=0)
    assert asyncio.run(ask(upstream, budget)) is False
    assert upstream.calls == 1


def complete(*faults: str | Fault, max_retries: int = 2) -> Reply | ModelError:
    async def main() -> Reply | ModelError:
        async with FaultyEndpoint(*faults) as endpoint:
            model = _model(endpoint, max_retries)
            try:
                return await model.complete(PROMPT, timeout_s=5.0)
            except ModelError as error:
                return error
            finally:
                await model.aclose()

    return asyncio.run(main())


def heard(*faults: str | Fault) -> list[Delta]:
    async def main() -> list[Delta]:
        async with FaultyEndpoint(*faults) as endpoint:
            model = _model(endpoint, 2)
            deltas = [delta async for delta in model.stream(PROMPT, timeout_s=5.0)]
            await model.aclose()
            return deltas

    return asyncio.run(main())


def _model(endpoint: FaultyEndpoint, max_retries: int) -> OpenAIModel:
    async def no_sleep(pause_s: float) -> None:
        """Pauses are tested elsewhere."""

    return OpenAIModel(
        "large",
        base_url=endpoint.base_url,
        model="m",
        max_retries=max_retries,
        rng=random.Random(1),
        sleep=no_sleep,
    )


@pytest.mark.parametrize("fault", ["reset", "hang_up", "cut_body", "reset_in_body"])
def test_an_answer_after_a_lost_try_has_no_usage_because_that_try_may_be_billed_too(fault: str) -> None:
    reply = complete(fault, "ok")
    assert isinstance(reply, Reply)
    assert (reply.text, reply.usage) == (TEXT, None)


@pytest.mark.parametrize("fault", ["status_500", "status_429_ms"])
def test_an_answer_after_a_refusal_has_its_usage(fault: str) -> None:
    reply = complete(fault, "ok")
    assert isinstance(reply, Reply)
    assert reply.usage is not None


def test_a_stream_after_a_lost_try_has_no_usage_either() -> None:
    unharmed, after = heard(whole())[-1].reply, heard("reset", whole())[-1].reply
    assert unharmed is not None
    assert after is not None
    assert unharmed.usage is not None
    assert (after.text, after.usage) == (TEXT, None)


@pytest.mark.parametrize(
    "fault, billed", [("refuse", False), ("status_500", False), ("reset", True), ("hang_up", True)]
)
def test_only_what_was_sent_may_be_billed(fault: str, billed: bool) -> None:
    error = complete(fault, max_retries=0)
    assert isinstance(error, UpstreamRefused | UpstreamStatus)
    assert error.may_be_billed is billed


def test_a_refusal_after_a_lost_try_may_be_billed() -> None:
    error = complete("cut_body", "status_503", max_retries=1)
    assert isinstance(error, UpstreamStatus)
    assert error.may_be_billed


def test_time_outs_and_garbage_may_be_billed() -> None:
    assert UpstreamTimeout(model="m", elapsed_s=1.0).may_be_billed
    assert UpstreamGarbage("m: no JSON").may_be_billed
