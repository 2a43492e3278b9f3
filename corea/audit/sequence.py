"""Bounds on mean harm that hold at all times at once, from answers audited with known probability.

The value of a question is Z = harm ÷ propensity where it was audited and 0 where not, so that E[Z] is its harm whatever
the propensity (inverse-propensity weights). For a fixed bet b with 1 + bZ > 0, and μᵢ the mean of Zᵢ given the past,
∏ (1 + bZᵢ)/(1 + bμᵢ) is a martingale, and ∏ (1 + bμᵢ) ≤ (1 + bμ̄)ⁿ because the logarithm is concave. So

    E(m) = Σ wⱼ ∏ (1 + bⱼZᵢ) ÷ (1 + bⱼm)ⁿ        Σ wⱼ = 1

is below a martingale of mean 1 as long as the running mean μ̄ = (μ₁ + … + μₙ)/n is at most m: by Ville's inequality it
ever reaches 1/δ with probability at most δ. The means may drift, the propensities may change from question to question,
anyone may look and stop whenever they like. After Waudby-Smith and Ramdas 2023 (bets) and Waudby-Smith et al. 2022
(arXiv 2210.10768, weights); bets that are fixed and mixed, where theirs adapt, are what makes it hold for the running
mean of a drifting one, and make a question of value 0 free.

Knows no tasks, no limits and no clock. Standard library only: a gateway runs it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from corea.errors import InputError

#: Bets as multiples of the least propensity where nothing is below 0, and their weights: a bet of b is the best against
#: a mean of (1 + b)·m, small ones are for long and large ones for short sequences.
_FREE = tuple((2.0**power, 0.18 if 0 <= power <= 3 else 0.04) for power in range(-5, 6))
#: And where harm may be negative, as shares of the largest bet that one gain cannot ruin.
_BOUNDED = (
    *((share, 0.05) for share in (0.015, 0.03, 0.06, 0.12)),
    *((share, 0.2) for share in (0.28, 0.5, 0.75, 0.95)),
)
_HALVINGS = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What the harm of one question can be, and the least probability with which an answer is audited."""

    least: float
    most: float
    min_propensity: float

    def __post_init__(self) -> None:
        if not -1.0 <= self.least <= 0.0 < self.most <= 1.0:
            raise InputError(f"harm must span 0 within [-1, 1]; correct its range {self.least} to {self.most}")
        if not 0.0 < self.min_propensity <= 1.0:
            raise InputError(
                f"an audited share of {self.min_propensity} bounds nothing; audit a share above 0 and up to 1"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Bets:
    """Fixed sizes bⱼ, and the logarithms of their weights wⱼ, which sum to 1."""

    sizes: tuple[float, ...]
    log_weights: tuple[float, ...]

    def mixed(self, logs: Iterable[float]) -> float:
        """log Σ wⱼ exp(logⱼ), without overflow."""
        return log_sum([log + weight for log, weight in zip(logs, self.log_weights, strict=True)])


@lru_cache(maxsize=256)
def bets(least: float, min_propensity: float) -> Bets:
    """Those for harm of at least ``least``: 1 + bZ stays above 0."""
    made = _FREE if least >= 0 else _BOUNDED
    unit = min_propensity if least >= 0 else min_propensity / -least
    return Bets(
        sizes=tuple(unit * times for times, _ in made), log_weights=tuple(math.log(weight) for _, weight in made)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """The evidence that a running mean lies above a number. ``growth``: Σ log(1 + bZ) for each bet b."""

    bets: Bets
    growth: tuple[float, ...]

    @classmethod
    def of(cls, bets: Bets) -> Floor:
        return cls(bets=bets, growth=(0.0,) * len(bets.sizes))

    def after(self, value: float) -> Floor:
        """With one more question; of value 0, it changes nothing here."""
        if not value:
            return self
        grown = (old + math.log1p(bet * value) for old, bet in zip(self.growth, self.bets.sizes, strict=True))
        return replace(self, growth=tuple(grown))

    def log_e(self, mean: float, n: int) -> float:
        """log E(m) of ``n`` questions: log(1/δ) or more rejects that the running mean is at most ``mean``."""
        each = zip(self.growth, self.bets.sizes, strict=True)
        return self.bets.mixed(grown - n * math.log1p(bet * mean) for grown, bet in each)

    def bound(self, n: int, *, delta: float, least: float, most: float) -> float:
        """The largest m in [least, most] that is rejected at level δ, to 1e-14; ``least`` where none is."""
        wanted = -math.log(delta)
        if self.log_e(least, n) < wanted:
            return least
        low, high = least, most
        # E falls with m, so a bisection finds where; the lower end is always rejected.
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if self.log_e(middle, n) >= wanted else (low, middle)
        return low


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Of the mean harm of the ``n`` questions so far. ``mean`` is the weighted estimate; where harm is known only
    between two numbers, that of their middle."""

    n: int
    mean: float | None
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HarmSequence:
    """All that has to be remembered of the questions so far. A value: :meth:`after` makes the next."""

    scope: Scope
    n: int = 0
    total: float = 0.0
    below: Floor
    #: Of −harm.
    above: Floor

    @classmethod
    def of(cls, scope: Scope) -> HarmSequence:
        share = scope.min_propensity
        return cls(scope=scope, below=Floor.of(bets(scope.least, share)), above=Floor.of(bets(-scope.most, share)))

    def after(self, least: float, most: float, propensity: float) -> HarmSequence:
        """With one more audited answer, whose harm lies between ``least`` and ``most``.

        Raises :class:`InputError` for a harm or a propensity out of scope: the bounds would not hold.
        """
        scope = self.scope
        if not scope.least <= least <= most <= scope.most:
            raise InputError(
                f"a harm of {least} to {most} is not within {scope.least} to {scope.most}; correct the scope"
            )
        if not scope.min_propensity <= propensity <= 1:
            raise InputError(
                f"an answer was audited with probability {propensity}, and the bounds were begun for "
                f"{scope.min_propensity} to 1; begin new ones for another share"
            )
        return replace(
            self,
            n=self.n + 1,
            total=self.total + (least + most) / 2 / propensity,
            below=self.below.after(least / propensity),
            above=self.above.after(-most / propensity),
        )

    def after_unaudited(self, questions: int = 1) -> HarmSequence:
        """With more questions that were deferred, or kept and not drawn for an audit."""
        return replace(self, n=self.n + questions)

    def bounds(self, delta: float) -> Bounds:
        """Both hold at all times with probability at least 1 − δ: half of δ is spent on either side."""
        least, most = self.scope.least, self.scope.most
        mean = self.total / self.n if self.n else None
        low = self.below.bound(self.n, delta=delta / 2, least=least, most=most)
        high = -self.above.bound(self.n, delta=delta / 2, least=-most, most=-least)
        return Bounds(n=self.n, mean=mean, low=low, high=high)


def log_sum(logs: Sequence[float]) -> float:
    """log Σ exp, without overflow."""
    top = max(logs)
    return top if top == -math.inf else top + math.log(math.fsum(math.exp(one - top) for one in logs))
