from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, MetaData, event, inspect

from corea.errors import LedgerError
from corea.ledger import Ledger, get_trace, list_traces, reading, roll_up, summary
from corea.ledger import database as database_module
from corea.ledger.database import MIGRATIONS
from corea.ledger.records import attempt_rows, trace_row
from corea.ledger.schema import HEAD, VERSION_TABLE, metadata
from corea.types import Trace
from ledger.samples import sql, trace, url_of
from ledger.stores import Place

not_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")


def refusal(url: str | None) -> str:
    """The message with which a ledger refuses to open: always one line."""
    with pytest.raises(LedgerError) as caught:
        Ledger.open(url)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@contextmanager
def reading_at(revision: str, place: Place) -> Iterator[Engine]:
    """A ledger that stands at an older migration, made as the code of that time made it."""
    with pytest.MonkeyPatch.context() as older:
        older.setattr(database_module, "HEAD", revision)
        older.setattr(database_module, "_migrate", partial(database_module._migrate, revision=revision))
        engine = database_module.open_engine(place.url, create=True)
    yield engine
    engine.dispose()


def write_as_before(connection: Connection, before: MetaData, one: Trace) -> None:
    """With the statements of that time: they name the columns of that time."""
    for table, rows in (
        ("traces", [trace_row(one, store_texts=True)]),
        ("attempts", attempt_rows(one, store_texts=True)),
    ):
        known = before.tables[table]
        connection.execute(known.insert(), [{c.name: row[c.name] for c in known.columns} for row in rows])
    connection.commit()


def test_head_is_the_newest_migration_and_revisions_are_ordered_numbers() -> None:
    revisions = [script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()]
    assert revisions[0] == HEAD
    assert revisions == sorted(revisions, reverse=True)
    assert all(len(revision) == 4 and revision.isdigit() for revision in revisions)


def test_migrations_lead_to_the_schema_the_code_uses(place: Place) -> None:
    with Ledger.open(place.url) as ledger, ledger.engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": VERSION_TABLE, "compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, metadata) == []


def test_a_column_that_the_version_before_does_not_know_may_be_left_out(bare_place: Place) -> None:
    with reading_at("0001", bare_place) as engine:
        before = MetaData()
        before.reflect(engine)
    Ledger.open(bare_place.url).close()
    with reading(bare_place.url) as engine:
        found = inspect(engine)
        for table in before.sorted_tables:
            columns = {column["name"]: column for column in found.get_columns(table.name)}
            for column in table.columns:
                assert str(columns.pop(column.name)["type"]) == str(column.type)
            assert all(column["nullable"] or column["default"] is not None for column in columns.values())


def test_a_replica_of_the_version_before_goes_on_writing_while_another_one_upgrades(bare_place: Place) -> None:
    with reading_at("0001", bare_place) as old_engine:
        before = MetaData()
        before.reflect(old_engine)
        with old_engine.connect() as old_replica:
            write_as_before(old_replica, before, trace(id="before", tiers=("small", "large")))
            with Ledger.open(bare_place.url) as ledger:
                asyncio.run(ledger.write(trace(id="new")))
                old = trace(id="old")
                write_as_before(old_replica, before, old)
                assert get_trace(ledger, "old") == old
                assert [(one.traces, one.deferred) for one in summary(ledger)] == [(3, 1)]
                assert roll_up(ledger) == 2
                assert roll_up(ledger) == 0
                assert [(one.traces, one.deferred) for one in summary(ledger)] == [(3, 1)]


def test_opening_makes_folder_and_file_readable_by_their_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "a folder" / "50% déjà?" / "ledger#1.db"
    with Ledger.open(url_of(path)) as ledger:
        asyncio.run(ledger.write(trace()))
        assert {
            file.stat().st_mode & 0o077 for file in path.parent.glob("ledger#1.db*") if ".lock" not in file.name
        } == {0}
    assert sql(path, "PRAGMA journal_mode") == [("wal",)]
    assert sql(path, "SELECT count(*) FROM traces") == [(1,)]


def test_the_default_ledger_lies_in_corea_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COREA_HOME", str(tmp_path / "home"))
    Ledger.open().close()
    assert (tmp_path / "home" / "ledger.db").exists()


def test_connections_wait_when_busy_keep_foreign_keys_and_skip_the_fsync(tmp_path: Path) -> None:
    with (
        Ledger.open(url_of(tmp_path / "ledger.db"), busy_timeout_s=1.5) as ledger,
        ledger.engine.connect() as connection,
    ):
        pragmas = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in (
            "busy_timeout", "foreign_keys", "synchronous", "journal_mode")]  # fmt: skip
    assert pragmas == [1500, 1, 1, "wal"]


def test_reading_where_there_is_no_ledger_says_so_and_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COREA_HOME", str(tmp_path / "home"))
    with pytest.raises(LedgerError, match=r"yet: it is written by the first `corea ask`$"), reading():
        pass
    assert not (tmp_path / "home").exists()


