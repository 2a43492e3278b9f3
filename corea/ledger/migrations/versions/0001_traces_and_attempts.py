"""The first schema. A migration never imports ``corea.ledger.schema``: that one moves on, this one must not."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "traces",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("request_id", sa.Text),
        sa.Column("task", sa.Text),
        sa.Column("kind", sa.Text),
        sa.Column("messages", sa.JSON),
        sa.Column("answer", sa.Text),
        sa.Column("text", sa.Text),
        sa.Column("tier", sa.Text),
        sa.Column("confidence", sa.Float),
        sa.Column("deferred", sa.Boolean, nullable=False),
        sa.Column("error", sa.Boolean, nullable=False),
        sa.Column("final", sa.Integer),
        sa.Column("cost_nano_usd", sa.BigInteger),
        sa.Column("baseline_nano_usd", sa.BigInteger),
        sa.Column("saved_nano_usd", sa.BigInteger),
        sa.Column("started_at_unix_s", sa.Float, nullable=False),
        sa.Column("elapsed_s", sa.Float, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("prices_version", sa.Text, nullable=False),
        sa.Column("metadata", sa.JSON, nullable=False),
    )
    op.create_index("ix_traces_started_at_unix_s_id", "traces", ["started_at_unix_s", "id"])
    op.create_table(
        "attempts",
        sa.Column("trace_id", sa.Text, sa.ForeignKey("traces.id"), primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("tier", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("keep", sa.Boolean, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("threshold", sa.Float),
        sa.Column("confidence", sa.Float),
        sa.Column("confidence_source", sa.Text, nullable=False),
        sa.Column("confidence_note", sa.Text),
        sa.Column("text", sa.Text),
        sa.Column("answer", sa.Text),
        sa.Column("finish_reason", sa.Text),
        sa.Column("prompt_tokens", sa.BigInteger),
        sa.Column("cached_prompt_tokens", sa.BigInteger),
        sa.Column("completion_tokens", sa.BigInteger),
        sa.Column("reasoning_tokens", sa.BigInteger),
        sa.Column("confidence_prompt_tokens", sa.BigInteger),
        sa.Column("confidence_cached_prompt_tokens", sa.BigInteger),
        sa.Column("confidence_completion_tokens", sa.BigInteger),
        sa.Column("confidence_reasoning_tokens", sa.BigInteger),
        sa.Column("cost_nano_usd", sa.BigInteger),
        sa.Column("latency_s", sa.Float, nullable=False),
        sa.Column("failure_kind", sa.Text),
        sa.Column("failure_message", sa.Text),
    )
