"""Sequence likelihood: the geometric mean of the reply's token probabilities, exp(mean log p).

Needs nothing from the model but log-probabilities. It ranks answers; it is not calibrated until a map is fitted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from corea.confidence.base import Estimate, Exchange
from corea.models.base import Model
from corea.types import Confidence, Token


@dataclass(frozen=True, slots=True, kw_only=True)
class Logprob:
    ask: Literal["none"] = "none"
    name: str = "logprob"
    #: The sampled token's own log-probability is enough; servers give none at all for 0.
    top_logprobs: int = 1

    async def estimate(self, exchange: Exchange, model: Model, *, timeout_s: float | None = None) -> Estimate:
        return Estimate(confidence=self._of(exchange.reply.tokens))

    def _of(self, tokens: Sequence[Token] | None) -> Confidence:
        if tokens is None:
            return Confidence.unknown(self.name, "the server gave no log-probabilities")
        # A server may write −∞ or −9999 for "less than I can say"; positive values occur by rounding.
        logprobs = [min(0.0, token.logprob) for token in tokens if math.isfinite(token.logprob)]
        if not logprobs:
            return Confidence.unknown(self.name, "the reply is empty")
        return Confidence(value=math.exp(math.fsum(logprobs) / len(logprobs)), source=self.name)