def test_reading_an_empty_file_says_there_is_no_ledger_yet(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").touch()
    with pytest.raises(LedgerError, match=r"no ledger at .* yet"), reading(url_of(tmp_path / "ledger.db")):
        pass
    assert [file.name for file in tmp_path.iterdir()] == ["ledger.db"]


def test_a_second_opening_does_not_import_alembic_or_take_the_lock(tmp_path: Path) -> None:
    url = url_of(tmp_path / "ledger.db")
    Ledger.open(url).close()
    code = (
        "import sys; from corea.ledger import Ledger; Ledger.open(sys.argv[1]).close();"
        "print([name for name in ('alembic', 'filelock') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, url], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_older_ledger_is_upgraded_and_keeps_its_traces(
    bare_place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = trace()
    with Ledger.open(bare_place.url) as ledger:
        asyncio.run(ledger.write(one))
    scripts = tmp_path / "100% migrations"
    shutil.copytree(MIGRATIONS, scripts)
    (scripts / "versions" / "9998_note.py").write_text(
        f"import sqlalchemy as sa\nfrom alembic import op\nrevision = '9998'\ndown_revision = '{HEAD}'\n"
        "def upgrade():\n    op.add_column('traces', sa.Column('remark', sa.Text))\n"
    )
    monkeypatch.setattr(database_module, "HEAD", "9998")
    monkeypatch.setattr(database_module, "MIGRATIONS", scripts)
    with reading(bare_place.url) as engine:
        assert get_trace(engine, one.id) == one
    stored = f"SELECT version_num, (SELECT remark FROM traces) FROM {VERSION_TABLE}"
    assert bare_place.sql(stored) == [("9998", None)]


def test_a_newer_ledger_is_refused_and_left_alone(bare_place: Place) -> None:
    Ledger.open(bare_place.url).close()
    bare_place.sql(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    bare_place.sql("UPDATE corea_ledger_compatible SET oldest = '9999'")
    assert "upgrade corea" in refusal(bare_place.url)
    assert bare_place.sql(f"SELECT version_num FROM {VERSION_TABLE}") == [("9999",)]


def test_a_newer_ledger_that_has_room_for_this_version_is_used(bare_place: Place) -> None:
    Ledger.open(bare_place.url).close()
    bare_place.sql(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    with Ledger.open(bare_place.url) as ledger:
        asyncio.run(ledger.write(trace(id="still")))
    assert bare_place.sql("SELECT id FROM traces") == [("still",)]
    assert bare_place.sql(f"SELECT version_num FROM {VERSION_TABLE}") == [("9999",)]


def test_a_migration_that_fails_leaves_no_half_schema(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"

    def fail_late(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "CREATE TABLE attempts" in statement:
            raise OSError(28, "No space left on device")

    event.listen(Engine, "before_cursor_execute", fail_late)
    try:
        assert "No space left" in refusal(url_of(path))
    finally:
        event.remove(Engine, "before_cursor_execute", fail_late)
    assert sql(path, "SELECT name FROM sqlite_master") == []
    Ledger.open(url_of(path)).close()


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("Dear diary, " * 100)
    assert "it is no ledger" in refusal(url_of(path))
    assert path.read_text() == "Dear diary, " * 100
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    sql(path, "CREATE TABLE bookmarks (id)")
    before = path.read_bytes()
    assert "another program's database (bookmarks)" in refusal(url_of(path))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["other.db"]


def test_a_folder_in_the_ledgers_place_is_refused(tmp_path: Path) -> None:
    assert "it must be a file" in refusal(url_of(tmp_path))


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "choose another one by COREA_HOME" in refusal(url_of(tmp_path / "file" / "ledger.db"))


@not_root
def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "make the file and its folder writable" in refusal(url_of(tmp_path / "ledger.db"))


def test_a_read_only_ledger_is_refused_for_writing_but_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = url_of(tmp_path / "ledger.db")
    Ledger.open(url).close()
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "is read-only: make the file and its folder writable" in refusal(url)
    with reading(url) as engine:
        assert list_traces(engine) == []


def test_a_locked_ledger_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    Ledger.open(url_of(path)).close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA locking_mode=EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(LedgerError, match="another process holds it; stop that one or try again"):
        Ledger.open(url_of(path), busy_timeout_s=0.05)
    other.close()


def test_a_ledger_being_prepared_for_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from filelock import FileLock

    monkeypatch.setattr(database_module, "PREPARE_TIMEOUT_S", 0.05)
    with FileLock(tmp_path / "ledger.db.lock"):
        assert "another process is preparing it" in refusal(url_of(tmp_path / "ledger.db"))


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_ledger_in_memory_is_refused(url: str) -> None:
    assert "lost at exit" in refusal(url)


def test_a_url_that_is_none_is_refused_without_repeating_it() -> None:
    message = refusal("postgres//me:secret@host")
    assert "write sqlite:///PATH" in message
    assert "secret" not in message


def test_an_unknown_kind_of_database_is_refused() -> None:
    message = refusal("oracl://me:secret@host/db")
    assert "write sqlite:///PATH or postgresql://" in message
    assert "secret" not in message


def test_a_deleted_ledger_is_not_silently_replaced_by_an_empty_one(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with Ledger.open(url_of(path)) as ledger:
        asyncio.run(ledger.write(trace()))
        for file in tmp_path.iterdir():
            file.unlink()
        with pytest.raises(LedgerError, match="put it back"):
            asyncio.run(ledger.write(trace()))
        assert not path.exists()
        Ledger.open(url_of(path)).close()
        asyncio.run(ledger.write(trace(id="in the new one")))
    assert sql(path, "SELECT id FROM traces") == [("in the new one",)]
