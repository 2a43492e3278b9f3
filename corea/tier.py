"""One model with its price, its confidence estimator and its threshold. Knows nothing of the tiers around it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, aclosing, nullcontext
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any, Literal, Protocol

from corea.confidence.base import Estimate, Estimator, Exchange
from corea.confidence.protocol import parse, system_prompt
from corea.errors import (
    CoreaError,
    DeadlineExceeded,
    ModelError,
    NotCertified,
    TierSkipped,
    UpstreamGarbage,
    UpstreamTimeout,
)
from corea.guards.base import Guard, Judged
from corea.guards.registry import first_objection
from corea.models.base import Delta, Model, deltas
from corea.models.breaker import Breaker
from corea.policy.base import Bar, Hedge, Policy, Second, View, settle, skipped
from corea.policy.certificate import Certificate
from corea.policy.thresholds import OUTRUN, decide
from corea.prices import Price
from corea.types import Attempt, Confidence, Decision, Failure, Message, Prompt, Reason, Reply, Request, Usage

Hear = Callable[[str], Awaitable[object]]

logger = logging.getLogger("corea.tier")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the user wants replies to be sampled. None, or nothing, leaves it to the tier."""

    max_tokens: int | None = None
    temperature: float | None = None
    seed: int | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    #: Whom the user asks for, as told to the upstream.
    user: str | None = None

    @property
    def shapes_answers(self) -> bool:
        """Whether replies may be others than those of the tier as it is configured."""
        return bool(self.set().keys() - {"user"})

    def set(self) -> dict[str, Any]:
        """What the user set, by its name on the wire."""
        # Not asdict, which copies: this is on the way of every request.
        return {name: value for name in _CHOICES if (value := getattr(self, name)) is not None and value != ()}


_CHOICES = tuple(choice.name for choice in fields(Sampling))


AS_CONFIGURED = Sampling()


