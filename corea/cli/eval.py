"""``corea eval``: measure tiers on questions with known answers."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table
from rich.text import Text

from corea.cli.console import print_json, remark, stdout
from corea.cli.domain import domain
from corea.cli.drops import drops
from corea.cli.gate import gate
from corea.cli.ladder import ladder
from corea.cli.options import (
    AllowCode,
    ConfigFile,
    Delta,
    DropIncomplete,
    Json,
    Large,
    MaxDrop,
    OutcomesFiles,
    Small,
    load,
)
from corea.cli.outcomes import load_pair, refuse_to_overwrite, tell_left_out
from corea.cli.progress import QuestionBar
from corea.cli.tasks import tasks
from corea.errors import InputError
from corea.extras import extra

app = typer.Typer(help="Measure tiers on questions with known answers.", no_args_is_help=True)


@app.command()
def run(
    data: Annotated[
        list[str],
        typer.Option(
            "--data",
            metavar="FILE",
            help="Questions with answers: JSONL or .gz, gsm8k-sample, programs-sample, or hf:owner/name:split (extra "
            "hub); also files of HumanEval and MBPP. May be repeated.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", dir_okay=False, help="Outcomes, Parquet. A run that stopped goes on from there.")
    ],
    tiers: Annotated[str | None, typer.Option("--tiers", help="Names, comma-separated. Default: all.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Questions of each file.")] = None,
    samples: Annotated[int, typer.Option("--samples", min=0, help="Extra answers for self-consistency.")] = 0,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, help="Questions at once.")] = 4,
    allow_code: AllowCode = False,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Ask every tier every question once, with all confidence signals."""
    from corea.build import tiers_of
    from corea.identity import shapes_of

    with extra("evaluate"):
        from corea.evaluate.data import read_graded
        from corea.evaluate.run import Plan
        from corea.evaluate.run import run as run_plan

    refuse_to_overwrite(out, [Path(source) for source in data])
    questions = read_graded(data, limit=limit)
    loaded = load(config)
    built = {tier.name: tier for tier in tiers_of(loaded, to_measure=True)}
    wanted = [name.strip() for name in tiers.split(",")] if tiers else list(built)
    if unknown := [name for name in wanted if name not in built]:
        raise InputError(f'no tier is called "{unknown[0]}"; there are: {", ".join(built)}')
    # Cheapest first, whatever the order in which they were named.
    names = [name for name in built if name in wanted]
    shapes = shapes_of(loaded)
    plan = Plan(
        questions=questions,
        tiers=[built[name] for name in names],
        out=out,
        shapes=[shapes[name] for name in names],
        samples=samples,
        allow_code=allow_code,
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


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="Foreign outcomes, one JSON object a line, plain or .gz.")],
    out: Annotated[Path, typer.Option("--out", dir_okay=False, help="Outcomes, Parquet.")],
    json: Json = False,
) -> None:
    """Take in what other tools recorded: id, tier, correct, and where known confidence, cost_usd, tokens, task."""
    with extra("evaluate"):
        from corea.evaluate.imported import import_outcomes

    taken = import_outcomes(source, out)
    if taken.ignored:
        told = ", ".join(f"{name} ({count:,} lines)" for name, count in sorted(taken.ignored.items()))
        remark(f"keys that outcomes have no place for were left out: {told}")
    if not taken.ordered_by_cost and len(taken.tiers) > 1:
        remark(f"a tier's cost is not known, so the order of the tiers is that of the file: {' → '.join(taken.tiers)}")
    if json:
        print_json({**asdict(taken), "out": str(out)})
        return
    tiers, signals = " → ".join(taken.tiers), ", ".join(taken.signals) or "no confidence"
    typer.echo(f"{taken.rows:,} rows, {taken.questions:,} questions, {tiers} ({signals}) in {out}")


