"""Sums over hours and days, so that a summary never reads a million traces.

A trace is added in the transaction that writes it. One written by a replica that knows no roll-ups is marked so, is
counted from its own row until :func:`roll_up` adds it, and is never counted twice. Pruned traces stay in the sums.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Engine, and_, case, false, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from corea.errors import InputError
from corea.ledger.database import explained, turn
from corea.ledger.queries import HasEngine, engine_of
from corea.ledger.records import Row, attribution
from corea.ledger.schema import LATENCIES, LATENCY_EDGES_S, SUMS, attempts, rollups, traces
from corea.types import Attempt, Trace, Usage

HOUR_S, DAY_S = 3600, 86_400
Group = Literal["tier", "task", "key_id", "profile", "hour", "day"]
GROUPS: tuple[Group, ...] = ("tier", "task", "key_id", "profile", "hour", "day")

_GROUPED = ("tier", "task", "key_id", "profile")
_KEY = ("span_s", "start_unix_s", *_GROUPED)
# Sums must stay in 64 bits whatever a trace claims: no answer costs a million dollars or has 10¹² tokens.
_MOST_NANO_USD, _MOST_TOKENS = 10**15, 10**12
_LAST_UNIX_S = 10**11


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Sums over traces of one group. A sum holds what is known; how many traces it lacks stands next to it."""

    #: What the group is, e.g. {"tier": "small"}; "" stands for none, and ``hour`` and ``day`` are their beginning.
    group: Mapping[str, str | int] = field(default_factory=dict)
    traces: int = 0
    deferred: int = 0
    errors: int = 0
    cost_nano_usd: int = 0
    cost_unknown: int = 0
    saved_nano_usd: int = 0
    saved_unknown: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    tokens_unknown: int = 0
    #: Traces by latency: as many as ``LATENCY_EDGES_S`` has edges, and those above the last.
    latencies: tuple[int, ...] = (0,) * len(LATENCIES)

    @property
    def deferral_rate(self) -> float | None:
        return self.deferred / self.traces if self.traces else None

    def latency_s(self, quantile: float) -> float | None:
        """From the histogram, so within a factor of two. Above the last edge it is that edge; None of nothing."""
        rank, below = quantile * sum(self.latencies), 0
        if not sum(self.latencies):
            return None
        for i, count in enumerate(self.latencies[:-1]):
            if count and below + count >= rank:
                low = LATENCY_EDGES_S[i] / 2
                return low * 2 ** max((rank - below) / count, 0.0)
            below += count
        return LATENCY_EDGES_S[-1]


def summary(
    source: HasEngine | Engine,
    *,
    since_unix_s: float | None = None,
    until_unix_s: float | None = None,
    by: Sequence[Group] = (),
    tier: str | None = None,
    task: str | None = None,
    key_id: str | None = None,
    profile: str | None = None,
) -> list[Summary]:
    """Sums by group, the largest group first; of whole hours: ``since`` and ``until`` are rounded down to them.

    ``tier`` is the one whose answer was handed out, "" where none was. Without ``by``, one summary of all. Raises
    LedgerError, and InputError for an unknown group.
    """
    if unknown := [group for group in by if group not in GROUPS]:
        raise InputError(f'no group is called "{unknown[0]}"; there are: {", ".join(GROUPS)}')
    engine = engine_of(source)
    since = None if since_unix_s is None else _start(since_unix_s, HOUR_S)
    until = None if until_unix_s is None else _start(until_unix_s, HOUR_S)
    wanted = {"tier": tier, "task": task, "key_id": key_id, "profile": profile}
    narrowed = [rollups.c[name] == value for name, value in wanted.items() if value is not None]
    grouped = [_group_column(group) for group in by]
    found: dict[tuple[Any, ...], Counter[str]] = {}
    query = select(*grouped, *(func.sum(rollups.c[name]).label(name) for name in SUMS))
    query = query.where(_spans(since, until, hourly="hour" in by), *narrowed).group_by(*grouped)
    with explained(engine), engine.connect() as connection:
        for told in connection.execute(query).mappings():
            sums = Counter({name: int(told[name] or 0) for name in SUMS})
            found[tuple(told[group] for group in by)] = sums
        for row in _missing(connection):
            if _within(row, since, until) and all(v is None or row[n] == v for n, v in wanted.items()):
                at = tuple(_start(row["started"], _SPANS[g]) if g in _SPANS else row[g] for g in by)
                found.setdefault(at, Counter()).update(row["sums"])
    summaries = [_summary(dict(zip(by, at, strict=True)), sums) for at, sums in found.items()]
    if not by:
        return summaries or [Summary()]
    return sorted(summaries, key=lambda one: (-one.traces, str(one.group)))


