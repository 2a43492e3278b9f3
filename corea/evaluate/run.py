"""Every question to every tier, once, with all confidence signals collected in that one pass: outcomes.

One tier after the other, so that embedded models do not fight for the same cores. Rows are appended to
``OUT.rows.jsonl`` as they are made; a run that stops at any moment goes on from there. Knows nothing of terminals.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from corea.batch.rows import BadLine, Question, read_questions
from corea.confidence import Exchange
from corea.confidence.protocol import parse
from corea.errors import InputError, ModelError, UpstreamTimeout
from corea.evaluate.outcomes import PREFIX, write
from corea.evaluate.signals import TOP_LOGPROBS, Signals
from corea.grading.answers import grade
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
    shapes: Sequence[dict[str, Any]] = ()
    samples: int = 0
    concurrency: int = 4

    @property
    def fingerprint(self) -> str:
        """Of all that shapes a row: rows of different models, prompts or samples never mix."""
        return _hash([list(self.shapes), self.samples])


def read_graded(files: Iterable[Path], *, limit: int | None = None) -> list[Question]:
    """Questions of all files, at most ``limit`` of each. Every one needs a gold answer; ids must differ.

    Raises :class:`InputError` that names the file and line of the first thing wrong.
    """
    found: dict[str, Question] = {}
    for file in files:
        for item in islice(read_questions(file), limit):
            if isinstance(item, BadLine):
                raise InputError(f"{file}: {item}")
            if item.gold is None:
                raise InputError(f'{file}: "{item.id}" has no "answer" to grade by; add it, or take the question out')
            if item.id in found:
                raise InputError(f'{file}: id "{item.id}" is in another file too; ids must differ')
            found[item.id] = item
    if not found:
        raise InputError("no questions were given")
    return list(found.values())


async def run(plan: Plan, *, on_start: Callable[[int, int], None], on_row: Callable[[Row], None]) -> int:
    """Ask what has not been asked yet, then write the outcomes. Returns how many rows failed.

    ``on_start`` gets the number of rows in all and of those there already. A failed attempt is a row with its error; it
    is tried again by the next run. Raises :class:`InputError` for the rows of another run.
    """
    journal = plan.out.with_name(plan.out.name + ".rows.jsonl")
    rows = {(row["id"], row["tier"]): row for row in await asyncio.to_thread(_taken_up, journal, plan.fingerprint)}
    on_start(len(plan.questions) * len(plan.tiers), len(rows))
    with journal.open("a", encoding="utf-8") as file:
        for tier in plan.tiers:
            todo = [question for question in plan.questions if (question.id, tier.name) not in rows]
            async for row in bounded_map(_asker(tier, plan.samples), todo, concurrency=plan.concurrency):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                file.flush()
                rows[row["id"], row["tier"]] = row
                on_row(row)
    await asyncio.to_thread(_write, plan, list(rows.values()))
    return sum(row["error"] is not None for row in rows.values())


def _asker(tier: Tier, samples: int) -> Callable[[Question], Any]:
    async def ask(question: Question) -> Row:
        return await _row(tier, question, samples)

    return ask


async def _row(tier: Tier, question: Question, samples: int) -> Row:
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
        async with asyncio.timeout(limit_s):
            reply = await tier.model.complete(prompt, timeout_s=limit_s)
    except TimeoutError:
        return {**row, "error": str(UpstreamTimeout(model=tier.name, elapsed_s=time.monotonic() - started))}
    except ModelError as exc:
        return {**row, "error": str(exc)}
    latency_s = time.monotonic() - started
    parsed = parse(reply.text, question.kind)
    exchange = Exchange(prompt=prompt, reply=reply, parsed=parsed, kind=question.kind)
    signals = Signals(inline=inline, samples=samples) if tier.threshold is not None else None
    values = await signals.collect(exchange, tier.model, timeout_s=limit_s) if signals else {}
    answer = parsed.answer or parsed.visible
    right = await asyncio.to_thread(grade, answer, question.gold or "", question.kind or "text")
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
        **{PREFIX + name: value for name, value in values.items()},
    }


def _taken_up(journal: Path, fingerprint: str) -> list[Row]:
    """Whole rows of an earlier run of the same plan, failed ones left out; the journal is made to hold just these."""
    if not journal.exists():
        journal.parent.mkdir(parents=True, exist_ok=True)
        journal.write_text(json.dumps({"fingerprint": fingerprint}) + "\n", encoding="utf-8")
        return []
    lines = journal.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    if not lines or json.loads(lines[0]).get("fingerprint") != fingerprint:
        raise InputError(
            f"{journal} holds rows of other models, prompts or samples; choose another --out, or delete this file"
        )
    whole = [line for line in lines[1:] if line.endswith("\n")]
    rows = [row for row in map(json.loads, whole) if row["error"] is None]
    kept = journal.with_name(journal.name + ".kept")
    kept.write_text(lines[0] + "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    kept.replace(journal)
    return rows


def _write(plan: Plan, rows: list[Row]) -> None:
    order = {question.id: index for index, question in enumerate(plan.questions)}
    tiers = [tier.name for tier in plan.tiers]
    wanted = [row for row in rows if row["id"] in order and row["tier"] in tiers]
    wanted.sort(key=lambda row: (tiers.index(row["tier"]), order[row["id"]]))
    signals = sorted({name.removeprefix(PREFIX) for row in wanted for name in row if name.startswith(PREFIX)})
    metadata = {
        "tiers": tiers,
        "shapes": list(plan.shapes),
        "shape_hashes": {tier: _hash(shape) for tier, shape in zip(tiers, plan.shapes, strict=False)},
        "data_hash": _hash([(q.id, q.question, q.gold) for q in plan.questions]),
        "samples": plan.samples,
    }
    write(plan.out, wanted, metadata=metadata, signals=signals)


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
