"""Opens the ledger's database, new or old, and says in one line why it can't. Knows nothing of traces.

All SQL that only SQLite understands is here; what only PostgreSQL needs is in ``postgres``. alembic costs 150 ms to
import, so it is loaded only when the stored version is not ``HEAD``.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from json import JSONEncoder
from pathlib import Path

from sqlalchemy import Connection, Engine, column, create_engine, inspect, select, table
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError, StatementError

from corea.errors import LedgerError
from corea.ledger import postgres
from corea.ledger.schema import HEAD, VERSION_TABLE, compatible, metadata
from corea.paths import ledger_url

BUSY_TIMEOUT_S = 5.0
#: How long to wait for another process that is creating or upgrading the same file.
PREPARE_TIMEOUT_S = 60.0
MIGRATIONS = Path(__file__).parent / "migrations"

_ELSEWHERE = "choose another one by COREA_HOME or by the ledger's URL"
_HINTS = {
    "SQLITE_NOTADB": f"it is no ledger; {_ELSEWHERE}",
    "SQLITE_CORRUPT": "it is damaged; move it away, and try sqlite3's .recover on it",
    "SQLITE_BUSY": "another process holds it; stop that one or try again",
    "SQLITE_LOCKED": "another process holds it; stop that one or try again",
    "SQLITE_FULL": "make room on its disk",
    "SQLITE_READONLY": f"make the file and its folder writable, or {_ELSEWHERE}",
    "SQLITE_CANTOPEN": f"it must be a file, stay there, and its folder be writable; put it back or {_ELSEWHERE}",
}
_VERSION = table(VERSION_TABLE, column("version_num"))
#: alembic keeps the running migration in module globals.
_migrating = threading.Lock()
_turns: dict[str, threading.Lock] = {}


def open_engine(url: str | None = None, *, create: bool, busy_timeout_s: float = BUSY_TIMEOUT_S) -> Engine:
    """An engine on a ledger of this version; an older one is upgraded. The caller disposes of it.

    ``create`` makes folder and file where there are none; without it nothing new appears on the disk. Raises
    LedgerError when there is no ledger, when it is newer than this code, is something else or can't be used.
    """
    url = url or ledger_url()
    if url.startswith("sqlite"):
        return _open_file(_path_of(url), create, busy_timeout_s)
    if not postgres.is_ours(url):
        # What was given may hold a password, so it is not repeated.
        raise LedgerError("the ledger's URL can't be understood; write sqlite:///PATH or postgresql://…")
    engine = postgres.engine_for(url, busy_timeout_s=busy_timeout_s, json_serializer=_to_json)
    with _disposed_on_error(engine):
        version = _stored_version(engine)
        if version is None and not create:
            raise LedgerError(f"no ledger at {place(engine)} yet: it is written by the first `corea ask`")
        if _is_older(version):
            _migrate(engine)
    return engine


@contextmanager
def reading(url: str | None = None) -> Iterator[Engine]:
    """An engine on a ledger that exists, for ``queries``. Raises LedgerError where there is none; creates nothing."""
    engine = open_engine(url, create=False)
    try:
        yield engine
    finally:
        engine.dispose()


def place(engine: Engine) -> str:
    """Where the ledger is, as messages name it: a path, or a URL without its password."""
    if engine.dialect.name == "sqlite":
        return str(engine.url.database)
    return postgres.place(engine.url)


def identity(engine: Engine) -> tuple[int, int] | None:
    """Tells one SQLite file from another in its place; None where there is no file (or no SQLite)."""
    if engine.dialect.name != "sqlite":
        return None
    try:
        found = Path(place(engine)).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def explain(engine: Engine, exc: Exception) -> LedgerError:
    """The same failure in one line, with what to do, and without the row's values, which may be private."""
    cause = exc.orig if isinstance(exc, StatementError) and exc.orig else exc
    name = getattr(cause, "sqlite_errorname", "")
    hint = next((hint for prefix, hint in _HINTS.items() if name.startswith(prefix)), None) or postgres.hint(cause)
    said = " ".join((postgres.message(cause) or str(cause)).split()) or type(cause).__name__
    return LedgerError(f"ledger {place(engine)}: {said}" + (f": {hint}" if hint else ""))


def turn(engine: Engine) -> AbstractContextManager[object]:
    """Held while a thread writes. SQLite has one writer at a time, and its others sleep: here they queue instead.

    Nothing for PostgreSQL, nor between processes: the databases' own locks do that.
    """
    if engine.dialect.name != "sqlite":
        return nullcontext()
    return _turns.setdefault(place(engine), threading.Lock())


