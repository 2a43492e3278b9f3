"""``corea simulate``: what recorded traffic would have cost, and lost, under other thresholds or prices."""

from __future__ import annotations

import json as json_module
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from corea.cli.console import print_json, remark, stdout
from corea.cli.keys import duration_s
from corea.cli.options import Domain, Guards, Json
from corea.cli.outcomes import guards_in_force, refuse_to_overwrite, tell_left_out
from corea.config import Config
from corea.errors import InputError
from corea.extras import extra
from corea.prices import format_usd

if TYPE_CHECKING:
    from corea.guards.base import Guard
    from corea.ledger.queries import HasEngine
    from corea.simulate.accuracy import Drop
    from corea.simulate.change import Change
    from corea.simulate.deciders import Decider
    from corea.simulate.estimate import Money
    from corea.simulate.replay import Survey
    from corea.simulate.tally import Difference, Result, Share, Side
    from corea.simulate.traffic import Past

_NOTHING_CHANGED = (
    "say what is to be otherwise: --threshold small=0.8, --certificate FILE, --price large=2.5/10, "
    "--policy budget:12.5/day or --config FILE"
)


def simulate(
    ledger: Annotated[
        str | None, typer.Option("--ledger", help="Ledger to replay. Default: the configuration's.")
    ] = None,
    outcomes: Annotated[
        list[Path] | None,
        typer.Option("--outcomes", help="Outcomes to replay instead of a ledger; may be repeated."),
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", help="From when, e.g. 30d or 2026-11-01. Default: all.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", help="Until when, e.g. 1d or 2026-11-08. Default: now.")
    ] = None,
    task: Annotated[str | None, typer.Option("--task", help="Only this task.")] = None,
    key: Annotated[str | None, typer.Option("--key", help="Only this virtual key, by name or id.")] = None,
    threshold: Annotated[
        list[str] | None, typer.Option("--threshold", help="Another threshold, e.g. small=0.8; may be repeated.")
    ] = None,
    certificate: Annotated[
        list[Path] | None, typer.Option("--certificate", help="Another certificate; may be repeated.")
    ] = None,
    price: Annotated[
        list[str] | None,
        typer.Option(
            "--price", help="Other prices, USD per million tokens in/out, e.g. large=2.5/10; may be repeated."
        ),
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option("--policy", help="Policy over the thresholds, e.g. budget:12.5/day, latency:8; may be repeated."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", "-c", help="Another configuration: its thresholds, certificates, policies and stated prices."
        ),
    ] = None,
    guard: Guards = None,
    domain: Domain = None,
    signal: Annotated[
        str | None, typer.Option("--signal", help="With --outcomes: the confidence to judge by. Default: the only one.")
    ] = None,
    by: Annotated[Literal["task"] | None, typer.Option("--by", help="Each task by itself, too.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the intervals of what is estimated.")] = 0,
    out: Annotated[Path | None, typer.Option("--out", dir_okay=False, help="Where a report goes, JSON.")] = None,
    json: Json = False,
) -> None:
    """Replay recorded traffic under other thresholds, policies or prices: what it would cost, save and lose."""
    from corea.simulate.change import of_config, of_words

    change = of_words(
        thresholds=threshold or (), prices=price or (), certificates=certificate or (), policies=policy or ()
    )
    if config is not None:
        change = change.over(of_config(Config.load(config)))
    if not change.named and change.policies is None:
        raise InputError(_NOTHING_CHANGED)
    if out is not None:
        refuse_to_overwrite(out, [*(outcomes or ()), *(certificate or ()), *([] if config is None else [config])])
    judges = _guards(change, guard, domain, from_config=config is not None)
    if outcomes:
        _refuse_with_outcomes(ledger=ledger, since=since, until=until, key=key, policy=next(iter(policy or ()), None))
        results, notes = _of_outcomes(
            outcomes, change, judges, signal=signal, task=task, by_task=by == "task", seed=seed
        )
    else:
        if signal is not None:
            raise InputError("--signal goes with --outcomes; a ledger holds the one confidence that was asked for")
        now = time.time()
        span = (_time(since, "--since", now), _time(until, "--until", now) or now)
        url = ledger or Config.load(config).ledger.url
        results, notes = _of_ledger(url, change, judges, span=span, task=task, key=key, by_task=by == "task", seed=seed)
    _tell(results, notes, out=out, json=json)


