"""``corea trace``: what happened to questions asked before."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer
from rich.table import Table

from corea.cli.console import print_json, stdout
from corea.cli.options import ConfigFile, Json
from corea.cli.shapes import trace_json
from corea.config import Config
from corea.policy.explain import explain
from corea.prices import format_usd
from corea.types import Trace

app = typer.Typer(help="Look at questions asked before.", no_args_is_help=True)


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many, newest first.")] = 20,
    before: Annotated[str | None, typer.Option("--before", help="Only traces older than this one.")] = None,
    deferred: Annotated[
        bool | None, typer.Option("--deferred/--kept", help="Only deferred, or only kept ones.")
    ] = None,
    task: Annotated[str | None, typer.Option("--task", help="Only this task.")] = None,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """List the latest traces."""
    from dataclasses import asdict

    from corea.ledger.database import reading
    from corea.ledger.queries import list_traces

    with reading(Config.load(config).ledger.url) as ledger:
        rows = list_traces(ledger, limit=limit, before=before, deferred=deferred, task=task)
    if json:
        print_json([asdict(row) for row in rows])
        return
    console = stdout()
    table = Table(box=None, pad_edge=False)
    for heading in ("id", "when", "question", "tier", "confidence", "answer", "cost"):
        table.add_column(heading, no_wrap=True, justify="right" if heading == "cost" else "left")
    # Only the question gives way on a narrow terminal: what the other columns need is known.
    room = max(console.width - 84 - max((len(row.tier or "") for row in rows), default=0), 8)
    for row in rows:
        table.add_row(
            row.id,
            f"{datetime.fromtimestamp(row.started_at_unix_s):%m-%d %H:%M}",
            _short(row.question, min(room, 60)),
            row.tier or "[red]none[/]",
            "" if row.confidence is None else f"{row.confidence:.3f}",
            _short(row.answer, 16),
            format_usd(row.cost_nano_usd),
        )
    console.print(table)


@app.command()
def show(
    id: Annotated[str, typer.Argument(help="The trace's id, or how it starts.")],
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Show one trace: every attempt, and why it was kept or deferred."""
    from corea.ledger.database import reading
    from corea.ledger.queries import get_trace

    with reading(Config.load(config).ledger.url) as ledger:
        trace = get_trace(ledger, id)
    if json:
        print_json(trace_json(trace))
        return
    typer.echo("\n".join(_lines(trace)))


def _lines(trace: Trace) -> list[str]:
    when = datetime.fromtimestamp(trace.started_at_unix_s)
    lines = [
        f"{trace.id}  {when:%Y-%m-%d %H:%M:%S}  {trace.elapsed_s:.2f} s",
        f"cost {format_usd(trace.cost_nano_usd)}, last tier alone {format_usd(trace.baseline_nano_usd)}, "
        f"saved {format_usd(trace.saved_nano_usd)}",
        "",
        f"question: {trace.request.question or '(not stored)'}",
    ]
    for attempt in trace.attempts:
        lines += [
            "",
            f"[{attempt.tier}] {attempt.model}  {attempt.latency_s:.2f} s  {format_usd(attempt.cost_nano_usd)}",
        ]
        if attempt.usage is not None:
            lines.append(f"tokens: {attempt.usage.prompt_tokens} in, {attempt.usage.completion_tokens} out")
        lines.append(explain(attempt))
        if attempt.text:
            lines += [f"  {line}" for line in attempt.text.splitlines()]
    return lines


def _short(text: str | None, width: int) -> str:
    flat = " ".join((text or "").split())
    flat = flat if len(flat) <= width else flat[: width - 1] + "…"
    return flat.replace("[", "\\[")