@app.command()
def fit(
    outcomes: OutcomesFiles,
    out: Annotated[Path, typer.Option("--out", dir_okay=False, help="Where the confidence map goes, JSON.")],
    kind: Annotated[
        Literal["platt", "isotonic", "temperature", "fitted"],
        typer.Option("--kind", help="What is fitted; fitted combines several signals."),
    ] = "fitted",
    signal: Annotated[
        list[str] | None, typer.Option("--signal", help="Signal to map; may be repeated for fitted. Default: all.")
    ] = None,
    share: Annotated[float, typer.Option("--share", min=0.05, max=0.95, help="Of the questions, to fit on.")] = 0.5,
    small: Small = None,
    large: Large = None,
    drop_incomplete: DropIncomplete = False,
    json: Json = False,
) -> None:
    """Fit a confidence map on some questions, and check it on the others."""
    with extra("evaluate"):
        from corea.evaluate.certification import fit_map

    from corea.confidence.fitted import save

    refuse_to_overwrite(out, outcomes)
    rows, pair, left_out = load_pair(outcomes, small=small, large=large, drop_incomplete=drop_incomplete)
    created_at = datetime.now(UTC).isoformat(timespec="seconds")
    made = fit_map(rows, pair, kind, tuple(signal or ()), share=share, created_at=created_at)
    save(made.map, out)
    tell_left_out(left_out)
    if made.note:
        remark(made.note)
    if json:
        print_json({**asdict(made), "left_out": left_out, "out": str(out)})
        return
    table = Table("", "ECE", "Brier", "AUROC", box=None)
    missing: dict[str, None] = {}
    for name, measured in (*made.before.items(), (f"after ({kind})", made.after)):
        shown = {"ECE": measured.ece_equal_mass, "Brier": measured.brier, "AUROC": measured.auroc}
        table.add_row(Text(name), *("–" if one.value is None else f"{one.value:.3f}" for one in shown.values()))
        missing |= {f"no {figure}: {one.note}": None for figure, one in shown.items() if one.value is None}
    typer.echo(f"fitted on {made.map.n:,} questions, checked on {made.n_check:,} others:")
    stdout().print(table)
    for told in missing:
        typer.echo(told)
    typer.echo(f"written to {out}; certify it with: corea certify … --map {out}")


@app.command()
def report(
    outcomes: OutcomesFiles,
    out: Annotated[
        Path | None, typer.Option("--out", dir_okay=False, help="The page: one HTML file that needs no network.")
    ] = None,
    signal: Annotated[
        str | None,
        typer.Option("--signal", help="Confidence to judge by. Default: the best, by a third of the questions."),
    ] = None,
    max_drop: MaxDrop = 0.02,
    delta: Delta = 0.05,
    title: Annotated[str | None, typer.Option("--title", help="Heading of the page.")] = None,
    small: Small = None,
    large: Large = None,
    drop_incomplete: DropIncomplete = False,
    json: Json = False,
) -> None:
    """Say what a cascade would cost and lose, how true the confidence is, and where it fails, as a page or as JSON."""
    if out is None and not json:
        raise InputError("say where the page goes, --out report.html, or print every figure with --json")
    if out is not None:
        refuse_to_overwrite(out, outcomes)
    with extra("evaluate"):
        import numpy as np

        from corea.evaluate.certification import usable_signals
        from corea.evaluate.report import report as figures_of
        from corea.evaluate.report import to_html, to_json

    rows, pair, left_out = load_pair(outcomes, small=small, large=large, drop_incomplete=drop_incomplete)
    made = figures_of(
        pair,
        signal=signal,
        max_drop=max_drop,
        delta=delta,
        # The same outcomes give the same page.
        rng=np.random.default_rng(0),
        title=title or f"{pair.small} → {pair.large}",
        source=", ".join(file.name for file in outcomes),
        candidates=usable_signals(rows, pair),
        data_hash=rows.metadata.get("data_hash"),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    tell_left_out(left_out)
    if out is not None:
        try:
            out.write_text(to_html(made), encoding="utf-8")
        except OSError as exc:
            raise InputError(f"cannot write {out}: {exc.strerror or exc}; choose another --out") from exc
    if json:
        print_json({**to_json(made), "left_out": left_out, "out": None if out is None else str(out)})
    else:
        typer.echo(f"{len(pair):,} questions, {pair.small} → {pair.large}: open {out} in a browser")


app.command("domain")(domain)
app.command("drops")(drops)
app.command("gate")(gate)
app.command("ladder")(ladder)
app.command("tasks")(tasks)
