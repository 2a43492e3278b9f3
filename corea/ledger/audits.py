"""The audit's rows: what was drawn, how it ended, what feedback says, and the alarms. Decides nothing, asks no model.

Everything here blocks: call it from a thread where an event loop runs. Each function raises LedgerError.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Engine, case, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from corea.errors import InputError
from corea.ledger.database import explained, turn
from corea.ledger.ids import new_trace_id
from corea.ledger.queries import HasEngine, engine_of
from corea.ledger.records import Row
from corea.ledger.schema import alarms, attempts, audits, feedback, traces

State = Literal["passed", "deferred", "paused", "running", "done", "failed", "lost"]
#: Those that were drawn. A lost one's replica died, or forgot it.
DRAWN: tuple[State, ...] = ("running", "done", "failed", "lost")
NAME = "audit"
#: What may be asked.
Source = HasEngine | Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRow:
    """A row of ``audits``; ``task=""`` is the watch of all tasks without one of their own."""

    trace_id: str
    task: str
    epoch: int
    bar: float
    state: State
    propensity: float
    day: int
    asked_at_unix_s: float
    questions: int = 1
    uniform: bool = False
    agrees: bool | None = None
    reserved_nano_usd: int = 0
    harm_least: float | None = None
    harm_most: float | None = None
    was_right: bool | None = None
    cost_nano_usd: int | None = None
    ended_at_unix_s: float | None = None
    why: str | None = None
    revision: int = 0
    #: Where it stands in the order; given by the database.
    place: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How an audit ended. ``agrees=None``: nobody knows whether the answers are the same."""

    trace_id: str
    state: State
    agrees: bool | None
    harm_least: float
    harm_most: float
    cost_nano_usd: int | None
    at_unix_s: float
    why: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmRow:
    """An alarm; open until it is cleared. A step of None is to always defer."""

    id: str
    name: str
    task: str
    #: In which it rang; the next one began with it.
    epoch: int
    raised_at_unix_s: float
    text: str
    limit: float
    low: float
    high: float
    audited: int
    step_before: float | None
    step_after: float | None
    cleared_at_unix_s: float | None = None
    cleared_epoch: int | None = None
    approved_by: str | None = None
    approved_at_unix_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditCosts:
    """What audits came to; ``unknown`` ones are in no sum, and what was reserved for them is ``reserved_nano_usd``."""

    audits: int
    cost_nano_usd: int
    unknown: int
    reserved_nano_usd: int


def add(source: Source, rows: Sequence[AuditRow]) -> None:
    """Stores rows in this order. One whose trace is there already is not stored again."""
    engine = engine_of(source)
    values = [{name: value for name, value in asdict(row).items() if name != "place"} for row in rows]
    if not values:
        return
    with explained(engine), turn(engine), engine.begin() as connection:
        for value in values:
            # One by one: only so do both databases number them in this order.
            connection.execute(_NEW[connection.dialect.name], value)


def end(source: Source, ending: Ending) -> bool:
    """Stores how an audit ended. The first end counts; of a later one only what it cost is kept, and False returned."""
    engine = engine_of(source)
    a = audits.c
    ended = {
        "state": ending.state, "agrees": ending.agrees, "harm_least": ending.harm_least,
        "harm_most": ending.harm_most, "cost_nano_usd": ending.cost_nano_usd, "ended_at_unix_s": ending.at_unix_s,
        "why": ending.why,
    }  # fmt: skip
    with explained(engine), turn(engine), engine.begin() as connection:
        of_this = update(audits).where(a.trace_id == ending.trace_id)
        if connection.execute(of_this.where(a.state == "running").values(ended)).rowcount:
            return True
        if ending.cost_nano_usd is not None:
            connection.execute(of_this.where(a.cost_nano_usd.is_(None)).values(cost_nano_usd=ending.cost_nano_usd))
        return False


def read(
    source: Source, *, task: str, epoch: int, bar: float, after: int = 0, limit: int | None = None
) -> list[AuditRow]:
    """The evidence of a watch in an epoch, under a bar, in order; those after a place."""
    a = audits.c
    query = select(audits).where(*_evidence(task, epoch, bar), a.place > after).order_by(a.place).limit(limit)
    return [AuditRow(**row) for row in _mappings(source, query)]


def digest(source: Source, *, task: str, epoch: int, bar: float, upto: int) -> tuple[int, int]:
    """How many rows of that evidence stand up to a place, and how often they were changed: whether to read it anew."""
    a = audits.c
    query = select(func.count().label("rows"), func.coalesce(func.sum(a.revision), 0).label("changes"))
    found = _mappings(source, query.where(*_evidence(task, epoch, bar), a.place <= upto))[0]
    return int(found["rows"]), int(found["changes"])


def running(source: Source) -> list[str]:
    """Trace ids of audits that have not ended."""
    return [row["trace_id"] for row in _mappings(source, select(audits.c.trace_id).where(_RUNNING))]


