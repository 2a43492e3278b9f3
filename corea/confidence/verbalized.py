"""Verbalized confidence: what the model says, in a line of its reply or when asked afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from corea.confidence.base import Estimate, Exchange, second_turn
from corea.confidence.protocol import DIGIT_QUESTION, parse_confidence
from corea.models.base import Model
from corea.types import Confidence, Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Verbalized:
    """The stated value, as it stands: a handful of distinct values, many ties."""

    ask: Literal["inline", "followup"] = "inline"
    name: str = "verbalized"
    top_logprobs: int = 0

    async def estimate(self, exchange: Exchange, model: Model, *, timeout_s: float | None = None) -> Estimate:
        if self.ask == "inline":
            return Estimate(confidence=self._stated(exchange.parsed.confidence))
        prompt = exchange.followed_by(DIGIT_QUESTION, max_tokens=16, top_logprobs=0)
        reply = await second_turn(exchange, model, prompt, source=self.name, timeout_s=timeout_s)
        if not isinstance(reply, Reply):
            return reply
        return Estimate(confidence=self._stated(parse_confidence(reply.text)), usage=reply.usage)

    def _stated(self, value: float | None) -> Confidence:
        if value is None:
            return Confidence.unknown(self.name, "the model stated no confidence")
        return Confidence(value=value, source=self.name)
