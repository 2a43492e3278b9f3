"""Two tiers side by side: who is first wins, the other one is stopped, and the trace tells of both."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corea import Cascade
from corea.confidence import Verbalized
from corea.errors import CascadeExhausted, ModelError, UpstreamStatus
from corea.models.base import Delta
from corea.models.openai import OpenAIModel
from corea.models.scripted import scripted_answer
from corea.policy.base import Bar, Hedge, Policies, Policy, View
from corea.policy.explain import explain_trace
from corea.policy.latency import Latency, Means
from corea.prices import FixedPrice
from corea.run import Text
from corea.tier import Tier
from corea.types import Attempt, Prompt, Reason, Reply, Trace
from faults.endpoint import FaultyEndpoint

SURE, UNSURE, FINAL = (scripted_answer(a, digit=d) for a, d in (("42", 9), ("41", 1), ("43", None)))
BROKEN = UpstreamStatus("it broke", status=500)


@dataclass
class Kept:
    """A ledger in memory."""

    traces: list[Trace] = field(default_factory=list)

    async def write(self, trace: Trace) -> None:
        self.traces.append(trace)

    async def aclose(self) -> None:
        """Nothing to close."""


@dataclass
class Side:
    """A model whose calls go as ``says``, the last one again and again; ``open`` counts those in progress."""

    name: str
    says: list[Callable[[], Awaitable[Reply]]]
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    calls: int = 0
    open: int = 0

    async def complete(self, prompt: Prompt, *, timeout_s: float | None = None) -> Reply:
        say = self.says[min(self.calls, len(self.says) - 1)]
        self.calls += 1
        self.open += 1
        self.asked.set()
        try:
            return await say()
        finally:
            self.open -= 1

    async def aclose(self) -> None:
        """Nothing is open."""


class Writing(Side):
    """It can be heard, word by word."""

    async def stream(self, prompt: Prompt, *, timeout_s: float | None = None) -> AsyncGenerator[Delta, None]:
        yield Delta(text="Answer: ")
        reply = await self.complete(prompt)
        yield Delta(text=reply.text.removeprefix("Answer: "))
        yield Delta(reply=reply)


@dataclass
class Hedges:
    """A policy that wants the next tier at once; ``allowed`` so many times."""

    allowed: int = 1_000
    after_s: float = 0.0
    name: str = "latency"

    def before(self, view: View, bar: Bar) -> Bar:
        return replace(bar, hedge=Hedge(after_s=self.after_s, allowed=self._allows, policy=self.name))

    def after(self, trace: Trace) -> None:
        """Nothing is learned."""

    def _allows(self) -> bool:
        self.allowed -= 1
        return self.allowed >= 0


def now(outcome: Reply | ModelError, *, turns: int = 0) -> Callable[[], Awaitable[Reply]]:
    """After so many turns of the event loop."""

    async def say() -> Reply:
        for _ in range(turns):
            await asyncio.sleep(0)
        if isinstance(outcome, ModelError):
            raise outcome.with_traceback(None)
        return outcome

    return say


def once(event: asyncio.Event, outcome: Reply | ModelError) -> Callable[[], Awaitable[Reply]]:
    async def say() -> Reply:
        await event.wait()
        return await now(outcome)()

    return say


async def never() -> Reply:
    await asyncio.Event().wait()
    raise AssertionError("only a cancellation ends this")


def small(model: Side, **more: Any) -> Tier:
    price = FixedPrice.per_million(1.0, 2.0)
    return Tier(name=model.name, model=model, threshold=0.5, estimator=Verbalized(), price=price, **more)


def large(model: Side, **more: Any) -> Tier:
    return Tier(name=model.name, model=model, price=FixedPrice.per_million(10.0, 20.0), **more)


def cascade(*tiers: Tier, policy: Policy | None = None, ledger: Kept | None = None, **more: Any) -> Cascade:
    policies = Policies(always=(policy or Hedges(),))
    return Cascade(tiers, policies=policies, ledger=ledger, **more)


def told(attempt: Attempt) -> tuple[str, bool, Reason, str | None]:
    kind = None if attempt.failure is None else attempt.failure.kind
    return attempt.tier, attempt.decision.keep, attempt.decision.reason, kind


def test_a_next_tier_that_is_first_wins_and_the_slow_one_is_stopped() -> None:
    async def main() -> None:
        slow, quick, kept = Side("small", [never]), Side("large", [now(FINAL)]), Kept()
        trace = await cascade(small(slow), large(quick), ledger=kept).ask("?")
        assert (trace.tier, trace.answer, trace.deferred) == ("large", "43", True)
        assert [told(attempt) for attempt in trace.attempts] == [
            ("small", False, Reason.SKIPPED, "Outrun"),
            ("large", True, Reason.LAST_TIER, None),
        ]
        assert (slow.open, quick.calls, kept.traces) == (0, 1, [trace])
        # Nobody told what the stopped one cost, and nobody makes it up.
        assert [attempt.cost_nano_usd is None for attempt in trace.attempts] == [True, False]
        assert trace.cost_nano_usd is None
        assert explain_trace(trace) == (
            "Skipped small, by latency: large, asked beside it after 0 s, answered first. Kept the answer of large: it "
            "is the last tier, whose answer is final (asked after 0 s, beside the tier before it)."
        )

    asyncio.run(main())


def test_an_answer_that_is_kept_in_time_stops_the_next_tier() -> None:
    async def main() -> None:
        dear = Side("large", [never])
        first, kept = Side("small", [once(dear.asked, SURE)]), Kept()
        trace = await cascade(small(first), large(dear), ledger=kept).ask("?")
        assert (trace.tier, trace.answer, trace.deferred) == ("small", "42", False)
        assert [told(attempt) for attempt in trace.attempts] == [
            ("small", True, Reason.CONFIDENT, None),
            ("large", False, Reason.SKIPPED, "Outrun"),
        ]
        assert (dear.open, dear.calls, kept.traces) == (0, 1, [trace])
        assert (trace.attempts[1].cost_nano_usd, trace.cost_nano_usd, trace.saved_nano_usd) == (None, None, None)
        assert "its answer was not needed" in explain_trace(trace)

    asyncio.run(main())


def test_an_answer_that_is_deferred_finds_the_next_tier_under_way_and_costs_add_up() -> None:
    async def main() -> None:
        judged = asyncio.Event()
        dear = Side("large", [once(judged, FINAL)])

        async def unsure() -> Reply:
            await dear.asked.wait()
            asyncio.get_running_loop().call_soon(judged.set)
            return UNSURE

        trace = await cascade(small(Side("small", [unsure])), large(dear)).ask("?")
        assert [told(a)[:3] for a in trace.attempts] == [
            ("small", False, Reason.BELOW_THRESHOLD),
            ("large", True, Reason.LAST_TIER),
        ]
        assert dear.calls == 1
        assert trace.cost_nano_usd == sum(attempt.cost_nano_usd or 0 for attempt in trace.attempts) > 0

    asyncio.run(main())


@pytest.mark.parametrize("says,tier,attempts", [(SURE, "small", 2), (UNSURE, "large", 3)])
def test_a_hedge_that_fails_does_not_fail_the_request(says: Reply, tier: str, attempts: int) -> None:
    async def main() -> None:
        dear = Side("large", [now(BROKEN), now(FINAL)])
        trace = await cascade(small(Side("small", [now(says, turns=9)])), large(dear, on_error="fail")).ask("?")
        assert (trace.tier, len(trace.attempts)) == (tier, attempts)
        assert told(trace.attempts[1]) == ("large", False, Reason.FAILED, "UpstreamStatus")
        assert dear.calls == attempts - 1

    asyncio.run(main())


def test_a_hedge_that_breaks_in_an_unforeseen_way_does_not_fail_the_request(caplog: pytest.LogCaptureFixture) -> None:
    async def bug() -> Reply:
        raise ZeroDivisionError

    async def main() -> Trace:
        dear = Side("large", [bug, now(FINAL)])
        return await cascade(small(Side("small", [now(UNSURE, turns=9)])), large(dear)).ask("?")

    trace = asyncio.run(main())
    assert (trace.tier, len(trace.attempts), trace.cost_nano_usd) == ("large", 3, None)
    assert "large: failed beside the tier before it" in caplog.text


def test_one_that_is_not_allowed_or_not_due_is_not_asked() -> None:
    async def main() -> None:
        for policy in (Hedges(allowed=0), Hedges(after_s=3600.0)):
            dear = Side("large", [never])
            trace = await cascade(small(Side("small", [now(SURE, turns=9)])), large(dear), policy=policy).ask("?")
            assert (trace.tier, len(trace.attempts), dear.calls) == ("small", 1, 0)

    asyncio.run(main())


def test_a_caller_who_goes_away_stops_both_and_leaves_one_trace_of_unknown_cost() -> None:
    async def main() -> None:
        one, two, kept = Side("small", [never]), Side("large", [never]), Kept()
        asking = asyncio.create_task(cascade(small(one), large(two), ledger=kept).ask("?"))
        await asyncio.wait_for(two.asked.wait(), 30)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.sleep(0)
        (trace,) = kept.traces
        assert (one.open, two.open, trace.final, trace.cost_nano_usd) == (0, 0, None, None)
        assert [told(a)[3] for a in trace.attempts] == ["Abandoned", "Abandoned"]

    asyncio.run(main())


def test_a_tier_whose_failure_ends_the_request_stops_the_one_beside_it() -> None:
    async def main() -> None:
        dear = Side("large", [never])
        first = small(Side("small", [once(dear.asked, BROKEN)]), on_error="fail")
        with pytest.raises(CascadeExhausted) as caught:
            await cascade(first, large(dear), on_exhausted="best").ask("?")
        assert [told(a)[3] for a in caught.value.trace.attempts] == ["UpstreamStatus", "Outrun"]
        assert dear.open == 0

    asyncio.run(main())


def test_a_model_that_does_not_listen_does_not_hold_the_answer() -> None:
    async def main() -> None:
        over = asyncio.Event()

        async def deaf() -> Reply:
            while not over.is_set():
                try:
                    await over.wait()
                except asyncio.CancelledError:
                    continue
            return FINAL

        dear = Side("large", [deaf])
        trace = await cascade(small(Side("small", [once(dear.asked, SURE)])), large(dear)).ask("?")
        assert (trace.tier, dear.open, told(trace.attempts[1])[3]) == ("small", 1, "Outrun")
        over.set()

    asyncio.run(main())


def test_what_the_next_tier_writes_is_heard_only_once_it_is_its_turn() -> None:
    async def main() -> None:
        heard: list[str] = []

        async def hear(text: Text) -> None:
            heard.append(text.text)

        dear = Writing("large", [never])
        trace = await cascade(small(Side("small", [once(dear.asked, SURE)])), large(dear)).ask("?", hear=hear)
        assert "".join(heard) == trace.text
        assert (trace.tier, dear.open) == ("small", 0)

        heard.clear()
        dear, judged = Writing("large", []), asyncio.Event()
        dear.says = [once(judged, FINAL)]

        async def unsure() -> Reply:
            await dear.asked.wait()
            assert not heard
            return UNSURE

        async def live(text: Text) -> None:
            heard.append(text.text)
            judged.set()

        trace = await cascade(small(Side("small", [unsure])), large(dear)).ask("?", hear=live)
        # The first word was there before the second one was written: it was not waited for the whole.
        assert heard[0] == "Answer: "
        assert trace.attempts[-1].text == "".join(heard)
        assert (trace.tier, dear.calls) == ("large", 1)

    asyncio.run(main())


def test_of_three_tiers_the_middle_one_goes_on_to_the_last_as_ever() -> None:
    async def main() -> None:
        middle = Side("middle", [now(UNSURE, turns=3)])
        trace = await cascade(
            small(Side("small", [now(UNSURE, turns=6)])),
            small(middle),
            large(Side("large", [now(FINAL)])),
            policy=Hedges(allowed=1),
        ).ask("?")
        assert [attempt.tier for attempt in trace.attempts] == ["small", "middle", "large"]
        assert (trace.tier, middle.calls) == ("large", 1)

    asyncio.run(main())


outcomes = st.sampled_from([SURE, UNSURE, BROKEN])
finals = st.sampled_from([FINAL, BROKEN])
turns = st.integers(0, 12)


@settings(max_examples=150, deadline=None)
@given(
    first=outcomes, second=finals, again=finals, first_turns=turns, second_turns=turns, allowed=st.booleans(),
    best=st.booleans(), streams=st.booleans(),
)  # fmt: skip
def test_whoever_is_first_one_trace_tells_all_and_no_doubted_answer_goes_out(
    first: Reply | ModelError, second: Reply | ModelError, again: Reply | ModelError, first_turns: int,
    second_turns: int, allowed: bool, best: bool, streams: bool,
) -> None:  # fmt: skip
    async def main() -> None:
        cheap = Side("small", [now(first, turns=first_turns)])
        dear = (Writing if streams else Side)("large", [now(second, turns=second_turns), now(again)])
        kept, heard = Kept(), []

        async def hear(text: Text) -> None:
            heard.append(text.text)

        over = cascade(
            small(cheap), large(dear), policy=Hedges(allowed=int(allowed)), ledger=kept,
            on_exhausted="best" if best else "error",
        )  # fmt: skip
        try:
            trace = await over.ask("?", hear=hear if streams else None)
        except CascadeExhausted as exc:
            trace = exc.trace
        assert kept.traces == [trace]
        assert (cheap.open, dear.open) == (0, 0)
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1
        calls = [attempt.tier for attempt in trace.attempts]
        assert (calls.count("small"), calls.count("large")) == (cheap.calls, dear.calls)
        assert sum(attempt.decision.keep for attempt in trace.attempts) == (trace.tier is not None and not _best(trace))
        costs = [attempt.cost_nano_usd for attempt in trace.attempts]
        assert trace.cost_nano_usd == (None if None in costs else sum(cost or 0 for cost in costs))
        if trace.tier == "small" and not _best(trace):
            assert first is SURE
        if first is SURE and not allowed:
            assert trace.tier == "small"
        if first is SURE or second is FINAL:
            assert trace.tier is not None
        if streams and trace.tier is not None:
            assert "".join(heard) == trace.text

    asyncio.run(main())


def _best(trace: Trace) -> bool:
    """Whether what was handed out could not be kept."""
    return trace.attempt is not None and not trace.attempt.decision.keep


# Over HTTP


@pytest.mark.parametrize("fault", ["hang", "hang_after_headers"])
def test_the_upstream_of_the_one_that_lost_is_hung_up_on(fault: str) -> None:
    async def main() -> None:
        async with FaultyEndpoint(fault) as endpoint:
            dear = OpenAIModel(
                "large", base_url=endpoint.base_url, model="m", api_key="k", rng=random.Random(1), max_retries=0
            )

            async def sure() -> Reply:
                await endpoint.asked()
                return SURE

            async with cascade(small(Side("small", [sure])), Tier(name="large", model=dear)) as over:
                trace = await over.ask("?")
                assert await endpoint.disconnected(within_s=30)
            assert (trace.tier, len(endpoint.requests), endpoint.disconnects) == ("small", 1, 1)

    asyncio.run(main())


# How many, in hours that take no time


class HourLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to what is due next. Nothing in it may wait for the world outside."""

    def __init__(self) -> None:
        super().__init__()
        self._now_s = 0.0
        select = self._selector.select  # type: ignore[attr-defined]

        def at_once(timeout: float | None = None) -> Any:
            self._now_s += timeout or 0.0
            return select(0)

        self._selector.select = at_once  # type: ignore[attr-defined]

    def time(self) -> float:
        return self._now_s


