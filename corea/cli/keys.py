"""``corea keys``: virtual keys, for those who ask through the gateway."""

from __future__ import annotations

import re
import time
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.table import Table

from corea.cli.console import print_json, remark, stdout
from corea.cli.options import ConfigFile, Json
from corea.config import Config
from corea.errors import InputError
from corea.prices import format_usd

if TYPE_CHECKING:
    from corea.ledger.keys import Key

app = typer.Typer(help="Make, change and take back virtual keys of the gateway.", no_args_is_help=True)

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class _Setting(StrEnum):
    """What can be changed of a key, by the name of its option."""

    RPM = "rpm"
    TPM = "tpm"
    PER_DAY = "spend-usd-per-day"
    PER_MONTH = "spend-usd-per-month"
    PROFILE = "profile"
    TASK = "task"
    EXPIRES = "expires"


_FIELDS = {
    _Setting.RPM: "requests_per_minute",
    _Setting.TPM: "tokens_per_minute",
    _Setting.PER_DAY: "day_nano_usd",
    _Setting.PER_MONTH: "month_nano_usd",
    _Setting.PROFILE: "profiles",
    _Setting.TASK: "task",
    _Setting.EXPIRES: "expires_at_unix_s",
}

_Which = Annotated[str, typer.Argument(metavar="KEY", help="The key's name or id; see: corea keys list.")]
_Profiles = Annotated[
    list[str] | None,
    typer.Option("--profile", help="Profile it may use, in place of those before; may be repeated. New keys: all."),
]
_Rpm = Annotated[int | None, typer.Option("--rpm", min=1, help="Requests per minute.")]
_Tpm = Annotated[int | None, typer.Option("--tpm", min=1, help="Tokens per minute.")]
_PerDay = Annotated[float | None, typer.Option("--spend-usd-per-day", help="Dollars a day (UTC).")]
_PerMonth = Annotated[float | None, typer.Option("--spend-usd-per-month", help="Dollars a month (UTC).")]
_Task = Annotated[str | None, typer.Option("--task", help="Task of all its questions.")]
_Expires = Annotated[str | None, typer.Option("--expires", help="When it ends, from now, e.g. 30d or 12h.")]


