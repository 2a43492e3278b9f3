"""What every threshold would do: risk against coverage, accuracy against net cost; and where confidence is off.

One sort, then cumulative sums. Equal confidences are kept or deferred together, an unknown one is always deferred.
A curve describes the questions at hand and promises nothing: certificates do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from corea.errors import InputError
from corea.evaluate.metrics import Estimate, Ranked, bin_starts, check_correct, rank
from corea.evaluate.outcomes import Floats, Pair

_Z = 1.959963984540054


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskCoverage:
    """Error rate of the kept answers against their share of all n questions, (m,) each, strictest threshold first.

    ``note`` tells of unknown confidences: they are never covered, so the last coverage is below 1.
    """

    thresholds: Floats
    coverage: Floats
    risk: Floats
    n: int
    note: str | None = None

    def thin(self, points: int) -> RiskCoverage:
        """At most so many points, evenly spread over coverage, the ends among them."""
        at = spread(self.coverage, points)
        return replace(self, thresholds=self.thresholds[at], coverage=self.coverage[at], risk=self.risk[at])


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """Mean accuracy and cost of one tier alone; the cost is None where that of any question is unknown."""

    accuracy: float
    cost_nano_usd: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeferralCurve:
    """Accuracy and cost a question at every threshold (keep if confidence ≥ threshold), (m,) each, strictest first.

    The first threshold is +inf: everything is deferred. ``cost_nano_usd`` is net, with the small model's own cost;
    ``saving`` is 1 − cost ÷ the large model's. ``kept_accuracy`` is NaN where nothing is kept. Costs and savings are
    None where the cost of any question is unknown, and ``note`` says of how many.
    """

    thresholds: Floats
    deferral_rate: Floats
    accuracy: Floats
    kept_accuracy: Floats
    cost_nano_usd: Floats | None
    saving: Floats | None
    small: Ends
    large: Ends
    n: int
    note: str | None = None

    def thin(self, points: int) -> DeferralCurve:
        """At most so many points, evenly spread over the deferral rate, the ends among them."""
        at = spread(self.deferral_rate, points)
        return replace(
            self,
            thresholds=self.thresholds[at],
            deferral_rate=self.deferral_rate[at],
            accuracy=self.accuracy[at],
            kept_accuracy=self.kept_accuracy[at],
            cost_nano_usd=None if self.cost_nano_usd is None else self.cost_nano_usd[at],
            saving=None if self.saving is None else self.saving[at],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """Stated against true: questions whose confidence lies in [least, most]; ``low``, ``high``: 95 % (Wilson)."""

    least: float
    most: float
    n: int
    confidence: float
    accuracy: float
    low: float
    high: float


def risk_coverage(correct: Floats, ranked: Ranked) -> RiskCoverage:
    """``correct``: shape (n,). Geifman and El-Yaniv 2017, arXiv 1705.08500."""
    checked = check_correct(correct)
    kept = np.cumsum(ranked.sizes)
    risk = 1 - np.cumsum(ranked.sums(checked)) / kept
    return RiskCoverage(
        thresholds=ranked.values,
        coverage=kept / ranked.n,
        risk=risk,
        n=ranked.n,
        note=ranked.unknown_note("never covered"),
    )


def curve_of(pair: Pair, signal: str) -> DeferralCurve:
    """The curve of one of the pair's signals, its cost included. Raises :class:`InputError` if the pair lacks it."""
    return deferral_curve(pair.judged_by(signal), rank(pair.confidence[signal]))


def deferral_curve(pair: Pair, ranked: Ranked, *, small_first: bool = True) -> DeferralCurve:
    """Accuracy and net cost at every threshold.

    ``small_first=False`` is a router, which decides before the small model is asked: a deferred question then costs
    the large model alone.
    """
    n = len(pair)
    if n != ranked.n:
        raise InputError(f"{n} questions but {ranked.n} confidences; they must be of the same questions")
    small, large = check_correct(pair.small_correct), check_correct(pair.large_correct)
    kept = _from_none(ranked.sizes)
    right = _from_none(ranked.sums(small))
    accuracy = (large.sum() + right - _from_none(ranked.sums(large))) / n
    cost, saving, note = _costs(pair, ranked, small_first=small_first)
    return DeferralCurve(
        thresholds=np.concatenate(([np.inf], ranked.values)),
        deferral_rate=1 - kept / n,
        accuracy=accuracy,
        kept_accuracy=np.divide(right, kept, out=np.full_like(right, np.nan), where=kept > 0),
        cost_nano_usd=cost,
        saving=saving,
        small=Ends(accuracy=float(small.mean()), cost_nano_usd=_known_mean(pair.small_cost_nano_usd)),
        large=Ends(accuracy=float(large.mean()), cost_nano_usd=_known_mean(pair.large_cost_nano_usd)),
        n=n,
        note="; ".join(filter(None, (ranked.unknown_note("always deferred"), note))) or None,
    )


