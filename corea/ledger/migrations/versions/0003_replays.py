"""Answers kept for Idempotency-Key. Only adds, so 0002 may go on writing.

Imports nothing of ``corea.ledger.schema``: that one moves on, this one must not.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "replays",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("status", sa.Integer),
        sa.Column("headers", sa.JSON),
        sa.Column("body", sa.LargeBinary),
        sa.Column("expires_at_unix_s", sa.Float, nullable=False, index=True),
    )
