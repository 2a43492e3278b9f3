"""``corea demo``: real questions through the cascade, live, with the large model's own answers beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import asdict
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from corea.batch.rows import Question, read_questions
from corea.cascade import Cascade
from corea.cli.console import print_json, stderr, stdout
from corea.cli.options import ConfigFile, Json, Threshold, load
from corea.config import Config, price_remark
from corea.demo import Side, Step, Tally, run, untrained
from corea.policy.explain import number
from corea.prices import format_usd
from corea.samples import GSM8K
from corea.types import Attempt, Reason


def demo(
    config: ConfigFile = None,
    threshold: Threshold = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many of the 12 questions.")] = 12,
    json: Json = False,
) -> None:
    """Watch 12 real questions go through the cascade."""
    loaded = load(config, threshold)
    questions = [item for item in read_questions(GSM8K) if isinstance(item, Question)][:limit]
    tally = asyncio.run(_show(loaded, questions, stderr() if json else stdout()))
    if json:
        print_json({**asdict(tally), "saving": tally.saving(tally.cascade)})


async def _show(config: Config, questions: list[Question], console: Console) -> Tally:
    steps: list[Step] = []
    names = " → ".join(f"{tier.name} ({tier.model})" for tier in config.tiers)
    console.print(f"[bold]COREA[/] {names}\n")
    plain = untrained(config)
    async with AsyncExitStack() as stack:
        cascade = await stack.enter_async_context(Cascade.from_config(config))
        # Its last tier is never asked, and so never loaded.
        other = await stack.enter_async_context(Cascade.from_config(plain)) if plain else None
        with console.status("loading the models …") as status:
            async for step in run(cascade, questions, plain=other.tiers[0] if other else None):
                steps.append(step)
                _show_step(console, step, len(steps), len(questions), Tally.of(steps))
                if len(steps) < len(questions):
                    status.update(f"question {len(steps) + 1} of {len(questions)} …")
    tally = Tally.of(steps)
    console.print(_summary(config, tally))
    for line in _small_print(config, tally):
        console.print(line, style="dim")
    return tally


def _show_step(console: Console, step: Step, index: int, total: int, so_far: Tally) -> None:
    question = " ".join(step.question.question.split())
    console.print(Text(f"{index:>2}/{total}  ").append(_shortened(question, console.width - 8), style="bold"))
    for attempt in step.trace.attempts:
        console.print(Text("       ").append_text(_verdict(attempt)), soft_wrap=True)
    final = Text(f"       answer {step.trace.answer}  ")
    right = step.by_cascade.right
    final.append("right" if right else f"wrong (it is {step.question.gold})", "green" if right else "red")
    beside = []
    if not any(attempt is step.alone for attempt in step.trace.attempts):
        beside.append(f"the large model alone {step.alone.answer} ({_graded(step.by_last.right)})")
    if step.untrained is not None and step.by_untrained is not None:
        what = "deferred" if step.by_untrained.deferred else f"kept, {_graded(step.by_untrained.right)}"
        beside.append(f"untrained {step.untrained.answer} ({what})")
    if beside:
        final.append(f"  · for comparison: {'; '.join(beside)}", "dim")
    console.print(final, soft_wrap=True)
    cost, alone_cost = format_usd(so_far.cascade.cost_nano_usd), format_usd(so_far.alone.cost_nano_usd)
    console.print(f"       cost so far {cost}, large model alone {alone_cost}\n", style="dim", soft_wrap=True)


def _verdict(attempt: Attempt) -> Text:
    answer = attempt.failure.kind if attempt.failure else attempt.answer or "no answer"
    text = Text(f"{attempt.tier} says {_shortened(answer, 40)}  ")
    confidence, threshold = attempt.confidence.value, attempt.decision.threshold
    if attempt.decision.reason is Reason.LAST_TIER:
        return text.append(f"final  {attempt.latency_s:.1f} s", "dim")
    if attempt.decision.reason is Reason.NOT_CERTIFIED:
        return Text(f"{attempt.tier} was not asked: its certificate promises nothing")
    sign = "≥" if attempt.decision.keep else "=" if attempt.decision.reason is Reason.TIED else "<"
    told = "confidence unknown" if confidence is None else f"confidence {number(confidence)} {sign} {number(threshold)}"
    text.append(f"{told}  ")
    text.append(
        "kept" if attempt.decision.keep else f"deferred ({attempt.decision.reason.value.replace('_', ' ')})", "cyan"
    )
    return text.append(f"  {attempt.latency_s:.1f} s", "dim")


def _graded(right: bool) -> str:
    return "right" if right else "wrong"


def _summary(config: Config, tally: Tally) -> Table:
    n, last = tally.questions, f"{config.tiers[-1].name} alone"
    sides = {"cascade": tally.cascade, "untrained": tally.untrained, last: tally.alone}
    shown = {name: side for name, side in sides.items() if side is not None}
    table = Table(title=f"{n} questions", title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("", *shown):
        table.add_column(heading, justify="left" if not heading else "right")

    def row(what: str, told: Callable[[Side], str], *, of_last: bool = True) -> None:
        table.add_row(what, *(told(side) if of_last or name != last else "–" for name, side in shown.items()))

    row("right answers", lambda side: f"{side.right} ({side.right / n:.0%})")
    row("deferred", lambda side: f"{side.deferred} ({side.deferred / n:.0%})", of_last=False)
    row("cost", lambda side: format_usd(side.cost_nano_usd))
    row("saving, net", lambda side: _percent(tally.saving(side)), of_last=False)
    row("time", lambda side: f"{side.elapsed_s:.0f} s")
    return table


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{share:.1%}"


def _small_print(config: Config, tally: Tally) -> list[str]:
    """What a reader must know to believe the table, and no more."""
    plain = [f"Untrained: {config.tiers[0].name} without its adapter, by the likelihood of its words."]
    return [
        "All columns are measured: the large model also answered the questions that were kept.",
        *(plain if tally.untrained else []),
        price_remark(config),
        "A dozen questions prove nothing: docs/results.md has more.",
    ]


def _shortened(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(width - 1, 1)] + "…"
