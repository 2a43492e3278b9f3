"""What only a server does: it refuses, it goes away, it is shared by machines that upgrade one after another."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from corea.errors import LedgerError
from corea.ledger import Ledger, get_trace, list_traces, reading, summary
from corea.ledger import postgres as postgres_module
from ledger.postgres import PASSWORD, Server
from ledger.samples import trace
from ledger.stores import Place, fresh, server

CANARY = "canary-4711"


@pytest.fixture
def running() -> Iterator[Server]:
    """The server; up again afterwards, whatever the test did to it."""
    yield server()
    server().stop(signal.SIGQUIT)
    server().start()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with fresh("postgresql", tmp_path) as found:
        yield found


def restarted(running: Server) -> None:
    running.stop(signal.SIGQUIT)
    running.start()


def refusal(url: str) -> str:
    """The message with which a ledger refuses to open: one line, without the password, and so is its whole chain."""
    with pytest.raises(LedgerError) as caught:
        Ledger.open(url)
    whole = "".join(traceback.format_exception(caught.value))
    assert CANARY not in whole + repr(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_wrong_password_says_so(place: Place) -> None:
    message = refusal(place.url.replace(PASSWORD, CANARY))
    assert "password authentication failed" in message
    assert "correct the user or the password" in message


def test_an_unknown_database_says_how_to_make_it(place: Place) -> None:
    assert "create the database first" in refusal(server().url("nowhere"))


def test_a_port_where_nobody_listens_says_so(place: Place) -> None:
    message = refusal(f"postgresql://me:{CANARY}@127.0.0.1:1/ledger")
    assert "start the server, or correct host and port" in message
    assert "postgresql://me@127.0.0.1:1/ledger" in message


def test_an_unknown_host_says_so(place: Place) -> None:
    assert "check the host's name" in refusal(f"postgresql://me:{CANARY}@no-such-host.invalid/ledger")


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://me:{CANARY}@host:port/ledger",
        f"postgresql://me:12/{CANARY}@host/ledger",
        f"postgres://me:p@{CANARY}@:x/ledger",
        f"mysql://me:{CANARY}@host/ledger",
    ],
)
def test_a_url_that_cannot_be_read_is_not_repeated(url: str) -> None:
    assert "postgresql://" in refusal(url)


@pytest.mark.parametrize("query", [f"password={CANARY}", f"sslpassword={CANARY}&colour={CANARY}"])
def test_a_password_in_the_query_is_not_repeated_either(place: Place, query: str) -> None:
    refusal(f"{place.url.replace(PASSWORD, 'wrong')}?{query}")


@pytest.mark.parametrize("in_query", [False, True])
def test_the_password_is_in_no_repr_and_no_log(place: Place, caplog: pytest.LogCaptureFixture, in_query: bool) -> None:
    caplog.set_level(logging.DEBUG)
    url = f"{place.url.replace(':' + PASSWORD, '')}?password={PASSWORD}" if in_query else place.url
    with Ledger.open(url) as ledger:
        asyncio.run(ledger.write(trace()))
        shown = repr([ledger, ledger.engine, ledger.engine.url, ledger.engine.pool, vars(ledger)])
    assert PASSWORD not in shown
    assert PASSWORD not in caplog.text


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_any_usual_spelling_of_the_scheme_will_do(place: Place, scheme: str) -> None:
    Ledger.open(place.url.replace("postgresql", scheme, 1)).close()


def test_reading_where_there_is_no_ledger_says_so_and_makes_nothing(tmp_path: Path) -> None:
    name = server().new_database()
    with pytest.raises(LedgerError, match="no ledger at .* yet"), reading(server().url(name)):
        pass
    assert server().execute(name, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]


def test_the_ledger_may_share_a_database_and_have_a_schema_of_its_own(tmp_path: Path) -> None:
    name = server().new_database()
    server().execute(name, "CREATE SCHEMA ours; CREATE TABLE traces (id int); CREATE TABLE other (id int)")
    assert "another program's database (traces)" in refusal(server().url(name))
    with Ledger.open(server().url(name) + "?options=-csearch_path%3Dours") as ledger:
        asyncio.run(ledger.write(trace(id="mine")))
        assert get_trace(ledger, "mine").id == "mine"
    assert server().execute(name, "SELECT count(*) FROM ours.traces") == [(1,)]


def test_an_upgrade_waits_for_the_one_that_runs_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    import psycopg

    url = server().url(server().new_database())
    monkeypatch.setattr(postgres_module, "PREPARE_TIMEOUT_S", 0.1)
    with psycopg.connect(url) as other:
        other.execute(f"SELECT pg_advisory_xact_lock({postgres_module._LOCK})".encode())
        assert "another process holds it; stop that one or try again" in refusal(url)


def test_a_server_that_restarts_loses_no_trace_and_writes_none_twice(place: Place, running: Server) -> None:
    async def go() -> None:
        async with Ledger.open(place.url, busy_timeout_s=30) as ledger:
            await ledger.write(trace())
            restart = threading.Thread(target=restarted, args=(running,))
            restart.start()
            for _ in range(10):
                await asyncio.gather(*(ledger.write(trace()) for _ in range(10)))
            restart.join()
            await asyncio.gather(*(ledger.write(trace()) for _ in range(10)))
            assert summary(ledger)[0].traces == 111

    asyncio.run(go())
    assert place.sql("SELECT count(*), count(DISTINCT id) FROM traces") == [(111, 111)]


def test_a_server_that_stays_away_is_an_error_that_says_so_and_is_used_again_once_it_is_back(
    place: Place, running: Server
) -> None:
    async def go() -> None:
        async with Ledger.open(place.url, busy_timeout_s=0.2) as ledger:
            await ledger.write(trace(id="before"))
            running.stop()
            for _ in range(2):
                failures = await asyncio.gather(*(ledger.write(trace()) for _ in range(3)), return_exceptions=True)
                told = {str(failure) for failure in failures}
                assert len(told) == 1
                assert "start the server" in told.pop()
            with pytest.raises(LedgerError, match="start the server"):
                list_traces(ledger)
            running.start()
            await ledger.write(trace(id="after"))

    asyncio.run(go())
    assert sorted(place.sql("SELECT id FROM traces")) == [("after",), ("before",)]
