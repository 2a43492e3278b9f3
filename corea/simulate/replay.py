"""Replays requests: as they were, and as they would have been under another decider, other prices, or both.

Two passes, each of which holds one request at a time: the first learns what tiers cost and how long they take, the
second follows each request both ways. Knows no ledger and no files: it takes requests from wherever they come.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from random import Random

from corea.prices import Price
from corea.simulate.deciders import AsRecorded, Decider
from corea.simulate.estimate import Learned, Tokens
from corea.simulate.followed import Followed, Way
from corea.simulate.paths import Form, GuardsOf, Ladders, Path, follow, no_guards
from corea.simulate.tally import Tally
from corea.simulate.traffic import UNASKED, Past
from corea.types import Attempt, Confidence, Decision, Failure, Reason, Trace

#: Latencies of a tier that are remembered, to draw those of requests that did not reach it.
_REMEMBERED = 500

Requests = Callable[[], Iterable[Past]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Other prices by tier; a tier that has none costs what it did."""

    by_tier: Mapping[str, Price] = field(default_factory=dict)

    def cost_nano_usd(self, attempt: Attempt) -> int | None:
        price = self.by_tier.get(attempt.tier)
        # What failed or was not asked has no tokens: it cost nothing, or nobody knows what.
        if price is None or not attempt.answered:
            return attempt.cost_nano_usd
        if attempt.usage is None or attempt.confidence_usage is None:
            return None
        return price.cost_nano_usd(attempt.usage + attempt.confidence_usage)


class Survey:
    """The first pass: ladders, costs at both price lists, latencies, and who judged how."""

    def __init__(self, prices: Prices, *, ladders: Ladders, rng: Random) -> None:
        same = not prices.by_tier
        #: As it was, as it would be; the same where prices are.
        self.prices = (Prices(), prices)
        learned = Learned()
        self.learned = (learned, learned if same else Learned())
        self.same_prices = same
        self.ladders = ladders
        self.requests = 0
        #: When the first one began.
        self.first_unix_s = math.inf
        #: Confidence sources of each tier, and fingerprints.
        self.sources: dict[str, Counter[str]] = {}
        self.fingerprints: Counter[str] = Counter()
        self._latencies: dict[tuple[str | None, str], list[float]] = {}
        self._seen: Counter[tuple[str | None, str]] = Counter()
        self._rng = rng

    def see(self, past: Past) -> None:
        self.requests += 1
        self.first_unix_s = min(self.first_unix_s, past.trace.started_at_unix_s)
        self.ladders.see(past)
        self.fingerprints[past.trace.fingerprint] += 1
        if past.relayed:
            return
        tokens = {attempt.tier: tokens_of(attempt) for attempt in past.attempts if attempt.answered}
        known = {tier: counted for tier, counted in tokens.items() if counted is not None}
        for attempt in past.attempts:
            if not attempt.answered:
                continue
            self._see(past, attempt, {tier: counted for tier, counted in known.items() if tier != attempt.tier})

    def latency_s(self, task: str | None, tier: str) -> float | None:
        """One of those the tier took, for this task if there are any; drawn, so that their scatter stays."""
        remembered = self._latencies.get((task, tier)) or self._latencies.get(("", tier))
        return self._rng.choice(remembered) if remembered else None

    def _see(self, past: Past, attempt: Attempt, others: Mapping[str, Tokens]) -> None:
        task = past.trace.request.task
        for prices, learned in zip(self.prices[: 1 if self.same_prices else 2], self.learned, strict=False):
            if (cost := prices.cost_nano_usd(attempt)) is not None:
                learned.add(task, attempt.tier, cost, others)
        for at in {(task, attempt.tier), ("", attempt.tier)}:
            self._remember(at, attempt.latency_s)
        if attempt.confidence.value is not None:
            self.sources.setdefault(attempt.tier, Counter())[attempt.confidence.source] += 1

    def _remember(self, at: tuple[str | None, str], latency_s: float) -> None:
        """Vitter's reservoir: each latency is as likely to be remembered as any other."""
        kept = self._latencies.setdefault(at, [])
        self._seen[at] += 1
        if len(kept) < _REMEMBERED:
            kept.append(latency_s)
            return
        place = self._rng.randrange(self._seen[at])
        if place < _REMEMBERED:
            kept[place] = latency_s


def survey(
    requests: Iterable[Past], *, prices: Prices | None = None, ladders: Ladders | None = None, rng: Random
) -> Survey:
    """The first pass. ``ladders``: with those of the configuration, where the traffic may not show them whole."""
    made = Survey(prices or Prices(), ladders=ladders or Ladders(), rng=rng)
    for past in requests:
        made.see(past)
    return made


def replay(
    requests: Iterable[Past],
    known: Survey,
    would: Decider,
    *,
    was: Decider | None = None,
    guards: GuardsOf = no_guards,
    by_task: bool = False,
) -> Tally:
    """The second pass, over the same requests in order of time.

    ``was``: by default, what was decided then. ``guards``: those that judge, as it would be, what was deferred then.
    """
    tally = Tally(by_task=by_task)
    before = was or AsRecorded()
    for past in requests:
        followed = compare(past, known, before, would, guards)
        tally.add(followed)
        # A policy learns only of requests that it had a say in.
        if not past.relayed:
            would.observe(_as_it_would_be(past, known, followed.would))
    return tally


