"""Replays of requests: what is exact must be exact, what can't be known must not be made up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corea.errors import TierSkipped
from corea.evaluate.outcomes import read
from corea.guards.base import Guard
from corea.policy.base import Bar, Policies, View
from corea.prices import FixedPrice
from corea.simulate.accuracy import agrees
from corea.simulate.days import Clock
from corea.simulate.deciders import AsRecorded, ByPolicies, Decider, Fixed
from corea.simulate.graded import graded
from corea.simulate.paths import NOBODY_KNOWS, Ladders, follow
from corea.simulate.replay import Prices, replay, survey
from corea.simulate.tally import Result
from corea.simulate.traffic import Past
from corea.types import Attempt, Decision, Reason, Trace
from simulate.traffic_samples import Said, attempt, past


def result(requests: Sequence[Past], would: Decider, prices: Prices | None = None) -> Result:
    known = survey(requests, prices=prices, rng=Random(0))
    return replay(requests, known, would).results(0)[0]


def recorded_nano_usd(requests: Sequence[Past]) -> int:
    return sum(one.trace.cost_nano_usd or 0 for one in requests)


said = st.builds(
    Said,
    confidence=st.one_of(st.none(), st.sampled_from([0.0, 0.15, 0.5, 0.8, 0.95, 1.0])),
    cost=st.integers(0, 10**12),
    cut_off=st.booleans(),
)
failed = st.builds(
    Said,
    cost=st.one_of(st.none(), st.just(0)),
    failure=st.sampled_from(["UpstreamTimeout", "ContextOverflow", "NotCertified", "TierSkipped", "CircuitOpen"]),
)
bars = st.sampled_from([0.0, 0.15, 0.5, 0.79, 0.8, 0.95, 1.0])


@st.composite
def traffic(draw: st.DrawFn) -> tuple[list[Past], dict[str, float]]:
    """Requests to one cascade, with faults, and its thresholds."""
    names = ["small", "middle", "large"][-draw(st.integers(2, 3)) :]
    thresholds = [draw(bars) for _ in names[:-1]]
    # A cascade's last reply is kept even where it was cut off or is of unknown confidence.
    one = st.tuples(*(st.one_of(said, failed) for _ in names)).map(lambda words: dict(zip(names, words, strict=True)))
    tasks = st.sampled_from([None, "a", "b"])
    made = draw(st.lists(st.tuples(one, tasks), min_size=1, max_size=12))
    requests = [past(words, thresholds, id=f"{i}", at_s=float(i), task=task) for i, (words, task) in enumerate(made)]
    return requests, dict(zip(names, thresholds, strict=False))


@settings(max_examples=60, deadline=None)
@given(traffic())
def test_the_thresholds_in_use_give_what_happened_to_the_nano_dollar(
    drawn: tuple[list[Past], dict[str, float]],
) -> None:
    requests, thresholds = drawn
    # A tier that policies or certificates left out is asked by a fixed threshold: that is another cascade.
    asked = [one for one in requests if not any(_left_out(a) for a in one.attempts)]
    for decider, replayed in ((Fixed(thresholds=thresholds), asked), (AsRecorded(), requests)):
        if not replayed:
            continue
        found = result(replayed, decider)
        assert found.would.cost.value == recorded_nano_usd(replayed)
        assert found.would.cost.exact or found.would.cost.unknown
        assert found.would.unanswered == sum(one.trace.final is None for one in replayed)
        assert found.would.deferral.low == sum(one.trace.deferred for one in replayed) / len(replayed)
        assert found.would.cost == found.was.cost
        assert found.would.saved == found.was.saved
        assert found.difference.cost.exact
        assert found.difference.cost.value == 0
        assert (found.difference.drop.low, found.difference.drop.high) == (0, 0)
        assert found.coverage.answered_otherwise == 0


def _left_out(tried: Attempt) -> bool:
    return tried.decision.reason in (Reason.NOT_CERTIFIED, Reason.SKIPPED)


@settings(max_examples=60, deadline=None)
@given(traffic())
def test_every_request_is_followed_along_its_own_attempts(drawn: tuple[list[Past], dict[str, float]]) -> None:
    requests, _ = drawn
    ladders = Ladders()
    for one in requests:
        ladders.see(one)
    for one in requests:
        path = follow(one, ladders.of(one), AsRecorded())
        assert path.asked == one.attempts
        assert path.answered_by == one.trace.tier
        assert path.missing == path.open == ()


sure = st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9])
worlds = st.lists(
    st.tuples(
        sure, st.sampled_from("AB"), st.sampled_from("AC"), st.booleans(), st.integers(1, 99), st.integers(1, 999)
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(worlds, sure, st.one_of(sure, st.sampled_from([0.0, 1.0])))
def test_the_truth_lies_within_the_bounds(
    world: list[tuple[float, str, str, bool, int, int]], then: float, now: float
) -> None:
    """The world is known here, both answers to every question; the replay sees only what a ledger would hold."""
    requests = []
    drop = was_drop = cost = 0
    for i, (confidence, small, large, told, small_cost, large_cost) in enumerate(world):
        words = {
            "small": Said(confidence=confidence, answer=small, cost=small_cost),
            "large": Said(answer=large, cost=large_cost),
        }
        one = past(words, [then], id=f"{i}")
        final = small if confidence >= then else large
        requests.append(replace(one, right={one.trace.tier or "": float(final == "A")} if told else {}))
        drop += (large == "A") - (small == "A") if confidence >= now else 0
        was_drop += (large == "A") - (small == "A") if confidence >= then else 0
        cost += small_cost + (0 if confidence >= now else large_cost)
    # One request that went all the way, so that the ladder is known.
    known = survey([*requests, past({"small": Said(confidence=0.0), "large": Said()}, [0.5])], rng=Random(0))
    found = replay(requests, known, Fixed(thresholds={"small": now})).results(0)[0]
    n = len(world)
    assert found.would.drop.low - 1e-9 <= drop / n <= found.would.drop.high + 1e-9
    assert found.was.drop.low - 1e-9 <= was_drop / n <= found.was.drop.high + 1e-9
    assert found.difference.drop.low - 1e-9 <= (drop - was_drop) / n <= found.difference.drop.high + 1e-9
    # All it takes is recorded where the threshold only goes down.
    if now <= then:
        assert found.would.cost.exact
        assert found.would.cost.value == cost
        assert found.coverage.exact == n


@settings(max_examples=60, deadline=None)
@given(worlds)
def test_threshold_0_is_always_small_and_1_is_always_large(world: list[tuple[float, str, str, bool, int, int]]) -> None:
    requests = [
        past({"small": Said(confidence=c, cost=s), "large": Said(cost=7 * s)}, [0.5], id=f"{i}")
        for i, (c, _, _, _, s, _) in enumerate(world)
    ]
    requests += [
        past({"small": Said(confidence=0.2, cost=3), "large": Said(cost=21)}, [0.5], id=f"more {i}") for i in range(3)
    ]
    small = sum(one.attempts[0].cost_nano_usd or 0 for one in requests)
    low, high = (result(requests, Fixed(thresholds={"small": t})) for t in (0.0, 1.0))
    assert low.would.deferral.high == 0
    assert low.would.cost.value == small
    assert high.would.deferral.low == 1
    assert (high.would.drop.low, high.would.drop.high, high.would.drop.unknown) == (0, 0, 0)
    # Whatever the large model costs: asking the small one first, in vain, is what is lost.
    assert high.would.saved.value == -small
    assert high.would.saved.exact
    if all(one.trace.deferred for one in requests):
        assert high.would.cost.value == 8 * small


def kept(i: int, **words: object) -> Past:
    said = Said(confidence=0.9, **words)  # type: ignore[arg-type]
    return past({"small": said, "large": Said(cost=100)}, [0.5], id=f"kept {i}")


def deferred(i: int, *, cost: int = 100, tokens: tuple[int, int] = (100, 20)) -> Past:
    return past(
        {"small": Said(confidence=0.1, tokens=tokens), "large": Said(cost=cost, latency_s=5.0)},
        [0.5],
        id=f"deferred {i}",
    )


def test_what_was_not_asked_is_estimated_and_said_to_be_so() -> None:
    """The large model's cost follows the small one's tokens here, so the line must find it."""
    rng = Random(4)
    requests: list[Past] = []
    for i in range(60):
        tokens = (rng.randrange(50, 500), rng.randrange(10, 90))
        requests.append(deferred(i, cost=1000 + 3 * tokens[0] + 7 * tokens[1], tokens=tokens))
    truth = 0
    for i in range(40):
        tokens = (rng.randrange(50, 500), rng.randrange(10, 90))
        truth += 1000 + 3 * tokens[0] + 7 * tokens[1]
        requests.append(kept(i, tokens=tokens))
    found = result(requests, Fixed(thresholds={"small": 0.95}))
    assert found.coverage.estimated == 40
    assert found.coverage.exact == 60
    value = found.difference.cost.value
    assert value is not None
    assert value == pytest.approx(truth, abs=5)
    assert found.difference.cost.low <= value <= found.difference.cost.high
    assert not found.would.cost.exact


def as_a_ledger_holds_it(graded: Past, threshold: float) -> Past:
    """Without the large answers to the questions that are kept, and without what only a grader knows."""
    small, large = graded.attempts
    if small.decision.reason is not Reason.BELOW_THRESHOLD:
        return replace(graded, right={})
    keep = small.confidence.value is not None and small.confidence.value >= threshold
    reason = Reason.CONFIDENT if keep else Reason.BELOW_THRESHOLD
    small = replace(small, decision=Decision(keep=keep, reason=reason, threshold=threshold))
    tried = (small,) if keep else (small, large)
    return Past(trace=replace(graded.trace, attempts=tried, final=len(tried) - 1))


@pytest.mark.parametrize("file", ["gsm8k", "maths", "nonmaths"])
def test_on_real_answers_the_estimate_is_within_an_eighth_of_the_truth(file: str) -> None:
    """The hardest case: all that was kept is asked of the large model, and it was easier than what taught the line."""
    outcomes = Path(__file__).parents[2] / "bench" / "outcomes" / f"{file}.parquet"
    questions, left_out = graded(read(outcomes), signal="logprob")
    sure = sorted(value for one in questions if (value := one.attempts[0].confidence.value) is not None)
    threshold = sure[len(sure) // 2]
    requests = [as_a_ledger_holds_it(one, threshold) for one in questions]
    found = result(requests, Fixed(thresholds={"small": 1.0}))
    truth = sum(
        one.attempts[1].cost_nano_usd or 0
        for one, kept in zip(questions, requests, strict=True)
        if kept.trace.final == 0
    )
    assert left_out == 0
    assert found.coverage.estimated > 100
    assert found.difference.cost.value == pytest.approx(truth, rel=0.125)


def test_where_nothing_was_ever_deferred_the_large_model_costs_nobody_knows_what() -> None:
    found = result([kept(i) for i in range(5)], Fixed(thresholds={"small": 0.95}))
    assert found.would.cost.unknown == found.coverage.unknown == 5
    assert found.would.cost.value == 0
    assert found.would.deferral.low == 1
    assert found.would.p50_s is None


def test_a_tier_in_between_that_was_not_asked_leaves_the_way_open() -> None:
    middle = {"small": Said(confidence=0.1), "middle": Said(confidence=0.9, cost=50), "large": Said(cost=100)}
    whole = {**middle, "middle": Said(confidence=0.1, cost=50)}
    requests = [past(whole, [0.5, 0.5], id=f"{i}") for i in range(20)]
    requests.append(past({**middle, "small": Said(confidence=0.6)}, [0.5, 0.5], id="kept"))
    found = result(requests, Fixed(thresholds={"small": 0.7}))
    assert found.coverage.open == 1
    assert found.would.cost.value is None
    assert found.difference.cost.low <= 50
    assert found.difference.cost.high >= 150
    assert found.would.drop.low < 0 < found.would.drop.high
    assert found.would.latency_unknown == 1


def test_other_prices_are_applied_to_the_tokens_that_were_counted() -> None:
    requests = [deferred(0, tokens=(1000, 500)), kept(1, tokens=(2000, 100))]
    prices = Prices(by_tier={"small": FixedPrice.per_million(1, 2)})
    found = result(requests, AsRecorded(), prices)
    assert found.would.cost.value == (1000 + 2 * 500) * 1000 + 100 + (2000 + 2 * 100) * 1000
    assert found.was.cost.value == recorded_nano_usd(requests)


def test_what_failed_then_fails_now_and_what_was_cut_off_stays_deferred() -> None:
    ill = past({"small": Said(failure="UpstreamTimeout", cost=None), "large": Said(cost=100)}, [0.5], id="ill")
    cut = past({"small": Said(confidence=0.9, cut_off=True), "large": Said(cost=100)}, [0.5], id="cut")
    found = result([ill, cut], Fixed(thresholds={"small": 0.0}))
    assert found.would.deferral.low == 1
    assert found.coverage.answered_otherwise == 0
    assert found.would.cost.unknown == 1


def test_an_answer_that_is_kept_now_must_pass_the_guards_where_its_text_is_stored() -> None:
    requests = [deferred(i) for i in range(3)]
    bare = [attempt("small", Said(confidence=0.1), 0.5), attempt("large", Said(cost=100), None)]
    stored = replace(bare[0], text="")
    requests.append(replace(deferred(9), trace=replace(deferred(9).trace, attempts=(stored, bare[1]))))
    never = Guard(name="never", check=lambda judged: "no")
    known = survey(requests, rng=Random(0))
    would = Fixed(thresholds={"small": 0.0})
    found = replay(requests, known, would, guards=lambda tier: (never,)).results(0)[0]
    assert found.would.deferral.low == 3 / 4
    assert found.coverage.unguarded == 1
    assert replay(requests, known, would).results(0)[0].would.deferral.low == 0


def test_two_answers_agree_only_where_that_is_sure() -> None:
    def of(answer: str | None) -> Attempt:
        return attempt("small", Said(answer=answer), 0.5)

    assert agrees(of("B"), of("(B)"), "choice") is True
    assert agrees(of("B"), of("C"), "choice") is False
    assert agrees(of("0.5"), of("1/2"), "number") is True
    assert agrees(of("a dog"), of("an animal"), "text") is None
    assert agrees(of("12"), of("13"), None) is None
    assert agrees(of(None), of("13"), "number") is None
    assert agrees(None, of("13"), "number") is None


def test_a_request_relayed_to_one_tier_is_as_it_was_whatever_is_changed() -> None:
    one = deferred(0)
    relayed = replace(one.attempts[0], decision=Decision(keep=True, reason=Reason.RELAYED))
    trace = replace(one.trace, attempts=(relayed,), final=0, cost_nano_usd=10)
    found = result([replace(one, trace=trace), deferred(1)], Fixed(thresholds={"small": 1.0}))
    assert found.would.cost.value == 10 + 110
    assert found.would.drop.n == 1


def test_a_request_that_was_broken_off_is_followed_no_further() -> None:
    trace = deferred(0).trace
    broken = Past(trace=replace(trace, attempts=trace.attempts[:1], final=None, cost_nano_usd=10))
    found = result([broken, deferred(1)], Fixed(thresholds={"small": 1.0}))
    assert found.would.unanswered == 1
    assert found.would.cost.value == 10 + 110


def test_the_ladder_is_learned_from_the_requests_that_went_furthest_and_kept_apart_by_profile() -> None:
    ladders = Ladders([("tiny", "huge")])
    fast = kept(0)
    other = past({"tiny": Said(confidence=0.9), "big": Said()}, [0.5])
    named = replace(other, trace=replace(other.trace, metadata={"model": "other"}))
    for one in (fast, deferred(1), named):
        ladders.see(one)
    assert ladders.of(fast) == ("small", "large")
    assert ladders.of(named) == ("tiny", "huge")
    assert ladders.last == {"large"}
    alone = Ladders()
    alone.see(fast)
    assert alone.of(fast) == ("small", NOBODY_KNOWS)


class _SkipsAfterSpending:
    """Leaves the small tier out once so much was spent; looks at a clock."""

    name = "thrift"

    def __init__(self, nano_usd: int, clock: Clock) -> None:
        self.left = nano_usd
        self.clock = clock
        self.seen: list[float] = []

    def before(self, view: View, bar: Bar) -> Bar:
        self.seen.append(self.clock())
        if self.left <= 0:
            raise TierSkipped("no", policy=self.name)
        return replace(bar, threshold=0.0)

    def after(self, trace: Trace) -> None:
        assert trace.cost_nano_usd is not None
        self.left -= trace.cost_nano_usd


def test_policies_are_asked_in_order_of_time_and_learn_what_each_request_would_have_cost() -> None:
    requests = [replace(deferred(i), trace=replace(deferred(i).trace, started_at_unix_s=100.0 + i)) for i in range(5)]
    clock = Clock()
    policy = _SkipsAfterSpending(20, clock)
    would = ByPolicies(policies=Policies(always=(policy,)), advance=clock.advance)
    found = result(requests, would)
    # Two are kept at 10 each; then the money is spent, and three go straight to the large model.
    assert found.would.cost.value == 2 * 10 + 3 * 100
    assert policy.seen == [100, 101, 102, 103, 104]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=50), st.sampled_from([0.5, 0.95]))
def test_a_latency_quantile_is_right_to_half_a_percent(latencies: list[float], share: float) -> None:
    requests = [
        past({"small": Said(latency_s=s, confidence=0.9), "large": Said()}, [0.5], id=f"{i}")
        for i, s in enumerate(latencies)
    ]
    found = result(requests, AsRecorded()).would
    nearest = sorted(latencies)[max(0, -int(-share * len(latencies) // 1) - 1)]
    told = found.p50_s if share == 0.5 else found.p95_s
    assert told == pytest.approx(nearest, rel=0.0051)
