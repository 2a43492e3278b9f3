"""Policies together: their order, the floor of a certificate, the second signal, and whose policy it is."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corea.confidence.base import Estimate, Exchange
from corea.confidence.protocol import parse
from corea.errors import InputError, TierSkipped
from corea.models.base import Model
from corea.models.scripted import ScriptedModel, scripted_answer
from corea.policy.base import Bar, Policies, Policy, Second, View, settle, skipped
from corea.policy.budget import Budget
from corea.policy.certified import Certified
from corea.policy.critical import Critical, Foreseen, check_independent, family_of
from corea.policy.latency import Latency
from corea.policy.order import ORDER, build, in_order
from corea.policy.spent import Counted
from corea.policy_config import PolicyConfig
from corea.types import Confidence, Message, Prompt, Reply, Request, Trace
from policy.driven import Driven, Wall

shares = st.floats(0, 1)
bars = st.builds(Bar, threshold=shares, tie_fraction=shares)


@dataclass
class Says:
    """A policy that wants this bar, whatever was before."""

    threshold: float
    name: str = "budget"

    def before(self, view: View, bar: Bar) -> Bar:
        return replace(bar, threshold=self.threshold, tie_fraction=1.0, note="because")

    def after(self, trace: Trace) -> None:
        """Nothing is learned."""


@dataclass(frozen=True)
class Sure:
    """An estimator that says this of everything."""

    value: float | None
    name: str = "other"
    ask: Literal["none"] = "none"
    top_logprobs: int = 0

    async def estimate(self, exchange: Exchange, model: Model, *, timeout_s: float | None = None) -> Estimate:
        return Estimate(confidence=Confidence(value=self.value, source=self.name))


def second(threshold: float = 0.8, value: float | None = 0.9) -> Second:
    return Second(estimator=Sure(value), threshold=threshold)


def seen(own: Bar, *, certified: bool = True) -> View:
    return Driven([], own=own, certified=certified).view()


# Order


def test_whatever_order_they_are_written_in_the_safest_has_the_last_word() -> None:
    policies: list[Policy] = [
        Latency(p95_s=1.0, tiers=("small", "large")),
        Budget(nano_usd=1, per="day", tiers=("small", "large"), spent=Counted(), wall_clock=Wall()),
        Certified(),
        Critical(second()),
    ]
    for mixed in permutations(policies):
        assert tuple(policy.name for policy in in_order(mixed)) == ORDER


def test_a_configuration_is_built_in_that_order_with_a_floor_wherever_there_is_a_certificate() -> None:
    config = PolicyConfig.model_validate({"budget": {"usd": 1}, "latency": {"p95_s": 1}})
    made = _built(config, has_certificate=True)
    assert [policy.name for policy in made] == ["latency", "budget", "certified"]
    assert [policy.name for policy in _built(config, has_certificate=False)] == ["latency", "budget"]


def test_giving_the_promise_up_must_be_said_and_is_said_back(caplog: pytest.LogCaptureFixture) -> None:
    config = PolicyConfig.model_validate({"budget": {"usd": 1}, "certified": False})
    assert [policy.name for policy in _built(config, has_certificate=True)] == ["budget"]
    assert "policies.exam: certified = false, so what the certificate promises is not promised" in caplog.text


def test_a_policy_that_only_defers_needs_no_floor() -> None:
    config = PolicyConfig.model_validate({"latency": {"p95_s": 1, "may": ["skip"]}})
    assert [policy.name for policy in _built(config, has_certificate=True)] == ["latency"]


def _built(config: PolicyConfig, *, has_certificate: bool) -> tuple[Policy, ...]:
    return build(
        "exam",
        config,
        tiers=("small", "large"),
        has_certificate=has_certificate,
        spent=lambda task: Counted(),
        second=None,
        wall_clock=Wall(),
    )


# The one who moved it is told


def test_the_bar_says_which_policy_moved_it_last() -> None:
    bar = settle([Says(0.3), Says(0.4, name="latency")], seen(Bar(threshold=0.5), certified=False))
    assert (bar.threshold, bar.policy, bar.note) == (0.4, "latency", "because")


def test_a_policy_that_agrees_is_not_told() -> None:
    own = Bar(threshold=0.5)
    assert settle([Certified()], seen(own)) == own


def test_asking_for_a_second_signal_does_not_claim_the_threshold() -> None:
    bar = settle([Says(0.3), Critical(second())], seen(Bar(threshold=0.5), certified=False))
    assert (bar.policy, bar.second is not None) == ("budget", True)
    alone = settle([Critical(second())], seen(Bar(threshold=0.5)))
    assert (alone.policy, alone.second is not None) == (None, True)


# Certified


@given(own=bars, wanted=bars, certified=st.booleans())
def test_no_policy_takes_a_bar_below_its_certificate(own: Bar, wanted: Bar, certified: bool) -> None:
    moved = Certified().before(seen(own, certified=certified), replace(wanted, policy="budget"))
    if not certified:
        assert moved.threshold == wanted.threshold
        return
    stricter = own.at_least(wanted)
    assert (moved.threshold, moved.tie_fraction) == (stricter.threshold, stricter.tie_fraction)


def test_the_trace_says_who_wanted_to_break_the_certificate() -> None:
    bar = settle([Says(0.3), Certified()], seen(Bar(threshold=0.9, tie_fraction=0.5)))
    assert (bar.threshold, bar.tie_fraction, bar.policy) == (0.9, 0.5, "certified")
    assert bar.note == "budget wanted 0.3, which would break the certificate; because"


def test_a_certificate_does_not_forbid_to_be_stricter() -> None:
    assert settle([Says(0.95), Certified()], seen(Bar(threshold=0.9))).threshold == 0.95


# Critical


def test_two_readings_of_one_statement_are_one_signal() -> None:
    for first, other in (("verbalized", "expected_followup"), ("p_true", "p_true"), ("expected", "verbalized")):
        with pytest.raises(InputError, match="is not independent of"):
            check_independent([first], [other], tier="small")
    with pytest.raises(InputError, match="both are read from the reply's probabilities; choose another"):
        check_independent(["p_true", "logprob"], ["logprob"], tier="small")


@settings(deadline=None)
@given(st.sampled_from(["verbalized", "p_true", "logprob", "self_consistency", "gate"]), st.data())
def test_signals_of_different_families_pass(first: str, data: st.DataObject) -> None:
    other = data.draw(st.sampled_from(["expected", "p_true", "logprob", "self_consistency", "gate"]))
    if family_of(first) == family_of(other):
        return
    check_independent([first], [other], tier="small")


def test_the_last_tier_needs_no_second_signal() -> None:
    last = Bar(threshold=None)
    assert Critical(second()).before(seen(Bar(threshold=0.5)), last) is last


def test_a_gate_as_a_signal_reads_the_question_and_not_the_reply() -> None:
    class Asked:
        def ask(self, question: str) -> float:
            return 0.7 if question == "6 × 7?" else 0.1

    foreseen = Foreseen(gate=Asked())  # type: ignore[arg-type]
    sure = Reply(text="I am certain. Answer: 43\nConfidence: 9", finish_reason="stop", model="m")
    single = Prompt(
        messages=(Message(role="system", content="Be brief."), Message(role="user", content="6 × 7?")), max_tokens=9
    )
    longer = replace(single, messages=(*single.messages, *single.messages))
    model = ScriptedModel("m", replies=[scripted_answer("never asked")])
    for prompt, value in ((single, 0.7), (longer, None)):
        exchange = Exchange(prompt=prompt, reply=sure, parsed=parse(sure.text))
        estimate = asyncio.run(foreseen.estimate(exchange, model))
        assert estimate.confidence.value == value
    assert model.calls == 0


# Whose policy


def test_a_request_goes_by_what_it_names_then_by_its_task_then_by_the_default() -> None:
    exam, cheap, usual, audit = Says(0.9), Says(0.1), Says(0.5), Says(0.7)
    policies = Policies(
        named={"exam": (exam,), "cheap": (cheap,), "usual": (usual,)},
        by_task={"maths": "exam"},
        default="usual",
        always=(audit,),
    )
    assert policies.of(Request.of("?", task="maths")) == (exam, audit)
    assert policies.of(replace(Request.of("?", task="maths"), policy="cheap")) == (cheap, audit)
    assert policies.of(Request.of("?", task="history")) == (usual, audit)
    assert replace(policies, default=None).of(Request.of("?")) == (audit,)
    with pytest.raises(InputError, match='there is no policy "exma"; configured are: exam, cheap, usual'):
        policies.of(replace(Request.of("?"), policy="exma"))


def test_a_skipped_tier_says_who_left_it_out() -> None:
    class Skips(Says):
        def before(self, view: View, bar: Bar) -> Bar:
            raise skipped("latency", view.tier, "it is slow")

    with pytest.raises(TierSkipped, match="small was not asked: it is slow") as caught:
        settle([Skips(0.1), Certified()], seen(Bar(threshold=0.5)))
    assert caught.value.policy == "latency"


# All together, whatever comes


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), floor=st.floats(0.3, 0.99), usd=st.integers(1, 10**7))
def test_no_budget_and_no_target_ever_keeps_what_the_certificate_does_not(seed: int, floor: float, usd: int) -> None:
    rng, wall = random.Random(seed), Wall()
    policies = in_order([
        Certified(),
        Latency(p95_s=rng.choice([0.5, 2.0, 3.5]), tiers=("small", "large")),
        Budget(nano_usd=usd, per="hour", tiers=("small", "large"), spent=Counted(), wall_clock=wall),
    ])  # fmt: skip
    driven = Driven(policies, wall=wall, own=Bar(threshold=floor), certified=True)
    for trace in driven.asked(100, rng, for_s=rng.choice([60.0, 7200.0])):
        sure = trace.attempts[0].confidence.value
        assert not trace.attempts[0].decision.keep or (sure is not None and sure >= floor)
