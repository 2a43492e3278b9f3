"""Self-consistency: the share of k further, sampled answers that agree with the first one (Wang et al. 2022,
arXiv 2203.11171, used as a confidence). Costs k more replies, and counts them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Literal

from corea.confidence.base import Estimate, Exchange
from corea.confidence.protocol import parse
from corea.errors import ModelError
from corea.grading.answers import same_answer
from corea.models.base import Model
from corea.types import Confidence, Reply, Usage

#: Of the samples that vote, unless told otherwise.
TEMPERATURE = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfConsistency:
    """The answer handed out stays the first, greedy one; samples only vote on it."""

    samples: int = 5
    temperature: float = TEMPERATURE
    ask: Literal["none"] = "none"
    name: str = "self_consistency"
    top_logprobs: int = 0

    async def estimate(self, exchange: Exchange, model: Model, *, timeout_s: float | None = None) -> Estimate:
        if exchange.parsed.answer is None:
            return Estimate(confidence=Confidence.unknown(self.name, "no answer was found in the reply"))
        results = await asyncio.gather(*(self._sample(i, exchange, model, timeout_s) for i in range(self.samples)))
        replies = [result for result in results if isinstance(result, Reply)]
        usage = _sum([reply.usage for reply in replies] if len(replies) == len(results) else [None])
        if not replies:
            return Estimate(confidence=Confidence.unknown(self.name, f"every sample failed: {results[0]}"), usage=None)
        answers = [parse(reply.text, exchange.kind).answer for reply in replies]
        agreeing = sum(answer is not None and same_answer(answer, exchange.parsed.answer) for answer in answers)
        return Estimate(confidence=Confidence(value=agreeing / len(replies), source=self.name), usage=usage)

    async def _sample(
        self, index: int, exchange: Exchange, model: Model, timeout_s: float | None
    ) -> Reply | ModelError:
        # Seeds differ from one another and repeat from run to run.
        seed = (exchange.prompt.seed or 0) + index + 1
        prompt = replace(exchange.prompt, temperature=self.temperature, seed=seed, top_logprobs=0)
        try:
            return await model.complete(prompt, timeout_s=timeout_s)
        except ModelError as exc:
            return exc


def _sum(usages: Sequence[Usage | None]) -> Usage | None:
    known = [usage for usage in usages if usage is not None]
    return reduce(Usage.__add__, known, Usage()) if len(known) == len(usages) else None
