"""Many questions through one cascade, on this machine: reads, asks, grades, writes; the command line draws progress.

Knows nothing of terminals. Memory does not grow with the number of questions, but for eight bytes of each id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from corea.batch.journal import Journal
from corea.batch.rows import BadLine, Question, Row, key, read_questions
from corea.cascade import Cascade
from corea.errors import CascadeExhausted, InputError
from corea.grading.answers import check_allowed, grade
from corea.streams import bounded_map
from corea.types import Kind

#: Bad lines that are told one by one; a file may hold millions.
MAX_BAD_LINE_SAMPLES = 20


@dataclass(slots=True, kw_only=True)
class Summary:
    """Sums over all rows of the output, those of earlier runs included. Unknown costs are counted, never taken as 0."""

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


async def run_batch(
    cascade: Cascade,
    source: Path,
    sink: Path,
    *,
    concurrency: int,
    allow_code: bool = False,
    on_start: Callable[[int, int], None] = lambda total, done: None,
    on_row: Callable[[Row], None] = lambda row: None,
) -> Summary:
    """Ask every question of ``source`` that ``sink`` has no row for yet.

    ``on_start`` gets the number of questions and how many are done already. Raises :class:`InputError` for files that
    cannot be used; a question that fails is a row with its error.
    """
    if await asyncio.to_thread(_same_file, source, sink):
        raise InputError(f"{sink} is the input; choose another output file")
    summary = Summary()
    ids = _check(source, summary, allow_code=allow_code)
    done: set[bytes] = set()

    def take_up(values: Mapping[str, Any]) -> bool:
        row = Row.read(values)
        # A failed row is tried again.
        if row is None or row.error is not None:
            return False
        done.add(key(row.id))
        summary.add(row)
        return True

    with Journal(sink, fingerprint=cascade.fingerprint, take_up=take_up) as output:
        summary.resumed = summary.rows
        if strangers := len(done - ids):
            raise InputError(
                f"{sink} has {strangers} rows whose ids are not in {source}: it belongs to another input; "
                "choose another output file, or delete this one"
            )
        on_start(len(ids), len(done))
        del ids
        answer = partial(_answer, cascade, allow_code=allow_code)
        todo = (question for question in _questions(source) if key(question.id) not in done)
        async for row in bounded_map(answer, todo, concurrency=concurrency):
            output.write(row.line)
            summary.add(row)
            on_row(row)
    return summary


def _same_file(source: Path, sink: Path) -> bool:
    return source.resolve() == sink.resolve()


def _check(source: Path, summary: Summary, *, allow_code: bool) -> set[bytes]:
    """Keys of all usable ids. A first pass, so that what is wrong is known before money is spent."""
    ids: set[bytes] = set()
    kinds: set[Kind | None] = set()
    for item in read_questions(source, seen=ids):
        if isinstance(item, BadLine):
            summary.bad_lines += 1
            if len(summary.bad_line_samples) < MAX_BAD_LINE_SAMPLES:
                summary.bad_line_samples.append(item)
        elif item.gold is not None:
            kinds.add(item.kind)
    check_allowed(kinds, allow_code=allow_code)
    if not ids:
        first = f" (first: {summary.bad_line_samples[0]})" if summary.bad_lines else ""
        raise InputError(f"{source} has no questions{first}")
    return ids


def _questions(source: Path) -> Iterator[Question]:
    return (item for item in read_questions(source) if isinstance(item, Question))


async def _answer(cascade: Cascade, question: Question, *, allow_code: bool) -> Row:
    try:
        trace = await cascade.ask(question.request)
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
