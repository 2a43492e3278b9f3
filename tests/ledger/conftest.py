from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.stores import KINDS, Place, bare, fresh


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """An empty ledger, once in SQLite and once in PostgreSQL."""
    with fresh(request.param, tmp_path) as found:
        yield found


@pytest.fixture(params=KINDS)
def bare_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with bare(request.param, tmp_path) as found:
        yield found
