"""A tier that keeps failing is left alone, asked once in a while, and taken back when it answers."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corea.errors import (
    CircuitOpen,
    ContextOverflow,
    ModelError,
    RateLimited,
    Unauthorized,
    UpstreamGarbage,
    UpstreamRefused,
    UpstreamStatus,
    UpstreamTimeout,
)
from corea.models.breaker import Breaker, BreakerSettings, tells_of_its_health

SETTINGS = BreakerSettings(failure_rate=0.5, min_calls=4, window_s=10.0, open_s=5.0)
DOWN = UpstreamRefused("small: no answer")


class Midway(random.Random):
    """Jitter that is none."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


@dataclass
class Clock:
    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Bench:
    """A breaker and its clock."""

    breaker: Breaker
    clock: Clock

    def call(self, error: BaseException | None = None) -> str:
        """What came of a call that would have ended so."""
        try:
            with self.breaker.watch("small"):
                if error is not None:
                    raise error
        except CircuitOpen as exc:
            return f"open: {exc}"
        except BaseException as exc:  # noqa: BLE001
            return type(exc).__name__
        return "answered"

    def asked(self) -> bool:
        return not self.call().startswith("open")


def bench(**settings: float) -> Bench:
    clock = Clock()
    changed = replace(SETTINGS, **settings)  # type: ignore[arg-type]
    return Bench(Breaker(changed, clock=clock, rng=Midway()), clock)


def opened(**settings: float) -> Bench:
    made = bench(**settings)
    for _ in range(4):
        made.call(DOWN)
    assert made.breaker.is_open
    return made


def test_it_tells_how_long_it_lets_nobody_in() -> None:
    closed, made = bench(), opened()
    assert closed.breaker.wait_s == 0
    assert made.breaker.wait_s == 5.0
    made.clock.now_s += 4
    assert made.breaker.wait_s == 1.0
    made.clock.now_s += 60
    assert made.breaker.wait_s == 0
    assert made.call(DOWN) == "UpstreamRefused"
    assert made.breaker.wait_s == 5.0


def test_it_opens_at_the_failure_rate_and_says_why() -> None:
    made = bench()
    outcomes = [made.call(error) for error in (None, DOWN, None, DOWN)]
    assert outcomes == ["answered", "UpstreamRefused", "answered", "UpstreamRefused"]
    assert made.call() == (
        "open: small was not asked: 2 of its last 4 calls failed, the last with: small: no answer; "
        "it is asked again in 5.0 s"
    )


def test_too_few_calls_open_nothing() -> None:
    made = bench()
    for _ in range(3):
        made.call(DOWN)
    assert made.asked()


def test_failures_below_the_rate_open_nothing() -> None:
    made = bench()
    for _ in range(50):
        for error in (None, None, DOWN):
            made.call(error)
    assert not made.breaker.is_open


def test_what_was_long_ago_is_forgotten() -> None:
    made = bench()
    for _ in range(3):
        made.call(DOWN)
    made.clock.now_s += SETTINGS.window_s
    made.call(DOWN)
    assert not made.breaker.is_open


def test_one_call_is_let_through_after_the_wait_and_no_more() -> None:
    made = opened()
    made.clock.now_s += 4.9
    assert not made.asked()
    made.clock.now_s += 0.2
    with made.breaker.watch("small"):
        assert not made.asked()
    assert made.asked()


def test_a_probe_that_fails_begins_the_wait_anew() -> None:
    made = opened()
    made.clock.now_s += 5.0
    assert made.call(DOWN) == "UpstreamRefused"
    assert not made.asked()
    made.clock.now_s += 5.0
    assert made.asked()
    assert not made.breaker.is_open


def test_a_probe_that_hangs_is_followed_by_another() -> None:
    made = opened()
    made.clock.now_s += 5.0
    with made.breaker.watch("small"):
        made.clock.now_s += 5.0
        assert made.asked()
    assert not made.breaker.is_open


def test_a_probe_whose_caller_left_is_followed_at_once() -> None:
    made = opened()
    made.clock.now_s += 5.0
    assert made.call(KeyboardInterrupt()) == "KeyboardInterrupt"
    assert made.breaker.is_open
    assert made.asked()
    assert not made.breaker.is_open


def test_an_answer_to_an_older_call_does_not_close_it() -> None:
    made = bench()
    with made.breaker.watch("small"):
        for _ in range(4):
            made.call(DOWN)
    assert made.breaker.is_open


def test_after_it_closed_old_failures_count_no_more() -> None:
    made = opened()
    made.clock.now_s += 5.0
    assert made.asked()
    made.call(DOWN)
    assert not made.breaker.is_open


def test_a_refusal_for_the_callers_sake_closes_it() -> None:
    made = opened()
    made.clock.now_s += 5.0
    assert made.call(UpstreamStatus("small: HTTP 400", status=400)) == "UpstreamStatus"
    assert not made.breaker.is_open


@pytest.mark.parametrize(
    "error, counts",
    [
        (DOWN, True),
        (UpstreamTimeout(model="small", elapsed_s=1.0), True),
        (UpstreamGarbage("small: not JSON"), True),
        (UpstreamStatus("small: HTTP 500", status=500), True),
        (UpstreamStatus("small: HTTP 404", status=404), True),
        (Unauthorized("small: HTTP 401", status=401), True),
        (RateLimited("small: HTTP 429", status=429), True),
        (RateLimited("small: HTTP 429", status=429, retry_after_s=1.0), False),
        (UpstreamStatus("small: HTTP 400", status=400), False),
        (UpstreamStatus("small: HTTP 422", status=422), False),
        (ContextOverflow("small: too long"), False),
    ],
)
def test_only_what_speaks_against_the_endpoint_counts(error: ModelError, counts: bool) -> None:
    assert tells_of_its_health(error) is counts
    made = bench()
    for _ in range(20):
        made.call(error)
    assert made.breaker.is_open is counts


EVENTS = st.lists(st.tuples(st.floats(0, 20), st.sampled_from(["ok", "down", "busy", "left"])), max_size=60)


@given(events=EVENTS)
def test_whatever_happened_an_endpoint_that_is_well_again_is_soon_asked(events: list[tuple[float, str]]) -> None:
    made = bench()
    errors = {"ok": None, "down": DOWN, "busy": RateLimited("", status=429, retry_after_s=1.0), "left": SystemExit()}
    for pause_s, event in events:
        made.clock.now_s += pause_s
        made.call(errors[event])
    made.clock.now_s += SETTINGS.open_s + 0.001
    assert made.asked()
    assert not made.breaker.is_open


@given(calls=st.integers(1, 200))
def test_while_it_is_down_it_gets_one_call_each_wait(calls: int) -> None:
    made = opened()
    asked = 0
    for _ in range(calls):
        made.clock.now_s += 1.0
        asked += made.call(DOWN) == "UpstreamRefused"
    assert asked == calls // 5
