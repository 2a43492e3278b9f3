"""Every question to every tier, once, with all confidence signals collected in that one pass: outcomes.

One tier after the other, so that embedded models do not fight for the same cores. Rows are appended to
``OUT.rows.jsonl`` as they are made; a run that stops at any moment goes on from there. Knows nothing of terminals.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from corea.batch.journal import Journal
from corea.batch.rows import Question
from corea.confidence import Exchange
from corea.confidence.protocol import parse
from corea.errors import InputError, ModelError
from corea.evaluate.outcomes import CONFIDENCE, SIGNAL_COST, read, write
from corea.evaluate.signals import TOP_LOGPROBS, Signals
from corea.grading.answers import check_allowed, grade
from corea.identity import Shape, hash_of
from corea.streams import bounded_map
from corea.tier import Tier

#: Seconds for one reply when the tier sets no time of its own.
TIMEOUT_S = 600.0

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run asks, and where it goes. ``shapes`` describe each tier's model and prompt, for the file's metadata."""

    questions: Sequence[Question]
    tiers: Sequence[Tier]
    out: Path
    shapes: Sequence[Shape] = ()
    samples: int = 0
    #: Programs are run, in a sandbox, only with this.
    allow_code: bool = False
    concurrency: int = 4

    @property
    def fingerprint(self) -> str:
        """Of all that shapes a row: rows of different models, prompts or samples never mix."""
        return hash_of([list(self.shapes), self.samples])


async def run(plan: Plan, *, on_start: Callable[[int, int], None], on_row: Callable[[Row], None]) -> int:
    """Ask what has not been asked yet, then write the outcomes. Returns how many rows failed.

    ``on_start`` gets the number of rows in all and of those there already. A failed attempt is a row with its error; it
    is tried again by the next run. Raises :class:`InputError` for the rows of another run, and for programs that may
    not be run.
    """
    await asyncio.to_thread(check_allowed, [question.kind for question in plan.questions], allow_code=plan.allow_code)
    rows: dict[tuple[str, str], Row] = {}
    asked = {question.id: (question.question, question.gold) for question in plan.questions}

    def take_up(row: Mapping[str, Any]) -> bool:
        # A row of a question that was edited since is of another question.
        said = (row.get("question"), row.get("gold"))
        if row.get("error", "") is not None or asked.get(row["id"], said) != said:
            return False
        rows[row["id"], row["tier"]] = dict(row)
        return True

    made = await asyncio.to_thread(_rows_of, plan)
    path = plan.out.with_name(plan.out.name + ".rows.jsonl")
    with Journal(path, fingerprint=plan.fingerprint, take_up=take_up) as journal:
        for row in made:
            if (row["id"], row["tier"]) not in rows and take_up(row):
                journal.write(_line(row))
        wanted = [(question.id, tier.name) for tier in plan.tiers for question in plan.questions]
        on_start(len(wanted), sum(one in rows for one in wanted))
        for tier in plan.tiers:
            todo = [question for question in plan.questions if (question.id, tier.name) not in rows]
            async for row in bounded_map(_asker(tier, plan), todo, concurrency=plan.concurrency):
                journal.write(_line(row))
                rows[row["id"], row["tier"]] = row
                on_row(row)
    await asyncio.to_thread(_write, plan, list(rows.values()))
    return sum(row["error"] is not None for row in rows.values())


def _rows_of(plan: Plan) -> list[Row]:
    """Of the outcomes file, where an earlier run finished one: more questions may be added to it.

    Raises :class:`InputError` for a file that is of other models, prompts or samples, rather than write over it.
    """
    if not plan.out.exists():
        return []
    made = read(plan.out)
    shapes = {tier.name: hash_of(shape) for tier, shape in zip(plan.tiers, plan.shapes, strict=False)}
    foreign = not made.metadata.get("shape_hashes")
    if (
        foreign
        or made.samples != plan.samples
        or any(made.shape_hash(tier) not in (shapes[tier], None) for tier in shapes)
    ):
        raise InputError(
            f"{plan.out} holds outcomes of other models, prompts or settings; choose another --out, or delete this file"
        )
    return cast("list[Row]", made.table.to_pylist())


def _line(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def _asker(tier: Tier, plan: Plan) -> Callable[[Question], Any]:
    async def ask(question: Question) -> Row:
        return await _row(tier, question, plan)

    return ask


async def _row(tier: Tier, question: Question, plan: Plan) -> Row:
    inline = tier.estimator is not None and tier.estimator.ask == "inline"
    prompt = replace(tier.prompt(question.request), top_logprobs=TOP_LOGPROBS)
    limit_s = tier.timeout_s or TIMEOUT_S
    started = time.monotonic()
    row: Row = {
        "id": question.id,
        "tier": tier.name,
        "task": question.task,
        "domain": question.domain,
        "kind": question.kind,
        "question": question.question,
        "gold": question.gold,
        "correct": 0.0,
        "error": None,
    }
    try:
        reply = await tier.reply(prompt, limit_s=limit_s, clock=time.monotonic)
    except ModelError as exc:
        return {**row, "error": str(exc)}
    latency_s = time.monotonic() - started
    parsed = parse(reply.text, question.kind)
    exchange = Exchange(prompt=prompt, reply=reply, parsed=parsed, kind=question.kind)
    runs_code = plan.allow_code and question.kind == "code"
    signals = Signals(inline=inline, samples=plan.samples, allow_code=runs_code) if not tier.is_last else None
    told = await signals.collect(exchange, tier.model, timeout_s=limit_s) if signals else {}
    answer = parsed.answer or parsed.visible
    right = await asyncio.to_thread(
        grade,
        answer,
        question.gold or "",
        question.kind or "text",
        allow_code=plan.allow_code,
        prompt=question.question,
    )
    usage = reply.usage
    return {
        **row,
        "answer": answer,
        "text": parsed.visible,
        "correct": float(right),
        "finish_reason": reply.finish_reason,
        "prompt_tokens": usage.prompt_tokens if usage else None,
        "completion_tokens": usage.completion_tokens if usage else None,
        "cost_nano_usd": tier.cost_nano_usd(usage),
        "latency_s": latency_s,
        **{CONFIDENCE + name: one.confidence.value for name, one in told.items()},
        **{SIGNAL_COST + name: tier.cost_nano_usd(one.usage) for name, one in told.items()},
    }


def _write(plan: Plan, rows: list[Row]) -> None:
    order = {question.id: index for index, question in enumerate(plan.questions)}
    tiers = [tier.name for tier in plan.tiers]
    wanted = [row for row in rows if row["id"] in order and row["tier"] in tiers]
    wanted.sort(key=lambda row: (tiers.index(row["tier"]), order[row["id"]]))
    signals = sorted({name.removeprefix(CONFIDENCE) for row in wanted for name in row if name.startswith(CONFIDENCE)})
    metadata = {
        "tiers": tiers,
        "shapes": list(plan.shapes),
        "shape_hashes": {tier: hash_of(shape) for tier, shape in zip(tiers, plan.shapes, strict=False)},
        "data_hash": hash_of([(q.id, q.question, q.gold) for q in plan.questions]),
        "samples": plan.samples,
    }
    write(plan.out, wanted, metadata=metadata, signals=signals)
