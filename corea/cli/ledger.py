"""``corea ledger``: sums over what is kept, its feedback, and its end."""

from __future__ import annotations

import json as json_module
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.table import Table

from corea.cli.console import print_json, remark, stdout
from corea.cli.keys import duration_s
from corea.cli.options import ConfigFile, Json
from corea.config import Config
from corea.errors import InputError
from corea.prices import format_usd

app = typer.Typer(help="Sum up, and clear away, what the ledger keeps.", no_args_is_help=True)


@app.command()
def summary(
    since: Annotated[str | None, typer.Option("--since", help="How far back, e.g. 24h or 30d. Default: all.")] = None,
    by: Annotated[
        list[str] | None,
        typer.Option("--by", help="tier, task, key_id, profile, hour or day; may be repeated."),
    ] = None,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Sum up requests, deferrals, cost, saving and latency, by whole hours. What audits cost is told beside them."""
    from corea.ledger import audits
    from corea.ledger.database import reading
    from corea.ledger.rollups import Group
    from corea.ledger.rollups import summary as sum_up

    groups = cast("list[Group]", by or [])
    since_unix_s = None if since is None else time.time() - duration_s(since, "--since")
    with reading(Config.load(config).ledger.url) as ledger:
        found = sum_up(ledger, since_unix_s=since_unix_s, by=groups)
        # Of the same whole hours.
        costs = audits.costs(ledger, since_unix_s=None if since_unix_s is None else since_unix_s // 3600 * 3600)
    if json:
        more = [
            {"p50_s": one.latency_s(0.5), "p95_s": one.latency_s(0.95), "p99_s": one.latency_s(0.99)} for one in found
        ]
        print_json([{**asdict(one), **latency} for one, latency in zip(found, more, strict=True)])
        return
    table = Table(box=None, pad_edge=False)
    for heading in (*groups, "requests", "deferred", "failed", "cost", "saved", "p50", "p95"):
        table.add_column(heading, no_wrap=True, justify="left" if heading in groups else "right")
    for one in found:
        rate = one.deferral_rate
        table.add_row(
            *(_group(group, one.group[group]) for group in groups),
            f"{one.traces:,}",
            "" if rate is None else f"{rate:.1%}",
            f"{one.errors:,}",
            format_usd(one.cost_nano_usd) + ("+" if one.cost_unknown else ""),
            format_usd(one.saved_nano_usd),
            _seconds(one.latency_s(0.5)),
            _seconds(one.latency_s(0.95)),
        )
    stdout().print(table)
    if any(one.cost_unknown for one in found):
        remark("+ the cost of some requests is not known, and not in the sum")
    if costs.audits:
        unknown = f", and {costs.unknown:,} of them what nobody knows" if costs.unknown else ""
        told = f"{costs.audits:,} audits cost {format_usd(costs.cost_nano_usd)}{unknown}"
        remark(f"beside it, {told}; see: corea audit status")


@app.command()
def prune(
    older_than: Annotated[str, typer.Option("--older-than", help="Age of what goes, e.g. 90d.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many traces would go.")] = False,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Delete old traces with their texts. Summaries still count them."""
    from corea.ledger.database import reading
    from corea.ledger.retention import count
    from corea.ledger.retention import prune as delete

    before = time.time() - duration_s(older_than, "--older-than")
    with reading(Config.load(config).ledger.url) as ledger:
        deleted = count(ledger, before_unix_s=before) if dry_run else delete(ledger, before_unix_s=before)
    if json:
        print_json({"deleted": 0 if dry_run else deleted, "would_delete": deleted if dry_run else 0})
        return
    typer.echo(f"{deleted:,} traces {'would be deleted' if dry_run else 'deleted'}")


@app.command()
def feedback(
    out: Annotated[
        Path | None, typer.Option("--out", help="JSONL file, for: corea eval import. Default: stdout.")
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Write what feedback says about each tier's answers, one JSON object a line."""
    from corea.ledger.database import reading
    from corea.ledger.feedback import outcomes

    with reading(Config.load(config).ledger.url) as ledger:
        lines = (json_module.dumps(row, ensure_ascii=False) for row in outcomes(ledger))
        if out is None:
            for line in lines:
                typer.echo(line)
            return
        try:
            with out.open("w", encoding="utf-8", errors="backslashreplace") as file:
                written = sum(1 for line in lines if file.write(line + "\n"))
        except OSError as exc:
            raise InputError(f"cannot write {out}: {exc.strerror}; choose another --out") from exc
    remark(f"{written:,} outcomes in {out}; next: corea eval import {out} --out outcomes.parquet")


def _group(group: str, value: Any) -> str:
    if group in ("hour", "day"):
        return f"{datetime.fromtimestamp(value, UTC):{'%Y-%m-%d %H:00' if group == 'hour' else '%Y-%m-%d'}}"
    return str(value).replace("[", "\\[") or "none"


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"~{seconds:.2g} s"
