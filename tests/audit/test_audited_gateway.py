"""A real gateway that audits: harm rises, the alarm rings, answers are deferred, the user approves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from corea import Cascade
from corea.audit.auditor import Auditor
from corea.audit.plans import plans_of
from corea.audit_config import AuditConfig
from corea.confidence import Expected
from corea.errors import UpstreamRefused
from corea.ledger import Ledger, audits, get_trace, list_traces
from corea.models.scripted import Hang, ScriptedModel, Step, scripted_answer
from corea.tier import Tier
from corea.types import Prompt
from gateway.running import Running, large, serving, small

ASKED: dict[str, Any] = {"model": "corea", "messages": [{"role": "user", "content": "What is 6 × 7?"}]}
SETTINGS = AuditConfig(share=1.0, max_usd_per_day=100.0, limit=0.05, measure="disagreement", steps=(0.93,))


@dataclass
class Audited:
    running: Running
    auditor: Auditor
    ledger: Ledger
    sent: list[Mapping[str, Any]]

    def post(self, count: int = 1, **more: Any) -> list[httpx.Response]:
        with httpx.Client() as client:
            url = f"{self.running.url}/v1/chat/completions"
            return [client.post(url, json={**ASKED, **more}, timeout=30) for _ in range(count)]

    def routes(self, count: int = 1, **more: Any) -> list[str]:
        return [answer.headers["x-corea-route"] for answer in self.post(count, **more)]

    def catch_up(self) -> None:
        """All audits so far have ended, and what follows from them is in force."""
        loop = self.auditor._loop
        assert loop is not None
        asyncio.run_coroutine_threadsafe(self.auditor.caught_up(), loop.get_loop()).result(20)

    def metrics(self) -> str:
        return httpx.get(f"{self.running.url}/metrics").text


@contextmanager
def audited(
    folder: Path,
    first: Tier | None = None,
    last: Tier | None = None,
    *,
    settings: AuditConfig = SETTINGS,
    url: str | None = None,
    **more: Any,
) -> Iterator[Audited]:
    ledger = Ledger.open(url or f"sqlite:///{folder / 'ledger.db'}")
    made: list[Auditor] = []
    sent: list[Mapping[str, Any]] = []

    async def post(url: str, payload: Mapping[str, Any]) -> bool:
        sent.append(payload)
        return True

    def auditor(cascade: Cascade) -> Auditor:
        first, last = cascade.tiers[0], cascade.tiers[-1]
        plans = plans_of(settings, threshold=first.threshold, certificate=first.certificate, tiers=len(cascade.tiers))
        # It looks when it is told to: no test waits for a clock.
        made.append(
            Auditor(last, ledger, settings, plans, first=first.name, post=post, refresh_s=3600.0, drain_s=5.0, **more)
        )
        return made[0]

    tiers = (first or sure(), last or large(scripted_answer("42")))
    with serving(*tiers, recorder=ledger, auditor=auditor) as running:
        it = Audited(running=running, auditor=made[0], ledger=ledger, sent=sent)
        # The first look, in the background, is over.
        it.catch_up()
        yield it


def sure(*answers: str) -> Tier:
    """Confident by 0.85 to 0.95, whatever it says."""
    said = answers or ("42",)

    def replies(prompt: Prompt, index: int) -> Step:
        digit = 8 if index % 2 else 9
        return scripted_answer(said[min(index, len(said) - 1)], digit_distribution={digit: 1.0})

    model = ScriptedModel("small-model", replies=replies)
    return replace(small(), model=model, estimator=Expected(), threshold=0.8)


def test_harm_rises_the_alarm_rings_and_answers_are_deferred_until_the_user_approves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = SETTINGS.model_copy(update={"webhook": SecretStr("https://hooks.example/secret")})
    # Right 20 times, then wrong.
    with audited(tmp_path, sure(*["42"] * 20, "41"), large(scripted_answer("42")), settings=settings) as it:
        assert set(it.routes(20)) == {"small"}
        it.catch_up()
        assert [(s.state, s.audited) for s in it.auditor.statuses()] == [("ok", 20)]
        assert it.sent == []

        with caplog.at_level(logging.ERROR, "corea.audit"):
            it.post(20)
            it.catch_up()
        [alarm] = it.auditor.open_alarms
        assert (alarm.step_before, alarm.step_after, alarm.epoch) == (0.8, 0.93, 0)
        assert alarm.low > 0
        assert 'task "all": disagreement has passed 5 % after ' in caplog.text
        assert [one["id"] for one in it.sent] == [alarm.id]
        assert 'corea_audit_alarms_total{task="all"} 1.0' in it.metrics()
        assert 'corea_audit_alarm_open{task="all"} 1.0' in it.metrics()

        # 0.85 is not enough any more, 0.95 is; then that proves wrong too.
        assert set(it.routes(80)) == {"small", "large"}
        trace = get_trace(it.ledger, list_traces(it.ledger, deferred=True, limit=1)[0].id)
        assert (trace.attempts[0].decision.policy, trace.attempts[0].decision.threshold) == ("audit", 0.93)
        it.catch_up()
        assert [row.step_after for row in it.auditor.open_alarms] == [None, 0.93]
        assert set(it.routes(3)) == {"large"}

        audits.approve(it.ledger, task="", by="ann", at_unix_s=1.0)
        it.catch_up()
        assert it.auditor.open_alarms == ()
        assert set(it.routes(2)) == {"small"}
        assert 'corea_audit_alarm_open{task="all"} 0.0' in it.metrics()
        it.catch_up()
        assert [(s.state, s.epoch, s.audited) for s in it.auditor.statuses()] == [("ok", 3, 2)]


def test_what_an_audit_costs_is_counted_and_in_no_answers_cost(tmp_path: Path) -> None:
    with audited(tmp_path) as it:
        [answer] = it.post()
        it.catch_up()
        trace = get_trace(it.ledger, answer.headers["x-corea-trace-id"])
        assert [attempt.tier for attempt in trace.attempts] == ["small"]
        found = audits.costs(it.ledger)
        assert (found.audits, found.unknown) == (1, 0)
        assert found.cost_nano_usd > (trace.cost_nano_usd or 0) > 0
        assert audits.spent_nano_usd(it.ledger, audits.read(it.ledger, task="", epoch=0, bar=0.8)[0].day) > 0
        assert "corea_audit_cost_usd_total" in it.metrics()
        assert 'corea_audit_harm{bound="high",task="all"}' in it.metrics()


def test_a_restart_ends_at_the_same_numbers_and_the_alarm_stays_in_force(tmp_path: Path) -> None:
    with audited(tmp_path, sure("42")) as before:
        before.post(8)
        before.catch_up()
        was = before.auditor.statuses()
        assert was[0].audited == 8
    with audited(tmp_path, sure("41")) as again:
        assert again.auditor.statuses() == was
        again.post(20)
        again.catch_up()
        assert len(again.auditor.open_alarms) == 1
    with audited(tmp_path, sure("42")) as third:
        assert [row.step_after for row in third.auditor.open_alarms] == [0.93]
        assert set(third.routes(2)) == {"small", "large"}


def test_an_audit_that_fails_counts_as_unknown(tmp_path: Path) -> None:
    down = large(UpstreamRefused("no answer; check that the server is up"))
    with audited(tmp_path, sure(), down) as it:
        it.post(3)
        it.catch_up()
        rows = audits.read(it.ledger, task="", epoch=0, bar=0.8)
        assert [(row.state, row.agrees, row.why) for row in rows] == [("failed", None, "UpstreamRefused")] * 3
        [status] = it.auditor.statuses()
        assert status.bounds is not None
        assert (status.bounds.low, status.bounds.mean) == (0.0, 0.5)


def test_an_audit_that_hangs_does_not_hold_up_the_end_of_the_process(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"deadline_s": 3600.0})
    with audited(tmp_path, sure(), large(Hang()), settings=settings) as it:
        it.auditor._drain_s = 0.0
        it.post()
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        [row] = audits.read(ledger, task="", epoch=0, bar=0.8)
    assert (row.state, row.agrees) == ("failed", None)


def test_only_what_was_held_to_the_watched_bar_is_evidence(tmp_path: Path) -> None:
    with audited(tmp_path) as it:
        assert it.routes(model="small") == ["small"]
        assert it.routes(model="large") == ["large"]
        it.catch_up()
        assert audits.read(it.ledger, task="", epoch=0, bar=0.8) == []
        assert it.auditor.counts.questions == {"unwatched": 2}


def test_when_the_days_money_is_spent_auditing_pauses_for_kept_and_deferred_alike(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # One audit reserves 4096 × 10 + 1024 × 20 dollars a million: 0.06144.
    settings = SETTINGS.model_copy(update={"max_usd_per_day": 0.07})
    with audited(tmp_path, settings=settings) as it:
        with caplog.at_level(logging.WARNING, "corea.audit"):
            it.auditor._purse.set_spent(it.auditor._wall_clock(), 60_000_000)
            it.post(3)
        assert it.auditor.counts.trouble == {"money": 3}
        assert caplog.text.count("the day's money for audits is spent") == 1
        assert 'corea_audit_paused_total{why="money"} 3.0' in it.metrics()
        assert "corea_audit_is_paused 1.0" in it.metrics()
        it.catch_up()
        [row] = audits.read(it.ledger, task="", epoch=0, bar=0.8)
        assert (row.state, row.questions) == ("paused", 3)
        assert it.auditor.statuses()[0].paused == 3
