"""Made-up days of traffic, drawn from real outcomes: when requests arrive, and what each tier has to say to each.

Knows no policy: an event holds what every tier *would* answer, and whoever replays it decides which of them is asked.
Needs corea[evaluate].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np

from corea.errors import InputError
from corea.evaluate.outcomes import CONFIDENCE, SIGNAL_COST, Outcomes
from corea.simulate.deciders import Clock
from corea.simulate.graded import reading_cost_nano_usd, signal_of

#: ``Clock`` too, for whoever plays a day.
__all__ = ["DAYS", "HOUR_S", "Answer", "Clock", "Day", "Event", "Pool", "Question", "Stretch", "burst", "drift"]
__all__ += ["events", "is_hard", "lull", "pool_of", "price_change", "steady"]

HOUR_S = 3600.0
_NEEDED = ["id", "tier", "task", "question", "correct", "error", "finish_reason", "cost_nano_usd", "latency_s"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a tier has to say. ``correct``: 0 to 1; the cost is that of the reply and of learning the confidence.

    ``confidence`` is None where it is unknown, for a reply that was cut off, and for a tier that is not asked for it.
    """

    confidence: float | None
    correct: float
    cost_nano_usd: int | None
    latency_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A request: when it arrives, after the day's beginning, and what each tier has to say, cheapest first.

    One question can come more than once. ``question`` is None where the outcomes hold no texts.
    """

    time_s: float
    id: str
    task: str | None
    question: str | None
    tiers: Mapping[str, Answer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A part of a day, from where the one before ends, in which requests arrive at random, ``per_hour`` on average."""

    until_s: float
    per_hour: float
    #: Share of the requests that are drawn from the questions the cheapest tier gets wrong; the others, from all.
    shift: float = 0.0
    #: What a tier's cost is multiplied by; a tier that is not named costs what it cost.
    price: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.per_hour >= 0:
            raise InputError(f"per_hour must be 0 or more, not {self.per_hour!r}; correct it")
        if not 0 <= self.shift <= 1:
            raise InputError(f"shift lies between 0 and 1, not {self.shift!r}; correct it")


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """Its stretches, in order. It ends where the last one does."""

    name: str
    arrivals: tuple[Stretch, ...]

    def __post_init__(self) -> None:
        ends = [0.0, *(stretch.until_s for stretch in self.arrivals)]
        if not all(before < after for before, after in pairwise(ends)):
            raise InputError(f'the stretches of the day "{self.name}" must end one after another; sort them by until_s')

    @property
    def length_s(self) -> float:
        return self.arrivals[-1].until_s if self.arrivals else 0.0

    @property
    def expected_requests(self) -> float:
        starts = [0.0, *(stretch.until_s for stretch in self.arrivals)]
        hours = ((s.until_s - start) / HOUR_S for start, s in zip(starts, self.arrivals, strict=False))
        return sum(h * s.per_hour for h, s in zip(hours, self.arrivals, strict=True))


def steady(per_hour: float, *, hours: float = 24.0) -> Day:
    return Day(name="steady", arrivals=(Stretch(until_s=hours * HOUR_S, per_hour=per_hour),))


def burst(per_hour: float, *, times: float = 5.0, at_h: float = 10.0, for_h: float = 2.0, hours: float = 24.0) -> Day:
    """``times`` as many requests, for a while."""
    return _interrupted("burst", per_hour, per_hour * times, at_h, for_h, hours)


def lull(per_hour: float, *, times: float = 0.1, at_h: float = 8.0, for_h: float = 8.0, hours: float = 24.0) -> Day:
    """A ``times`` as many requests, for a while: what a budget lays by, and what it then does with it."""
    return _interrupted("lull", per_hour, per_hour * times, at_h, for_h, hours)


def price_change(
    per_hour: float, *, tier: str = "large", times: float = 2.0, at_h: float = 12.0, hours: float = 24.0
) -> Day:
    """From ``at_h`` on, a tier costs ``times`` as much."""
    before = Stretch(until_s=at_h * HOUR_S, per_hour=per_hour)
    after = Stretch(until_s=hours * HOUR_S, per_hour=per_hour, price={tier: times})
    return Day(name="price change", arrivals=(before, after))


def drift(per_hour: float, *, shift: float = 0.6, at_h: float = 8.0, until_h: float = 16.0, hours: float = 24.0) -> Day:
    """From ``at_h``, more each hour until ``until_h``, the mix shifts to what the cheapest tier gets wrong."""
    steps = max(1, round(until_h - at_h))
    stretches = [Stretch(until_s=at_h * HOUR_S, per_hour=per_hour)]
    for step in range(1, steps + 1):
        end_h = hours if step == steps else at_h + step * (until_h - at_h) / steps
        stretches.append(Stretch(until_s=end_h * HOUR_S, per_hour=per_hour, shift=shift * step / steps))
    return Day(name="drift", arrivals=tuple(stretches))


def _interrupted(name: str, per_hour: float, then: float, at_h: float, for_h: float, hours: float) -> Day:
    ends = ((at_h, per_hour), (at_h + for_h, then), (hours, per_hour))
    return Day(name=name, arrivals=tuple(Stretch(until_s=end * HOUR_S, per_hour=rate) for end, rate in ends))


