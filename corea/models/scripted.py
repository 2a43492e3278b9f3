"""A model that answers from a script, with faults on demand: for tests, yours included, and benchmarks.

Knows no network and no clock but the event loop's, and draws no random numbers: the same script gives the same run.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from corea.errors import ModelError, UpstreamTimeout
from corea.models.base import Delta
from corea.types import Prompt, Reply, Token, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Hang:
    """No answer, ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class After:
    """The outcome, but only after a while."""

    delay_s: float
    outcome: Reply | ModelError


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A reply written word by word, ``pause_s`` after each; then, where there is one, the ``error`` (or silence)."""

    reply: Reply
    pause_s: float = 0.0
    error: ModelError | Hang | None = None


Step = Reply | ModelError | Hang | After | Written


class ScriptedModel:
    """Answers the n-th call (from 0) with ``replies(prompt, n)``, or with ``replies[n]``; the last one repeats.

    ``calls`` counts, and ``streams`` counts those that are open. ``prompts`` are all prompts so far, if asked to
    ``record`` them. Like a server, it gives log-probabilities only to a prompt that asks for them.
    """

    def __init__(
        self, name: str, *, replies: Callable[[Prompt, int], Step] | Sequence[Step], record: bool = False
    ) -> None:
        self.name = name
        self.calls = 0
        self.streams = 0
        self.prompts: list[Prompt] = []
        self.closed = False
        self._script = replies if callable(replies) else _in_turn(replies)
        self._record = record

    def __repr__(self) -> str:
        return f"ScriptedModel({self.name!r}, calls={self.calls})"

    async def complete(self, prompt: Prompt, *, timeout_s: float | None = None) -> Reply:
        """What the script says. Raises its errors, and :class:`UpstreamTimeout` where it takes too long."""
        return await self._outcome(self._next(prompt), prompt, timeout_s)

    async def stream(self, prompt: Prompt, *, timeout_s: float | None = None) -> AsyncGenerator[Delta, None]:
        """The same, word by word; all words at once unless the script says :class:`Written`."""
        self.streams += 1
        step = self._next(prompt)
        try:
            if not isinstance(step, Written):
                reply = await self._outcome(step, prompt, timeout_s)
                step = Written(reply=reply)
            for word in _WORD.findall(step.reply.text):
                yield Delta(text=word)
                await asyncio.sleep(step.pause_s)
            yield Delta(reply=await self._outcome(step.error or step.reply, prompt, timeout_s))
        finally:
            self.streams -= 1

    def _next(self, prompt: Prompt) -> Step:
        index = self.calls
        self.calls += 1
        if self._record:
            self.prompts.append(prompt)
        return self._script(prompt, index)

    async def _outcome(self, step: Step, prompt: Prompt, timeout_s: float | None) -> Reply:
        if isinstance(step, Written):
            await asyncio.sleep(step.pause_s * len(_WORD.findall(step.reply.text)))
            step = step.error or step.reply
        if isinstance(step, Hang | After):
            step = await self._late(step, timeout_s)
        if isinstance(step, ModelError):
            # The same error may be raised often: without this its traceback would grow each time.
            raise step.with_traceback(None)
        return step if prompt.top_logprobs or step.tokens is None else replace(step, tokens=None)

    async def aclose(self) -> None:
        self.closed = True

    async def _late(self, step: Hang | After, timeout_s: float | None) -> Reply | ModelError:
        delay_s = step.delay_s if isinstance(step, After) else math.inf
        if timeout_s is not None and timeout_s < delay_s:
            await asyncio.sleep(timeout_s)
            raise UpstreamTimeout(model=self.name, elapsed_s=timeout_s)
        if isinstance(step, Hang):
            await asyncio.Event().wait()
            raise AssertionError("unreachable: only a cancellation ends this")
        await asyncio.sleep(step.delay_s)
        return step.outcome


def scripted_reply(
    text: str,
    *,
    logprob: float = -0.1,
    distribution: Mapping[str, float] | None = None,
    finish_reason: str = "stop",
    model: str = "scripted",
    prompt_tokens: int = 20,
) -> Reply:
    """A reply of ``text``, with tokens and usage counted by its words. See :func:`scripted_tokens`."""
    tokens = scripted_tokens(text, logprob, distribution=distribution)
    usage = Usage(prompt_tokens=prompt_tokens, completion_tokens=len(tokens))
    return Reply(text=text, finish_reason=finish_reason, model=model, usage=usage, tokens=tokens)


def scripted_answer(
    answer: str,
    *,
    digit: int | None = None,
    digit_distribution: Mapping[int, float] | None = None,
    reasoning: str = "Let me think.",
    logprob: float = -0.1,
) -> Reply:
    """A reply that ends as the confidence protocol asks: the answer and, where wanted, the confidence digit.

    ``scripted_answer("42")`` is right where 42 is; ``scripted_answer(mistaken("42"))`` is wrong there.
    ``digit_distribution`` gives probabilities of digits at the digit's place; the likeliest is the one written, unless
    ``digit`` says otherwise.
    """
    if digit is None and digit_distribution:
        digit = max(digit_distribution, key=lambda candidate: digit_distribution[candidate])
    lines = [reasoning, f"Answer: {answer}"] + ([] if digit is None else [f"Confidence: {digit}"])
    distribution = {str(key): value for key, value in (digit_distribution or {}).items()}
    return scripted_reply("\n".join(lines), logprob=logprob, distribution=distribution)


def mistaken(answer: str) -> str:
    """Another answer than this one: a whole number is off by one, anything else is negated."""
    return str(int(answer) + 1) if re.fullmatch(r"-?\d{1,18}", answer) else f"not {answer}"


def scripted_tokens(
    text: str, logprob: float = -0.1, *, distribution: Mapping[str, float] | None = None
) -> tuple[Token, ...]:
    """``text`` as one token a word, spaces leading; a lone digit is a token without its space, as in real tokenizers.

    ``distribution`` gives the probability of each alternative at the last token that is one of them: a confidence
    digit, or True against False.
    """
    words = _WORD.findall(text)
    place = max((index for index, word in enumerate(words) if word.strip() in (distribution or ())), default=-1)
    return tuple(
        _chosen(word, distribution, logprob)
        if distribution and index == place
        else Token(text=word, logprob=logprob, top=((word, logprob),))
        for index, word in enumerate(words)
    )


_WORD = re.compile(r"\s+(?=\d(?:\s|$))|(?<!\S)\d(?!\S)|\s*\S+|\s+")


def _chosen(word: str, distribution: Mapping[str, float], logprob: float) -> Token:
    space = word[: len(word) - len(word.lstrip())]
    top = sorted(((space + key, math.log(p)) for key, p in distribution.items() if p > 0), key=lambda pair: -pair[1])
    return Token(text=word, logprob=dict(top).get(word, logprob), top=tuple(top))


def _in_turn(steps: Sequence[Step]) -> Callable[[Prompt, int], Step]:
    if not steps:
        raise ValueError("a script needs at least one reply")
    last = len(steps) - 1
    return lambda prompt, index: steps[min(index, last)]
