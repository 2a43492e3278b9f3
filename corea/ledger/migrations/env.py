"""Run by alembic, inside the transaction that ``corea.ledger.database`` opened. There is no alembic.ini."""

from __future__ import annotations

from alembic import context

from corea.ledger.schema import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
