"""Which thresholds cost just so much a request, and what money is then worth: the dual of a budget, on recent requests.

Minimise harm subject to spend ≤ budget. Its Lagrangian falls apart into requests: with a calibrated confidence c, an
answer kept harms with a − c (``a``: the accuracy of the last tier), one deferred costs Δ; so defer if a − c > λΔ. The
threshold is a − λΔ, and λ ≥ 0, points of accuracy for a nano-USD, is the price of money: the least one at which the
recent requests would have cost no more than the pace. Solved anew on what was really seen, at the pace that what was
really spent leaves: dynamic learning of online linear programs (Agrawal, Wang, Ye 2014, arXiv 0911.2974) with
re-solving (Jasin, Kumar 2012); the same fixed point as adaptive pacing by mirror descent (Balseiro, Gur 2019; Balseiro,
Lu, Mirrokni 2020), without a step size, and whatever the scale of the confidence: only its order decides what is
deferred, λ is right where it is calibrated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from corea.policy.recent import Recent

_HALVINGS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A tier's recent requests. ``sure``: confidences, below 0 where no threshold would keep the answer."""

    sure: Recent
    cost_nano_usd: Recent


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Keep above ``threshold``, and the share ``tie_fraction`` of what just reaches it."""

    threshold: float
    tie_fraction: float = 1.0

    def deferred(self, sure: Recent) -> float:
        """The share that it defers."""
        return sure.share_below(self.threshold) + (1 - self.tie_fraction) * sure.share_at(self.threshold)

    def stricter(self, other: Cut) -> Cut:
        return max(self, other, key=lambda cut: (cut.threshold, -cut.tie_fraction))


@dataclass(frozen=True, slots=True, kw_only=True)
class Solved:
    """``price``: λ, points of accuracy (1 is all of it) for a nano-USD. The spend is a request's, expected."""

    cuts: Sequence[Cut]
    price: float
    nano_usd: float


def solve(seen: Sequence[Seen], last_nano_usd: float, *, pace_nano_usd: float, accuracy: float) -> Solved | None:
    """The cut of each tier but the last; None where deferring costs nothing, so that money decides nothing."""
    if last_nano_usd <= 0 or not all(len(tier.sure) for tier in seen):
        return None

    def at(price: float) -> tuple[float, list[float]]:
        """What a request costs at this price of money, and the thresholds, the last tier's first."""
        thresholds, later = [], last_nano_usd
        for tier in reversed(seen):
            thresholds.append(max(accuracy - price * later, 0.0))
            later = tier.cost_nano_usd.mean + tier.sure.share_below(thresholds[-1]) * later
        return later, thresholds

    dear = [cost for cost in (*(tier.cost_nano_usd.mean for tier in seen[1:]), last_nano_usd) if cost > 0]
    # At this price nothing is worth deferring.
    low, high = 0.0, (accuracy + 1e-9) / min(dear)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if at(middle)[0] <= pace_nano_usd else (middle, high)
    nano_usd, thresholds = at(high)
    cuts = [Cut(threshold=_snapped(one, tier.sure)) for one, tier in zip(reversed(thresholds), seen, strict=True)]
    return _ties_split(Solved(cuts=cuts, price=high, nano_usd=nano_usd), seen, last_nano_usd, pace_nano_usd)


def spend(cuts: Sequence[Cut], seen: Sequence[Seen], last_nano_usd: float) -> float:
    """What a request costs on average, in nano-USD, where its tiers keep by these cuts."""
    later = last_nano_usd
    for cut, tier in zip(reversed(cuts), reversed(seen), strict=True):
        later = tier.cost_nano_usd.mean + cut.deferred(tier.sure) * later
    return later


def drop(cuts: Sequence[Cut], seen: Sequence[Seen], accuracy: float) -> float:
    """The expected harm of a request, 1 is all accuracy: a − c of every answer kept, as far as c is calibrated."""
    total, reached = 0.0, 1.0
    for cut, tier in zip(cuts, seen, strict=True):
        kept = sum(accuracy - sure for sure in tier.sure if sure > cut.threshold)
        kept += cut.tie_fraction * (accuracy - cut.threshold) * tier.sure.share_at(cut.threshold) * len(tier.sure)
        total += reached * kept / len(tier.sure)
        reached *= cut.deferred(tier.sure)
    return total


def _snapped(threshold: float, sure: Recent) -> float:
    """The least confidence seen that the threshold keeps: the same to all that were seen, and it may have ties."""
    found = sure.at_least(threshold)
    return threshold if found is None else found


def _ties_split(solved: Solved, seen: Sequence[Seen], last_nano_usd: float, pace_nano_usd: float) -> Solved:
    """Confidences come in lumps; so much of the lump at the threshold is deferred that the spend meets the pace."""
    none = [Cut(threshold=cut.threshold, tie_fraction=0.0) for cut in solved.cuts]
    most = spend(none, seen, last_nano_usd)
    if most <= solved.nano_usd:
        return solved
    # Straight in the fraction with two tiers, and nearly so with more.
    fraction = min(max((most - pace_nano_usd) / (most - solved.nano_usd), 0.0), 1.0)
    cuts = [Cut(threshold=cut.threshold, tie_fraction=fraction) for cut in solved.cuts]
    return Solved(cuts=cuts, price=solved.price, nano_usd=spend(cuts, seen, last_nano_usd))


def cuts_of(bars: Mapping[str, Cut], tiers: Sequence[str]) -> list[Cut] | None:
    """In the tiers' order; None where one is not known yet."""
    return [bars[tier] for tier in tiers] if all(tier in bars for tier in tiers) else None
