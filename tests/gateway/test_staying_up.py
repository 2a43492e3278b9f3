"""What is down is left alone, nothing outlasts the deadline, and a client who leaves stops the model in any phase."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from aiohttp import web

from corea.build import tiers_of
from corea.cascade import Cascade
from corea.confidence import PTrue
from corea.config import parse
from corea.errors import CascadeExhausted, UpstreamRefused
from corea.models.breaker import Breaker, BreakerSettings
from corea.models.openai import OpenAIModel
from corea.models.retrying import RetryBudget
from corea.models.scripted import Hang, ScriptedModel, Step, scripted_answer
from corea.prices import FixedPrice
from corea.tier import Tier
from faults.endpoint import Fault, FaultyEndpoint, Received, hang, served_from_a_thread, status
from faults.streaming import events_of, stream
from gateway.running import UNSURE, Running, large, serving, small

#: A client's hang-up reaches the upstream in milliseconds; a loaded machine gets this long.
SOON_S = 1.0
ASKED: dict[str, Any] = {"model": "corea", "messages": [{"role": "user", "content": "What is 6 × 7?"}]}
TOOL = {"type": "function", "function": {"name": "multiply", "parameters": {"type": "object", "properties": {}}}}
DOWN = UpstreamRefused("no answer from upstream:443; check base_url and that the server is up")


def post(running: Running, **more: Any) -> httpx.Response:
    return httpx.post(f"{running.url}/v1/chat/completions", json={**ASKED, **more}, timeout=30)


def upstream(name: str, endpoint: FaultyEndpoint, **settings: Any) -> Tier:
    """A tier behind a real server."""
    model = OpenAIModel(
        name,
        base_url=endpoint.base_url,
        model="m",
        max_retries=settings.pop("max_retries", 0),
        retry_budget=RetryBudget(reserve=1000),
        rng=random.Random(1),
    )
    return Tier(name=name, model=model, price=FixedPrice.per_million(10.0, 20.0), **settings)


# --- The circuit breaker ---------------------------------------------------------------------------------------------


@dataclass
class Clock:
    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


def breaker(clock: Clock | None = None) -> Breaker:
    settings = BreakerSettings(min_calls=4, open_s=5.0)
    return Breaker(settings, clock=clock or Clock(), rng=random.Random(1))


def calls(tier: Tier) -> int:
    assert isinstance(tier.model, ScriptedModel)
    return tier.model.calls


def test_with_the_small_tier_down_requests_go_straight_to_the_large_one() -> None:
    ill = small(DOWN, breaker=breaker())
    with serving(ill, large()) as running:
        answers = [post(running) for _ in range(10)]
        assert {answer.status_code for answer in answers} == {200}
        assert {answer.headers["x-corea-route"] for answer in answers} == {"large"}
        assert calls(ill) == 4
        attempt = running.trace.attempts[0]
        assert attempt.failure is not None
        assert attempt.failure.kind == "CircuitOpen"
        assert attempt.failure.message.startswith("small was not asked: 4 of its last 4 calls failed")
        assert attempt.cost_nano_usd == 0
        assert running.trace.cost_nano_usd == running.trace.attempts[1].cost_nano_usd


def test_a_tier_that_is_well_again_is_asked_again() -> None:
    clock = Clock()
    ill = small(DOWN, DOWN, DOWN, DOWN, scripted_answer("42", digit=9), breaker=breaker(clock))
    with serving(ill, large()) as running:
        for _ in range(6):
            post(running)
        clock.now_s += 6
        assert [post(running).headers["x-corea-route"] for _ in range(3)] == ["small"] * 3


def test_with_the_large_tier_down_the_best_answer_there_is_is_handed_out_if_wanted() -> None:
    ill = large(DOWN, breaker=breaker())
    with serving(small(UNSURE), ill, cascade={"on_exhausted": "best"}) as running:
        answers = [post(running) for _ in range(6)]
        assert {answer.headers["x-corea-route"] for answer in answers} == {"small"}
        assert calls(ill) == 4


def test_with_the_large_tier_down_the_client_is_told_when_to_come_back() -> None:
    with serving(small(UNSURE), large(DOWN, breaker=breaker())) as running:
        answers = [post(running) for _ in range(6)]
        assert [answer.status_code for answer in answers] == [502] * 4 + [503] * 2
        assert answers[-1].json()["error"]["code"] == "upstream_down"
        assert answers[-1].headers["x-should-retry"] == "true"
        assert answers[-1].headers["retry-after"] == "1"


def test_an_open_breaker_fails_the_request_where_a_failure_does() -> None:
    with serving(small(DOWN, breaker=breaker(), on_error="fail"), large()) as running:
        assert [post(running).status_code for _ in range(6)] == [502] * 4 + [503] * 2


def test_all_names_of_a_tier_share_its_breaker() -> None:
    ill = small(DOWN, breaker=breaker())
    with serving(ill, large(), profiles={"careful": {"threshold": 0.9}}) as running:
        for model in ("corea", "corea:careful", "small", "small", "corea", "small"):
            post(running, model=model)
        assert calls(ill) == 4


def test_relayed_calls_count_and_are_stopped_too() -> None:
    with served_from_a_thread("status_500") as endpoint:
        tier = upstream("large", endpoint, breaker=breaker())
        with serving(small(), tier) as running:
            answers = [post(running, tools=[TOOL]) for _ in range(6)]
            assert [answer.status_code for answer in answers] == [502] * 4 + [503] * 2
            assert len(endpoint.requests) == 4
            attempt = running.trace.attempts[0]
            assert attempt.failure is not None
            assert (attempt.failure.kind, attempt.cost_nano_usd) == ("CircuitOpen", 0)


@pytest.mark.parametrize("fault", ["status_429_ms", "overflow_openai"])
def test_neither_the_callers_pace_nor_their_mistakes_open_it(fault: str) -> None:
    with served_from_a_thread(fault) as endpoint:
        tier = upstream("large", endpoint, breaker=breaker())
        with serving(tier) as running:
            for _ in range(8):
                post(running)
            assert len(endpoint.requests) == 8


def test_time_outs_open_it() -> None:
    ill = small(Hang(), timeout_s=0.02, breaker=breaker())
    with serving(ill, large()) as running:
        for _ in range(6):
            assert post(running).status_code == 200
        assert calls(ill) == 4


def test_metrics_tell_of_breakers_and_budgets_and_the_gateway_stays_ready() -> None:
    with served_from_a_thread("status_429_ms", "ok") as endpoint:
        healthy = upstream("large", endpoint, breaker=breaker(), max_retries=1)
        with serving(small(DOWN, breaker=breaker()), healthy) as running:
            for _ in range(5):
                assert post(running).status_code == 200
            told = httpx.get(f"{running.url}/metrics").text
            assert 'corea_breaker_open{tier="small"} 1.0' in told
            assert 'corea_breaker_open{tier="large"} 0.0' in told
            assert 'corea_retries_total{tier="large"} 1.0' in told
            assert 'corea_retry_budget_exhausted_total{tier="large"} 0.0' in told
            assert httpx.get(f"{running.url}/readyz").status_code == 200


CONFIG = """
[[tiers]]
name = "small"
kind = "openai"
model = "m"
base_url = "http://127.0.0.1:1/v1"
threshold = 0.5
retry_share = 0.0
retry_reserve = 0
breaker = { min_calls = 3, open_s = 60 }
[[tiers]]
name = "large"
kind = "openai"
model = "m"
base_url = "http://127.0.0.1:1/v1"
max_retries = 0
breaker = { enabled = false }
"""


def test_both_are_configured_by_tier() -> None:
    config = parse(CONFIG, source="corea.toml")
    ill, healthy = tiers_of(config)
    assert healthy.breaker is None
    assert ill.breaker is not None

    async def main() -> list[str]:
        cascade = Cascade([ill, healthy])
        kinds = []
        for _ in range(5):
            with pytest.raises(CascadeExhausted) as raised:
                await cascade.ask("?")
            kinds += [attempt.failure.kind for attempt in raised.value.trace.attempts if attempt.failure]
        await cascade.aclose()
        return kinds

    assert asyncio.run(main())[::2] == ["UpstreamRefused"] * 3 + ["CircuitOpen"] * 2
    assert isinstance(ill.model, OpenAIModel)
    assert (ill.model.retry_budget.retries, ill.model.retry_budget.refused) == (0, 3)
    assert all(tier.breaker is None for tier in tiers_of(config, to_measure=True))


# --- One deadline ----------------------------------------------------------------------------------------------------

DEADLINE_S = 0.5


def failures(running: Running) -> list[str | None]:
    return [attempt.failure.kind if attempt.failure else None for attempt in running.trace.attempts]


def test_a_small_tier_that_hangs_leaves_time_for_the_large_one() -> None:
    with serving(small(Hang()), large(), cascade={"deadline_s": DEADLINE_S}) as running:
        assert post(running).headers["x-corea-route"] == "large"
        assert failures(running) == ["UpstreamTimeout", None]


def test_a_confidence_question_that_hangs_is_given_up_and_its_cost_unknown() -> None:
    asking = small(scripted_answer("42"), Hang(), estimator=PTrue())
    with serving(asking, large(), cascade={"deadline_s": DEADLINE_S}) as running:
        assert post(running).headers["x-corea-route"] == "large"
        first = running.trace.attempts[0]
        assert (first.confidence.value, first.confidence.note) == (None, "no time was left to ask")
        assert first.cost_nano_usd is None


@pytest.mark.parametrize("asked", [{}, {"stream": True}])
def test_a_large_tier_that_hangs_is_a_time_out_before_anything_went_out(asked: dict[str, Any]) -> None:
    with served_from_a_thread("hang") as endpoint:
        tiers = small(UNSURE), upstream("large", endpoint)
        with serving(*tiers, cascade={"deadline_s": DEADLINE_S}) as running:
            answer = post(running, **asked)
            assert (answer.status_code, answer.json()["error"]["code"]) == (504, "upstream_timeout")


def test_a_stream_that_hangs_half_way_ends_in_an_error() -> None:
    with served_from_a_thread(stream(events_of()[:2], then="hang")) as endpoint:
        tiers = small(UNSURE), upstream("large", endpoint)
        with serving(*tiers, cascade={"deadline_s": DEADLINE_S}) as running:
            answer = post(running, stream=True)
            assert answer.status_code == 200
            assert '"code":"upstream_timeout"' in answer.text
            assert failures(running) == [None, "UpstreamTimeout"]


def test_retries_end_with_the_deadline() -> None:
    with served_from_a_thread(status(429, retry_after_ms="60")) as endpoint:
        tiers = small(UNSURE), upstream("large", endpoint, max_retries=10)
        with serving(*tiers, cascade={"deadline_s": DEADLINE_S}) as running:
            assert post(running).status_code in (429, 504)
            assert len(endpoint.requests) < 10


def test_a_wait_that_would_outlast_the_deadline_is_not_begun() -> None:
    with served_from_a_thread("status_429") as endpoint:
        tiers = small(UNSURE), upstream("large", endpoint, max_retries=10)
        with serving(*tiers, cascade={"deadline_s": DEADLINE_S}) as running:
            assert post(running).status_code == 429
            assert len(endpoint.requests) == 1


@pytest.mark.parametrize("fault", ["hang", stream(events_of()[:2], then="hang")])
def test_a_relayed_stream_ends_with_the_deadline(fault: str | Fault) -> None:
    with (
        served_from_a_thread(fault) as endpoint,
        serving(upstream("large", endpoint), cascade={"deadline_s": DEADLINE_S}) as running,
    ):
        assert '"code":"upstream_timeout"' in post(running, tools=[TOOL], stream=True).text
        assert failures(running) == ["UpstreamTimeout"]


# --- A client who leaves ---------------------------------------------------------------------------------------------


@dataclass
class Holding:
    """A server's answer that begins with ``parts`` and never ends. Notes when its client hung up."""

    parts: tuple[bytes, ...] = ()
    begun: threading.Event = field(default_factory=threading.Event)
    left: threading.Event = field(default_factory=threading.Event)
    left_at_s: float = 0.0

    async def __call__(self, request: web.BaseRequest, received: Received) -> web.StreamResponse:
        try:
            if self.parts:
                response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
                await response.prepare(request)
                for part in self.parts:
                    await response.write(part)
            self.begun.set()
            return await hang(request, received)
        except (asyncio.CancelledError, ConnectionResetError):
            self.left_at_s = time.perf_counter()
            self.left.set()
            raise


