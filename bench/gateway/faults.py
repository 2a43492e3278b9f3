"""The fault matrix: what clients get, how often the upstream is asked, and whether the ledger agrees with its invoice.

``python -m bench.gateway.faults [requests a cell]`` prints the whole of it and keeps it in ``bench/results``. The
gateway, the upstreams and the clients are real servers and sockets in one event loop; the ledger is a SQLite file.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import sys
import tempfile
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path

import aiohttp
import uvicorn

from bench.gateway.billing import BEFORE, FAULTS, MIDWAY, BillingUpstream, Call
from corea.cascade import Cascade
from corea.confidence import Verbalized
from corea.gateway.app import Gateway
from corea.ledger import Ledger, get_trace
from corea.models.breaker import Breaker, BreakerSettings
from corea.models.openai import OpenAIModel
from corea.models.retrying import RetryBudget, Sleep
from corea.prices import FixedPrice
from corea.tier import Tier
from corea.types import Trace

RATES = (0.2, 1.0)
PHASES = ("buffered", "before the first token", "mid-stream")
TIERS = ("small", "large")
PRICES = {"small": FixedPrice.per_million(0.15, 0.6), "large": FixedPrice.per_million(2.5, 10.0)}
#: Of one tier, so that a call that hangs does not hold the matrix up.
TIMEOUT_S = 1.5
RESULT = Path(__file__).parent.parent / "results" / "gateway_faults.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One way to fail. ``tier`` is the one that does; the small one is sure of itself unless the large one fails."""

    fault: str
    rate: float
    phase: str
    tier: str


CELLS = tuple(
    Cell(fault=fault, rate=rate, phase=phase, tier=tier)
    for tier, phase, fault, rate in product(TIERS, PHASES, FAULTS, RATES)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a client got. ``code`` of the error, also of one inside a stream; None for a whole answer."""

    question: str
    status: int
    code: str | None


@dataclass(slots=True)
class Books:
    """The ledger, and the ids of what was written into it."""

    ledger: Ledger
    ids: list[str] = field(default_factory=list)

    async def write(self, trace: Trace) -> None:
        await self.ledger.write(trace)
        self.ids.append(trace.id)

    async def aclose(self) -> None:
        """It is used again by the next cell."""

    def traces(self) -> list[Trace]:
        return [get_trace(self.ledger.engine, id) for id in self.ids]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Of a cell. Money is nano-USD; ``wrong`` are the attempts whose known cost is not what was billed for them."""

    answers: list[Answer]
    calls: dict[str, list[Call]]
    unknown_attempts: int
    known_nano_usd: int
    invoiced_for_known_nano_usd: int
    invoiced_for_unknown_nano_usd: int
    wrong: list[str]

    @property
    def success_rate(self) -> float:
        return sum(answer.code is None for answer in self.answers) / len(self.answers)

    def calls_per_request(self, tier: str) -> float:
        return len(self.calls[tier]) / len(self.answers)


async def outcome(
    cell: Cell,
    books: Books,
    *,
    requests: int,
    at_once: int,
    seed: int = 1,
    breakers: bool = True,
    sleep: Sleep = asyncio.sleep,
) -> Outcome:
    """``requests`` of clients against a gateway with new breakers and retry budgets."""
    rng = random.Random(seed)
    where = MIDWAY if cell.phase == "mid-stream" else BEFORE
    sure = "\nConfidence: 9" if cell.tier == "small" else "\nConfidence: 1"

    def upstream(tier: str) -> BillingUpstream:
        return BillingUpstream(
            cell.fault if tier == cell.tier else None,
            rate=cell.rate,
            where=where,
            price=PRICES[tier],
            last_line=sure if tier == "small" else "",
            rng=rng,
        )

    async with upstream("small") as small, upstream("large") as large:
        tiers = [_tier("small", small, breakers, rng, sleep), _tier("large", large, breakers, rng, sleep)]
        async with gateway(Cascade(tiers, deadline_s=10.0, ledger=books)) as url:
            answers = await asked(url, requests, at_once=at_once, stream=cell.phase != "buffered")
        return _outcome(answers, {"small": small, "large": large}, books.traces())


def _tier(name: str, upstream: BillingUpstream, breakers: bool, rng: random.Random, sleep: Sleep) -> Tier:
    model = OpenAIModel(
        name, base_url=upstream.base_url, model="mock", retry_budget=RetryBudget(), rng=rng, sleep=sleep
    )
    clock = asyncio.get_running_loop().time
    return Tier(
        name=name,
        model=model,
        price=PRICES[name],
        timeout_s=TIMEOUT_S,
        breaker=Breaker(BreakerSettings(), clock=clock, rng=rng) if breakers else None,
        **({"threshold": 0.5, "estimator": Verbalized()} if name == "small" else {}),  # type: ignore[arg-type]
    )


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the caller's."""
        yield


@asynccontextmanager
async def gateway(cascade: Cascade) -> AsyncGenerator[str, None]:
    config = uvicorn.Config(Gateway(cascade), host="127.0.0.1", port=0, log_config=None, access_log=False, ws="none")
    server = _Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.001)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        await serving


