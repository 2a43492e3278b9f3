"""From rows to bounds, alarms and steps: the same for every replica, whatever the clock and the order of endings."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from audit.rows import PLAN, row
from corea.audit.book import Book
from corea.audit.evidence import Evidence, InForce, in_force
from corea.audit.steps import Step
from corea.ledger.audits import AlarmRow, AuditRow

NOW = InForce(plan=PLAN, epoch=0, at_step=0)


def alarm(epoch: int, step_after: float | None, **more: float) -> AlarmRow:
    return AlarmRow(
        id=f"a{epoch}", name="audit", task="", epoch=epoch, raised_at_unix_s=-1.0, text="", limit=0.05, low=0.1,
        high=0.2, audited=9, step_before=0.8, step_after=step_after, **more,  # type: ignore[arg-type]
    )  # fmt: skip


def folded(rows: list[AuditRow], now: InForce = NOW) -> Evidence:
    return Evidence.of(now, min_propensity=1.0).after(rows)


def test_a_run_counts_as_so_many_questions() -> None:
    one_by_one = [row(i, "passed") for i in range(1, 8)]
    assert folded([row(1, "passed", questions=7)]).watch == folded(one_by_one).watch


def test_nothing_is_taken_past_an_audit_that_has_not_ended() -> None:
    rows = [row(1), row(2, "running"), row(3)]
    found = folded(rows)
    assert (found.place, found.rows, found.watch.detector.audited) == (1, 1, 1)
    rest = [replace(rows[1], state="lost", agrees=None), rows[2]]
    assert found.after(rest).watch == folded([rows[0], *rest]).watch


@given(
    states=st.lists(st.sampled_from(["passed", "paused", "done", "differs", "failed", "lost"]), max_size=25),
    cut=st.integers(0, 25),
    clock=st.floats(allow_nan=False, allow_infinity=False),
)
def test_rows_taken_in_two_parts_or_with_another_clock_give_the_same(states: list[str], cut: int, clock: float) -> None:
    rows = [
        row(i, "done", agrees=False) if state == "differs" else row(i, state)  # type: ignore[arg-type]
        for i, state in enumerate(states, start=1)
    ]
    whole = folded(rows)
    parts = folded(rows[:cut])
    assert parts.rang is not None or parts.after(rows[cut:]) == whole
    elsewhen = folded([replace(one, asked_at_unix_s=clock) for one in rows])
    assert (elsewhen.watch.sequence, elsewhen.watch.detector) == (whole.watch.sequence, whole.watch.detector)


def test_it_rings_once_and_takes_no_more() -> None:
    found = folded([row(i, agrees=False) for i in range(1, 100)])
    assert found.rang is not None
    assert found.rang.tightened_to == Step(threshold=0.9)
    assert found.rows < 20


def test_feedback_that_an_answer_is_wrong_makes_harm_of_a_disagreement_only_by_what_is_certain() -> None:
    drop = replace(NOW, plan=replace(PLAN, measure="drop"))
    told = folded([row(1, agrees=False, was_right=True)], drop).watch.status.bounds
    untold = folded([row(1, agrees=False)], drop).watch.status.bounds
    assert told is not None
    assert untold is not None
    # The small answer is right and the large one, being another, is not: a gain.
    assert (told.mean, untold.mean) == (-2.0, 0.0)


def test_without_alarms_the_certified_step_is_in_force() -> None:
    assert in_force(PLAN, []) == InForce(plan=PLAN, epoch=0, at_step=0)


def test_the_strictest_of_the_open_alarms_is_in_force_until_it_is_cleared() -> None:
    assert in_force(PLAN, [alarm(0, 0.9)]).step == Step(threshold=0.9)
    twice = in_force(PLAN, [alarm(1, None), alarm(0, 0.9)])
    assert (twice.step.threshold, twice.epoch) == (None, 2)
    cleared = [replace(one, cleared_at_unix_s=0.0, cleared_epoch=3) for one in (alarm(1, None), alarm(0, 0.9))]
    assert in_force(PLAN, cleared) == InForce(plan=PLAN, epoch=3, at_step=0)


def test_an_alarm_outlives_a_configuration_with_other_steps() -> None:
    other = replace(PLAN, steps=(Step(threshold=0.95), Step(threshold=0.99)))
    assert in_force(other, [alarm(0, 0.9)]).step == Step(threshold=0.99)
    assert in_force(replace(PLAN, steps=(Step(threshold=0.8),)), [alarm(0, 0.9)]).step.threshold is None


def test_a_book_keeps_the_order_of_each_watch_and_counts_runs() -> None:
    book = Book()
    for one in (row(1, "passed"), row(2, "passed"), row(3, "passed", task="maths"), row(4, "passed")):
        book.count(one)
    book.add(row(5, "running"))
    book.count(row(6, "passed"))
    taken = book.take()
    assert [(one.trace_id, one.questions) for one in taken] == [("t4", 3), ("t3", 1), ("t5", 1), ("t6", 1)]
    assert len(book) == 0


@given(kinds=st.lists(st.sampled_from(["passed", "paused", "running"]), max_size=40))
def test_a_book_loses_and_doubles_nothing(kinds: list[str]) -> None:
    book = Book()
    for i, kind in enumerate(kinds):
        (book.add if kind == "running" else book.count)(row(i, kind))  # type: ignore[arg-type]
        if i == 20:
            book.put_back(book.take())
    taken = book.take()
    assert [state for one in taken for state in [one.state] * one.questions] == kinds
