"""Draw the dashboard: ``python docs/dashboard_picture.py`` writes ``docs/dashboard-light.png`` and ``-dark.png``.

The ledger behind it is filled with the real outcomes of ``bench/outcomes``: 900 questions that both embedded tiers
answered, replayed once as a cascade would have met them. Questions, replies, grades and token counts are real.
Made up are when they were asked and by whom, whose answers were given feedback (three in five, by the recorded
grades), the prices (the large model ten times the small one's) and the latencies (a fortieth of two busy CPU cores').
The confidence is ``logprob`` with the task, through a logistic regression fitted on the other half of the questions.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import cos, pi
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import uvicorn
from playwright.sync_api import sync_playwright

from corea.dashboard.alarms import Alarm
from corea.dashboard.pages import Dashboard
from corea.evaluate.maps import log_odds, logistic
from corea.gateway.keys import Pepper, create
from corea.ledger import Ledger, list_traces, new_trace_id
from corea.policy.thresholds import decide
from corea.prices import FixedPrice
from corea.types import Attempt, Confidence, Decision, Message, Reason, Request, Trace, Usage

ROOT = Path(__file__).parent.parent
NOW, DAYS, FEEDBACK = 1_764_072_000.0, 7.0, 0.6
THRESHOLDS = {"corea": 0.28, "corea:careful": 0.4}
PRICES = {"small": FixedPrice.per_million(0.05, 0.2), "large": FixedPrice.per_million(0.5, 2.0)}
FASTER = 40.0
SIZE, SCALE = {"width": 1380, "height": 976}, 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Both tiers' rows of one question, and how sure the small one would have been."""

    small: dict[str, Any]
    large: dict[str, Any]
    confidence: float


def questions() -> list[Question]:
    """All of ``bench/outcomes``, in the order of the files."""
    rows = [
        row
        for path in sorted((ROOT / "bench" / "outcomes").glob("*.parquet"))
        for row in pq.read_table(path).to_pylist()
    ]
    sides = [{row["id"]: row for row in rows if row["tier"] == tier} for tier in ("small", "large")]
    both = [(sides[0][id], sides[1][id]) for id in sides[0] if id in sides[1]]
    confidences = _confidences([small for small, _ in both])
    return [Question(small=a, large=b, confidence=c) for (a, b), c in zip(both, confidences, strict=True)]


def _confidences(rows: list[dict[str, Any]]) -> list[float]:
    """Fitted on the other half of the questions: (n,)."""
    tasks = sorted({row["task"] for row in rows})
    odds = log_odds(np.array([row["confidence.logprob"] for row in rows]))
    dummies = np.array([[row["task"] == task for task in tasks] for row in rows], dtype=np.float64)
    features = np.column_stack([odds, dummies, dummies * odds[:, None]])
    correct = np.array([row["correct"] for row in rows])
    half = np.arange(len(rows)) % 2
    found = np.zeros(len(rows))
    for one in (0, 1):
        model = logistic(features[half != one], correct[half != one], penalty=1.0)
        found[half == one] = model.predict_proba(features[half == one])[:, 1]
    return found.tolist()


def fill(ledger: Ledger, keys: list[str], *, rng: Random) -> None:
    asked = [(_when(rng), question) for question in questions()]
    traces = [
        _trace(question, at, rng.choices(keys, (6, 3, 1))[0], rng) for at, question in sorted(asked, key=lambda x: x[0])
    ]

    async def write() -> None:
        await asyncio.gather(*(ledger.write(trace) for trace, _ in traces))
        for trace, correct in traces:
            if rng.random() < FEEDBACK:
                await ledger.add_feedback(trace.id, correct)

    asyncio.run(write())


def _when(rng: Random) -> float:
    """More by day than by night."""
    while True:
        at = NOW - rng.random() * DAYS * 86_400
        if rng.random() < 0.55 - 0.45 * cos((at % 86_400) / 86_400 * 2 * pi):
            return at