def _of_ledger(
    url: str | None,
    change: Change,
    judges: Callable[[str], tuple[Guard, ...]],
    *,
    span: tuple[float | None, float],
    task: str | None,
    key: str | None,
    by_task: bool,
    seed: int,
) -> tuple[list[Result], list[str]]:
    from corea.ledger.database import reading
    from corea.simulate.deciders import ByPolicies, Clock, Fixed
    from corea.simulate.traffic import Window, recorded

    with reading(url) as engine:
        key_id = None if key is None else _key_id(engine, key)
        window = Window(since_unix_s=span[0], until_unix_s=span[1], task=task, key_id=key_id)
        fixed = Fixed(thresholds=change.thresholds, certificates=change.certificates)

        def would(known: Survey) -> Decider:
            if change.policies is None:
                return fixed
            clock = Clock(known.first_unix_s)
            made = change.policies(known.ladders.usual, clock)
            return ByPolicies(policies=made, own=fixed, advance=clock.advance)

        return _replayed(lambda: recorded(engine, window), change, judges, would, None, by_task=by_task, seed=seed)


def _of_outcomes(
    files: list[Path],
    change: Change,
    judges: Callable[[str], tuple[Guard, ...]],
    *,
    signal: str | None,
    task: str | None,
    by_task: bool,
    seed: int,
) -> tuple[list[Result], list[str]]:
    with extra("evaluate"):
        from corea.evaluate.outcomes import read
        from corea.evaluate.pairs import merge
        from corea.simulate.graded import graded

    from corea.simulate.deciders import AlwaysLast, Fixed

    certified = next(iter(change.certificates.values()), None)
    chosen = signal or (None if certified is None else certified.signal)
    questions, left_out = graded(merge([read(file) for file in files]), signal=chosen)
    tell_left_out(left_out)
    wanted = [past for past in questions if task is None or past.trace.request.task == task]
    was = AlwaysLast()
    would = Fixed(thresholds=change.thresholds, certificates=change.certificates, otherwise=was)
    return _replayed(lambda: wanted, change, judges, lambda known: would, was, by_task=by_task, seed=seed)


def _replayed(
    requests: Callable[[], Iterable[Past]],
    change: Change,
    judges: Callable[[str], tuple[Guard, ...]],
    would_of: Callable[[Survey], Decider],
    was: Decider | None,
    *,
    by_task: bool,
    seed: int,
) -> tuple[list[Result], list[str]]:
    from corea.simulate.change import check_signals, check_tiers
    from corea.simulate.paths import Ladders
    from corea.simulate.replay import Prices, replay, survey
    from corea.simulate.report import notes_on

    rng = Random(seed)  # noqa: S311 - no secret
    ladders = Ladders([change.tiers] if change.tiers else ())
    known = survey(requests(), prices=Prices(by_tier=change.prices), ladders=ladders, rng=rng)
    if not known.requests:
        raise InputError("there are no requests to replay; widen --since, --until, --task or --key")
    check_tiers(change, known.ladders.tiers, last=known.ladders.last)
    check_signals(change, known.sources)
    results = replay(requests(), known, would_of(known), was=was, guards=judges, by_task=by_task).results(seed)
    return results, [*change.notes, *notes_on(known, results[0])]


def _guards(
    change: Change, named: list[str] | None, domain: Path | None, *, from_config: bool
) -> Callable[[str], tuple[Guard, ...]]:
    """Those that are named, else the configuration's, else all."""
    given = guards_in_force(named, domain)
    if from_config and named is None and domain is None:
        return lambda tier: tuple(change.guards.get(tier, given))
    return lambda tier: given


def _refuse_with_outcomes(**options: str | None) -> None:
    if stray := [name for name, value in options.items() if value is not None]:
        raise InputError(f"--{stray[0]} goes with a ledger, and outcomes are replayed; leave it out")


def _time(said: str | None, option: str, now: float) -> float | None:
    """``30d`` ago, or a date, in UTC unless it says otherwise."""
    if said is None:
        return None
    try:
        found = datetime.fromisoformat(said)
    except ValueError:
        return now - duration_s(said, option)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _key_id(engine: HasEngine, name: str) -> str:
    from corea.ledger.keys import list_keys

    found = list_keys(engine)
    ids = {key.id for key in found if name in (key.id, key.name)}
    if len(ids) == 1:
        return ids.pop()
    if ids:
        raise InputError(f'several keys are or were named "{name}"; give the id of one: {", ".join(sorted(ids))}')
    listed = ", ".join(dict.fromkeys(key.name for key in found)) or "none"
    raise InputError(f'there is no key "{name}"; there are: {listed}')


