"""``corea demo``: real questions through the cascade, live, with the large model's own answers beside it."""

from __future__ import annotations

import asyncio
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
from corea.demo import Step, Tally, run
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
        print_json({**asdict(tally), "saving": tally.saving})


async def _show(config: Config, questions: list[Question], console: Console) -> Tally:
    steps: list[Step] = []
    names = " → ".join(f"{tier.name} ({tier.model})" for tier in config.tiers)
    console.print(f"[bold]COREA[/] {names}\n")
    async with Cascade.from_config(config) as cascade:
        with console.status("loading the models …") as status:
            async for step in run(cascade, questions):
                steps.append(step)
                _show_step(console, step, len(steps), len(questions), Tally.of(steps))
                if len(steps) < len(questions):
                    status.update(f"question {len(steps) + 1} of {len(questions)} …")
    tally = Tally.of(steps)
    console.print(_summary(config, tally))
    for line in _small_print(config):
        console.print(line, style="dim")
    return tally


def _show_step(console: Console, step: Step, index: int, total: int, so_far: Tally) -> None:
    question = " ".join(step.question.question.split())
    console.print(Text(f"{index:>2}/{total}  ").append(_shortened(question, console.width - 8), style="bold"))
    for attempt in step.trace.attempts:
        console.print(Text("       ").append_text(_verdict(attempt)), soft_wrap=True)
    final = Text(f"       answer {step.trace.answer}  ")
    final.append("right" if step.correct else f"wrong (it is {step.question.gold})", "green" if step.correct else "red")
    if not any(attempt is step.alone for attempt in step.trace.attempts):
        alone = "right" if step.alone_correct else "wrong"
        final.append(f"  · for comparison, the large model alone: {step.alone.answer} ({alone})", "dim")
    console.print(final, soft_wrap=True)
    cost, alone_cost = format_usd(so_far.cost_nano_usd), format_usd(so_far.alone_cost_nano_usd)
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


def _summary(config: Config, tally: Tally) -> Table:
    n = tally.questions
    table = Table(title=f"{n} questions", title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("", "cascade", f"{config.tiers[-1].name} alone"):
        table.add_column(heading, justify="left" if not heading else "right")
    table.add_row(
        "right answers",
        f"{tally.correct} ({tally.correct / n:.0%})",
        f"{tally.alone_correct} ({tally.alone_correct / n:.0%})",
    )
    table.add_row("deferred", f"{tally.deferred} ({tally.deferred / n:.0%})", "–")
    table.add_row("cost", format_usd(tally.cost_nano_usd), format_usd(tally.alone_cost_nano_usd))
    table.add_row("saving, net", "unknown" if tally.saving is None else f"{tally.saving:.1%}", "–")
    table.add_row("time", f"{tally.elapsed_s:.0f} s", f"{tally.alone_elapsed_s:.0f} s")
    return table


def _small_print(config: Config) -> list[str]:
    """What a reader must know to believe the table, and no more."""
    return [
        "Both columns are measured: the large model also answered the questions that were kept.",
        price_remark(config),
        "A dozen questions prove nothing: docs/results.md has more.",
    ]


def _shortened(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(width - 1, 1)] + "…"
