"""``corea batch``: a file of questions, a file of answers."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from corea.batch.run import Summary, run_batch
from corea.cascade import DEFAULT_CONCURRENCY, Cascade
from corea.cli.console import print_json, remark, stdout
from corea.cli.options import AllowCode, ConfigFile, Json, Threshold, load
from corea.cli.progress import QuestionBar
from corea.cli.shapes import summary_json
from corea.config import Config, price_remark
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
    allow_code: AllowCode = False,
    json: Json = False,
) -> None:
    """Answer a file of questions. Stopped at any moment, the same command goes on where it stopped."""
    loaded = load(config, threshold)
    try:
        summary = asyncio.run(_run(loaded, source, sink, concurrency, allow_code))
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
        remark(price_remark(loaded))
    if not summary.ok:
        raise typer.Exit(1)


async def _run(config: Config, source: Path, sink: Path, concurrency: int, allow_code: bool) -> Summary:
    async with Cascade.from_config(config) as cascade:
        with ExitStack() as shown:
            bar = QuestionBar(shown)
            return await run_batch(
                cascade,
                source,
                sink,
                concurrency=concurrency,
                allow_code=allow_code,
                on_start=bar.start,
                on_row=lambda row: bar.advance(),
            )


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
