"""All that only PostgreSQL needs: its driver, its URL, its lock, and what to do about its errors.

Passwords come in with the URL and never go out: neither libpq nor this module repeats them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from corea.errors import ExtraMissing, LedgerError

#: How long a replica waits for another one that is creating or upgrading the same schema.
PREPARE_TIMEOUT_S = 60
CONNECT_TIMEOUT_S = 5
#: A peer that vanished without a word is given up after this long.
SILENT_PEER_MS = 10_000

#: The advisory lock of migrations: any number that others are unlikely to use. "corea" in ASCII.
_LOCK = 0x636F726561
_DRIVER = "postgresql+psycopg"
_SCHEMES = ("postgresql", "postgres", _DRIVER)

#: By SQLSTATE, whole or its class.
_HINTS = {
    "28": "correct the user or the password in the ledger's URL (or PGPASSWORD), or the server's pg_hba.conf",
    "3D000": "create the database first: createdb NAME",
    "3F000": "create the schema first, or correct the URL's search_path",
    "42501": "grant the ledger's user CREATE on its schema, and use of its tables",
    "53100": "make room on the server's disk",
    "53300": "raise the server's max_connections, or run fewer replicas",
    "57P03": "the server is starting or stopping; try again in a moment",
    "25006": "the server is a read-only standby; write the primary's address into the ledger's URL",
    "55P03": "another process holds it; stop that one or try again",
    "40": "another transaction was in the way; try again",
    "57": "the server stopped or the connection was closed; try again once it is up",
    "08": "check that the server is up and reachable; try again once it is",
}
#: libpq has no codes for what happens before it speaks to a server.
_HINTS_BY_TEXT = {
    "password": _HINTS["28"],
    "no pg_hba.conf entry": _HINTS["28"],
    "does not exist": _HINTS["3D000"],
    "resolve": "check the host's name in the ledger's URL, and this machine's DNS",
    "not known": "check the host's name in the ledger's URL, and this machine's DNS",
    "refused": "start the server, or correct host and port in the ledger's URL",
    "timeout": "check that the server is up and that no firewall is between; or correct the ledger's URL",
    "invalid connection option": "remove that option from the ledger's URL",
    "too many clients": _HINTS["53300"],
    "starting up": _HINTS["57P03"],
    "shutting down": _HINTS["57P03"],
    "recovery mode": _HINTS["57P03"],
    "closed": _HINTS["57"],
}


def is_ours(url: str) -> bool:
    return url.partition(":")[0] in _SCHEMES


def engine_for(url: str, *, busy_timeout_s: float, json_serializer: Callable[[Any], str]) -> Engine:
    """An engine that has not connected yet; it waits ``busy_timeout_s`` for another's lock.

    Raises LedgerError for a URL that is none, ExtraMissing where there is no driver.
    """
    parsed = _parse(url)
    secrets = {name: value for name, value in parsed.query.items() if "password" in name.lower()}
    # An engine's repr hides the password, but shows the query.
    parsed = parsed.difference_update_query(secrets)
    options: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "application_name": "corea",
        "tcp_user_timeout": SILENT_PEER_MS,
        "keepalives_idle": 30,
        "keepalives_interval": 5,
    }
    try:
        engine = create_engine(
            parsed,
            connect_args={name: value for name, value in options.items() if name not in parsed.query} | secrets,
            hide_parameters=True,
            json_serializer=json_serializer,
            # A pooled connection may be older than the server's last restart.
            pool_pre_ping=True,
        )
    except ModuleNotFoundError as exc:
        raise ExtraMissing(package="psycopg", extra="postgres") from exc
    except ImportError as exc:
        raise LedgerError(f"psycopg cannot be loaded ({exc}); run: pip install 'corea[postgres]'") from exc

    def set_lock_timeout(connection: Any, _record: object) -> None:
        connection.execute(f"SET lock_timeout = {round(busy_timeout_s * 1000)}")
        connection.commit()

    event.listen(engine, "connect", set_lock_timeout)
    return engine


def place(url: URL) -> str:
    """User, host and database. Nothing of the query: libpq takes passwords there too."""
    shown = URL.create("postgresql", username=url.username, host=url.host, port=url.port, database=url.database)
    return shown.render_as_string()


def hint(cause: BaseException) -> str | None:
    """What to do about an error of the driver."""
    state = getattr(cause, "sqlstate", None) or ""
    found = _HINTS.get(state) or _HINTS.get(state[:2])
    if found is not None or state:
        return found
    said = str(cause).lower()
    return next((told for part, told in _HINTS_BY_TEXT.items() if part in said), None)


def message(cause: BaseException) -> str | None:
    """The server's message without its detail, which holds values of the row; None where no server spoke."""
    told = getattr(getattr(cause, "diag", None), "message_primary", None)
    return told if isinstance(told, str) else None


def is_passing(exc: Exception) -> bool:
    """True where the same statements may succeed in a moment: the server restarts, or two transactions deadlocked."""
    if not isinstance(exc, DBAPIError) or not type(exc.orig).__module__.startswith("psycopg"):
        return False
    state = getattr(exc.orig, "sqlstate", None) or ""
    if state[:2] in ("40", "08", "57"):
        return True
    return exc.connection_invalidated or (not state and type(exc.orig).__name__ == "OperationalError")


def lock_migrations(connection: Connection) -> None:
    """Until the transaction ends, no other replica creates or upgrades the schema."""
    connection.execute(text(f"SET LOCAL lock_timeout = '{PREPARE_TIMEOUT_S}s'"))
    connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # Neither this message nor a cause repeats the text: a piece of it may be the password.
        raise LedgerError(
            "the ledger's URL can't be understood; write postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with each of "
            "@ : / ? # % in the password as %40 %3A %2F %3F %23 %25"
        ) from None
    return parsed.set(drivername=_DRIVER)