def _tell(results: list[Result], notes: list[str], *, out: Path | None, json: bool) -> None:
    from corea.simulate.report import as_json

    report = as_json(results, notes)
    if out is not None:
        _write(out, report)
    if json:
        print_json(report)
        return
    for one in results:
        _show(one, several=len(results) > 1)
    for note in notes:
        remark(note)
    if out is not None:
        remark(f"report in {out}")


def _write(out: Path, report: dict[str, Any]) -> None:
    try:
        out.write_text(json_module.dumps(report, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    except OSError as exc:
        raise InputError(f"cannot write {out}: {exc.strerror}; choose another --out") from exc


def _show(one: Result, *, several: bool) -> None:
    table = Table(box=None, pad_edge=False, title_justify="left")
    if several:
        name = "all tasks" if one.all_tasks else one.task or "no task"
        stdout().print(f"\n{name}", style="bold", markup=False)
    for heading in ("", "as it was", "as it would be", "difference"):
        table.add_column(heading, no_wrap=True, justify="left" if heading == "" else "right")
    for row in _rows(one.was, one.would, one.difference):
        table.add_row(*row)
    stdout().print(table)
    cover = one.coverage
    told = (
        (cover.exact, "exact"),
        (cover.estimated, "estimated"),
        (cover.open, "open"),
        (cover.unknown, "unknown"),
    )
    parts = ", ".join(f"{count:,} {word}" for count, word in told if count) or "none"
    stdout().print(f"cost as it would be: {parts}; {cover.answered_otherwise:,} answered by another tier", markup=False)


def _rows(was: Side, would: Side, change: Difference) -> Iterator[tuple[str, str, str, str]]:
    yield "requests", f"{was.requests:,}", f"{would.requests:,}", ""
    yield "deferred", _share(was.deferral), _share(would.deferral), _points(was.deferral, would.deferral)
    if was.unanswered or would.unanswered:
        yield "unanswered", f"{was.unanswered:,}", f"{would.unanswered:,}", f"{would.unanswered - was.unanswered:+,}"
    yield "cost", _money(was.cost), _money(would.cost), _money(change.cost, signed=True)
    yield "always large", _money(was.always_large), _money(would.always_large), ""
    yield "saved", _money(was.saved), _money(would.saved), _money(change.saved, signed=True)
    yield "saving", _percent(was.saving), _percent(would.saving), ""
    for name, before, after in (("latency p50", was.p50_s, would.p50_s), ("latency p95", was.p95_s, would.p95_s)):
        yield name, _seconds(before), _seconds(after), _later(before, after)
    yield "drop, points", _drop(was.drop), _drop(would.drop), _drop(change.drop)
    yield "  unknown for", _unknown(was.drop), _unknown(would.drop), _unknown(change.drop)


def _money(money: Money, *, signed: bool = False) -> str:
    more = "+" if money.unknown else ""

    def usd(nano_usd: int) -> str:
        return ("+" if signed and nano_usd > 0 else "") + format_usd(nano_usd)

    between = f"{usd(money.low)} to {usd(money.high)}"
    if money.value is None:
        return between + more
    return f"~{usd(money.value)}{more} ({between})" if money.estimated else usd(money.value) + more


def _share(share: Share) -> str:
    return f"{share.low:.1%}" if share.low == share.high else f"{share.low:.1%} to {share.high:.1%}"


def _points(before: Share, after: Share) -> str:
    low, high = 100 * (after.low - before.high), 100 * (after.high - before.low)
    return f"{low:+.1f} points" if low == high else f"{low:+.1f} to {high:+.1f} points"


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{share:.1%}"


def _seconds(seconds: float | None) -> str:
    return "unknown" if seconds is None else f"{seconds:.3g} s"


def _later(before: float | None, after: float | None) -> str:
    return "" if before is None or after is None else f"{after - before:+.2g} s"


def _drop(drop: Drop) -> str:
    if drop.n == 0:
        return "unknown"
    low, high = 100 * drop.low, 100 * drop.high
    return f"{low:+.1f}" if drop.unknown == 0 else f"{low:+.1f} to {high:+.1f}"


def _unknown(drop: Drop) -> str:
    return f"{drop.unknown:,} of {drop.n:,}"