def lose(source: Source, trace_ids: Iterable[str], *, at_unix_s: float) -> int:
    """Ends audits of which nothing was heard for too long, as unknown: from the least to the most harm."""
    engine = engine_of(source)
    a = audits.c
    lost = {
        "state": "lost", "harm_least": -1.0, "harm_most": 1.0, "ended_at_unix_s": at_unix_s,
        "why": "the replica that asked was not heard of again",
    }  # fmt: skip
    with explained(engine), turn(engine), engine.begin() as connection:
        found = update(audits).where(a.trace_id.in_(sorted(trace_ids)), _RUNNING).values(lost)
        return int(connection.execute(found).rowcount)


def take_feedback(source: Source) -> list[AuditRow]:
    """Rows whose answer feedback now calls right or wrong (all its sources alike), and did not before.

    They are only read: see :func:`judge`.
    """
    a, f = audits.c, feedback.c
    lowest, highest = func.min(f.correct), func.max(f.correct)
    said = select(f.trace_id, lowest.label("low"), highest.label("high")).group_by(f.trace_id).subquery()
    verdict = case((said.c.low == 1.0, True), (said.c.high == 0.0, False), else_=None)
    query = (
        select(audits, verdict.label("verdict"))
        .join(said, said.c.trace_id == a.trace_id)
        .where(
            a.state.in_(["done", "failed", "lost", "deferred"]), a.questions == 1, _differs(a.was_right, said)
        )
    )  # fmt: skip
    return [
        replace(AuditRow(**{k: v for k, v in row.items() if k != "verdict"}), was_right=_bool(row["verdict"]))
        for row in _mappings(source, query)
    ]


def judge(source: Source, rows: Iterable[AuditRow]) -> None:
    """Stores what feedback says of rows, and the harm that follows."""
    engine = engine_of(source)
    a = audits.c
    with explained(engine), turn(engine), engine.begin() as connection:
        for row in rows:
            new = {"was_right": row.was_right, "harm_least": row.harm_least, "harm_most": row.harm_most}
            changed = update(audits).where(a.trace_id == row.trace_id)
            connection.execute(changed.values({**new, "revision": a.revision + 1}))


def spent_nano_usd(source: Source, day: int) -> int:
    """What a day's audits cost, over all replicas; those that run, or whose cost nobody knows, at what was reserved."""
    a = audits.c
    sums = func.sum(func.coalesce(a.cost_nano_usd, a.reserved_nano_usd)).label("spent")
    return int(_mappings(source, select(sums).where(a.day == day, a.state.in_(DRAWN)))[0]["spent"] or 0)


def costs(source: Source, *, since_unix_s: float | None = None) -> AuditCosts:
    """Sums over audits, which are in no sum over traces."""
    a = audits.c
    unknown = a.cost_nano_usd.is_(None)
    query = select(
        func.count().label("audits"),
        func.sum(a.cost_nano_usd).label("cost_nano_usd"),
        func.sum(case((unknown, 1), else_=0)).label("unknown"),
        func.sum(case((unknown, a.reserved_nano_usd), else_=0)).label("reserved_nano_usd"),
    ).where(a.state.in_(DRAWN))
    if since_unix_s is not None:
        query = query.where(a.asked_at_unix_s >= since_unix_s)
    return AuditCosts(**{name: int(value or 0) for name, value in _mappings(source, query)[0].items()})


def count_feedback(source: Source) -> tuple[int, int]:
    """Answers of which feedback said anything, and how many of them were audited: the others are in no bound."""
    said = select(feedback.c.trace_id).distinct().subquery()
    of_audited = select(audits.c.trace_id).where(audits.c.state.in_(DRAWN))
    counted = func.sum(case((said.c.trace_id.in_(of_audited), 1), else_=0)).label("audited")
    found = _mappings(source, select(func.count().label("all"), counted).select_from(said))[0]
    return int(found["all"]), int(found["audited"] or 0)


def least_propensity(source: Source, *, task: str, epoch: int, bar: float) -> float | None:
    """The least with which an answer of this evidence was drawn; None where none was."""
    query = select(func.min(audits.c.propensity).label("least"))
    query = query.where(*_evidence(task, epoch, bar), audits.c.state.in_(DRAWN))
    found = _mappings(source, query)[0]["least"]
    return None if found is None else float(found)


def fair_sample(source: Source, *, since_unix_s: float = 0.0, task: str | None = None) -> list[Row]:
    """Questions whose lot was below the least share, kept and deferred alike, up to the first audit that still runs.

    Each with its trace's ``request_task``, ``kind``, ``messages`` and ``fingerprint``; the first attempt's ``tier``,
    ``confidence``, ``text``, ``reason``, ``policy``, ``finish_reason`` and ``small_cost_nano_usd``; and
    ``large_cost_nano_usd``, of the audit or of the last attempt. Pruned traces are left out.
    """
    a, t, first, last = audits.c, traces.c, attempts.alias("first"), attempts.alias("last")
    large = case((a.state == "deferred", last.c.cost_nano_usd), else_=a.cost_nano_usd)
    query = (
        select(
            audits, t.task.label("request_task"), t.kind, t.messages, t.fingerprint, first.c.tier, first.c.confidence,
            first.c.text, first.c.reason, first.c.policy, first.c.finish_reason,
            first.c.cost_nano_usd.label("small_cost_nano_usd"), large.label("large_cost_nano_usd"),
        )
        .join(traces, t.id == a.trace_id)
        .join(first, (first.c.trace_id == t.id) & (first.c.position == 0))
        .join(last, (last.c.trace_id == t.id) & (last.c.position == t.final))
        .where(a.uniform, a.state.in_(["done", "failed", "lost", "deferred"]), a.asked_at_unix_s >= since_unix_s)
        .order_by(a.place)
    )  # fmt: skip
    still = _mappings(source, select(func.min(a.place).label("place")).where(_RUNNING))[0]["place"]
    if still is not None:
        query = query.where(a.place < still)
    return _mappings(source, query if task is None else query.where(t.task == task))