class Gate(Protocol):
    """Foresees, from the question alone, that asking a tier is not worth it."""

    def skip(self, request: Request) -> str | None:
        """Why the tier should be left out, in a few words; None to ask it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """A tier with neither ``threshold`` nor ``certificate`` is the last one, whose answer is final.

    ``estimator=None``: it is not asked how sure it is.
    """

    name: str
    model: Model
    estimator: Estimator | None = None
    threshold: float | None = None
    certificate: Certificate | None = None
    price: Price | None = None
    timeout_s: float | None = None
    on_error: Literal["skip", "fail"] = "skip"
    max_tokens: int = 1024
    temperature: float = 0.0
    system_prompt: str | None = None
    #: Leaves a model alone that keeps failing; shared by all copies of the tier. None: it is always asked.
    breaker: Breaker | None = None
    #: Rules that an answer must pass to be kept, however sure it is.
    guards: tuple[Guard, ...] = ()
    gate: Gate | None = None

    async def attempt(
        self,
        request: Request,
        *,
        time_left_s: float,
        clock: Callable[[], float],
        sampling: Sampling = AS_CONFIGURED,
        hear: Hear | None = None,
        policies: Sequence[Policy] = (),
        elapsed_s: float = 0.0,
        hedged: Callable[[Hedge], object] | None = None,
    ) -> Attempt:
        """Ask once, judge the reply. What a model does wrong is not raised: it is an attempt, with its failure.

        ``hear`` is told the reply's text as it is written, where the tier ``is_heard_live``. ``policies`` may move the
        bar, ``elapsed_s`` seconds after the request came; ``hedged`` is told where one of them wants the next tier too.
        """
        started = clock()
        limit_s = time_left_s if self.timeout_s is None else min(self.timeout_s, time_left_s)
        prompt = self.prompt(request, sampling)
        try:
            bar = self._bar(request, sampling)
            if not self.is_last:
                bar = self._settled(bar, request, policies, elapsed_s=elapsed_s, left_s=time_left_s)
                if bar.hedge is not None and hedged is not None:
                    hedged(bar.hedge)
            reply = await self.reply(prompt, limit_s=limit_s, clock=clock, hear=hear if self.is_heard_live else None)
        except (ModelError, DeadlineExceeded, NotCertified, TierSkipped) as exc:
            return self._failed(exc, latency_s=clock() - started)
        exchange = Exchange(prompt=prompt, reply=reply, parsed=parse(reply.text, request.kind), kind=request.kind)
        estimate = await self._estimate(self.estimator, exchange, limit_s - (clock() - started))
        decision = self._decided(bar, exchange, estimate, request)
        if decision.keep and bar.second is not None:
            second = await self._estimate(bar.second.estimator, exchange, limit_s - (clock() - started))
            estimate, decision = _confirmed(bar.second, estimate, second, decision)
        return self._answered(exchange, estimate, decision, latency_s=clock() - started)

    def abandoned(self, *, latency_s: float) -> Attempt:
        """The attempt of a caller who went away: whatever the model did until then may be billed."""
        failure = Failure(kind="Abandoned", message="the caller went away before the answer was there")
        return self._unanswered(failure, cost_nano_usd=None, latency_s=latency_s)

    def outrun(self, why: str, *, policy: str, latency_s: float) -> Attempt:
        """The attempt that was stopped because another tier's answer was first. It may be billed all the same."""
        failure = Failure(kind=OUTRUN, message=why)
        return self._unanswered(failure, cost_nano_usd=None, latency_s=latency_s, policy=policy)

    async def reply(
        self, prompt: Prompt, *, limit_s: float, clock: Callable[[], float], hear: Hear | None = None
    ) -> Reply:
        """What the model writes within so many seconds. Raises :class:`ModelError`, :class:`DeadlineExceeded`."""
        if limit_s <= 0:
            raise DeadlineExceeded(f"no time was left for {self.name}; raise cascade.deadline_s")
        with self.guarded():
            return await self._reply(prompt, limit_s=limit_s, clock=clock, hear=hear)

    def guarded(self) -> AbstractContextManager[None]:
        """Around every call of the model. Raises :class:`CircuitOpen` where it is to be left alone."""
        return nullcontext() if self.breaker is None else self.breaker.watch(self.name)

    def prompt(self, request: Request, sampling: Sampling = AS_CONFIGURED) -> Prompt:
        """The conversation as this tier's model gets it. A system message of the user's own replaces the tier's."""
        inline = self.estimator is not None and self.estimator.ask == "inline"
        messages = request.messages
        custom = self.system_prompt
        if messages and messages[0].role == "system":
            custom, messages = messages[0].content, messages[1:]
        instruction = Message(role="system", content=system_prompt(inline=inline, custom=custom, kind=request.kind))
        prompt = Prompt(
            messages=(instruction, *messages),
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_logprobs=self.estimator.top_logprobs if self.estimator else 0,
        )
        return prompt if sampling is AS_CONFIGURED else _sampled(prompt, sampling.set())

    def fails_request(self, attempt: Attempt) -> bool:
        """A question too long for one tier is no fault of the tier, and never fails the request."""
        return self.on_error == "fail" and attempt.decision.reason is Reason.FAILED

    @property
    def is_heard_live(self) -> bool:
        """Whether its reply needs no judgement, so that a client may hear it while it is written."""
        return self.is_last and self.estimator is None

    @property
    def is_last(self) -> bool:
        return self.threshold is None and self.certificate is None

    def cost_nano_usd(self, usage: Usage | None) -> int | None:
        """What these tokens cost at this tier; None where the price or the count is unknown."""
        return None if self.price is None or usage is None else self.price.cost_nano_usd(usage)

    async def _reply(self, prompt: Prompt, *, limit_s: float, clock: Callable[[], float], hear: Hear | None) -> Reply:
        started = clock()
        try:
            async with asyncio.timeout(limit_s):
                if hear is None:
                    return await self.model.complete(prompt, timeout_s=limit_s)
                return await _heard(deltas(self.model, prompt, timeout_s=limit_s), hear)
        except TimeoutError as exc:
            raise UpstreamTimeout(model=self.model.name, elapsed_s=clock() - started) from exc

    async def _estimate(self, estimator: Estimator | None, exchange: Exchange, limit_s: float) -> Estimate:
        if estimator is None:
            return Estimate(confidence=Confidence.unknown("none", "this tier is not asked how sure it is"))
        try:
            async with asyncio.timeout(max(limit_s, 0)):
                return await estimator.estimate(exchange, self.model, timeout_s=limit_s)
        except TimeoutError:
            # The reply is here and stays: only how sure the model is was not learned in time.
            return Estimate(confidence=Confidence.unknown(estimator.name, "no time was left to ask"), usage=None)

    def _settled(
        self, bar: Bar, request: Request, policies: Sequence[Policy], *, elapsed_s: float, left_s: float
    ) -> Bar:
        """The bar, once the gate and all policies have spoken. Raises :class:`TierSkipped` where one leaves it out."""
        if self.gate is not None and (why := self.gate.skip(request)) is not None:
            raise skipped("gate", self.name, why)
        if not policies:
            return bar
        view = View(
            request=request,
            tier=self.name,
            own=bar,
            certified=self.certificate is not None,
            elapsed_s=elapsed_s,
            left_s=left_s,
        )
        return settle(policies, view)

    def _decided(self, bar: Bar, exchange: Exchange, estimate: Estimate, request: Request) -> Decision:
        """By the bar first; what passes it must pass every guard too."""
        decision = decide(
            threshold=bar.threshold,
            tie_fraction=bar.tie_fraction,
            confidence=estimate.confidence,
            finish_reason=exchange.reply.finish_reason,
            question=request.question,
        )
        if bar.policy is not None:
            decision = replace(decision, policy=bar.policy, note=bar.note)
        if not decision.keep or not self.guards or bar.threshold is None:
            return decision
        judged = Judged(
            question=request.question,
            text=exchange.parsed.visible,
            answer=exchange.parsed.answer,
            kind=request.kind,
            confidence=estimate.confidence,
            finish_reason=exchange.reply.finish_reason,
        )
        objection = first_objection(self.guards, judged)
        if objection is None:
            return decision
        return replace(decision, keep=False, reason=Reason.GUARDED, guard=objection.guard, note=objection.why)

    def _bar(self, request: Request, sampling: Sampling) -> Bar:
        """What a confidence must reach. Raises :class:`NotCertified` where the certificate promises nothing."""
        if self.certificate is None:
            return Bar(threshold=self.threshold)
        if (warning := self.certificate.warning(request.task)) is not None:
            warn_once(self.name, warning)
        if any(message.role == "system" for message in request.messages[:1]):
            warn_once(self.name, "what its certificate promises was not shown for questions with a system message")
        if sampling.shapes_answers:
            warn_once(self.name, "what its certificate promises was not shown for other sampling settings than its own")
        certified = self.certificate.for_task(request.task)
        if certified is None or certified.threshold is None:
            raise NotCertified(f"{self.name} was not asked: its certificate promises nothing for such questions")
        return Bar(threshold=certified.threshold, tie_fraction=certified.tie_fraction)

    def _answered(self, exchange: Exchange, estimate: Estimate, decision: Decision, *, latency_s: float) -> Attempt:
        reply, parsed = exchange.reply, exchange.parsed
        paid = None if reply.usage is None or estimate.usage is None else reply.usage + estimate.usage
        return Attempt(
            tier=self.name,
            model=reply.model,
            decision=decision,
            confidence=estimate.confidence,
            text=parsed.visible,
            answer=parsed.answer,
            finish_reason=reply.finish_reason,
            usage=reply.usage,
            confidence_usage=estimate.usage,
            cost_nano_usd=self.cost_nano_usd(paid),
            latency_s=latency_s,
        )

    def _failed(self, error: CoreaError, *, latency_s: float) -> Attempt:
        failure = Failure(kind=type(error).__name__, message=str(error))
        cost = None if isinstance(error, ModelError) and error.may_be_billed else 0
        policy = error.policy if isinstance(error, TierSkipped) else None
        return self._unanswered(failure, cost_nano_usd=cost, latency_s=latency_s, policy=policy)

    def _unanswered(
        self, failure: Failure, *, cost_nano_usd: int | None, latency_s: float, policy: str | None = None
    ) -> Attempt:
        confidence = Confidence.unknown(self.estimator.name if self.estimator else "none", "there is no reply")
        return Attempt(
            tier=self.name,
            model=self.model.name,
            decision=replace(decide(threshold=self.threshold, confidence=confidence, failure=failure), policy=policy),
            confidence=confidence,
            cost_nano_usd=cost_nano_usd,
            latency_s=latency_s,
            failure=failure,
        )


