from __future__ import annotations

import asyncio
import json
import logging
import stat
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from corea.cli import main
from corea.errors import ConfigError, LedgerError
from corea.gateway import keys
from corea.gateway.keys import KeyStore, Limits, Pepper
from corea.ledger import Ledger
from corea.ledger import keys as stored
from ledger.samples import trace
from ledger.stores import Place, fresh

PEPPER = Pepper(b"p" * 32)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def store(ledger: Ledger, clock: Clock, pepper: Pepper = PEPPER) -> KeyStore:
    return KeyStore(ledger, pepper, ttl_s=10.0, clock=clock, wall_clock=clock)


def id_of(asked: KeyStore, secret: str) -> str | None:
    key = asyncio.run(asked.authorize(secret))
    return None if key is None else key.id


def test_a_key_is_known_by_its_secret_with_all_it_may_do(ledger: Ledger) -> None:
    limits = Limits(requests_per_minute=5, tokens_per_minute=6, day_nano_usd=7, month_nano_usd=2**62)
    made, secret = keys.create(ledger, PEPPER, name="ann", limits=limits, profiles=("fast", "law"), task="law")
    assert len(secret) == len("corea-") + 43
    assert secret.startswith("corea-")
    found = asyncio.run(KeyStore(ledger, PEPPER).authorize(secret))
    assert found == made
    assert (made.limits, made.profiles, made.task) == (limits, ("fast", "law"), "law")
    assert (made.allows("fast"), made.allows("slow")) == (True, False)


def test_whatever_is_not_the_whole_secret_is_nobody(ledger: Ledger) -> None:
    _, secret = keys.create(ledger, PEPPER, name="ann")
    _, other = keys.create(ledger, PEPPER, name="bob")
    asked = store(ledger, Clock())
    wrong = secret[:-1] + ("A" if secret[-1] != "A" else "B")
    mixed = secret[:20] + other[20:]
    for made_up in (
        "",
        "corea-",
        secret[:-1],
        secret + "x",
        wrong,
        mixed,
        secret.upper(),
        f"é{secret[1:]}",
        "\x00" * 49,
    ):
        assert id_of(asked, made_up) is None


def test_neither_a_secret_nor_the_servers_is_in_the_database(tmp_path: Path) -> None:
    with fresh("sqlite", tmp_path) as place, Ledger.open(place.url) as ledger:
        _, secret = keys.create(ledger, PEPPER, name="ann")
        assert id_of(store(ledger, Clock()), secret) is not None
        content = b"".join(file.read_bytes() for file in tmp_path.iterdir() if file.is_file())
        assert secret[6:14].encode() in content
        assert secret[14:].encode() not in content
        assert b"p" * 32 not in content


