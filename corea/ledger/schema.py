"""The ledger's tables, in types that SQLite and PostgreSQL share. Knows nothing of connections or of traces.

Change a table here and add a migration to ``migrations/versions``: tests hold the two, and ``HEAD``, together. A
migration only adds (tables, columns that are NULL or have a server default), because replicas of the version before
go on writing while it is applied; a test holds that too.
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
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
    text,
)

#: The newest migration. Revisions are zero-padded numbers, so "older" and "newer" are plain comparisons.
HEAD = "0005"
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

#: One row: the oldest code that may still use this schema, so that an old replica can restart during an upgrade.
compatible = Table("corea_ledger_compatible", metadata, Column("oldest", Text, primary_key=True))

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
    #: The virtual key and the profile the request came by, from the metadata; see ``records``.
    Column("key_id", AnyText),
    Column("profile", AnyText),
    #: False where a replica of an older version wrote the trace: ``rollups`` lacks it still.
    Column("rolled_up", Boolean, nullable=False, server_default=false()),
    Index("ix_traces_started_at_unix_s_id", "started_at_unix_s", "id"),
    Index(
        "ix_traces_not_rolled_up", "id", sqlite_where=text("rolled_up = 0"), postgresql_where=text("rolled_up = false")
    ),
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
    #: Which guard objected, which policy set the bar or had the last word, and why, in a few words.
    Column("guard", AnyText),
    Column("policy", AnyText),
    Column("note", AnyText),
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

#: Whether the answer handed out was right, by whoever said so. One source says one thing; saying it again replaces it.
feedback = Table(
    "feedback",
    metadata,
    Column("trace_id", AnyText, ForeignKey("traces.id"), primary_key=True),
    Column("source", AnyText, primary_key=True),
    Column("correct", Float, nullable=False),
    Column("note", AnyText),
    Column("at_unix_s", Float, nullable=False),
)

#: Upper edges, in seconds, of the latency histogram; the last bucket is open. OpenTelemetry's for GenAI durations.
LATENCY_EDGES_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
LATENCIES = tuple(f"latency_{i:02}" for i in range(len(LATENCY_EDGES_S) + 1))
#: What is added up.
SUMS = (
    "traces", "deferred", "errors", "cost_nano_usd", "cost_unknown", "saved_nano_usd", "saved_unknown",
    "prompt_tokens", "completion_tokens", "tokens_unknown", *LATENCIES,
)  # fmt: skip

#: Sums over an hour and over a day (``span_s``), which begin at ``start_unix_s`` (UTC). "" stands for none.
rollups = Table(
    "rollups",
    metadata,
    Column("span_s", Integer, primary_key=True, autoincrement=False),
    Column("start_unix_s", BigInteger, primary_key=True, autoincrement=False),
    Column("tier", AnyText, primary_key=True),
    Column("task", AnyText, primary_key=True),
    Column("key_id", AnyText, primary_key=True),
    Column("profile", AnyText, primary_key=True),
    *(Column(name, BigInteger, nullable=False) for name in SUMS),
)

keys = Table(
    "keys",
    metadata,
    Column("id", AnyText, primary_key=True),
    Column("name", AnyText, nullable=False),
    #: Names of the profiles it may use; NULL is every one.
    Column("profiles", JSON(none_as_null=True)),
    Column("task", AnyText),
    Column("requests_per_minute", BigInteger),
    Column("tokens_per_minute", BigInteger),
    Column("day_nano_usd", BigInteger),
    Column("month_nano_usd", BigInteger),
    Column("created_at_unix_s", Float, nullable=False),
    Column("expires_at_unix_s", Float),
    Column("revoked_at_unix_s", Float),
    #: Coarse: to the hour.
    Column("last_used_at_unix_s", Float),
)

#: A key has one secret, and while it is rotated two. ``prefix`` is the public part, by which it is found.
key_secrets = Table(
    "key_secrets",
    metadata,
    Column("prefix", AnyText, primary_key=True),
    Column("key_id", AnyText, ForeignKey("keys.id"), nullable=False, index=True),
    Column("hash", AnyText, nullable=False),
    #: Which server secret the hash was made with.
    Column("pepper_id", AnyText, nullable=False),
    Column("created_at_unix_s", Float, nullable=False),
    Column("expires_at_unix_s", Float),
)

#: What a key used in the last minute: [[second, requests, tokens], …], oldest first. The row is also the key's lock.
windows = Table(
    "windows",
    metadata,
    Column("key_id", AnyText, primary_key=True),
    Column("seconds", JSON(none_as_null=True), nullable=False),
)

#: Money set aside for requests that run; gone once the trace is written, not counted once expired.
reservations = Table(
    "reservations",
    metadata,
    Column("id", AnyText, primary_key=True),
    Column("key_id", AnyText, nullable=False, index=True),
    Column("nano_usd", BigInteger, nullable=False),
    Column("expires_at_unix_s", Float, nullable=False),
)

#: What a key spent on a day (days since 1970, UTC). Grows in the transaction that writes the trace.
spend = Table(
    "spend",
    metadata,
    Column("key_id", AnyText, primary_key=True),
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("nano_usd", BigInteger, nullable=False),
)

#: Answers kept for clients who ask again with the same Idempotency-Key; no status while the first is worked on.
replays = Table(
    "replays",
    metadata,
    #: Of the caller and the key, and of the request: keyed hashes.
    Column("id", AnyText, primary_key=True),
    Column("fingerprint", AnyText, nullable=False),
    #: Whose claim it is.
    Column("holder", AnyText, nullable=False),
    Column("status", Integer),
    Column("headers", JSON(none_as_null=True)),
    Column("body", LargeBinary),
    Column("expires_at_unix_s", Float, nullable=False, index=True),
)

#: The audit's evidence, in the order in which lots were drawn; run-length: a row without an audit stands for several
#: questions. No foreign key: the evidence outlives pruned traces, and holds no texts.
audits = Table(
    "audits",
    metadata,
    Column("place", Integer, primary_key=True, autoincrement=True),
    #: The question's; of several, the last one's.
    Column("trace_id", AnyText, nullable=False, unique=True),
    #: Whose watch it is: a task, or "" for all that have none of their own.
    Column("task", AnyText, nullable=False),
    #: Which step was in force, and how often that had changed.
    Column("epoch", Integer, nullable=False),
    Column("bar", Float, nullable=False),
    #: passed (deferred, or kept and not drawn), paused, or deferred and in the fair sample; drawn ones are running,
    #: then done, failed or lost.
    Column("state", AnyText, nullable=False),
    Column("questions", Integer, nullable=False),
    #: With which probability a kept answer was to be audited.
    Column("propensity", Float, nullable=False),
    #: Whether its lot is below the least share: such rows are a fair sample of all questions, deferred ones too.
    Column("uniform", Boolean, nullable=False),
    #: Whether the small model's answer and the large one's are the same; NULL where nobody knows.
    Column("agrees", Boolean),
    #: What feedback says of the answer handed out.
    Column("was_right", Boolean),
    #: Of the drop; see ``corea.audit.harm``.
    Column("harm_least", Float),
    Column("harm_most", Float),
    #: Never part of the answer's cost. NULL: unknown, and what was reserved counts.
    Column("cost_nano_usd", BigInteger),
    Column("reserved_nano_usd", BigInteger, nullable=False),
    #: Days since 1970, UTC.
    Column("day", Integer, nullable=False),
    Column("asked_at_unix_s", Float, nullable=False),
    Column("ended_at_unix_s", Float),
    #: Why it failed.
    Column("why", AnyText),
    #: How often the row was changed after it had ended.
    Column("revision", Integer, nullable=False, server_default="0"),
    Index("ix_audits_task_epoch_place", "task", "epoch", "place"),
    Index("ix_audits_day", "day"),
    Index(
        "ix_audits_running",
        "place",
        sqlite_where=text("state = 'running'"),
        postgresql_where=text("state = 'running'"),
    ),
)

#: One a task and epoch, whichever replica saw it first. Open until it is cleared; a step of NULL is to always defer.
alarms = Table(
    "alarms",
    metadata,
    Column("id", AnyText, primary_key=True),
    Column("name", AnyText, nullable=False),
    Column("task", AnyText, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("raised_at_unix_s", Float, nullable=False),
    Column("text", AnyText, nullable=False),
    Column("limit", Float, nullable=False),
    Column("low", Float, nullable=False),
    Column("high", Float, nullable=False),
    Column("audited", Integer, nullable=False),
    Column("step_before", Float),
    Column("step_after", Float),
    Column("cleared_at_unix_s", Float),
    #: The epoch that began when it was cleared.
    Column("cleared_epoch", Integer),
    Column("approved_by", AnyText),
    Column("approved_at_unix_s", Float),
    UniqueConstraint("name", "task", "epoch", name="uq_alarms_name_task_epoch"),
)
