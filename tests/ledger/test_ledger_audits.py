"""The audit's rows and alarms, in SQLite and in PostgreSQL."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from audit.rows import row
from corea.errors import InputError
from corea.ledger import Ledger, audits, prune
from corea.ledger.audits import AlarmRow, Ending
from ledger.samples import trace

HERE: dict[str, Any] = {"task": "", "epoch": 0, "bar": 0.8}


def ending(trace_id: str, agrees: bool | None = True, cost: int | None = 5) -> Ending:
    return Ending(
        trace_id=trace_id, state="done", agrees=agrees, harm_least=0.0, harm_most=0.0, cost_nano_usd=cost,
        at_unix_s=1.0,
    )  # fmt: skip


def alarm(id: str, *, task: str = "", epoch: int = 0) -> AlarmRow:
    return AlarmRow(
        id=id, name="audit", task=task, epoch=epoch, raised_at_unix_s=1.0, text="rings", limit=0.02, low=0.03, high=0.1,
        audited=64, step_before=0.8, step_after=None,
    )  # fmt: skip


def test_rows_come_back_in_the_order_they_were_given_and_only_once(place: Any) -> None:
    with Ledger.open(place.url) as ledger:
        given = [row(3, "passed", questions=7), row(1, "running", reserved_nano_usd=9), row(2, "passed", task="other")]
        audits.add(ledger, given)
        audits.add(ledger, [row(3, "passed"), row(4, "deferred", agrees=False, uniform=True)])
        found = audits.read(ledger, **HERE)
        assert [(one.trace_id, one.questions) for one in found] == [("t3", 7), ("t1", 1), ("t4", 1)]
        assert audits.read(ledger, **HERE, after=found[0].place or 0, limit=1) == [found[1]]
        assert audits.digest(ledger, **HERE, upto=found[1].place or 0) == (2, 0)
        assert audits.read(ledger, **{**HERE, "bar": 0.9}) == []


def test_the_first_end_of_an_audit_counts_and_its_cost_is_kept_in_any_case(place: Any) -> None:
    with Ledger.open(place.url) as ledger:
        audits.add(ledger, [row(1, "running", reserved_nano_usd=9), row(2, "running", reserved_nano_usd=9)])
        assert audits.running(ledger) == ["t1", "t2"]
        assert audits.spent_nano_usd(ledger, 20_000) == 18
        assert audits.end(ledger, ending("t1"))
        assert audits.lose(ledger, ["t1", "t2"], at_unix_s=2.0) == 1
        assert not audits.end(ledger, ending("t2", cost=7))
        assert [(one.state, one.agrees, one.cost_nano_usd) for one in audits.read(ledger, **HERE)] == [
            ("done", True, 5), ("lost", None, 7),
        ]  # fmt: skip
        assert (audits.running(ledger), audits.spent_nano_usd(ledger, 20_000)) == ([], 12)
        assert audits.costs(ledger) == audits.AuditCosts(
            audits=2, cost_nano_usd=12, unknown=0, reserved_nano_usd=0
        )  # fmt: skip
        assert audits.costs(ledger, since_unix_s=2e9).audits == 0


def test_feedback_on_an_audited_answer_is_found_once_and_only_where_it_is_clear(place: Any) -> None:
    with Ledger.open(place.url) as ledger:
        traces = [trace(id=f"t{i}") for i in range(1, 5)]
        for one in traces:
            asyncio.run(ledger.write(one))
        audits.add(ledger, [row(1, "done", agrees=False), row(2, "done"), row(3, "passed")])
        asyncio.run(ledger.add_feedback("t1", 0.0))
        asyncio.run(ledger.add_feedback("t2", 0.5))
        asyncio.run(ledger.add_feedback("t4", 1.0))
        [found] = audits.take_feedback(ledger)
        assert (found.trace_id, found.was_right) == ("t1", False)
        audits.judge(ledger, [replace(found, harm_least=0.0, harm_most=1.0)])
        assert audits.take_feedback(ledger) == []
        assert audits.digest(ledger, **HERE, upto=99)[1] == 1
        assert audits.count_feedback(ledger) == (3, 2)
        # Somebody else disagrees, and then there is no verdict; the one that was heard stays.
        asyncio.run(ledger.add_feedback("t1", 1.0, source="expert"))
        assert audits.take_feedback(ledger) == []
        asyncio.run(ledger.add_feedback("t1", 1.0))
        assert [one.was_right for one in audits.take_feedback(ledger)] == [True]


def test_the_evidence_outlives_the_traces(place: Any) -> None:
    with Ledger.open(place.url) as ledger:
        asyncio.run(ledger.write(trace(id="t1", started_at_unix_s=1.0)))
        audits.add(ledger, [row(1)])
        assert prune(ledger, before_unix_s=2.0) == 1
        assert [one.trace_id for one in audits.read(ledger, **HERE)] == ["t1"]


def test_one_of_several_replicas_raises_an_alarm(place: Any) -> None:
    with Ledger.open(place.url) as ledger, ThreadPoolExecutor(4) as pool:
        raised = list(pool.map(lambda i: audits.raise_alarm(ledger, alarm(f"a{i}")), range(4)))
        assert sorted(raised) == [False, False, False, True]
        [one] = audits.list_alarms(ledger, only_open=True)
        assert (one.epoch, audits.epoch_of([one])) == (0, 1)


def test_approval_clears_the_open_alarms_of_one_task_and_begins_an_epoch(place: Any) -> None:
    with Ledger.open(place.url) as ledger:
        for one in (alarm("a"), alarm("b", epoch=1), alarm("c", task="maths")):
            assert audits.raise_alarm(ledger, one)
        cleared = audits.approve(ledger, task="", by="ann", at_unix_s=9.0)
        assert {one.id for one in cleared} == {"a", "b"}
        assert [one.id for one in audits.list_alarms(ledger, only_open=True)] == ["c"]
        of_all = [one for one in audits.list_alarms(ledger) if one.task == ""]
        assert {(one.cleared_epoch, one.approved_by, one.approved_at_unix_s) for one in of_all} == {(3, "ann", 9.0)}
        assert audits.epoch_of(of_all) == 3
        with pytest.raises(InputError, match='no alarm of task "all" is open'):
            audits.approve(ledger, task="", by="ann", at_unix_s=9.0)
