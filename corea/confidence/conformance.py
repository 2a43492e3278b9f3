"""What every confidence estimator must pass; run it on one of your own: ``check(lambda: MyEstimator())``.

Uses scripted models only. Raises :class:`AssertionError` that names the broken rule.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace

from corea.confidence.base import Estimate, Estimator, Exchange
from corea.confidence.protocol import parse, system_prompt
from corea.errors import UpstreamGarbage
from corea.models.base import Model
from corea.models.scripted import Hang, ScriptedModel, Step, scripted_answer, scripted_reply
from corea.types import Message, Prompt, Reply, Token

_DIGITS = {digit: (digit + 1) / 55 for digit in range(10)}


def check(make: Callable[[], Estimator]) -> None:
    """Every rule, on every exchange.

    1. It describes itself: a name, a way to ask, a number of alternatives, equal each time it is made.
    2. A confidence carries the estimator's name, and is a probability or unknown with a note.
    3. It never raises for a reply that is empty, odd, without or with strange log-probabilities.
    4. A second call that fails, or answers nonsense, makes the confidence unknown; it is not raised.
    5. Second calls are counted: their usage is part of the estimate, and unknown usage stays unknown.
    6. The same exchange gives the same estimate.
    7. A cancellation passes through.
    """
    _describes_itself(make)
    for label, reply in _replies():
        for told, step in _second_replies():
            where = f"{make().name}, {label}, second reply {told}"
            asyncio.run(_obeys(make, reply, step, where))
    asyncio.run(_can_be_cancelled(make))


def exchange_of(estimator: Estimator, reply: Reply) -> Exchange:
    """An exchange in which a model gave this reply to the prompt that the estimator asks for."""
    instruction = Message(role="system", content=system_prompt(inline=estimator.ask == "inline"))
    question = Message(role="user", content="What is 6 × 7?")
    prompt = Prompt(messages=(instruction, question), max_tokens=64, top_logprobs=estimator.top_logprobs)
    if not estimator.top_logprobs:
        reply = replace(reply, tokens=None)
    return Exchange(prompt=prompt, reply=reply, parsed=parse(reply.text), kind="number")


def _describes_itself(make: Callable[[], Estimator]) -> None:
    one, two = make(), make()
    assert isinstance(one, Estimator), "it lacks a member of the Estimator protocol"
    assert one.name, "its name is empty"
    assert one.ask in ("inline", "followup", "none"), f"{one.name}: it asks by {one.ask!r}"
    assert one.top_logprobs >= 0, f"{one.name}: top_logprobs is {one.top_logprobs}"
    assert (one.name, one.ask, one.top_logprobs) == (two.name, two.ask, two.top_logprobs), "it differs each time"


async def _obeys(make: Callable[[], Estimator], reply: Reply, step: Step, where: str) -> None:
    estimator = make()
    first, used = await _estimated(estimator, reply, step, where)
    again, _ = await _estimated(make(), reply, step, where)
    assert first == again, f"{where}: the same exchange gave two estimates"
    confidence = first.confidence
    assert confidence.source == estimator.name, f"{where}: the confidence says it is from {confidence.source!r}"
    assert confidence.value is not None or confidence.note, f"{where}: unknown without a note"
    if used and isinstance(step, Reply) and step.usage is not None:
        assert first.usage is not None, f"{where}: the usage of its calls was lost"
        assert first.usage.completion_tokens == used * step.usage.completion_tokens, f"{where}: usage miscounted"
    if used and not (isinstance(step, Reply) and step.usage is not None):
        assert first.usage is None, f"{where}: unknown usage was taken for {first.usage}"
    if used and not isinstance(step, Reply):
        assert confidence.value is None, f"{where}: a confidence of {confidence.value} out of a failed call"


async def _estimated(estimator: Estimator, reply: Reply, step: Step, where: str) -> tuple[Estimate, int]:
    model = ScriptedModel("scripted", replies=[step])
    try:
        return await estimator.estimate(exchange_of(estimator, reply), model, timeout_s=5.0), model.calls
    except Exception as exc:
        raise AssertionError(f"{where}: it raised {exc!r}") from exc


async def _can_be_cancelled(make: Callable[[], Estimator]) -> None:
    estimator, model = make(), ScriptedModel("scripted", replies=[Hang()])
    task = asyncio.create_task(_ask(estimator, model))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    if task.done():
        return
    task.cancel()
    await asyncio.wait([task], timeout=5)
    assert task.cancelled(), f"{estimator.name}: it swallowed a cancellation"


async def _ask(estimator: Estimator, model: Model) -> Estimate:
    return await estimator.estimate(exchange_of(estimator, scripted_answer("42", digit=7)), model)


def _replies() -> Iterator[tuple[str, Reply]]:
    yield "a proper reply", scripted_answer("42", digit_distribution=_DIGITS)
    yield "no confidence line", scripted_answer("42")
    yield "no answer", scripted_reply("I cannot say.")
    yield "an empty reply", scripted_reply("")
    yield "cut off", scripted_reply("Answer: 42\nConfidence:", finish_reason="length")
    yield "no log-probabilities", replace(scripted_answer("42", digit=7), tokens=None)
    yield "no usage", replace(scripted_answer("42", digit=7), usage=None)
    yield "no tokens", replace(scripted_answer("42", digit=7), tokens=())
    yield "infinite log-probabilities", _with_logprob(float("-inf"))
    yield "log-probabilities that are no numbers", _with_logprob(float("nan"))
    yield "positive log-probabilities", _with_logprob(0.5)
    yield "control characters", scripted_reply("\x00\ud7ff\u202e Answer: \x07\nConfidence: ٣")


def _with_logprob(logprob: float) -> Reply:
    reply = scripted_answer("42", digit=7)
    strange = tuple(Token(text=t.text, logprob=logprob, top=((t.text, logprob),)) for t in reply.tokens or ())
    return replace(reply, tokens=strange)


def _second_replies() -> Iterator[tuple[str, Step]]:
    yield "a digit", scripted_reply("8", distribution={"8": 0.75, "3": 0.25})
    yield "True", scripted_reply("True", distribution={"True": 0.75, "False": 0.25})
    yield "another answer", scripted_answer("41")
    yield "nonsense", scripted_reply("banana")
    yield "empty", scripted_reply("")
    yield "without usage", replace(scripted_reply("8", distribution={"8": 1.0}), usage=None)
    yield "without log-probabilities", replace(scripted_reply("8"), tokens=None)
    yield "an error", UpstreamGarbage("the endpoint answered HTML; check its address")
