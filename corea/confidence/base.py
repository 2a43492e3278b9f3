"""What a confidence estimator is: it looks at one exchange and says how likely the answer is right.

Knows no threshold: whether a confidence is high enough is the policy's business.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from corea.confidence.protocol import Parsed
from corea.errors import ModelError
from corea.models.base import Model
from corea.types import Confidence, Kind, Message, Prompt, Reply, Usage

#: Least probability that the wanted tokens (digits; True, False) must hold together for their ratio to mean anything.
MIN_MASS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One question and its reply, as an estimator sees them."""

    prompt: Prompt
    reply: Reply
    parsed: Parsed
    kind: Kind | None = None

    def followed_by(self, question: str, *, max_tokens: int, top_logprobs: int) -> Prompt:
        """The prompt of a second turn that asks about the first answer."""
        turns = (Message(role="assistant", content=self.reply.text), Message(role="user", content=question))
        return Prompt(
            messages=self.prompt.messages + turns,
            max_tokens=max_tokens,
            top_logprobs=top_logprobs,
            seed=self.prompt.seed,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A confidence, and the usage of the calls made to learn it; ``usage=None`` when a server did not count."""

    confidence: Confidence
    usage: Usage | None = Usage()


@runtime_checkable
class Estimator(Protocol):
    """Says how sure a tier is. Passes :func:`corea.confidence.conformance.check`.

    ``estimate`` raises nothing but ``CancelledError``: a signal that is missing, or a second call that fails, is an
    unknown confidence with a note.
    """

    @property
    def name(self) -> str: ...

    @property
    def ask(self) -> Literal["inline", "followup", "none"]: ...

    @property
    def top_logprobs(self) -> int:
        """Alternatives it needs at each token of the reply; 0 when it needs no log-probabilities."""
        ...

    async def estimate(self, exchange: Exchange, model: Model, *, timeout_s: float | None = None) -> Estimate: ...


def token_mass(top: Iterable[tuple[str, float]], word: str) -> float:
    """Probability, among a token's alternatives, of those that spell ``word``: " True" and "true" are one word.

    Some servers round a log-probability above 0, or send NaN; the one counts as certain, the other as nothing.
    """
    spelt = (logprob for text, logprob in top if text.strip().lower() == word.lower())
    return sum(math.exp(min(logprob, 0.0)) for logprob in spelt if not math.isnan(logprob))


async def second_turn(
    exchange: Exchange, model: Model, prompt: Prompt, *, source: str, timeout_s: float | None
) -> Reply | Estimate:
    """The reply to a follow-up; or, when it fails, the unknown confidence that this makes."""
    if not exchange.reply.text.strip():
        return Estimate(confidence=Confidence.unknown(source, "the reply is empty"))
    try:
        return await model.complete(prompt, timeout_s=timeout_s)
    except ModelError as exc:
        return Estimate(confidence=Confidence.unknown(source, f"the follow-up failed: {exc}"), usage=None)