def area_under(curve: DeferralCurve) -> Estimate:
    """Mean accuracy over all budgets from the small model's cost to the large model's, a question.

    Between two thresholds' costs the accuracy is interpolated: a budget in between is spent by mixing them at random.
    Always asking the small model joins the curve where unknown confidences keep it from getting there. Costs above the
    large model's are left out: nobody needs a cascade for them (compare AIQ of RouterBench, arXiv 2403.12031).
    """
    low, high = curve.small.cost_nano_usd, curve.large.cost_nano_usd
    if curve.cost_nano_usd is None or low is None or high is None:
        return Estimate(value=None, n=curve.n, note=curve.note)
    if low >= high:
        return Estimate(value=None, n=curve.n, note="the small model costs no less than the large one")
    # Costs fall along a cascade's curve, but not along a router's: sorted, the better of equal ones last.
    costs = np.append(curve.cost_nano_usd, low)
    accuracies = np.append(curve.accuracy, curve.small.accuracy)
    order = np.lexsort((accuracies, costs)) if np.any(np.diff(costs) > 0) else slice(None, None, -1)
    costs, accuracies = costs[order], accuracies[order]
    inside = (costs > low) & (costs < high)
    xs = np.concatenate(([low], costs[inside], [high]))
    ys = np.concatenate(([np.interp(low, costs, accuracies)], accuracies[inside], [np.interp(high, costs, accuracies)]))
    return Estimate(value=float(np.trapezoid(ys, xs) / (high - low)), n=curve.n, note=curve.note)


def oracle_kept(pair: Pair) -> NDArray[np.bool_]:
    """Keep where the small model is right, or the large one is no better: (n,).

    Of all ways to keep and defer, none is more accurate, and of those as accurate none defers less, hence none costs
    less. It knows the gold answers: a bound, not a policy.
    """
    return np.asarray(check_correct(pair.small_correct) >= check_correct(pair.large_correct))


def share_of_oracle_saving(curve: DeferralCurve, pair: Pair, *, epsilon: float = 0.02) -> Estimate:
    """The largest saving within ``epsilon`` of the large model's accuracy, as a share of the oracle cascade's saving.

    Never below 0: one can always ask the large model alone. May exceed 1, as the oracle gives up no accuracy where
    this may give up ``epsilon``. The threshold is chosen on the questions at hand, so it flatters.
    """
    if curve.saving is None or not curve.large.cost_nano_usd:
        return Estimate(value=None, n=curve.n, note=curve.note)
    deferred = np.where(oracle_kept(pair), 0.0, pair.large_cost_nano_usd)
    oracle = 1 - float((pair.small_cost_nano_usd + deferred).mean()) / curve.large.cost_nano_usd
    if oracle <= 0:
        return Estimate(value=None, n=curve.n, note="even the oracle saves nothing")
    # A hundredth of an answer's weight of slack, for sums of fractions.
    within = curve.accuracy >= curve.large.accuracy - epsilon - 0.01 / curve.n
    best = max(float(curve.saving[within].max(initial=0.0)), 0.0)
    return Estimate(value=best / oracle, n=curve.n, note=curve.note)


def reliability(correct: Floats, ranked: Ranked, *, bins: int = 10, equal_mass: bool = False) -> list[ReliabilityBin]:
    """Bins that hold any question, least confident first: the reliability diagram, and what ECE is summed over."""
    if not len(ranked.order):
        return []
    starts = bin_starts(ranked, bins)[int(equal_mass)]
    sizes, stated, right = (
        np.add.reduceat(x, starts)
        for x in (ranked.sizes, ranked.sizes * ranked.values, ranked.sums(check_correct(correct)))
    )
    lasts = np.append(starts[1:], len(ranked.values)) - 1
    lows, highs = _wilson(right / sizes, sizes)
    return [
        ReliabilityBin(
            least=float(ranked.values[lasts[i]]),
            most=float(ranked.values[starts[i]]),
            n=int(sizes[i]),
            confidence=float(stated[i] / sizes[i]),
            accuracy=float(right[i] / sizes[i]),
            low=float(lows[i]),
            high=float(highs[i]),
        )
        for i in reversed(range(len(starts)))
    ]


def spread(along: Floats, points: int) -> NDArray[np.intp]:
    """Places of at most so many of a monotone sequence's values, evenly spread, both ends among them."""
    if points < 2:
        raise InputError(f"a curve needs at least its 2 ends; {points} points were asked for")
    if len(along) <= points:
        return np.arange(len(along))
    rising = along if along[-1] >= along[0] else -along
    inner = np.searchsorted(rising, np.linspace(rising[0], rising[-1], points)[1:-1])
    return np.unique(np.concatenate(([0], inner, [len(along) - 1])))


def _costs(pair: Pair, ranked: Ranked, *, small_first: bool) -> tuple[Floats | None, Floats | None, str | None]:
    small, large = pair.small_cost_nano_usd, pair.large_cost_nano_usd
    total = large.sum()
    if np.isnan(small.sum() + total):
        unknown = int(np.count_nonzero(np.isnan(small + large)))
        return None, None, f"cost unknown for {unknown} of {len(pair)}"
    asked = small.sum() if small_first else _from_none(ranked.sums(small))
    cost = (asked + total - _from_none(ranked.sums(large))) / len(pair)
    if not total:
        return cost, None, "the large model costs nothing: no saving"
    return cost, 1 - cost * (len(pair) / total), None


def _from_none(per_group: Floats) -> Floats:
    """Sums over the kept ones at each threshold, the first of which keeps none: (g,) → (g + 1,)."""
    sums = np.zeros(len(per_group) + 1)
    np.cumsum(per_group, out=sums[1:])
    return sums


def _known_mean(cost: Floats) -> float | None:
    mean = float(cost.mean())
    return None if np.isnan(mean) else mean


def _wilson(share: Floats, n: Floats) -> tuple[Floats, Floats]:
    """Wilson's 95 % interval of a proportion (1927)."""
    centre = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * np.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    return centre - half, centre + half
