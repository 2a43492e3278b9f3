"""The scripted model: deterministic, cheap, and as awkward as a real one."""

from __future__ import annotations

import asyncio
import math
import time

import pytest

from corea.errors import ModelError, RateLimited, UpstreamRefused, UpstreamTimeout
from corea.models.base import Model
from corea.models.scripted import (
    After,
    Hang,
    ScriptedModel,
    Step,
    mistaken,
    scripted_answer,
    scripted_reply,
    scripted_tokens,
)
from corea.types import Message, Prompt, Reply

PLAIN = Prompt(messages=(Message(role="user", content="6 × 7?"),), max_tokens=50)
WITH_LOGPROBS = Prompt(messages=PLAIN.messages, max_tokens=50, top_logprobs=5)


def ask(model: ScriptedModel, prompt: Prompt = PLAIN, *, timeout_s: float | None = 5.0) -> Reply:
    return asyncio.run(model.complete(prompt, timeout_s=timeout_s))


def test_it_is_a_model() -> None:
    assert isinstance(ScriptedModel("small", replies=[Hang()]), Model)


def test_replies_come_in_turn_and_the_last_one_repeats() -> None:
    model = ScriptedModel("small", replies=[scripted_reply("one"), scripted_reply("two")])
    assert [ask(model).text for _ in range(4)] == ["one", "two", "two", "two"]
    assert model.calls == 4


def test_an_empty_script_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        ScriptedModel("small", replies=[])


def test_a_function_sees_the_prompt_and_the_number_of_the_call() -> None:
    def script(prompt: Prompt, index: int) -> Step:
        return scripted_reply(f"{index}: {prompt.messages[-1].content}")

    model = ScriptedModel("small", replies=script)
    assert [ask(model).text, ask(model).text] == ["0: 6 × 7?", "1: 6 × 7?"]


def test_prompts_are_kept_only_when_asked() -> None:
    quiet = ScriptedModel("small", replies=[scripted_reply("x")])
    recording = ScriptedModel("small", replies=[scripted_reply("x")], record=True)
    ask(quiet)
    ask(recording, WITH_LOGPROBS)
    assert (quiet.prompts, recording.prompts) == ([], [WITH_LOGPROBS])


def test_an_error_in_the_script_is_raised_and_counted() -> None:
    model = ScriptedModel("small", replies=[RateLimited("slow down", status=429), scripted_reply("ok")])
    with pytest.raises(RateLimited):
        ask(model)
    assert ask(model).text == "ok"
    assert model.calls == 2


def test_an_error_raised_often_does_not_grow() -> None:
    error = UpstreamRefused("no connection")
    model = ScriptedModel("small", replies=[error])
    depths = []
    for _ in range(3):
        with pytest.raises(ModelError) as raised:
            ask(model)
        depths.append(len(raised.traceback))
    assert len(set(depths)) == 1


def test_a_hang_ends_with_the_time_bound() -> None:
    with pytest.raises(UpstreamTimeout) as raised:
        ask(ScriptedModel("small", replies=[Hang()]), timeout_s=0.02)
    assert (raised.value.model, raised.value.elapsed_s) == ("small", 0.02)


def test_a_hang_without_a_bound_ends_when_cancelled() -> None:
    async def main() -> None:
        async with asyncio.timeout(0.02):
            await ScriptedModel("small", replies=[Hang()]).complete(PLAIN)

    with pytest.raises(TimeoutError):
        asyncio.run(main())


def test_a_late_reply_comes_late() -> None:
    started_s = time.perf_counter()
    assert ask(ScriptedModel("small", replies=[After(delay_s=0.03, outcome=scripted_reply("late"))])).text == "late"
    assert time.perf_counter() - started_s >= 0.03


def test_a_late_error_is_raised_late() -> None:
    with pytest.raises(UpstreamRefused):
        ask(ScriptedModel("small", replies=[After(delay_s=0.01, outcome=UpstreamRefused("gone"))]))


def test_a_reply_later_than_the_bound_is_a_timeout() -> None:
    with pytest.raises(UpstreamTimeout):
        ask(ScriptedModel("small", replies=[After(delay_s=60, outcome=scripted_reply("late"))]), timeout_s=0.01)


def test_logprobs_are_given_only_to_a_prompt_that_asks() -> None:
    model = ScriptedModel("small", replies=[scripted_reply("two words")])
    assert ask(model, PLAIN).tokens is None
    assert ask(model, WITH_LOGPROBS).tokens == scripted_tokens("two words")


@pytest.mark.parametrize("text", ["", " ", "one", " a  b\n", "Answer: 42\nConfidence: 9", "1 2 3", "x 7 "])
def test_tokens_join_to_the_text(text: str) -> None:
    assert "".join(token.text for token in scripted_tokens(text)) == text


def test_a_confidence_digit_is_a_token_of_its_own() -> None:
    assert [token.text for token in scripted_tokens("Answer: 42\nConfidence: 9")] == [
        "Answer:",
        " 42",
        "\nConfidence:",
        " ",
        "9",
    ]


def test_a_digit_distribution_becomes_the_alternatives_of_the_digit() -> None:
    reply = scripted_answer("4", digit_distribution={2: 0.25, 4: 0.0, 8: 0.75})
    assert reply.text.endswith("Answer: 4\nConfidence: 8")
    assert reply.tokens is not None
    digit = reply.tokens[-1]
    assert (digit.text, digit.logprob) == ("8", math.log(0.75))
    assert digit.top == (("8", math.log(0.75)), ("2", math.log(0.25)))
    # The answer's own digit is none of its business.
    assert reply.tokens[-4].top == (("4", -0.1),)


def test_alternatives_may_be_words() -> None:
    (token,) = scripted_tokens("True", distribution={"True": 0.5, "False": 0.5})
    assert dict(token.top) == {"True": pytest.approx(math.log(0.5)), "False": pytest.approx(math.log(0.5))}


@pytest.mark.parametrize("answer, wrong", [("42", "43"), ("-1", "0"), ("blue", "not blue"), ("4.5", "not 4.5")])
def test_a_mistake_is_another_answer(answer: str, wrong: str) -> None:
    assert mistaken(answer) == wrong


def test_usage_counts_the_words() -> None:
    usage = scripted_reply("three short words", prompt_tokens=7).usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (7, 3)


def test_a_call_costs_microseconds() -> None:
    model = ScriptedModel("small", replies=[scripted_answer("42", digit=9)])

    async def fastest_s() -> float:
        fastest = math.inf
        for _ in range(20):
            started_s = time.perf_counter()
            for _ in range(100):
                await model.complete(PLAIN, timeout_s=1.0)
            fastest = min(fastest, (time.perf_counter() - started_s) / 100)
        return fastest

    assert asyncio.run(fastest_s()) < 20e-6


def test_its_repr_names_it() -> None:
    assert repr(ScriptedModel("small", replies=[Hang()])) == "ScriptedModel('small', calls=0)"