def test_a_key_of_another_server_secret_is_nobody_and_the_log_says_why(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    _, secret = keys.create(ledger, PEPPER, name="ann")
    with caplog.at_level(logging.ERROR):
        assert id_of(store(ledger, Clock(), Pepper(b"q" * 32)), secret) is None
    assert "give all replicas the same COREA_KEYS_SECRET" in caplog.text
    assert secret[14:] not in caplog.text
    assert "ppp" not in repr(PEPPER)


def test_a_key_is_read_once_in_its_time_however_many_ask(ledger: Ledger) -> None:
    made, secret = keys.create(ledger, PEPPER, name="ann")
    clock, reads = Clock(), []
    asked = store(ledger, clock)
    listened = lambda conn, cursor, statement, *_: reads.append(statement)  # noqa: E731

    async def ask(count: int) -> None:
        found = await asyncio.gather(*(asked.authorize(secret) for _ in range(count)))
        assert {key.id for key in found if key} == {made.id}

    event.listen(ledger.engine, "before_cursor_execute", listened)
    asyncio.run(ask(50))
    asyncio.run(ask(50))
    assert len([statement for statement in reads if "key_secrets" in statement]) == 1
    clock.now += 10.0
    asyncio.run(ask(1))
    assert len([statement for statement in reads if "key_secrets" in statement]) == 2


def test_strangers_are_remembered_too_but_not_without_end(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "_MOST_CACHED", 5)
    asked = store(ledger, Clock())
    for i in range(20):
        assert id_of(asked, f"corea-{i:08}{'x' * 35}") is None
    assert len(asked._entries) == 5


def test_a_revoked_key_works_no_longer_than_the_time_to_live(ledger: Ledger) -> None:
    made, secret = keys.create(ledger, PEPPER, name="ann")
    clock = Clock()
    asked = store(ledger, clock)
    assert id_of(asked, secret) == made.id
    assert stored.revoke(ledger, "ann", at_unix_s=1.0).id == made.id
    assert id_of(asked, secret) == made.id
    clock.now += 10.0
    assert id_of(asked, secret) is None


def test_an_expired_key_stops_at_once(ledger: Ledger) -> None:
    clock = Clock()
    _, secret = keys.create(ledger, PEPPER, name="ann", expires_at_unix_s=1_001.0, clock=clock)
    asked = store(ledger, clock)
    assert id_of(asked, secret) is not None
    clock.now = 1_001.0
    assert id_of(asked, secret) is None


def test_a_rotated_key_stays_the_same_and_its_old_secret_ends_after_the_grace(ledger: Ledger) -> None:
    clock = Clock()
    made, first = keys.create(ledger, PEPPER, name="ann", clock=clock)
    rotated, second = keys.rotate(ledger, PEPPER, made.id, grace_s=5.0, clock=clock)
    _, third = keys.rotate(ledger, PEPPER, "ann", grace_s=60.0, clock=clock)
    assert rotated.id == made.id
    asked = store(ledger, clock)
    assert [id_of(asked, secret) for secret in (first, second, third)] == [made.id] * 3
    clock.now += 5.0
    assert [id_of(asked, secret) for secret in (first, second, third)] == [None, made.id, made.id]
    clock.now += 60.0
    assert [id_of(asked, secret) for secret in (first, second, third)] == [None, None, made.id]


def test_a_changed_key_is_the_same_one_and_what_is_not_named_stays(ledger: Ledger) -> None:
    limits = Limits(requests_per_minute=5, tokens_per_minute=6, month_nano_usd=7)
    made, secret = keys.create(ledger, PEPPER, name="ann", limits=limits, profiles=("fast",), task="law")
    changed = keys.change(
        ledger, "ann", {"requests_per_minute": 50, "tokens_per_minute": None, "profiles": ("fast", "slow")}
    )
    assert changed == replace(made, limits=Limits(requests_per_minute=50, month_nano_usd=7), profiles=("fast", "slow"))
    assert keys.change(ledger, made.id, {"profiles": None, "task": None, "day_nano_usd": 9}) == replace(
        changed, profiles=None, task=None, limits=replace(changed.limits, day_nano_usd=9)
    )
    assert id_of(store(ledger, Clock()), secret) == made.id


def test_every_replica_goes_by_the_change_after_the_time_to_live(ledger: Ledger) -> None:
    _, secret = keys.create(ledger, PEPPER, name="ann", limits=Limits(requests_per_minute=5))
    clock = Clock()
    replicas = [store(ledger, clock) for _ in range(2)]

    def seen() -> list[int | None]:
        found = [asyncio.run(replica.authorize(secret)) for replica in replicas]
        return [key.limits.requests_per_minute for key in found if key]

    assert seen() == [5, 5]
    keys.change(ledger, "ann", {"requests_per_minute": 1})
    clock.now += 9.0
    assert seen() == [5, 5]
    clock.now += 1.0
    assert seen() == [1, 1]


def test_a_revoked_key_is_not_changed_and_an_expired_one_may_live_on(ledger: Ledger) -> None:
    clock = Clock()
    made, secret = keys.create(ledger, PEPPER, name="ann", expires_at_unix_s=1_001.0, clock=clock)
    clock.now = 1_001.0
    assert id_of(store(ledger, clock), secret) is None
    keys.change(ledger, "ann", {"expires_at_unix_s": 2_000.0})
    assert id_of(store(ledger, clock), secret) == made.id
    stored.revoke(ledger, "ann", at_unix_s=1.0)
    with pytest.raises(LedgerError, match="no key 'ann' works in .*; there is none"):
        keys.change(ledger, "ann", {"expires_at_unix_s": None})


def test_when_a_key_was_used_is_noted_to_the_hour(ledger: Ledger) -> None:
    clock = Clock()
    _, secret = keys.create(ledger, PEPPER, name="ann", clock=clock)
    asked = store(ledger, clock)

    def last_used() -> float | None:
        assert id_of(asked, secret) is not None
        return stored.list_keys(ledger)[0].last_used_at_unix_s

    assert last_used() == 1_000.0
    clock.now += 3_000.0
    assert last_used() == 1_000.0
    clock.now += 1_000.0
    assert last_used() == 5_000.0


def test_names_are_for_one_key_that_works(ledger: Ledger) -> None:
    first, _ = keys.create(ledger, PEPPER, name="ann")
    with pytest.raises(LedgerError, match='there is a key called "ann"; choose another name'):
        keys.create(ledger, PEPPER, name="ann")
    stored.revoke(ledger, first.id, at_unix_s=1.0)
    second, _ = keys.create(ledger, PEPPER, name="ann")
    assert [key.id for key in stored.list_keys(ledger)] == [first.id, second.id]
    for unknown in ("bob", first.id):
        with pytest.raises(LedgerError, match="no key .* works in .*; there are: ann"):
            stored.revoke(ledger, unknown, at_unix_s=1.0)


def test_a_database_that_is_away_is_an_error_and_not_a_way_in(place: Place) -> None:
    with Ledger.open(place.url) as ledger:
        _, secret = keys.create(ledger, PEPPER, name="ann")
        place.sql("ALTER TABLE key_secrets RENAME TO gone")
        try:
            with pytest.raises(LedgerError, match="key_secrets"):
                id_of(store(ledger, Clock()), secret)
        finally:
            place.sql("ALTER TABLE gone RENAME TO key_secrets")


def test_who_is_cancelled_does_not_take_the_others_along(ledger: Ledger) -> None:
    made, secret = keys.create(ledger, PEPPER, name="ann")
    asked = store(ledger, Clock())

    async def go() -> None:
        first = asyncio.create_task(asked.authorize(secret))
        second = asyncio.create_task(asked.authorize(secret))
        await asyncio.sleep(0)
        first.cancel()
        key = await second
        assert key is not None
        assert key.id == made.id

    asyncio.run(go())


def test_the_servers_secret_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "keys.secret"
    first = Pepper.load(path, {})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Pepper.load(path, {}) == first
    assert [file.name for file in path.parent.iterdir()] == ["keys.secret"]
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="others can read .* chmod 600"):
        Pepper.load(path, {})
    path.chmod(0o600)
    path.write_text("short")
    with pytest.raises(ConfigError, match="is cut off"):
        Pepper.load(path, {})


