"""What a policy is: it moves a tier's bar before the tier is asked, or leaves the tier out, and learns what came of it.

Policies are asked in a fixed order (:mod:`corea.policy.order`), each given the bar that those before it set; so the
last word is the safest one's. To leave a tier out is to defer. Knows no models and no clocks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from corea.confidence.base import Estimator
from corea.errors import InputError, TierSkipped
from corea.types import Request, Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Second:
    """Another signal that must reach its own threshold too, or the answer is deferred."""

    estimator: Estimator
    threshold: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Hedge:
    """Ask the next tier beside this one, where this one has not answered after so long; who is first is not waited for.

    ``allowed`` is asked once that time is over, and counts what it allows; ``policy`` is who wants it.
    """

    after_s: float
    allowed: Callable[[], bool]
    policy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """What a confidence must reach, and which share of those that just reach it is kept; ``policy``: who said so.

    ``threshold=None`` is the bar of the last tier, which keeps everything.
    """

    threshold: float | None
    tie_fraction: float = 1.0
    second: Second | None = None
    hedge: Hedge | None = None
    policy: str | None = None
    note: str | None = None

    def at_least(self, other: Bar) -> Bar:
        """The stricter of the two; this one where they are alike."""
        return other if _strictness(other) > _strictness(self) else self


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What is known before a tier is asked. ``own``: its bar as configured or certified, whatever policies did since.

    ``certified``: whether a certificate stands behind ``own``. Seconds are of the request: since it came, and left.
    """

    request: Request
    tier: str
    own: Bar
    certified: bool
    elapsed_s: float
    left_s: float


class Policy(Protocol):
    """``name`` is a word for traces and metrics."""

    @property
    def name(self) -> str: ...

    def before(self, view: View, bar: Bar) -> Bar:
        """The bar to go by: ``bar`` itself to change nothing. Raises :class:`TierSkipped` to leave the tier out."""
        ...

    def after(self, trace: Trace) -> None:
        """What came of a request that this policy had a say in. Must be quick, and never raise."""
        ...


class Recogniser(Protocol):
    """Tells from a question's text what task it is of: its name, or None where it is not sure."""

    def of(self, question: str) -> str | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """Which policies a request is answered by: those it names, else those of its task, else the ``default``'s.

    ``always``: asked after all others, whoever asks.
    """

    named: Mapping[str, tuple[Policy, ...]] = field(default_factory=dict)
    by_task: Mapping[str, str] = field(default_factory=dict)
    default: str | None = None
    always: tuple[Policy, ...] = ()
    #: Names that a client may choose.
    selectable: frozenset[str] = frozenset()
    recogniser: Recogniser | None = None

    def recognised(self, request: Request) -> Request:
        """With its task, where it does not say one and the recogniser is sure of it."""
        if self.recogniser is None or request.task is not None:
            return request
        return replace(request, task=self.recogniser.of(request.question))

    def of(self, request: Request) -> tuple[Policy, ...]:
        """Raises :class:`InputError` for a name that is none of ``named``."""
        name = request.policy or (self.by_task.get(request.task) if request.task else None) or self.default
        if name is None:
            return self.always
        if name not in self.named:
            known = ", ".join(self.named) or "none"
            raise InputError(f'there is no policy "{name}"; configured are: {known}')
        return (*self.named[name], *self.always)


def settle(policies: Sequence[Policy], view: View) -> Bar:
    """The bar, once every policy has spoken. Raises :class:`TierSkipped` where one leaves the tier out."""
    bar = view.own
    for policy in policies:
        moved = policy.before(view, bar)
        # Who moved it last is told: not who agreed, nor who only asks for a second signal or the next tier beside it.
        same = replace(moved, second=bar.second, hedge=bar.hedge) == bar
        bar = moved if same else replace(moved, policy=policy.name)
    return bar


def skipped(policy: str, tier: str, why: str) -> TierSkipped:
    """The error that leaves a tier out."""
    return TierSkipped(f"{tier} was not asked: {why}", policy=policy)


def _strictness(bar: Bar) -> tuple[float, float]:
    return (-1.0 if bar.threshold is None else bar.threshold, -bar.tie_fraction)