def roll_up(source: HasEngine | Engine, *, batch: int = 1000) -> int:
    """Adds the traces that replicas of an older version wrote, a batch a transaction. How many it added."""
    engine, done = engine_of(source), 0
    while True:
        with explained(engine), turn(engine), engine.begin() as connection:
            # The update comes first and locks its rows: two replicas that do this at once never add a trace twice.
            ids = select(traces.c.id).where(_NOT_ROLLED_UP).order_by(traces.c.id).limit(batch)
            if engine.dialect.name == "postgresql":
                ids = ids.with_for_update(skip_locked=True)
            mark = update(traces).where(traces.c.id.in_(ids.scalar_subquery())).values(rolled_up=True)
            marked = [row.id for row in connection.execute(mark.returning(traces.c.id))]
            facts = [fact for part in _chunks(marked, 500) for fact in _facts(connection, traces.c.id.in_(part))]
            add(connection, summed(facts))
        done += len(marked)
        if len(marked) < batch:
            return done


def facts_of(trace: Trace) -> Row:
    """What of a trace is added up."""
    key_id, profile = attribution(trace)
    usages = [usage for attempt in trace.attempts for usage in (attempt.usage, attempt.confidence_usage) if usage]
    tokens = sum(usages, Usage())
    return _fact(
        tier=trace.tier, task=trace.request.task, key_id=key_id, profile=profile, started=trace.started_at_unix_s,
        elapsed_s=trace.elapsed_s, deferred=trace.deferred, error=trace.final is None, cost=trace.cost_nano_usd,
        saved=trace.saved_nano_usd, prompt=tokens.prompt_tokens, completion=tokens.completion_tokens,
        uncounted=sum(map(_is_uncounted, trace.attempts)),
    )  # fmt: skip


def summed(facts: Iterable[Row]) -> list[Row]:
    """Rows of ``rollups`` to add, in the order of their keys: so two replicas never wait for each other in a circle."""
    found: dict[tuple[Any, ...], Counter[str]] = {}
    for fact in facts:
        for span_s in (HOUR_S, DAY_S):
            at = (span_s, _start(fact["started"], span_s), *(fact[name] for name in _GROUPED))
            found.setdefault(at, Counter()).update(fact["sums"])
    return [{**dict(zip(_KEY, at, strict=True)), **{name: found[at][name] for name in SUMS}} for at in sorted(found)]


def add(connection: Connection, rows: Sequence[Row]) -> None:
    if rows:
        connection.execute(_ADD[connection.dialect.name], rows)


def _adding(insert: Any) -> Any:
    statement = insert(rollups)
    return statement.on_conflict_do_update(
        index_elements=_KEY, set_={name: rollups.c[name] + statement.excluded[name] for name in SUMS}
    )


_ADD = {"sqlite": _adding(sqlite.insert), "postgresql": _adding(postgresql.insert)}
_NOT_ROLLED_UP = traces.c.rolled_up == false()
_SPANS: dict[str, int] = {"hour": HOUR_S, "day": DAY_S}


def _fact(
    *, tier: str | None, task: str | None, key_id: str | None, profile: str | None, started: float, elapsed_s: float,
    deferred: bool, error: bool, cost: int | None, saved: int | None, prompt: int, completion: int, uncounted: int,
) -> Row:  # fmt: skip
    sums = {
        "traces": 1,
        "deferred": int(deferred),
        "errors": int(error),
        "cost_nano_usd": _within_most(cost or 0, _MOST_NANO_USD),
        "cost_unknown": int(cost is None),
        "saved_nano_usd": _within_most(saved or 0, _MOST_NANO_USD),
        "saved_unknown": int(saved is None),
        "prompt_tokens": _within_most(prompt, _MOST_TOKENS),
        "completion_tokens": _within_most(completion, _MOST_TOKENS),
        "tokens_unknown": int(uncounted > 0),
        LATENCIES[bisect_left(LATENCY_EDGES_S, elapsed_s)]: 1,
    }
    return {
        "tier": tier or "", "task": task or "", "key_id": key_id or "", "profile": profile or "",
        "started": started, "sums": sums,
    }  # fmt: skip


