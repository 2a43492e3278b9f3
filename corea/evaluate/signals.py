"""Every confidence signal from one reply: what can be read off it, and two short second turns.

The digit's follow-up serves two signals (its text, and the mean of its distribution), so a pass costs one reply, two
second turns and, where asked for, the samples of self-consistency. A program that may be run has a third second turn,
which asks for tests of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from corea.confidence import Estimate, Estimator, Exchange, SelfConsistency
from corea.confidence.named import INLINE, estimator
from corea.models.base import Model
from corea.types import Prompt, Reply

#: Alternatives that every signal can live with.
TOP_LOGPROBS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Signals:
    """Which signals a pass collects. ``inline`` adds those that are stated in the reply itself.

    ``allow_code`` adds the one of programs, which are run for it.
    """

    inline: bool = False
    samples: int = 0
    allow_code: bool = False

    @property
    def estimators(self) -> Mapping[str, Estimator]:
        names = ("logprob", "p_true", "verbalized_followup", "expected_followup", *(INLINE if self.inline else ()))
        found = {name: estimator(name) for name in names}
        if self.samples:
            found["self_consistency"] = SelfConsistency(samples=self.samples)
        if self.allow_code:
            found["generated_tests"] = estimator("generated_tests", allow_code=True)
        return found

    async def collect(self, exchange: Exchange, model: Model, *, timeout_s: float) -> dict[str, Estimate]:
        """What each signal says, with the usage it alone would have cost. Raises only when cancelled."""
        once = _Memory(model)
        estimators = self.estimators
        estimates: list[Estimate] = await asyncio.gather(
            *(estimator.estimate(exchange, once, timeout_s=timeout_s) for estimator in estimators.values())
        )
        return dict(zip(estimators, estimates, strict=True))


class _Memory:
    """A model that answers the same greedy prompt once: follow-ups that differ only in how they are read share it."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._answers: dict[tuple[object, ...], asyncio.Future[Reply]] = {}

    @property
    def name(self) -> str:
        return self._model.name

    async def complete(self, prompt: Prompt, *, timeout_s: float | None = None) -> Reply:
        if prompt.temperature > 0:
            return await self._model.complete(prompt, timeout_s=timeout_s)
        key = (prompt.messages, prompt.seed)
        if key not in self._answers:
            self._answers[key] = asyncio.ensure_future(self._widest(prompt, timeout_s))
        return await asyncio.shield(self._answers[key])

    async def aclose(self) -> None:
        """The model is not ours to close."""

    async def _widest(self, prompt: Prompt, timeout_s: float | None) -> Reply:
        wide = Prompt(messages=prompt.messages, max_tokens=max(prompt.max_tokens, 4), top_logprobs=TOP_LOGPROBS)
        return await self._model.complete(wide, timeout_s=timeout_s)
