"""A ledger in each kind of database, for what keys and limits keep there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from corea.ledger import Ledger
from ledger.stores import KINDS, Place, fresh


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with fresh(request.param, tmp_path) as found:
        yield found


@pytest.fixture
def ledger(place: Place) -> Iterator[Ledger]:
    with Ledger.open(place.url) as opened:
        yield opened
