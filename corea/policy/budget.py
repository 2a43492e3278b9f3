"""A budget of an hour or a day, spent to the end of it and no faster: thresholds follow the price of money.

The answers most likely to be wrong are deferred, as many as the money left can pay for (:mod:`corea.policy.dual`), at
the pace that the traffic to come allows (:mod:`corea.policy.pace`). Spend can be steered between "keep all" and "defer
all", no further: a budget above that is not used up, and one below is overspent by what the cheapest tier costs. Knows
no database: what was spent is a :class:`~corea.policy.spent.Spent`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from corea.errors import InputError
from corea.policy.base import Bar, View
from corea.policy.drops import Drops
from corea.policy.dual import Cut, Seen, Solved, cuts_of, drop, solve, spend
from corea.policy.pace import Pace, pace
from corea.policy.recent import Recent
from corea.policy.spent import HOUR_S, Spent
from corea.types import Attempt, Reason, Trace

Per = Literal["hour", "day"]
WINDOW_H: dict[Per, int] = {"hour": 1, "day": 24}

#: Requests that costs and confidences are learned from, and how many of them it takes to begin.
_CONFIDENCES, _COSTS, _LEAST = 512, 256, 32
#: Solved anew after so many requests, but not before the first share of a window is over, and in any case after the
#: second.
_EVERY, _SOONEST, _LATEST = 8, 1 / 20_000, 1 / 2_000
#: What of a budget may be missed before it is said that it cannot be held.
_TOLERANCE = 0.02
_JUDGED = frozenset({Reason.CONFIDENT, Reason.BELOW_THRESHOLD, Reason.TIED})

#: Why a budget will not be held, as things go.
_TOO_MANY = "at this rate of requests, even keeping every answer costs more"
_FORBIDDEN = "the certificate forbids the thresholds that would hold it"

logger = logging.getLogger("corea.policy.budget")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is done, until it is looked at again. ``drop``: expected, of all requests; ``paid``: more than without it.

    ``short``: what stands in the way of the budget, where it will not be held.
    """

    pace: Pace
    cuts: Sequence[Cut] = ()
    price: float = 0.0
    drop: float = 0.0
    paid: float = 0.0
    short: str | None = None
    note: str = ""