def compare(past: Past, known: Survey, was: Decider, would: Decider, guards: GuardsOf = no_guards) -> Followed:
    """One request, followed both ways."""
    ladder = known.ladders.of(past)
    if past.relayed:
        was = would = AsRecorded()
    before, now = follow(past, ladder, was), follow(past, ladder, would, guards)
    return Followed(
        past=past,
        was=_way(past, known, before, ladder[-1], book=0),
        would=_way(past, known, now, ladder[-1], book=0 if known.same_prices else 1),
        ladder=ladder,
        learned=known.learned,
        source=source_of(past),
    )


def _way(past: Past, known: Survey, path: Path, last: str, *, book: int) -> Way:
    prices = known.prices[book]
    cost = Form()
    for attempt in path.asked:
        cost = cost.plus(_recorded(attempt, prices, book))
    for tier in path.missing:
        cost = cost.plus(_unknown(tier, book))
    tried = {attempt.tier: attempt for attempt in past.attempts if attempt.decision.reason not in UNASKED}
    more = Form()
    for tier in path.open:
        more = more.plus(_recorded(tried[tier], prices, book) if tier in tried else _unknown(tier, book))
    alone = _recorded(tried[last], prices, book) if last in tried else _unknown(last, book)
    return Way(path=path, book=book, cost=cost, more=more, alone=alone, latency_s=_latency_s(past, known, path))


def _recorded(attempt: Attempt, prices: Prices, book: int) -> Form:
    cost = prices.cost_nano_usd(attempt)
    # Neither recorded nor to be learned: it is the same unknown on every way, at the same prices.
    return Form(unknowns={(f"{attempt.tier}, not recorded", book): 1}) if cost is None else Form(exact=cost)


def _unknown(tier: str, book: int) -> Form:
    return Form(unknowns={(tier, book): 1})


def _latency_s(past: Past, known: Survey, path: Path) -> float | None:
    """All tiers after one another; None where it hangs on what nobody knows."""
    if path.open:
        return None
    total = sum(attempt.latency_s for attempt in path.asked)
    for tier in path.missing:
        drawn = known.latency_s(past.trace.request.task, tier)
        if drawn is None:
            return None
        total += drawn
    return total


def tokens_of(attempt: Attempt) -> Tokens | None:
    usage = attempt.usage
    return None if usage is None else (float(usage.prompt_tokens), float(usage.completion_tokens))


def source_of(past: Past) -> tuple[str, Tokens]:
    """The tier whose tokens tell most about a tier that was not asked: the first that answered."""
    counted: Iterator[tuple[str, Tokens | None]] = ((a.tier, tokens_of(a)) for a in past.attempts if a.answered)
    return next(((tier, tokens) for tier, tokens in counted if tokens is not None), ("", (0.0, 0.0)))


def _as_it_would_be(past: Past, known: Survey, way: Way) -> Trace:
    """The trace that a policy is told. A tier that was not asked costs what a line says, and no answer is known."""
    prices = known.prices[way.book]
    by_tier = {a.tier: replace(a, cost_nano_usd=prices.cost_nano_usd(a)) for a in way.path.asked}
    by_tier |= {tier: _imagined(past, known, tier, way) for tier in way.path.missing}
    ladder = known.ladders.of(past)
    reached = max((at for at, tier in enumerate(ladder) if tier in by_tier), default=-1)
    attempts = tuple(by_tier.get(tier) or _left_out(tier) for tier in ladder[: reached + 1])
    costs = [attempt.cost_nano_usd for attempt in attempts]
    places = [at for at, attempt in enumerate(attempts) if attempt.tier == way.path.answered_by]
    return replace(
        past.trace,
        attempts=attempts,
        final=places[-1] if places else None,
        elapsed_s=way.latency_s or 0.0,
        cost_nano_usd=None if None in costs else sum(cost for cost in costs if cost is not None),
        baseline_nano_usd=way.alone.exact if not way.alone.unknowns else None,
    )


def _imagined(past: Past, known: Survey, tier: str, way: Way) -> Attempt:
    source, tokens = source_of(past)
    learned = known.learned[way.book]
    key = learned.key(past.trace.request.task, source, tier)
    cost = None if key is None else max(0, round(learned.line(key).at(1, tokens if key[1] else (0.0, 0.0))))
    return Attempt(
        tier=tier,
        model=tier,
        decision=Decision(keep=True, reason=Reason.LAST_TIER),
        confidence=Confidence.unknown("none", "this tier was not asked; its cost is estimated"),
        cost_nano_usd=cost,
        # There is one such tier on a way, so what the rest did not take is its own.
        latency_s=max((way.latency_s or 0.0) - sum(attempt.latency_s for attempt in way.path.asked), 0.0),
    )


def _left_out(tier: str) -> Attempt:
    return Attempt(
        tier=tier,
        model=tier,
        decision=Decision(keep=False, reason=Reason.SKIPPED),
        confidence=Confidence.unknown("none", "this tier was left out"),
        cost_nano_usd=0,
        failure=Failure(kind="TierSkipped", message=f"{tier} was left out"),
    )
