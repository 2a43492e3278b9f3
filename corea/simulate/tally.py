"""Adds up requests that were followed both ways: money, deferrals, latency, and what can be known of accuracy.

Money may be estimated, and says so; of accuracy there are only bounds (:mod:`corea.simulate.accuracy`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from corea.simulate.accuracy import Drop, Drops, change_of, harm_of, is_judged
from corea.simulate.estimate import Learned, Money, Total
from corea.simulate.followed import Followed, Way
from corea.simulate.paths import Form

_NO_MONEY = Form()


class Latencies:
    """A histogram whose buckets grow by 1 %, so that a quantile is right to half of that, in little memory."""

    _GROWTH = math.log(1.01)

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self.unknown = 0

    def add(self, latency_s: float | None) -> None:
        if latency_s is None:
            self.unknown += 1
            return
        self._counts[math.floor(math.log(max(latency_s, 1e-6)) / self._GROWTH)] += 1

    def quantile_s(self, share: float) -> float | None:
        """The nearest rank; None where no latency is known."""
        rank = max(1, math.ceil(share * self._counts.total()))
        for bucket in sorted(self._counts):
            rank -= self._counts[bucket]
            if rank <= 0:
                return math.exp((bucket + 0.5) * self._GROWTH)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Of requests: equal ends where it is known of each."""

    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One way, added up. ``unanswered`` are requests that no tier answered."""

    requests: int
    deferral: Share
    unanswered: int
    cost: Money
    always_large: Money
    saved: Money
    p50_s: float | None
    p95_s: float | None
    latency_unknown: int
    drop: Drop

    @property
    def saving(self) -> float | None:
        """Saved, as a share of always asking the last tier."""
        if self.saved.value is None or not self.always_large.value:
            return None
        return self.saved.value / self.always_large.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """As it would be, less as it was, request by request: what is unknown in both alike is not unknown here."""

    cost: Money
    saved: Money
    drop: Drop


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """How the requests' cost, as it would be, is known. The four add up to all requests."""

    exact: int
    #: A tier's cost is estimated.
    estimated: int
    #: It hangs on what a tier that was not asked would have said, or on a text that is not stored.
    open: int
    #: A cost on the way is not recorded, or nothing can be learned about it; it is in no sum.
    unknown: int
    #: Whatever the cost: answered by another tier than before.
    answered_otherwise: int
    #: Kept now and deferred then, and the text is not stored: guards could not be asked about them.
    unguarded: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """``task=None`` with ``all_tasks``: all of them together."""

    task: str | None
    all_tasks: bool
    was: Side
    would: Side
    difference: Difference
    coverage: Coverage


@dataclass(slots=True)
class _Sums:
    """One way's."""

    cost: Total = field(default_factory=Total)
    alone: Total = field(default_factory=Total)
    saved: Total = field(default_factory=Total)
    latencies: Latencies = field(default_factory=Latencies)
    drops: Drops = field(default_factory=Drops)
    deferred: int = 0
    open: int = 0
    unanswered: int = 0


class _Group:
    def __init__(self) -> None:
        self.requests = 0
        self.was, self.would = _Sums(), _Sums()
        self.cost, self.saved = Total(), Total()
        self.drops = Drops()
        self.covered: Counter[str] = Counter()

    def add(self, one: Followed) -> None:
        self.requests += 1
        for way, sums in ((one.was, self.was), (one.would, self.would)):
            _add_way(one, way, sums)
        was, would = one.was, one.would
        _add(self.cost, one, would.cost.minus(was.cost), up=would.more, down=was.more)
        saved = would.alone.minus(would.cost).minus(was.alone.minus(was.cost))
        _add(self.saved, one, saved, up=was.more, down=would.more)
        if is_judged(one, was) and is_judged(one, would):
            self.drops.add(change_of(one))
        self.covered[_covered(one)] += 1
        self.covered["unguarded"] += would.path.unguarded
        self.covered["otherwise"] += was.path.answered_by != would.path.answered_by and not would.path.open

    def result(self, task: str | None, *, all_tasks: bool, learned: Sequence[Learned], seed: int) -> Result:
        return Result(
            task=task,
            all_tasks=all_tasks,
            was=self._side(self.was, learned, seed),
            would=self._side(self.would, learned, seed),
            difference=Difference(
                cost=self.cost.money(learned, seed), saved=self.saved.money(learned, seed), drop=self.drops.told
            ),
            coverage=Coverage(
                exact=self.covered["exact"],
                estimated=self.covered["estimated"],
                open=self.covered["open"],
                unknown=self.covered["unknown"],
                answered_otherwise=self.covered["otherwise"],
                unguarded=self.covered["unguarded"],
            ),
        )

    def _side(self, sums: _Sums, learned: Sequence[Learned], seed: int) -> Side:
        n = max(self.requests, 1)
        return Side(
            requests=self.requests,
            deferral=Share(low=sums.deferred / n, high=(sums.deferred + sums.open) / n),
            unanswered=sums.unanswered,
            cost=sums.cost.money(learned, seed),
            always_large=sums.alone.money(learned, seed),
            saved=sums.saved.money(learned, seed),
            p50_s=sums.latencies.quantile_s(0.5),
            p95_s=sums.latencies.quantile_s(0.95),
            latency_unknown=sums.latencies.unknown,
            drop=sums.drops.told,
        )