@app.command()
def create(
    name: Annotated[str, typer.Option("--name", help="Whose key it is.")],
    profile: _Profiles = None,
    rpm: _Rpm = None,
    tpm: _Tpm = None,
    per_day: _PerDay = None,
    per_month: _PerMonth = None,
    task: _Task = None,
    expires: _Expires = None,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Make a key. It is printed once, and can't be had again."""
    from corea.gateway import keys
    from corea.ledger import Ledger

    if not name.strip():
        raise InputError("the name is empty; say whose key it is")
    limits = keys.Limits(
        requests_per_minute=rpm,
        tokens_per_minute=tpm,
        day_nano_usd=_nano_usd(per_day, "--spend-usd-per-day"),
        month_nano_usd=_nano_usd(per_month, "--spend-usd-per-month"),
    )
    ends = None if expires is None else time.time() + duration_s(expires, "--expires")
    with Ledger.open(Config.load(config).ledger.url) as ledger:
        key, secret = keys.create(
            ledger,
            keys.Pepper.load(),
            name=name,
            limits=limits,
            profiles=tuple(profile) if profile else None,
            task=task,
            expires_at_unix_s=ends,
        )
    _print_secret(key, secret, json=json)


@app.command("list")
def list_(config: ConfigFile = None, json: Json = False) -> None:
    """List all keys, and what they spent today and this month."""
    from corea.ledger.database import reading
    from corea.ledger.keys import list_keys
    from corea.ledger.quota import month_start_day
    from corea.ledger.spending import day_of, spent_nano_usd

    today = day_of(time.time())
    with reading(Config.load(config).ledger.url) as ledger:
        rows = [
            (
                key,
                spent_nano_usd(ledger, key.id, since_day=today),
                spent_nano_usd(ledger, key.id, since_day=month_start_day(today)),
            )
            for key in list_keys(ledger)
        ]
    if json:
        print_json([{**key_json(key), "today_nano_usd": day, "month_nano_usd": month} for key, day, month in rows])
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("name", "id", "works", "profiles", "limits", "today", "this month", "last used"):
        table.add_column(heading, no_wrap=heading != "limits")
    for key, day, month in rows:
        profiles = "all" if key.profiles is None else ", ".join(key.profiles)
        table.add_row(
            _plain(key.name), key.id, _state(key), _plain(profiles), _limits(key), format_usd(day), format_usd(month),
            _date(key.last_used_at_unix_s),
        )  # fmt: skip
    stdout().print(table)


@app.command()
def revoke(which: _Which, config: ConfigFile = None, json: Json = False) -> None:
    """Take a key back. Running gateways notice within ten seconds."""
    from corea.ledger import Ledger
    from corea.ledger.keys import revoke as revoke_key

    with Ledger.open(Config.load(config).ledger.url) as ledger:
        key = revoke_key(ledger, which, at_unix_s=time.time())
    if json:
        print_json(key_json(key))
        return
    typer.echo(f'"{key.name}" ({key.id}) is revoked')


@app.command()
def change(
    which: _Which,
    profile: _Profiles = None,
    rpm: _Rpm = None,
    tpm: _Tpm = None,
    per_day: _PerDay = None,
    per_month: _PerMonth = None,
    task: _Task = None,
    expires: _Expires = None,
    lift: Annotated[
        list[_Setting] | None, typer.Option("--lift", help="A limit to take away; may be repeated.")
    ] = None,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Change what a key may do. Running gateways notice within ten seconds; what it used so far still counts."""
    from corea.gateway import keys
    from corea.ledger import Ledger

    given: dict[_Setting, Any] = {
        _Setting.RPM: rpm,
        _Setting.TPM: tpm,
        _Setting.PER_DAY: _nano_usd(per_day, "--spend-usd-per-day"),
        _Setting.PER_MONTH: _nano_usd(per_month, "--spend-usd-per-month"),
        _Setting.PROFILE: tuple(profile) if profile else None,
        _Setting.TASK: task,
        _Setting.EXPIRES: None if expires is None else time.time() + duration_s(expires, "--expires"),
    }
    changed = {setting: value for setting, value in given.items() if value is not None}
    twice = [setting.value for setting in lift or () if setting in changed]
    if twice:
        raise InputError(f"--{twice[0]} is set and lifted at once; choose one")
    changed |= dict.fromkeys(lift or ())
    if not changed:
        raise InputError("nothing to change; say what, for example --rpm 60 or --lift rpm")
    changes = cast("keys.Changes", {_FIELDS[setting]: value for setting, value in changed.items()})
    with Ledger.open(Config.load(config).ledger.url) as ledger:
        key = keys.change(ledger, which, changes)
    if json:
        print_json(key_json(key))
        return
    profiles = "all" if key.profiles is None else ", ".join(key.profiles)
    typer.echo(f'"{key.name}" ({key.id}): profiles {profiles}; limits {_limits(key)}; works: {_state(key)}')


@app.command()
def rotate(
    which: _Which,
    grace: Annotated[str, typer.Option("--grace", help="How long the old secret works on, e.g. 24h.")] = "0s",
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Give a key another secret. Its limits and what it spent stay."""
    from corea.gateway import keys
    from corea.ledger import Ledger

    grace_s = duration_s(grace, "--grace")
    with Ledger.open(Config.load(config).ledger.url) as ledger:
        key, secret = keys.rotate(ledger, keys.Pepper.load(), which, grace_s=grace_s)
    _print_secret(key, secret, json=json)


def duration_s(text: str, option: str) -> int:
    """``30d`` → seconds. Raises InputError that names the option."""
    found = re.fullmatch(r"(\d{1,6})([smhdw])", text.strip())
    if found is None:
        raise InputError(f"{option}: {text!r} is no time; write for example 90m, 12h, 30d or 4w")
    return int(found[1]) * _UNITS_S[found[2]]


def key_json(key: Key) -> dict[str, Any]:
    """Every field, the limits among them. No secret and no hash: a key doesn't know them."""
    return {**asdict(key), "works": key.works_at(time.time())}


def _print_secret(key: Key, secret: str, *, json: bool) -> None:
    if json:
        print_json({**key_json(key), "key": secret})
        return
    typer.echo(secret)
    remark(f'the key of "{key.name}" ({key.id}); keep it now, it is not shown again')


def _nano_usd(usd: float | None, option: str) -> int | None:
    if usd is None:
        return None
    # Up to what 64 bits of nano-dollars hold; NaN fails the comparison too.
    if not 0 < usd <= 10**9:
        raise InputError(f"{option}: {usd} is no budget; write dollars, more than 0")
    return round(usd * 10**9)


def _state(key: Key) -> str:
    if key.revoked_at_unix_s is not None:
        return "revoked"
    if not key.works_at(time.time()):
        return "expired"
    return "yes" if key.expires_at_unix_s is None else f"until {_date(key.expires_at_unix_s)}"


def _limits(key: Key) -> str:
    limits = key.limits
    told = [
        f"{limits.requests_per_minute:,} rpm" if limits.requests_per_minute is not None else "",
        f"{limits.tokens_per_minute:,} tpm" if limits.tokens_per_minute is not None else "",
        f"{format_usd(limits.day_nano_usd)} a day" if limits.day_nano_usd is not None else "",
        f"{format_usd(limits.month_nano_usd)} a month" if limits.month_nano_usd is not None else "",
    ]
    return ", ".join(filter(None, told)) or "none"


def _date(unix_s: float | None) -> str:
    return "never" if unix_s is None else f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%d %H:%M}"


def _plain(text: str) -> str:
    return text.replace("[", "\\[")
