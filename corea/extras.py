"""What a command or an integration needs beyond the plain installation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from corea.errors import ExtraMissing


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Imports inside come with ``pip install corea[name]``; a missing one says so."""
    try:
        yield
    except ModuleNotFoundError as exc:
        raise ExtraMissing(package=(exc.name or name).partition(".")[0], extra=name) from exc