@contextmanager
def explained(engine: Engine) -> Iterator[None]:
    """Turns the database's errors into LedgerError."""
    try:
        yield
    except SQLAlchemyError as exc:
        raise explain(engine, exc) from exc
    except OSError as exc:
        said = f"{exc.strerror}: {exc.filename}" if exc.strerror else exc
        raise LedgerError(f"ledger {place(engine)}: {said}: {_HINTS['SQLITE_READONLY']}") from exc


def _path_of(url: str) -> Path:
    # Not make_url: all after the slashes is the path, also where it holds a question mark.
    path = url.partition(":///")[2]
    if path in ("", ":memory:"):
        raise LedgerError("the ledger's URL names no file (in memory it is lost at exit); write sqlite:///PATH")
    return Path(path).expanduser().absolute()


def _open_file(path: Path, create: bool, busy_timeout_s: float) -> Engine:
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        creator=partial(_connect, path, busy_timeout_s),
        hide_parameters=True,
        json_serializer=_to_json,
    )
    with _disposed_on_error(engine):
        version = _stored_version(engine) if path.exists() else None
        if version is None and not create:
            raise LedgerError(f"no ledger at {path} yet: it is written by the first `corea ask`")
        if _is_older(version) or not _is_wal(engine):
            _prepare(engine, path)
        if create and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
            raise LedgerError(f"ledger {path} is read-only: {_HINTS['SQLITE_READONLY']}")
    return engine


@contextmanager
def _disposed_on_error(engine: Engine) -> Iterator[None]:
    try:
        with explained(engine):
            yield
    except BaseException:
        engine.dispose()
        raise


def _connect(path: Path, busy_timeout_s: float) -> sqlite3.Connection:
    # mode=rw: only _prepare makes files, so neither a reader nor a lost folder leaves an empty one behind.
    connection = sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=busy_timeout_s, check_same_thread=False)
    # In WAL mode a commit is in the operating system's hands: it survives kill -9. NORMAL only skips the fsync that
    # would also keep the last commits through a power cut; the file stays whole even then.
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA foreign_keys=ON")
    return connection


def _is_wal(engine: Engine) -> bool:
    with engine.connect() as connection:
        return connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


def _prepare(engine: Engine, path: Path) -> None:
    """Creates or upgrades the file, one process at a time."""
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{path}.lock", timeout=PREPARE_TIMEOUT_S)
    try:
        held = lock.acquire()
    except Timeout as exc:
        raise LedgerError(f"ledger {path}: another process is preparing it; stop that one or try again") from exc
    with held:
        # Questions are private: readable by their owner only. SQLite gives its -wal and -shm files the same mode.
        path.touch(mode=0o600)
        version = _stored_version(engine)
        with engine.connect() as connection:
            # Kept in the file. Not in _connect: switching does not wait for other connections, it fails.
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        if _is_older(version):
            _migrate(engine)


def _stored_version(engine: Engine) -> str | None:
    """The migration the database stands at; None if it has none of our tables."""
    with engine.connect() as connection:
        tables = set(inspect(connection).get_table_names())
        version = connection.scalar(select(_VERSION.c.version_num)) if VERSION_TABLE in tables else None
        oldest = connection.scalar(select(compatible.c.oldest)) if compatible.name in tables else None
    # A PostgreSQL schema may be shared with others; a file may not.
    foreign = tables if engine.dialect.name == "sqlite" else tables & set(metadata.tables)
    if version is None and foreign:
        raise LedgerError(f"{place(engine)} is another program's database ({', '.join(sorted(foreign))}); {_ELSEWHERE}")
    # Another replica may have upgraded it already; most upgrades only add, and leave room for this version.
    if version is not None and version > HEAD and (oldest is None or oldest > HEAD):
        raise LedgerError(
            f"ledger {place(engine)} was written by a newer corea (schema {version}, this one knows {HEAD}); "
            "upgrade corea: pip install -U corea"
        )
    return version


def _is_older(version: str | None) -> bool:
    return version is None or version < HEAD


def _migrate(engine: Engine, revision: str = "head") -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    with _migrating, engine.begin() as connection:
        _begin_ddl(connection)
        config.attributes["connection"] = connection
        try:
            # alembic reads the version again, so whoever waited for the lock finds nothing left to do.
            command.upgrade(config, revision)
        except CommandError as exc:
            raise LedgerError(f"ledger {place(engine)} can't be upgraded: {exc}; reinstall corea") from exc


def _begin_ddl(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        postgres.lock_migrations(connection)
        return
    # The sqlite3 module begins no transaction before DDL: without this, a crash leaves half a schema.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


# PostgreSQL's JSON knows no NaN. ASCII only: \u escapes also carry NUL and lone surrogates.
_to_json = JSONEncoder(allow_nan=False, separators=(",", ":")).encode
