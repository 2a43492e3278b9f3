"""Frozen values that travel through a cascade.

Knows nothing of models, prices, databases or the network: only what a question, an attempt and a trace *are*.
Units live in the names; money is an integer number of nano-USD (10⁻⁹ USD), and ``None`` always means *unknown*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

Role = Literal["system", "user", "assistant"]
Kind = Literal["number", "expression", "choice", "boolean", "text", "code"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the user asks of the cascade: a conversation that ends with their question."""

    messages: tuple[Message, ...]
    id: str | None = None
    task: str | None = None
    kind: Kind | None = None
    #: The named policies it is to be answered by, instead of those of its task.
    policy: str | None = None

    @classmethod
    def of(cls, question: str, *, id: str | None = None, task: str | None = None, kind: Kind | None = None) -> Request:
        """A request that is a single question."""
        return cls(messages=(Message(role="user", content=question),), id=id, task=task, kind=kind)

    @property
    def question(self) -> str:
        """The text of the last turn."""
        return self.messages[-1].content if self.messages else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What a model is asked for: the whole conversation and how to sample."""

    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float = 0.0
    seed: int | None = None
    #: Alternatives wanted at each token; 0 asks for no log-probabilities at all.
    top_logprobs: int = 0
    #: What else a user sets, under its name on the wire: ``stop``, ``top_p``, ``presence_penalty``, …
    sampling: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one or more calls, as the server counted them."""

    prompt_tokens: int = 0
    #: Part of ``prompt_tokens`` that the server read from its cache.
    cached_prompt_tokens: int = 0
    completion_tokens: int = 0
    #: Part of ``completion_tokens`` that was hidden reasoning.
    reasoning_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            cached_prompt_tokens=self.cached_prompt_tokens + other.cached_prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One sampled token with its log-probability (natural log) and the most likely alternatives."""

    text: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a model sent back. ``usage`` is None when the server did not count; ``tokens`` when not asked for."""

    text: str
    finish_reason: str
    model: str
    usage: Usage | None = None
    tokens: tuple[Token, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Confidence:
    """Probability in [0, 1] that an answer is right, and the estimator it came from.

    ``value=None`` is *unknown*: never a made-up constant, and it defers. ``note`` says why it is unknown.
    """

    value: float | None
    source: str
    note: str | None = None

    def __post_init__(self) -> None:
        # NaN fails both comparisons, so it is refused too.
        if self.value is not None and not 0.0 <= self.value <= 1.0:
            raise ValueError(f"a confidence lies in [0, 1] or is None; {self.source} gave {self.value!r}")

    @classmethod
    def unknown(cls, source: str, note: str) -> Confidence:
        return cls(value=None, source=source, note=note)


class Reason(StrEnum):
    """Why an attempt was kept or deferred."""

    CONFIDENT = "confident"
    LAST_TIER = "last_tier"
    RELAYED = "relayed"
    BELOW_THRESHOLD = "below_threshold"
    TIED = "tied"
    NOT_CERTIFIED = "not_certified"
    UNKNOWN_CONFIDENCE = "unknown_confidence"
    CUT_OFF = "cut_off"
    GUARDED = "guarded"
    DISAGREED = "disagreed"
    SKIPPED = "skipped"
    FAILED = "failed"
    TOO_LONG = "too_long"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Keep the attempt as the answer, or defer to the next tier.

    ``guard`` names the guard that objected, ``policy`` the policy that set the threshold or had the last word, and
    ``note`` says why, in a few words.
    """

    keep: bool
    reason: Reason
    threshold: float | None = None
    guard: str | None = None
    policy: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why an attempt has no reply: the error's class name, its one-line message, and whether the call was billed."""

    kind: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What one tier did for one request.

    ``text`` is the reply without the confidence line; ``answer`` is the short answer found in it, or None.
    ``usage`` is the reply's; ``confidence_usage`` that of the calls made only to learn the confidence, and
    ``cost_nano_usd`` pays for both. Each is None where it is unknown.
    """

    tier: str
    model: str
    decision: Decision
    confidence: Confidence
    text: str = ""
    answer: str | None = None
    finish_reason: str | None = None
    usage: Usage | None = None
    confidence_usage: Usage | None = Usage()
    cost_nano_usd: int | None = None
    latency_s: float = 0.0
    failure: Failure | None = None

    @property
    def answered(self) -> bool:
        return self.failure is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Everything that happened to one request.

    ``cost_nano_usd`` is the sum over all attempts, failed ones included; None if any part of it is unknown.
    ``baseline_nano_usd`` is what the last tier alone costs: measured when it answered, otherwise estimated as its
    price for the kept reply's token counts. ``saved_nano_usd`` is baseline − cost, so a deferral saves less than
    nothing.
    """

    id: str
    request: Request
    attempts: tuple[Attempt, ...]
    #: Index into ``attempts`` of the answer handed out; None when no tier answered.
    final: int | None
    started_at_unix_s: float
    elapsed_s: float
    cost_nano_usd: int | None
    baseline_nano_usd: int | None
    #: Hash of everything that shapes an answer: models, prompts, estimators, thresholds.
    fingerprint: str = ""
    prices_version: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def attempt(self) -> Attempt | None:
        """The attempt whose answer was handed out."""
        return None if self.final is None else self.attempts[self.final]

    @property
    def answer(self) -> str | None:
        """The short answer, or the whole reply where it has none."""
        if self.attempt is None:
            return None
        return self.attempt.answer if self.attempt.answer is not None else self.attempt.text

    @property
    def text(self) -> str | None:
        return self.attempt.text if self.attempt else None

    @property
    def tier(self) -> str | None:
        return self.attempt.tier if self.attempt else None

    @property
    def confidence(self) -> float | None:
        """Confidence of the answer handed out; None is unknown (the last tier is not asked for one)."""
        return self.attempt.confidence.value if self.attempt else None

    @property
    def deferred(self) -> bool:
        """True when the first tier's answer was not the one handed out."""
        return self.final != 0

    @property
    def saved_nano_usd(self) -> int | None:
        if self.cost_nano_usd is None or self.baseline_nano_usd is None:
            return None
        return self.baseline_nano_usd - self.cost_nano_usd