def _is_uncounted(attempt: Attempt) -> bool:
    return (attempt.usage is None and attempt.answered) or attempt.confidence_usage is None


def _missing(connection: Connection) -> list[Row]:
    return _facts(connection, _NOT_ROLLED_UP)


def _facts(connection: Connection, which: ColumnElement[bool]) -> list[Row]:
    """Facts of stored traces."""
    t, a = traces.c, attempts.c
    uncounted = or_(and_(a.prompt_tokens.is_(None), a.failure_kind.is_(None)), a.confidence_prompt_tokens.is_(None))
    query = (
        select(
            t.tier, t.task, t.key_id, t.profile, t.started_at_unix_s.label("started"), t.elapsed_s, t.deferred, t.error,
            t.cost_nano_usd.label("cost"), t.saved_nano_usd.label("saved"),
            _sum(func.coalesce(a.prompt_tokens, 0) + func.coalesce(a.confidence_prompt_tokens, 0)).label("prompt"),
            _sum(func.coalesce(a.completion_tokens, 0) + func.coalesce(a.confidence_completion_tokens, 0)).label(
                "completion"
            ),
            _sum(case((and_(a.trace_id.is_not(None), uncounted), 1), else_=0)).label("uncounted"),
        )
        .select_from(traces.outerjoin(attempts, a.trace_id == t.id))
        .where(which)
        .group_by(t.id)
    )  # fmt: skip
    # PostgreSQL's sums are decimals.
    whole = ("prompt", "completion", "uncounted")
    rows: list[Row] = [dict(row) for row in connection.execute(query).mappings()]
    return [_fact(**row | {name: int(row[name]) for name in whole}) for row in rows]


def _sum(counts: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.coalesce(func.sum(counts), 0)


def _spans(since: int | None, until: int | None, *, hourly: bool) -> ColumnElement[bool]:
    """Days where they lie whole between the two times, hours at the edges; only hours where each is wanted."""
    r = rollups.c
    hours, days = r.span_s == HOUR_S, r.span_s == DAY_S
    first = None if since is None else -(-since // DAY_S) * DAY_S
    last = None if until is None else until // DAY_S * DAY_S
    inside = [
        *([] if since is None else [r.start_unix_s >= since]),
        *([] if until is None else [r.start_unix_s < until]),
    ]
    if hourly or (first is not None and last is not None and first >= last):
        return and_(hours, *inside)
    whole = and_(
        days,
        *([] if first is None else [r.start_unix_s >= first]),
        *([] if last is None else [r.start_unix_s < last]),
    )
    before = [] if since is None else [and_(hours, r.start_unix_s >= since, r.start_unix_s < first)]
    after = [] if until is None else [and_(hours, r.start_unix_s >= last, r.start_unix_s < until)]
    return or_(whole, *before, *after)


def _group_column(group: Group) -> ColumnElement[Any]:
    if group not in _SPANS:
        return rollups.c[group].label(group)
    # Plain arithmetic on integers, so that SQLite and PostgreSQL agree.
    start = rollups.c.start_unix_s
    return (start - start % _SPANS[group]).label(group)


def _within(row: Row, since: int | None, until: int | None) -> bool:
    hour = _start(row["started"], HOUR_S)
    return (since is None or hour >= since) and (until is None or hour < until)


def _summary(group: dict[str, Any], sums: Counter[str]) -> Summary:
    plain = {name: sums[name] for name in SUMS if name not in LATENCIES}
    return Summary(group=group, latencies=tuple(sums[name] for name in LATENCIES), **plain)


def _start(unix_s: float, span_s: int) -> int:
    known = 0.0 if math.isnan(unix_s) else min(max(unix_s, 0.0), float(_LAST_UNIX_S))
    return int(known // span_s) * span_s


def _within_most(value: int, most: int) -> int:
    return max(-most, min(value, most))


def _chunks(items: Sequence[str], size: int) -> Iterable[Sequence[str]]:
    for i in range(0, len(items), size):
        yield items[i : i + size]