def _confirmed(second: Second, first: Estimate, other: Estimate, decision: Decision) -> tuple[Estimate, Decision]:
    """Kept only if the second signal agrees. What both cost is paid."""
    usage = None if first.usage is None or other.usage is None else first.usage + other.usage
    paid = replace(first, usage=usage)
    value, name = other.confidence.value, other.confidence.source
    if value is not None and value >= second.threshold:
        return paid, decision
    said = f"is unknown ({other.confidence.note})" if value is None else f"{value:.4g} is below {second.threshold:.4g}"
    return paid, replace(
        decision, keep=False, reason=Reason.DISAGREED, policy="critical", note=f"the second signal, {name}, {said}"
    )


async def _heard(stream: AsyncGenerator[Delta, None], hear: Hear) -> Reply:
    """The reply of a stream, each piece of it told first."""
    async with aclosing(stream):
        async for delta in stream:
            if delta.text:
                await hear(delta.text)
            if delta.reply is not None:
                return delta.reply
    raise UpstreamGarbage("the stream ended without its reply; mend the model's stream()")


def _sampled(prompt: Prompt, chosen: Mapping[str, Any]) -> Prompt:
    """The prompt as the user wants it sampled."""
    own = {name: value for name, value in chosen.items() if name in ("max_tokens", "temperature", "seed")}
    return replace(prompt, **own, sampling={name: value for name, value in chosen.items() if name not in own})


@lru_cache(maxsize=4096)
def warn_once(tier: str, warning: str) -> None:
    """Once a process, not once a question."""
    logger.warning("%s: %s", tier, warning)
