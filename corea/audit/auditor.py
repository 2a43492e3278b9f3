"""Audits kept answers in the background of a process that serves, and holds it to what the evidence says.

A trace that is in the ledger is looked at once (:meth:`Auditor.observe`): money and room are looked at before the lot,
the lot is a hash. What was drawn is in the ledger before the last tier is asked, so an audit that nobody ends is seen
by all replicas, and ends as unknown. What all of them know is read from the ledger (:mod:`corea.audit.lookout`).

Knows no HTTP and no SQL. The wall clock only dates rows and tells the day whose money is spent.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from corea.audit.agreement import agreement
from corea.audit.asking import Job, ask, unknown
from corea.audit.book import Book
from corea.audit.counts import Counts, count
from corea.audit.evidence import InForce
from corea.audit.lookout import Lookout
from corea.audit.plans import sampler_of
from corea.audit.policy import AuditPolicy
from corea.audit.sampler import Purse, affordable_share
from corea.audit.telling import Post, Teller
from corea.audit.watch import Plan, Status
from corea.audit_config import AuditConfig
from corea.cascade import Recorder
from corea.errors import ConfigError, LedgerError
from corea.ledger import audits
from corea.ledger.audits import AlarmRow, AuditRow, Ending
from corea.ledger.spending import day_of
from corea.ledger.writer import Ledger
from corea.tier import Tier
from corea.types import Attempt, Kind, Reason, Trace, Usage

logger = logging.getLogger("corea.audit")

REFRESH_S = 5.0
DRAIN_S = 30.0
#: Audits that were drawn and have not ended; beyond that auditing pauses.
MAX_WAITING = 256
#: Rows that a ledger which is away may leave behind; beyond that auditing pauses.
MAX_ROWS = 10_000
#: Of a prompt, for the price of an audit that has not been asked yet.
RESERVED_PROMPT_TOKENS = 4096
#: A rate is not known sooner.
RATE_AFTER_S = 60.0
_DAY_S = 86_400.0

_Compared = tuple[Attempt, Attempt, "Kind | None"]


class Auditor:
    """One a process. ``async with``, or :meth:`start` and :meth:`aclose`; all on one event loop."""

    def __init__(
        self,
        last: Tier,
        ledger: Ledger,
        settings: AuditConfig,
        plans: Sequence[Plan],
        *,
        first: str,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        post: Post | None = None,
        refresh_s: float = REFRESH_S,
        drain_s: float = DRAIN_S,
    ) -> None:
        """``last`` is asked, ``first`` the name of the tier whose bar is watched. ``drain_s``: how long audits in
        progress have when the process stops.

        Raises :class:`ConfigError` for a last tier without a price, :class:`InputError` for a cap that pays no audit.
        """
        self.settings = settings
        self.counts = Counts()
        self.policy = AuditPolicy(self.in_force)
        self._last, self._first = last, first
        self._ledger = ledger
        self._sampler = sampler_of(settings)
        self._purse = _purse(last, settings)
        self._clock, self._wall_clock = clock, wall_clock
        self._refresh_s, self._drain_s = refresh_s, drain_s
        self._lookout = Lookout(
            ledger, plans, deadline_s=settings.deadline_s, clock=clock, wall_clock=wall_clock
        )  # fmt: skip
        url = None if settings.webhook is None else settings.webhook.get_secret_value()
        self._teller = Teller(url, self.counts, post)
        self._book = Book()
        #: Deferred questions of the fair sample, still to be compared.
        self._to_compare: dict[str, _Compared] = {}
        self._open: tuple[AlarmRow, ...] = ()
        self._jobs: dict[str, Job] = {}
        #: How audits ended, where the ledger was away.
        self._late: list[Ending] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._places = asyncio.Semaphore(settings.concurrency)
        self._wake = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        self._started_s = clock()
        self._kept = 0
        self._loop: asyncio.Task[None] | None = None
        self._closing = False

    # --- What others ask ---------------------------------------------------------------------------------------------

    def in_force(self, task: str | None) -> InForce | None:
        """The step for a question of this task; None where nobody watches it."""
        return self._lookout.in_force(task)

    def statuses(self) -> list[Status]:
        """Of each watch, as of the last look into the ledger."""
        return self._lookout.statuses()

    @property
    def open_alarms(self) -> tuple[AlarmRow, ...]:
        return self._open

    @property
    def waiting(self) -> int:
        """Audits that were drawn and have not ended."""
        return len(self._jobs)

    @property
    def paused(self) -> str | None:
        """Why the next question would be left out."""
        return self._why_paused(self._wall_clock())

    # --- Questions ---------------------------------------------------------------------------------------------------

    def over(self, recorder: Recorder | None) -> Recorder:
        """The recorder, every trace it has kept looked at."""
        return _Observed(recorder, self)

    def observe(self, trace: Trace) -> None:
        """A trace is safe in the ledger. Quick, and never raises."""
        try:
            self._observe(trace)
        except Exception:
            # It may cost an audit, but no answer.
            logger.exception("%s: could not be looked at", trace.id)

    def _observe(self, trace: Trace) -> None:
        first, final = trace.attempts[0], trace.attempt
        now = self.in_force(trace.request.task)
        if now is None or now.bar is None or final is None or not self._held_to(first, now.bar):
            count(self.counts.questions, "unwatched")
            return
        at = self._wall_clock()
        why = self._why_paused(at)
        kept = final.decision.keep and final.tier != self._last.name
        self._kept += kept
        if kept:
            lot = self._sampler.draw(trace.id, final.confidence.value, can_pay=why is None)
        else:
            lot = self._sampler.deferred(can_pay=why is None)
        uniform = why is None and self._sampler.uniform(trace.id) < self._sampler.min_propensity
        # A time that is none pays for nothing, so this is a row of what was left out.
        at = at if math.isfinite(at) else 0.0
        row = AuditRow(
            trace_id=trace.id, task=now.plan.task or "", epoch=now.epoch, bar=now.bar,
            state="passed" if why is None else "paused", propensity=lot.propensity, day=day_of(at), asked_at_unix_s=at,
        )  # fmt: skip
        if why is not None:
            count(self.counts.questions, "paused")
            self._teller.paused(why)
            self._book.count(row)
            return
        self._teller.goes_on()
        count(self.counts.questions, "drawn" if lot.audited else "kept" if kept else "deferred")
        if lot.audited:
            self._draw(row, trace, final, uniform=uniform)
        elif uniform:
            self._to_compare[trace.id] = (first, final, trace.request.kind)
            self._book.add(replace(row, state="deferred", uniform=True))
        else:
            self._book.count(row)

    def _held_to(self, first: Attempt, bar: float) -> bool:
        """Whether the first tier was held to the step in force, or to a stricter bar: of that the plan speaks."""
        decision = first.decision
        if first.tier != self._first or decision.reason in (Reason.RELAYED, Reason.NOT_CERTIFIED):
            return False
        if decision.reason is Reason.SKIPPED:
            # By a gate, it is a deferred question like others; by an alarm that has been approved since, it is not.
            return decision.policy != self.policy.name
        return first.failure is not None or (decision.threshold is not None and decision.threshold >= bar)

    def _why_paused(self, now_unix_s: float) -> str | None:
        """Looked at before the lot, for kept and deferred questions alike."""
        if not self._purse.can_pay(now_unix_s):
            return "money"
        if len(self._jobs) >= MAX_WAITING or self._closing:
            return "busy"
        return "ledger" if len(self._book) >= MAX_ROWS else None

    def _draw(self, row: AuditRow, trace: Trace, kept: Attempt, *, uniform: bool) -> None:
        day = self._purse.reserve(row.asked_at_unix_s)
        self._book.add(
            replace(row, state="running", uniform=uniform, reserved_nano_usd=self._purse.reserve_nano_usd, day=day)
        )
        give_up_at_s = self._clock() + self.settings.deadline_s
        self._jobs[trace.id] = Job(trace=trace, kept=kept, day=day, give_up_at_s=give_up_at_s)
        self._wake.set()

    # --- In the background -------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Reads which steps are in force, then watches. The evidence so far may be long: it is read in the background.

        Raises :class:`LedgerError` where the ledger cannot be read.
        """
        seen = await asyncio.to_thread(self._lookout.begin)
        self._purse.set_spent(seen.at_unix_s, seen.spent_nano_usd)
        self._open = seen.open
        self._loop = asyncio.create_task(self._run(), name="corea-audit")

    async def aclose(self) -> None:
        """Audits in progress may end within ``drain_s``; what is not over by then counts as unknown."""
        self._closing = True
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.wait([self._loop])
        with suppress(LedgerError):
            await self._flush()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._drain_s)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with suppress(LedgerError):
            await self._flush()

    async def __aenter__(self) -> Auditor:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def caught_up(self) -> None:
        """Waits until all audits drawn so far have ended, and what follows from them is in force and told."""
        await self._flush()
        await self._all_done()
        await self.refresh()
        await self._all_done()

    async def refresh(self) -> None:
        """Writes what is to be written, reads what all replicas know, and rings where that has to be."""
        async with self._one_at_a_time:
            await self._write()
            seen = await asyncio.to_thread(self._lookout.look, tuple(self._jobs))
            # What was drawn meanwhile is in the book: nothing is written while this lock is held.
            drawn = self._book.drawn * self._purse.reserve_nano_usd
            self._purse.set_spent(seen.at_unix_s, seen.spent_nano_usd + drawn)
        self._open = seen.open
        if seen.lost:
            count(self.counts.ended, "lost", seen.lost)
        for row in seen.rung:
            if (sending := self._teller.alarm(row)) is not None:
                self._begin(sending)
        self._check_rate()

    async def _run(self) -> None:
        # The first look is now.
        next_look_s = self._clock()
        while not self._closing:
            # Not wait_for, which may swallow a cancellation in Python 3.11.
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, next_look_s - self._clock())):
                    await self._wake.wait()
            self._wake.clear()
            try:
                if self._clock() < next_look_s:
                    await self._flush()
                    continue
                next_look_s = self._clock() + self._refresh_s
                await self.refresh()
            except LedgerError as exc:
                self._teller.once("ledger", "the audit waits for its ledger: %s", exc)
            except Exception:
                logger.exception("the audit could not look into its ledger")

    async def _flush(self) -> None:
        async with self._one_at_a_time:
            await self._write()

    async def _write(self) -> None:
        """What was drawn is in the ledger before anybody is asked."""
        rows = self._book.take()
        try:
            await asyncio.to_thread(self._add, rows, dict(self._to_compare))
        except BaseException:
            self._book.put_back(rows)
            raise
        while self._late:
            await self._end(self._late[0])
            del self._late[0]
        self._teller.well("ledger")
        for row in rows:
            self._to_compare.pop(row.trace_id, None)
            if row.state == "running" and (job := self._jobs.get(row.trace_id)) is not None:
                self._begin(self._audit(job))

    def _add(self, rows: Sequence[AuditRow], to_compare: Mapping[str, _Compared]) -> None:
        compared = [
            replace(row, agrees=agreement(*to_compare[row.trace_id])) if row.trace_id in to_compare else row
            for row in rows
        ]
        audits.add(self._ledger, compared)

    async def _audit(self, job: Job) -> None:
        """Asks the last tier, and writes the end: whatever happens, there is one."""
        trace_id = job.trace.id
        try:
            async with self._places:
                ending = await ask(job, self._last, clock=self._clock, wall_clock=self._wall_clock)
        except asyncio.CancelledError:
            ending = unknown(trace_id, "it was cut short when the gateway stopped", self._wall_clock())
        except Exception as exc:
            logger.exception("%s: its audit failed", trace_id)
            ending = unknown(trace_id, type(exc).__name__, self._wall_clock())
        self._purse.settle(job.day, ending.cost_nano_usd)
        count(self.counts.ended, "unknown" if ending.agrees is None else "agreed" if ending.agrees else "differed")
        self.counts.cost_nano_usd += ending.cost_nano_usd or 0
        self.counts.unknown_cost += ending.cost_nano_usd is None
        try:
            await self._end(ending)
        except LedgerError:
            # It stays this process's, and is written with what comes next.
            self._late.append(ending)

    async def _end(self, ending: Ending) -> None:
        await asyncio.to_thread(audits.end, self._ledger, ending)
        self._jobs.pop(ending.trace_id, None)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _all_done(self) -> None:
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _check_rate(self) -> None:
        """Says at once if the share cannot be paid at the rate that is seen."""
        elapsed_s = self._clock() - self._started_s
        if elapsed_s < RATE_AFTER_S or not self._kept:
            return
        affordable = affordable_share(
            cap_nano_usd=self._purse.cap_nano_usd, kept_a_day=self._kept * _DAY_S / elapsed_s,
            cost_nano_usd=self.counts.mean_cost_nano_usd or float(self._purse.reserve_nano_usd),
        )  # fmt: skip
        self._teller.share(
            wanted=self.settings.share, affordable=affordable, cap_usd=self.settings.max_usd_per_day
        )  # fmt: skip


class _Observed:
    """A recorder over another; closing is the other's business."""

    def __init__(self, inner: Recorder | None, auditor: Auditor) -> None:
        self._inner = inner
        self._auditor = auditor

    async def write(self, trace: Trace) -> None:
        if self._inner is not None:
            await self._inner.write(trace)
        self._auditor.observe(trace)

    async def aclose(self) -> None:
        """Nothing of ours."""


def _purse(last: Tier, settings: AuditConfig) -> Purse:
    usage = Usage(prompt_tokens=RESERVED_PROMPT_TOKENS, completion_tokens=last.max_tokens)
    reserve = last.cost_nano_usd(usage)
    if reserve is None or settings.max_usd_per_day is None:
        raise ConfigError(
            f'nobody knows what an audit costs, so no cap could be kept; set the prices of tier "{last.name}"',
            field="audit.max_usd_per_day",
        )
    return Purse(cap_nano_usd=round(settings.max_usd_per_day * 10**9), reserve_nano_usd=reserve)
