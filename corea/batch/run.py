"""Many questions through one cascade, on this machine: reads, asks, grades, writes; the command line draws progress.

:mod:`corea.batch.ray` does the same on many machines, with what is public here. Knows nothing of terminals. Memory does
not grow with the number of questions, but for the keys of their ids; see :mod:`corea.batch.keys`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

from corea.batch.journal import Journal
from corea.batch.keys import Keys, key
from corea.batch.output import output
from corea.batch.places import Place, is_same
from corea.batch.rows import BadLine, Position, Question, Row, read_again, read_from
from corea.cascade import Cascade
from corea.errors import CascadeExhausted, InputError
from corea.grading.answers import check_allowed, grade
from corea.streams import bounded_map
from corea.tier import Tier
from corea.types import Kind, Request, Trace

Sleep = Callable[[float], Awaitable[object]]
Answer = Callable[[Question], Awaitable[Row]]

#: Bad lines that are told one by one; a file may hold millions.
MAX_BAD_LINE_SAMPLES = 20


@dataclass(slots=True, kw_only=True)
class Summary:
    """Sums over all questions' rows, those of earlier runs included. Unknown costs are counted, never taken as 0."""

    rows: int = 0
    failed: int = 0
    deferred: int = 0
    graded: int = 0
    correct: int = 0
    cost_nano_usd: int = 0
    saved_nano_usd: int = 0
    unknown_costs: int = 0
    #: Rows that earlier runs had left.
    resumed: int = 0
    #: Lines that are no questions. Each has a row as well, which no other figure counts.
    bad_lines: int = 0
    #: The first of them, for a report.
    bad_line_samples: list[BadLine] = field(default_factory=list)

    def add(self, row: Row) -> None:
        self.rows += 1
        self.failed += row.error is not None
        self.deferred += bool(row.deferred)
        self.graded += row.correct is not None
        self.correct += bool(row.correct)
        self.cost_nano_usd += row.cost_nano_usd or 0
        self.saved_nano_usd += row.saved_nano_usd or 0
        self.unknown_costs += row.error is None and (row.cost_nano_usd is None or row.saved_nano_usd is None)

    def join(self, part: Summary) -> None:
        """Add another summary's figures. Bad lines are not joined: they are known before the first question."""
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(part, name))

    @property
    def answered(self) -> int:
        return self.rows - self.failed

    @property
    def accuracy(self) -> float | None:
        """Of the graded rows; a failed row with a gold answer counts as wrong. None without gold answers."""
        return self.correct / self.graded if self.graded else None

    @property
    def deferral_rate(self) -> float | None:
        return self.deferred / self.answered if self.answered else None

    @property
    def saving(self) -> float | None:
        """1 − cost ÷ cost of the last tier alone; None where that is 0 or a cost is unknown."""
        baseline = self.cost_nano_usd + self.saved_nano_usd
        return self.saved_nano_usd / baseline if baseline and not self.unknown_costs else None

    @property
    def ok(self) -> bool:
        return not self.failed and not self.bad_lines


_SUMS = tuple(one.name for one in fields(Summary) if one.name not in ("bad_lines", "bad_line_samples"))


async def run_batch(
    cascade: Cascade,
    source: Place,
    sink: Place,
    *,
    concurrency: int,
    allow_code: bool = False,
    on_start: Callable[[int, int], None] = lambda total, done: None,
    on_row: Callable[[Row], None] = lambda row: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Sleep = asyncio.sleep,
) -> Summary:
    """Ask every question of ``source`` that ``sink`` has no row for yet.

    While every tier is left alone by its breaker, a question waits, for as long as its deadline; see :class:`Asking`.

    ``on_start`` gets the number of questions and how many are done already. Raises :class:`InputError` for files that
    cannot be used; a question that fails is a row with its error.
    """
    if await asyncio.to_thread(is_same, source, sink):
        raise InputError(f"{sink} is the input; choose another output file")
    summary = Summary()
    repeats: set[int] = set()

    def note(position: Position, item: Question | BadLine) -> None:
        if isinstance(item, BadLine) and item.repeats:
            repeats.add(position.line)

    ids, questions = check(source, summary, allow_code=allow_code, note=note)
    done = Keys()

    def take_up(values: Mapping[str, Any]) -> bool:
        row = Row.read(values)
        # A failed row is tried again.
        if row is None or row.error is not None:
            return False
        done.add(key(row.id))
        summary.add(row)
        return True

    with output(sink, fingerprint=cascade.fingerprint, take_up=take_up) as journal:
        summary.resumed = summary.rows
        if strangers := done.missing_from(ids):
            raise InputError(
                f"{sink} has {strangers} rows whose ids are not in {source}: it belongs to another input; "
                "choose another output file, or delete this one"
            )
        on_start(questions, len(done))
        del ids
        asking = Asking(cascade=cascade, clock=clock, sleep=sleep)
        work = partial(answer, asking, allow_code=allow_code)
        async for row in bounded_map(work, _todo(source, repeats, done, journal), concurrency=concurrency):
            journal.write(row.line)
            summary.add(row)
            on_row(row)
    return summary


