"""The cascade with scripted models: what is kept, what is deferred, what it costs, and how it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corea import Cascade
from corea.confidence import Logprob, PTrue, Verbalized
from corea.errors import (
    CascadeExhausted,
    ContextOverflow,
    InputError,
    LedgerError,
    ModelError,
    UpstreamGarbage,
    UpstreamRefused,
    UpstreamStatus,
)
from corea.models.scripted import After, Hang, ScriptedModel, Step, scripted_answer, scripted_reply
from corea.policy.base import Bar, Policies, Second, View, skipped
from corea.policy.certificate import Certificate, Certified, Promise
from corea.policy.critical import Critical
from corea.policy.explain import explain_trace
from corea.prices import FixedPrice
from corea.tier import Tier
from corea.types import Message, Reason, Request, Trace

CHEAP = FixedPrice.per_million(1.0, 2.0)
DEAR = FixedPrice.per_million(10.0, 20.0)


@dataclass
class Kept:
    """A ledger in memory."""

    traces: list[Trace] = field(default_factory=list)
    closed: bool = False

    async def write(self, trace: Trace) -> None:
        self.traces.append(trace)

    async def aclose(self) -> None:
        self.closed = True


def small(*steps: Step, threshold: float = 0.5, **settings: Any) -> Tier:
    model = ScriptedModel("small-model", replies=list(steps), record=True)
    settings = {"estimator": Verbalized(), "price": CHEAP, **settings}
    return Tier(name="small", model=model, threshold=threshold, **settings)


def large(*steps: Step, **settings: Any) -> Tier:
    model = ScriptedModel("large-model", replies=list(steps) or [scripted_answer("42")], record=True)
    return Tier(name="large", model=model, **{"price": DEAR, **settings})


def ask(*tiers: Tier, question: str | Request = "What is 6 × 7?", **settings: Any) -> Trace:
    return asyncio.run(Cascade(tiers, **settings).ask(question))


def calls(tier: Tier) -> int:
    assert isinstance(tier.model, ScriptedModel)
    return tier.model.calls


def test_a_confident_small_model_keeps_the_question() -> None:
    first, last = small(scripted_answer("42", digit=9)), large()
    trace = ask(first, last)
    assert (trace.answer, trace.tier, trace.confidence, trace.deferred) == ("42", "small", 0.95, False)
    assert calls(last) == 0


def test_an_unsure_small_model_defers() -> None:
    trace = ask(small(scripted_answer("41", digit=2)), large())
    assert (trace.answer, trace.tier, trace.deferred) == ("42", "large", True)
    assert [attempt.decision.reason for attempt in trace.attempts] == [Reason.BELOW_THRESHOLD, Reason.LAST_TIER]


def test_a_confidence_equal_to_the_threshold_keeps() -> None:
    assert ask(small(scripted_answer("42", digit=7), threshold=0.75), large()).tier == "small"


def test_an_unknown_confidence_defers_even_at_threshold_zero() -> None:
    trace = ask(small(scripted_answer("42"), threshold=0.0), large())
    assert trace.tier == "large"
    assert trace.attempts[0].decision.reason is Reason.UNKNOWN_CONFIDENCE


def test_a_reply_that_was_cut_off_defers_however_sure_it_is() -> None:
    cut = scripted_reply("Answer: 42\nConfidence: 9", finish_reason="length")
    trace = ask(small(cut), large())
    assert trace.attempts[0].decision.reason is Reason.CUT_OFF
    assert trace.tier == "large"


def test_the_client_sees_no_confidence_line_and_the_last_tier_is_not_asked_for_one() -> None:
    last = large()
    trace = ask(small(scripted_answer("42", digit=9)), last)
    assert "Confidence" not in (trace.text or "")
    deferred = ask(small(scripted_answer("42", digit=0)), last)
    assert deferred.confidence is None
    assert isinstance(last.model, ScriptedModel)
    assert "Confidence" not in last.model.prompts[0].messages[0].content


def test_three_tiers_are_asked_in_order() -> None:
    middle = Tier(
        name="middle",
        model=ScriptedModel("m", replies=[scripted_answer("42", digit=8)]),
        estimator=Verbalized(),
        threshold=0.8,
        price=CHEAP,
    )
    last = large()
    trace = ask(small(scripted_answer("41", digit=1)), middle, last)
    assert [attempt.tier for attempt in trace.attempts] == ["small", "middle"]
    assert calls(last) == 0


def test_the_users_system_message_reaches_every_tier_with_the_protocol_added_where_it_is_asked_inline() -> None:
    first, last = small(scripted_answer("42", digit=1)), large()
    messages = (Message(role="system", content="Answer in French."), Message(role="user", content="6 × 7?"))
    ask(first, last, question=Request(messages=messages))
    for tier, asked in ((first, True), (last, False)):
        assert isinstance(tier.model, ScriptedModel)
        system, user = tier.model.prompts[0].messages
        assert system.content.startswith("Answer in French.")
        assert ("Confidence:" in system.content) is asked
        assert user.content == "6 × 7?"


# Cost


def test_cost_is_the_sum_over_attempts_and_saving_is_net_of_the_small_model() -> None:
    trace = ask(small(scripted_answer("41", digit=1)), large())
    first, last = trace.attempts
    assert first.cost_nano_usd is not None
    assert last.cost_nano_usd is not None
    assert trace.cost_nano_usd == first.cost_nano_usd + last.cost_nano_usd
    assert trace.saved_nano_usd == -first.cost_nano_usd


def test_a_kept_answer_saves_the_last_tiers_price_for_the_same_tokens() -> None:
    trace = ask(small(scripted_answer("42", digit=9)), large())
    assert trace.cost_nano_usd is not None
    assert trace.saved_nano_usd == 9 * trace.cost_nano_usd


def test_calls_made_to_learn_the_confidence_cost_but_are_not_part_of_the_baseline() -> None:
    sure = scripted_reply("True", distribution={"True": 0.9, "False": 0.1})
    inline = ask(small(scripted_answer("42", digit=9)), large())
    asked = ask(small(scripted_answer("42", digit=9), sure, estimator=PTrue()), large())
    assert asked.tier == "small"
    assert asked.cost_nano_usd is not None
    assert inline.cost_nano_usd is not None
    assert asked.cost_nano_usd > inline.cost_nano_usd
    assert asked.baseline_nano_usd == inline.baseline_nano_usd


def test_an_unknown_price_is_unknown_never_zero() -> None:
    trace = ask(small(scripted_answer("42", digit=1), price=None), large())
    assert trace.attempts[0].cost_nano_usd is None
    assert trace.cost_nano_usd is None
    assert trace.saved_nano_usd is None


@pytest.mark.parametrize(
    "error,cost",
    [
        (UpstreamRefused("no connection; start the server"), 0),
        (UpstreamStatus("it answered 500", status=500), 0),
        (UpstreamGarbage("it answered HTML"), None),
    ],
)
def test_a_failed_attempt_costs_nothing_only_if_that_is_sure(error: ModelError, cost: int | None) -> None:
    assert ask(small(error), large()).attempts[0].cost_nano_usd == cost


# Failures


def test_a_failed_tier_is_skipped_and_the_trace_tells_it() -> None:
    trace = ask(small(UpstreamStatus("it answered 500", status=500)), large())
    assert trace.tier == "large"
    failure = trace.attempts[0].failure
    assert failure is not None
    assert failure.kind == "UpstreamStatus"
    assert "it answered 500" in explain_trace(trace)


def test_a_tier_may_fail_the_request_instead() -> None:
    last = large()
    with pytest.raises(CascadeExhausted, match="it answered 500") as caught:
        ask(small(UpstreamStatus("it answered 500", status=500), on_error="fail"), last, on_exhausted="best")
    assert calls(last) == 0
    assert caught.value.trace.final is None


def test_a_question_too_long_for_one_tier_goes_to_the_next_even_where_errors_fail() -> None:
    trace = ask(small(ContextOverflow("12031 tokens > 4096"), on_error="fail"), large())
    assert trace.tier == "large"
    assert trace.attempts[0].decision.reason is Reason.TOO_LONG


def test_a_question_too_long_for_every_tier_says_so() -> None:
    with pytest.raises(CascadeExhausted, match="does not fit the context of any tier"):
        ask(small(ContextOverflow("too long")), large(ContextOverflow("too long")))


def test_exhausted_is_an_error_by_default_and_keeps_its_trace() -> None:
    kept = Kept()
    with pytest.raises(CascadeExhausted) as caught:
        ask(small(scripted_answer("41", digit=1)), large(UpstreamRefused("no connection")), ledger=kept)
    assert kept.traces == [caught.value.trace]
    assert "no connection" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_exhausted_hands_out_the_best_answer_if_the_user_said_so() -> None:
    middle = Tier(
        name="middle",
        model=ScriptedModel("m", replies=[scripted_answer("43", digit=2)]),
        estimator=Verbalized(),
        threshold=0.9,
        price=CHEAP,
    )
    trace = ask(
        small(scripted_answer("42", digit=6), threshold=0.9), middle, large(UpstreamRefused("x")), on_exhausted="best"
    )
    assert (trace.answer, trace.tier) == ("42", "small")
    assert "the best there is was handed out" in explain_trace(trace)


def test_best_of_nothing_is_still_an_error() -> None:
    with pytest.raises(CascadeExhausted):
        ask(small(UpstreamRefused("x")), large(UpstreamRefused("y")), on_exhausted="best")


@pytest.mark.parametrize("question", ["", "   ", "\n\t"])
def test_an_empty_question_is_refused_before_any_model_is_asked(question: str) -> None:
    first = small(scripted_answer("42", digit=9))
    with pytest.raises(InputError, match="empty"):
        ask(first, large(), question=question)
    assert calls(first) == 0


# Time


def test_a_small_model_that_hangs_leaves_the_large_one_its_share_of_the_deadline() -> None:
    trace = ask(small(Hang()), large(), deadline_s=0.2)
    assert trace.tier == "large"
    failure = trace.attempts[0].failure
    assert failure is not None
    assert failure.kind == "UpstreamTimeout"


def test_one_deadline_spans_the_tiers() -> None:
    slow = After(delay_s=5, outcome=scripted_answer("42"))
    with pytest.raises(CascadeExhausted) as caught:
        ask(small(Hang(), timeout_s=0.05), large(slow), deadline_s=0.15)
    assert caught.value.trace.elapsed_s < 1.0
    assert [a.failure.kind for a in caught.value.trace.attempts if a.failure] == ["UpstreamTimeout", "UpstreamTimeout"]


def test_a_tier_for_which_no_time_is_left_is_not_called() -> None:
    last = large()
    clock = iter([0.0, 0.0, 0.0, 0.0, 0.0, 100.0, 100.0, 100.0, 100.0, 100.0, 100.0])
    with pytest.raises(CascadeExhausted) as caught:
        ask(small(scripted_answer("42", digit=1)), last, deadline_s=10, clock=lambda: next(clock))
    assert calls(last) == 0
    failure = caught.value.trace.attempts[1].failure
    assert failure is not None
    assert failure.kind == "DeadlineExceeded"


def test_a_follow_up_that_hangs_loses_the_confidence_but_not_the_reply() -> None:
    first = small(scripted_answer("42"), Hang(), estimator=PTrue(), timeout_s=0.1)
    trace = ask(first, large(UpstreamRefused("x")), on_exhausted="best")
    assert (trace.answer, trace.tier, trace.confidence) == ("42", "small", None)
    assert trace.cost_nano_usd is None


def test_cancelling_a_question_cancels_the_model() -> None:
    async def run() -> None:
        task = asyncio.create_task(Cascade([small(Hang()), large()]).ask("?"))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())


# Ledger, map, sync front


def test_the_trace_is_kept_before_the_answer_is_handed_out() -> None:
    kept = Kept()
    trace = ask(small(scripted_answer("42", digit=9)), large(), ledger=kept)
    assert kept.traces == [trace]


def test_an_answer_that_could_not_be_recorded_is_not_handed_out() -> None:
    class Broken(Kept):
        async def write(self, trace: Trace) -> None:
            raise LedgerError("the disk is full; free some space")

    with pytest.raises(LedgerError, match="disk is full"):
        ask(small(scripted_answer("42", digit=9)), large(), ledger=Broken())


def test_map_answers_everything_and_yields_errors_as_values() -> None:
    async def run() -> list[Trace | CascadeExhausted | InputError]:
        cascade = Cascade([small(scripted_answer("42", digit=9)), large()])
        return [outcome async for outcome in cascade.map(["a", "", "b"], concurrency=2)]

    outcomes = asyncio.run(run())
    assert sum(isinstance(outcome, Trace) for outcome in outcomes) == 2
    assert sum(isinstance(outcome, InputError) for outcome in outcomes) == 1


def test_the_sync_front_answers_many_times_and_closes() -> None:
    kept = Kept()
    first = small(scripted_answer("42", digit=9))
    with Cascade([first, large()], ledger=kept) as cascade:
        assert [cascade.ask_sync("?").answer for _ in range(3)] == ["42"] * 3
    assert kept.closed
    assert isinstance(first.model, ScriptedModel)
    assert first.model.closed


@given(
    confidences=st.lists(st.one_of(st.none(), st.integers(0, 9)), min_size=1, max_size=4),
    thresholds=st.lists(st.floats(0, 1), min_size=4, max_size=4),
)
def test_the_first_tier_at_or_above_its_threshold_answers_and_no_later_one_is_asked(
    confidences: list[int | None], thresholds: list[float]
) -> None:
    tiers = [
        Tier(
            name=f"t{i}",
            model=ScriptedModel(f"m{i}", replies=[scripted_answer(str(i), digit=digit)]),
            estimator=Verbalized(),
            threshold=thresholds[i],
            price=CHEAP,
        )
        for i, digit in enumerate(confidences)
    ]
    trace = ask(*tiers, large())
    expected = next(
        (i for i, d in enumerate(confidences) if d is not None and (d + 0.5) / 10 >= thresholds[i]), len(confidences)
    )
    assert trace.final == expected
    assert len(trace.attempts) == expected + 1
    assert [calls(tier) for tier in tiers] == [int(i <= expected) for i in range(len(tiers))]


_outcomes: st.SearchStrategy[Callable[[], Step]] = st.sampled_from(
    [
        lambda: scripted_answer("1", digit=9),
        lambda: scripted_answer("2", digit=0),
        lambda: scripted_answer("3"),
        lambda: scripted_reply(""),
        lambda: UpstreamRefused("refused"),
        lambda: UpstreamGarbage("garbage"),
        lambda: ContextOverflow("too long"),
    ]
)


@given(
    outcomes=st.lists(_outcomes, min_size=1, max_size=4),
    on_exhausted=st.sampled_from(["error", "best"]),
    on_error=st.sampled_from(["skip", "fail"]),
)
def test_whatever_tiers_do_the_trace_adds_up(
    outcomes: list[Callable[[], Step]], on_exhausted: Literal["error", "best"], on_error: Literal["skip", "fail"]
) -> None:
    tiers = [
        Tier(
            name=f"t{i}",
            model=ScriptedModel(f"m{i}", replies=[make()]),
            estimator=None if i == len(outcomes) - 1 else Logprob(),
            threshold=None if i == len(outcomes) - 1 else 0.95,
            price=CHEAP,
            on_error=on_error,
        )
        for i, make in enumerate(outcomes)
    ]
    try:
        trace = ask(*tiers, on_exhausted=on_exhausted)
    except CascadeExhausted as exc:
        trace = exc.trace
        assert trace.final is None
    else:
        assert trace.attempt is not None
        assert trace.attempt.answered
        assert trace.answer is not None
    costs = [attempt.cost_nano_usd for attempt in trace.attempts]
    assert trace.cost_nano_usd == (None if None in costs else sum(cost for cost in costs if cost is not None))
    assert sum(attempt.decision.keep for attempt in trace.attempts) <= 1
    assert explain_trace(trace)


# Policies


@dataclass
class Wants:
    """A policy that sets this bar, or leaves the small tier out, and remembers what came of it."""

    threshold: float | None
    name: str = "budget"
    heard: list[Trace] = field(default_factory=list)

    def before(self, view: View, bar: Bar) -> Bar:
        if self.threshold is None:
            raise skipped(self.name, view.tier, "it takes too long")
        return replace(bar, threshold=self.threshold, note="money is scarce")

    def after(self, trace: Trace) -> None:
        self.heard.append(trace)


def by(*policies: Wants | Critical) -> Policies:
    return Policies(always=policies)


def test_a_policy_moves_the_bar_and_the_trace_says_which_and_why() -> None:
    trace = ask(small(scripted_answer("42", digit=3)), large(), policies=by(Wants(0.2)))
    assert trace.tier == "small"
    decision = trace.attempts[0].decision
    assert (decision.threshold, decision.policy, decision.note) == (0.2, "budget", "money is scarce")
    assert "of the policy budget (money is scarce)" in explain_trace(trace)


def test_a_tier_that_a_policy_leaves_out_is_not_asked_and_costs_nothing() -> None:
    first = small(scripted_answer("42", digit=9))
    trace = ask(first, large(), policies=by(Wants(None, name="latency")))
    assert (calls(first), trace.tier, trace.attempts[0].cost_nano_usd) == (0, "large", 0)
    assert (trace.attempts[0].decision.reason, trace.attempts[0].decision.policy) == (Reason.SKIPPED, "latency")
    assert "it takes too long" in explain_trace(trace)


def test_no_policy_is_asked_about_the_last_tier() -> None:
    trace = ask(large(), policies=by(Wants(None)))
    assert trace.attempts[0].decision.reason is Reason.LAST_TIER


def test_a_policy_learns_of_every_request_of_those_nobody_answered_too() -> None:
    policy = Wants(0.2)
    ask(small(scripted_answer("42", digit=9)), large(), policies=by(policy))
    with pytest.raises(CascadeExhausted):
        ask(small(UpstreamRefused("refused")), large(UpstreamRefused("refused")), policies=by(policy))
    assert [trace.tier for trace in policy.heard] == ["small", None]


def test_a_policy_that_is_none_is_told_before_anybody_is_asked() -> None:
    first = small(scripted_answer("42", digit=9))
    named = replace(Request.of("6 × 7?"), policy="exma")
    with pytest.raises(InputError, match="configured are: exam"):
        ask(first, large(), question=named, policies=Policies(named={"exam": ()}))
    assert calls(first) == 0


def confirming(probability: float) -> Step:
    """What P(True) is read from."""
    return scripted_reply("True", distribution={"True": probability, "False": 1 - probability})


def critical(threshold: float = 0.8) -> Policies:
    return by(Critical(Second(estimator=PTrue(), threshold=threshold)))


def test_a_critical_answer_is_kept_only_if_a_second_signal_agrees() -> None:
    kept = ask(small(scripted_answer("42", digit=9), confirming(0.9)), large(), policies=critical())
    assert (kept.tier, kept.confidence) == ("small", 0.95)
    doubted = ask(small(scripted_answer("42", digit=9), confirming(0.7)), large(), policies=critical())
    assert (doubted.tier, doubted.attempts[0].decision.reason) == ("large", Reason.DISAGREED)
    assert "the second signal, p_true, 0.7 is below 0.8" in explain_trace(doubted)


def test_a_second_signal_that_nobody_knows_does_not_agree() -> None:
    trace = ask(small(scripted_answer("42", digit=9), scripted_reply("Perhaps")), large(), policies=critical(0.0))
    assert (trace.tier, trace.attempts[0].decision.reason) == ("large", Reason.DISAGREED)


def test_a_second_signal_is_paid_for_and_asked_for_only_where_the_first_would_keep() -> None:
    alone = ask(small(scripted_answer("42", digit=9)), large())
    both = ask(small(scripted_answer("42", digit=9), confirming(0.9)), large(), policies=critical())
    assert alone.cost_nano_usd is not None
    assert both.cost_nano_usd is not None
    assert both.cost_nano_usd > alone.cost_nano_usd
    unsure = small(scripted_answer("41", digit=1), confirming(0.9))
    ask(unsure, large(), policies=critical())
    assert calls(unsure) == 1


def test_policies_move_what_a_certificate_promises_only_where_it_promises_anything() -> None:
    """A task that nobody certified stays deferred, whatever a policy would like to keep."""
    first = replace(small(scripted_answer("42", digit=9)), threshold=None, certificate=certified_for("maths"))
    trace = ask(first, large(), question=Request.of("6 × 7?", task="law"), policies=by(Wants(0.0)))
    assert (calls(first), trace.attempts[0].decision.reason) == (0, Reason.NOT_CERTIFIED)
    kept = ask(first, large(), question=Request.of("6 × 7?", task="maths"), policies=by(Wants(0.0)))
    assert kept.tier == "small"


def certified_for(task: str) -> Certificate:
    held = Certified(
        threshold=0.99, tie_fraction=1.0, n=100, max_drop=0.02, delta=0.05, kept=10, harm=0, gain=0, drop=0.0,
        expected_saving=0.1, expected_deferral_rate=0.9, p_value=0.01,
    )  # fmt: skip
    return Certificate(
        promises=(Promise(task=task, certified=held),), small="small", large="large", signal="verbalized",
        tasks=(task,), models_hash="m", prompts_hash="p", data_hash="d", created_at="2026-01-01T00:00:00Z",
    )  # fmt: skip