def in_no_time(main: Callable[[], Coroutine[Any, Any, list[Trace]]]) -> list[Trace]:
    with asyncio.Runner(loop_factory=HourLoop) as runner:
        return runner.run(main())


def hedged_hour(*, may: tuple[Means, ...], slow: Callable[[int, random.Random], float], n: int = 600) -> list[Trace]:
    """A request a second. The small tier takes as long as ``slow`` says, and is sure of 7 in 10; the large one 2 s."""
    latency = Latency(p95_s=4.0, tiers=("small", "large"), means=may)
    rng, kept = random.Random(7), Kept()

    def taking(seconds: float, reply: Reply) -> Callable[[], Awaitable[Reply]]:
        async def say() -> Reply:
            await asyncio.sleep(seconds)
            return reply

        return say

    async def main() -> list[Trace]:
        clock = asyncio.get_running_loop().time
        over = []
        for index in range(n):
            says = taking(slow(index, rng), SURE if rng.random() < 0.7 else UNSURE)
            tiers = small(Side("small", [says])), large(Side("large", [taking(2.0, FINAL)]))
            asked = cascade(*tiers, policy=latency, ledger=kept, clock=clock)
            over.append(asyncio.create_task(asked.ask(str(index))))
            await asyncio.sleep(1.0)
        await asyncio.gather(*over)
        return kept.traces

    return in_no_time(main)


