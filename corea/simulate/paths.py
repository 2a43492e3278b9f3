"""The way of one request through the tiers, as it was or as it would have been. Pure: no clock, no ledger, no price.

What is not recorded is not guessed: a tier that was never asked is *missing* on the way, and where all depends on what
it would have said, the way is *open* from there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from corea.guards.base import Guard, Judged
from corea.guards.registry import first_objection
from corea.policy.ties import fraction
from corea.simulate.deciders import Choice, Decider
from corea.simulate.traffic import UNASKED, Past
from corea.types import Attempt, Reason

#: What another threshold can overturn. Whatever else made an attempt be deferred, or kept, stands.
_BY_THRESHOLD = frozenset({Reason.CONFIDENT, Reason.BELOW_THRESHOLD, Reason.TIED})
_FINAL = frozenset({Reason.LAST_TIER, Reason.RELAYED})
#: Stands for the tier after the last one that was seen.
NOBODY_KNOWS = "?"

#: The guards in force at a tier.
GuardsOf = Callable[[str], Sequence[Guard]]


def no_guards(tier: str) -> Sequence[Guard]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """``asked``: the attempts on the way that are recorded. ``missing``: tiers on it that were never asked.

    ``open``: tiers that may follow, recorded or not; nobody can know. ``answered_by`` is None where no tier answered,
    and where the way is open.
    """

    asked: tuple[Attempt, ...] = ()
    missing: tuple[str, ...] = ()
    open: tuple[str, ...] = ()
    answered_by: str | None = None
    #: It is kept now, and its text is not stored: a guard might have objected.
    unguarded: bool = False


class Ladders:
    """Which tiers a request could have gone through, learned from those that went furthest.

    A trace holds the tiers it went through in order, those that were left out too, so it is the beginning of its
    ladder. Ladders are kept apart by profile; ``known`` are those of the configuration.
    """

    def __init__(self, known: Iterable[Sequence[str]] = ()) -> None:
        self._known = [tuple(ladder) for ladder in known]
        self._seen: dict[str | None, Counter[tuple[str, ...]]] = {}
        #: Those whose last tier kept an answer by its threshold, so that it cannot be the last one.
        self._unfinished: set[tuple[str | None, tuple[str, ...]]] = set()
        self._found: dict[tuple[str | None, tuple[str, ...]], tuple[str, ...]] = {}

    def see(self, past: Past) -> None:
        if past.relayed:
            return
        tiers = past.tiers
        seen = self._seen.setdefault(past.profile, Counter())
        seen[tiers] += 1
        if past.attempts[-1].decision.reason is Reason.CONFIDENT:
            self._unfinished.add((past.profile, tiers))
        self._found.clear()

    def of(self, past: Past) -> tuple[str, ...]:
        """Names, cheapest first; ends with ``NOBODY_KNOWS`` where no request has gone as far as the last one."""
        if past.relayed:
            return past.tiers or (NOBODY_KNOWS,)
        at = (past.profile, past.tiers)
        if at not in self._found:
            self._found[at] = self._whole(*at)
        return self._found[at]

    @property
    def tiers(self) -> tuple[str, ...]:
        """All names that were seen, in the order of the longest ladders."""
        every = sorted({tiers for seen in self._seen.values() for tiers in seen}, key=len, reverse=True)
        return tuple(dict.fromkeys(name for tiers in every for name in tiers))

    @property
    def usual(self) -> tuple[str, ...]:
        """The one that most requests could have gone through."""
        whole: Counter[tuple[str, ...]] = Counter()
        for profile, seen in self._seen.items():
            for tiers, n in seen.items():
                whole[self._whole(profile, tiers)] += n
        return max(whole, key=lambda tiers: whole[tiers], default=())

    @property
    def last(self) -> frozenset[str]:
        """Those that no other one ever came after, and that kept an answer by no threshold."""
        before = {name for seen in self._seen.values() for tiers in seen for name in tiers[:-1]}
        kept = {tiers[-1] for _, tiers in self._unfinished}
        return frozenset(self.tiers) - before - kept

    def _whole(self, profile: str | None, start: tuple[str, ...]) -> tuple[str, ...]:
        seen = self._seen.get(profile, Counter())
        going_on = [tiers for tiers in seen if _begins(tiers, start)]
        furthest = [one for one in going_on if not any(_begins(other, one) and other != one for other in going_on)]
        found = max(furthest, key=lambda tiers: seen[tiers], default=start)
        if (profile, found) not in self._unfinished:
            return found
        known = next((tiers for tiers in self._known if _begins(tiers, found) and len(tiers) > len(found)), None)
        return known or (*found, NOBODY_KNOWS)


def _begins(tiers: Sequence[str], start: Sequence[str]) -> bool:
    return tuple(tiers[: len(start)]) == tuple(start)


def follow(past: Past, ladder: Sequence[str], decider: Decider, guards: GuardsOf = no_guards) -> Path:
    """The way the request takes where ``decider`` decides; ``guards`` judge what was deferred then and is kept now."""
    tried = {attempt.tier: attempt for attempt in past.attempts}
    asked: list[Attempt] = []
    unguarded = False
    for at, tier in enumerate(ladder):
        attempt = tried.get(tier)
        is_last = at == len(ladder) - 1
        if attempt is None and _ended_early(past, at):
            break
        choice = None if is_last or _is_final(attempt) else decider.decide(past, tier)
        if choice is not None and choice.skip:
            continue
        if attempt is None or (choice is not None and attempt.decision.reason in UNASKED):
            later = () if is_last else tuple(ladder[at + 1 :])
            return Path(asked=tuple(asked), missing=(tier,), open=later, answered_by=tier if is_last else None)
        asked.append(attempt)
        kept = keeps(attempt, choice, past.question)
        if kept and not attempt.decision.keep and (judges := guards(tier)):
            unguarded = not attempt.text
            kept = unguarded or first_objection(judges, _judged(attempt, past)) is None
        if kept is None:
            return Path(asked=tuple(asked), open=tuple(ladder[at + 1 :]))
        if kept:
            return Path(asked=tuple(asked), answered_by=tier, unguarded=unguarded)
    best = past.trace.tier if past.trace.final is not None else None
    return Path(asked=tuple(asked), answered_by=best if best in {attempt.tier for attempt in asked} else None)


def keeps(attempt: Attempt, choice: Choice | None, question: str | None) -> bool | None:
    """Whether the answer is kept under another choice; None where only the question's lost text could tell."""
    decision, confidence = attempt.decision, attempt.confidence.value
    if choice is None or decision.reason not in _BY_THRESHOLD or confidence is None:
        return decision.keep
    if confidence != choice.threshold or choice.tie_fraction >= 1:
        return confidence >= choice.threshold
    return None if question is None else fraction(question) <= choice.tie_fraction


