"""Which guard objected to an attempt, which policy decided, and why. Only adds, so 0003 may go on writing.

Imports nothing of ``corea.ledger.schema``: that one moves on, this one must not.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    for name in ("guard", "policy", "note"):
        op.add_column("attempts", sa.Column(name, sa.Text))
