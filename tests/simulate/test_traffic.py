"""The ledger's traces as requests: all of them, in order, page by page, with what was said of them."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, replace
from pathlib import Path
from random import Random

import pytest

from corea.cascade import Cascade
from corea.confidence.named import estimator
from corea.errors import CascadeExhausted, UpstreamTimeout
from corea.ledger.audits import AuditRow
from corea.ledger.database import reading
from corea.ledger.feedback import Feedback, add
from corea.ledger.schema import audits
from corea.ledger.writer import Ledger
from corea.models.scripted import ScriptedModel, Step, scripted_answer
from corea.prices import FixedPrice
from corea.simulate.deciders import AsRecorded, Fixed
from corea.simulate.replay import replay, survey
from corea.simulate.traffic import Window, recorded
from corea.tier import Tier
from corea.types import Prompt, Request, Trace
from ledger.samples import trace
from ledger.stores import Place, fresh
from simulate.traffic_samples import Said, past

REQUESTS = 60


def url(folder: Path) -> str:
    return f"sqlite:///{folder / 'ledger.db'}"


def store(url: str, *traces: Trace) -> None:
    async def write() -> None:
        ledger = Ledger.open(url)
        for one in traces:
            await ledger.write(one)
        await ledger.aclose()

    asyncio.run(write())


def small(prompt: Prompt, call: int) -> Step:
    """Sure of some answers, unsure of others, and ill now and then."""
    rng = Random(prompt.messages[-1].content)
    if rng.random() < 0.1:
        return UpstreamTimeout(model="small", elapsed_s=1.0)
    words = " ".join(["think"] * rng.randrange(5, 50))
    return scripted_answer("A", digit=rng.choice([1, 5, 8, 9]), reasoning=words)


def large(prompt: Prompt, call: int) -> Step:
    rng = Random("large " + prompt.messages[-1].content)
    if rng.random() < 0.05:
        return UpstreamTimeout(model="large", elapsed_s=1.0)
    return scripted_answer(rng.choice("AB"), reasoning=" ".join(["ponder"] * rng.randrange(20, 90)))


def answer(url: str, threshold: float) -> None:
    """The same questions to a real cascade with this threshold, its traces in the ledger."""
    tiers = [
        Tier(
            name="small",
            model=ScriptedModel("s", replies=small),
            estimator=estimator("verbalized"),
            threshold=threshold,
            price=FixedPrice.per_million(0.05, 0.15),
        ),
        Tier(name="large", model=ScriptedModel("l", replies=large), price=FixedPrice.per_million(2.5, 10)),
    ]
    seconds = iter(range(10**6))

    async def ask() -> None:
        wall_clock = lambda: 1.7e9 + next(seconds)  # noqa: E731
        async with Cascade(tiers, ledger=Ledger.open(url), fingerprint="f", wall_clock=wall_clock) as cascade:
            for i in range(REQUESTS):
                try:
                    await cascade.ask(Request.of(f"question {i}", task="ab"[i % 2], kind="choice"))
                except CascadeExhausted:
                    continue

    asyncio.run(ask())


@pytest.mark.parametrize("threshold", [0.0, 0.7, 1.0])
def test_a_real_ledger_replayed_with_the_threshold_in_use_gives_the_recorded_money(
    threshold: float, tmp_path: Path
) -> None:
    answer(url(tmp_path), threshold)
    with reading(url(tmp_path)) as engine:
        known = survey(recorded(engine), rng=Random(0))
        would = Fixed(thresholds={"small": threshold})
        found = replay(recorded(engine, page=7), known, would).results(0)[0]
        costs = [one.trace.cost_nano_usd for one in recorded(engine)]
    assert known.requests == REQUESTS
    # Those whose cost nobody knows are in neither sum: a call that timed out may be billed.
    assert found.would.cost.value == sum(cost for cost in costs if cost is not None)
    assert found.would.cost.unknown == costs.count(None) > 0
    assert found.difference.cost.value == 0
    assert found.difference.cost.exact


def test_a_lower_threshold_replayed_is_what_a_cascade_with_it_would_have_spent(tmp_path: Path) -> None:
    """The same questions were put to another cascade; the models answer them the same way."""
    strict, lax = url(tmp_path), f"sqlite:///{tmp_path / 'lax.db'}"
    answer(strict, 0.99)
    answer(lax, 0.7)
    with reading(lax) as engine:
        truth = sum(one.trace.cost_nano_usd or 0 for one in recorded(engine))
    with reading(strict) as engine:
        known = survey(recorded(engine), rng=Random(0))
        found = replay(recorded(engine), known, Fixed(thresholds={"small": 0.7})).results(0)[0]
    assert found.would.cost.value == truth
    assert found.coverage.estimated == found.coverage.open == 0


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_every_trace_comes_once_in_order_of_time_whatever_the_page(kind: str, tmp_path: Path) -> None:
    with fresh(kind, tmp_path) as place:
        # Three began at one instant, and a page ends among them.
        made = [trace(started_at_unix_s=float(s)) for s in (5, 1, 3, 3, 3, 2, 4)]
        store(place.url, *made)
        wanted = [one.id for one in sorted(made, key=lambda one: (one.started_at_unix_s, one.id))]
        for page in (1, 2, 7, 50):
            assert _ids(place, page=page) == wanted


def _ids(place: Place, window: Window | None = None, *, page: int = 2) -> list[str]:
    with reading(place.url) as engine:
        return [one.trace.id for one in recorded(engine, window, page=page)]


def test_traces_are_read_page_by_page(tmp_path: Path) -> None:
    store(url(tmp_path), *(trace(started_at_unix_s=float(s)) for s in range(4)))
    with reading(url(tmp_path)) as engine:
        walk = recorded(engine, page=2)
        next(walk)
        store(url(tmp_path), trace(id="late", started_at_unix_s=9.0))
        assert [one.trace.id for one in walk][-1] == "late"


def test_a_window_is_of_a_time_a_task_and_a_key(tmp_path: Path) -> None:
    made = [
        trace(started_at_unix_s=float(s), task="ab"[s % 2], metadata={"key": f"k{s % 3}", "model": "m"})
        for s in range(12)
    ]
    with fresh("sqlite", tmp_path) as place:
        store(place.url, *made)
        assert _ids(place, Window(since_unix_s=2, until_unix_s=4)) == [made[2].id, made[3].id]
        assert _ids(place, Window(task="b", key_id="k0")) == [made[3].id, made[9].id]


def test_what_was_said_of_an_answer_is_of_the_tier_that_gave_it(tmp_path: Path) -> None:
    made = [trace(id=f"t{i}", tiers=("small", "large")) for i in range(3)]
    store(url(tmp_path), *made)
    with reading(url(tmp_path)) as engine:
        for id, source, correct in (("t0", "a", 1.0), ("t1", "a", 0.0), ("t1", "b", 1.0), ("t2", "a", 0.5)):
            add(engine, Feedback(trace_id=id, source=source, correct=correct, note=None, at_unix_s=0.0))
        told = {one.trace.id: one.right for one in recorded(engine)}
    # Where two say otherwise, or one is in doubt, nobody knows.
    assert told == {"t0": {"large": 1.0}, "t1": {}, "t2": {}}


def test_an_audit_that_found_the_same_answer_says_that_nothing_was_lost_by_keeping_it(tmp_path: Path) -> None:
    kept = {"small": Said(confidence=0.9), "large": Said()}
    unsure = {"small": Said(confidence=0.1), "large": Said(answer="B")}
    store(url(tmp_path), *(past(kept, [0.5], id=f"t{i}").trace for i in range(3)), past(unsure, [0.5], id="u").trace)
    with reading(url(tmp_path)) as engine:
        row = AuditRow(
            trace_id="t0", task="", epoch=0, bar=0.5, state="done", propensity=1.0, day=0, asked_at_unix_s=0.0, place=1
        )
        with engine.begin() as connection:
            connection.execute(audits.insert(), asdict(replace(row, agrees=True)))
            connection.execute(audits.insert(), asdict(replace(row, trace_id="t1", state="failed", place=2)))
        known = survey(recorded(engine), rng=Random(0))
        found = replay(recorded(engine), known, AsRecorded()).results(0)[0]
    assert found.was.drop.unknown == 2
    assert (found.was.drop.low, found.was.drop.high) == (-2 / 4, 2 / 4)