@contextmanager
def client(running: Running, **more: Any) -> Iterator[socket.socket]:
    """A request that was sent, whoever reads the answer."""
    body = json.dumps({**ASKED, **more}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as connection:
        connection.sendall(head + body)
        yield connection


STREAM = {"stream": True}
TOOLS = {"tools": [TOOL]}
BEGUN = tuple(events_of()[:2])
#: What the client asks, what comes before, how the held answer begins, and by which model it is held.
PHASES: dict[str, tuple[dict[str, Any], list[Step | str], tuple[bytes, ...], str]] = {
    "the small tier, buffered": ({}, [], (), "small"),
    "the small tier, for a stream": (STREAM, [], (), "small"),
    "the confidence question": ({}, ["ok"], (), "small"),
    "the large tier, buffered": ({}, [UNSURE], (), "large"),
    "the large tier, before its first word": (STREAM, [UNSURE], (), "large"),
    "the large tier, mid-stream": (STREAM, [UNSURE], BEGUN, "large"),
    "a relayed call": (TOOLS, [], (), "large"),
    "a relayed stream, before its first word": (TOOLS | STREAM, [], (), "large"),
    "a relayed stream, midway": (TOOLS | STREAM, [], BEGUN, "large"),
}


@pytest.mark.parametrize("phase", PHASES)
def test_a_client_who_leaves_closes_the_upstream_at_once(
    phase: str, record_property: Callable[[str, object], None]
) -> None:
    asked, before, parts, held_by = PHASES[phase]
    held = Holding(parts)
    faults = [step for step in before if isinstance(step, str)]
    with served_from_a_thread(*faults, held) as endpoint:
        if held_by == "small":
            tiers = upstream("small", endpoint, threshold=0.5, estimator=PTrue()), large()
        else:
            tiers = small(UNSURE), upstream("large", endpoint)
        with serving(*tiers) as running:
            with client(running, **asked) as connection:
                assert held.begun.wait(10)
                if parts:
                    assert connection.recv(65536)
                left_at_s = time.perf_counter()
            assert held.left.wait(SOON_S)
            record_property("closed_after_ms", round(1e3 * (held.left_at_s - left_at_s), 2))
            attempt = running.trace.attempts[-1]
            assert attempt.failure is not None
            assert (attempt.failure.kind, attempt.cost_nano_usd) == ("Abandoned", None)


def test_a_client_who_leaves_the_queue_is_never_worked_for() -> None:
    held = Holding()
    with served_from_a_thread(held) as endpoint, serving(upstream("large", endpoint), max_active=1) as running:
        admission = running.gateway.admission
        with client(running):
            assert held.begun.wait(10)
            with client(running):
                assert until(lambda: admission.queued == 1)
            assert until(lambda: admission.queued == 0)
        assert held.left.wait(SOON_S)
        assert until(lambda: admission.active == 0)
        assert len(endpoint.requests) == 1


def until(holds: Callable[[], bool]) -> bool:
    """Whether it comes true soon."""
    end_s = time.perf_counter() + SOON_S
    while not holds():
        if time.perf_counter() > end_s:
            return False
        time.sleep(0.002)
    return True
