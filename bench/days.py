"""Simulated days on real outcomes: is the budget held, the latency target, the certificate, the critical task?

    python -m bench.days [--data DIR] [--seeds 5] [--out bench/results/days.json]

Requests arrive as on the days of :mod:`corea.simulate.days`; each is a question of ``bench/outcomes`` (two small models
on two CPU cores: real answers, confidences, tokens, costs and seconds), and goes through a real :class:`corea.Cascade`
with real policies, on a clock that jumps from one to the next. ``--data``: the folder of public outcomes that
``bench.certify_public`` reads, for the runs with a certificate. Writes the results and ``docs/days-*.svg``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure

from bench.certify_public import Case, cases
from corea.cascade import Cascade
from corea.confidence.base import Estimate, Exchange
from corea.evaluate import gates
from corea.evaluate.maps import split
from corea.evaluate.outcomes import read
from corea.evaluate.pairs import pair_of
from corea.evaluate.report.svg import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, VERMILLION, drawing
from corea.models.base import Model
from corea.policy.base import Policies, Policy, Second
from corea.policy.budget import Budget
from corea.policy.certificate import Certificate, Promise
from corea.policy.certified import Certified
from corea.policy.certify import certify
from corea.policy.critical import Critical
from corea.policy.latency import Latency
from corea.policy.spent import Counted
from corea.prices import FixedPrice
from corea.simulate.days import DAYS, HOUR_S, Answer, Clock, Day, Event, Pool, Question, events, pool_of
from corea.tier import Tier
from corea.types import Confidence, Prompt, Reply, Request, Trace, Usage

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results" / "days.json"
OUTCOMES = Path(__file__).parent / "outcomes"
SIGNAL, OWN_THRESHOLD = "logprob", 0.92
PER_HOUR = 400.0
#: What an average request may cost, between a kept one and a deferred one.
SHARE_OF_RANGE = 0.35
DAY_S = 24 * HOUR_S
MAX_DROP, DELTA = 0.02, 0.05
#: Seconds, on the two CPU cores that the outcomes were measured on; and how much slower the large tier is for a while.
P95_S, SLOW = 160.0, 1.5
ADVERSARIAL = 10_000
SEED = 20_281
#: One token costs one nano-USD, so that usage can carry what an answer cost.
BY_TOKEN = FixedPrice.per_million(0.0, 0.001)


@dataclass(slots=True)
class Stage:
    """What is played, and when: the request in hand, the time of day, and seconds as the cascade counts them."""

    wall: Clock = field(default_factory=Clock)
    seconds: Clock = field(default_factory=Clock)
    event: Event | None = None

    def play(self, event: Event) -> None:
        self.event = event
        self.wall.now_s = event.time_s

    def answer(self, tier: str) -> Answer:
        assert self.event is not None
        return self.event.tiers[tier]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """A model that says what it said, takes as long as it took, and costs what it cost."""

    name: str
    stage: Stage

    async def complete(self, prompt: Prompt, *, timeout_s: float | None = None) -> Reply:
        answer = self.stage.answer(self.name)
        self.stage.seconds.now_s += answer.latency_s or 0.0
        usage = Usage(completion_tokens=answer.cost_nano_usd or 0)
        return Reply(text="Answer: 42", finish_reason="stop", model=self.name, usage=usage)

    async def aclose(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """An estimator that says what was measured; ``of`` reads it."""

    stage: Stage
    of: Callable[[Event], float | None]
    name: str = SIGNAL
    ask: Literal["none"] = "none"
    top_logprobs: int = 0

    async def estimate(self, exchange: Exchange, model: Model, *, timeout_s: float | None = None) -> Estimate:
        assert self.stage.event is not None
        value = self.of(self.stage.event)
        return Estimate(confidence=Confidence(value=value, source=self.name, note="cut off" if value is None else None))


def cascade_of(
    stage: Stage,
    policies: Sequence[Policy],
    *,
    threshold: float = OWN_THRESHOLD,
    certificate: Certificate | None = None,
) -> Cascade:
    tiers = [
        Tier(
            name="small",
            model=Replayed(name="small", stage=stage),
            estimator=Told(stage=stage, of=lambda event: event.tiers["small"].confidence),
            threshold=None if certificate else threshold,
            certificate=certificate,
            price=BY_TOKEN,
        ),
        Tier(name="large", model=Replayed(name="large", stage=stage), price=BY_TOKEN),
    ]
    return Cascade(
        tiers,
        deadline_s=1e6,
        policies=Policies(named={"day": tuple(policies)}, default="day"),
        clock=stage.seconds,
        wall_clock=stage.wall,
    )


@dataclass(slots=True)
class Played:
    """A day that is over. ``curve``: (hour, money spent so far ÷ budget)."""

    requests: int = 0
    deferred: int = 0
    skipped: int = 0
    nano_usd: int = 0
    right: float = 0.0
    large_right: float = 0.0
    took_s: list[float] = field(default_factory=list)
    at_h: list[float] = field(default_factory=list)
    spent: list[int] = field(default_factory=list)
    thresholds: list[float | None] = field(default_factory=list)

    @property
    def drop(self) -> float:
        return (self.large_right - self.right) / max(self.requests, 1)

    def add(self, event: Event, trace: Trace) -> None:
        tier = trace.tier or "large"
        self.requests += 1
        self.deferred += tier == "large"
        self.skipped += trace.attempts[0].decision.reason == "skipped"
        self.nano_usd += trace.cost_nano_usd or 0
        self.right += event.tiers[tier].correct
        self.large_right += event.tiers["large"].correct
        self.took_s.append(trace.elapsed_s)
        self.at_h.append(event.time_s / HOUR_S)
        self.spent.append(self.nano_usd)
        self.thresholds.append(trace.attempts[0].decision.threshold)


async def played(cascade: Cascade, stage: Stage, requests: Iterator[Event]) -> Played:
    day = Played()
    for event in requests:
        stage.play(event)
        request = Request.of(event.question or event.id)
        day.add(event, await cascade.ask(request))
    return day


def pools() -> dict[str, Pool]:
    return {name: pool_of(read(OUTCOMES / f"{name}.parquet"), signal=SIGNAL) for name in ("gsm8k", "maths", "nonmaths")}


def mean_cost(pool: Pool, tier: str) -> float:
    return float(np.mean([question.tiers[tier].cost_nano_usd or 0 for question in pool.questions]))


def budget_day(day: Day, pool: Pool, seed: int, *, warm: bool) -> tuple[Played, Budget]:
    """One day on a budget, the same whatever the day brings. ``warm``: after another day like it."""
    low, extra = mean_cost(pool, "small"), mean_cost(pool, "large")
    nano_usd = round(PER_HOUR * 24 * (low + SHARE_OF_RANGE * extra))
    stage = Stage()
    budget = Budget(nano_usd=nano_usd, per="day", tiers=("small", "large"), spent=Counted(), wall_clock=stage.wall)
    cascade = cascade_of(stage, [budget])
    rng = np.random.default_rng([SEED, seed])
    if warm:
        asyncio.run(played(cascade, stage, events(day, pool, rng)))
    start_s = DAY_S if warm else 0.0
    moved = (replace(event, time_s=event.time_s + start_s) for event in events(day, pool, rng))
    done = asyncio.run(played(cascade, stage, moved))
    done.at_h = [hour - start_s / HOUR_S for hour in done.at_h]
    return done, budget


def latency_day(day: Day, pool: Pool, seed: int, *, p95_s: float | None) -> Played:
    """A day with, or without, a latency target; from noon to six the large tier takes ``SLOW`` times as long."""
    stage = Stage()
    policies: list[Policy] = [] if p95_s is None else [Latency(p95_s=p95_s, tiers=("small", "large"))]
    requests = events(day, pool, np.random.default_rng([SEED, seed]))
    return asyncio.run(played(cascade_of(stage, policies), stage, map(_slowed, requests)))


def _slowed(event: Event) -> Event:
    if not 12 <= event.time_s / HOUR_S < 18:
        return event
    large = event.tiers["large"]
    return replace(event, tiers={**event.tiers, "large": replace(large, latency_s=(large.latency_s or 0.0) * SLOW)})


def certified_day(day: Day, case: Case, seed: int, *, floor: bool) -> dict[str, Any]:
    """A day on a budget that half of the deferrals it needs would exhaust, with the certificate in force and without.

    Half of the questions, drawn by the seed, certify; the day draws from the others.
    """
    rng = np.random.default_rng([SEED, seed])
    certifying = rng.permutation(len(case.ids)) < len(case.ids) // 2
    found = certify(
        case.confidence[certifying], case.small_correct[certifying], case.large_correct[certifying],
        case.ids[certifying], max_drop=MAX_DROP, delta=DELTA, small_cost=case.small_cost[certifying],
        large_cost=case.large_cost[certifying],
    )  # fmt: skip
    certificate = Certificate(
        promises=(Promise(certified=found),), small="small", large="large", signal=SIGNAL, models_hash="",
        prompts_hash="", data_hash="", created_at="",
    )  # fmt: skip
    pool = _pool(case, ~certifying)
    cheap = mean_cost(pool, "small") + 0.5 * found.expected_deferral_rate * mean_cost(pool, "large")
    stage = Stage()
    budget = Budget(
        nano_usd=round(cheap * day.expected_requests), per="day", tiers=("small", "large"), spent=Counted(),
        wall_clock=stage.wall, floored=floor,
    )  # fmt: skip
    cascade = cascade_of(stage, [budget, Certified()] if floor else [budget], certificate=certificate)
    done = asyncio.run(played(cascade, stage, events(day, pool, rng)))
    held = found.threshold
    below = sum(t is not None and held is not None and t < held for t in done.thresholds)
    return {"promised": held is not None, "below": below, "drop": done.drop, "spent": done.nano_usd / budget.nano_usd}


def _pool(case: Case, rows: Any) -> Pool:
    def answer(at: int, tier: Literal["small", "large"]) -> Answer:
        small = tier == "small"
        correct, cost = (case.small_correct, case.small_cost) if small else (case.large_correct, case.large_cost)
        sure = float(case.confidence[at]) if small and not np.isnan(case.confidence[at]) else None
        return Answer(confidence=sure, correct=float(correct[at]), cost_nano_usd=round(1e9 * cost[at]), latency_s=None)

    questions = tuple(
        Question(id=str(case.ids[at]), task=None, question=str(case.ids[at]),
                 tiers={"small": answer(at, "small"), "large": answer(at, "large")})
        for at in np.flatnonzero(rows).tolist()
    )  # fmt: skip
    return Pool(questions=questions, left_out=0)


def critical_runs(data: Path | None) -> Iterator[dict[str, Any]]:
    """Kept errors of 10,000 requests whose small answer is wrong, sure of itself (0.99), and the same in each sample.

    ``kept_right``: what an honest day loses, the share of right answers that are still kept.
    """
    for name in ("gsm8k", "nonmaths"):
        outcomes = read(OUTCOMES / f"{name}.parquet")
        pair, _ = pair_of(outcomes, drop_incomplete=True)
        setting = split(pair.ids, share=0.5, salt="critical")
        part = pair.where(setting)
        gate = gates.fit(part, outcomes, tasks=pair.tasks, created_at="")
        foreseen = np.array([gate.ask(str(text)) for text in pair.questions])
        # On the questions that a gate was fitted on it looks better than it is, so no threshold is set by it there.
        foreseen[setting] = gates.cross_fitted(part, rng=np.random.default_rng(SEED))
        seconds = {
            "the same answer in five samples": np.ones(len(pair)),
            **{signal: pair.confidence[signal] for signal in ("p_true", "expected_followup")},
            "gate": foreseen,
        }
        yield from _critical(f"{name}: {pair.small}", pair.ids, pair.small_correct, seconds, setting)
    for case in cases(data) if data else ():
        if "Llama-3.1-8B →" in case.name and case.name.split(", ")[-1] in ("p_true", "self_probing"):
            model, signal = case.name.split(" → gpt-4, ")
            setting = split(case.ids, share=0.5, salt="critical")
            yield from _critical(model, case.ids, case.small_correct, {signal: case.confidence}, setting)


def _critical(name: str, ids: Any, correct: Any, seconds: Mapping[str, Any], setting: Any) -> Iterator[dict[str, Any]]:
    """Half of the questions set each threshold: at most one of their wrong answers in twenty reaches it."""
    wrong, right = correct < 0.5, correct >= 0.5
    asked = np.random.default_rng(SEED).choice(np.flatnonzero(wrong & ~setting), size=ADVERSARIAL)
    for signal, values in seconds.items():
        misled = values[wrong & setting]
        bar = min(1.0, float(np.nanquantile(misled, 0.95, method="higher")) + 1e-9)
        without, kept = (asyncio.run(_kept(asked, values, at)) for at in (None, bar))
        good = values[right & ~setting]
        yield {
            "questions": name, "requests": ADVERSARIAL, "wrong_questions": int((wrong & ~setting).sum()),
            "second": signal, "threshold": bar, "kept_errors_without": without, "kept_errors": kept,
            "kept_right": float((good >= bar).mean()),
        }  # fmt: skip


async def _kept(asked: Any, values: Any, bar: float | None) -> int:
    """How many of these wrong answers are handed out; ``bar=None``: without the policy."""
    stage = Stage()

    def second(event: Event) -> float | None:
        value = float(values[int(event.id)])
        return None if np.isnan(value) else value

    policies: list[Policy] = []
    if bar is not None:
        policies = [Critical(Second(estimator=Told(stage=stage, of=second, name="second"), threshold=bar))]
    cascade, kept = cascade_of(stage, policies), 0
    for at in asked:
        sure = Answer(confidence=0.99, correct=0.0, cost_nano_usd=0, latency_s=0.0)
        stage.play(Event(time_s=0.0, id=str(at), task=None, question=None, tiers={"small": sure, "large": sure}))
        kept += (await cascade.ask(Request.of(str(at)))).tier == "small"
    return kept


def budget_runs(seeds: int) -> tuple[list[dict[str, Any]], dict[str, Played]]:
    """Each day as the first one ever, and after a day like it; the first of them for the picture."""
    pool, found, drawn = pools()["gsm8k"], [], {}
    for name, make in DAYS.items():
        for warm in (False, True):
            runs = [budget_day(make(PER_HOUR), pool, seed, warm=warm) for seed in range(seeds)]
            found.append({
                "day": name, "before": "a day like it" if warm else "nothing",
                "spent": [day.nano_usd / budget.nano_usd for day, budget in runs],
                "requests": [day.requests for day, _ in runs],
                "deferred": [day.deferred / day.requests for day, _ in runs],
                "drop": [day.drop for day, _ in runs],
            })  # fmt: skip
            print(json.dumps(found[-1]), flush=True)
            if not warm:
                drawn[name] = runs[0][0]
    return found, drawn


def latency_runs(seeds: int) -> tuple[list[dict[str, Any]], dict[str, Played]]:
    pool, found, drawn = pools()["gsm8k"], [], {}
    for name in DAYS:
        for target in (None, P95_S):
            runs = [latency_day(DAYS[name](PER_HOUR), pool, seed, p95_s=target) for seed in range(seeds)]
            found.append({
                "day": name, "p95_target_s": target,
                "p95_s": [float(np.quantile(day.took_s, 0.95)) for day in runs],
                "late": [float(np.mean(np.array(day.took_s) > P95_S)) for day in runs],
                "late_while_slow": [_late(day, 12, 18) for day in runs],
                "skipped": [day.skipped / day.requests for day in runs],
                "nano_usd_per_request": [day.nano_usd / day.requests for day in runs],
                "drop": [day.drop for day in runs],
            })  # fmt: skip
            print(json.dumps(found[-1]), flush=True)
            if name == "steady":
                drawn["without" if target is None else "with a target"] = runs[0]
    return found, drawn


def _late(day: Played, start_h: float, end_h: float) -> float:
    at, took = np.array(day.at_h), np.array(day.took_s)
    return float(np.mean(took[(at >= start_h) & (at < end_h)] > P95_S))


def certified_runs(seeds: int, data: Path) -> Iterator[dict[str, Any]]:
    case = next(case for case in cases(data) if case.name == "mmlu: llama3.1-8b → llama3.1-70b")
    for name, make in DAYS.items():
        for floor in (True, False):
            runs = [certified_day(make(PER_HOUR), case, seed, floor=floor) for seed in range(seeds)]
            yield {"day": name, "certified": floor} | {key: [run[key] for run in runs] for key in runs[0]}


def picture_budget(days: Mapping[str, Played], out: Path) -> None:
    """Money spent over the day, and the threshold that spends it."""
    with drawing("days-budget"):
        figure = Figure(figsize=(10, 3.9), layout="constrained")
        money, bars = figure.subplots(1, 2)
        for (name, day), colour in zip(days.items(), (INK, VERMILLION, BLUE, PURPLE, GREEN), strict=True):
            hours = np.array(day.at_h)
            money.plot(
                hours[::50], 100 * np.array(day.spent)[::50] / _budget(), color=colour, label=name, linewidth=1.4
            )
            edges = np.arange(0, 24.5, 0.5)
            held = np.array([np.nan if t is None else t for t in day.thresholds])
            means = [np.nanmean(held[(hours >= a) & (hours < a + 0.5)]) for a in edges[:-1]]
            bars.plot(edges[:-1] + 0.25, means, color=colour, linewidth=1.2)
        money.axhspan(98, 102, color=GREY, alpha=0.25, linewidth=0)
        money.set_ylabel("spent, % of the day's budget")
        bars.set_ylabel("threshold, mean of half an hour")
        for axes in (money, bars):
            axes.set_xlabel("hour of the day")
            axes.set_xticks(range(0, 25, 4))
        figure.legend(*money.get_legend_handles_labels(), loc="outside lower center", ncols=5)
        _save(figure, out)


def picture_latency(days: Mapping[str, Played], out: Path) -> None:
    with drawing("days-latency"):
        figure = Figure(figsize=(6.5, 3.4), layout="constrained")
        axes = figure.subplots()
        for (name, day), colour in zip(days.items(), (ORANGE, BLUE), strict=True):
            hours, took = np.array(day.at_h), np.array(day.took_s)
            p95 = [np.quantile(took[(hours >= h) & (hours < h + 1)], 0.95) for h in range(24)]
            axes.stairs(p95, np.arange(25), color=colour, label=name, linewidth=1.6, baseline=None)
        axes.axhline(P95_S, color=INK, linewidth=1, linestyle="--", label="target")
        axes.axvspan(12, 18, color=GREY, alpha=0.15, linewidth=0)
        axes.set(xlabel="hour of the day; grey: the large tier takes 1.5 times as long", ylabel="p95 of the hour, s")
        axes.set_ylim(bottom=0)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
        _save(figure, out)


def _save(figure: Figure, out: Path) -> None:
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    # Without trailing blanks, which matplotlib leaves and every diff would show.
    out.write_text("".join(f"{line.rstrip()}\n" for line in out.read_text().splitlines()))


def _budget() -> float:
    pool = pools()["gsm8k"]
    return PER_HOUR * 24 * (mean_cost(pool, "small") + SHARE_OF_RANGE * mean_cost(pool, "large"))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder that holds outcomes/*.jsonl.gz, for the runs that need it")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    folder = None if chosen.data is None else chosen.data / "outcomes"
    critical = list(critical_runs(folder))
    print(json.dumps(critical), flush=True)
    certified = [] if folder is None else list(certified_runs(chosen.seeds, folder))
    print(json.dumps(certified), flush=True)
    latency, slow = latency_runs(chosen.seeds)
    picture_latency(slow, ROOT / "docs" / "days-latency.svg")
    budget, days = budget_runs(chosen.seeds)
    picture_budget(days, ROOT / "docs" / "days-budget.svg")
    settings = {"per_hour": PER_HOUR, "seeds": chosen.seeds, "share_of_range": SHARE_OF_RANGE, "p95_s": P95_S,
                "slow": SLOW, "max_drop": MAX_DROP, "delta": DELTA}  # fmt: skip
    body = {**settings, "budget": budget, "latency": latency, "certified": certified, "critical": critical}
    chosen.out.write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