async def asked(url: str, requests: int, *, at_once: int, stream: bool) -> list[Answer]:
    questions = iter([f"question {number}" for number in range(requests)])
    answers: list[Answer] = []

    async def work(session: aiohttp.ClientSession) -> None:
        for question in questions:
            answers.append(await ask(session, url, question, stream=stream))

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(work(session) for _ in range(at_once)))
    return answers


async def ask(session: aiohttp.ClientSession, url: str, question: str, *, stream: bool) -> Answer:
    body = {"model": "corea", "messages": [{"role": "user", "content": question}], "stream": stream}
    async with session.post(f"{url}/chat/completions", json=body) as response:
        raw = await response.read()
    if not stream or response.status != 200:
        code = None if response.status == 200 else json.loads(raw)["error"]["code"]
        return Answer(question=question, status=response.status, code=code)
    events = [line.removeprefix(b"data: ") for line in raw.split(b"\n") if line.startswith(b"data: ")]
    if events and events[-1] == b"[DONE]":
        return Answer(question=question, status=200, code=None)
    error = json.loads(events[-1]).get("error") if events else None
    return Answer(question=question, status=200, code=error["code"] if error else "cut off without a word")


def _outcome(answers: list[Answer], upstreams: dict[str, BillingUpstream], traces: list[Trace]) -> Outcome:
    invoices = {tier: upstream.invoice() for tier, upstream in upstreams.items()}
    known = invoiced = unknown = unknown_invoiced = 0
    wrong: list[str] = []
    for trace in traces:
        for attempt in trace.attempts:
            billed = invoices[attempt.tier].pop(trace.request.question, 0)
            if attempt.cost_nano_usd is None:
                unknown, unknown_invoiced = unknown + 1, unknown_invoiced + billed
                continue
            known, invoiced = known + attempt.cost_nano_usd, invoiced + billed
            if attempt.cost_nano_usd != billed:
                wrong.append(f"{trace.request.question}, {attempt.tier}: {attempt.cost_nano_usd} is not {billed}")
    wrong += [
        f"{question}, {tier}: billed and not in the ledger" for tier, left in invoices.items() for question in left
    ]
    return Outcome(
        answers=answers,
        calls={tier: upstream.calls for tier, upstream in upstreams.items()},
        unknown_attempts=unknown,
        known_nano_usd=known,
        invoiced_for_known_nano_usd=invoiced,
        invoiced_for_unknown_nano_usd=unknown_invoiced,
        wrong=wrong,
    )


def record(cell: Cell, found: Outcome) -> dict[str, object]:
    codes = [answer.code for answer in found.answers if answer.code is not None]
    return {
        **asdict(cell),
        "requests": len(found.answers),
        "success_rate": round(found.success_rate, 4),
        "errors": {code: codes.count(code) for code in sorted(set(codes))},
        "calls_per_request": round(found.calls_per_request(cell.tier), 3),
        "ledger_nano_usd": found.known_nano_usd,
        "invoice_nano_usd": found.invoiced_for_known_nano_usd,
        "unknown_attempts": found.unknown_attempts,
        "invoice_of_unknown_nano_usd": found.invoiced_for_unknown_nano_usd,
        "wrong": found.wrong,
    }


async def _matrix(requests: int) -> list[dict[str, object]]:
    records = []
    with tempfile.TemporaryDirectory() as folder, Ledger.open(f"sqlite:///{folder}/ledger.db") as ledger:
        for cell in CELLS:
            found = await outcome(cell, Books(ledger), requests=requests, at_once=16)
            records.append(record(cell, found))
            print(
                f"{cell.tier:5}  {cell.phase:22}  {cell.fault:7} {cell.rate:4.0%}"
                f"  answered {found.success_rate:6.1%}  calls a request {found.calls_per_request(cell.tier):5.2f}"
                f"  ledger {found.known_nano_usd} = invoice {found.invoiced_for_known_nano_usd}"
                f"  unknown {found.unknown_attempts}" + ("" if not found.wrong else f"  WRONG {found.wrong[:2]}")
            )
    return records


if __name__ == "__main__":
    # Every answer that fails is logged, and every client that hangs up on the upstream; here they are counted.
    logging.getLogger("corea").setLevel(logging.ERROR)
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    made = asyncio.run(_matrix(int(sys.argv[1]) if len(sys.argv) > 1 else 100))
    RESULT.write_text(json.dumps(made, indent=1) + "\n")
    sys.exit(any(one["wrong"] for one in made))