class Budget:
    """One for each event loop; replicas share a ``spent`` that reads their ledger.

    ``floored``: whether certificates are in force after it, so that it knows what it cannot do. ``tightens=False``
    only ever lowers a bar, and so may leave money over. ``accuracy``: of the last tier, if that is known. ``drops``:
    what each threshold of the first of two tiers costs in accuracy, as measured; without it, what confidences say.
    """

    name = "budget"

    def __init__(
        self,
        *,
        nano_usd: int,
        per: Per,
        tiers: Sequence[str],
        spent: Spent,
        wall_clock: Callable[[], float],
        floored: bool = True,
        tightens: bool = True,
        accuracy: float = 1.0,
        drops: Drops | None = None,
        label: str = "budget",
    ) -> None:
        """``tiers``: names, cheapest first, the last one too. Raises :class:`InputError` for a budget of nothing."""
        if nano_usd <= 0:
            raise InputError("a budget of nothing pays for no answer at all; give it an amount, or leave it out")
        self.nano_usd = nano_usd
        self.per = per
        self.label = label
        self._tiers = tuple(tiers)
        self._spent = spent
        self._wall_clock = wall_clock
        self._floored = floored
        self._tightens = tightens
        self._accuracy = accuracy
        self._drops = drops
        self._since_s = wall_clock()
        self._seen = [Seen(sure=Recent(_CONFIDENCES), cost_nano_usd=Recent(_COSTS)) for _ in self._tiers]
        self._own: dict[str, Cut] = {}
        self._certified: set[str] = set()
        self._plan: Plan | None = None
        self._planned_at_s = 0.0
        self._new = 0
        self._told: tuple[int, str] | None = None

    @property
    def plan(self) -> Plan | None:
        """The one in force; None until a request came."""
        return self._plan

    def before(self, view: View, bar: Bar) -> Bar:
        if bar.threshold is None or view.own.threshold is None or view.tier not in self._tiers:
            return bar
        self._own[view.tier] = Cut(threshold=view.own.threshold, tie_fraction=view.own.tie_fraction)
        if view.certified:
            self._certified.add(view.tier)
        plan = self._planned()
        if plan.short is not None or plan.pace.left_nano_usd <= 0:
            # There is no money for asking two tiers at once.
            bar = replace(bar, hedge=None)
        if not plan.cuts:
            return bar
        cut = plan.cuts[self._tiers.index(view.tier)]
        moved = replace(bar, threshold=cut.threshold, tie_fraction=cut.tie_fraction, note=plan.note)
        # What another policy loosened before, it had a reason for.
        if (bar.policy is not None or not self._tightens) and bar.at_least(moved) is not bar:
            return bar
        return moved

    def after(self, trace: Trace) -> None:
        self._spent.note(trace)
        self._new += 1
        for attempt in trace.attempts:
            if attempt.tier in self._tiers:
                self._learn(self._seen[self._tiers.index(attempt.tier)], attempt)
        # Looked at here too: where nothing is certified, no tier's bar is ever asked for.
        self._planned()

    def _learn(self, seen: Seen, attempt: Attempt) -> None:
        if attempt.cost_nano_usd is not None and attempt.decision.reason is not Reason.TOO_LONG:
            seen.cost_nano_usd.add(attempt.cost_nano_usd)
        judged = attempt.decision.reason in _JUDGED and attempt.confidence.value is not None
        seen.sure.add(attempt.confidence.value if judged and attempt.confidence.value is not None else -1.0)

    def _planned(self) -> Plan:
        now_s = self._wall_clock()
        # However the clock jumps.
        share = abs(now_s - self._planned_at_s) / (WINDOW_H[self.per] * HOUR_S)
        if self._plan is None or share >= _LATEST or (self._new >= _EVERY and share >= _SOONEST):
            self._plan = self._made(now_s)
            self._planned_at_s, self._new = now_s, 0
            self._tell(self._plan)
        return self._plan

    def _made(self, now_s: float) -> Plan:
        found = pace(
            self._spent.hours(),
            now_s=now_s,
            budget_nano_usd=self.nano_usd,
            window_h=WINDOW_H[self.per],
            unknown_nano_usd=sum(tier.cost_nano_usd.mean for tier in self._seen),
            since_s=self._since_s,
        )
        judged, last = self._seen[:-1], self._seen[-1].cost_nano_usd
        enough = all(len(tier.sure) >= _LEAST for tier in judged) and len(last) > 0
        own = cuts_of(self._own, self._tiers[:-1])
        if not enough or own is None:
            over = -found.left_nano_usd > _TOLERANCE * self.nano_usd
            return Plan(pace=found, short="nothing could be kept so far" if over else None)
        solved = solve(judged, last.mean, pace_nano_usd=found.per_request_nano_usd, accuracy=self._accuracy)
        if solved is None:
            return Plan(pace=found)
        return self._told_of(found, solved, own)

    def _told_of(self, found: Pace, solved: Solved, own: Sequence[Cut]) -> Plan:
        """With what is expected of it, once the certificates had their say."""
        judged, last = self._seen[:-1], self._seen[-1].cost_nano_usd.mean
        floors = [self._floored and tier in self._certified for tier in self._tiers[:-1]]
        obeyed = [
            cut.stricter(mine) if floor else cut for cut, mine, floor in zip(solved.cuts, own, floors, strict=True)
        ]
        expected = spend(obeyed, judged, last)
        over = expected * found.requests_left - found.left_nano_usd
        short = None
        if over > _TOLERANCE * self.nano_usd:
            short = _TOO_MANY if obeyed == list(solved.cuts) else _FORBIDDEN
        total = self._drop(obeyed)
        paid = total - self._drop(own)
        return Plan(
            pace=found,
            cuts=solved.cuts,
            price=solved.price,
            drop=total,
            paid=paid,
            short=short,
            note=self._note(found, paid, short),
        )

    def _drop(self, cuts: Sequence[Cut]) -> float:
        if self._drops is not None:
            return self._drops.at(cuts[0])
        return drop(cuts, self._seen[:-1], self._accuracy)

    def _note(self, found: Pace, paid: float, short: str | None) -> str:
        share = found.spent_nano_usd / self.nano_usd
        told = f"{share:.0%} of the {self.per}'s budget spent at {found.passed:.0%} of it"
        if short is not None:
            return f"{told}; it cannot be held: {short}"
        if paid <= 0:
            return told
        measured = "" if self._drops is None else f", as measured on {self._drops.n:,} questions"
        return f"{told}; expected to cost {100 * paid:.2g} points{measured}"

    def _tell(self, plan: Plan) -> None:
        """Once a window, and not once a request."""
        if plan.short is None or self._told == (plan.pace.window, plan.short):
            return
        self._told = (plan.pace.window, plan.short)
        usd = self.nano_usd / 1e9
        mend = "raise it"
        if plan.short == _FORBIDDEN:
            mend += ", or give up the promise with certified = false"
        logger.warning(
            "%s: the budget of $%.4g a %s will not be held: %s; %s", self.label, usd, self.per, plan.short, mend
        )