def _trace(question: Question, at: float, key: str, rng: Random) -> tuple[Trace, float]:
    profile = rng.choices(tuple(THRESHOLDS), (4, 1))[0]
    row = question.small
    value = Confidence(value=question.confidence, source="fitted")
    decision = decide(threshold=THRESHOLDS[profile], confidence=value, finish_reason=row["finish_reason"])
    attempts = [_attempt(row, decision, value)]
    if not decision.keep:
        row = question.large
        unasked = Confidence(value=None, source="", note="the last tier is not asked")
        attempts.append(_attempt(row, Decision(keep=True, reason=Reason.LAST_TIER), unasked))
    final = attempts[-1]
    alone = final.cost_nano_usd if len(attempts) == 2 else PRICES["large"].cost_nano_usd(final.usage)
    text = question.small["question"] or f"(a contest problem, {question.small['id']}; its text is not ours to show)"
    trace = Trace(
        id=new_trace_id(lambda: at, rng),
        request=Request(messages=(Message(role="user", content=text),), task=row["task"], kind=row["kind"]),
        attempts=tuple(attempts),
        final=len(attempts) - 1,
        started_at_unix_s=at,
        elapsed_s=sum(attempt.latency_s for attempt in attempts) + 0.004,
        cost_nano_usd=sum(attempt.cost_nano_usd or 0 for attempt in attempts),
        baseline_nano_usd=alone,
        fingerprint="3f9c2b7e",
        prices_version="nominal, 1 : 10",
        metadata={"key": key, "model": profile, "sampling": {"temperature": 0.0, "max_tokens": 512}},
    )
    return trace, float(row["correct"])


def _attempt(row: dict[str, Any], decision: Decision, confidence: Confidence) -> Attempt:
    usage = Usage(prompt_tokens=row["prompt_tokens"], completion_tokens=row["completion_tokens"])
    size = {"small": "0.5B", "large": "1.5B"}[row["tier"]]
    return Attempt(
        tier=row["tier"],
        model=f"Qwen2.5-Coder-{size}-Instruct Q4_K_M",
        decision=decision,
        confidence=confidence,
        text=row["text"] or "",
        answer=row["answer"],
        finish_reason=row["finish_reason"],
        usage=usage,
        cost_nano_usd=PRICES[row["tier"]].cost_nano_usd(usage),
        latency_s=row["latency_s"] / FASTER,
    )


class Ringing:
    """One alarm, to show how it looks: ``--alarm``."""

    def current(self) -> list[Alarm]:
        told = "Kept answers of this task lose more than the certificate allows: at least 2.6 points, allowed are 2."
        return [Alarm(name="drift", task="strategyqa", since_unix_s=NOW - 5_000, text=told, severity="critical")]


@contextmanager
def demo(folder: Path, *, alarm: bool = False) -> Iterator[str]:
    """The address of a dashboard over such a ledger."""
    rng = Random(7)
    with Ledger.open(f"sqlite:///{folder / 'ledger.db'}") as ledger:
        pepper = Pepper(b"demo" * 8)
        keys = [create(ledger, pepper, name=name)[0].id for name in ("tutor-app", "homework-bot", "evaluation")]
        fill(ledger, keys, rng=rng)
        app = Dashboard(ledger, sign_in=None, alarms=Ringing() if alarm else None, clock=lambda: NOW)
        server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, lifespan="off"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started and thread.is_alive():
            thread.join(0.01)
        try:
            yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/dashboard"
        finally:
            server.should_exit = True
            thread.join(10)


def shoot(address: str, sink: Path, *, dark: bool, size: dict[str, int], chromium: str, whole: bool = False) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport=size, device_scale_factor=SCALE, color_scheme="dark" if dark else "light")  # type: ignore[arg-type]
        page.goto(address)
        page.screenshot(path=sink, full_page=whole)
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--alarm", action="store_true")
    parser.add_argument("--all", type=Path, help="write every page, wide and narrow, into this folder instead")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, demo(Path(folder), alarm=given.alarm) as address:
        if given.all is None:
            for theme in ("light", "dark"):
                shoot(
                    address,
                    ROOT / "docs" / f"dashboard-{theme}.png",
                    dark=theme == "dark",
                    size=SIZE,
                    chromium=given.chromium,
                )
            return
        with Ledger.open(f"sqlite:///{folder}/ledger.db") as ledger:
            deferred = next(row.id for row in list_traces(ledger, limit=50, deferred=True) if row.confidence is None)
        pages = {"overview": "", "calibration": "/calibration", "traces": "/traces", "trace": f"/traces/{deferred}"}
        for name, path in pages.items():
            for theme in ("light", "dark"):
                for width, height in ((1380, 900), (390, 844)):
                    shoot(
                        address + path, given.all / f"{name}-{theme}-{width}.png", dark=theme == "dark",
                        size={"width": width, "height": height}, chromium=given.chromium, whole=True,
                    )  # fmt: skip


if __name__ == "__main__":
    main()
