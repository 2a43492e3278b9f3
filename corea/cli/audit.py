"""``corea audit``: what becomes of the certificate's promise in production, and the user's word on it."""

from __future__ import annotations

import getpass
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from corea.cli.console import print_json, remark, stdout
from corea.cli.keys import duration_s
from corea.cli.options import ConfigFile, Json
from corea.config import Config
from corea.errors import ConfigError
from corea.extras import extra
from corea.prices import format_usd

if TYPE_CHECKING:
    from corea.audit.drift import Finding
    from corea.audit.watch import Plan, Status
    from corea.ledger.audits import AlarmRow, AuditCosts

app = typer.Typer(help="See what the audit of kept answers knows, and approve.", no_args_is_help=True)

#: The watch of all tasks without one of their own, as users name it.
ALL = "all"


@app.command()
def status(config: ConfigFile = None, json: Json = False) -> None:
    """Bounds of harm by task, what was audited and what that cost, the step in force, and open alarms."""
    from corea.audit.lookout import read_statuses
    from corea.ledger import audits
    from corea.ledger.database import reading

    loaded = Config.load(config)
    plans = _plans(loaded)
    with reading(loaded.ledger.url) as ledger:
        found = read_statuses(ledger, plans)
        alarms = audits.list_alarms(ledger, only_open=True)
        costs = audits.costs(ledger)
        said, said_of_audited = audits.count_feedback(ledger)
    if json:
        print_json(
            {
                "tasks": [_as_json(one, plan) for one, plan in zip(found, plans, strict=True)],
                "alarms": [asdict(alarm) for alarm in alarms],
                "costs": asdict(costs),
                "feedback": {"answers": said, "of_audited": said_of_audited},
            }
        )
        return
    stdout().print(_table(found, plans))
    for alarm in alarms:
        _show_alarm(alarm)
    typer.echo(_cost_line(costs))
    if said:
        typer.echo(f"feedback: {said:,} answers, {said_of_audited:,} of them audited; the others are in no bound")


@app.command()
def approve(
    task: Annotated[str, typer.Argument(help='The alarm\'s task; "all" for the watch of all tasks.')],
    by: Annotated[str | None, typer.Option("--by", help="Who approves. Default: this machine's user.")] = None,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Go back to the certified step: its open alarms are cleared, and the evidence begins anew."""
    from corea.ledger import audits
    from corea.ledger.database import open_engine

    engine = open_engine(Config.load(config).ledger.url, create=False)
    try:
        cleared = audits.approve(engine, task=_watch(task), by=by or _user(), at_unix_s=time.time())
    finally:
        engine.dispose()
    if json:
        print_json({"task": task, "cleared": [alarm.id for alarm in cleared]})
        return
    typer.echo(f'task "{task}": back to the certified step ({len(cleared)} alarms cleared)')
    remark("gateways go by it within some seconds")


@app.command()
def drift(
    against: Annotated[Path, typer.Option("--against", help="Outcomes that certified the cascade.")],
    since: Annotated[str, typer.Option("--since", help="How far back traffic is looked at, e.g. 24h or 30d.")] = "7d",
    task: Annotated[str | None, typer.Option("--task", help="Only questions of this task.")] = None,
    alpha: Annotated[float, typer.Option("--alpha", help="Risk of a false finding, all tests together.")] = 0.01,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Compare recent questions and confidences with those that certified the cascade. Changes nothing."""
    with extra("evaluate"):
        from corea.audit.drift import compare, of_outcomes, of_traffic

    from corea.evaluate.outcomes import read
    from corea.identity import signal_of
    from corea.ledger.audits import first_attempts
    from corea.ledger.database import reading

    loaded = Config.load(config)
    first = loaded.tiers[0]
    before = of_outcomes(read(against), tier=first.name, signal=signal_of(first.confidence).split(":")[0], task=task)
    since_unix_s = time.time() - duration_s(since, "--since")
    with reading(loaded.ledger.url) as ledger:
        now = of_traffic(first_attempts(ledger, tier=first.name, since_unix_s=since_unix_s, task=task))
    found = compare(before, now, alpha=alpha)
    if json:
        print_json({"before": len(before), "now": len(now), "alpha": alpha, "findings": [asdict(one) for one in found]})
        return
    typer.echo(f"{len(now):,} questions since {since}, against {len(before):,} that certified")
    stdout().print(_findings(found))
    remark("p-values are corrected for the number of tests; with many questions, look at the effect first")


def _plans(loaded: Config) -> tuple[Plan, ...]:
    from corea.audit.plans import certificate_at, plans_of

    if not loaded.audit.enabled:
        raise ConfigError("auditing is off; set a share above 0, and max_usd_per_day", field="audit.share")
    first = loaded.tiers[0]
    return plans_of(
        loaded.audit, threshold=first.threshold, certificate=certificate_at(first.certificate),
        tiers=len(loaded.tiers),
    )  # fmt: skip


def _as_json(status: Status, plan: Plan) -> dict[str, Any]:
    bounds = status.bounds
    return {
        "task": status.task or ALL,
        "state": status.state,
        "measure": plan.measure,
        "limit": plan.limit,
        "delta": plan.delta,
        "low": None if bounds is None else bounds.low,
        "high": None if bounds is None else bounds.high,
        "mean": None if bounds is None else bounds.mean,
        "questions": 0 if bounds is None else bounds.n,
        "audited": status.audited,
        "paused": status.paused,
        "epoch": status.epoch,
        "threshold": status.step.threshold,
        "always_defers": status.step.threshold is None,
    }


def _table(found: Sequence[Status], plans: Sequence[Plan]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("task", "state", "kept from", "measure", "low", "mean", "high", "limit", "questions", "audited"):
        table.add_column(heading, no_wrap=True, justify="left" if heading in ("task", "state") else "right")
    for status, plan in zip(found, plans, strict=True):
        bounds = status.bounds
        known = ("", "", "") if bounds is None else (_share(bounds.low), _share(bounds.mean), _share(bounds.high))
        table.add_row(
            (status.task or ALL).replace("[", "\\["),
            status.state,
            "always defers" if status.step.threshold is None else f"{status.step.threshold:.4g}",
            plan.measure,
            *known,
            _share(plan.limit),
            f"{bounds.n if bounds else 0:,}",
            f"{status.audited:,}",
        )
    return table


def _findings(found: Sequence[Finding]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("what", "test", "before", "now", "effect", "p", ""):
        table.add_column(heading, no_wrap=True, justify="left" if heading in ("what", "test", "") else "right")
    for one in found:
        verdict = "has changed" if one.differs else ""
        table.add_row(one.what, one.test, one.before, one.now, f"{one.effect:.3f}", f"{one.p_value:.2g}", verdict)
    return table


def _show_alarm(alarm: AlarmRow) -> None:
    at = datetime.fromtimestamp(alarm.raised_at_unix_s, UTC)
    stdout().print(f"{at:%Y-%m-%d %H:%M} UTC  {alarm.text}", style="bold", markup=False, soft_wrap=True)
    typer.echo(f"  to go back: corea audit approve {alarm.task or ALL}")


def _cost_line(costs: AuditCosts) -> str:
    unknown = f", and {costs.unknown:,} of unknown cost" if costs.unknown else ""
    return f"{costs.audits:,} audits cost {format_usd(costs.cost_nano_usd)}{unknown}; that is in no answer's cost"


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f} %"


def _watch(task: str) -> str:
    return "" if task == ALL else task


def _user() -> str:
    with suppress(OSError, KeyError, ImportError):
        return getpass.getuser()
    return "unknown"
