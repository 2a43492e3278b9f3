"""Generated tests: the model writes tests of the task, without its program; confidence is the share that agree.

After CodeT (Chen et al. 2022, arXiv 2207.10397), which ranks many programs by it; here one program is judged. Costs a
short second turn and some processor time. The program, which a model wrote, is run: only by leave, and shut in.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from typing import Literal

from corea.confidence.base import Estimate, Exchange, second_turn
from corea.errors import InputError
from corea.grading import sandbox
from corea.grading.cases import Case, cases_of
from corea.grading.programs import Subject, subject_of
from corea.models.base import Model
from corea.types import Confidence, Message, Prompt, Reply, Usage

#: Tests asked for, and the most that are run.
TESTS = 5
_MAX_TOKENS = 320

TESTS_PROMPT = "You write tests for programs that you have not seen."
TESTS_QUESTION = """\
Here is a programming task:

{task}

Its solution begins:

```python
{head}
```

Do not solve the task. Write {tests} different tests of `{name}`, one line each, all of the form
assert {name}(arguments) == value
in one ```python block and nothing else. The values must follow from the task."""

#: A small model that is told to write tests writes the program once more; one that was shown an example does not.
EXAMPLE_TASK = "Write a function `initials(name)` that returns the first letters of a name's words, in capitals."
EXAMPLE_HEAD = "def initials(name):\n    ..."
EXAMPLE_TESTS = """\
```python
assert initials("Ada Lovelace") == "AL"
assert initials("john ronald reuel tolkien") == "JRRT"
assert initials("Plato") == "P"
assert initials("  Emmy   Noether ") == "EN"
assert initials("") == ""
```"""

#: Names what decides the signal's value beside model and question: the second turn's texts, and the number of tests.
_TEXTS = (str(TESTS), TESTS_PROMPT, TESTS_QUESTION, EXAMPLE_TASK, EXAMPLE_HEAD, EXAMPLE_TESTS)
RECIPE = hashlib.sha256("\n".join(_TEXTS).encode()).hexdigest()[:8]

NOT_ALLOWED = "programs may not be run; set allow_code = true beside the estimator"


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedTests:
    """Unknown where no program was asked for or written, where no test was, and where programs may not be run."""

    #: Leave to run programs that the model wrote.
    allow_code: bool = False
    ask: Literal["followup"] = "followup"
    name: str = "generated_tests"
    top_logprobs: int = 0

    async def estimate(self, exchange: Exchange, model: Model, *, timeout_s: float | None = None) -> Estimate:
        if exchange.kind not in (None, "code"):
            return self._unknown("the question asks for no program")
        if not self.allow_code:
            return self._unknown(NOT_ALLOWED)
        task = exchange.prompt.messages[-1].content
        subject = await asyncio.to_thread(subject_of, exchange.parsed.visible, task)
        if subject is None:
            return self._unknown("no program was found in the reply")
        prompt = _asking(exchange.prompt, subject)
        reply = await second_turn(exchange, model, prompt, source=self.name, timeout_s=timeout_s)
        if not isinstance(reply, Reply):
            return reply
        cases = cases_of(reply.text, subject, most=TESTS)
        if not cases:
            return self._unknown("no test was found in the second reply", reply.usage)
        try:
            agreeing = await asyncio.to_thread(agreeing_cases, subject.program, cases)
        except InputError as exc:
            return self._unknown(str(exc), reply.usage)
        return Estimate(confidence=Confidence(value=agreeing / len(cases), source=self.name), usage=reply.usage)

    def _unknown(self, note: str, usage: Usage | None = Usage()) -> Estimate:  # noqa: B008 - frozen
        return Estimate(confidence=Confidence.unknown(self.name, note), usage=usage)


def agreeing_cases(program: str, cases: list[Case], *, limits: sandbox.Limits = sandbox.LIMITS) -> int:
    """How many of them the program agrees with. Blocks; raises :class:`InputError` where programs can't be shut in."""
    said = sandbox.values(program, [case.call for case in cases], limits=limits)
    return sum(case.agrees(value) for case, value in zip(cases, said, strict=True))


def _asking(prompt: Prompt, subject: Subject) -> Prompt:
    """The second turn does not show the program: tests of what it does would agree with it, right or wrong."""
    *before, last = (message for message in prompt.messages if message.role != "system")
    turns = (
        Message(role="system", content=TESTS_PROMPT),
        Message(role="user", content=_question(EXAMPLE_TASK, EXAMPLE_HEAD, "initials")),
        Message(role="assistant", content=EXAMPLE_TESTS),
        *before,
        Message(role="user", content=_question(last.content.strip(), subject.head, subject.name)),
    )
    return Prompt(messages=turns, max_tokens=_MAX_TOKENS, seed=prompt.seed)


def _question(task: str, head: str, name: str) -> str:
    return TESTS_QUESTION.format(task=task, head=head, name=name, tests=TESTS)
