"""``corea batch``: a file of questions, a file of answers."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from corea.batch.rows import Row
from corea.batch.run import Summary, run_batch
from corea.cascade import DEFAULT_CONCURRENCY, Cascade
from corea.cli.console import print_json, remark, stderr, stdout
from corea.cli.options import ConfigFile, Json, Threshold, load
from corea.cli.shapes import summary_json
from corea.config import Config
from corea.prices import format_usd


def batch(
    source: Annotated[
        Path, typer.Argument(metavar="IN.jsonl", help="Questions: id, question; optional answer, kind, task.")
    ],
    sink: Annotated[
        Path, typer.Argument(metavar="OUT.jsonl", help="Answers. Taken up again where an earlier run stopped.")
    ],
    config: ConfigFile = None,
    threshold: Threshold = None,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, help="Questions at once.")] = DEFAULT_CONCURRENCY,
    json: Json = False,
) -> None:
    """Answer a file of questions. Stopped at any moment, the same command goes on where it stopped."""
    loaded = load(config, threshold)
    try:
        summary = asyncio.run(_run(loaded, source, sink, concurrency))
    except KeyboardInterrupt:
        remark(f"the rows so far are in {sink}; the same command goes on from there")
        raise
    for bad in summary.bad_line_samples:
        remark(f"{source}: {bad}")
    if summary.bad_lines > len(summary.bad_line_samples):
        remark(f"{source}: … and {summary.bad_lines - len(summary.bad_line_samples)} more bad lines")
    if json:
        print_json(summary_json(summary))
    else:
        stdout().print(_table(summary))
    if not summary.ok:
        raise typer.Exit(1)


async def _run(config: Config, source: Path, sink: Path, concurrency: int) -> Summary:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    async with Cascade.from_config(config) as cascade:
        progress = Progress(*columns, console=stderr())
        bar = progress.add_task("questions", start=False, rate="")
        done = 0

        def on_start(total: int, already: int) -> None:
            progress.reset(bar, total=total, completed=already)
            # Only now: files that cannot be used get one line, not a bar as well.
            shown.enter_context(progress)

        def on_row(row: Row) -> None:
            nonlocal done
            done += 1
            progress.update(bar, advance=1, rate=_rate(progress, bar, done))

        with ExitStack() as shown:
            return await run_batch(cascade, source, sink, concurrency=concurrency, on_start=on_start, on_row=on_row)


def _rate(progress: Progress, bar: TaskID, done: int) -> str:
    elapsed_s = progress.tasks[bar].elapsed or 0
    if elapsed_s <= 0:
        return ""
    per_s = done / elapsed_s
    return f"{per_s:.1f}/s" if per_s >= 1 else f"{per_s * 60:.1f}/min"


def _table(summary: Summary) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    resumed = f" ({summary.resumed} from earlier)" if summary.resumed else ""
    table.add_row("questions", f"{summary.rows}{resumed}")
    if summary.failed:
        table.add_row("failed", f"[red]{summary.failed}[/] (see their error; the same command tries them again)")
    if summary.bad_lines:
        table.add_row("bad lines", f"[red]{summary.bad_lines}[/]")
    table.add_row("deferred", _percent(summary.deferral_rate))
    if summary.accuracy is not None:
        table.add_row("accuracy", f"{_percent(summary.accuracy)} ({summary.correct} of {summary.graded})")
    unknown = f" + {summary.unknown_costs} of unknown cost" if summary.unknown_costs else ""
    table.add_row("cost", f"{format_usd(summary.cost_nano_usd)}{unknown}")
    table.add_row("saved", f"{format_usd(summary.saved_nano_usd)} ({_percent(summary.saving)}, estimated, net)")
    return table


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1%}"
