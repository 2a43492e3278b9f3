"""Expected confidence: the mean of the digit's whole distribution, E[c] = Σ qᵢ·vᵢ with vᵢ = (i + 0.5)/10.

Continuous where the stated digit takes ten values, so a threshold can be set anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from corea.confidence.base import MIN_MASS, Estimate, Exchange, second_turn, token_mass
from corea.confidence.protocol import DIGIT_QUESTION, DIGIT_VALUES, parse
from corea.models.base import Model
from corea.types import Confidence, Reply, Token


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """Reads the alternatives at the digit's token. Digits that the server does not list count as impossible."""

    ask: Literal["inline", "followup"] = "inline"
    name: str = "expected"
    top_logprobs: int = 20

    async def estimate(self, exchange: Exchange, model: Model, *, timeout_s: float | None = None) -> Estimate:
        if self.ask == "inline":
            return Estimate(confidence=self._read(exchange.reply, _inline_digit))
        prompt = exchange.followed_by(DIGIT_QUESTION, max_tokens=4, top_logprobs=self.top_logprobs)
        reply = await second_turn(exchange, model, prompt, source=self.name, timeout_s=timeout_s)
        if not isinstance(reply, Reply):
            return reply
        return Estimate(confidence=self._read(reply, _first_digit), usage=reply.usage)

    def _read(self, reply: Reply, find: _Find) -> Confidence:
        if reply.tokens is None:
            return Confidence.unknown(self.name, "the server gave no log-probabilities")
        token = find(reply.tokens)
        if token is None:
            return Confidence.unknown(self.name, "the model wrote no confidence digit")
        masses = [token_mass(token.top, str(digit)) for digit in range(10)]
        total = sum(masses)
        if total < MIN_MASS:
            return Confidence.unknown(
                self.name, f"digits hold only {total:.0%} of the probability at the digit's place"
            )
        value = sum(mass * v for mass, v in zip(masses, DIGIT_VALUES, strict=True)) / total
        return Confidence(value=value, source=self.name)


def _inline_digit(tokens: Sequence[Token]) -> Token | None:
    """The token that holds the protocol's digit. Parsed from the tokens' own text, so that offsets agree."""
    digit_at = parse("".join(token.text for token in tokens)).digit_at
    if digit_at is None:
        return None
    end = 0
    for token in tokens:
        end += len(token.text)
        if digit_at < end:
            return token
    return None


def _first_digit(tokens: Sequence[Token]) -> Token | None:
    return next((token for token in tokens if token.text.strip() in set("0123456789")), None)


class _Find(Protocol):
    def __call__(self, tokens: Sequence[Token], /) -> Token | None: ...