def hedged(traces: list[Trace]) -> int:
    """How many had two tiers at work at once."""
    told = [" ".join(f"{a.decision.note} {a.failure and a.failure.message}" for a in t.attempts) for t in traces]
    return sum("beside" in one for one in told)


def late(traces: list[Trace]) -> float:
    return sum(trace.elapsed_s > 4.0 for trace in traces) / len(traces)


def stragglers(index: int, rng: random.Random) -> float:
    return 20.0 if rng.random() < 0.04 else 0.5 + rng.random()


def test_a_tier_that_is_slow_once_in_a_while_no_longer_makes_answers_late() -> None:
    without, with_it = hedged_hour(may=("keep",), slow=stragglers), hedged_hour(may=("hedge",), slow=stragglers)
    assert (hedged(without), late(without[100:]) > 0.03) == (0, True)
    assert late(with_it[100:]) < 0.5 * late(without[100:])
    assert 0 < hedged(with_it) <= 0.05 * len(with_it) + 2


def test_an_overload_is_not_doubled() -> None:
    def stalled(index: int, rng: random.Random) -> float:
        return 60.0 if index >= 200 else stragglers(index, rng)

    traces = hedged_hour(may=("hedge",), slow=stalled, n=500)
    assert hedged(traces) <= 0.05 * len(traces) + 2
