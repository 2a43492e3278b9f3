"""Every fault, at every place: what the client gets, how often the upstream is asked, and whether the books agree.

The matrix itself, and the upstream that keeps an invoice, are those of ``bench.gateway.faults``.
"""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest

from bench.gateway.billing import BillingUpstream
from bench.gateway.faults import CELLS, PRICES, TIERS, Answer, Books, Cell, Outcome, ask, outcome
from corea.ledger import Ledger, get_trace, list_traces, reading
from corea.types import Trace

REQUESTS = 6
#: What the documentation of the gateway lists for an upstream that fails.
CODES = {
    "upstream_unreachable",
    "upstream_error",
    "upstream_garbage",
    "upstream_timeout",
    "upstream_down",
    "rate_limit_exceeded",
}


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path_factory.mktemp('faults') / 'ledger.db'}") as opened:
        yield opened


async def short(pause_s: float) -> None:
    """Pauses before retries, fifty times as fast."""
    await asyncio.sleep(pause_s / 50)


def run(cell: Cell, ledger: Ledger, *, requests: int = REQUESTS, at_once: int = REQUESTS, breakers: bool) -> Outcome:
    return asyncio.run(outcome(cell, Books(ledger), requests=requests, at_once=at_once, breakers=breakers, sleep=short))


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: f"{cell.tier}-{cell.phase}-{cell.fault}-{cell.rate:.0%}")
def test_whatever_fails_the_client_is_told_and_the_ledger_equals_the_invoice(cell: Cell, ledger: Ledger) -> None:
    found = run(cell, ledger, breakers=True)
    assert found.wrong == []
    assert found.known_nano_usd == found.invoiced_for_known_nano_usd
    assert {answer.code for answer in found.answers} <= CODES | {None}
    assert {answer.status for answer in found.answers} <= {200, 429, 502, 503, 504}
    assert {answer.question: answer.code is None for answer in found.answers} == answered(cell, found)
    calls = found.calls[cell.tier]
    assert len(calls) <= REQUESTS + min(2 * REQUESTS, 10 + 0.2 * REQUESTS)
    if cell.tier == "large" and cell.phase == "mid-stream":
        assert len(calls) == REQUESTS, "a call was tried again after a word had gone out"
    if cell.fault in ("latency", "429", "500") and not (cell.tier == "large" and cell.phase == "mid-stream"):
        assert found.unknown_attempts == 0
    elif cell.fault != "latency":
        assert found.unknown_attempts >= 1


def answered(cell: Cell, found: Outcome) -> dict[str, bool]:
    """By question: with the small tier down the large one answers; else what its last call came to."""
    if cell.tier == "small":
        return {answer.question: True for answer in found.answers}
    return {call.question: cell.fault == "latency" or not call.faulted for call in found.calls["large"]}


@pytest.mark.parametrize("phase", ["buffered", "before the first token"])
def test_in_a_total_outage_a_spent_budget_leaves_one_upstream_call_a_request(phase: str, ledger: Ledger) -> None:
    cell = Cell(fault="500", rate=1.0, phase=phase, tier="large")
    found = run(cell, ledger, requests=60, at_once=4, breakers=False)
    late = [call for call in found.calls["large"] if int(call.question.split()[1]) >= 20]
    assert len(late) <= 1.1 * 40
    assert len(found.calls["large"]) <= 60 + 10
    assert found.wrong == []


@pytest.mark.parametrize("tier", TIERS)
def test_in_a_total_outage_an_open_breaker_leaves_almost_none(tier: str, ledger: Ledger) -> None:
    found = run(Cell(fault="500", rate=1.0, phase="buffered", tier=tier), ledger, requests=60, at_once=4, breakers=True)
    assert len(found.calls[tier]) <= 10 + 4 + 10
    assert found.success_rate == (1.0 if tier == "small" else 0.0)
    assert found.wrong == []


CONFIG = """
[[tiers]]
name = "small"
kind = "openai"
model = "mock"
base_url = "{small}"
threshold = 0.5
confidence = {{ estimator = "verbalized" }}
prices = {{ input = 0.15, output = 0.6 }}
[[tiers]]
name = "large"
kind = "openai"
model = "mock"
base_url = "{large}"
prices = {{ input = 2.5, output = 10.0 }}
[ledger]
url = "{ledger}"
"""
AT_ONCE, ANSWERS_BEFORE_THE_KILL = 8, 40


@contextmanager
def serving(config: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """``corea serve`` as a process of its own, and its address."""
    command = [sys.executable, "-m", "corea", "serve", "--config", str(config), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            said = next(line for line in process.stderr if "listening on" in line)
            yield process, said.split("listening on ")[1].split()[0]
        finally:
            process.kill()


def test_after_kill_9_every_answer_given_is_in_the_ledger_as_it_was_billed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    answers, invoices = asyncio.run(_killed(tmp_path / "corea.toml", url))
    with reading(url) as engine:
        traces = [get_trace(engine, row.id) for row in list_traces(engine, limit=100_000)]
    kept = {trace.request.question: trace for trace in traces}
    whole = {answer.question for answer in answers if answer.code is None}
    assert len(kept) == len(traces)
    assert len(whole) >= ANSWERS_BEFORE_THE_KILL
    assert whole <= kept.keys()
    for question, trace in kept.items():
        assert costs(trace) == {tier: invoice[question] for tier, invoice in invoices.items() if question in invoice}
    # What was being worked on when it died left nothing behind: the ledger is told of an attempt at its end.
    lost = {question for invoice in invoices.values() for question in invoice} - kept.keys()
    assert len(lost) <= AT_ONCE
    assert not lost & whole


def costs(trace: Trace) -> dict[str, int | None]:
    return {attempt.tier: attempt.cost_nano_usd for attempt in trace.attempts}


async def _killed(config: Path, url: str) -> tuple[list[Answer], dict[str, dict[str, int]]]:
    """Traffic until the gateway is killed in the middle of it; then a new one, which answers on the same ledger."""
    rng = random.Random(1)
    unsure = BillingUpstream(price=PRICES["small"], last_line="\nConfidence: 1", latency_s=0.005, rng=rng)
    async with unsure as small, BillingUpstream(price=PRICES["large"], latency_s=0.01, rng=rng) as large:
        text = CONFIG.format(small=small.base_url, large=large.base_url, ledger=url)
        await asyncio.to_thread(config.write_text, text)
        answers: list[Answer] = []
        numbers = iter(range(100_000))

        async def work(address: str, process: subprocess.Popen[str]) -> None:
            async with aiohttp.ClientSession() as session:
                for number in numbers:
                    answers.append(await ask(session, address, f"question {number}", stream=number % 2 == 0))
                    if len(answers) == ANSWERS_BEFORE_THE_KILL:
                        process.send_signal(signal.SIGKILL)

        with serving(config) as (process, address):
            ended = await asyncio.gather(*(work(address, process) for _ in range(AT_ONCE)), return_exceptions=True)
            assert all(isinstance(one, aiohttp.ClientError | OSError) for one in ended), ended
        with serving(config) as (_, address):
            async with aiohttp.ClientSession() as session:
                answers.append(await ask(session, address, "question after", stream=False))
        assert answers[-1].code is None
        return answers, {"small": small.invoice(), "large": large.invoice()}
