"""What can be known of the accuracy lost on either way. Nothing is estimated.

Where nobody said whether an answer was right, both possibilities count, so what comes out are the least and the most
that the drop can have been on these very requests.
"""

from __future__ import annotations

from dataclasses import dataclass

from corea.audit.harm import Between, drop_between
from corea.grading.answers import boolean_of, choice_of, number_of, same_answer
from corea.simulate.followed import Followed, Way
from corea.simulate.paths import Path
from corea.types import Attempt

_NOTHING = Between(least=0.0, most=0.0)
_ANYTHING = Between(least=-1.0, most=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """(large right − given right) ÷ ``n``: how low and high it can have been. ``unknown``: requests that leave it open.

    ``n`` counts those that were answered, and not handed to one tier as they were.
    """

    low: float
    high: float
    unknown: int
    n: int


@dataclass(slots=True)
class Drops:
    low: float = 0.0
    high: float = 0.0
    unknown: int = 0
    n: int = 0

    def add(self, harm: Between) -> None:
        self.low += harm.least
        self.high += harm.most
        self.unknown += harm.least < harm.most
        self.n += 1

    @property
    def told(self) -> Drop:
        n = max(self.n, 1)
        return Drop(low=self.low / n, high=self.high / n, unknown=self.unknown, n=self.n)


def is_judged(one: Followed, way: Way) -> bool:
    return not one.past.relayed and (way.path.answered_by is not None or bool(way.path.open))


def harm_of(one: Followed, path: Path) -> Between:
    """Large right − given right."""
    last = one.ladder[-1]
    if path.answered_by is not None:
        return _between(one, path.answered_by, last)
    # It may be the last tier that answers, which harms nothing; or any other one on the way.
    asked = path.asked[-1:] if not path.missing else ()
    may = [_between(one, attempt.tier, last) for attempt in asked]
    may += [_NOTHING] if len(path.open) == 1 and not path.missing else [_ANYTHING]
    return Between(least=min(0.0, *(b.least for b in may)), most=max(0.0, *(b.most for b in may)))


def change_of(one: Followed) -> Between:
    """The drop as it would be, less the drop as it was: right before − right now."""
    before, now = one.was.path.answered_by, one.would.path.answered_by
    if before is None or now is None:
        was, would = harm_of(one, one.was.path), harm_of(one, one.would.path)
        return Between(least=max(-1.0, would.least - was.most), most=min(1.0, would.most - was.least))
    return _between(one, now, before)


def _between(one: Followed, given: str, other: str) -> Between:
    """Other right − given right, from what was said of them and from whether they agree."""
    if given == other:
        return _NOTHING
    past, right = one.past, one.past.right
    if given in right and other in right:
        return Between(least=right[other] - right[given], most=right[other] - right[given])
    tried = {attempt.tier: attempt for attempt in past.attempts}
    agree = agrees(tried.get(given), tried.get(other), past.trace.request.kind)
    if agree is None and {given, other} == {past.trace.tier, one.ladder[-1]}:
        agree = past.audit_agrees
    return drop_between(
        agrees=agree,
        small_right=_right(tried.get(given), right.get(given)),
        large_right=_right(tried.get(other), right.get(other)),
    )


def _right(attempt: Attempt | None, said: float | None) -> bool | None:
    if attempt is not None and attempt.failure is not None:
        # It was asked, and has no answer that could be right. One that was left out might have had.
        return None if attempt.failure.kind in ("NotCertified", "TierSkipped") else False
    return None if said is None or said not in (0.0, 1.0) else said == 1.0


def agrees(first: Attempt | None, second: Attempt | None, kind: str | None) -> bool | None:
    """Whether two short answers say the same; None where they can't be compared for sure."""
    if first is None or second is None or first.answer is None or second.answer is None:
        return None
    if same_answer(first.answer, second.answer):
        return True
    read = {"number": number_of, "choice": choice_of, "boolean": boolean_of}.get(kind or "")
    if read is None:
        # Two texts can say the same in other words.
        return None
    one, two = read(first.answer), read(second.answer)
    return None if one is None or two is None else one == two