def _judged(attempt: Attempt, past: Past) -> Judged:
    return Judged(
        question=past.question or "",
        text=attempt.text,
        answer=attempt.answer,
        kind=past.trace.request.kind,
        confidence=attempt.confidence,
        finish_reason=attempt.finish_reason,
    )


def _is_final(attempt: Attempt | None) -> bool:
    return attempt is not None and attempt.decision.reason in _FINAL


def _ended_early(past: Past, at: int) -> bool:
    """Whether the request was over before a tier could be asked: the caller went away, or a failure was final."""
    return past.trace.final is None and at >= len(past.attempts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A sum of money with unknowns: an exact part, and how often each unknown is in it (which may be negative).

    An unknown is what a tier would cost, by one of two price lists.
    """

    exact: int = 0
    unknowns: Mapping[tuple[str, int], int] = field(default_factory=dict)

    def plus(self, other: Form, times: int = 1) -> Form:
        """What is unknown in both alike, with opposite signs, is in the sum no more."""
        unknowns = self.unknowns
        if other.unknowns:
            names = self.unknowns.keys() | other.unknowns.keys()
            sums = {one: self.unknowns.get(one, 0) + times * other.unknowns.get(one, 0) for one in names}
            unknowns = {one: n for one, n in sums.items() if n != 0}
        return Form(exact=self.exact + times * other.exact, unknowns=unknowns)

    def minus(self, other: Form) -> Form:
        return self.plus(other, -1)