def check(
    source: Place,
    summary: Summary,
    *,
    allow_code: bool,
    note: Callable[[Position, Question | BadLine], None] = lambda position, item: None,
) -> tuple[Keys, int]:
    """Keys of all ids, and how many questions there are. A first pass, so that what is wrong is known before it costs.

    ``note`` hears every line. Raises :class:`InputError` for an input that cannot be used.
    """
    ids = Keys()
    kinds: set[Kind | None] = set()
    questions = 0
    for position, item in read_from(source, Position(), ids):
        note(position, item)
        questions += isinstance(item, Question)
        if isinstance(item, BadLine):
            summary.bad_lines += 1
            if len(summary.bad_line_samples) < MAX_BAD_LINE_SAMPLES:
                summary.bad_line_samples.append(item)
        elif item.gold is not None:
            kinds.add(item.kind)
    check_allowed(kinds, allow_code=allow_code)
    if not questions:
        first = f" (first: {summary.bad_line_samples[0]})" if summary.bad_lines else ""
        raise InputError(f"{source} has no questions{first}")
    return ids, questions


def _todo(source: Place, repeats: Container[int], done: Keys, journal: Journal) -> Iterator[Question]:
    """Questions without a row. A line that is none gets its row as it passes."""
    for item in read_again(source, repeats=repeats):
        if item.id is not None and key(item.id) in done:
            continue
        if isinstance(item, Question):
            yield item
        else:
            journal.write(Row.bad(item).line)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """Asks when somebody is there to answer: in an outage, a file of questions is not to become a file of failures.

    A question that a tier answered is never asked twice, nor one that may have been billed.
    """

    cascade: Cascade
    clock: Callable[[], float] = time.monotonic
    sleep: Sleep = asyncio.sleep

    async def ask(self, request: Request) -> Trace:
        """``Cascade.ask``, which see; waits for breakers at most ``deadline_s`` of the cascade before it fails."""
        until_s = self.clock() + self.cascade.deadline_s
        awaited: Sequence[Tier] = self.cascade.tiers
        while True:
            await self._one_of(awaited, until_s)
            try:
                return await self.cascade.ask(request)
            except CascadeExhausted as exc:
                awaited = [tier for tier in self.cascade.tiers if tier.name in _left_alone(exc.trace)]
                if not awaited or self.clock() >= until_s:
                    raise

    async def _one_of(self, tiers: Sequence[Tier], until_s: float) -> None:
        """Until one of them may be asked. Looks again after each wait: others wait as well, and one gets through."""
        while (wait_s := min(tier.breaker.wait_s if tier.breaker else 0.0 for tier in tiers)) > 0:
            left_s = until_s - self.clock()
            if left_s <= 0:
                return
            await self.sleep(min(wait_s, left_s))


def _left_alone(trace: Trace) -> set[str]:
    """Tiers that were not asked, where nobody answered and nothing was spent."""
    if trace.cost_nano_usd != 0 or any(attempt.answered for attempt in trace.attempts):
        return set()
    return {attempt.tier for attempt in trace.attempts if attempt.failure and attempt.failure.kind == "CircuitOpen"}


async def answer(asking: Asking, question: Question, *, allow_code: bool) -> Row:
    """The question's row; with its error, where it failed."""
    try:
        trace = await asking.ask(question.request)
    except (CascadeExhausted, InputError) as exc:
        wrong = None if question.gold is None else False
        trace_id = exc.trace.id if isinstance(exc, CascadeExhausted) else None
        return Row(id=question.id, error=str(exc), correct=wrong, trace_id=trace_id)
    correct = None
    if question.gold is not None and question.kind is not None:
        # In a thread: an expression may take seconds, and other questions must go on meanwhile.
        correct = await asyncio.to_thread(
            grade, trace.answer, question.gold, question.kind, allow_code=allow_code, prompt=question.question
        )
    return Row.of(question, trace, correct=correct)
