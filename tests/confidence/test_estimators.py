"""Every estimator passes the conformance suite, and each computes what its docstring says."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corea.build import estimator_of
from corea.confidence import (
    Estimate,
    Estimator,
    Exchange,
    Expected,
    Logprob,
    PTrue,
    SelfConsistency,
    Verbalized,
)
from corea.confidence.conformance import check, exchange_of
from corea.confidence.protocol import DIGIT_VALUES
from corea.config import WAYS_TO_ASK, ConfidenceConfig
from corea.errors import UpstreamGarbage
from corea.models.base import Model
from corea.models.scripted import ScriptedModel, Step, scripted_answer, scripted_reply
from corea.types import Confidence, Reply

ESTIMATORS: list[Callable[[], Estimator]] = [
    lambda: Verbalized(ask="inline"),
    lambda: Verbalized(ask="followup"),
    lambda: Expected(ask="inline"),
    lambda: Expected(ask="followup"),
    lambda: Logprob(),
    lambda: PTrue(),
    lambda: SelfConsistency(samples=3),
]


def estimate(estimator: Estimator, reply: Reply, *second: Step) -> Estimate:
    model = ScriptedModel("scripted", replies=list(second) or [UpstreamGarbage("no second call was expected")])
    return asyncio.run(estimator.estimate(exchange_of(estimator, reply), model, timeout_s=5))


@pytest.mark.parametrize("make", ESTIMATORS, ids=lambda make: f"{make().name}-{make().ask}")
def test_every_estimator_passes_the_conformance_suite(make: Callable[[], Estimator]) -> None:
    check(make)


@dataclass(frozen=True)
class _MadeUp:
    """An estimator that invents a constant where it knows nothing."""

    name: str = "made_up"
    ask: str = "followup"
    top_logprobs: int = 0

    async def estimate(self, exchange: Exchange, model: Model, *, timeout_s: float | None = None) -> Estimate:
        try:
            await model.complete(exchange.prompt)
        except UpstreamGarbage:
            return Estimate(confidence=Confidence(value=0.5, source=self.name), usage=None)
        return Estimate(confidence=Confidence(value=0.5, source=self.name))


def test_the_conformance_suite_catches_a_made_up_constant() -> None:
    with pytest.raises(AssertionError, match="usage|failed call"):
        check(lambda: _MadeUp())  # type: ignore[arg-type, return-value]


def test_verbalized_is_what_the_reply_states() -> None:
    assert estimate(Verbalized(), scripted_answer("42", digit=7)).confidence.value == 0.75


def test_verbalized_without_a_line_is_unknown() -> None:
    confidence = estimate(Verbalized(), scripted_answer("42")).confidence
    assert confidence.value is None
    assert confidence.note == "the model stated no confidence"


def test_verbalized_followup_asks_once_and_counts_it() -> None:
    result = estimate(Verbalized(ask="followup"), scripted_answer("42"), scripted_reply("80%"))
    assert result.confidence.value == pytest.approx(0.8)
    assert result.usage is not None
    assert result.usage.completion_tokens == 1


@given(st.lists(st.floats(0.001, 1), min_size=10, max_size=10))
def test_expected_is_the_mean_of_the_digits_distribution(weights: list[float]) -> None:
    total = sum(weights)
    distribution = {digit: weight / total for digit, weight in enumerate(weights)}
    value = estimate(Expected(), scripted_answer("42", digit_distribution=distribution)).confidence.value
    assert value == pytest.approx(sum(p * DIGIT_VALUES[d] for d, p in distribution.items()))


def test_expected_takes_many_values_where_verbalized_ties() -> None:
    replies = [scripted_answer("42", digit_distribution={8: 1 - p / 100, 2: p / 100}) for p in range(1, 40)]
    stated = {estimate(Verbalized(), reply).confidence.value for reply in replies}
    expected = {estimate(Expected(), reply).confidence.value for reply in replies}
    assert len(stated) == 1
    assert len(expected) == len(replies)


def test_expected_is_unknown_where_digits_hold_little_probability() -> None:
    reply = scripted_reply("Answer: 42\nConfidence: 7", distribution={"7": 0.2, "high": 0.7})
    confidence = estimate(Expected(), reply).confidence
    assert confidence.value is None
    assert confidence.note is not None
    assert "20%" in confidence.note


def test_expected_is_not_fooled_by_a_digit_in_the_reasoning() -> None:
    reply = scripted_answer("4", digit_distribution={1: 1.0}, reasoning="So 9 of 9 hold: 9 .")
    assert estimate(Expected(), reply).confidence.value == pytest.approx(0.15)


@given(st.floats(-5, 0))
def test_logprob_is_the_geometric_mean_of_token_probabilities(logprob: float) -> None:
    value = estimate(Logprob(), scripted_reply("a b c d", logprob=logprob)).confidence.value
    assert value == pytest.approx(math.exp(logprob))


def test_p_true_weighs_true_against_false() -> None:
    second = scripted_reply("True", distribution={"True": 0.6, " false": 0.2, "Maybe": 0.2})
    assert estimate(PTrue(), scripted_answer("42"), second).confidence.value == pytest.approx(0.75)


def test_p_true_asks_about_the_models_own_answer() -> None:
    model = ScriptedModel("scripted", replies=[scripted_reply("True", distribution={"True": 1.0})], record=True)
    asyncio.run(PTrue().estimate(exchange_of(PTrue(), scripted_answer("42")), model))
    (prompt,) = model.prompts
    assert [message.role for message in prompt.messages[-3:]] == ["user", "assistant", "user"]
    assert "Answer: 42" in prompt.messages[-2].content
    assert prompt.max_tokens == 1


def test_self_consistency_is_the_share_of_samples_that_agree() -> None:
    samples = [scripted_answer(a) for a in ("42", "42.0", "41", "I pass")]
    result = estimate(SelfConsistency(samples=4), scripted_answer("42"), *samples)
    assert result.confidence.value == pytest.approx(0.5)
    assert result.usage is not None
    assert result.usage.prompt_tokens == 80


def test_self_consistency_samples_with_different_seeds_at_its_temperature() -> None:
    model = ScriptedModel("scripted", replies=[scripted_answer("42")], record=True)
    estimator = SelfConsistency(samples=5, temperature=0.9)
    asyncio.run(estimator.estimate(exchange_of(estimator, scripted_answer("42")), model))
    assert len({prompt.seed for prompt in model.prompts}) == 5
    assert {prompt.temperature for prompt in model.prompts} == {0.9}


def test_a_failed_sample_makes_the_usage_unknown_but_not_the_vote() -> None:
    steps: list[Step] = [scripted_answer("42"), UpstreamGarbage("cut"), scripted_answer("42")]
    result = estimate(SelfConsistency(samples=3), scripted_answer("42"), *steps)
    assert result.confidence.value == 1.0
    assert result.usage is None


def test_missing_log_probabilities_are_unknown_and_say_so() -> None:
    bare = replace(scripted_answer("42", digit=7), tokens=None)
    for estimator in (Logprob(), Expected()):
        confidence = estimate(estimator, bare).confidence
        assert confidence.value is None
        assert confidence.note == "the server gave no log-probabilities"


@pytest.mark.parametrize("name", [name for name in WAYS_TO_ASK if name != "fitted"])
def test_every_configured_estimator_can_be_built_in_every_way(name: str) -> None:
    for way in WAYS_TO_ASK[name]:  # type: ignore[index]
        made = ConfidenceConfig.model_validate({"estimator": name, "ask": way, "allow_code": name == "generated_tests"})
        built = estimator_of(made)
        assert (built.name, built.ask) == (name, way)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, math.inf])
def test_a_confidence_outside_zero_to_one_cannot_be_made(value: float) -> None:
    with pytest.raises(ValueError, match="lies in"):
        Confidence(value=value, source="test")