def test_the_environment_goes_before_the_file_and_must_be_long(tmp_path: Path) -> None:
    path = tmp_path / "keys.secret"
    assert Pepper.load(path, {keys.SECRET_ENV: "x" * 32}) != Pepper.load(path, {keys.SECRET_ENV: "y" * 32})
    assert not path.exists()
    with pytest.raises(ConfigError, match=r"shorter than 32.*openssl rand") as caught:
        Pepper.load(path, {keys.SECRET_ENV: "hunter2"})
    assert "hunter2" not in str(caught.value)


@pytest.fixture
def corea(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The command, in this process: what it printed to stdout and to stderr, and its exit code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*args: str) -> tuple[str, str, int]:
        monkeypatch.setattr(sys, "argv", ["corea", *args])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        return told.out, told.err, int(ended.value.code or 0)

    return run


def test_a_key_is_made_listed_rotated_and_revoked_on_the_command_line(corea: Any) -> None:
    out, err, code = corea("keys", "create", "--name", "ann", "--rpm", "60", "--spend-usd-per-day", "1.5",
                           "--expires", "30d", "--profile", "fast")  # fmt: skip
    assert code == 0, err
    secret = out.strip()
    assert "keep it now" in err
    assert secret not in err
    listed: list[dict[str, Any]] = json.loads(corea("keys", "list", "--json")[0])
    assert (listed[0]["name"], listed[0]["works"], listed[0]["profiles"]) == ("ann", True, ["fast"])
    assert listed[0]["limits"]["day_nano_usd"] == 1_500_000_000
    told = corea("keys", "change", "ann", "--rpm", "90", "--lift", "profile", "--lift", "expires")[0]
    assert told == f'"ann" ({listed[0]["id"]}): profiles all; limits 90 rpm, $1.50 a day; works: yes\n'
    changed = json.loads(corea("keys", "change", "ann", "--rpm", "60", "--profile", "fast", "--json")[0])
    assert (changed["profiles"], changed["limits"]["requests_per_minute"]) == (["fast"], 60)
    again = json.loads(corea("keys", "rotate", "ann", "--grace", "1h", "--json")[0])
    assert (again["id"], again["key"] == secret) == (listed[0]["id"], False)
    assert corea("keys", "revoke", "ann")[0] == f'"ann" ({listed[0]["id"]}) is revoked\n'
    table = corea("keys", "list")[0]
    assert "revoked" in table
    assert "60 rpm, $1.50 a day" in table
    assert secret[14:] not in table


