"""The auditor without a server: replicas, clocks, money, feedback, and tasks that nobody certified."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import move
from typing import Any

import pytest

from audit.rows import PLAN
from corea.audit import steps
from corea.audit.auditor import Auditor
from corea.audit.policy import AuditPolicy, joined
from corea.audit.watch import Plan
from corea.audit_config import AuditConfig
from corea.cascade import Cascade
from corea.errors import LedgerError, TierSkipped
from corea.ledger import Ledger, audits
from corea.models.scripted import ScriptedModel, Step, scripted_answer
from corea.policy.base import Bar, Policies, View
from corea.tier import Tier
from corea.types import Prompt, Request, Trace
from gateway.running import UNSURE, large, small
from ledger.stores import KINDS, fresh

SETTINGS = AuditConfig(share=1.0, max_usd_per_day=1000.0, limit=0.05, measure="disagreement", deadline_s=60.0)
HERE: dict[str, Any] = {"task": "", "epoch": 0, "bar": 0.8}
#: 0.95 is what digit 9 stands for.
SURE, OTHER = scripted_answer("42", digit=9), scripted_answer("41", digit=9)


@dataclass
class Clock:
    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Replica:
    """A cascade that is audited, as one process has it."""

    cascade: Cascade
    auditor: Auditor

    async def ask(self, count: int = 1, task: str | None = None) -> list[Trace]:
        return [await self.cascade.ask(Request.of("6 × 7?", task=task)) for _ in range(count)]


def replica(
    ledger: Ledger,
    first: Tier | None = None,
    *,
    plans: tuple[Plan, ...] = (PLAN,),
    settings: AuditConfig = SETTINGS,
    last: Tier | None = None,
    **more: Any,
) -> Replica:
    last = last or large(scripted_answer("42"))
    auditor = Auditor(last, ledger, settings, plans, first="small", refresh_s=3600.0, drain_s=5.0, **more)
    cascade = Cascade(
        (first or small(SURE, threshold=0.8), last), ledger=auditor.over(ledger),
        policies=joined(Policies(), auditor.policy),
    )  # fmt: skip
    return Replica(cascade, auditor)


@contextmanager
def kept(folder: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{folder / 'ledger.db'}") as ledger:
        yield ledger


@pytest.mark.parametrize("kind", KINDS)
def test_replicas_on_one_ledger_know_the_same_and_tighten_together(kind: str, tmp_path: Path) -> None:
    async def main(ledger: Ledger, other: Ledger) -> None:
        wrong = small(OTHER, threshold=0.8)
        one, two = replica(ledger, wrong), replica(other, wrong)
        async with one.auditor, two.auditor:
            await one.ask(1)
            await two.ask(1)
            await one.auditor.caught_up()
            await two.auditor.caught_up()
            await one.auditor.refresh()
            assert one.auditor.statuses() == two.auditor.statuses()
            assert one.auditor.statuses()[0].audited == 2
            await one.ask(10)
            await one.auditor.caught_up()
            await two.auditor.refresh()
            assert len(one.auditor.open_alarms) == len(two.auditor.open_alarms) == 1
            assert (one.auditor.counts.alarms, two.auditor.counts.alarms) == ({"all": 1}, {})
            assert two.auditor.in_force(None) == one.auditor.in_force(None)

    with fresh(kind, tmp_path) as place, Ledger.open(place.url) as ledger, Ledger.open(place.url) as other:
        asyncio.run(main(ledger, other))


def test_an_audit_of_a_replica_that_died_counts_as_unknown_once_it_is_overdue(tmp_path: Path) -> None:
    async def main(ledger: Ledger) -> None:
        dead = replica(ledger)
        await dead.ask(1)
        # It dies after the lot is in the ledger, and before it has asked.
        audits.add(ledger, dead.auditor._book.take())
        clock, wall = Clock(), Clock(1.7e9)
        alive = replica(ledger, clock=clock, wall_clock=wall)
        async with alive.auditor:
            await alive.ask(2)
            await alive.auditor.caught_up()
            # Nothing is taken past it, and no wall clock ends it.
            wall.now_s += 1e9
            await alive.auditor.refresh()
            assert alive.auditor.statuses()[0].audited == 0
            clock.now_s += 91
            await alive.auditor.refresh()
            [status] = alive.auditor.statuses()
            assert (status.audited, alive.auditor.counts.ended["lost"]) == (3, 1)
            assert status.bounds is not None
            assert status.bounds.mean == pytest.approx(0.5 / 3)

    with kept(tmp_path) as ledger:
        asyncio.run(main(ledger))


@pytest.mark.parametrize("jump_s", [-1e9, 1e9, float("inf"), float("nan")])
def test_a_wall_clock_that_jumps_loosens_nothing(tmp_path: Path, jump_s: float) -> None:
    async def main(ledger: Ledger) -> None:
        wall = Clock(1.7e9)
        it = replica(ledger, small(OTHER, threshold=0.8), wall_clock=wall)
        async with it.auditor:
            await it.ask(2)
            await it.auditor.caught_up()
            wall.now_s += jump_s
            await it.ask(1)
            if jump_s in (-1e9, 1e9):
                await it.auditor.caught_up()
                assert it.auditor.in_force(None).tightened  # type: ignore[union-attr]
                assert len(it.auditor.open_alarms) == 1
                wall.now_s = 1.7e9
                await it.auditor.refresh()
                assert it.auditor.in_force(None).tightened  # type: ignore[union-attr]
            else:
                # A time that is none pays for nothing: what is asked meanwhile is left out.
                assert it.auditor.counts.trouble == {"money": 1}

    with kept(tmp_path) as ledger:
        asyncio.run(main(ledger))


def test_a_share_that_the_days_money_cannot_pay_is_told_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(ledger: Ledger) -> None:
        clock = Clock()
        it = replica(ledger, settings=SETTINGS.model_copy(update={"max_usd_per_day": 0.5}), clock=clock)
        async with it.auditor:
            await it.ask(5)
            await it.auditor.caught_up()
            assert it.auditor.counts.affordable_share is None
            clock.now_s += 0.5 + 60
            await it.auditor.refresh()
            await it.auditor.refresh()
            assert it.auditor.counts.affordable_share is not None
            assert it.auditor.counts.affordable_share > 0

    with kept(tmp_path) as ledger, caplog.at_level(logging.WARNING, "corea.audit"):
        asyncio.run(main(ledger))
    # 5 a minute at 0.0003 dollars are 1.9 dollars a day.
    assert caplog.text.count("an audited share of 1 cannot be paid: at this rate, 0.5 USD a day pay ") == 1


def test_what_replicas_spent_counts_against_one_cap(tmp_path: Path) -> None:
    # Each audit sets 0.06144 dollars aside, and costs far less.
    settings = SETTINGS.model_copy(update={"max_usd_per_day": 0.0625})

    async def main(ledger: Ledger) -> None:
        one, two = replica(ledger, settings=settings), replica(ledger, settings=settings)
        async with one.auditor, two.auditor:
            while one.auditor.paused is None:
                await one.ask(1)
                await one.auditor.caught_up()
            assert two.auditor.paused is None
            await two.auditor.refresh()
            assert two.auditor.paused == "money"
            spent = audits.costs(ledger).cost_nano_usd
            assert 0.0625e9 - 0.06144e9 < spent < 0.0625e9

    with kept(tmp_path) as ledger:
        asyncio.run(main(ledger))


def test_feedback_on_an_audited_answer_sharpens_what_is_known(tmp_path: Path) -> None:
    drop = Plan(task=None, limit=0.05, min_propensity=1.0, measure="drop", steps=PLAN.steps)
    settings = AuditConfig(share=1.0, max_usd_per_day=100.0, limit=0.05)

    async def main(ledger: Ledger) -> None:
        it = replica(ledger, small(OTHER, threshold=0.8), plans=(drop,), settings=settings)
        async with it.auditor:
            traces = await it.ask(4)
            await it.auditor.caught_up()
            [before] = it.auditor.statuses()
            for trace in traces:
                await ledger.add_feedback(trace.id, 1.0)
            await it.auditor.refresh()
            [after] = it.auditor.statuses()
            assert (before.audited, after.audited) == (4, 4)
            assert before.bounds is not None
            assert after.bounds is not None
            # The small answer is right, so the other one is wrong: a gain.
            assert (before.bounds.mean, after.bounds.mean) == (0.0, -1.0)
            rows = audits.read(ledger, **HERE)
            assert {(row.was_right, row.harm_least, row.harm_most) for row in rows} == {(True, -1.0, -1.0)}

    with kept(tmp_path) as ledger:
        asyncio.run(main(ledger))


def test_deferred_questions_are_counted_and_a_fair_share_of_them_is_kept(tmp_path: Path) -> None:
    async def main(ledger: Ledger) -> None:
        settings = SETTINGS.model_copy(update={"share": 0.5})
        it = replica(ledger, small(UNSURE, threshold=0.8), settings=settings)
        async with it.auditor:
            traces = await it.ask(30)
            await it.auditor.caught_up()
            rows = audits.read(ledger, **HERE)
            fair = {row.trace_id for row in rows if row.state == "deferred"}
            assert fair == {trace.id for trace in traces if it.auditor._sampler.uniform(trace.id) < 0.5}
            assert 0 < len(fair) < 30
            assert sum(row.questions for row in rows) == 30
            assert {row.agrees for row in rows if row.state == "deferred"} == {False}
            [status] = it.auditor.statuses()
            assert status.bounds is not None
            assert (status.bounds.n, status.audited) == (30, 0)

    with kept(tmp_path) as ledger:
        asyncio.run(main(ledger))


def test_a_kind_of_question_that_nobody_watches_is_no_evidence_and_is_deferred_if_certified(tmp_path: Path) -> None:
    maths = Plan(task="maths", limit=0.05, min_propensity=1.0, measure="disagreement", steps=PLAN.steps)

    async def main(ledger: Ledger) -> None:
        it = replica(ledger, plans=(maths,))
        async with it.auditor:
            await it.ask(2, task="poems")
            assert it.auditor.counts.questions == {"unwatched": 2}
            assert it.auditor.in_force("poems") is None

    with kept(tmp_path) as ledger:
        asyncio.run(main(ledger))
    policy = AuditPolicy(lambda task: None)
    with pytest.raises(TierSkipped, match="nobody watches such questions") as caught:
        policy.before(view(certified=True), Bar(threshold=0.8))
    assert caught.value.policy == "audit"
    by_hand = Bar(threshold=0.8)
    assert policy.before(view(certified=False), by_hand) is by_hand


def view(*, certified: bool) -> View:
    return View(
        request=Request.of("?"), tier="small", own=Bar(threshold=0.8), certified=certified, elapsed_s=0.0, left_s=1.0
    )


def test_the_policy_never_lowers_a_bar(tmp_path: Path) -> None:
    async def main(ledger: Ledger) -> None:
        it = replica(ledger, small(OTHER, threshold=0.8))
        async with it.auditor:
            await it.ask(10)
            await it.auditor.caught_up()
            moved = it.auditor.policy.before(view(certified=True), Bar(threshold=0.8))
            assert (moved.threshold, moved.note) == (0.9, "an alarm of the audit is open")
            stricter = Bar(threshold=0.97)
            assert it.auditor.policy.before(view(certified=True), stricter) is stricter
            # Asked under the looser step, it says nothing about the one in force.
            late = (await replica(ledger, small(OTHER, threshold=0.8)).ask(1))[0]
            it.auditor.observe(late)
            assert it.auditor.counts.questions["unwatched"] == 1
            assert it.auditor.in_force(None).step == steps.Step(threshold=0.9)  # type: ignore[union-attr]

    with kept(tmp_path) as ledger:
        asyncio.run(main(ledger))


def test_what_the_ledger_would_not_take_is_written_later(tmp_path: Path) -> None:
    async def main(ledger: Ledger, path: str) -> None:
        def leaves(prompt: Prompt, index: int) -> Step:
            # The ledger goes while the last tier answers.
            if index == 0:
                ledger.engine.dispose()
                move(path, f"{path}.away")
            return scripted_answer("42")

        # Not started: nothing is written but by what is called here.
        it = replica(ledger, last=replace(large(), model=ScriptedModel("large-model", replies=leaves)))
        await it.ask(2)
        await it.auditor._flush()
        await it.auditor._all_done()
        with pytest.raises(LedgerError):
            await it.auditor.refresh()
        assert it.auditor.waiting == 2
        move(f"{path}.away", path)
        await it.auditor.caught_up()
        assert it.auditor.waiting == 0
        assert it.auditor.statuses()[0].audited == 2
        assert {row.state for row in audits.read(ledger, **HERE)} == {"done"}

    with kept(tmp_path) as ledger:
        asyncio.run(main(ledger, str(tmp_path / "ledger.db")))


def test_an_end_right_after_a_draw_waits_for_the_audit_and_for_nothing_else(tmp_path: Path) -> None:
    async def main(ledger: Ledger) -> None:
        it = replica(ledger)
        async with asyncio.timeout(20):
            async with it.auditor:
                [trace] = await it.ask(1)
                await asyncio.sleep(0)
                it.auditor.observe(replace(trace, id="another"))
            rows = audits.read(ledger, **HERE)
            assert [row.state for row in rows] == ["done", "done"]

    with kept(tmp_path) as ledger:
        asyncio.run(main(ledger))
