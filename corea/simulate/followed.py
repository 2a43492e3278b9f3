"""One request, followed on two ways: values only."""

from __future__ import annotations

from dataclasses import dataclass

from corea.simulate.estimate import Learned, Tokens
from corea.simulate.paths import Form, Path
from corea.simulate.traffic import Past


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One request on one way. ``more``: what an open way may cost on top. ``alone``: the last tier, asked at once.

    ``book`` says by which of the two price lists. ``latency_s`` is None where it can't be known.
    """

    path: Path
    book: int
    cost: Form
    more: Form
    alone: Form
    latency_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """One request, both ways, and where to look up what a tier would have cost it."""

    past: Past
    was: Way
    would: Way
    ladder: tuple[str, ...]
    learned: tuple[Learned, Learned]
    source: tuple[str, Tokens]

    @property
    def task(self) -> str | None:
        return self.past.trace.request.task