@pytest.mark.parametrize(
    "args,told",
    [
        (("create", "--name", " "), "the name is empty; say whose key it is"),
        (("create", "--name", "a", "--expires", "soon"), "--expires: 'soon' is no time; write for example 90m"),
        (("create", "--name", "a", "--spend-usd-per-day", "-1"), "is no budget; write dollars, more than 0"),
        (("create", "--name", "a", "--spend-usd-per-day", "nan"), "is no budget; write dollars, more than 0"),
        (("change", "nobody"), "nothing to change; say what, for example --rpm 60 or --lift rpm"),
        (("change", "nobody", "--rpm", "1", "--lift", "rpm"), "--rpm is set and lifted at once; choose one"),
        (("change", "nobody", "--rpm", "1"), "there is none; make one: corea keys create"),
        (("change", "nobody", "--spend-usd-per-month", "inf"), "is no budget; write dollars, more than 0"),
        (("revoke", "nobody"), "there is none; make one: corea keys create"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(corea: Any, args: tuple[str, ...], told: str) -> None:
    _, err, code = corea("keys", *args)
    assert code == 1
    assert told in err
    assert len(err.strip().splitlines()) == 1


def test_the_ledger_is_summed_up_pruned_and_its_feedback_written_on_the_command_line(
    corea: Any, home: Path, tmp_path: Path
) -> None:
    async def go() -> None:
        async with Ledger.open() as ledger:
            await ledger.write(trace(id="old"))
            await ledger.write(trace(id="deferred", tiers=("small", "large")))
            await ledger.add_feedback("old", 1.0)

    asyncio.run(go())
    told = json.loads(corea("ledger", "summary", "--by", "tier", "--json")[0])
    assert {one["group"]["tier"]: one["traces"] for one in told} == {"small": 1, "large": 1}
    table = corea("ledger", "summary", "--by", "day", "--since", "5000w")[0]
    assert "50.0%" in table
    assert corea("ledger", "feedback", "--out", str(tmp_path / "f.jsonl"))[2] == 0
    assert json.loads((tmp_path / "f.jsonl").read_text())["correct"] == 1.0
    assert corea("ledger", "prune", "--older-than", "90d", "--dry-run")[0] == "2 traces would be deleted\n"
    assert json.loads(corea("ledger", "prune", "--older-than", "90d", "--json")[0]) == {"deleted": 2, "would_delete": 0}
    assert json.loads(corea("ledger", "summary", "--json")[0])[0]["traces"] == 2
    assert "no group is called" in corea("ledger", "summary", "--by", "model")[1]
