"""``corea batch``: questions in, answers out."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from corea.batch.places import Place, place_of, suffix
from corea.batch.run import Summary, run_batch
from corea.batch.tiers import limit
from corea.cascade import DEFAULT_CONCURRENCY, Cascade
from corea.cli.console import print_json, remark, stdout
from corea.cli.options import AllowCode, ConfigFile, Json, Threshold, load
from corea.cli.progress import QuestionBar
from corea.cli.shapes import summary_json
from corea.config import Config, price_remark
from corea.errors import InputError
from corea.identity import fingerprint
from corea.prices import format_usd

if TYPE_CHECKING:
    from corea.audit.counts import Counts
    from corea.batch.ray import Plan


def batch(
    source: Annotated[
        str,
        typer.Argument(
            metavar="IN",
            help="Questions, JSON lines or Parquet, a path or a URL: id, question; optional answer, kind, task.",
        ),
    ],
    sink: Annotated[
        str,
        typer.Argument(
            metavar="OUT",
            help="Answers: .jsonl or .parquet; with --engine ray a folder. Gone on with where an earlier run stopped.",
        ),
    ],
    config: ConfigFile = None,
    threshold: Threshold = None,
    concurrency: Annotated[
        int, typer.Option("--concurrency", min=1, help="Questions at once; with --engine ray, of each worker.")
    ] = DEFAULT_CONCURRENCY,
    tier_concurrency: Annotated[
        list[str] | None, typer.Option("--tier-concurrency", metavar="TIER=N", help="Questions at once of one tier.")
    ] = None,
    engine: Annotated[
        Literal["local", "ray"], typer.Option("--engine", help="This process, or a Ray cluster.")
    ] = "local",
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Ray: worker processes. Default: 2.")] = None,
    pool: Annotated[
        list[str] | None,
        typer.Option("--pool", metavar="TIER=N", help="Ray: run the model of a tier in N processes of its own."),
    ] = None,
    pool_gpus: Annotated[
        float | None, typer.Option("--pool-gpus", min=0, help="Ray: GPUs of each process of the pools.")
    ] = None,
    ray_address: Annotated[
        str | None, typer.Option("--ray-address", help="Ray: the cluster. Default: $RAY_ADDRESS, else this machine.")
    ] = None,
    shard_rows: Annotated[
        int | None,
        typer.Option(
            "--shard-rows", min=1, help="Ray: rows of one part of the output. Default: by the input, up to 1024."
        ),
    ] = None,
    format: Annotated[
        Literal["jsonl", "parquet"] | None, typer.Option("--format", help="Ray: of the parts. Default: jsonl.")
    ] = None,
    allow_code: AllowCode = False,
    json: Json = False,
) -> None:
    """Answer a file of questions. Stopped at any moment, the same command goes on where it stopped."""
    of_ray = {
        "--workers": workers,
        "--pool": pool,
        "--pool-gpus": pool_gpus,
        "--ray-address": ray_address,
        "--shard-rows": shard_rows,
        "--format": format,
    }
    if engine == "local" and (given := next((name for name, value in of_ray.items() if value is not None), None)):
        raise InputError(f"{given} needs --engine ray")
    at_once = _numbers("--tier-concurrency", tier_concurrency)
    loaded = load(config, threshold)
    where = place_of(source), place_of(sink)
    try:
        if engine == "local":
            summary, audits = asyncio.run(_run(loaded, *where, concurrency, at_once, allow_code))
        else:
            from corea.batch.pools import Pool
            from corea.batch.ray import Plan

            plan = Plan(
                workers=workers or 2,
                concurrency=concurrency,
                at_once=at_once,
                pools={name: Pool(size=size, gpus=pool_gpus or 0) for name, size in _numbers("--pool", pool).items()},
                shard_rows=shard_rows,
            )
            if loaded.audit.enabled:
                remark("--engine ray does not audit, and knows nothing of open alarms; leave it out to be audited")
            summary, audits = _run_ray(loaded, *where, plan, format or "jsonl", ray_address, allow_code), None
    except KeyboardInterrupt:
        remark(f"the rows so far are in {sink}; the same command goes on from there")
        raise
    if audits is not None:
        _tell_audits(audits)
    _tell(summary, loaded, source, json=json)
    if not summary.ok:
        raise typer.Exit(1)


async def _run(
    config: Config, source: Place, sink: Place, concurrency: int, at_once: Mapping[str, int], allow_code: bool
) -> tuple[Summary, Counts | None]:
    # The ledger comes with it.
    from corea.audit.serving import audited

    async with limit(Cascade.from_config(config), at_once) as cascade, audited(config, cascade) as auditor:
        with ExitStack() as shown:
            bar = QuestionBar(shown)
            summary = await run_batch(
                cascade,
                source,
                sink,
                concurrency=concurrency,
                allow_code=allow_code,
                on_start=bar.start,
                on_row=lambda row: bar.advance(),
            )
    return summary, None if auditor is None else auditor.counts


def _run_ray(
    config: Config,
    source: Place,
    sink: Place,
    plan: Plan,
    format: Literal["jsonl", "parquet"],
    address: str | None,
    allow_code: bool,
) -> Summary:
    from corea.batch.ray import run_ray

    if suffix(sink) in (".jsonl", ".parquet"):
        raise InputError(f"--engine ray writes a folder of parts; {sink} is named like a file, so choose another name")
    with ExitStack() as shown:
        bar = QuestionBar(shown)

        def on_rows(rows: int) -> None:
            for _ in range(rows):
                bar.advance()

        return run_ray(
            partial(Cascade.from_config, config),
            source,
            sink,
            fingerprint=fingerprint(config),
            plan=plan,
            format=format,
            address=address,
            allow_code=allow_code,
            on_start=bar.start,
            on_rows=on_rows,
        )


def _numbers(option: str, given: Sequence[str] | None) -> dict[str, int]:
    """``TIER=N``, as often as it is given. Raises :class:`InputError` for what is not written so."""
    found: dict[str, int] = {}
    for text in given or ():
        name, _, number = text.rpartition("=")
        if not name or not number.isdecimal() or int(number) < 1:
            raise InputError(f"{option} {text}: write a tier and a number from 1 up, such as {option} large=4")
        found[name] = int(number)
    return found


def _tell(summary: Summary, config: Config, source: str, *, json: bool) -> None:
    for bad in summary.bad_line_samples:
        remark(f"{source}: {bad}")
    if summary.bad_lines > len(summary.bad_line_samples):
        remark(f"{source}: … and {summary.bad_lines - len(summary.bad_line_samples)} more bad lines")
    if json:
        print_json(summary_json(summary))
        return
    stdout().print(_table(summary))
    remark(price_remark(config))


def _tell_audits(counts: Counts) -> None:
    ended = {how: counts.ended.get(how, 0) for how in ("agreed", "differed", "unknown")}
    paused = counts.questions.get("paused", 0)
    left_out = f"; {paused:,} answers were left out while auditing paused" if paused else ""
    told = ", ".join(f"{number:,} {how}" for how, number in ended.items())
    remark(
        f"{sum(ended.values()):,} kept answers were audited ({told}) for {format_usd(counts.cost_nano_usd)}, which is "
        f"in no cost told here{left_out}; see: corea audit status"
    )


def _table(summary: Summary) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    resumed = f" ({summary.resumed} from earlier)" if summary.resumed else ""
    table.add_row("questions", f"{summary.rows}{resumed}")
    if summary.failed:
        table.add_row("failed", f"[red]{summary.failed}[/] (see their error; the same command tries them again)")
    if summary.bad_lines:
        table.add_row("bad lines", f"[red]{summary.bad_lines}[/] (each has a row with its error)")
    table.add_row("deferred", _percent(summary.deferral_rate))
    if summary.accuracy is not None:
        table.add_row("accuracy", f"{_percent(summary.accuracy)} ({summary.correct} of {summary.graded})")
    unknown = f" + {summary.unknown_costs} of unknown cost" if summary.unknown_costs else ""
    table.add_row("cost", f"{format_usd(summary.cost_nano_usd)}{unknown}")
    table.add_row("saved", f"{format_usd(summary.saved_nano_usd)} ({_percent(summary.saving)}, estimated, net)")
    return table


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1%}"
