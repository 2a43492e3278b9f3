"""Feedback, roll-ups, keys and their limits. Only adds, so 0001 may go on writing.

Imports nothing of ``corea.ledger.schema``: that one moves on, this one must not.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_LATENCIES = tuple(f"latency_{i:02}" for i in range(15))
_SUMS = (
    "traces", "deferred", "errors", "cost_nano_usd", "cost_unknown", "saved_nano_usd", "saved_unknown",
    "prompt_tokens", "completion_tokens", "tokens_unknown", *_LATENCIES,
)  # fmt: skip


def upgrade() -> None:
    _compatible_since("0001")
    op.add_column("traces", sa.Column("key_id", sa.Text))
    op.add_column("traces", sa.Column("profile", sa.Text))
    op.add_column("traces", sa.Column("rolled_up", sa.Boolean, nullable=False, server_default=sa.false()))
    op.create_index(
        "ix_traces_not_rolled_up",
        "traces",
        ["id"],
        sqlite_where=sa.text("rolled_up = 0"),
        postgresql_where=sa.text("rolled_up = false"),
    )
    op.create_table(
        "feedback",
        sa.Column("trace_id", sa.Text, sa.ForeignKey("traces.id"), primary_key=True),
        sa.Column("source", sa.Text, primary_key=True),
        sa.Column("correct", sa.Float, nullable=False),
        sa.Column("note", sa.Text),
        sa.Column("at_unix_s", sa.Float, nullable=False),
    )
    op.create_table(
        "rollups",
        sa.Column("span_s", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("start_unix_s", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("tier", sa.Text, primary_key=True),
        sa.Column("task", sa.Text, primary_key=True),
        sa.Column("key_id", sa.Text, primary_key=True),
        sa.Column("profile", sa.Text, primary_key=True),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in _SUMS),
    )
    _create_keys()
    op.create_table(
        "windows",
        sa.Column("key_id", sa.Text, primary_key=True),
        sa.Column("seconds", sa.JSON, nullable=False),
    )
    op.create_table(
        "reservations",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("key_id", sa.Text, nullable=False, index=True),
        sa.Column("nano_usd", sa.BigInteger, nullable=False),
        sa.Column("expires_at_unix_s", sa.Float, nullable=False),
    )
    op.create_table(
        "spend",
        sa.Column("key_id", sa.Text, primary_key=True),
        sa.Column("day", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("nano_usd", sa.BigInteger, nullable=False),
    )


def _compatible_since(revision: str) -> None:
    table = op.create_table("corea_ledger_compatible", sa.Column("oldest", sa.Text, primary_key=True))
    op.bulk_insert(table, [{"oldest": revision}])


def _create_keys() -> None:
    op.create_table(
        "keys",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("profiles", sa.JSON),
        sa.Column("task", sa.Text),
        sa.Column("requests_per_minute", sa.BigInteger),
        sa.Column("tokens_per_minute", sa.BigInteger),
        sa.Column("day_nano_usd", sa.BigInteger),
        sa.Column("month_nano_usd", sa.BigInteger),
        sa.Column("created_at_unix_s", sa.Float, nullable=False),
        sa.Column("expires_at_unix_s", sa.Float),
        sa.Column("revoked_at_unix_s", sa.Float),
        sa.Column("last_used_at_unix_s", sa.Float),
    )
    op.create_table(
        "key_secrets",
        sa.Column("prefix", sa.Text, primary_key=True),
        sa.Column("key_id", sa.Text, sa.ForeignKey("keys.id"), nullable=False, index=True),
        sa.Column("hash", sa.Text, nullable=False),
        sa.Column("pepper_id", sa.Text, nullable=False),
        sa.Column("created_at_unix_s", sa.Float, nullable=False),
        sa.Column("expires_at_unix_s", sa.Float),
    )
