"""The dashboard's questions to the ledger. Knows no HTML; all SQL of the dashboard is here.

Totals come from the roll-ups, however many traces there are. What the roll-ups lack (reasons, feedback, confidences) is
read of the newest traces only, at most ``SAMPLE`` and ``JUDGED`` of them, and says of how many. They block: call them
from a thread where an event loop runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from math import isfinite
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Engine, and_, exists, false, func, or_, select
from sqlalchemy.sql.elements import ColumnElement

from corea.dashboard.filters import DAY_S, DIMENSIONS, HOUR_S, NONE, Dimension, Filters
from corea.errors import InputError
from corea.ledger import feedback as said
from corea.ledger.database import explained
from corea.ledger.keys import list_keys
from corea.ledger.queries import HasEngine, engine_of, get_trace
from corea.ledger.records import Row
from corea.ledger.rollups import Group, Summary, summary
from corea.ledger.schema import LATENCIES, SUMS, AnyText, attempts, escape, feedback, rollups, traces
from corea.types import Trace

#: The newest requests whose decisions are looked at, and the newest with feedback.
SAMPLE = 2000
JUDGED = 5000
#: Bars that a chart of 400 pixels can show.
BARS = 48
#: Ids in one question: SQLite takes 999 parameters at least.
_CHUNK = 500

_GROUPS: Mapping[Dimension, Group] = {"task": "task", "key": "key_id", "profile": "profile", "route": "tier"}


# Totals


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """Sums over ``length_s`` seconds from ``start_unix_s`` on."""

    start_unix_s: int
    length_s: int
    sums: Summary


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """``by``: the largest group first. ``choices``: what may be chosen of each dimension, whatever else is chosen."""

    total: Summary
    by: Mapping[Dimension, Sequence[Summary]]
    choices: Mapping[Dimension, Sequence[str]]
    bars: Sequence[Bar]


def totals(source: HasEngine | Engine, filters: Filters, *, now_unix_s: float) -> Totals:
    """Sums over the period, of all that the filters let through, by each dimension and over time. Raises LedgerError.

    Only requests that began in the period count; ``outcome`` is not heeded.
    """
    since = filters.since_unix_s(now_unix_s)
    finest = summary(source, since_unix_s=since, by=tuple(_GROUPS.values()))
    matching = [one for one in finest if _matches(one, filters)]
    return Totals(
        total=added({}, matching),
        by={name: _by(name, matching) for name in DIMENSIONS},
        choices={name: [str(one.group[_GROUPS[name]]) for one in _by(name, finest)] for name in DIMENSIONS},
        bars=_bars(source, filters, since, now_unix_s),
    )


def choices(source: HasEngine | Engine, filters: Filters, *, now_unix_s: float) -> Mapping[Dimension, Sequence[str]]:
    """What may be chosen of each dimension in the period, the most frequent first. Raises LedgerError."""
    finest = summary(source, since_unix_s=filters.since_unix_s(now_unix_s), by=tuple(_GROUPS.values()))
    return {name: [str(one.group[_GROUPS[name]]) for one in _by(name, finest)] for name in DIMENSIONS}


def added(group: Mapping[str, str | int], parts: Iterable[Summary]) -> Summary:
    """One summary of several."""
    sums: Counter[str] = Counter()
    latencies = [0] * len(LATENCIES)
    for part in parts:
        sums.update({name: getattr(part, name) for name in _PLAIN})
        latencies = [a + b for a, b in zip(latencies, part.latencies, strict=True)]
    return Summary(group=group, latencies=tuple(latencies), **{name: sums[name] for name in _PLAIN})


_PLAIN = tuple(name for name in SUMS if name not in LATENCIES)


def _by(name: Dimension, parts: Sequence[Summary]) -> list[Summary]:
    group = _GROUPS[name]
    found: dict[str, list[Summary]] = {}
    for one in parts:
        found.setdefault(str(one.group[group]), []).append(one)
    return sorted((added({group: value}, some) for value, some in found.items()), key=lambda one: -one.traces)


def _matches(one: Summary, filters: Filters) -> bool:
    return all(filters.value(name) in (None, one.group[_GROUPS[name]]) for name in DIMENSIONS)


def _bars(source: HasEngine | Engine, filters: Filters, since: int | None, now_unix_s: float) -> list[Bar]:
    """Bars of equal length without gaps, about ``BARS`` at most, the last one ending now or later."""
    unit: Group = "hour" if since is not None and now_unix_s - since <= 8 * DAY_S else "day"
    unit_s = HOUR_S if unit == "hour" else DAY_S
    chosen = {str(_GROUPS[name]): filters.value(name) for name in DIMENSIONS}
    parts = summary(source, since_unix_s=since, by=(unit,), **chosen)  # type: ignore[arg-type]
    starts = [int(one.group[unit]) for one in parts]
    if not starts:
        return []
    first = min(starts) if since is None else since
    # A trace of a clock that runs ahead must not stretch the axis.
    first = min(first, int(now_unix_s))
    length_s = _length(int(now_unix_s) - first, unit_s)
    # Bars begin at midnight, where they can; so the first and the last may be shorter than they look.
    first, end = first // length_s * length_s, int(now_unix_s) // length_s * length_s + length_s
    found: dict[int, list[Summary]] = {}
    for one, start in zip(parts, starts, strict=True):
        found.setdefault((start - first) // length_s, []).append(one)
    return [
        Bar(start_unix_s=start, length_s=length_s, sums=added({}, found.get(i, ())))
        for i, start in enumerate(range(first, end, length_s))
    ]


def _length(whole_s: int, unit_s: int) -> int:
    steps = (1, 2, 3, 6, 12, 24) if unit_s == HOUR_S else (1, 2, 7, 14, 28)
    for step in steps:
        if whole_s / (step * unit_s) <= BARS:
            return step * unit_s
    return -(-whole_s // (BARS * unit_s)) * unit_s


# Traces


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """Where a page of the list ended: older ones come next. Holds also when that trace is gone."""

    started_at_unix_s: float
    id: str

    def __str__(self) -> str:
        return f"{self.started_at_unix_s!r}~{self.id}"

    @classmethod
    def read(cls, written: str | None) -> Cursor | None:
        """Raises :class:`InputError` for what is none."""
        if not written:
            return None
        started, _, id = written.partition("~")
        with suppress(ValueError):
            if isfinite(at := float(started)):
                return cls(started_at_unix_s=at, id=id)
        raise InputError("this page's address is damaged; go back to the newest requests")


_T = traces.c
_LISTED = (
    _T.id, _T.started_at_unix_s, _T.elapsed_s, _T.task, _T.key_id, _T.profile, _T.tier, _T.confidence, _T.deferred,
    _T.error, _T.cost_nano_usd, _T.saved_nano_usd,
)  # fmt: skip
_TEXTS = (_T.messages, _T.answer)


def page(
    source: HasEngine | Engine,
    filters: Filters,
    *,
    now_unix_s: float,
    limit: int,
    after: Cursor | None = None,
    texts: bool = True,
) -> tuple[list[Row], Cursor | None]:
    """The newest traces, newest first, older than ``after``; and where the next page goes on, if there is one.

    ``question`` and ``answer`` are None where texts are not stored, or not wanted; ``first`` is what decided about the
    first attempt, or None, and not read where no texts are wanted. Raises LedgerError.
    """
    engine = engine_of(source)
    with explained(engine), engine.connect() as connection:
        rows = _newest(connection, filters, now_unix_s, limit + 1, after, _LISTED + (_TEXTS if texts else ()))
        first = _first_attempts(connection, [row["id"] for row in rows]) if texts else {}
    for row in rows:
        messages = row.pop("messages", None)
        row["question"] = messages[-1]["content"] if messages else None
        row.setdefault("answer", None)
        row["first"] = first.get(row["id"])
    if len(rows) <= limit:
        return rows, None
    rows = rows[:limit]
    return rows, Cursor(started_at_unix_s=rows[-1]["started_at_unix_s"], id=rows[-1]["id"])


def pages(
    source: HasEngine | Engine, filters: Filters, *, now_unix_s: float, texts: bool, size: int = 1000
) -> Iterator[list[Row]]:
    """All of them, a page at a time. Raises LedgerError."""
    after: Cursor | None = None
    while True:
        rows, after = page(source, filters, now_unix_s=now_unix_s, limit=size, after=after, texts=texts)
        yield rows
        if after is None:
            return


def find(source: HasEngine | Engine, id_or_prefix: str) -> Trace | None:
    """The trace of this id, or the only one whose id starts so. Raises LedgerError."""
    engine = engine_of(source)
    # Not LIKE: in SQLite it ignores case and can't use the primary key.
    start = func.substr(_T.id, 1, len(escape(id_or_prefix)), type_=AnyText())
    near = and_(_T.id >= id_or_prefix, start == id_or_prefix)
    with explained(engine), engine.connect() as connection:
        ids = list(connection.scalars(select(_T.id).where(_T.id == id_or_prefix)))
        if not ids and id_or_prefix:
            ids = list(connection.scalars(select(_T.id).where(near).order_by(_T.id).limit(2)))
    return get_trace(engine, ids[0]) if len(ids) == 1 else None


def feedback_on(source: HasEngine | Engine, trace_id: str) -> list[Row]:
    """What was said of its answer, the newest first. Raises LedgerError."""
    engine, f = engine_of(source), feedback.c
    query = select(feedback).where(f.trace_id == trace_id).order_by(f.at_unix_s.desc(), f.source)
    with explained(engine), engine.connect() as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


def key_names(source: HasEngine | Engine) -> dict[str, str]:
    """Names of virtual keys by their ids. Raises LedgerError."""
    return {key.id: key.name for key in list_keys(source)}


def _first_attempts(connection: Connection, ids: Sequence[str]) -> dict[str, Row]:
    a = attempts.c
    wanted = (a.trace_id, a.reason, a.threshold, a.confidence, a.guard)
    found: dict[str, Row] = {}
    for some in _chunks(ids):
        query = select(*wanted).where(a.trace_id.in_(some), a.position == 0)
        found |= {row["trace_id"]: dict(row) for row in connection.execute(query).mappings()}
    return found


def _newest(
    connection: Connection,
    filters: Filters,
    now_unix_s: float,
    limit: int,
    after: Cursor | None,
    columns: Sequence[ColumnElement[Any]],
) -> list[Row]:
    since = filters.since_unix_s(now_unix_s)
    query = select(*columns).where(*_conditions(filters)).order_by(_T.started_at_unix_s.desc(), _T.id.desc())
    if after is not None:
        same = and_(_T.started_at_unix_s == after.started_at_unix_s, _T.id < after.id)
        # The first condition follows from the second, but only it can be looked up in the index.
        query = query.where(_T.started_at_unix_s <= after.started_at_unix_s)
        query = query.where(or_(_T.started_at_unix_s < after.started_at_unix_s, same))
    if not filters.narrow or connection.scalar(select(exists().where(traces.c.rolled_up == false()))):
        rows = connection.execute(query.where(*_from(since)).limit(limit)).mappings()
        return [dict(row) for row in rows]
    # There is an index of times only, so a rare task would be looked for among all traces. The roll-ups know the hours
    # in which there is any.
    found: list[Row] = []
    for hour in _hours(connection, filters, since, None if after is None else after.started_at_unix_s):
        within = query.where(_T.started_at_unix_s >= hour, _T.started_at_unix_s < hour + HOUR_S)
        found += [dict(row) for row in connection.execute(within.limit(limit - len(found))).mappings()]
        if len(found) == limit:
            break
    return found


def _hours(connection: Connection, filters: Filters, since: int | None, until: float | None) -> list[int]:
    """The beginnings of hours with traces that the filters let through, newest first."""
    r = rollups.c
    query = select(r.start_unix_s).distinct().where(r.span_s == HOUR_S).order_by(r.start_unix_s.desc())
    wanted = {name: filters.value(name) for name in DIMENSIONS}
    query = query.where(*(r[_GROUPS[name]] == value for name, value in wanted.items() if value is not None))
    if since is not None:
        query = query.where(r.start_unix_s >= since)
    if until is not None:
        query = query.where(r.start_unix_s <= until)
    some = {"kept": r.traces > r.deferred, "deferred": r.deferred > r.errors, "failed": r.errors > 0}
    if filters.outcome is not None:
        query = query.where(some[filters.outcome])
    return list(connection.scalars(query))


def _conditions(filters: Filters) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    for name in DIMENSIONS:
        column, value = _T[_GROUPS[name]], filters.value(name)
        if value is not None:
            found.append(column == value if value else or_(column.is_(None), column == ""))
    if filters.outcome == "kept":
        found.append(_T.deferred.is_(False))
    if filters.outcome in ("deferred", "failed"):
        found.append(_T.deferred.is_(True))
        found.append(_T.error.is_(filters.outcome == "failed"))
    return found


def _from(since: int | None) -> list[ColumnElement[bool]]:
    return [] if since is None else [_T.started_at_unix_s >= since]


# Decisions


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """So many attempts of a tier were decided for this reason; ``guard`` is the one that objected."""

    tier: str
    keep: bool
    reason: str
    guard: str | None
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """A policy decided so many attempts, and said this of the newest one."""

    policy: str
    count: int
    said: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decisions:
    """Of the newest ``requests``, at most ``SAMPLE``."""

    requests: int
    decided: Sequence[Decided]
    policies: Sequence[Spoken] = ()


def decisions(source: HasEngine | Engine, filters: Filters, *, now_unix_s: float) -> Decisions:
    """Why attempts were kept or deferred, the most frequent first. Raises LedgerError."""
    engine, a = engine_of(source), attempts.c
    counts: Counter[tuple[str, bool, str, str | None]] = Counter()
    with explained(engine), engine.connect() as connection:
        ids = [row["id"] for row in _newest(connection, filters, now_unix_s, SAMPLE, None, (_T.id,))]
        for some in _chunks(ids):
            query = select(a.tier, a.keep, a.reason, a.guard, func.count().label("n")).where(a.trace_id.in_(some))
            for row in connection.execute(query.group_by(a.tier, a.keep, a.reason, a.guard)):
                counts[row.tier, row.keep, row.reason, row.guard] += row.n
        policies = _spoken(connection, ids)
    decided = [
        Decided(tier=tier, keep=keep, reason=reason, guard=guard, count=n)
        for (tier, keep, reason, guard), n in sorted(counts.items(), key=lambda one: (-one[1], str(one[0])))
    ]
    return Decisions(requests=len(ids), decided=decided, policies=policies)


def _spoken(connection: Connection, ids: Sequence[str]) -> list[Spoken]:
    """By policy, the busiest first; ``ids`` are newest first."""
    a = attempts.c
    counts: Counter[str] = Counter()
    said: dict[str, tuple[int, str | None]] = {}
    place = {id: i for i, id in enumerate(ids)}
    query = select(a.trace_id, a.policy, func.coalesce(a.note, a.failure_message).label("said"))
    for some in _chunks(ids):
        for row in connection.execute(query.where(a.trace_id.in_(some), a.policy.is_not(None))):
            counts[row.policy] += 1
            said[row.policy] = min(said.get(row.policy, (len(ids), None)), (place[row.trace_id], row.said or ""))
    return [Spoken(policy=name, count=n, said=said[name][1] or None) for name, n in counts.most_common()]


def asked_first(source: HasEngine | Engine, filters: Filters, *, now_unix_s: float) -> list[Row]:
    """First attempts of the newest requests (at most ``SAMPLE``) that were judged by their confidence.

    With the whole request's cost, and what the last tier alone costs. Raises LedgerError.
    """
    engine, a = engine_of(source), attempts.c
    wanted = (_T.id, _T.deferred, _T.cost_nano_usd, _T.baseline_nano_usd)
    found: list[Row] = []
    with explained(engine), engine.connect() as connection:
        requests = {row["id"]: row for row in _newest(connection, filters, now_unix_s, SAMPLE, None, wanted)}
        for some in _chunks(list(requests)):
            query = select(
                a.trace_id, a.tier, a.reason, a.threshold, a.confidence, a.cost_nano_usd.label("attempt_nano_usd")
            ).where(a.trace_id.in_(some), a.position == 0, a.reason.not_in(_NOT_JUDGED))
            found += [{**requests[row["trace_id"]], **row} for row in connection.execute(query).mappings()]
    return found


#: Reasons of attempts that no threshold was held against.
_NOT_JUDGED = ("last_tier", "relayed")


# Feedback


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """An attempt of which feedback says how right it was (``correct``, 0 to 1; the mean where several spoke).

    ``told``: it is the answer that was handed out; else it follows from another one's, see ``ledger.feedback``.
    """

    trace_id: str
    tier: str
    reason: str
    keep: bool
    confidence: float | None
    correct: float
    told: bool


def judged(source: HasEngine | Engine, filters: Filters, *, now_unix_s: float) -> tuple[list[Judged], bool]:
    """Attempts of the newest ``JUDGED`` requests with feedback; and whether older ones of the period were left out.

    Raises LedgerError.
    """
    engine, f, a = engine_of(source), feedback.c, attempts.c
    since = filters.since_unix_s(now_unix_s)
    newest = (
        select(f.trace_id, func.avg(f.correct).label("correct"))
        .group_by(f.trace_id)
        .order_by(f.trace_id.desc())
        .limit(JUDGED)
        .subquery()
    )
    query = (
        select(
            newest.c.correct, _T.kind, _T.final, a.trace_id, a.position, a.tier, a.reason, a.keep, a.confidence,
            a.answer, a.failure_kind,
        )
        .select_from(newest.join(traces, _T.id == newest.c.trace_id).join(attempts, a.trace_id == _T.id))
        .where(_T.final.is_not(None), *_conditions(filters), *_from(since))
        .order_by(a.trace_id, a.position)
    )  # fmt: skip
    with explained(engine), engine.connect() as connection:
        rows = [dict(row) for row in connection.execute(query).mappings()]
        oldest = select(func.count(), func.min(_T.started_at_unix_s)).select_from(
            newest.join(traces, _T.id == newest.c.trace_id)
        )
        count, first_unix_s = connection.execute(oldest).one()
    found = [one for _, group in groupby(rows, key=itemgetter("trace_id")) for one in _known(list(group))]
    return found, count == JUDGED and first_unix_s >= (since or 0)


def _known(tried: Sequence[Row]) -> Iterator[Judged]:
    final = next(row for row in tried if row["position"] == row["final"])
    for row in tried:
        known = said.known(row, final, float(row["correct"]))
        if known is not None:
            yield Judged(
                trace_id=row["trace_id"], tier=row["tier"], reason=row["reason"], keep=row["keep"],
                confidence=row["confidence"], correct=known[0], told=known[1] == "told",
            )  # fmt: skip


def _chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for i in range(0, len(ids), _CHUNK):
        yield ids[i : i + _CHUNK]


def shown(value: str) -> str:
    """What a value of a dimension is called; "" is none."""
    return value or NONE
