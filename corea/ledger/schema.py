"""The ledger's two tables, in types that SQLite and PostgreSQL share. Knows nothing of connections or of traces.

Change a table here and add a migration to ``migrations/versions``: tests hold the two, and ``HEAD``, together.
"""

from __future__ import annotations

import re

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
)

#: The newest migration. Revisions are zero-padded numbers, so "older" and "newer" are plain comparisons.
HEAD = "0001"
#: Not alembic's default name: a PostgreSQL schema may be shared with another program that uses alembic.
VERSION_TABLE = "corea_ledger_version"

_UNSTORABLE = re.compile("[\x00\x1a\ud800-\udfff]")
_ESCAPED = re.compile("\x1a([0-9a-f]{4})")


def escape(text: str) -> str:
    """Text that any database can hold, and that ``unescape`` turns back.

    PostgreSQL refuses NUL, and neither database takes a lone surrogate; models send both. Each becomes SUB (U+001A)
    and four hex digits, and so does SUB itself. All other text is stored as it is.
    """
    if text.isascii() and "\x00" not in text and "\x1a" not in text:
        return text
    return _UNSTORABLE.sub(lambda match: f"\x1a{ord(match[0]):04x}", text)


def unescape(text: str) -> str:
    if "\x1a" not in text:
        return text
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text)


class AnyText(TypeDecorator[str]):
    """A text column that takes every Python string; see ``escape``."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else escape(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else unescape(value)


metadata = MetaData()

traces = Table(
    "traces",
    metadata,
    Column("id", AnyText, primary_key=True),
    Column("request_id", AnyText),
    Column("task", AnyText),
    Column("kind", AnyText),
    #: [{"role": …, "content": …}, …]; NULL when texts are not stored.
    Column("messages", JSON(none_as_null=True)),
    Column("answer", AnyText),
    Column("text", AnyText),
    Column("tier", AnyText),
    Column("confidence", Float),
    Column("deferred", Boolean, nullable=False),
    #: True when no tier answered.
    Column("error", Boolean, nullable=False),
    #: Position of the attempt whose answer was handed out.
    Column("final", Integer),
    Column("cost_nano_usd", BigInteger),
    Column("baseline_nano_usd", BigInteger),
    Column("saved_nano_usd", BigInteger),
    Column("started_at_unix_s", Float, nullable=False),
    Column("elapsed_s", Float, nullable=False),
    Column("fingerprint", AnyText, nullable=False),
    Column("prices_version", AnyText, nullable=False),
    Column("metadata", JSON(none_as_null=True), nullable=False),
    Index("ix_traces_started_at_unix_s_id", "started_at_unix_s", "id"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("trace_id", AnyText, ForeignKey("traces.id"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("tier", AnyText, nullable=False),
    Column("model", AnyText, nullable=False),
    Column("keep", Boolean, nullable=False),
    Column("reason", AnyText, nullable=False),
    Column("threshold", Float),
    Column("confidence", Float),
    Column("confidence_source", AnyText, nullable=False),
    Column("confidence_note", AnyText),
    Column("text", AnyText),
    Column("answer", AnyText),
    Column("finish_reason", AnyText),
    #: The four counts are NULL together when the server did not count.
    Column("prompt_tokens", BigInteger),
    Column("cached_prompt_tokens", BigInteger),
    Column("completion_tokens", BigInteger),
    Column("reasoning_tokens", BigInteger),
    Column("confidence_prompt_tokens", BigInteger),
    Column("confidence_cached_prompt_tokens", BigInteger),
    Column("confidence_completion_tokens", BigInteger),
    Column("confidence_reasoning_tokens", BigInteger),
    Column("cost_nano_usd", BigInteger),
    Column("latency_s", Float, nullable=False),
    Column("failure_kind", AnyText),
    Column("failure_message", AnyText),
)