def first_attempts(
    source: Source, *, tier: str, since_unix_s: float, task: str | None = None, limit: int = 100_000
) -> list[Row]:
    """The newest questions that this tier was the first to be asked: ``task``, ``messages``, ``confidence``."""
    t, a = traces.c, attempts.c
    query = (
        select(t.task, t.messages, a.confidence)
        .join(attempts, (a.trace_id == t.id) & (a.position == 0))
        .where(a.tier == tier, a.failure_kind.is_(None), t.started_at_unix_s >= since_unix_s)
        .order_by(t.started_at_unix_s.desc())
        .limit(limit)
    )
    return _mappings(source, query if task is None else query.where(t.task == task))


def raise_alarm(source: Source, alarm: AlarmRow) -> bool:
    """Stores an alarm; False where another replica was first."""
    engine = engine_of(source)
    with explained(engine), turn(engine), engine.begin() as connection:
        # Not the row count, which PostgreSQL's driver does not tell of an insert.
        return connection.scalar(_RING[connection.dialect.name].returning(alarms.c.id), asdict(alarm)) is not None


def list_alarms(source: Source, *, only_open: bool = False, limit: int | None = None) -> list[AlarmRow]:
    """Newest first: by epoch within a task, so that no clock can change their order."""
    query = select(alarms).where(alarms.c.name == NAME)
    if only_open:
        query = query.where(alarms.c.cleared_at_unix_s.is_(None))
    query = query.order_by(alarms.c.epoch.desc(), alarms.c.raised_at_unix_s.desc()).limit(limit)
    return [AlarmRow(**row) for row in _mappings(source, query)]


def approve(source: Source, *, task: str, by: str, at_unix_s: float) -> list[AlarmRow]:
    """Clears the open alarms of a task: back to its certified step. Those that were open.

    Raises :class:`InputError` where none is.
    """
    engine = engine_of(source)
    a = alarms.c
    with explained(engine), turn(engine), engine.begin() as connection:
        rows = [AlarmRow(**row) for row in _of_task(connection, task)]
        found = [row for row in rows if row.cleared_at_unix_s is None]
        if not found:
            raise InputError(f'no alarm of task "{task or "all"}" is open; see: corea audit status')
        cleared = {
            "cleared_at_unix_s": at_unix_s, "cleared_epoch": epoch_of(rows) + 1, "approved_by": by,
            "approved_at_unix_s": at_unix_s,
        }  # fmt: skip
        ids = [row.id for row in found]
        connection.execute(update(alarms).where(a.id.in_(ids), a.cleared_at_unix_s.is_(None)).values(cleared))
    return found


def epoch_of(rows: Iterable[AlarmRow]) -> int:
    """Of a task, from its alarms: each began one, and so did each approval."""
    return max((max(row.epoch + 1, row.cleared_epoch or 0) for row in rows), default=0)


def new_alarm_id() -> str:
    return new_trace_id()


def _of_task(connection: Connection, task: str) -> Sequence[Mapping[Any, Any]]:
    query = select(alarms).where(alarms.c.name == NAME, alarms.c.task == task)
    return connection.execute(query.with_for_update()).mappings().all()


def _mappings(source: Source, query: Any) -> list[dict[str, Any]]:
    engine = engine_of(source)
    with explained(engine), engine.connect() as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


def _evidence(task: str, epoch: int, bar: float) -> tuple[ColumnElement[bool], ...]:
    return audits.c.task == task, audits.c.epoch == epoch, audits.c.bar == bar


def _differs(known: Any, said: Any) -> ColumnElement[bool]:
    """Whether the verdict is a clear one and not what is known already."""
    right, wrong = said.c.low == 1.0, said.c.high == 0.0
    return or_(right & func.coalesce(known, False).is_(False), wrong & func.coalesce(known, True).is_(True))


def _bool(value: Any) -> bool | None:
    return None if value is None else bool(value)


def _adding(insert: Any) -> Any:
    return insert(audits).on_conflict_do_nothing(index_elements=["trace_id"])


def _ringing(insert: Any) -> Any:
    return insert(alarms).on_conflict_do_nothing(index_elements=["name", "task", "epoch"])


_RUNNING = audits.c.state == "running"
_NEW = {"sqlite": _adding(sqlite.insert), "postgresql": _adding(postgresql.insert)}
_RING = {"sqlite": _ringing(sqlite.insert), "postgresql": _ringing(postgresql.insert)}
