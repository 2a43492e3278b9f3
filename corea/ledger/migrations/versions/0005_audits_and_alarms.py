"""What was audited, what came of it, and the alarms. Only adds, so 0004 may go on writing.

Imports nothing of ``corea.ledger.schema``: that one moves on, this one must not.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "audits",
        sa.Column("place", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("trace_id", sa.Text, nullable=False, unique=True),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("bar", sa.Float, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("questions", sa.Integer, nullable=False),
        sa.Column("propensity", sa.Float, nullable=False),
        sa.Column("uniform", sa.Boolean, nullable=False),
        sa.Column("agrees", sa.Boolean),
        sa.Column("was_right", sa.Boolean),
        sa.Column("harm_least", sa.Float),
        sa.Column("harm_most", sa.Float),
        sa.Column("cost_nano_usd", sa.BigInteger),
        sa.Column("reserved_nano_usd", sa.BigInteger, nullable=False),
        sa.Column("day", sa.Integer, nullable=False),
        sa.Column("asked_at_unix_s", sa.Float, nullable=False),
        sa.Column("ended_at_unix_s", sa.Float),
        sa.Column("why", sa.Text),
        sa.Column("revision", sa.Integer, nullable=False, server_default="0"),
    )
    op.create_index("ix_audits_task_epoch_place", "audits", ["task", "epoch", "place"])
    op.create_index("ix_audits_day", "audits", ["day"])
    op.create_index(
        "ix_audits_running",
        "audits",
        ["place"],
        sqlite_where=sa.text("state = 'running'"),
        postgresql_where=sa.text("state = 'running'"),
    )
    op.create_table(
        "alarms",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("raised_at_unix_s", sa.Float, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("limit", sa.Float, nullable=False),
        sa.Column("low", sa.Float, nullable=False),
        sa.Column("high", sa.Float, nullable=False),
        sa.Column("audited", sa.Integer, nullable=False),
        sa.Column("step_before", sa.Float),
        sa.Column("step_after", sa.Float),
        sa.Column("cleared_at_unix_s", sa.Float),
        sa.Column("cleared_epoch", sa.Integer),
        sa.Column("approved_by", sa.Text),
        sa.Column("approved_at_unix_s", sa.Float),
        sa.UniqueConstraint("name", "task", "epoch", name="uq_alarms_name_task_epoch"),
    )
