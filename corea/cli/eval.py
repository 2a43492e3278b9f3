"""``corea eval``: measure tiers on questions with known answers."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from corea.cli.console import print_json, remark
from corea.cli.options import ConfigFile, Json, load
from corea.cli.progress import QuestionBar
from corea.errors import ExtraMissing, InputError

app = typer.Typer(help="Measure tiers on questions with known answers.", no_args_is_help=True)


@app.command()
def run(
    data: Annotated[list[Path], typer.Option("--data", help="Questions with answers, JSONL or .gz; may be repeated.")],
    out: Annotated[Path, typer.Option("--out", help="Outcomes, Parquet. A run that stopped goes on from there.")],
    tiers: Annotated[str | None, typer.Option("--tiers", help="Names, comma-separated. Default: all.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Questions of each file.")] = None,
    samples: Annotated[int, typer.Option("--samples", min=0, help="Extra answers for self-consistency.")] = 0,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, help="Questions at once.")] = 4,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Ask every tier every question once, with all confidence signals."""
    from corea.build import shape_of, tiers_of

    try:
        from corea.evaluate.run import Plan, read_graded
        from corea.evaluate.run import run as run_plan
    except ModuleNotFoundError as exc:
        raise ExtraMissing(package=exc.name or "pyarrow", extra="evaluate") from exc

    questions = read_graded(data, limit=limit)
    loaded = load(config)
    built = {tier.name: tier for tier in tiers_of(loaded)}
    names = tiers.split(",") if tiers else list(built)
    if unknown := [name for name in names if name not in built]:
        raise InputError(f'no tier is called "{unknown[0]}"; there are: {", ".join(built)}')
    # How a reply is judged later does not shape the reply: another threshold must not make its rows strangers.
    judged = ("threshold", "confidence")
    shapes = {t.name: {k: v for k, v in shape_of(t).items() if k not in judged} for t in loaded.tiers}
    plan = Plan(
        questions=questions,
        tiers=[built[name] for name in names],
        out=out,
        shapes=[shapes[name] for name in names],
        samples=samples,
        concurrency=concurrency,
    )

    async def ask() -> int:
        with ExitStack() as shown:
            bar = QuestionBar(shown)
            try:
                return await run_plan(plan, on_start=bar.start, on_row=lambda row: bar.advance())
            finally:
                for tier in plan.tiers:
                    await tier.model.aclose()

    try:
        failed = asyncio.run(ask())
    except KeyboardInterrupt:
        remark(f"the rows so far are in {out}.rows.jsonl; the same command goes on from there")
        raise
    if json:
        print_json({"questions": len(questions), "tiers": names, "failed": failed, "out": str(out)})
    else:
        typer.echo(f"{len(questions)} questions × {len(names)} tiers in {out}")
    if failed:
        remark(f"{failed} attempts failed; the same command tries them again")
        raise typer.Exit(1)