#: By name, each for so many requests an hour.
DAYS: Mapping[str, Callable[[float], Day]] = MappingProxyType(
    {"steady": steady, "burst": burst, "lull": lull, "price change": price_change, "drift": drift}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question of the outcomes, with every tier's answer."""

    id: str
    task: str | None
    question: str | None
    tiers: Mapping[str, Answer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """The questions that a day is drawn from, and how many others there are: a tier did not answer those."""

    questions: tuple[Question, ...]
    left_out: int


def pool_of(outcomes: Outcomes, *, signal: str | None = None) -> Pool:
    """The questions that every tier answered, its confidence read by ``signal`` (the only one, where there is one).

    Raises :class:`InputError` for a signal that is not there, or none named of several.
    """
    chosen = signal_of(outcomes, signal)
    columns = [*_NEEDED, CONFIDENCE + chosen, SIGNAL_COST + chosen]
    rows = outcomes.table.select([name for name in columns if name in outcomes.table.column_names]).to_pylist()
    by_id: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        by_id.setdefault(row["id"], {})[row["tier"]] = row
    complete = {
        id: tried
        for id, tried in by_id.items()
        if all(tier in tried and tried[tier]["error"] is None for tier in outcomes.tiers)
    }
    if not complete:
        raise InputError("no question was answered by all tiers; ask them with: corea eval run")
    found = (_question(id, [tried[tier] for tier in outcomes.tiers], chosen) for id, tried in complete.items())
    return Pool(questions=tuple(found), left_out=len(by_id) - len(complete))


def events(
    day: Day, outcomes: Outcomes | Pool, rng: np.random.Generator, *, signal: str | None = None
) -> Iterator[Event]:
    """The day's requests in order of time: Poisson arrivals, each of a question drawn with replacement.

    A generator in the same state gives the same day. Raises what ``pool_of`` raises, and :class:`InputError` for a day
    that wants questions the outcomes lack.
    """
    pool = outcomes if isinstance(outcomes, Pool) else pool_of(outcomes, signal=signal)
    for stretch in day.arrivals:
        _check(stretch, pool)
    return _events(day, pool, rng)


def _events(day: Day, pool: Pool, rng: np.random.Generator) -> Iterator[Event]:
    hard = tuple(question for question in pool.questions if is_hard(question))
    start_s = 0.0
    for stretch in day.arrivals:
        # The gaps have no memory, so each stretch may begin with a new one.
        for time_s in _arrivals(stretch, start_s, rng):
            among = hard if rng.random() < stretch.shift else pool.questions
            question = among[int(rng.integers(len(among)))]
            yield _event(question, time_s, stretch.price)
        start_s = stretch.until_s


def is_hard(question: Question) -> bool:
    """Whether the cheapest tier gets it wrong: more often than not, where several samples were averaged."""
    return next(iter(question.tiers.values())).correct < 0.5


def _arrivals(stretch: Stretch, start_s: float, rng: np.random.Generator) -> Iterator[float]:
    if stretch.per_hour == 0:
        return
    now_s = start_s
    while (now_s := now_s + float(rng.exponential(HOUR_S / stretch.per_hour))) < stretch.until_s:
        yield now_s


def _event(question: Question, time_s: float, price: Mapping[str, float]) -> Event:
    tiers = question.tiers
    if price:
        tiers = {name: _priced(answer, price.get(name, 1.0)) for name, answer in tiers.items()}
    return Event(time_s=time_s, id=question.id, task=question.task, question=question.question, tiers=tiers)


def _priced(answer: Answer, times: float) -> Answer:
    cost = None if answer.cost_nano_usd is None else round(answer.cost_nano_usd * times)
    return Answer(confidence=answer.confidence, correct=answer.correct, cost_nano_usd=cost, latency_s=answer.latency_s)


def _check(stretch: Stretch, pool: Pool) -> None:
    known = pool.questions[0].tiers
    if strangers := [name for name in stretch.price if name not in known]:
        raise InputError(
            f'the outcomes hold no tier "{strangers[0]}" to change the price of; they hold: {", ".join(known)}'
        )
    if stretch.shift > 0 and not any(map(is_hard, pool.questions)):
        raise InputError("the cheapest tier gets every question right, so none is hard; use other outcomes")


def _question(id: str, tried: list[dict[str, Any]], signal: str) -> Question:
    texts = (row["question"] for row in tried)
    tasks = (row["task"] for row in tried)
    last = len(tried) - 1
    return Question(
        id=id,
        task=next((task for task in tasks if task is not None), None),
        question=next((text for text in texts if text is not None), None),
        tiers=MappingProxyType({row["tier"]: _answer(row, signal, is_last=i == last) for i, row in enumerate(tried)}),
    )


def _answer(row: Mapping[str, Any], signal: str, *, is_last: bool) -> Answer:
    """As a cascade sees it that asks for this one signal; the last tier is not asked for it, and not billed for it."""
    cost, reading = row["cost_nano_usd"], 0 if is_last else reading_cost_nano_usd(row, signal)
    cut_off = row["finish_reason"] == "length"
    return Answer(
        confidence=None if cut_off or is_last else row[CONFIDENCE + signal],
        correct=row["correct"],
        cost_nano_usd=None if cost is None or reading is None else cost + reading,
        latency_s=row["latency_s"],
    )