class Tally:
    """Sums over all requests, and over those of each task if that is wanted."""

    def __init__(self, *, by_task: bool = False) -> None:
        self._all = _Group()
        self._tasks: dict[str | None, _Group] = {}
        self._by_task = by_task
        self._learned: tuple[Learned, ...] = ()

    def add(self, one: Followed) -> None:
        self._learned = one.learned
        self._all.add(one)
        if self._by_task:
            self._tasks.setdefault(one.task, _Group()).add(one)

    def results(self, seed: int) -> list[Result]:
        """All tasks together, then each by itself."""
        of_tasks = sorted(self._tasks.items(), key=lambda item: item[0] or "")
        return [
            self._all.result(None, all_tasks=True, learned=self._learned, seed=seed),
            *(group.result(task, all_tasks=False, learned=self._learned, seed=seed) for task, group in of_tasks),
        ]


def _add_way(one: Followed, way: Way, sums: _Sums) -> None:
    path = way.path
    _add(sums.cost, one, way.cost, up=way.more)
    _add(sums.alone, one, way.alone)
    _add(sums.saved, one, way.alone.minus(way.cost), down=way.more)
    sums.latencies.add(way.latency_s)
    if path.open:
        # A tier that was asked may be the one that answers; one that is missing may be it as well.
        first = path.asked[0].tier if path.asked else next(iter(path.missing), None)
        may_keep_first = first == one.ladder[0] and len(path.asked) + len(path.missing) == 1
        sums.open += may_keep_first
        sums.deferred += not may_keep_first
    else:
        sums.deferred += path.answered_by != one.ladder[0]
        sums.unanswered += path.answered_by is None
    if is_judged(one, way):
        sums.drops.add(harm_of(one, way.path))


def _add(total: Total, one: Followed, form: Form, *, up: Form | None = None, down: Form | None = None) -> None:
    """Adds a sum with its unknowns, each under the key by which it can be looked up."""
    up, down = up or _NO_MONEY, down or _NO_MONEY
    wanted = [
        (where, book, tier, times)
        for where, part in (("sum", form), ("up", up), ("down", down))
        for (tier, book), times in part.unknowns.items()
    ]
    source, tokens = one.source
    found = [
        (where, book, key, times)
        for where, book, tier, times in wanted
        if (key := one.learned[book].key(one.task, source, tier)) is not None
    ]
    if len(found) < len(wanted):
        # All of it or nothing, as in the ledger's own sums.
        total.add(0, unknown=1)
        return
    total.add(form.exact)
    if up != _NO_MONEY or down != _NO_MONEY:
        total.add_open(up=up.exact, down=down.exact)
    for where, book, key, times in found:
        total.add_unknown(key, book, tokens if key[1] else (0.0, 0.0), times, where)


def _covered(one: Followed) -> str:
    way = one.would
    keys = [one.learned[book].key(one.task, one.source[0], tier) for tier, book in way.cost.plus(way.more).unknowns]
    if None in keys:
        return "unknown"
    if way.path.open:
        return "open"
    return "estimated" if keys else "exact"
