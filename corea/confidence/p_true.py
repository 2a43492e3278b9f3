"""P(True): shown its own answer, the model is asked whether it is correct (Kadavath et al. 2022, arXiv 2207.05221).

Confidence = P("True") ÷ (P("True") + P("False")) at the first token of the second turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from corea.confidence.base import MIN_MASS, Estimate, Exchange, second_turn, token_mass
from corea.confidence.protocol import TRUE_FALSE_QUESTION
from corea.models.base import Model
from corea.types import Confidence, Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class PTrue:
    """The second turn reads the server's cached first one and writes a single token."""

    ask: Literal["followup"] = "followup"
    name: str = "p_true"
    #: Needed by the second turn, not by the reply.
    top_logprobs: int = 0

    async def estimate(self, exchange: Exchange, model: Model, *, timeout_s: float | None = None) -> Estimate:
        prompt = exchange.followed_by(TRUE_FALSE_QUESTION, max_tokens=1, top_logprobs=20)
        reply = await second_turn(exchange, model, prompt, source=self.name, timeout_s=timeout_s)
        if not isinstance(reply, Reply):
            return reply
        return Estimate(confidence=self._of(reply), usage=reply.usage)

    def _of(self, reply: Reply) -> Confidence:
        if not reply.tokens:
            return Confidence.unknown(self.name, "the server gave no log-probabilities")
        true, false = (token_mass(reply.tokens[0].top, word) for word in ("true", "false"))
        if true + false < MIN_MASS:
            return Confidence.unknown(self.name, f"True and False hold only {true + false:.0%} of the probability")
        return Confidence(value=true / (true + false), source=self.name)
